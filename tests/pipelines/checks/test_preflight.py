"""The check of many lists: in order, from a bucket some at once, shown as one thing that is done."""

import io
import threading

import pytest

from configs.errors import InputError
from pipelines.checks import preflight
from pipelines.checks.preflight import scan_lists
from preprocess.lists.labels import LabelDict
from tests.support.memory_storage import MemoryStorage

LABELS = LabelDict(("a", "b"))
LISTS = 20


def lists_of(folder, **changes):
    return {f"{folder}/{number:02d}.csv": b"1.jpg,a\n" * (number + 1) for number in range(LISTS)} | changes


class Counting(MemoryStorage):
    """Notes how many lists are open or being opened; `together` of them must be opened at once."""

    def __init__(self, files, together=1):
        super().__init__(files)
        self.together = threading.Barrier(together)
        self.open_now = self.most_open = 0
        self._lock = threading.Lock()

    def open(self, path):
        with self._lock:
            self.open_now += 1
            self.most_open = max(self.most_open, self.open_now)
        if path.endswith(("00.csv", "01.csv", "02.csv", "03.csv")):
            self.together.wait(timeout=10)
        storage = self

        class Stream(io.BytesIO):
            def close(self):
                if not self.closed:
                    storage.open_now -= 1
                super().close()

        return Stream(self.read(path))


def scan(storage, pattern):
    return scan_lists([pattern], labels=LABELS, unknown_labels="fail", storage=storage)


def test_short_lists_in_a_bucket_are_opened_ahead(monkeypatch):
    monkeypatch.setattr(preflight, "_LISTS_AT_ONCE", 4)
    storage = Counting(lists_of("gs://bucket/lists"), together=4)
    found = scan(storage, "gs://bucket/lists/*.csv")
    assert found.paths == tuple(sorted(storage.files))
    assert found.rows == LISTS * (LISTS + 1) // 2
    assert storage.most_open <= 2 * 4 + 1


def test_large_lists_and_those_of_a_disk_are_opened_one_after_the_other(monkeypatch):
    monkeypatch.setattr(preflight, "_SHORT_LIST_BYTES", 100)
    in_bucket, on_disk = Counting(lists_of("gs://bucket/lists")), Counting(lists_of("/lists"))
    assert scan(in_bucket, "gs://bucket/lists/*.csv").sha256 == scan(on_disk, "/lists/*.csv").sha256
    assert in_bucket.most_open == on_disk.most_open == 1


def test_the_first_fault_in_the_order_of_the_lists_is_said(monkeypatch):
    monkeypatch.setattr(preflight, "_LISTS_AT_ONCE", 4)
    files = lists_of("gs://bucket/lists", **{"gs://bucket/lists/05.csv": b"1.jpg,c\n"})

    class Forbids(MemoryStorage):
        def open(self, path):
            if path.endswith("07.csv"):
                raise PermissionError(13, "Permission denied", path)
            return super().open(path)

    with pytest.raises(InputError, match=r"05\.csv:1: .*'c'"):
        scan(Forbids(files), "gs://bucket/lists/*.csv")
    with pytest.raises(InputError, match=r"input_path: cannot read 'gs://bucket/lists/07\.csv' \(Permission denied\)"):
        scan(Forbids(lists_of("gs://bucket/lists")), "gs://bucket/lists/*.csv")


def test_many_lists_are_one_activity(monkeypatch):
    shown = []
    real = preflight.doing
    monkeypatch.setattr(preflight, "doing", lambda what, **options: shown.append(what) or real(what, **options))
    scan(MemoryStorage(lists_of("/lists")), "/lists/*.csv")
    scan(MemoryStorage(lists_of("/lists")), "/lists/03.csv")
    assert shown == ["looking for the lists", "checking 20 lists", "looking for the lists", "checking /lists/03.csv"]


def test_an_image_that_a_list_names_often_is_in_the_sample_once():
    def sample_of(rows, size):
        storage = MemoryStorage({"/lists/all.csv": "".join(f"{name}.jpg,a\n" for name in rows).encode()})
        found = scan_lists(["/lists/all.csv"], labels=LABELS, unknown_labels="fail", storage=storage, sample_size=size)
        return found.sample, found.sample_times

    names = [str(number) for number in range(40)]
    for size in (7, 40, 50):
        plain, once = sample_of(names, size)
        assert len(set(plain)) == len(plain) == min(size, 40)
        assert set(once) == {1}
        repeated = [name for name in names for _ in range(30)]
        assert sample_of(repeated, size) == (plain, (30,) * len(plain))
        assert sample_of(names * 3, size) == (plain, (3,) * len(plain))
