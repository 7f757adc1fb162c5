"""The cost of isolation, and the memory that a list with large photos and decompression bombs takes.

    python -m benchmarks.hostile [--photos DIR] [--quick]

The list has 200 JPEGs of 12 megapixels, and among them 20 bombs: small PNG, TIFF and GIF files with very many pixels.
Some have slightly fewer pixels than the limit and are decoded; the others have more and are refused. All go through the
pipeline's own reading, `ImageLoader` and `IsolatedDecoder`, 128 ahead. The memory of this process and its children is
measured every 10 ms, as proportional set sizes (pages that processes share are counted once). The figure is the peak
minus the memory of this process before.

Isolation is measured on the unchanged photos. In one thread, `IsolatedDecoder` and `decode_image` decode the same
twenty images in turns; the figure is the median of the differences for one image. Through `ImageLoader`, images per
second are measured by turns with decoding in child processes and in this process; the medians are compared.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import pathlib
import statistics
import struct
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from PIL import Image

from benchmarks.decode import make_large_photo
from benchmarks.photos import add_photos_flag, find_photos
from benchmarks.report import Figure, finish, limit, say
from configs.errors import EXIT_OK
from configs.program import run_program
from preprocess.beam.image_source import ImageReader
from preprocess.images.decode import decode_image
from preprocess.images.isolated_decoder import IsolatedDecoder
from preprocess.images.loader import ImageLoader, LoadedImage
from preprocess.machine.cores import available_cores

_LARGE = (4000, 3000)
_READ_AHEAD = 128
_SAMPLE_SEC = 0.01
_MIB = 1024 * 1024
# The limit accepts 110 megapixels and refuses 132.
_SIDES_BELOW, _SIDES_ABOVE = (11_000, 10_000), (12_000, 11_000)
_LINES_OF_STRIP = 100
_TARGET_GB = 4
_TURN = 20  # the number of images that one decodes before the other's turn


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png(width: int, height: int) -> bytes:
    """A black RGB image. It is packed line by line, so it never needs much memory here."""
    packer = zlib.compressobj(1)
    line = bytes(1 + 3 * width)
    packed = b"".join(packer.compress(line) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = _png_chunk(b"IHDR", header) + _png_chunk(b"IDAT", packed) + _png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _tiff(width: int, height: int) -> bytes:
    """A black grey image. All its strips are the same bytes of the file."""
    strip = zlib.compress(bytes(_LINES_OF_STRIP * width))
    count = -(-height // _LINES_OF_STRIP)
    offsets_at = 8 + len(strip)
    lengths_at = offsets_at + 4 * count
    arrays = struct.pack(f"<{2 * count}I", *[8] * count, *[len(strip)] * count)
    tags = [(256, 1, width), (257, 1, height), (258, 1, 8), (259, 1, 8), (262, 1, 1), (273, count, offsets_at)]
    tags += [(277, 1, 1), (278, 1, _LINES_OF_STRIP), (279, count, lengths_at)]
    directory = b"".join(struct.pack("<HHII", tag, 4, number, value) for tag, number, value in tags)
    head = struct.pack("<4sI", b"II*\0", offsets_at + len(arrays))
    return head + strip + arrays + struct.pack("<H", len(tags)) + directory + bytes(4)


def _gif(width: int, height: int) -> bytes:
    """A black image of this size, made by Pillow."""
    buffer = io.BytesIO()
    Image.new("P", (width, height)).save(buffer, "GIF")
    return buffer.getvalue()


def _gif_that_declares(width: int, height: int) -> bytes:
    """A small black image whose header declares this size."""
    data = bytearray(_gif(16, 16))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def make_bombs() -> dict[str, bytes]:
    """The bytes of each bomb by its name. Bombs with `above` in their names must be refused."""
    return {
        "below.png": _png(*_SIDES_BELOW),
        "below.tif": _tiff(*_SIDES_BELOW),
        "below.gif": _gif(*_SIDES_BELOW),
        "above.png": _png(*_SIDES_ABOVE),
        "above.tif": _tiff(*_SIDES_ABOVE),
        "above.gif": _gif_that_declares(*_SIDES_ABOVE),
    }


def _process_bytes(pid: int) -> int:
    """The proportional set size of a process; 0 if it has ended."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as stream:
        for line in stream:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def _child_pids() -> list[int]:
    pids: list[int] = []
    for task in pathlib.Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            pids += map(int, (task / "children").read_text().split())
    return pids


