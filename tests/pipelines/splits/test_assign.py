from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import ingest
from pipelines.splits.assign import name_share, stratified
from tests.pipelines.test_ingest import make_photos, read

PHOTOS = st.lists(st.tuples(st.integers(0, 40), st.sampled_from("abc")), min_size=1, max_size=120)


def counts(photos, **percents):
    """{list: number of photos by label} of a stratified split."""
    lists = stratified(photos, **percents)
    found: dict[str, Counter[str]] = {split: Counter() for split in ("train", "eval", "test")}
    for share, label in photos:
        found[lists[share]][label] += 1
    return found


def shares(sizes):
    return [(name_share(f"{label}{number}.jpg"), label) for label, size in sizes.items() for number in range(size)]


def test_each_class_gives_its_share():
    found = counts(shares({"a": 100, "b": 1000, "c": 7}), eval_percent=10, test_percent=20)
    assert found["eval"] == {"a": 10, "b": 100, "c": 1}
    assert found["test"] == {"a": 20, "b": 200, "c": 1}


def test_a_class_trains_first_then_evaluates_then_tests():
    found = counts(shares({"one": 1, "two": 2, "three": 3}), eval_percent=10, test_percent=10)
    assert found["train"] == {"one": 1, "two": 1, "three": 1}
    assert found["eval"] == {"two": 1, "three": 1}
    assert found["test"] == {"three": 1}


@settings(deadline=None, derandomize=True)
@given(PHOTOS, st.integers(0, 49), st.integers(0, 49))
def test_whatever_the_groups_every_class_trains_and_no_group_is_torn(numbers, eval_percent, test_percent):
    photos = [((number + 1) / 50, label) for number, label in numbers]
    lists = stratified(photos, eval_percent=eval_percent, test_percent=test_percent)
    assert lists.keys() == {share for share, _ in photos}
    assert {label for share, label in photos if lists[share] == "train"} == {label for _, label in photos}
    assert eval_percent or "eval" not in lists.values()
    assert test_percent or "test" not in lists.values()


@settings(deadline=None, derandomize=True)
@given(st.integers(2, 200), st.integers(1, 40))
def test_a_photo_that_is_added_moves_at_most_one_at_each_boundary(size, percent):
    before = stratified(shares({"a": size, "b": 50}), eval_percent=percent, test_percent=percent)
    after = stratified(shares({"a": size + 1, "b": 50}), eval_percent=percent, test_percent=percent)
    assert sum(before[share] != after[share] for share in before) <= 2


def test_a_class_of_large_groups_is_evaluated_on_the_smallest():
    photos = [(0.1, "a")] * 50 + [(0.2, "a")] * 40 + [(0.3, "a")] * 45 + [(name_share(str(n)), "b") for n in range(100)]
    found = counts(photos, eval_percent=10, test_percent=10)
    assert found["eval"]["a"] == 40 and found["test"]["a"] == 45 and found["train"]["a"] == 50


@pytest.mark.parametrize(("classes", "each"), [(5, 100), (300, 3), (60, 2)])
def test_stratify(tmp_path, capsys, classes, each):
    make_photos(tmp_path / "photos", {f"class{number:03}": each for number in range(classes)})
    flags = ["--image_dir", str(tmp_path / "photos"), "--output_dir", str(tmp_path / "data")]
    ingest.main([*flags, "--stratify"])
    wanted = max(1, each // 10)
    for split, rows in read(tmp_path / "data").items():
        found = Counter(rows.values())
        assert len(found) == classes, split
        assert set(found.values()) == {wanted if split != "train" else each - wanted * (2 if each > 2 else 1)}
    captured = capsys.readouterr()
    assert "NO TRAINING IMAGE" not in captured.err and "no evaluation image" not in captured.err
    ingest.main(flags)
    captured = capsys.readouterr()
    assert "--stratify" in captured.err
    assert "of the earlier lists changed the list" in captured.err


def test_the_spread_over_the_classes(tmp_path, capsys):
    make_photos(tmp_path / "photos", {"a": 20, "b": 40, "c": 100, "d": 1})
    flags = ["--image_dir", str(tmp_path / "photos"), "--output_dir", str(tmp_path / "data"), "--stratify"]
    ingest.main([*flags, "--test_percent", "0"])
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[5:11] == [
        "all 145 16 0 161",
        "",
        "of a class: min 1 0 - 1",
        "median 27 3 - 30",
        "max 90 10 - 100",
        "classes without 0 1 - 0",
    ]
