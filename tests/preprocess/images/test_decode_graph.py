import itertools
import random
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from preprocess.images import decode_graph
from preprocess.images.decode import IMAGE_SIZE, MAX_IMAGE_PIXELS, decode_image, encode_png
from preprocess.images.decode_graph import (
    NOT_READABLE,
    decode_image_graph,
    decode_images_or_errors_graph,
    scale_pixels,
)
from tests.support import image_corpus
from tests.support.image_corpus import Sample
from tests.support.mutated_corpus import mutated

PHOTOS = Path(__file__).resolve().parents[4] / "shared" / "data" / "flowers" / "photos"

# pytest sets aside the filter that `preprocess.images.decode` installs.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")

CORPUS = image_corpus.corpus()


@pytest.fixture(scope="module")
def decode():
    return tf.function(decode_image_graph, input_signature=[tf.TensorSpec([], tf.string)])


@pytest.mark.parametrize("sample", [s for s in CORPUS if s.in_graph], ids=repr)
def test_graph_gives_the_same_pixels(decode, sample: Sample) -> None:
    np.testing.assert_array_equal(decode(sample.data).numpy(), decode_image(sample.data))


@pytest.mark.parametrize("sample", [s for s in CORPUS if not s.in_graph], ids=repr)
def test_graph_refuses_what_it_would_draw_differently(decode, sample: Sample) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match=NOT_READABLE):
        decode(sample.data)
    pixels = decode_image(sample.data)
    np.testing.assert_array_equal(decode(encode_png(pixels)).numpy(), pixels)


def test_corpus_is_broad() -> None:
    assert len(CORPUS) > 100
    assert len({sample.name for sample in CORPUS}) == len(CORPUS)


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="no shared photos beside the checkout")
def test_real_photos_give_the_same_pixels(decode) -> None:
    paths = sorted(PHOTOS.glob("*/*.jpg"))
    for path in random.Random(0).sample(paths, 30):
        data = path.read_bytes()
        np.testing.assert_array_equal(decode(data).numpy(), decode_image(data), err_msg=str(path))


