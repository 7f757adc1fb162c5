import contextlib
import dataclasses
import hashlib
import io
import json
import os
import threading

import numpy as np
import pytest

from configs.errors import InputError
from preprocess.engines.base import EngineInfo
from preprocess.jobs import embedding_cache
from preprocess.jobs.embedding_cache import CacheCounts, EmbeddingCache, check
from preprocess.records.backbone_identity import BackboneIdentity
from preprocess.storage.base import LocalStorage, read_stream

SIZE = 5
IDENTITY = BackboneIdentity(
    architecture="stand_in",
    weights="random",
    seed=0,
    weights_digest="sha256:0",
    embedding_size=SIZE,
    image_definition="stand-in/1",
)
INFO = EngineInfo(
    engine="stand_in", precision="float32", device="cpu", fidelity=None, why="for tests", libraries=("pillow 1",)
)


class ObjectStore:
    """Objects in memory: whole or not there. `fault` is raised by every call; no write ends before `open_gate`."""

    def __init__(self):
        self.objects = {}
        self.fault = None
        self.calls = 0
        self._lock = threading.Lock()
        self.open_gate = threading.Event()
        self.open_gate.set()

    def _called(self):
        with self._lock:
            self.calls += 1
        if self.fault is not None:
            raise self.fault

    def open(self, path):
        self._called()
        if path not in self.objects:
            raise FileNotFoundError(path)
        return io.BytesIO(self.objects[path])

    def read(self, path, *, max_bytes=None):
        with self.open(path) as stream:
            return read_stream(stream, path, max_bytes=max_bytes)

    @contextlib.contextmanager
    def create(self, path):
        self._called()
        stream = io.BytesIO()
        yield stream
        assert self.open_gate.wait(60)
        self.objects[path] = stream.getvalue()

    def match(self, pattern):
        self._called()
        return [pattern] if pattern in self.objects else []

    def delete_file(self, path):
        self.objects.pop(path, None)


def digest_of(number):
    return hashlib.sha256(str(number).encode()).digest()


def embedding_of(number):
    return np.arange(number, number + SIZE, dtype=np.float32) + np.float32(0.1)


def open_cache(folder, *, storage=None, identity=IDENTITY, **engine):
    info = dataclasses.replace(INFO, **engine)
    return EmbeddingCache(str(folder), storage=storage or LocalStorage(), identity=identity, engine=info)


def entries(folder):
    return sorted(folder.rglob("*.embedding"))


@pytest.fixture
def cache(tmp_path):
    """A cache with entry 1 in it."""
    cache = open_cache(tmp_path)
    cache.keep(digest_of(1), embedding_of(1))
    cache.flush()
    return cache


@pytest.mark.parametrize("folder", ["local", "mem://bucket/cache/"])
def test_an_embedding_is_found_by_content(folder, tmp_path):
    storage = LocalStorage() if folder == "local" else ObjectStore()
    folder = str(tmp_path / "new" / "cache") if folder == "local" else folder
    cache = open_cache(folder, storage=storage)
    assert cache.find(digest_of(1)) is None
    for number in range(50):
        embedding = embedding_of(number)
        cache.keep(digest_of(number), embedding)
        embedding[:] = 0  # The caller's array is the caller's.
    cache.flush()
    later = open_cache(folder, storage=storage)
    for number in range(50):
        found = later.find(digest_of(number))
        assert found.embedding.dtype == np.float32
        assert found.embedding.flags.writeable
        assert found.image_hash == b""
        np.testing.assert_array_equal(found.embedding, embedding_of(number))
    assert later.find(digest_of(50)) is None
    assert later.counts() == CacheCounts(hits=50, misses=1, faults=0, first_fault=None)


