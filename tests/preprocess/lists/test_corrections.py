from __future__ import annotations

import re

import pytest

from configs.errors import InputError
from preprocess.lists.corrections import parse_corrections

LABELS = ("daisy", "rose", "sun | moon")
HEADER = "image_uri,image_sha256,action,label,was,by,when\n"
DIGEST = "0123456789abcdef" * 2


def parse(text, **more):
    raw = text if isinstance(text, bytes) else text.encode()
    return parse_corrections(raw, path="c.csv", labels=LABELS, **more)


def test_changes_and_removals_are_kept_and_the_others_counted():
    found = parse(
        HEADER
        + f"a.jpg,{DIGEST},change,rose,daisy,Ann,2026-01-02\n"
        + "b.jpg,,REMOVE,,rose,,\n\n"
        + "c.jpg,,keep,,rose,,\n"
        + '"d\ne.jpg",,unsure,,rose,,\n'
        + "f.jpg,,change,daisy,rose,,\n",
        by="Bob",
    )
    assert len(found) == 3 and (found.num_kept, found.num_unsure) == (1, 1)
    change = found.find("another name", bytes.fromhex(DIGEST))
    assert (change.action, change.labels, change.label_ids, change.by, change.when) == (
        *("change", ("rose",), (1,), "Ann", "2026-01-02"),
    )
    removal = found.find("b.jpg", b"")
    assert (removal.action, removal.by, removal.line) == ("remove", "Bob", 3)
    assert found.find("c.jpg", b"") is None and found.find("f.jpg", bytes(16)).line == 8  # a cell spans two lines


def test_a_whole_digest_and_its_first_half_are_one_photo():
    whole = "sha256:" + DIGEST.upper() + "f" * 32
    found = parse(HEADER + f"a.jpg,{whole},change,rose,,,\na.jpg,{DIGEST},change,rose,,,\n")
    assert len(found) == 1 and found.find("", bytes.fromhex(DIGEST) + b"x" * 16).line == 2


def test_other_columns_delimiters_and_orders_are_read():
    text = "\ufeffLabel;note;Action;Image_URI\r\nrose;x, y;change;a.jpg\r\n"
    assert parse(text).find("a.jpg", b"").labels == ("rose",)


def test_a_label_with_the_separator_in_its_name_is_one_label_else_there_are_several():
    found = parse(HEADER + "a.jpg,,change,sun | moon,,,\nb.jpg,,change,rose | daisy | rose,,,\n")
    assert found.find("a.jpg", b"").labels == ("sun | moon",)
    assert found.find("b.jpg", b"").label_ids == (1, 0)


def test_the_digest_of_what_is_said_leaves_out_who_said_it():
    said = [parse(HEADER + row).sha256 for row in ("a,,remove,,,Ann,1\n", "a,,remove,,,Bob,2\n", "a,,change,rose,,,\n")]
    assert said[0] == said[1] != said[2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "c.csv: is empty. Corrections begin with a line that names the columns"),
        ("a.jpg,rose\n", "c.csv:1: the first line of corrections names the columns"),
        ("action,label\n", "needed are action, label, and image_sha256 or image_uri"),
        ("image_uri,action,label,label\n", "c.csv:1: names the column 'label' twice"),
        (HEADER + ",,remove,,,,\n", "c.csv:2: names no photo"),
        (HEADER + "a.jpg,12,remove,,,,\n", "c.csv:2: image_sha256 must be the SHA-256"),
        (HEADER + "a.jpg,,chnage,rose,,,\n", "c.csv:2: action must be one of keep, change, remove, unsure"),
        (HEADER + "a.jpg,,,rose,,,\n", "c.csv:2: action must be one of"),
        (HEADER + "a.jpg,,change,,,,\n", "c.csv:2: a change needs the right label"),
        (HEADER + "a.jpg,,change, | ,,,\n", "c.csv:2: a change needs the right label"),
        (HEADER + "a.jpg,,change,rosee,,,\n", "c.csv:2: label 'rosee' is not in the dictionary"),
        (HEADER + "a.jpg,,remove,,,,,more\n", "c.csv:2: 8 cells, and the header names 7 columns"),
        (HEADER + 'a.jpg,,remove,"\n', "c.csv:2: not valid CSV"),
        (HEADER + "a.jpg,,remove,,,,\na.jpg,,change,rose,,,\n", "c.csv:3: contradicts line 2"),
        (HEADER + "a.jpg,,keep,,,,\na.jpg,,remove,,,,\n", "c.csv:3: contradicts line 2"),
        (HEADER.encode() + b"\xff.jpg,,remove,,,,\n", "c.csv:2: not UTF-8 (byte 0xff)"),
    ],
)
def test_wrong_corrections_are_one_line(text, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        parse(text)
    assert "\n" not in str(caught.value)
