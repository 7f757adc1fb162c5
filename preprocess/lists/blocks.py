"""The unit of work, a block: consecutive rows of one list that become one shard.

How a list is divided into blocks depends on the list and the block size only. So the same list gives the same blocks
and the same shards, no matter how many workers embed them. Only blocks (URIs and labels) pass a shuffle.
"""

from __future__ import annotations

import dataclasses
import itertools
import pickle
import zlib
from collections.abc import Callable, Iterable, Iterator

from preprocess.lists.rows import Row

BLOCK_NAME_LENGTH = len("00000-0000000")
_PROTOCOL = 5
# A worker is idle for a moment at the end of an element: 1 to 9 % of the time for elements of 512 rows, and less than
# 1 % for 4,096 rows (measured with waits in place of reading, decoding and the engine).
_ROWS_PER_ELEMENT = 4096
_ROWS_PER_ELEMENT_HERE = 16_384
# So many elements, if there are blocks enough, keep hundreds of workers busy until shortly before the end.
_ELEMENTS = 2048
# A reader reads a whole list for its share of the blocks. Sixty-four take about 1 % of the time of the embedding.
_READERS = 64


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

    def __reduce__(self) -> tuple[Callable[[bytes], RowBlock], tuple[bytes]]:
        # Runners on one machine hold all blocks in memory until they are embedded. URIs of one list are much alike:
        # compressed, a row takes 12 to 25 bytes instead of 110, for one microsecond.
        fields = (self.list_index, self.block_index, self.list_path, self.rows)
        return _unpacked, (zlib.compress(pickle.dumps(fields, _PROTOCOL), level=1),)


def _unpacked(packed: bytes) -> RowBlock:
    """The block that `RowBlock.__reduce__` packed."""
    return RowBlock(*pickle.loads(zlib.decompress(packed)))


def into_blocks(rows: Iterable[Row], *, list_index: int, list_path: str, rows_per_block: int) -> Iterator[RowBlock]:
    """Divides the rows of a list into blocks of `rows_per_block` rows. The last block may be shorter."""
    iterator = iter(rows)
    for block_index in itertools.count():
        chunk = tuple(itertools.islice(iterator, rows_per_block))
        if not chunk:
            return
        yield RowBlock(list_index, block_index, list_path, chunk)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """How blocks are divided among elements of a runner. It decides where they are embedded, and no record.

    Attributes:
      rows_per_element: consecutive blocks become one element until they have so many rows.
      readers: how many workers read each list. A reader keeps the blocks of its share. One is enough for runners that
        can move blocks from the worker that reads them to others.
    """

    rows_per_element: int = _ROWS_PER_ELEMENT_HERE
    readers: int = 1

    @classmethod
    def over_workers(cls, *, rows: int, rows_per_block: int, lists: int, moves_blocks: bool) -> Spread:
        """Divides the blocks among an unknown number of workers.

        Args:
          rows: of all lists together.
          rows_per_block: rows of a block.
          lists: the number of lists.
          moves_blocks: whether the runner moves blocks from the worker that reads them to others.
        """
        rows_per_element = min(_ROWS_PER_ELEMENT, max(rows_per_block, rows // _ELEMENTS))
        blocks = -(-rows // rows_per_block)
        readers = 1 if moves_blocks else max(1, min(_READERS, blocks) // lists)
        return cls(rows_per_element=rows_per_element, readers=readers)


def joined_blocks(blocks: Iterable[RowBlock], *, reader: int, spread: Spread) -> Iterator[tuple[RowBlock, ...]]:
    """Joins the blocks of a reader's share into elements.

    Args:
      blocks: all blocks of a list.
      reader: from 0.
      spread: how blocks are divided.
    """
    joined: list[RowBlock] = []
    rows = 0
    for block in blocks:
        if block.block_index % spread.readers != reader:
            continue
        joined.append(block)
        rows += len(block.rows)
        if rows >= spread.rows_per_element:
            yield tuple(joined)
            joined, rows = [], 0
    if joined:
        yield tuple(joined)