def test_a_hash_is_kept_with_its_embedding_and_entries_of_earlier_versions_have_none(cache, tmp_path):
    cache.keep(digest_of(2), embedding_of(2), b"h" * 32)
    cache.keep(digest_of(1), embedding_of(1), b"g" * 32)
    cache.flush()
    for number, image_hash in ((1, b"g" * 32), (2, b"h" * 32)):
        found = open_cache(tmp_path).find(digest_of(number))
        assert found.image_hash == image_hash
        np.testing.assert_array_equal(found.embedding, embedding_of(number))
    assert {len(entry.read_bytes()) for entry in entries(tmp_path)} == {8 + 32 + 32 + 32 + 4 * SIZE + 4}
    with pytest.raises(ValueError, match="a hash of 32 bytes or 0"):
        cache.keep(digest_of(3), embedding_of(3), b"short")


def test_entries_lie_where_the_docstring_says(cache, tmp_path):
    (entry,) = entries(tmp_path)
    (folder,) = tmp_path.iterdir()
    name = digest_of(1).hex()
    assert entry == folder / name[:2] / f"{name[2:]}.embedding"
    assert len(folder.name) == 16
    assert len(entry.read_bytes()) == 8 + 32 + 32 + 4 * SIZE + 4
    made_with = json.loads((folder / "identity.json").read_text())
    assert made_with["arithmetic"] == "stand_in/float32"
    assert made_with["libraries"] == ["pillow 1"]
    assert made_with["network"] == IDENTITY.network
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "x"},
        {"weights_digest": "sha256:1"},
        {"embedding_size": SIZE + 1},
        {"image_definition": "stand-in/2"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_network_finds_nothing(cache, tmp_path, change):
    assert open_cache(tmp_path, identity=dataclasses.replace(IDENTITY, **change)).find(digest_of(1)) is None
    assert cache.find(digest_of(1)) is not None


def test_another_precision_finds_nothing(cache, tmp_path):
    assert open_cache(tmp_path, precision="bfloat16").find(digest_of(1)) is None


@pytest.mark.parametrize("libraries", [("pillow 2",), ("pillow 1", "webp 1.6.0"), ()])
def test_other_versions_of_libraries_find_nothing(cache, tmp_path, libraries):
    assert open_cache(tmp_path, libraries=libraries).find(digest_of(1)) is None
    assert open_cache(tmp_path).find(digest_of(1)) is not None


def test_every_damaged_byte_is_noticed_and_the_entry_replaced(cache, tmp_path):
    (path,) = entries(tmp_path)
    sound = path.read_bytes()
    for place in range(len(sound)):
        damaged = bytearray(sound)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        assert cache.find(digest_of(1)) is None
    for wrong_size in (b"", sound[:-1], sound + b"\0", bytes(len(sound))):
        path.write_bytes(wrong_size)
        assert cache.find(digest_of(1)) is None
    cache.keep(digest_of(1), embedding_of(1))
    cache.flush()
    assert path.read_bytes() == sound
    assert cache.counts().faults == 0


def test_an_entry_under_another_name_is_foreign(cache, tmp_path):
    (path,) = entries(tmp_path)
    name = digest_of(2).hex()
    moved = path.parents[1] / name[:2] / f"{name[2:]}.embedding"
    moved.parent.mkdir(exist_ok=True)
    os.rename(path, moved)
    assert cache.find(digest_of(2)) is None


def test_an_entry_of_another_network_is_foreign(cache, tmp_path):
    other = open_cache(tmp_path, precision="bfloat16")
    other.keep(digest_of(1), embedding_of(7))
    other.flush()
    ours, theirs = sorted(
        entries(tmp_path), key=lambda path: b"bfloat16" in path.parents[1].joinpath("identity.json").read_bytes()
    )
    ours.write_bytes(theirs.read_bytes())
    assert cache.find(digest_of(1)) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, 0])
def test_what_is_no_embedding_is_neither_kept_nor_found(tmp_path, monkeypatch, value):
    embedding = np.full(SIZE, value, np.float32)
    cache = open_cache(tmp_path)
    cache.keep(digest_of(1), embedding)
    cache.flush()
    assert entries(tmp_path) == []
    with monkeypatch.context() as patch:  # as a program that is less careful would leave it
        patch.setattr(embedding_cache, "_is_sound", lambda embedding: True)
        cache.keep(digest_of(1), embedding)
        cache.flush()
    assert len(entries(tmp_path)) == 1
    assert cache.find(digest_of(1)) is None