class _PeakMemory:
    """The largest memory of this process and its children together, while the context is open.

    Attributes:
      peak_bytes: the peak of all together.
      peak_child_bytes: the peak of a single child.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        self.peak_child_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> _PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        own = os.getpid()
        while not self._stop.wait(_SAMPLE_SEC):
            children = [_process_bytes(pid) for pid in _child_pids()]
            self.peak_child_bytes = max(self.peak_child_bytes, *children, 0)
            self.peak_bytes = max(self.peak_bytes, _process_bytes(own) + sum(children))


def _load(paths: Sequence[str], decode: Callable[[bytes], np.ndarray]) -> Iterator[str]:
    """The outcome of each file."""
    loader = ImageLoader(read=ImageReader(), decode=decode, max_ahead=_READ_AHEAD)
    loader.add(paths)
    for _ in paths:
        outcome = loader.next()
        yield "image" if isinstance(outcome, LoadedImage) else getattr(outcome, "reason", "known")


def _hostile_list(photo: str, folder: pathlib.Path, *, size: tuple[int, int], photos: int, bombs: int) -> list[str]:
    """The paths of large photos, with bombs distributed among them."""
    large = folder / "large.jpg"
    large.write_bytes(make_large_photo(photo, size, noise=2))
    names = []
    for name, data in make_bombs().items():
        (folder / name).write_bytes(data)
        names.append(str(folder / name))
    paths = [str(large)] * photos
    for number in range(bombs):
        paths.insert((number + 1) * photos // bombs + number, names[number % len(names)])
    return paths


def _memory_figures(paths: Sequence[str]) -> list[Figure]:
    before = _process_bytes(os.getpid())
    started = time.perf_counter()
    with _PeakMemory() as memory:
        outcomes = Counter(_load(paths, IsolatedDecoder()))
    seconds = time.perf_counter() - started
    say(f"{len(paths)} files in {seconds:.1f} s: {dict(outcomes)}")
    say(f"  this process held {before / _MIB:.0f} MB before; a child at most {memory.peak_child_bytes / _MIB:.0f} MB")
    name = f"{len(paths)} large photos and bombs, {_READ_AHEAD} ahead, {available_cores()} decoders"
    gained = (memory.peak_bytes - before) / 2**30
    return [limit(f"{name}: peak memory with all children", gained, _TARGET_GB, unit="GB", at_most=True)]


def _rate(paths: Sequence[str], decode: Callable[[bytes], np.ndarray]) -> float:
    started = time.perf_counter()
    outcomes = Counter(_load(paths, decode))
    if set(outcomes) != {"image"}:
        raise AssertionError(f"Not all photos were decoded: {outcomes}")
    return len(paths) / (time.perf_counter() - started)


def _rate_figure(paths: Sequence[str], *, rounds: int) -> Figure:
    isolated = IsolatedDecoder()
    _rate(paths[:20], isolated)  # starts the children
    ours, peer = [], []
    for _ in range(rounds):
        ours.append(_rate(paths, isolated))
        peer.append(_rate(paths, decode_image))
    rate, peer_rate = statistics.median(ours), statistics.median(peer)
    return Figure(
        figure="photos read and decoded, in child processes against in this one",
        ours=f"{rate:.4g} images/s",
        peer=f"{peer_rate:.4g} images/s",
        ratio=round(rate / peer_rate, 4),
    )


def _seconds_per_image(decode: Callable[[bytes], np.ndarray], images: Sequence[bytes]) -> float:
    started = time.perf_counter()
    for data in images:
        decode(data)
    return (time.perf_counter() - started) / len(images)


def _overhead_figure(paths: Sequence[str]) -> Figure:
    isolated = IsolatedDecoder()
    differences = []
    read = ImageReader()
    for start in range(0, len(paths), _TURN):
        images = [read(path) for path in paths[start : start + _TURN]]
        isolated(images[0])  # then the caches of its core are warm, as within a list
        differences.append(_seconds_per_image(isolated, images))
        decode_image(images[0])
        differences[-1] -= _seconds_per_image(decode_image, images)
    overhead_ms = 1e3 * statistics.median(differences)
    return Figure(figure="isolation of one decode, on top of decoding it in this process", ours=f"{overhead_ms:.2f} ms")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=(__doc__ or "").split("\n")[0])
    add_photos_flag(parser)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    args = parser.parse_args(argv)
    photos = find_photos(args.photos)
    say(photos.describe())
    paths = [path for path, _ in photos.photos[: 20 if args.quick else 500]]
    size, count, bombs = ((800, 600), 20, 6) if args.quick else (_LARGE, 200, 20)
    with tempfile.TemporaryDirectory() as temporary:
        hostile = _hostile_list(paths[0], pathlib.Path(temporary), size=size, photos=count, bombs=bombs)
        rows = _memory_figures(hostile)
    rows.append(_overhead_figure(paths))
    rows.append(_rate_figure(paths, rounds=2 if args.quick else 5))
    finish("hostile", rows, photos=photos.name)
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
