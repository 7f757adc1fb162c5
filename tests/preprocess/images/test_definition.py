import numpy as np
import pytest

from configs.errors import InputError
from preprocess.images.decode import IMAGE_DEFINITION, decode_image, jpeg_reduced_side
from preprocess.images.definition import SCALINGS, ImageDefinition
from tests.support.image_corpus import corpus

# One of each kind of format, mode, orientation and size.
SAMPLES = [sample for sample in corpus() if sample.in_graph][::12]


def test_the_default_is_what_sets_of_inception_v3_name():
    assert ImageDefinition().name == IMAGE_DEFINITION == "upright-rgb-299-bilinear/2"
    assert jpeg_reduced_side(299) == 374


@pytest.mark.parametrize("scaling", [*SCALINGS, "127,128", "-1.5,0.25"])
def test_a_name_says_all(scaling):
    for size in (8, 128, 1024):
        definition = ImageDefinition(size=size, scaling=scaling)
        assert ImageDefinition.named(definition.name) == definition
    assert len({ImageDefinition(scaling=name).name for name in SCALINGS}) == len(SCALINGS)


@pytest.mark.parametrize("name", ["", "upright-rgb-299-bilinear/1", "upright-rgb-7-bilinear/2", "x", "unverified"])
def test_a_name_of_another_version_is_refused(name):
    with pytest.raises(InputError):
        ImageDefinition.named(name)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"size": 7}, "image_size: must be from 8"),
        ({"size": 5000}, "image_size"),
        ({"scaling": "torhc"}, "Did you mean 'torch'"),
        ({"scaling": "127,0"}, "scaling: must be"),
        ({"scaling": "a,b"}, "scaling: must be"),
    ],
)
def test_what_can_be_wrong(fields, words):
    with pytest.raises(InputError, match=words):
        ImageDefinition(**fields)


@pytest.mark.parametrize("size", [128, 331])
def test_both_implementations_give_the_same_pixels_at_every_size(size):
    import tensorflow as tf

    from preprocess.images.decode_graph import decode_image_graph

    decode = tf.function(
        lambda data: decode_image_graph(data, size), input_signature=[tf.TensorSpec([], tf.string)], autograph=False
    )
    assert len(SAMPLES) >= 10
    for sample in SAMPLES:
        pixels = decode_image(sample.data, size=size)
        assert pixels.shape == (size, size, 3)
        np.testing.assert_array_equal(decode(sample.data).numpy(), pixels, err_msg=sample.name)


def test_scalings_are_those_of_keras():
    import keras

    from preprocess.images.decode_graph import scale_pixels

    pixels = np.random.RandomState(0).randint(0, 256, (2, 5, 5, 3), np.uint8)
    for mode in ("tf", "torch", "caffe"):
        expected = keras.applications.imagenet_utils.preprocess_input(pixels.astype(np.float32), mode=mode)
        np.testing.assert_allclose(scale_pixels(pixels, mode), expected, atol=1e-5, err_msg=mode)
    np.testing.assert_allclose(scale_pixels(pixels, "unit"), pixels / 255, atol=1e-6)
    np.testing.assert_array_equal(scale_pixels(pixels, "none"), pixels)
    np.testing.assert_allclose(scale_pixels(pixels, "127,128"), (pixels - 127.0) / 128, atol=1e-6)
    with pytest.raises(ValueError, match="scaling"):
        scale_pixels(pixels, "other")
