import collections
import errno
import hashlib
import threading
import time

import numpy as np
import pytest

from configs.errors import InputError
from preprocess.images.decode import ImageError
from preprocess.images.loader import READ_THREADS, FoundEmbedding, ImageLoader, KnownImage, LoadedImage
from preprocess.lists.outcomes import RowFailure
from preprocess.machine.machine_faults import MachineFault
from preprocess.machine.timed_threads import DaemonThreads, TimedThreads
from preprocess.storage.retry import RetriesExhausted, RetryPolicy

AT_ONCE = RetryPolicy(limit_sec=60, max_wait_sec=0)
ONCE_AGAIN = RetryPolicy(limit_sec=0, max_wait_sec=0)


def decode(data):
    return np.full((1, 1, 3), len(data), np.uint8)


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert condition()


def test_images_come_in_order_whatever_order_they_are_read_in():
    def read(location):
        time.sleep(0.02 if int(location) % 3 == 0 else 0)
        return b"x" * int(location)

    loader = ImageLoader(read=read, decode=decode, max_ahead=8)
    loader.add(str(n) for n in range(20))
    loader.add(str(n) for n in range(20, 30))
    assert [loader.next().pixels[0, 0, 0] for _ in range(30)] == list(range(30))
    with pytest.raises(IndexError):
        loader.next()


def test_failures_take_the_place_of_their_image():
    def read(location):
        if location == "missing":
            raise RowFailure("read", "not_found", "none")
        if location == "bug":
            raise ZeroDivisionError
        return location.encode()

    def decode_or_fail(data):
        if data == b"text":
            raise ImageError("not_an_image", "text")
        return decode(data)

    loader = ImageLoader(read=read, decode=decode_or_fail, max_ahead=2)
    loader.add(["ok", "missing", "text", "bug", "ok"])
    outcomes = [loader.next() for _ in range(5)]
    assert [getattr(outcome, "reason", "ok") for outcome in outcomes] == [
        "ok",
        "not_found",
        "not_an_image",
        "unexpected_error",
        "ok",
    ]


def test_no_more_than_the_read_ahead_is_under_way():
    lock, started = threading.Lock(), []

    def read(location):
        with lock:
            started.append(location)
        return b"x"

    loader = ImageLoader(read=read, decode=decode, max_ahead=5)
    loader.add(str(n) for n in range(100))
    wait_until(lambda: len(started) == 5)
    assert isinstance(loader.next(), LoadedImage)
    wait_until(lambda: len(started) == 6)


def test_encoded_images_that_wait_for_a_decoder_are_bounded_in_bytes():
    gate, started, most = threading.Event(), [], [0]

    def read(location):
        started.append(location)
        return bytes(1000)

    def slow_decode(data):
        most[0] = max(most[0], loader.encoded_bytes)
        gate.wait(10)
        return decode(b"")

    loader = ImageLoader(read=read, decode=slow_decode, max_ahead=1000, max_encoded_bytes=3000)
    loader.add(str(n) for n in range(200))
    wait_until(lambda: loader.encoded_bytes >= 3000)
    gate.set()
    assert all(isinstance(loader.next(), LoadedImage) for _ in range(200))
    assert loader.encoded_bytes == 0
    # Reads that had started when the limit was reached still end: one for each reading thread at most.
    assert most[0] <= 3000 + READ_THREADS * 1000 < 200 * 1000


def test_reading_hides_latency():
    """Waiting reads overlap: as many are under way as the read-ahead allows."""
    lock, under_way, most = threading.Lock(), [0], [0]

    def read(location):
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        time.sleep(0.02)
        with lock:
            under_way[0] -= 1
        return b"x"

    loader = ImageLoader(read=read, decode=decode, max_ahead=16)
    loader.add(str(n) for n in range(64))
    for _ in range(64):
        loader.next()
    assert most[0] >= 8


def test_the_digest_of_the_encoded_bytes_comes_along():
    loader = ImageLoader(read=str.encode, decode=decode, max_ahead=4)
    loader.add(["a", "bb"])
    assert [loader.next().digest for _ in range(2)] == [hashlib.sha256(data).digest() for data in (b"a", b"bb")]


