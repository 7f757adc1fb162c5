import importlib.util
import pickle
import struct
import subprocess
import sys
import typing
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from preprocess.images import decode
from preprocess.images.decode import (
    IMAGE_SIZE,
    ImageError,
    ImageErrorReason,
    decode_image,
    encode_png,
    exif_orientation,
)
from tests.support import image_corpus
from tests.support.image_corpus import Sample, encode, exif, photo

# pytest sets aside the filter that `preprocess.images.decode` installs.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")

CORPUS = image_corpus.corpus()
BY_NAME = {sample.name: sample.data for sample in CORPUS}
REASONS = typing.get_args(ImageErrorReason)

# One small file of each format, to damage.
VICTIMS = (
    "jpeg-orientation-6",
    "jpeg-progressive",
    "jpeg-cmyk-adobe",
    "png-orientation-6",
    "png-palette-alpha",
    "gif-animated-clear",
    "webp-orientation-6",
    "webp-lossless-alpha",
    "bmp-8-palette",
    "tiff-lzw-orientation",
    "tiff-jpeg",
    "tiff-fax",
    "avif",
    "jpeg2000",
    "ppm",
)

HAS_HEIF = importlib.util.find_spec("pi_heif") is not None


def reason_of(data: bytes, **options: int) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data, **options)
    assert caught.value.reason in REASONS
    assert caught.value.message and "\n" not in caught.value.message
    return caught.value.reason


def pixels_or_error(data: bytes) -> None:
    try:
        pixels = decode_image(data, max_pixels=1 << 22)
    except ImageError as error:
        assert error.reason in REASONS
    else:
        assert pixels.shape == (IMAGE_SIZE, IMAGE_SIZE, 3) and pixels.dtype == np.uint8


@pytest.mark.parametrize("sample", CORPUS, ids=repr)
def test_corpus_decodes_and_survives_png(sample: Sample) -> None:
    pixels = decode_image(sample.data)
    assert pixels.shape == (IMAGE_SIZE, IMAGE_SIZE, 3)
    assert pixels.dtype == np.uint8 and pixels.flags.writeable and pixels.flags.c_contiguous
    np.testing.assert_array_equal(decode_image(encode_png(pixels)), pixels)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_orientation_is_undone(image_format: str) -> None:
    for orientation in range(1, 9):
        data = encode(photo(200, 150), image_format, exif=exif(orientation))
        # Of a TIFF, Pillow turns the image while reading; of the others this is a copy.
        upright = ImageOps.exif_transpose(Image.open(image_corpus.io.BytesIO(data)))
        expected = np.asarray(upright.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR), int)
        # One level: turned after the resize here, before it there.
        assert abs(decode_image(data).astype(int) - expected).max() <= 1, orientation


def test_orientation_is_read_in_both_byte_orders_and_anywhere() -> None:
    plain = encode(photo(20, 10), "JPEG")
    assert exif_orientation(plain) == 1
    for order in "<>":
        assert exif_orientation(image_corpus.with_segment(plain, exif(7, order))) == 7
    assert exif_orientation(BY_NAME["jpeg-second-exif"]) == 3
    assert exif_orientation(BY_NAME["jpeg-fill-bytes"]) == 6
    assert exif_orientation(BY_NAME["png-many-chunks"]) == 8
    broken = [sample for sample in CORPUS if sample.name.startswith("jpeg-exif-")]
    assert len(broken) == 9
    # A count beyond the block is no reason to ignore the entries that are there.
    found = {sample.name: exif_orientation(sample.data) for sample in broken}
    assert found.pop("jpeg-exif-count") == 6
    assert set(found.values()) == {1}


def test_reduced_jpeg_is_near_the_full_one() -> None:
    image = Image.open(image_corpus.io.BytesIO(BY_NAME["jpeg-3000x2000"]))
    full = np.asarray(image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR), int)
    assert abs(decode_image(BY_NAME["jpeg-3000x2000"]).astype(int) - full).mean() < 2


