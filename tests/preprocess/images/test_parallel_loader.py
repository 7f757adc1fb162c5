"""Images that other processes load are those that this process would load, whatever happens to the processes."""

import dataclasses
import gc
import io
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from preprocess.beam import image_source
from preprocess.beam.image_source import ImageSource
from preprocess.images import parallel_loader
from preprocess.images.isolated_decoder import IsolatedDecoder
from preprocess.images.loader import ImageLoader, LoadedImage
from preprocess.images.parallel_loader import ParallelLoader
from preprocess.images.read import read_image_bytes
from preprocess.lists.outcomes import RowFailure
from preprocess.machine.machine_faults import MachineFault
from tests.support.killing_decoder import KillingDecoder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="shared memory by memfd")
MAX_BYTES = 1 << 20


def read_here(location):
    if location.startswith("gs://"):
        return location.encode()
    return read_image_bytes(location, read_remote=lambda *_, **__: None, max_bytes=MAX_BYTES)


def jpeg(seed):
    buffer = io.BytesIO()
    noise = np.random.RandomState(seed).randint(0, 256, (40, 60, 3)).astype(np.uint8)
    Image.fromarray(noise).resize((300, 200)).save(buffer, "JPEG")
    return buffer.getvalue()


def make_loader(decode, *, image_bytes, max_ahead=100):
    parallel_loader._helpers.cache_clear()
    return ParallelLoader(
        here=ImageLoader(read=read_here, decode=decode, max_ahead=max_ahead),
        decode=decode,
        max_bytes=MAX_BYTES,
        deadline_sec=60,
        max_ahead=max_ahead,
        image_bytes=image_bytes,
    )


def outcomes_of(loader, locations):
    loader.add(locations)
    return [loader.next() for _ in locations]


@pytest.fixture
def lives(tmp_path):
    folder = tmp_path / "lives"
    folder.mkdir()
    return folder


@pytest.fixture
def files(tmp_path):
    """200 small files; the last byte tells them apart."""
    for number in range(200):
        (tmp_path / f"{number}").write_bytes(b"image" + bytes([number]))
    return [str(tmp_path / f"{number}") for number in range(200)]


def test_real_photos_have_the_same_pixels_and_failures(tmp_path):
    locations = []
    for number in range(6):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(number))
        locations.append(str(tmp_path / f"{number}.jpg"))
    (tmp_path / "broken.jpg").write_bytes(jpeg(9)[:200])
    (tmp_path / "large.jpg").write_bytes(b"x" * (MAX_BYTES + 1))
    locations += [str(tmp_path / "broken.jpg"), str(tmp_path / "nowhere.jpg"), str(tmp_path / "large.jpg")]
    decode = IsolatedDecoder()
    expected = outcomes_of(ImageLoader(read=read_here, decode=decode, max_ahead=100), locations)
    found = outcomes_of(make_loader(decode, image_bytes=299 * 299 * 3), locations)
    for ours, theirs in zip(found, expected, strict=True):
        if isinstance(theirs, LoadedImage):
            np.testing.assert_array_equal(ours.pixels, theirs.pixels)
            assert (ours.digest, ours.num_bytes) == (theirs.digest, theirs.num_bytes)
        else:
            assert isinstance(ours, RowFailure)
            assert (ours.stage, ours.reason, ours.message) == (theirs.stage, theirs.reason, theirs.message)
    assert [isinstance(one, LoadedImage) for one in found] == [True] * 6 + [False] * 3


