"""The compiled resize gives Pillow's pixels, to the bit, of whatever picture; without it Pillow resizes."""

import importlib
import shutil
import sys
import types

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from PIL import Image

from preprocess.images import compiled, perceptual_hash, resample
from preprocess.images.decode import Square, decode_squares
from preprocess.records.views import Distortion
from tests.support.image_corpus import encode, exif, photo

LOOPS, STATE = resample._loops()
needs_loops = pytest.mark.skipif(LOOPS is None, reason=f"no compiled loops: {STATE}")


def picture(mode, width, height, content, seed):
    """Noise, the largest and smallest values side by side, one value, or waves: what rounds in all ways."""
    samples = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    if content == "black and white":
        samples = np.where(samples > 127, 255, 0).astype(np.uint8)
    elif content == "white":
        samples[:] = 255
    elif content == "waves":
        samples = (np.indices((height, width)).sum(0)[..., None] * [1, 2, 3] % 256).astype(np.uint8)
    image = Image.frombytes("RGB", (width, height), samples.tobytes())
    return image if mode == "RGB" else image.convert("L")


def compiled_square(image, size, *, box=None, mirrored=False, flipped=False, simd=True):
    square = np.empty((size, size, 3), np.uint8)
    _, array = image.__arrow_c_array__()
    box = box or (0, 0, *image.size)
    arguments = (array, resample._BYTES_PER_PIXEL[image.mode], image.size, box, square, (size, size))
    assert LOOPS.resize(*arguments, mirrored, flipped, simd)
    return square


def by_pillow(image, size, *, box=None, mirrored=False, flipped=False):
    small = image.resize((size, size), Image.Resampling.BILINEAR, box).convert("RGB")
    pixels = np.asarray(small)
    return pixels[:: -1 if flipped else 1, :: -1 if mirrored else 1]


sides = st.one_of(st.integers(1, 40), st.integers(1, 700))
boxes = st.none() | st.tuples(*[st.floats(0, 1) for _ in range(4)])


@needs_loops
@hypothesis.settings(max_examples=150, deadline=None)
@hypothesis.given(
    mode=st.sampled_from(["RGB", "L"]),
    width=sides,
    height=sides,
    size=st.one_of(st.sampled_from([1, 8, 224, 299]), st.integers(1, 400)),
    content=st.sampled_from(["noise", "black and white", "white", "waves"]),
    shares=boxes,
    mirrored=st.booleans(),
    flipped=st.booleans(),
)
def test_any_picture_has_pillows_pixels(mode, width, height, size, content, shares, mirrored, flipped):
    image = picture(mode, width, height, content, seed=width)
    box = None
    if shares is not None:
        (left, right), (top, bottom) = sorted(shares[:2]), sorted(shares[2:])
        box = (left * width, top * height, right * width, bottom * height)
        # Pillow takes these as float32, in which they must not be empty.
        hypothesis.assume(right - left > 1e-3 and bottom - top > 1e-3)
    in_place = {"mirrored": mirrored, "flipped": flipped}
    expected = by_pillow(image, size, box=box, **in_place)
    np.testing.assert_array_equal(resample.resize(image, size, box=box, **in_place), expected)
    if not resample._in_other_steps(image, size, box, None):
        for simd in (True, False):
            np.testing.assert_array_equal(compiled_square(image, size, box=box, **in_place, simd=simd), expected)


@needs_loops
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    ("width", "height", "size"),
    [
        *[(1, 1, 299), (1, 90, 8), (90, 1, 299), (3, 299, 299), (299, 299, 299), (598, 897, 299), (300, 299, 299)],
        *[(4001, 5, 9), (16000, 20, 8), (500, 375, 299), (1000, 750, 299), (2, 200, 8), (2000, 3, 1)],
    ],
)
def test_extreme_shapes_have_pillows_pixels(mode, width, height, size):
    for content in ("noise", "white"):
        image = picture(mode, width, height, content, seed=1)
        expected = by_pillow(image, size)
        for simd in (True, False):
            np.testing.assert_array_equal(compiled_square(image, size, simd=simd), expected)


@needs_loops
def test_the_loops_read_no_pixel_beside_the_picture():
    # Rows that are cut out of a larger picture: Pillow copies them, so behind the last pixel other memory begins.
    image = picture("RGB", 64, 64, "noise", seed=2)
    for width in range(1, 24):
        part = image.crop((0, 0, width, 5))
        np.testing.assert_array_equal(compiled_square(part, 11), by_pillow(part, 11))


def test_what_the_loops_cannot_read_pillow_resizes(monkeypatch):
    of_numpy = Image.fromarray(np.asarray(picture("L", 70, 50, "noise", seed=3)))
    assert of_numpy.readonly
    tall = picture("RGB", 3, 400, "noise", seed=4)
    wide = picture("L", 40000, 2, "noise", seed=5)
    for image, size in ((of_numpy, 33), (tall, 20), (wide, 8)):
        np.testing.assert_array_equal(resample.resize(image, size), by_pillow(image, size))
    image = picture("RGB", 300, 290, "noise", seed=6)
    expected = image.resize((20, 20), Image.Resampling.BILINEAR, (1, 2, 290, 280), 2.0)
    found = resample.resize(image, 20, box=(1, 2, 290, 280), reducing_gap=2.0)
    np.testing.assert_array_equal(found, np.asarray(expected))
    Image.core.set_block_size(4096)
    try:
        blocks = picture("RGB", 70, 50, "noise", seed=7)
        with pytest.raises(ValueError):
            blocks.__arrow_c_array__()
        np.testing.assert_array_equal(resample.resize(blocks, 33), by_pillow(blocks, 33))
    finally:
        Image.core.set_block_size(16 * 1024 * 1024)