def test_an_image_whose_embedding_is_known_is_not_decoded():
    known = {hashlib.sha256(b"known").digest(): FoundEmbedding(np.arange(3, dtype=np.float32))}
    decoded = []

    def note(data):
        decoded.append(data)
        return decode(data)

    loader = ImageLoader(read=str.encode, decode=note, max_ahead=4, find_embeddings=lambda digest: (known.get(digest),))
    loader.add(["new", "known", "new again"])
    outcomes = [loader.next() for _ in range(3)]
    assert [type(outcome) for outcome in outcomes] == [LoadedImage, KnownImage, LoadedImage]
    assert outcomes[1].found[0].embedding.tolist() == [0, 1, 2]
    assert outcomes[1].digest in known and outcomes[1].read_sec > 0
    assert sorted(decoded) == [b"new", b"new again"]


def test_an_image_whose_embedding_is_known_is_decoded_for_its_hash_only_if_that_is_wanted_and_not_known():
    known = {
        hashlib.sha256(data).digest(): FoundEmbedding(np.arange(3, dtype=np.float32), image_hash)
        for data, image_hash in ((b"old", b""), (b"new", b"h" * 32))
    }
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    for views in (False, True):

        def decode_once(data, *_, views=views):
            assert data == b"old"
            return np.stack([pixels, 255 - pixels]) if views else pixels

        loader = ImageLoader(
            read=str.encode,
            decode=decode_once,
            decodes_views=views,
            max_ahead=4,
            find_embeddings=lambda digest: (known.get(digest),),
            wants_hashes=True,
        )
        loader.add(["old", "new"])
        old, new = loader.next(), loader.next()
        assert isinstance(old, LoadedImage) and old.found == (known[old.digest],) and old.decode_sec > 0
        assert isinstance(new, KnownImage) and new.found == (known[new.digest],)
    unwanted = ImageLoader(
        read=str.encode, decode=lambda data: 1 / 0, max_ahead=4, find_embeddings=lambda found: (known.get(found),)
    )
    unwanted.add(["old"])
    assert unwanted.next().found[0].image_hash == b""


def test_a_look_up_that_fails_costs_nothing():
    def find(digest):
        raise KeyError("cache")

    loader = ImageLoader(read=str.encode, decode=decode, max_ahead=4, find_embeddings=find)
    loader.add(["a"])
    assert isinstance(loader.next(), LoadedImage)


def test_look_ups_that_hang_cost_no_row_however_many_hang(own_pools):
    readers, _ = own_pools(max_stuck=5)
    gate = threading.Event()

    def find(digest):
        gate.wait(20)

    loader = ImageLoader(
        read=str.encode, decode=decode, max_ahead=4, find_embeddings=find, look_up_deadline_sec=0.05, deadline_sec=9
    )
    loader.add("abcdef")
    assert all(isinstance(loader.next(), LoadedImage) for _ in range(6))
    gate.set()
    wait_until(lambda: readers.num_stuck == 0)


@pytest.fixture
def own_pools(monkeypatch):
    """Pools of this test, of which it may let threads hang."""

    def make(max_stuck):
        pools = TimedThreads(4, "read", max_stuck=max_stuck), DaemonThreads(2, "decode")
        monkeypatch.setattr("preprocess.images.loader._pools", lambda: pools)
        return pools

    return make


def test_the_outcomes_of_good_bad_and_hanging_reads(own_pools):
    readers, _ = own_pools(max_stuck=64)
    gate, hung = threading.Event(), set()

    def read(location):
        kind = location.partition("-")[0]
        if kind == "hang" and location not in hung:
            hung.add(location)
            gate.wait(20)
        if kind == "missing":
            raise RowFailure("read", "not_found", location)
        return location.encode()

    def decode_or_fail(data):
        if data.startswith(b"text"):
            raise ImageError("not_an_image", "text")
        return decode(data)

    kinds = {"ok": None, "missing": "not_found", "hang": None, "text": "not_an_image"}
    names = [f"{kind}-{number}" for number in range(10) for kind in kinds]
    # 40 images, 10 of which hang when first read, through 4 threads: all are read all the same.
    loader = ImageLoader(read=read, decode=decode_or_fail, max_ahead=40, deadline_sec=0.05, try_again=AT_ONCE)
    loader.add(names)
    outcomes = [loader.next() for _ in names]
    assert [getattr(outcome, "reason", None) for outcome in outcomes] == [kinds[n.partition("-")[0]] for n in names]
    with pytest.raises(IndexError):
        loader.next()
    assert readers.num_stuck == 10
    gate.set()
    wait_until(lambda: readers.num_stuck == 0)
    assert loader.encoded_bytes == 0


