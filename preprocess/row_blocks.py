"""The unit of work: a run of consecutive rows of one list, which becomes one shard.

Blocks are cut from the list alone, so the same list gives the same blocks, and with them the same shards,
however many workers embed them. Only blocks (URIs and labels) pass a shuffle.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping

from preprocess.backbone_identity import BackboneIdentity
from preprocess.engine import EngineInfo
from preprocess.rows import Row


@dataclasses.dataclass(frozen=True, slots=True)
class RowBlock:
    """Consecutive rows of one list.

    Attributes:
      list_index: position of the list among the lists of the job.
      block_index: position of the block within its list.
      list_path: the list.
      rows: the rows, in order.
    """

    list_index: int
    block_index: int
    list_path: str
    rows: tuple[Row, ...]

    @property
    def name(self) -> str:
        """A file name that sorts in the order of the input."""
        return f"{self.list_index:05d}-{self.block_index:07d}"


def into_blocks(rows: Iterable[Row], *, list_index: int, list_path: str, rows_per_block: int) -> Iterator[RowBlock]:
    """Cuts the rows of a list into blocks of `rows_per_block` rows; the last may be shorter."""
    iterator = iter(rows)
    for block_index in itertools.count():
        chunk = tuple(itertools.islice(iterator, rows_per_block))
        if not chunk:
            return
        yield RowBlock(list_index, block_index, list_path, chunk)


@dataclasses.dataclass(frozen=True, slots=True)
class PartFile:
    """A file that one block wrote, not yet under its final name: path, records or lines, bytes, SHA-256."""

    path: str
    records: int
    num_bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BlockResult:
    """What became of one block. Small: it is what workers send back.

    Attributes:
      order: (list_index, block_index).
      rows: rows of the block.
      embedded: rows that became records.
      failed: failed rows by reason.
      skipped: skipped rows by rule.
      label_counts: records by label id; a record with several labels counts for each.
      unlabeled: records without a label.
      shard: the records; None if there are none.
      failed_ledger: the failed rows as JSON lines; None if there are none.
      skipped_ledger: the skipped rows likewise.
      backbone: the network that made the embeddings.
      engine: what ran it.
      read_sec: sum over the images, in threads that overlap.
      decode_sec: likewise.
      waited_for_images_sec: time in which no image was ready for the engine.
      waited_for_engine_sec: time in which images were, and the engine was not done with those before.
    """

    order: tuple[int, int]
    rows: int
    embedded: int
    failed: Mapping[str, int]
    skipped: Mapping[str, int]
    label_counts: Mapping[int, int]
    unlabeled: int
    shard: PartFile | None
    failed_ledger: PartFile | None
    skipped_ledger: PartFile | None
    backbone: BackboneIdentity
    engine: EngineInfo
    read_sec: float
    decode_sec: float
    waited_for_images_sec: float
    waited_for_engine_sec: float
