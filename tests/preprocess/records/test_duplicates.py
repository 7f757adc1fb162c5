import collections
import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.records.duplicates import find_duplicates, find_shared, label_key

# Few contents, so that records meet; the words differ in the first half, the second, or both.
_contents = st.lists(
    st.tuples(st.sampled_from([0, 1, 63, 64, 255]), st.sampled_from([0, 7])).map(
        lambda ends: bytes([ends[0], *bytes(14), ends[1]])
    ),
    max_size=30,
)


def as_digests(contents):
    return np.frombuffer(b"".join(contents), np.uint8).reshape(-1, 16)


def random_digests(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 16), np.uint8)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(_contents, st.data())
def test_duplicates_are_those_that_a_dictionary_finds(contents, data):
    keys = data.draw(st.lists(st.integers(0, 2), min_size=len(contents), max_size=len(contents)))
    found = find_duplicates(as_digests(contents), np.array(keys, np.uint64))
    by_content = collections.defaultdict(list)
    for position, content in enumerate(contents):
        by_content[content].append(position)
    groups = [positions for positions in by_content.values() if len(positions) > 1]
    assert [found.group(index).tolist() for index in range(found.num_groups)] == groups
    assert found.num_extra == sum(len(positions) - 1 for positions in groups)
    differ = [len({keys[position] for position in positions}) > 1 for positions in groups]
    assert found.labels_differ.tolist() == differ
    assert found.num_conflicting == sum(differ)
    assert found.members.dtype == found.splits.dtype == np.int64


@settings(max_examples=200, deadline=None, derandomize=True)
@given(_contents, _contents)
def test_shared_are_those_that_a_set_finds(contents, others):
    found = find_shared(as_digests(contents), as_digests(others))
    assert found.dtype == np.int64
    assert found.tolist() == [position for position, content in enumerate(contents) if content in set(others)]


def test_many_records():
    digests = random_digests(20_000)
    digests[15_000:15_100] = digests[:100]
    digests[15_100:15_150] = digests[50:100]
    keys = np.zeros(20_000, np.uint64)
    keys[15_120] = 1
    found = find_duplicates(digests, keys)
    assert (found.num_groups, found.num_extra, found.num_conflicting) == (100, 150, 1)
    assert found.group(0).tolist() == [0, 15_000]
    assert found.group(70).tolist() == [70, 15_070, 15_120]
    assert found.labels_differ.nonzero()[0].tolist() == [70]
    others = np.concatenate([random_digests(5_000, seed=1), digests[[7, 19_999]]])
    assert find_shared(digests, others).tolist() == [7, 15_007, 19_999]


def test_digests_that_agree_in_their_first_half_differ():
    digests = np.zeros((1000, 16), np.uint8)
    digests[:, 8:10] = np.arange(500, dtype=np.uint16).repeat(2).view(np.uint8).reshape(-1, 2)
    found = find_duplicates(digests, np.zeros(1000, np.uint64))
    assert (found.num_groups, found.num_extra) == (500, 500)
    assert find_shared(digests, digests[10:12]).tolist() == [10, 11]


def test_arrays_need_not_be_contiguous():
    digests = random_digests(50).repeat(2, axis=0)
    wide = np.zeros((100, 32), np.uint8)
    wide[:, ::2] = digests
    assert find_duplicates(wide[:, ::2], np.zeros(200, np.uint64)[::2]).num_groups == 50


def test_arrays_of_the_wrong_kind_are_refused():
    digests, keys = random_digests(3), np.zeros(3, np.uint64)
    for wrong in (digests[:, :15], digests.astype(np.int8), digests[0]):
        with pytest.raises(ValueError, match=r"uint8 \[n, 16\]"):
            find_duplicates(wrong, keys)
        with pytest.raises(ValueError, match=r"uint8 \[n, 16\]"):
            find_shared(digests, wrong)
    for wrong in (keys[:2], keys.astype(np.int64)):
        with pytest.raises(ValueError, match=r"uint64 \[3\]"):
            find_duplicates(digests, wrong)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 2**63 - 1), max_size=5), st.lists(st.integers(0, 2**63 - 1), max_size=5))
def test_a_label_key_stands_for_the_set(label_ids, others):
    assert label_key(label_ids) == label_key([*reversed(label_ids), *label_ids[:1]])
    assert 0 <= label_key(label_ids) < 2**64
    assert (label_key(label_ids) == label_key(others)) == (set(label_ids) == set(others))


def test_a_label_key_is_the_same_in_every_process():
    expected = int.from_bytes(hashlib.blake2b(bytes([2, *bytes(7), 9, *bytes(7)]), digest_size=8).digest(), "little")
    program = "from preprocess.records.duplicates import label_key; print(label_key([9, 2, 2]))"
    other = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONHASHSEED": "5"}, capture_output=True, text=True, check=True
    )
    assert int(other.stdout) == label_key((2, 9)) == expected