def test_the_order_is_that_of_the_list_with_remote_images_between(files, lives):
    loader = make_loader(KillingDecoder(str(lives)), image_bytes=48)
    locations = [*files[:70], "gs://bucket/A", *files[70:], *(f"gs://bucket/{letter}" for letter in "BCD"), files[7]]
    found = outcomes_of(loader, locations)
    assert [int(one.pixels[0, 0, 0]) for one in found] == [*range(70), ord("A"), *range(70, 200), *b"BCD", 7]
    # More may be added while others are loaded.
    loader.add(files[:3])
    loader.add(files[3:5])
    assert [int(loader.next().pixels[3, 3, 2]) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(IndexError):
        loader.next()


def test_pixels_last_as_long_as_somebody_has_them_and_their_memory_is_used_again(files, lives):
    loader = make_loader(KillingDecoder(str(lives)), image_bytes=48, max_ahead=32)
    (helper, *_) = parallel_loader._helpers(KillingDecoder(str(lives)), 1, MAX_BYTES, 60, 48, os.getpid())
    kept = outcomes_of(loader, files)
    for number, one in enumerate(kept):
        assert (one.pixels == number).all()
    used = parallel_loader._SLOTS - len(helper._slots._free)
    assert used >= 3
    first = kept[0].pixels[1:]
    del kept, one
    gc.collect()
    for _ in range(parallel_loader._SLOTS):
        outcomes_of(loader, files[:32])
    assert (first == 0).all()
    del first
    gc.collect()
    deadline = time.monotonic() + 10
    while len(helper._slots._free) < parallel_loader._SLOTS and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sorted(helper._slots._free) == list(range(parallel_loader._SLOTS))


def test_more_images_than_the_memory_holds_are_loaded_here(files, lives, monkeypatch):
    monkeypatch.setattr(parallel_loader, "_SLOTS", 1)
    monkeypatch.setattr(parallel_loader, "available_cores", lambda: 2)
    found = outcomes_of(make_loader(KillingDecoder(str(lives)), image_bytes=48), files)
    assert [int(one.pixels[0, 0, 0]) for one in found] == list(range(200))


def test_images_that_are_larger_than_their_room_come_another_way(files, lives):
    loader = make_loader(KillingDecoder(str(lives), side=9), image_bytes=48)
    found = outcomes_of(loader, files[:40])
    assert all(one.pixels.shape == (9, 9, 3) and (one.pixels == number).all() for number, one in enumerate(found))


def test_what_decoding_raises_is_the_outcome_of_its_row(files, lives, tmp_path):
    (tmp_path / "bad").write_bytes(b"fail")
    found = outcomes_of(make_loader(KillingDecoder(str(lives)), image_bytes=48), [files[1], str(tmp_path / "bad")])
    assert (found[1].stage, found[1].reason) == ("decode", "unexpected_error")
    assert "a bug" in found[1].message


def test_a_process_that_ends_is_replaced_and_loses_nothing(files, lives, tmp_path):
    (tmp_path / "kill").write_bytes(b"kill")
    (lives / "one").write_bytes(b"")
    locations = [*files[:50], str(tmp_path / "kill"), *files[50:]]
    found = outcomes_of(make_loader(KillingDecoder(str(lives)), image_bytes=48), locations)
    assert [int(one.pixels[0, 0, 0]) for one in found] == [*range(50), ord("l"), *range(50, 200)]
    assert not os.listdir(lives)


def test_processes_that_end_again_and_again_are_a_fault_of_the_machine(files, lives, tmp_path):
    (tmp_path / "kill").write_bytes(b"kill")
    for life in range(4):
        (lives / f"{life}").write_bytes(b"")
    loader = make_loader(KillingDecoder(str(lives)), image_bytes=48)
    loader.add([files[0], str(tmp_path / "kill")])
    with pytest.raises(MachineFault, match="a process that loads images ended"):
        loader.next()
    # The next images may do better.
    loader = make_loader(KillingDecoder(str(lives)), image_bytes=48)
    assert outcomes_of(loader, files[:2])[1].pixels[0, 0, 0] == 1


ORPHAN = """
import os, signal, sys
from preprocess.images.loader import ImageLoader
from preprocess.images.parallel_loader import ParallelLoader
from tests.support.killing_decoder import KillingDecoder
decode = KillingDecoder(sys.argv[2])
loader = ParallelLoader(
    here=ImageLoader(read=None, decode=decode, max_ahead=9), decode=decode, max_bytes=99, deadline_sec=9, max_ahead=9,
    image_bytes=48,
)
loader.add([sys.argv[1]])
loader.next()
helpers = [
    name for name in os.listdir("/proc") if name.isdigit() and os.path.exists(f"/proc/{name}/stat")
    and open(f"/proc/{name}/stat").read().rpartition(")")[2].split()[1] == str(os.getpid())
]
print(*helpers, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_processes_end_with_the_one_that_they_load_for(files, lives):
    done = subprocess.run([sys.executable, "-c", ORPHAN, files[0], str(lives)], capture_output=True, text=True)
    helpers = done.stdout.split()
    assert helpers, done.stderr
    deadline = time.monotonic() + 30
    while any(is_running(pid) for pid in helpers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_running(pid) for pid in helpers)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@dataclasses.dataclass
class Info:
    device: str


@dataclasses.dataclass
class StandIn:
    info: Info
    batch_size: int = 300


@pytest.mark.parametrize(
    ("device", "many_cores", "looked_up", "parallel"),
    [
        ("gpu", True, None, True),
        ("gpu", False, None, False),
        ("cpu", True, None, False),
        ("gpu", True, lambda digest: None, False),
    ],
)
def test_a_gpu_on_a_machine_with_many_cores_gets_its_images_from_several_processes(
    monkeypatch, device, many_cores, looked_up, parallel
):
    monkeypatch.setattr(image_source, "is_worthwhile", lambda: many_cores)
    loader = ImageSource().make_loader(looked_up, engines=[StandIn(Info(device))])
    assert isinstance(loader, ParallelLoader) == parallel
    # The decoders go on while a batch is put together.
    assert loader._max_ahead >= 2 * 300
    assert ImageSource().make_loader()._max_ahead == 128
