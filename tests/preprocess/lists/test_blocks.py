import pytest

from preprocess.lists.blocks import RowBlock, Spread, joined_blocks
from preprocess.lists.rows import Row


def blocks(number, rows=10):
    row = Row(uri="1.jpg", labels=(), label_ids=(), line=1)
    return [RowBlock(0, index, "list.csv", (row,) * rows) for index in range(number)]


def indices(elements):
    return [[block.block_index for block in element] for element in elements]


def test_blocks_are_joined_until_they_have_enough_rows():
    spread = Spread(rows_per_element=25)
    assert indices(joined_blocks(blocks(8), reader=0, spread=spread)) == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert indices(joined_blocks(blocks(2), reader=0, spread=Spread(rows_per_element=1))) == [[0], [1]]
    assert not list(joined_blocks([], reader=0, spread=spread))


@pytest.mark.parametrize("readers", [1, 2, 3, 20])
def test_of_several_readers_each_block_has_one(readers):
    spread = Spread(rows_per_element=20, readers=readers)
    found = [
        index
        for reader in range(readers)
        for element in indices(joined_blocks(blocks(11), reader=reader, spread=spread))
        for index in element
    ]
    assert sorted(found) == list(range(11))


@pytest.mark.parametrize(
    ("rows", "lists", "moves_blocks", "rows_per_element", "readers"),
    [
        (60, 1, True, 10, 1),
        (60, 1, False, 10, 6),
        (0, 1, False, 10, 1),
        (100_000, 1, False, 48, 64),
        (100_000, 3, False, 48, 21),
        (100_000, 500, False, 48, 1),
        (1_000_000, 1, True, 488, 1),
        (50_000_000, 1, True, 4096, 1),
    ],
)
def test_workers_get_many_elements_of_short_lists_and_long_elements_of_long_ones(
    rows, lists, moves_blocks, rows_per_element, readers
):
    spread = Spread.over_workers(rows=rows, rows_per_block=10, lists=lists, moves_blocks=moves_blocks)
    assert spread == Spread(rows_per_element=rows_per_element, readers=readers)
