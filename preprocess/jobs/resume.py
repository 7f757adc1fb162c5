"""What earlier runs left of a job's blocks: whole results, records of a block that was cut off, finished shards.

A run that was stopped, by whatever, leaves in the job's folder of parts: for each finished block a result beside its
shard and ledgers; on local disks, for a block in the middle, a shard that ends somewhere. Both are used by the next
run, so what was embedded is not embedded again.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import posixpath
import zlib
from collections.abc import Mapping

from configs.errors import InputError
from preprocess.engines.base import Engine, EngineInfo
from preprocess.jobs.block_results import BlockResult, PartFile
from preprocess.jobs.job import Job
from preprocess.jobs.set_files import RESULT_SUFFIX, digest_of, own_path, read_block_results
from preprocess.lists.blocks import BLOCK_NAME_LENGTH, RowBlock
from preprocess.lists.outcomes import RowFailure
from preprocess.records.backbone_identity import BackboneIdentity
from preprocess.records.example import DecodedExample, decode_example
from preprocess.records.record_set import FAILED_NAME, sidecar_path
from preprocess.records.tfrecord import whole_records
from preprocess.storage.base import PARTIAL_SUFFIX, Storage, read_file
from preprocess.storage.uris import has_scheme

_GZIP_WBITS = 31
_SHARD_SUFFIXES = (".tfrecord", ".tfrecord.gz")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarlierBlock:
    """What is known of a block before it is embedded.

    Attributes:
      result: the block is done, and this is what became of it; None if something is left to do.
      records: records of the block that need not be embedded again, by URI.
      failures: rows that failed and are not to be tried again, by line.
    """

    result: BlockResult | None = None
    records: Mapping[str, DecodedExample] = dataclasses.field(default_factory=dict)
    failures: Mapping[int, RowFailure] = dataclasses.field(default_factory=dict)


NOTHING_KNOWN = EarlierBlock()


def engine_tag(engine: Engine) -> str:
    """8 hex digits that stand for what makes an engine's numbers: part of the names of its shards.

    The records of a shard that was cut off are used again only by an engine with the same tag.
    """
    made_by = [engine.identity.network, engine.info.arithmetic, *engine.info.libraries]
    return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()[:8]


def recover_records(data: bytes, *, gzipped: bool) -> dict[str, DecodedExample]:
    """The records that can be read of a shard that may end anywhere, by URI."""
    if gzipped:
        try:
            data = zlib.decompressobj(_GZIP_WBITS).decompress(data)
        except zlib.error:
            return {}
    records = {}
    for record in whole_records(data):
        try:
            example = decode_example(record)
        except ValueError:
            break
        records[example.image_uri] = example
    return records


class EarlierWork:
    """Looks up what earlier runs left; lists the folder of parts once, when it is made.

    Args:
      storage: where parts and set lie.
      job: the job.
      engine: what this run embeds with; what other numbers come from is of no use.

    Raises:
      OSError: storage failed.
    """

    def __init__(self, storage: Storage, job: Job, engine: Engine):
        self._storage = storage
        self._job = job
        self._identity: BackboneIdentity = engine.identity
        self._engine: EngineInfo = engine.info
        self._tag = engine_tag(engine)
        self._files: dict[str, list[str]] = collections.defaultdict(list)
        self._sizes = storage.sizes(f"{job.parts_dir}/*")
        for path in sorted(self._sizes):
            self._files[posixpath.basename(path)[:BLOCK_NAME_LENGTH]].append(path)
        self._finished: dict[tuple[int, int], BlockResult] = {}
        self._failed_lines: dict[tuple[str, int], RowFailure] = {}
        if job.retry is not None and job.retry.of_finished_set:
            self._sizes |= storage.sizes(f"{job.output_prefix}-*")
            self._finished = {result.order: result for result in read_block_results(job.output_prefix, storage)}
            self._failed_lines = self._read_ledger()

    def _read_ledger(self) -> dict[tuple[str, int], RowFailure]:
        """The failures of the finished set by (list, line); those that cannot be read are tried again, like any row."""
        failures = {}
        try:
            lines = read_file(self._storage, sidecar_path(self._job.output_prefix, FAILED_NAME)).splitlines()
        except FileNotFoundError:
            return {}
        for line in lines:
            try:
                entry = json.loads(line)
                failure = RowFailure(entry["stage"], entry["reason"], entry["message"])
                failures[entry["list"], entry["line"]] = failure
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue
        return failures

    def find(self, block: RowBlock) -> EarlierBlock:
        """What is known of a block."""
        retry = self._job.retry
        done = self._result_in_parts(block)
        if done is not None:
            if retry is None or not any(retry.wants(reason) for reason in done.failed):
                return EarlierBlock(result=done.of_earlier_run())
            return EarlierBlock(records=self._records_of(done))
        finished = self._finished.get((block.list_index, block.block_index))
        if finished is not None and retry is not None:
            is_whole = self._has_our_numbers(finished) and finished.rows == len(block.rows)
            is_whole = is_whole and (finished.shard is None or self._is_whole(finished.shard))
            if is_whole and not finished.failed and not finished.skipped:
                return EarlierBlock(result=finished.of_earlier_run())
            failures = {
                row.line: failure
                for row in block.rows
                if (failure := self._failed_lines.get((block.list_path, row.line))) and not retry.wants(failure.reason)
            }
            return EarlierBlock(records=self._records_of(finished), failures=failures)
        return EarlierBlock(records=self._records_cut_off(block))

    def _result_in_parts(self, block: RowBlock) -> BlockResult | None:
        for path in self._files.get(block.name, ()):
            if path.endswith(RESULT_SUFFIX):
                try:
                    result = BlockResult.from_json(read_file(self._storage, path), where=path)
                except (InputError, FileNotFoundError):
                    continue
                if (
                    result.order == (block.list_index, block.block_index)
                    and self._has_our_numbers(result)
                    and result.rows == len(block.rows)
                    and all(self._is_whole(part) for part in result.parts)
                ):
                    return result
        return None

    def _path_of(self, part: PartFile) -> str | None:
        """Where a part lies; None if its name is not that of a file of the set."""
        try:
            return own_path(self._job.output_prefix, part.name, where=self._job.parts_dir)
        except InputError:
            return None

    def _is_whole(self, part: PartFile) -> bool:
        """Whether a part is what was written.

        Told by its size; on local disks, which a power cut may leave with other bytes, by its digest as well. Object
        stores compare checksums by themselves.
        """
        path = self._path_of(part)
        if path is None or self._sizes.get(path) != part.num_bytes:
            return False
        if has_scheme(path):
            return True
        try:
            return digest_of(path, self._storage) == (part.num_bytes, part.sha256)
        except FileNotFoundError:
            return False

    def _has_our_numbers(self, result: BlockResult) -> bool:
        return result.backbone.agrees_with(self._identity) and result.engine.same_numbers_as(self._engine)

    def _records_of(self, result: BlockResult) -> dict[str, DecodedExample]:
        if result.shard is None or not self._has_our_numbers(result):
            return {}
        path = self._path_of(result.shard)
        return self._recover(path) if path is not None else {}

    def _records_cut_off(self, block: RowBlock) -> dict[str, DecodedExample]:
        records: dict[str, DecodedExample] = {}
        for path in self._files.get(block.name, ()):
            name = posixpath.basename(path).removesuffix(PARTIAL_SUFFIX)
            if name.startswith(f"{block.name}-{self._tag}-") and name.endswith(_SHARD_SUFFIXES):
                records.update(self._recover(path))
        return records

    def _recover(self, path: str) -> dict[str, DecodedExample]:
        try:
            data = read_file(self._storage, path)
        except FileNotFoundError:
            return {}
        return recover_records(data, gzipped=path.removesuffix(PARTIAL_SUFFIX).endswith(".gz"))
