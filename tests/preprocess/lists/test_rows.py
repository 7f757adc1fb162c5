import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import InputError
from preprocess.lists.labels import LabelDict
from preprocess.lists.outcomes import RowFailure, RowSkip
from preprocess.lists.rows import parse_rows
from preprocess.storage.uris import resolve_uri

LABELS = LabelDict(("daisy", "rose", "tulip"))


def parse(raw, unknown_labels="fail", labels=LABELS):
    if isinstance(raw, str):
        raw = raw.encode()
    return list(parse_rows(io.BytesIO(raw), list_path="lists/train.csv", labels=labels, unknown_labels=unknown_labels))


def test_rows_keep_their_labels_and_lines():
    rows = parse("a.jpg,daisy\nb.jpg,rose,tulip\nc.jpg\nd.jpg, rose ,,rose\n")
    assert [(row.uri, row.label_ids, row.line) for row in rows] == [
        ("a.jpg", (0,), 1),
        ("b.jpg", (1, 2), 2),
        ("c.jpg", (), 3),
        ("d.jpg", (1,), 4),
    ]
    assert all(row.outcome is None for row in rows)


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_bom_quotes_and_line_ends(line_end):
    raw = line_end.join(['"a, b.jpg",daisy', '"say ""hi"".jpg",rose', "z.jpg,tulip"]) + line_end
    rows = parse(b"\xef\xbb\xbf" + raw.encode())
    assert [row.uri for row in rows] == ["a, b.jpg", 'say "hi".jpg', "z.jpg"]
    assert [row.line for row in rows] == [1, 2, 3]


def test_a_quoted_line_break_belongs_to_its_row():
    rows = parse('"a\nb.jpg",daisy\nc.jpg,rose\n')
    assert [(row.uri, row.line) for row in rows] == [("a\nb.jpg", 1), ("c.jpg", 3)]


def test_every_line_is_accounted_for():
    raw = "image_uri,label\na.jpg,daisy\n\n  ,\n,rose\nb.jpg,rose\n"
    rows = parse(raw)
    assert len(rows) == raw.count("\n")
    assert [row.outcome and (getattr(row.outcome, "rule", None) or row.outcome.reason) for row in rows] == [
        "header",
        None,
        "blank_line",
        "blank_line",
        "no_uri",
        None,
    ]
    assert isinstance(rows[4].outcome, RowFailure)
    assert rows[4].outcome.message == "lists/train.csv:5: no image URI in the first column."


def test_an_unknown_label_fails_with_the_nearest_spelling():
    with pytest.raises(InputError, match=r"^lists/train.csv:2: Label 'dasy' .* Did you mean 'daisy'\?"):
        parse("a.jpg,rose\nb.jpg,dasy\n")


def test_an_unknown_label_skips_the_row_or_is_dropped():
    (row,) = parse("b.jpg,dasy,rose\n", "skip")
    assert isinstance(row.outcome, RowSkip)
    assert row.outcome.rule == "unknown_label"
    (row,) = parse("b.jpg,dasy,rose\n", "unlabeled")
    assert (row.outcome, row.label_ids, row.labels) == (None, (1,), ("dasy", "rose"))


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"a.jpg,daisy\n\xe9t\xe9.jpg,rose\n", "lists/train.csv:2: not UTF-8 (byte 0xe9)"),
        (b'a.jpg,daisy\n"b.jpg,rose\nc.jpg,rose\n', "lists/train.csv:2: not valid CSV"),
        (b'a.jpg,daisy\n"b.jpg"x,rose\n', "lists/train.csv:2: not valid CSV"),
    ],
)
def test_a_list_that_cannot_be_read_names_the_line(raw, words):
    with pytest.raises(InputError) as error:
        parse(raw)
    assert words in str(error.value)


def test_relative_uris_are_relative_to_the_list():
    assert resolve_uri("a.jpg", "data/train.csv") == "data/a.jpg"
    assert resolve_uri("../p/a.jpg", "data/train.csv") == "data/../p/a.jpg"
    assert resolve_uri("a.jpg", "train.csv") == "a.jpg"
    assert resolve_uri("a.jpg", "gs://bucket/lists/train.csv") == "gs://bucket/lists/a.jpg"
    assert resolve_uri("/p/a.jpg", "gs://bucket/train.csv") == "/p/a.jpg"
    assert resolve_uri("gs://b/a.jpg", "data/train.csv") == "gs://b/a.jpg"
    assert resolve_uri("file:///p/a.jpg", "data/train.csv") == "/p/a.jpg"


_cell = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)


@given(st.lists(st.lists(_cell, min_size=1, max_size=4), max_size=8))
def test_whatever_a_csv_writer_writes_comes_back_row_by_row(table):
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(table)
    rows = parse(text.getvalue().encode(), "unlabeled")
    assert len(rows) == len(table)
    for cells, row in zip(table, rows, strict=True):
        if row.outcome is None:
            assert row.uri == cells[0].strip()
            assert row.labels == tuple(dict.fromkeys(cell.strip() for cell in cells[1:] if cell.strip()))


@given(st.binary(max_size=200))
def test_any_bytes_are_rows_or_one_clear_line(raw):
    try:
        rows = parse(raw, "skip")
    except InputError as error:
        assert str(error).startswith("lists/train.csv:")
    else:
        assert [row.line for row in rows] == sorted(row.line for row in rows)


def test_a_field_of_any_length_is_one_line():
    for row in ("a.jpg," + "x" * 200_000, "x" * 200_000, '"' + "x,\n" * 100_000):
        with pytest.raises(InputError, match=r"^lists/train\.csv:2: a field has more than 131072 characters"):
            parse(f"b.jpg\n{row}\n")
