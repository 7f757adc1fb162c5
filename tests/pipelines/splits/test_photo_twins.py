"""Copies by content, as twins.csv says, are in one list, whatever they are called."""

from __future__ import annotations

import hashlib
import pathlib

import pytest

from tests.pipelines.splits.test_photo_groups import complaint, ingested

NAMES = [*(f"daisy/{number}.jpg" for number in range(60)), *(f"rose/{number}.jpg" for number in range(100, 160))]


def digest_of(content: str, digits: int = 32) -> str:
    return hashlib.sha256(content.encode()).hexdigest()[:digits]


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def table(root: pathlib.Path, *groups: tuple[str, ...], digits: int = 32) -> str:
    lines = ["image_uri,image_sha256,group,set,label,kind,hash_bits,similarity"]
    for number, group in enumerate(groups, start=1):
        lines += [f"elsewhere.jpg,{digest_of(name, digits)},{number},train,x,copy,3,0.99" for name in group]
    path = root.parent / "twins.csv"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.mark.parametrize("digits", [32, 64])
@pytest.mark.parametrize("more", [[], ["--stratify"], ["--absolute_uris"]])
def test_copies_are_in_one_list_and_all_others_stay_where_they_are(photos, digits, more, capsys):
    before = ingested(photos, *more)
    by_list = {
        split: [name for name in NAMES if before[_uri(photos, name, more)] == split] for split in ("train", "eval")
    }
    groups = [(by_list["train"][place], by_list["eval"][place], NAMES[-1 - place]) for place in range(5)]
    path = table(photos, *groups, digits=digits)
    capsys.readouterr()
    found = ingested(photos, "--group_by", path, *more)
    for group in groups:
        assert len({found[_uri(photos, name, more)] for name in group}) == 1
    if "--stratify" not in more:
        in_groups = {name for group in groups for name in group}
        assert all(
            found[_uri(photos, name, more)] == before[_uri(photos, name, more)]
            for name in NAMES
            if name not in in_groups
        )
    printed = capsys.readouterr().err
    assert "120 photos in 110 groups of at most 3" in printed or "--stratify" in more
    # A photo that was renamed is found by its content.
    (photos / groups[0][0]).rename(photos / "daisy/renamed.jpg")
    found = ingested(photos, "--group_by", path, *more)
    assert found[_uri(photos, "daisy/renamed.jpg", more)] == found[_uri(photos, groups[0][1], more)]


def _uri(root: pathlib.Path, name: str, more: list[str]) -> str:
    return f"{root}/{name}" if "--absolute_uris" in more else name


def test_versions_of_a_copy_go_with_it(photos):
    (photos / "daisy/3.webp").write_text("not embedded")
    (photos / "rose/107.webp").write_text("daisy/9.jpg")
    path = table(photos, ("daisy/3.jpg", "rose/107.jpg"), ("daisy/9.jpg", "rose/150.jpg"))
    found = ingested(photos, "--group_by", path)
    together = ["daisy/3.jpg", "daisy/3.webp", "rose/107.jpg", "rose/107.webp", "daisy/9.jpg", "rose/150.jpg"]
    assert len({found[name] for name in together}) == 1


def test_a_table_without_groups_changes_nothing(photos):
    assert ingested(photos, "--group_by", table(photos)) == ingested(photos)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"image_sha256,group\n{'0' * 32},1\n", "names none of the 120 photos here by the SHA-256 of its file"),
        (
            "image_sha256,group\nabc,1\n",
            "twins.csv:2: image_sha256 must have 32 or 64 hexadecimal digits. Received: 'abc'",
        ),
        (f"image_sha256,group\n{'0' * 32},\n", "twins.csv:2: group is empty"),
        ("image_sha256,group\n,1\n", "twins.csv:2: image_sha256 and image_uri are empty"),
        (f"image_sha256,group\n{'0' * 32}\n", "twins.csv:2: has 1 fields, and the header has 2"),
        (f"image_sha256,group\n{'0' * 32},1\n{'0' * 64},2\n", "is in two groups, '1' and '2'. Keep one"),
        ('image_sha256,group\n"', "twins.csv cannot be read as a CSV file"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_line(photos, text, message):
    path = photos.parent / "twins.csv"
    path.write_text(text)
    said = complaint(photos, "--group_by", str(path))
    assert said.startswith("--group_by: ") and message in said and "\n" not in said