def test_calls_with_the_wrong_shape_are_bugs(cache):
    with pytest.raises(ValueError, match="32 bytes"):
        cache.find(b"short")
    with pytest.raises(ValueError, match="32 bytes"):
        cache.keep(b"short", embedding_of(1))
    with pytest.raises(ValueError, match=r"embedding \[5\]"):
        cache.keep(digest_of(1), embedding_of(1)[1:])


@pytest.mark.parametrize("fault", [PermissionError("no\nway"), RuntimeError("no way")])
def test_faults_are_counted_and_the_first_is_told(fault):
    storage = ObjectStore()
    cache = open_cache("mem://b", storage=storage)
    storage.fault = fault
    assert cache.find(digest_of(1)) is None
    storage.fault = OSError("another")
    cache.keep(digest_of(1), embedding_of(1))
    cache.flush()
    # One to look it up, one for identity.json, one for the entry.
    assert cache.counts() == CacheCounts(hits=0, misses=1, faults=3, first_fault="no way")
    storage.fault = None
    cache.keep(digest_of(1), embedding_of(1))
    cache.flush()
    assert cache.find(digest_of(1)) is not None


def test_storage_that_always_fails_is_asked_no_more():
    storage = ObjectStore()
    storage.fault = OSError("down")
    cache = open_cache("mem://b", storage=storage)
    for number in range(200):
        assert cache.find(digest_of(number)) is None
        cache.keep(digest_of(number), embedding_of(number))
    cache.flush()
    assert storage.calls == cache.counts().faults < 100
    assert cache.counts().misses == 200


def test_an_answer_in_between_is_reason_to_go_on(monkeypatch):
    monkeypatch.setattr(embedding_cache, "_GIVE_UP_AFTER", 2)
    storage = ObjectStore()
    cache = open_cache("mem://b", storage=storage)
    for _ in range(5):
        storage.fault = OSError("down")
        cache.find(digest_of(1))
        storage.fault = None
        cache.find(digest_of(1))
    assert storage.calls == 10


def test_a_full_queue_makes_keep_wait(monkeypatch):
    monkeypatch.setattr(embedding_cache, "_MAX_QUEUED", 2)
    monkeypatch.setattr(embedding_cache, "_REMOTE_WRITERS", 1)
    storage = ObjectStore()
    storage.open_gate.clear()
    cache = open_cache("mem://b", storage=storage)
    kept = []

    def keep_all():
        for number in range(10):
            cache.keep(digest_of(number), embedding_of(number))
            kept.append(number)

    keeper = threading.Thread(target=keep_all, daemon=True)
    keeper.start()
    keeper.join(0.05)
    assert len(kept) <= 2  # The writer has identity.json, and two wait.
    storage.open_gate.set()
    keeper.join(60)
    cache.flush()
    assert len(storage.objects) == 11


def test_an_image_that_a_list_repeats_is_written_once_at_a_time():
    storage = ObjectStore()
    storage.open_gate.clear()
    cache = open_cache("mem://b", storage=storage)
    for _ in range(100):
        cache.keep(digest_of(1), embedding_of(1))
    storage.open_gate.set()
    cache.flush()
    assert storage.calls == 3  # identity.json looked for and written, and the entry.


