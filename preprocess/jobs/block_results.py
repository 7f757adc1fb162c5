"""The result of a block: small, sent back by the worker, and also stored beside the files of the block."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import posixpath
from collections.abc import Mapping
from typing import Any

import numpy as np

from configs.errors import InputError
from configs.json_text import json_line
from preprocess.engines.base import EngineInfo
from preprocess.records.backbone_identity import BackboneIdentity

# The sources of an embedding.
COMPUTED = "computed"
COPIED = "copied"  # of another row of this run, whose image file has the same bytes
FROM_CACHE = "cache"
FROM_EARLIER_RUN = "earlier_run"
IMPORTED = "imported"

CONTENT_DTYPE = np.dtype([("image", "V16"), ("labels", "<u8")])
"""The digests of a record: the first half of the SHA-256 of its image file, and its `label_key`."""


@dataclasses.dataclass(frozen=True, slots=True)
class PartFile:
    """A file that one block wrote: name, records or lines, bytes, SHA-256.

    The name is relative to the set's own folder (`jobs.set_files.own_path` gives the path). So a set that was copied or
    moved names its own files and no others.
    """

    name: str
    records: int
    num_bytes: int
    sha256: str

    @classmethod
    def from_json(cls, data: Any) -> PartFile | None:
        """Reads what `dataclasses.asdict` gives for a part, or None. Raises TypeError, ValueError or KeyError."""
        if data is None:
            return None
        if "path" in data:
            # Earlier versions stored whole paths. In a finished set these are paths of shards in the set's folder.
            data = {"name": posixpath.basename(data["path"])} | {key: data[key] for key in data if key != "path"}
        part = cls(**data)
        if not isinstance(part.name, str) or not isinstance(part.sha256, str):
            raise TypeError(f"texts are wanted, not {part.name!r} and {part.sha256!r}")
        if any(type(count) is not int or count < 0 for count in (part.records, part.num_bytes)):
            raise ValueError(f"counts are wanted, not {part.records!r} and {part.num_bytes!r}")
        return part


@dataclasses.dataclass(frozen=True, slots=True)
class StoredResult:
    """The name of the file that holds the result of a block, which is all that passes a runner.

    Attributes:
      name: of the file, relative to the set's folder as in `PartFile`.
      of_earlier_run: whether an earlier run wrote it; then it counts as `BlockResult.of_earlier_run` gives it.
    """

    name: str
    of_earlier_run: bool = False


def stored_name(result: BlockResult) -> StoredResult:
    """The name of the file that holds a result.

    Raises:
      ValueError: no file of parts holds it.
    """
    if result.stored is None:
        raise ValueError(f"the result of block {result.order} is in no file")
    return result.stored


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BlockResult:
    """The result of one block: how its rows ended, and which files it wrote.

    Attributes:
      order: (list_index, block_index).
      rows: rows of the block.
      sources: rows that became records, by the source of the embedding.
      failed: failed rows by reason.
      skipped: skipped rows by rule.
      label_counts: records by label id; a record with several labels counts for each of them.
      unlabeled: records without a label.
      content: digests of the records in order: the bytes of an array of `CONTENT_DTYPE`.
      shard: the file of records; None if there are no records.
      failed_ledger: the block's dead letters as JSON lines; None if there are none. The names of this field and the
        next are keys of files on disk, so they stay.
      skipped_ledger: the skipped rows as JSON lines; None if there are none.
      backbone: the network that made the embeddings.
      engine: the engine that ran the network.
      read_bytes: bytes of the image files that were decoded or found in the cache; 0 in results of earlier versions.
      read_sec: seconds spent reading, summed over the images; threads overlap.
      decode_sec: seconds spent decoding, summed over the images.
      waited_for_images_sec: seconds in which no image was ready for the engine.
      waited_for_engine_sec: seconds in which images were ready and the engine was still busy with earlier ones.
      first_batch_at: when the engine gave the first embeddings of the block, in seconds since 1970; 0 if it gave none.
      first_batch_images: how many those were.
      last_batch_at: when it gave the last ones.
      stored: the file of parts that holds this result; None if it is in no such file. It is not part of the file.
    """

    order: tuple[int, int]
    rows: int
    sources: Mapping[str, int]
    failed: Mapping[str, int]
    skipped: Mapping[str, int]
    label_counts: Mapping[int, int]
    unlabeled: int
    content: bytes
    shard: PartFile | None
    failed_ledger: PartFile | None
    skipped_ledger: PartFile | None
    backbone: BackboneIdentity
    engine: EngineInfo
    read_bytes: int = 0
    read_sec: float = 0.0
    decode_sec: float = 0.0
    waited_for_images_sec: float = 0.0
    waited_for_engine_sec: float = 0.0
    first_batch_at: float = 0.0
    first_batch_images: int = 0
    last_batch_at: float = 0.0
    stored: StoredResult | None = dataclasses.field(default=None, compare=False)

    @property
    def embedded(self) -> int:
        """Rows that became records."""
        return sum(self.sources.values())

    def _require_sound(self) -> None:
        """Raises TypeError or ValueError for values that are valid JSON and that no block can have."""
        if self.stored is not None:
            raise ValueError("a result does not say in which file it is")
        by_reason = (self.sources, self.failed, self.skipped)
        texts = [text for counts in by_reason for text in counts]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError(f"texts are wanted, not {texts!r}")
        numbers = [*self.order, self.rows, self.unlabeled, self.read_bytes, self.first_batch_images, *self.label_counts]
        for counts in (*by_reason, self.label_counts):
            numbers += counts.values()
        if any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError("a count is not a whole number, or negative")
        times = [self.read_sec, self.decode_sec, self.waited_for_images_sec, self.waited_for_engine_sec]
        times += [self.first_batch_at, self.last_batch_at]
        if any(type(seconds) not in (int, float) or not math.isfinite(seconds) for seconds in times):
            raise ValueError(f"a time is no number of seconds: {times!r}")
        if self.rows != self.embedded + sum(self.failed.values()) + sum(self.skipped.values()):
            raise ValueError(f"the outcomes of its {self.rows} rows do not add up")
        if self.embedded != (self.shard.records if self.shard is not None else 0):
            raise ValueError(f"{self.embedded} rows were embedded, and its shard has another number of records")
        if len(self.content) != self.embedded * CONTENT_DTYPE.itemsize:
            raise ValueError(f"{len(self.content)} bytes are remembered of {self.embedded} records")
        hash((self.backbone, self.engine))  # TypeError for a list where a text is wanted.

    @property
    def parts(self) -> tuple[PartFile, ...]:
        """The files that the block wrote."""
        return tuple(part for part in (self.shard, self.failed_ledger, self.skipped_ledger) if part is not None)

    def summary(self) -> BlockResult:
        """The result without what it says of its records, which is most of it: `content` and `label_counts`."""
        return dataclasses.replace(self, content=b"", label_counts={})

    def of_earlier_run(self) -> BlockResult:
        """The same result as a later run counts it: all records are from an earlier run, and no time was spent."""
        return dataclasses.replace(
            self,
            sources={FROM_EARLIER_RUN: self.embedded} if self.embedded else {},
            read_bytes=0,
            read_sec=0.0,
            decode_sec=0.0,
            waited_for_images_sec=0.0,
            waited_for_engine_sec=0.0,
            first_batch_at=0.0,
            first_batch_images=0,
            last_batch_at=0.0,
            stored=dataclasses.replace(self.stored, of_earlier_run=True) if self.stored is not None else None,
        )

    def to_json_line(self) -> bytes:
        """One line of UTF-8 JSON."""
        # Not by `asdict`, which copies each count: a block may have a thousand labels.
        data = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "stored"}
        for name in ("shard", "failed_ledger", "skipped_ledger"):
            data[name] = None if data[name] is None else dataclasses.asdict(data[name])
        data["content"] = base64.b64encode(self.content).decode()
        data["backbone"] = self.backbone.to_json()
        data["engine"] = self.engine.to_json()
        return json_line(data)

    @classmethod
    def from_json(cls, raw: bytes, *, where: str) -> BlockResult:
        """Reads what `to_json_line` wrote.

        Raises:
          InputError: it is no such line, or its numbers disagree; `where` names the file.
        """
        try:
            data: dict[str, Any] = json.loads(raw)
            for name in ("shard", "failed_ledger", "skipped_ledger"):
                data[name] = PartFile.from_json(data[name])
            data["order"] = (int(data["order"][0]), int(data["order"][1]))
            data["label_counts"] = {int(label_id): count for label_id, count in data["label_counts"].items()}
            data["content"] = base64.b64decode(data["content"], validate=True)
            data["engine"] = EngineInfo.from_json(data["engine"])
            data["backbone"] = BackboneIdentity.from_json(data["backbone"], where=where)
            result = cls(**data)
            result._require_sound()
            return result
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
            raise InputError(f"{where}: not the result of a block ({error!r}).") from error
