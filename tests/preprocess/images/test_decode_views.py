"""The pixels of views: those of the formulas, from one decode, in this process and in a decoder's."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from benchmarks import numpy_views
from preprocess.images.decode import ImageError, decode_image, decode_views
from preprocess.images.isolated_decoder import IsolatedDecoder
from preprocess.images.loader import ImageLoader
from preprocess.images.parallel_loader import ParallelLoader
from preprocess.images.read import read_image_bytes
from preprocess.records.views import Views
from tests.support.image_corpus import encode, photo

VIEWS = Views(count=5, flip_left_right=True, random_crop=15, random_scale=25, random_brightness=20)


def decoded(data, size=299, views=VIEWS):
    return decode_views(data, views.distortions(hashlib.sha256(data).digest(), size=size), size=size)


def numpy_copies(image, data, size=299, views=VIEWS):
    return [numpy_views.view_of(image, data, view, views, size=size)[0] for view in range(1, views.count)]


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("shape", [(500, 333), (40, 900), (299, 299), (1, 1)])
def test_views_have_the_pixels_of_the_formulas(mode, shape):
    image = photo(*shape).convert(mode)
    data = encode(image, "PNG")
    first, *others = decoded(data)
    np.testing.assert_array_equal(first, decode_image(data))
    for found, expected in zip(others, numpy_copies(np.array(image.convert("RGB")), data), strict=True):
        assert found.shape == (299, 299, 3) and found.dtype == np.uint8 and found.flags.c_contiguous
        # Pillow rounds after each of two directions.
        assert np.abs(found - expected).max() <= 2
        assert np.abs(found - expected).mean() < 0.4


def test_views_of_a_very_large_picture_are_those_of_the_formulas_within_a_grey_level():
    image = photo(1300, 1200)
    data = encode(image, "PNG", compress_level=1)
    views = Views(count=3, random_crop=10)
    found_views = decoded(data, size=224, views=views)[1:]
    for found, expected in zip(found_views, numpy_copies(np.array(image), data, size=224, views=views), strict=True):
        assert np.abs(found - expected).max() <= 8
        assert np.abs(found - expected).mean() < 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_views_are_upright_and_only_then_mirrored(orientation):
    # Brightness grows to the right and red grows downwards, in the picture as it is stored.
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    stored = np.stack([np.tile(ramp[:, None], (1, 64)), np.tile(ramp, (64, 1)), np.zeros((64, 64), np.uint8)], axis=-1)
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(buffer, "PNG", exif=exif)
    data = buffer.getvalue()
    upright = decode_image(data).astype(int)

    def slopes(pixels):
        pixels = pixels.astype(int)
        right, down = pixels[:, -1] - pixels[:, 0], pixels[-1] - pixels[0]
        return np.sign(np.array([right.mean(0), down.mean(0)])[:, :2].round(-1))

    views = Views(count=9, flip_left_right=True, random_crop=20)
    drawn = views.distortions(hashlib.sha256(data).digest(), size=299)
    assert {one.mirrored for one in drawn} == {True, False}
    for one, found in zip(drawn, decoded(data, views=views)[1:], strict=True):
        expected = slopes(upright)
        if one.mirrored:
            expected[0] *= -1
        np.testing.assert_array_equal(slopes(found), expected)


def test_without_crop_and_scale_a_view_is_the_image_or_its_mirror():
    data = encode(photo(300, 200), "JPEG")
    views = Views(count=9, flip_left_right=True)
    first, *others = decoded(data, views=views)
    kinds = [next(i for i, one in enumerate((first, first[:, ::-1])) if np.array_equal(found, one)) for found in others]
    assert set(kinds) == {0, 1}


def test_a_large_jpeg_is_decoded_once_at_the_scale_of_view_0(monkeypatch):
    from preprocess.images import decode

    opened = []
    real = decode._open
    monkeypatch.setattr(decode, "_open", lambda *args: opened.append(args) or real(*args))
    image = photo(1600, 800)
    data = encode(image, "JPEG")
    views = Views(count=3, random_crop=10, random_scale=10)
    first, *others = decoded(data, views=views)
    assert len(opened) == 1
    np.testing.assert_array_equal(first, decode_image(data))
    full = np.array(Image.open(io.BytesIO(data)))
    for found, expected in zip(others, numpy_copies(full, data, views=views), strict=True):
        assert np.abs(found - expected).mean() < 3


def test_the_decoder_process_gives_the_same_views_and_the_same_failures():
    decoder = IsolatedDecoder(views=VIEWS, size=128)
    for data in (encode(photo(200, 90), "JPEG"), encode(photo(30, 40), "PNG")):
        found = decoder(data, hashlib.sha256(data).digest())
        np.testing.assert_array_equal(found, np.stack(decoded(data, size=128)))
    with pytest.raises(ImageError, match="empty_file"):
        decoder(b"", bytes(32))
    # The same child decodes single views.
    np.testing.assert_array_equal(IsolatedDecoder(size=128)(data), decode_image(data, size=128))


def test_loaders_give_the_same_views(tmp_path):
    locations = []
    for number in range(5):
        path = tmp_path / f"{number}.png"
        path.write_bytes(encode(photo(20 + number, 30), "PNG"))
        locations.append(str(path))
    (tmp_path / "2.png").write_bytes(b"no image")
    views = Views(count=3, flip_left_right=True, random_crop=30)
    decode = IsolatedDecoder(views=views, size=64)
    read = lambda path: read_image_bytes(path, read_remote=None, max_bytes=1 << 20)  # noqa: E731
    here = ImageLoader(read=read, decode=decode, decodes_views=True, max_ahead=4)
    elsewhere = ParallelLoader(
        here=here, decode=decode, views=3, max_bytes=1 << 20, deadline_sec=60, max_ahead=4, image_bytes=3 * 64 * 64 * 3
    )
    outcomes = {}
    for loader in (here, elsewhere):
        loader.add(locations)
        outcomes[loader] = [loader.next() for _ in locations]
    for number, (one, other) in enumerate(zip(*outcomes.values(), strict=True)):
        if number == 2:
            assert (one.stage, one.reason) == (other.stage, other.reason) == ("decode", "not_an_image")
            continue
        np.testing.assert_array_equal(one.pixels, other.pixels)
        data = (tmp_path / f"{number}.png").read_bytes()
        np.testing.assert_array_equal(one.pixels, np.stack(decoded(data, size=64, views=views)))