@needs_loops
def test_wrong_arguments_are_refused():
    image = picture("RGB", 20, 10, "noise", seed=8)
    _, array = image.__arrow_c_array__()
    square = np.empty((8, 8, 3), np.uint8)
    good = [array, 4, (20, 10), (0, 0, 20, 10), square, (8, 8), False, False]
    assert LOOPS.resize(*good)
    wrong = {
        "another size": (2, (20, 11)),
        "other channels": (1, 3),
        "grey": (1, 1),
        "no capsule": (0, object()),
        "a box beside it": (3, (0, 0, 21, 10)),
        "an empty box": (3, (5, 0, 5, 10)),
        "no number": (3, (0, 0, float("nan"), 10)),
        "a small buffer": (4, np.empty((8, 7, 3), np.uint8)),
        "a gap in the buffer": (4, np.empty((8, 16, 3), np.uint8)[:, ::2]),
        "a constant buffer": (4, bytes(192)),
        "no result": (5, (0, 8)),
    }
    for name, (position, value) in wrong.items():
        with pytest.raises((ValueError, TypeError, BufferError)):
            LOOPS.resize(*[value if at == position else one for at, one in enumerate(good)])
            pytest.fail(name)


@needs_loops
def test_images_decode_to_the_same_pixels_without_the_loops(monkeypatch):
    turned = [encode(photo(200, 150), "JPEG", exif=exif(orientation)) for orientation in range(1, 9)]
    modes = [encode(photo(123, 77, mode), "PNG") for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")]
    files = [*turned, *modes, encode(photo(123, 77, "CMYK"), "JPEG"), encode(photo(123, 77), "GIF")]
    squares = [Square(96, (Distortion(110, 7, 3, True, 1.0), Distortion(96, 0, 0, True, 1.0))), Square(48)]
    with_loops = [decode_squares(data, squares) for data in files]
    monkeypatch.setattr(resample, "_loops", lambda: (None, "Pillow"))
    for data, views in zip(files, with_loops, strict=True):
        for one, other in zip(views, decode_squares(data, squares), strict=True):
            np.testing.assert_array_equal(one, other)


@needs_loops
def test_the_hash_is_the_same_without_the_loops(monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (9, 120, 299, 3), np.uint8)
    for height, width in ((120, 299), (32, 31), (1, 1), (7, 100), (64, 224)):
        part = noise[:, :height, :width]
        sums = perceptual_hash._cell_sums(part)
        np.testing.assert_array_equal(sums, perceptual_hash._cell_sums_by_numpy(part))
    expected = perceptual_hash.perceptual_hashes(noise)
    monkeypatch.setattr(perceptual_hash, "compiled_loops", lambda: None)
    np.testing.assert_array_equal(perceptual_hash.perceptual_hashes(noise), expected)
    table = perceptual_hash._sample_table(120)
    for wrong in (table + 299, table - 120):
        with pytest.raises(ValueError, match="beside the image"):
            LOOPS.cell_sums(noise, noise.shape[:3], table, wrong, (5, 9, 2), np.empty((9, 32, 32)))


def fake_loops(monkeypatch, **attributes):
    name = "preprocess.images._pixels"
    monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(**attributes))


def test_the_loops_of_another_source_or_of_no_compiler_are_not_used(monkeypatch, tmp_path):
    find = compiled._find.__wrapped__
    monkeypatch.setitem(sys.modules, "preprocess.images._pixels", None)  # as if there were no such file
    assert find() == (None, "not compiled when the project was installed: no C compiler?")
    fake_loops(monkeypatch, SOURCE_DIGEST="0" * 64)
    loops, why = find()
    assert loops is None and why.startswith("compiled from another version of _pixels.c: make setup")
    # Where the source is not installed, the compiled file came with the modules.
    shutil.copy(compiled.__file__, tmp_path / "elsewhere.py")
    monkeypatch.syspath_prepend(tmp_path)
    elsewhere = importlib.import_module("elsewhere")
    assert elsewhere._find()[0] is sys.modules["preprocess.images._pixels"]


def test_reports_say_what_resizes(monkeypatch):
    assert STATE.startswith("compiled (" if LOOPS is not None else "Pillow (")
    state = resample._loops.__wrapped__
    monkeypatch.setattr(resample, "compiled_loops", lambda: None)
    monkeypatch.setattr(resample, "why_missing", lambda: "no compiler")
    assert state() == (None, "Pillow (no compiler)")


@needs_loops
def test_loops_that_differ_from_this_pillow_are_not_used(monkeypatch):
    def one_level_more(*arguments):
        done = LOOPS.resize(*arguments)
        arguments[4][5, 5, 1] ^= 1
        return done

    monkeypatch.setattr(resample, "compiled_loops", lambda: types.SimpleNamespace(resize=one_level_more, KIND="C"))
    loops, words = resample._loops.__wrapped__()
    assert loops is None and "resizes to other pixels" in words
    monkeypatch.setattr(resample, "compiled_loops", lambda: LOOPS)
    monkeypatch.setattr(Image.core, "get_alignment", lambda: 16)
    assert resample._loops.__wrapped__() == (None, "Pillow (PILLOW_ALIGNMENT is set)")
