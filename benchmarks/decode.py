"""The cost of decoding: a 12-megapixel photo at reduced scale and in full, and web photos.

    python -m benchmarks.decode [--photos DIR] [--quick]

The large photo is a real one, scaled up to 4000 x 3000, with seeded gradients and noise like that of a sensor, at
quality 92. The gain depends on the noise: noise makes the file larger, and every byte must be entropy-decoded at any
scale. So three photos are measured, from a smooth one to one as large as files from cameras. Ours is the pipeline's own
read and `decode_image`. The full decode is the same function without libjpeg's reduced scales (`jpeg_reduced_side` is
larger than the photo), so nothing else differs. Both run in turns in one thread, and its CPU time is measured. The
figure is the ratio of the medians. A line for each photo shows where the time is spent. "The same pixels" compares
`decode_image` with the operations of the exported model on the same bytes: the largest difference of any pixel must be
0.

The rates of 500 x 375 photos, as JPEG and as PNG, are images per second of one core (CPU time of reading and decoding).

The bound of one core for JPEGs is libjpeg-turbo's own decoder at the same scale (simplejpeg, slow DCT, full upsampling)
and a resize with SIMD (OpenCV, bilinear without a wider filter). Its pixels are other ones: no other library resizes
with SIMD to Pillow's pixels. It needs the packages simplejpeg and opencv-python-headless, and is left out without them.
"Here" is `decode_image` in this process, "Pillow resizes" the same without the compiled loops
(`preprocess.images.resample`), and the pixels of both are compared. Each decodes all photos, in turns, and the median
of its rounds counts. "Isolated" counts the CPU time of this thread and of its decoder process. A line shows the parts
of "here", and the cost of the hash.
"""

from __future__ import annotations

import argparse
import io
import pathlib
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from unittest import mock

import numpy as np
from PIL import Image

from benchmarks.embedding import read_and_note
from benchmarks.photos import add_photos_flag, find_photos
from benchmarks.report import Figure, at_least, finish, say
from configs.errors import EXIT_OK
from configs.program import run_program
from preprocess.backbones.tensorflow_import import import_tensorflow, without_tensorflow_noise
from preprocess.images import decode, perceptual_hash, resample
from preprocess.images.decode import IMAGE_SIZE, decode_image, jpeg_reduced_side
from preprocess.images.isolated_decoder import IsolatedDecoder
from preprocess.images.perceptual_hash import perceptual_hashes

_LARGE = (4000, 3000)
_NEVER_REDUCED = 10**6
_NOISES = (0, 2, 4)  # standard deviation, in grey levels


def make_large_photo(path: str, size: tuple[int, int], *, noise: float, seed: int = 0) -> bytes:
    """A JPEG of `size` with the content of the photo at `path`, gradients and noise."""
    with Image.open(path) as photo:
        pixels = np.asarray(photo.convert("RGB").resize(size, Image.Resampling.BICUBIC), np.float32)
    height, width = pixels.shape[:2]
    across = np.linspace(-12, 12, width, dtype=np.float32)[None, :, None]
    down = np.linspace(9, -9, height, dtype=np.float32)[:, None, None]
    grain = np.random.default_rng(seed).normal(0, noise, pixels.shape).astype(np.float32)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels + across + down + grain, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def _decode_in_full(data: bytes) -> np.ndarray:
    with mock.patch.object(decode, "jpeg_reduced_side", lambda _: _NEVER_REDUCED):
        return decode_image(data)


def _seconds(function: Callable[[], object]) -> float:
    """The CPU time of this thread in seconds."""
    started = time.thread_time()
    function()
    return time.thread_time() - started


