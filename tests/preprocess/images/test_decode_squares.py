"""Squares of several sizes from one decode: each has the pixels that it has alone."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from preprocess.images import decode
from preprocess.images.decode import ImageError, Square, decode_image, decode_squares, jpeg_reduced_side, jpeg_scale
from preprocess.images.isolated_decoder import IsolatedDecoder
from preprocess.images.loader import ImageLoader
from preprocess.images.parallel_loader import ParallelLoader
from preprocess.images.pixel_layout import PixelLayout
from preprocess.images.read import read_image_bytes
from preprocess.records.views import Views
from tests.support.image_corpus import corpus, encode, photo

SIZES = (299, 96, 224, 480, 97)


@pytest.mark.parametrize(
    ("shape", "image_format", "decodes"),
    [
        ((500, 375), "JPEG", 2),  # For 96, half of it is enough.
        ((1600, 1250), "JPEG", 3),
        ((100, 90), "JPEG", 1),
        ((1600, 1250), "PNG", 1),
        ((500, 375), "WEBP", 1),
    ],
)
def test_an_image_is_decoded_once_for_each_scale(monkeypatch, shape, image_format, decodes):
    data = encode(photo(*shape), image_format)
    alone = [decode_image(data, size=size) for size in SIZES]
    opened = []
    real = decode._open
    monkeypatch.setattr(decode, "_open", lambda *args: opened.append(args) or real(*args))
    found = decode_squares(data, [Square(size) for size in SIZES])
    for one, expected in zip(found, alone, strict=True):
        np.testing.assert_array_equal(one, expected)
    assert len(opened) == decodes


def test_every_kind_of_image_gives_the_pixels_and_the_failures_that_it_gives_alone():
    for sample in [sample for sample in corpus() if len(sample.data) < 60_000][::3]:
        try:
            expected = [decode_image(sample.data, size=size) for size in (299, 64)]
        except ImageError as error:
            with pytest.raises(ImageError) as caught:
                decode_squares(sample.data, [Square(299), Square(64)])
            assert (caught.value.reason, caught.value.message) == (error.reason, error.message)
        else:
            for found, one in zip(decode_squares(sample.data, [Square(299), Square(64)]), expected, strict=True):
                np.testing.assert_array_equal(found, one)


def test_the_scale_of_a_jpeg_is_the_one_that_pillow_takes():
    random = np.random.RandomState(0)
    for width, height, size in random.randint(8, 2500, (60, 3)) // (1, 1, 4) + (0, 0, 8):
        buffer = io.BytesIO()
        Image.new("L", (width, height)).save(buffer, "JPEG")
        image = Image.open(buffer)
        image.draft(None, (jpeg_reduced_side(size), jpeg_reduced_side(size)))
        assert jpeg_scale((width, height), size) == image.decoderconfig[0]
    assert jpeg_scale(None, 8) == 1


@pytest.mark.parametrize("views", [None, Views(count=3, flip_left_right=True, random_crop=15, random_scale=25)])
def test_a_decoder_process_gives_each_square_with_its_views(views):
    decoder = IsolatedDecoder(size=128, further_sizes=(224, 32), views=views)
    assert decoder.layout == PixelLayout(sizes=(128, 224, 32), views=3 if views else 1)
    for data in (encode(photo(900, 700), "JPEG"), encode(photo(30, 40), "PNG")):
        digest = hashlib.sha256(data).digest()
        pixels = decoder(data, digest)
        assert pixels.nbytes == decoder.layout.num_bytes
        for size in decoder.layout.sizes:
            np.testing.assert_array_equal(
                decoder.layout.square(pixels, size), IsolatedDecoder(size=size, views=views)(data, digest)
            )
    with pytest.raises(ImageError, match="empty_file"):
        decoder(b"", bytes(32))


def test_helper_processes_hand_on_all_squares(tmp_path):
    locations = []
    for number in range(4):
        path = tmp_path / f"{number}.png"
        path.write_bytes(encode(photo(60, 50 + number), "PNG"))
        locations.append(str(path))
    decoder = IsolatedDecoder(size=64, further_sizes=(32,))

    def read(location):
        return read_image_bytes(location, read_remote=None)

    loader = ParallelLoader(
        here=ImageLoader(read=read, decode=decoder, max_ahead=4),
        decode=decoder,
        max_bytes=10**6,
        deadline_sec=60,
        max_ahead=8,
        image_bytes=decoder.layout.num_bytes,
    )
    loader.add(locations)
    for location in locations:
        image = loader.next()
        for size in (64, 32):
            np.testing.assert_array_equal(
                decoder.layout.square(image.pixels, size), decode_image(read(location), size=size)
            )