def test_a_read_that_keeps_hanging_is_raised_and_is_no_failure_of_the_image(own_pools):
    own_pools(max_stuck=64)
    gate = threading.Event()
    loader = ImageLoader(
        read=lambda location: gate.wait(20), decode=decode, max_ahead=1, deadline_sec=0.05, try_again=ONCE_AGAIN
    )
    loader.add(["a/b.jpg"])
    with pytest.raises(MachineFault, match=r"^a/b.jpg: reading took longer than 0.05 s \(tried 2 times\)"):
        loader.next()
    gate.set()


class Failing:
    """A function that raises the first times that it is called with something."""

    def __init__(self, function, error, times):
        self._function, self._error, self._times = function, error, times
        self.calls = collections.Counter()

    def __call__(self, value):
        self.calls[value] += 1
        if self.calls[value] <= self._times:
            raise self._error
        return self._function(value)


FAULTS = [
    OSError(errno.EMFILE, "Too many open files"),
    OSError(errno.ENFILE, "Too many open files in system"),
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.ESTALE, "Stale file handle"),
    OSError(errno.ENOTCONN, "Transport endpoint is not connected"),
    MemoryError(),
    RetriesExhausted("gs://b/x: HTTP 503: Backend error (tried 4 times in 1 s)"),
    RuntimeError("can't start new thread"),
    MachineFault("the decoder process does not start: Too many open files"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{type(fault).__name__}-{getattr(fault, 'errno', None)}")
@pytest.mark.parametrize("where", ["read", "decode"])
def test_what_the_machine_fails_at_is_tried_again_and_raised_if_it_stays(where, fault):
    def load(times, try_again):
        steps = {"read": str.encode, "decode": decode}
        steps[where] = Failing(steps[where], fault, times)
        loader = ImageLoader(**steps, max_ahead=4, try_again=try_again)
        loader.add(["a", "bb", "ccc"])
        return loader

    loader = load(3, AT_ONCE)
    assert [loader.next().pixels[0, 0, 0] for _ in range(3)] == [1, 2, 3]
    assert loader.encoded_bytes == 0
    loader = load(1000, ONCE_AGAIN)
    with pytest.raises(MachineFault, match=r"^a: .*\(tried 2 times\)\. If only this file") as caught:
        loader.next()
    assert "\n" not in str(caught.value)
    wait_until(lambda: loader.encoded_bytes == 0)


def test_a_location_that_nothing_opens_is_wrong_input_not_a_failed_row():
    loader = ImageLoader(read=Failing(str, InputError("gs:// needs a package"), 99), decode=decode, max_ahead=4)
    loader.add(["gs://b/x"])
    with pytest.raises(InputError):
        loader.next()


def test_storage_that_does_not_answer_at_all_is_an_error(own_pools):
    own_pools(max_stuck=2)
    gate = threading.Event()
    loader = ImageLoader(read=lambda location: gate.wait(20), decode=decode, max_ahead=50, deadline_sec=0.02)
    loader.add(str(number) for number in range(50))
    with pytest.raises(OSError, match="storage does not answer"):
        for _ in range(50):
            loader.next()
    gate.set()


def test_waiting_for_the_budget_is_not_reading(own_pools):
    own_pools(max_stuck=0)
    gate = threading.Event()

    def slow_decode(data):
        gate.wait(20)
        return decode(data)

    loader = ImageLoader(read=str.encode, decode=slow_decode, max_ahead=9, max_encoded_bytes=1, deadline_sec=0.05)
    loader.add("abcdefghi")
    threading.Event().wait(0.2)
    gate.set()
    assert all(isinstance(loader.next(), LoadedImage) for _ in range(9))