def test_a_jpeg_has_the_same_pixels_however_libjpeg_writes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def outcome(data: bytes) -> bytes | str:
        try:
            return decode_image(data, size=64).tobytes()
        except ImageError as error:
            return str(error)

    files = [sample.data for sample in CORPUS if sample.data[:3] == b"\xff\xd8\xff" and len(sample.data) < 100_000]
    files += [data[: 2 * len(data) // 3] for data in files]
    assert len(files) > 50
    found = {written: [] for written in (True, False)}
    for written, outcomes in found.items():
        monkeypatch.setattr(decode, "_DECODES_TO_RGBX", written)
        outcomes += map(outcome, files)
    assert found[True] == found[False]


def test_sixteen_bits_keep_the_high_byte() -> None:
    samples = np.random.default_rng(0).integers(0, 65536, (IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint16)
    for image_format in ("PNG", "TIFF", "PPM"):
        decoded = decode_image(encode(Image.fromarray(samples), image_format))
        np.testing.assert_array_equal(decoded, np.stack([samples >> 8] * 3, axis=-1))


def test_white_is_zero_16_bit_tiff_is_not_a_negative() -> None:
    samples = np.full((4, 4), 0x1234, np.uint16)
    data = encode(Image.fromarray(samples), "TIFF")
    tag = data.index(struct.pack("<HHI", 262, 3, 1)) + 8
    assert decode_image(data[:tag] + b"\0\0" + data[tag + 2 :]).max() == 255 - 0x12


def test_transparency_becomes_white_and_in_gif_black() -> None:
    clear = Image.new("RGBA", (8, 8), (10, 20, 30, 0))
    assert decode_image(encode(clear, "PNG")).min() == 255
    half = Image.new("RGBA", (8, 8), (10, 20, 30, 128))
    assert decode_image(encode(half, "PNG"))[0, 0].tolist() == [132, 137, 142]
    index = Image.new("P", (8, 8), 1)
    index.putpalette([9, 9, 9, 200, 100, 50])
    assert decode_image(encode(index, "PNG", transparency=1)).min() == 255
    assert decode_image(encode(index, "PNG"))[0, 0].tolist() == [200, 100, 50]
    assert decode_image(encode(index, "GIF", transparency=1)).max() == 0


def test_partial_gif_frame_stands_on_black() -> None:
    pixels = decode_image(BY_NAME["gif-partial-frame"])
    assert pixels[:20].max() == 0 and pixels[-50:].max() == 0 and pixels[100, 100].max() > 0


def test_low_depth_clear_grey_is_scaled_like_the_pixels() -> None:
    assert (decode_image(BY_NAME["png-type0-2bit-clear"]) == 255).mean() > (
        decode_image(BY_NAME["png-type0-2bit"]) == 255
    ).mean()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty_file"),
        (b"hello world, not an image", "not_an_image"),
        (b"<!doctype html><title>404</title>", "not_an_image"),
        (b"PK\3\4" + bytes(50), "not_an_image"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "corrupt" if HAS_HEIF else "unsupported_format"),
        (b"%PDF-1.7\n", "unsupported_format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "unsupported_format"),
        (b"\xff\xd8\xff\xe0", "truncated"),
        (BY_NAME["png-1x1"].replace(b"IHDR\0", b"IHDR\1"), "corrupt"),
        (encode(Image.new("F", (3, 3)), "TIFF"), "unsupported_mode"),
        (encode(Image.new("I", (3, 3)), "TIFF"), "unsupported_mode"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_reason(data: bytes, reason: str) -> None:
    assert reason_of(data) == reason


@pytest.mark.parametrize("name", ["jpeg-500x375", "png-640x333", "gif", "bmp-24", "tiff-rgb", "ppm"])
def test_cut_in_the_pixels_is_truncated(name: str) -> None:
    assert reason_of(BY_NAME[name][: len(BY_NAME[name]) * 2 // 3]) == "truncated"


@pytest.mark.parametrize("name", VICTIMS)
def test_cut_anywhere_is_pixels_or_an_error(name: str) -> None:
    data = BY_NAME[name]
    for length in {*range(1, 60, 7), *range(1, len(data), max(1, len(data) // 40))}:
        pixels_or_error(data[:length])


def test_too_many_pixels() -> None:
    assert reason_of(BY_NAME["jpeg-299x299"], max_pixels=299 * 299 - 1) == "too_many_pixels"
    decode_image(BY_NAME["jpeg-299x299"], max_pixels=299 * 299)
    jpeg = bytearray(BY_NAME["jpeg-299x299"])
    frame = next(start for kind, start, _ in image_corpus.jpeg_segments(bytes(jpeg)) if kind == 0xC0)
    jpeg[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    webp = bytearray(BY_NAME["webp-animated-RGB"])
    webp[24:30] = b"\xff\xff\x00\xff\xff\x00"
    header = b"\x7f\xff\xff\xff\x7f\xff\xff\xff\x08\2\0\0\0"
    png = BY_NAME["png-1x1"][:8] + image_corpus.png_chunk(b"IHDR", header) + BY_NAME["png-1x1"][33:]
    bmp = bytearray(BY_NAME["bmp-24"])
    bmp[18:26] = struct.pack("<ii", 1 << 30, 1 << 30)
    gif = bytearray(BY_NAME["gif"])
    gif[6:10] = b"\xff\xff\xff\xff"
    for bomb in (jpeg, webp, png, bmp, gif, b"P6 99999999 99999999 255\n"):
        assert reason_of(bytes(bomb)) == "too_many_pixels"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(VICTIMS),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=6),
    in_header=st.booleans(),
)
def test_flipped_bits_are_pixels_or_an_error(name: str, flips: list[tuple[float, int]], in_header: bool) -> None:
    data = bytearray(BY_NAME[name])
    for place, mask in flips:
        data[int(place * min(len(data), 200 if in_header else len(data)))] ^= mask
    pixels_or_error(bytes(data))


@settings(max_examples=150, deadline=None)
@given(
    head=st.sampled_from([b"", *sorted({BY_NAME[name][:16] for name in VICTIMS})]),
    tail=st.binary(max_size=300),
)
def test_random_bytes_are_pixels_or_an_error(head: bytes, tail: bytes) -> None:
    pixels_or_error(head + tail)


@settings(max_examples=200, deadline=None)
@given(block=st.binary(max_size=80), order=st.sampled_from([b"II*\0", b"MM\0*", b""]))
def test_any_exif_block_gives_an_orientation(block: bytes, order: bytes) -> None:
    jpeg = image_corpus.with_segment(BY_NAME["jpeg-2x3"], b"Exif\0\0" + order + block)
    assert exif_orientation(jpeg) in range(1, 9)
    decode_image(jpeg)


def test_encode_png_refuses_other_arrays() -> None:
    for array in (np.zeros((299, 299), np.uint8), np.zeros((299, 299, 3), np.float32)):
        with pytest.raises(ValueError, match="Received"):
            encode_png(array)


def test_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(ImageError("corrupt", "bad huffman code")))
    assert (error.reason, error.message) == ("corrupt", "bad huffman code")
    assert str(error) == "corrupt: bad huffman code"


def test_threads_agree() -> None:
    names = [name for name in BY_NAME if "3000" not in name][::3]
    expected = [decode_image(BY_NAME[name]) for name in names]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(2):
            decoded = list(pool.map(lambda name: decode_image(BY_NAME[name]), names))
            assert all(map(np.array_equal, decoded, expected))


def test_nothing_is_printed_and_no_tensorflow_is_needed(tmp_path) -> None:
    damaged = [BY_NAME[f"jpeg-exif-{kind}"] for kind in ("cut", "offset", "count")]
    damaged += [BY_NAME["tiff-jpeg"][:300], BY_NAME["tiff-lzw-orientation"][:-40], BY_NAME["png-bad-exif"]]
    for number, data in enumerate(damaged):
        (tmp_path / str(number)).write_bytes(data)
    program = (
        "import sys, pathlib\n"
        "from preprocess.images.decode import decode_image, ImageError\n"
        "for path in sys.argv[1:]:\n"
        "    try: decode_image(pathlib.Path(path).read_bytes())\n"
        "    except ImageError: pass\n"
        "assert 'tensorflow' not in sys.modules and 'apache_beam' not in sys.modules\n"
    )
    command = [sys.executable, "-c", program, *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
