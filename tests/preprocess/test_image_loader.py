import threading
import time

import numpy as np
import pytest

from preprocess.image import ImageError
from preprocess.image_loader import READ_THREADS, ImageLoader, LoadedImage
from preprocess.outcomes import RowFailure


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
        most[0] = max(most[0], loader._encoded_bytes)
        gate.wait(10)
        return decode(b"")

    loader = ImageLoader(read=read, decode=slow_decode, max_ahead=1000, max_encoded_bytes=3000)
    loader.add(str(n) for n in range(200))
    wait_until(lambda: loader._encoded_bytes >= 3000)
    gate.set()
    assert all(isinstance(loader.next(), LoadedImage) for _ in range(200))
    assert loader._encoded_bytes == 0
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
