import io
import pickle

import pytest

from preprocess.lists.blocks import RowBlock, Spread, into_blocks, joined_blocks
from preprocess.lists.labels import LabelDict
from preprocess.lists.outcomes import RowFailure, RowSkip
from preprocess.lists.rows import Row, parse_rows

LABELS = LabelDict(("a", "b"))


def blocks_of(text, rows_per_block):
    rows = parse_rows(io.BytesIO(text.encode()), list_path="l.csv", labels=LABELS, unknown_labels="skip")
    return list(into_blocks(rows, list_index=3, list_path="l.csv", rows_per_block=rows_per_block))


def test_a_list_is_divided_into_blocks_of_consecutive_rows():
    blocks = blocks_of("".join(f"{number}.jpg,a\n" for number in range(10)), 4)
    assert [[row.uri for row in block.rows] for block in blocks] == [
        ["0.jpg", "1.jpg", "2.jpg", "3.jpg"],
        ["4.jpg", "5.jpg", "6.jpg", "7.jpg"],
        ["8.jpg", "9.jpg"],
    ]
    assert [block.name for block in blocks] == ["00003-0000000", "00003-0000001", "00003-0000002"]
    assert blocks_of("", 4) == []


def test_a_block_is_the_same_on_the_other_side_of_a_shuffle():
    rows = (
        Row("gs://b/ü\udcff.jpg", ("a", "ö"), (0,), 1),
        Row("", (), (), 2, RowSkip("blank_line", "The line is blank.")),
        Row("", ("a",), (), 3, RowFailure("parse", "no_uri", "no image URI")),
    )
    block = RowBlock(1, 2, "list.csv", rows)
    found = pickle.loads(pickle.dumps(block))
    assert (found.list_index, found.block_index, found.list_path) == (1, 2, "list.csv")
    assert found.rows[:2] == rows[:2]
    failure = found.rows[2].outcome
    assert (failure.stage, failure.reason, failure.message) == ("parse", "no_uri", "no image URI")


def test_a_block_is_small_where_runners_hold_it():
    text = "".join(f"gs://a-bucket/photos/2026/{number:09d}.jpg,a\n" for number in range(1024))
    (block,) = blocks_of(text, 1024)
    assert len(pickle.dumps(block)) < len(text) / 3


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
