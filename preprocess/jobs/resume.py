"""Resuming a job: finds the finished blocks, the records of unfinished blocks and the shards that earlier runs left.

A run that was stopped leaves files in the job's folder of parts. For each finished block there is a result beside its
shard and its lists of failed and skipped rows. On local disks there may also be the incomplete shard of a block that
was not finished. The next run uses both, so no image is embedded twice.
"""

from __future__ import annotations

import collections
import dataclasses
import glob
import hashlib
import json
import posixpath
import zlib
from collections.abc import Mapping

from configs.errors import InputError
from preprocess.engines.base import EmbeddingSource, EngineInfo
from preprocess.jobs.block_results import BlockResult, PartFile, StoredResult
from preprocess.jobs.finished_blocks import DeadLetters, FinishedBlocks
from preprocess.jobs.job import RESULT_SUFFIX, Job
from preprocess.jobs.set_files import digest_of, name_of_part, own_path
from preprocess.jobs.stored_results import is_kept_result, kept_result_path
from preprocess.lists.blocks import BLOCK_NAME_LENGTH, RowBlock
from preprocess.lists.outcomes import RowFailure
from preprocess.records.backbone_identity import BackboneIdentity
from preprocess.records.example import DecodedExample, decode_example
from preprocess.records.tfrecord import whole_records
from preprocess.storage.base import PARTIAL_SUFFIX, Storage, read_file, write_file
from preprocess.storage.uris import has_scheme

_GZIP_WBITS = 31
_SHARD_SUFFIXES = (".tfrecord", ".tfrecord.gz")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResumedBlock:
    """What earlier runs left of a block.

    Attributes:
      result: the result of the block if it is finished; None if work is left.
      records: records of the block that need not be embedded again, by URI.
      failures: rows that failed and are not tried again, by line.
    """

    result: BlockResult | None = None
    records: Mapping[str, DecodedExample] = dataclasses.field(default_factory=dict)
    failures: Mapping[int, RowFailure] = dataclasses.field(default_factory=dict)


NOTHING_KNOWN = ResumedBlock()


def engine_tag(engine: EmbeddingSource) -> str:
    """8 hex digits that identify everything that decides an engine's numbers. They are part of the names of shards.

    The records of an incomplete shard are used again only by an engine with the same tag.
    """
    made_by = [engine.identity.network, engine.info.arithmetic, *engine.info.libraries]
    return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()[:8]


def recover_records(data: bytes, *, gzipped: bool) -> dict[str, DecodedExample]:
    """The complete records of a shard that may be truncated at any byte, by URI."""
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


class ResumeIndex:
    """Looks up what earlier runs left of each block. It lists the folder of parts once, when it is created.

    Args:
      storage: where the parts and the set lie.
      job: the job.
      engine: the engine of this run; parts whose numbers another engine made are not used.

    Raises:
      OSError: storage failed.
    """

    def __init__(self, storage: Storage, job: Job, engine: EmbeddingSource):
        self._storage = storage
        self._job = job
        self._identity: BackboneIdentity = engine.identity
        self._engine: EngineInfo = engine.info
        self._tag = engine_tag(engine)
        self._files: dict[str, list[str]] = collections.defaultdict(list)
        self._sizes = storage.sizes(f"{glob.escape(job.parts_dir)}/*")
        for path in sorted(self._sizes):
            self._files[posixpath.basename(path)[:BLOCK_NAME_LENGTH]].append(path)
        self._finished: FinishedBlocks | None = None
        self._dead_letters: DeadLetters | None = None
        if job.retry is not None and job.retry.of_finished_set:
            self._sizes |= storage.sizes(f"{glob.escape(job.output_prefix)}-*")
            self._finished = FinishedBlocks(job.output_prefix, storage)
            self._dead_letters = DeadLetters(job.output_prefix, storage)

    def find(self, block: RowBlock) -> ResumedBlock:
        """What earlier runs left of a block."""
        retry = self._job.retry
        done = self._result_in_parts(block)
        if done is not None:
            if retry is None or not any(retry.wants(reason) for reason in done.failed):
                return ResumedBlock(result=done.of_earlier_run())
            return ResumedBlock(records=self._records_of(done))
        finished = self._finished.find(block) if self._finished is not None else None
        if finished is not None and retry is not None and self._dead_letters is not None:
            is_whole = self._has_our_numbers(finished) and finished.rows == len(block.rows)
            is_whole = is_whole and (finished.shard is None or self._is_whole(finished.shard))
            if is_whole and not finished.failed and not finished.skipped:
                return ResumedBlock(result=self._stored(finished).of_earlier_run())
            known = self._dead_letters.failures_of(block)
            failures = {line: failure for line, failure in known.items() if not retry.wants(failure.reason)}
            return ResumedBlock(records=self._records_of(finished), failures=failures)
        return ResumedBlock(records=self._records_cut_off(block))

    def _stored(self, finished: BlockResult) -> BlockResult:
        """Writes the result of a block of the finished set, where the last step finds those of all blocks."""
        path = kept_result_path(self._job, finished)
        write_file(self._storage, path, finished.to_json_line(), durable=False)
        return dataclasses.replace(finished, stored=StoredResult(name_of_part(path)))

    def _result_in_parts(self, block: RowBlock) -> BlockResult | None:
        for path in self._files.get(block.name, ()):
            if path.endswith(RESULT_SUFFIX) and not is_kept_result(path):
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
                    return dataclasses.replace(result, stored=StoredResult(name_of_part(path)))
        return None

    def _path_of(self, part: PartFile) -> str | None:
        """The path of a part; None if its name cannot be that of a file of the set."""
        try:
            return own_path(self._job.output_prefix, part.name, where=self._job.parts_dir)
        except InputError:
            return None

    def _is_whole(self, part: PartFile) -> bool:
        """Whether a part is what was written.

        The size must agree. On local disks, where a power cut may have changed bytes, the digest must agree too. Object
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