def test_batch_eager_dataset_and_saved_model_agree(tmp_path) -> None:
    by_name = {sample.name: sample.data for sample in CORPUS}
    names = ["jpeg-500x375", "png-RGBA", "gif-clear", "webp-orientation-6", "bmp-24", "jpeg-orientation-5"]
    images = [by_name[name] for name in names]
    expected = np.stack([decode_image(data) for data in images])

    class Decoder(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def decode(self, images):
            return decode_images_or_errors_graph(images)

    tf.saved_model.save(Decoder(), str(tmp_path))
    batched, errors = tf.saved_model.load(str(tmp_path)).decode(tf.constant(images))
    assert set(errors.numpy()) == {b""}
    assert batched.shape == (len(images), IMAGE_SIZE, IMAGE_SIZE, 3)
    np.testing.assert_array_equal(batched.numpy(), expected)
    np.testing.assert_array_equal(np.stack([decode_image_graph(data) for data in images[:3]]), expected[:3])
    dataset = tf.data.Dataset.from_tensor_slices(images).map(decode_image_graph)
    np.testing.assert_array_equal(np.stack(list(dataset.as_numpy_iterator())), expected)


def test_resize_equals_pillow_at_any_size() -> None:
    resize = tf.function(decode_graph._resize, input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
    rng = np.random.default_rng(3)
    shapes = [rng.integers(1, largest + 1, 2) for largest in (5, 40, 299, 900) for _ in range(12)]
    # Very tall ones, which Pillow resizes in the other order, and their neighbours.
    shapes += [(299, 2), (300, 2), (300, 3), (301, 3), (579, 3), (1201, 12), (1200, 12), (3, 900)]
    for height, width in shapes:
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        expected = Image.fromarray(pixels).resize((299, 299), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(resize(pixels).numpy(), np.asarray(expected), err_msg=str(pixels.shape))


def test_weights_are_the_ones_of_sequential_arithmetic_at_every_size() -> None:
    weights_of = tf.function(decode_graph._weights, input_signature=[tf.TensorSpec([], tf.int32)])
    for size in range(1, 2600, 7):
        scale = size / 299
        support = max(scale, 1.0)
        center = (np.arange(299) + 0.5) * scale
        first = np.maximum((center - support + 0.5).astype(int), 0)
        stop = np.minimum((center + support + 0.5).astype(int), size)
        line = first + np.arange((stop - first).max())[:, np.newaxis]
        weights = np.where(line < stop, np.maximum(1 - abs((line - center + 0.5) * (1 / support)), 0), 0)
        total = np.zeros(299)
        for tap in weights:
            total = total + tap
        actual_first, actual = weights_of(size)
        np.testing.assert_array_equal(actual_first, first)
        np.testing.assert_array_equal(actual, (0.5 + weights / total * (1 << 22)).astype(int), err_msg=str(size))


def test_alpha_over_white_is_the_integer_definition_for_all_values() -> None:
    colour, alpha = np.meshgrid(np.arange(256), np.arange(256))
    rgba = np.stack([colour, colour, colour, alpha], axis=-1).astype(np.uint8)
    expected = (colour * alpha + 255 * (255 - alpha) + 127) // 255
    np.testing.assert_array_equal(decode_graph._over_white(rgba)[..., 0], expected)
    canvas = Image.new("RGB", (256, 256), "white")
    clear = Image.fromarray(rgba)
    canvas.paste(clear, mask=clear)
    np.testing.assert_array_equal(np.asarray(canvas)[..., 0], expected)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    signature=st.sampled_from([b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"II*\0", b"MM\0*", b""]),
    tail=st.binary(max_size=60),
    cut=st.integers(0, 44),
    flip=st.tuples(st.integers(0, 43), st.integers(0, 255)),
    container=st.sampled_from(["jpeg", "png", "webp"]),
)
def test_exif_means_the_same(decode, signature, tail, cut, flip, container) -> None:
    whole = bytearray(image_corpus.exif(6))
    whole[flip[0]] ^= flip[1]
    for block in (b"Exif\0\0" + signature + tail, bytes(whole[:cut]), bytes(whole)):
        if container == "jpeg":
            data = image_corpus.with_segment(CORPUS[1].data, block)
        elif container == "png":
            data = image_corpus.png(2, 3, 8, 2, before_data=image_corpus.png_chunk(b"eXIf", block))
        else:
            data = image_corpus.encode(image_corpus.photo(2, 3), "WEBP", exif=block)
        np.testing.assert_array_equal(decode(data).numpy(), decode_image(data))


def test_scale_pixels() -> None:
    scaled = scale_pixels(tf.constant([0, 51, 255], tf.uint8))
    assert scaled.dtype == tf.float32
    np.testing.assert_allclose(scaled, [-1, -0.6, 1], atol=1e-7)


@pytest.mark.parametrize(
    "data", [b"", b"BM", b"GIF89a", b"RIFF\0\0\0\0WEBP", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"plain text"]
)
def test_short_content_is_an_error(decode, data: bytes) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(data)


def test_a_huge_declared_size_is_refused_before_decoding(decode) -> None:
    for data in (
        image_corpus.png_chunk(b"IHDR", b"\0\1\0\0\0\1\0\0\x08\2\0\0\0"),
        image_corpus.png_chunk(b"IHDR", b"\x7f\xff\xff\xff\x7f\xff\xff\xff\x08\2\0\0\0"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"more than {MAX_IMAGE_PIXELS}"):
            decode(b"\x89PNG\r\n\x1a\n" + data)


@pytest.fixture(scope="module")
def decode_batch():
    return tf.function(
        decode_images_or_errors_graph, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False
    )


def test_a_bad_image_fails_for_itself_alone_and_says_why(decode_batch) -> None:
    by_name = {sample.name: sample.data for sample in CORPUS}
    good = [by_name[name] for name in ("jpeg-500x375", "png-RGBA", "gif-clear")]
    huge = b"\x89PNG\r\n\x1a\n" + image_corpus.png_chunk(b"IHDR", b"\0\1\0\0\0\1\0\0\x08\2\0\0\0")
    bad = {
        b"": "empty_file: ",
        b"plain text": "unsupported_format: ",
        by_name["gif-partial-frame"]: "unsupported_format: ",
        huge: "too_many_pixels: ",
        good[0][:500]: "corrupt: ",
        b"\xff\xd8\xff": "corrupt: ",
    }
    images = [good[0], *list(bad)[:3], good[1], *list(bad)[3:], good[2]]
    pixels, errors = (tensor.numpy() for tensor in decode_batch(tf.constant(images)))
    for image, found, error in zip(images, pixels, errors, strict=True):
        if image in bad:
            assert error.decode().startswith(bad[image])
            assert not found.any()
        else:
            assert error == b""
            np.testing.assert_array_equal(found, decode_image(image))


def test_batches_of_bad_images_alone_and_of_none(decode_batch) -> None:
    pixels, errors = decode_batch(tf.constant([b"\xff\xd8\xff", b"GIF89a", b""]))
    assert pixels.shape == (3, IMAGE_SIZE, IMAGE_SIZE, 3)
    assert all(errors.numpy())
    pixels, errors = decode_batch(tf.constant([], tf.string))
    assert pixels.shape == (0, IMAGE_SIZE, IMAGE_SIZE, 3)
    assert errors.shape == (0,)


def test_files_with_mutations_never_fail_a_batch(decode_batch) -> None:
    files = [data for _, data in itertools.islice(mutated(), 0, None, 7)][:60]
    pixels, errors = (tensor.numpy() for tensor in decode_batch(tf.constant(files)))
    assert sum(error != b"" for error in errors) > 10
    for found, error in zip(pixels, errors, strict=True):
        assert error == b"" or not found.any()


def test_truncated_content_is_an_error_or_the_same_pixels(decode) -> None:
    by_name = {sample.name: sample.data for sample in CORPUS}
    for name in ("jpeg-orientation-6", "png-orientation-6", "gif-clear", "webp-orientation-6", "bmp-24"):
        data = by_name[name]
        for length in range(1, len(data), max(1, len(data) // 23)):
            with pytest.raises(tf.errors.InvalidArgumentError):
                decode(data[:length])