def _say_where_time_goes(data: bytes) -> None:
    parts = []
    for scale in (1, 2, 4, 8):
        with Image.open(io.BytesIO(data)) as photo:
            photo.draft(None, (photo.width // scale, photo.height // scale))
            load = _seconds(photo.load)
            resize = _seconds(lambda: photo.resize((299, 299), Image.Resampling.BILINEAR))
        parts.append(f"at 1/{scale} {1e3 * load:.1f} + {1e3 * resize:.1f} ms")
    say(f"  libjpeg + resize: {', '.join(parts)} (what is left at 1/8 is entropy decoding)")


def core_seconds_per_image(paths: Sequence[str], size: int = IMAGE_SIZE) -> float:
    """CPU seconds of this thread for an image: it reads and decodes the files one after the other."""
    started = time.thread_time()
    for path in paths:
        decode_image(read_and_note(path), size=size)
    return (time.thread_time() - started) / len(paths)


def _bound() -> Callable[[bytes], np.ndarray] | None:
    """What no decoder and resize of one core is faster than; None if its libraries are not installed."""
    try:
        import cv2  # type: ignore[import-not-found]
        import simplejpeg  # type: ignore[import-not-found]
    except ImportError as error:
        say(f"the bound of one core is left out ({error})")
        return None
    cv2.setNumThreads(1)
    side = jpeg_reduced_side(IMAGE_SIZE)

    def decode_and_resize(data: bytes) -> np.ndarray:
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=side, min_width=side, fastdct=False, fastupsample=False)
        resized: np.ndarray = cv2.resize(pixels, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_LINEAR)
        return resized

    return decode_and_resize


def _decode_without_loops(data: bytes) -> np.ndarray:
    with mock.patch.object(resample, "_loops", lambda: (None, "")):
        return decode_image(data)


def _core_figures(paths: Sequence[str], *, rounds: int) -> list[Figure]:
    """JPEGs as one core reads and decodes them: in this process, in a decoder process, and the bound of both."""
    say(f"what resizes: {resample.resize_state()}")
    bound, isolated = _bound(), IsolatedDecoder()
    ways: dict[str, Callable[[bytes], object]] = {
        "here": decode_image,
        "Pillow resizes": _decode_without_loops,
        "isolated": isolated,
    }
    if bound is not None:
        ways["bound"] = bound
    isolated(read_and_note(paths[0]))  # This starts the process.
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, decode_one in ways.items():
            started = time.thread_time() + _children_cpu_sec()
            for path in paths:
                decode_one(read_and_note(path))
            spent[name].append((time.thread_time() + _children_cpu_sec() - started) / len(paths))
    sec = {name: statistics.median(values) for name, values in spent.items()}
    say(f"core-ms a photo: {', '.join(f'{name} {1e3 * value:.2f}' for name, value in sec.items())}")
    _say_parts(paths, rounds=rounds)
    differing = sum(
        not np.array_equal(decode_image(data), _decode_without_loops(data)) for data in map(read_and_note, paths)
    )
    more = "core-ms a photo that isolation adds to reading and decoding a JPEG"
    same = f"of {len(paths)} photos, those with other pixels if Pillow resizes"
    rows = [
        Figure(figure=more, ours=f"{1e3 * (sec['isolated'] - sec['here']):.2f} ms of {1e3 * sec['isolated']:.2f}"),
        Figure(figure=same, ours=str(differing), target="0", met=differing == 0),
    ]
    if "bound" in sec:
        name = "photos as JPEG by one core, against libjpeg-turbo and a SIMD resize (which has other pixels)"
        rows.append(at_least(name, 1 / sec["here"], 1 / sec["bound"], 0.8, unit="images/s"))
    return rows


def _say_parts(paths: Sequence[str], *, rounds: int) -> None:
    """Where the time of `decode_image` goes, and what the hash of a photo costs beside it."""
    parts: dict[str, list[float]] = {}

    def note(name: str, seconds: float) -> None:
        parts.setdefault(name, []).append(seconds)

    for _ in range(rounds):
        for path in paths:
            data = b""

            def read(path: str = path) -> None:
                nonlocal data
                data = read_and_note(path)

            note("read", _seconds(read))
            note("open", _seconds(lambda: decode._open(data, 10**9)))  # noqa: B023
            pictures: list[Image.Image] = []
            note("open + libjpeg", _seconds(lambda: pictures.append(decode._decode(data, 10**9, IMAGE_SIZE)[0])))  # noqa: B023
            note("resize", _seconds(lambda: resample.resize(pictures[0], IMAGE_SIZE)))  # noqa: B023
    pixels = np.stack([decode_image(read_and_note(path)) for path in paths[:8]])
    perceptual_hashes(pixels)
    for _ in range(3 * rounds):
        note("hash", _seconds(lambda: perceptual_hashes(pixels)) / len(pixels))
        with mock.patch.object(perceptual_hash, "compiled_loops", lambda: None):
            note("hash by NumPy", _seconds(lambda: perceptual_hashes(pixels)) / len(pixels))
    medians = ", ".join(f"{name} {1e3 * statistics.median(values):.3f}" for name, values in parts.items())
    say(f"medians of its parts in core-ms: {medians}")


def _children_cpu_sec() -> float:
    """The CPU time of the processes that this thread has started, in seconds; Linux counts it in nanoseconds."""
    total = 0
    for pid in pathlib.Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split():
        total += int(pathlib.Path(f"/proc/{pid}/schedstat").read_text().split()[0])
    return total / 1e9


def _largest_difference(path: str) -> int:
    import_tensorflow()
    from preprocess.images.decode_graph import decode_image_graph

    data = pathlib.Path(path).read_bytes()
    with without_tensorflow_noise():
        graph = decode_image_graph(data).numpy()
    return int(np.abs(graph.astype(np.int16) - decode_image(data)).max())


def _large_photo_figures(photo: str, folder: pathlib.Path, *, size: tuple[int, int], repeats: int) -> list[Figure]:
    rows = []
    differences = []
    for noise in _NOISES:
        path = str(folder / f"large{noise}.jpg")
        data = make_large_photo(photo, size, noise=noise)
        pathlib.Path(path).write_bytes(data)
        ours, full = [], []
        for _ in range(repeats):
            ours.append(_seconds(lambda: decode_image(read_and_note(path))))  # noqa: B023
            full.append(_seconds(lambda: _decode_in_full(read_and_note(path))))  # noqa: B023
        name = f"{size[0] * size[1] / 1e6:.3g}-megapixel JPEG of {len(data) / 1e6:.1f} MB, read, decoded and resized"
        rates = 1 / statistics.median(ours), 1 / statistics.median(full)
        rows.append(at_least(name, *rates, 4, unit="images/s"))
        say(f"{name}: {1e3 / rates[0]:.1f} ms, in full {1e3 / rates[1]:.1f} ms")
        _say_where_time_goes(data)
        differences.append(_largest_difference(path))
    worst = max(differences)
    name = "the same JPEGs: largest difference of a pixel to the exported model"
    return [*rows, Figure(figure=name, ours=f"{worst} of 255", target="0", met=worst == 0)]


def _web_photo_figures(photos: Sequence[str], folder: pathlib.Path) -> list[Figure]:
    pngs = []
    for number, path in enumerate(photos):
        pngs.append(str(folder / f"{number}.png"))
        with Image.open(path) as photo:
            photo.convert("RGB").save(pngs[-1])
    rates = {name: 1 / core_seconds_per_image(paths) for name, paths in (("JPEG", photos), ("PNG", pngs))}
    return [
        Figure(figure=f"photos as {name}, read, decoded and resized by one core", ours=f"{rate:.0f} images/s")
        for name, rate in rates.items()
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode", description=(__doc__ or "").split("\n")[0])
    add_photos_flag(parser)
    parser.add_argument("--size", type=int, nargs=2, metavar=("WIDTH", "HEIGHT"), default=_LARGE, help="of the photo")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    args = parser.parse_args(argv)
    photos = find_photos(args.photos)
    say(photos.describe())
    paths = [path for path, _ in photos.photos[: 10 if args.quick else 100]]
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        rows = _large_photo_figures(paths[0], folder, size=tuple(args.size), repeats=3 if args.quick else 15)
        rows += _web_photo_figures(paths, folder)
    rows += _core_figures(paths, rounds=3 if args.quick else 9)
    finish("decode", rows, photos=photos.name)
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
