import io
import pickle

from preprocess.lists.blocks import RowBlock, into_blocks
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
