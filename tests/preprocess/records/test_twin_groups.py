"""One reader of tables of groups, for the trainer, `hugs ingest` and `hugs audit`."""

from __future__ import annotations

import pytest

from configs.errors import InputError
from preprocess.records.twin_groups import has_twin_columns, parse_groups, parse_twin_groups

DIGEST = "0a" * 16


def parsed(text):
    return parse_groups(text.encode(), path="groups.csv", flag="group_by")


def test_each_kind_of_table_is_read():
    wanted = {bytes.fromhex(DIGEST): "7"}
    for digest in (DIGEST, DIGEST.upper(), DIGEST * 2, f"sha256:{DIGEST}"):
        groups = parsed(f"\ufeffimage_uri, image_sha256 ,group\r\na.jpg,{digest},7\r\nb.jpg,,7\r\n")
        assert (groups.by_digest, groups.by_uri) == (wanted, {"b.jpg": "7"})
    assert parsed("image_uri,group\na.jpg,1\n\nb.jpg,1\n").by_uri == {"a.jpg": "1", "b.jpg": "1"}
    assert parsed('"a,b.jpg", 1\n\nb.jpg,1\n').by_uri == {"a,b.jpg": "1", "b.jpg": "1"}
    assert len(parsed("image_uri,image_sha256,group\n")) == 0  # hugs twins found no copy.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "groups.csv is empty"),
        ("\n , \n", "groups.csv is empty"),
        ("a.jpg,1,x\n", "groups.csv:1: a row must be photo,group. Received: 'a.jpg,1,x'"),
        ("a.jpg,1\nb.jpg,\n", "groups.csv:2: a row must be photo,group"),
        ("image_uri,group\na.jpg,\n", "groups.csv:2: group is empty"),
        ("image_uri,group\na.jpg,1,2\n", "groups.csv:2: has 3 fields, and the header has 2"),
        ("a.jpg,1\na.jpg,2\n", "groups.csv:2: 'a.jpg' is in two groups, '1' and '2'"),
        ("image_sha256,group\nxyz,1\n", "must have 32 or 64 hexadecimal digits. Received: 'xyz'"),
        ('a.jpg,"1\n', "cannot be read as a CSV file"),
        ("\x00" * 200_000, "cannot be read as a CSV file"),
    ],
)
def test_what_is_wrong_is_one_line(text, message):
    with pytest.raises(InputError, match="--group_by: ") as refused:
        parsed(text)
    assert message in str(refused.value)


def test_the_trainer_takes_tables_of_digests_only():
    with pytest.raises(InputError, match="--twins: t.csv:1: the header has no column 'image_sha256'"):
        parse_twin_groups(b"image_uri,group\na.jpg,1\n", path="t.csv", flag="twins")
    for data in (b"\xff\xfe\x00", bytes(range(256)) * 1000):
        with pytest.raises(InputError, match="--twins: t.csv"):
            parse_twin_groups(data, path="t.csv", flag="twins")
    assert has_twin_columns(b'"image_sha256",kind,"group"\r\n')
    assert not has_twin_columns(b"image_uri,group\n")
