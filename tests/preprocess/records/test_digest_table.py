import hashlib

import numpy as np
import pytest

from preprocess.records import digest_table
from preprocess.records.digest_table import DigestTable
from preprocess.records.duplicates import find_duplicates, find_shared


@pytest.fixture(params=["memory", "disk"])
def place(request, monkeypatch):
    if request.param == "disk":
        monkeypatch.setattr(digest_table, "_PART_MEMORY_BYTES", 1)
        monkeypatch.setattr(digest_table, "_ADDED_AT_ONCE", 50)


def images(numbers):
    """The digests of images that are told apart by a number."""
    digests = [hashlib.sha256(b"%d" % number).digest()[:16] for number in numbers]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)


def filled(digests, keys, *, pieces=(0.1, 0.15, 0.15, 0.7)):
    table = DigestTable()
    cuts = [int(share * len(digests)) for share in pieces]
    for some, of_labels in zip(np.split(digests, cuts), np.split(keys, cuts), strict=True):
        table.add(some, of_labels)
    return table


@pytest.mark.parametrize("distinct", [1, 2, 40, 700, 10**6])
def test_the_groups_are_those_that_are_found_in_memory(place, tmp_path, distinct):
    numbers = np.random.default_rng(distinct)
    digests, keys = images(numbers.integers(0, distinct, 1000)), numbers.integers(0, 3, 1000).astype(np.uint64)
    wanted = find_duplicates(digests, keys)
    with filled(digests, keys) as table:
        groups = table.find_duplicates()
        for _ in range(2):
            found = list(groups.in_order())
            members = [some.group(number).tolist() for some in found for number in range(some.num_groups)]
            assert members == [wanted.group(number).tolist() for number in range(wanted.num_groups)]
            assert [bool(differ) for some in found for differ in some.labels_differ] == wanted.labels_differ.tolist()
        counts = (groups.num_groups, groups.num_extra, groups.num_conflicting)
        assert counts == (wanted.num_groups, wanted.num_extra, wanted.num_conflicting)


@pytest.mark.parametrize(("here", "there"), [(1000, 300), (300, 1000), (0, 10), (10, 0)])
def test_shared_images_are_those_that_are_found_in_memory(place, here, there):
    numbers = np.random.default_rng(here)
    ours, theirs = images(numbers.integers(0, 900, here)), images(numbers.integers(0, 900, there))
    with (
        filled(ours, np.zeros(here, np.uint64)) as table,
        filled(theirs, np.ones(there, np.uint64), pieces=()) as other,
    ):
        assert np.flatnonzero(table.find_shared(other)).tolist() == find_shared(ours, theirs).tolist()


def test_nothing_stays_in_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(digest_table, "_PART_MEMORY_BYTES", 1)
    with DigestTable(folder=str(tmp_path)) as table:
        table.add(images([1, 2, 1]), np.zeros(3, np.uint64))
        assert table.find_duplicates().num_groups == 1
    assert list(tmp_path.iterdir()) == []