def test_caches_of_several_jobs_share_a_folder(tmp_path):
    caches = [open_cache(tmp_path) for _ in range(4)]
    wrong = []

    def work(cache):
        for number in [*range(40), *range(40)]:
            found = cache.find(digest_of(number))
            if found is None:
                cache.keep(digest_of(number), embedding_of(number))
            elif not np.array_equal(found.embedding, embedding_of(number)):
                wrong.append(number)
        cache.flush()

    threads = [threading.Thread(target=work, args=(cache,)) for cache in caches for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(entries(tmp_path)) == 40
    assert not list(tmp_path.rglob("*.partial"))
    for cache in caches:
        counts = cache.counts()
        assert (counts.hits + counts.misses, counts.faults) == (160, 0)


def test_a_folder_is_checked_before_a_job(tmp_path):
    check(f"{tmp_path}/a/b/", LocalStorage())
    assert list((tmp_path / "a" / "b").iterdir()) == []
    check("mem://b", ObjectStore())


def test_a_folder_that_cannot_be_used_is_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(
        InputError, match=r"^embedding_cache: cannot write to the folder '.*file/x' \(Not a directory\)"
    ):
        check(f"{tmp_path}/file/x", LocalStorage())
    storage = ObjectStore()
    storage.fault = PermissionError("no permission\nfor b")
    with pytest.raises(InputError, match=r"'mem://b' \(no permission for b\)\. Give a folder"):
        check("mem://b", storage)
    storage.fault = None
    storage.read = lambda path, max_bytes=None: b"else"
    with pytest.raises(InputError, match="does not come back"):
        check("mem://b", storage)


def test_a_local_file_that_cannot_be_renamed_leaves_nothing(cache, tmp_path):
    (path,) = entries(tmp_path)
    path.unlink()
    path.mkdir()
    cache.keep(digest_of(1), embedding_of(1))
    cache.flush()
    assert cache.find(digest_of(1)) is None
    assert cache.counts().faults == 2
    assert list(path.parent.iterdir()) == [path]


class FrozenStore(ObjectStore):
    """Storage whose calls hang until it is thawed."""

    def __init__(self):
        super().__init__()
        self.thawed = threading.Event()

    def _called(self):
        super()._called()
        self.thawed.wait(60)


@pytest.fixture
def frozen(monkeypatch):
    """Storage that hangs, for caches with short deadlines."""
    monkeypatch.setattr(embedding_cache, "_DEADLINE_SEC", 0.05)
    storage = FrozenStore()
    yield storage
    storage.thawed.set()


def test_storage_that_hangs_is_waited_for_neither_when_the_queue_is_full_nor_at_the_end(frozen, monkeypatch):
    monkeypatch.setattr(embedding_cache, "_MAX_QUEUED", 4)
    monkeypatch.setattr(embedding_cache, "_REMOTE_WRITERS", 2)
    cache = open_cache("mem://b", storage=frozen)
    for number in range(100):
        cache.keep(digest_of(number), embedding_of(number))
    cache.flush()
    cache.flush()
    assert frozen.calls == 2
    assert "storage does not answer" in cache.counts().first_fault
    # Once it answers, it is asked again. (It may take its time now: this machine may be busy.)
    monkeypatch.setattr(embedding_cache, "_DEADLINE_SEC", 30)
    frozen.thawed.set()
    cache.flush()
    cache.keep(digest_of(1000), embedding_of(1000))
    cache.flush()
    assert cache.find(digest_of(1000)) is not None


def test_look_ups_that_hang_keep_others_from_asking(frozen):
    cache = open_cache("mem://b", storage=frozen)
    threads = [threading.Thread(target=cache.find, args=(digest_of(number),), daemon=True) for number in range(2)]
    for thread in threads:
        thread.start()
    while not cache._hangs():
        pass
    for number in range(100):
        assert cache.find(digest_of(number)) is None
    assert frozen.calls == 2
    frozen.thawed.set()
    for thread in threads:
        thread.join()
    assert cache.find(digest_of(1)) is None
    assert frozen.calls == 3


def test_a_folder_that_does_not_answer_is_one_line(frozen, monkeypatch):
    monkeypatch.setattr(embedding_cache, "_CHECK_DEADLINE_SEC", 0.05)
    with pytest.raises(InputError, match=r"cannot write to the folder 'mem://b' \(it does not answer within 0.05 s\)"):
        check("mem://b", frozen)


def test_without_threads_that_write_nothing_is_kept_and_nobody_waits(tmp_path, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    cache = open_cache(tmp_path)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    for number in range(2000):
        cache.keep(digest_of(number), embedding_of(number))
    cache.flush()
    assert cache.counts().first_fault == "no thread can be started that writes"
    assert cache.find(digest_of(1)) is None
