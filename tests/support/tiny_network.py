"""A small network in Inception's place: the same layers, a hundredth of the time."""

import numpy as np

from preprocess.backbones import backbone
from preprocess.backbones.architectures import Architecture
from preprocess.backbones.weights_files import PublishedFile
from preprocess.images.decode import IMAGE_SIZE
from preprocess.images.definition import ImageDefinition

NAME = "tiny"


def build(size=IMAGE_SIZE):
    import keras

    layers = keras.layers
    pixels = layers.Input((size, size, 3))
    stem = layers.Conv2D(8, 5, strides=8, use_bias=False)(pixels)
    stem = layers.Activation("relu")(layers.BatchNormalization(scale=False)(stem))
    left = layers.Conv2D(8, 3, padding="same")(stem)
    left = layers.Activation("relu")(layers.BatchNormalization()(left))
    # Its convolution has another reader, so it must stay.
    shared = layers.Conv2D(8, 1)(stem)
    right = layers.concatenate([layers.BatchNormalization()(shared), shared])
    joined = layers.concatenate([left, layers.AveragePooling2D(3, 1, padding="same")(right)])
    return keras.Model(pixels, layers.GlobalAveragePooling2D()(joined))


def install(monkeypatch, size=IMAGE_SIZE):
    """Lets `--backbone` name it. It takes images of this size."""
    tiny = Architecture(
        embedding_size=24,
        build=lambda: build(size),
        imagenet=PublishedFile(url="https://nowhere/tiny.h5", digest=""),
        image=ImageDefinition(size=size),
    )
    monkeypatch.setitem(backbone.ARCHITECTURES, NAME, tiny)


def stand_for(monkeypatch, name):
    """Lets the name of a known network stand for this one. Engines of that name are not mixed up with others of it."""
    from preprocess.engines import select

    monkeypatch.setitem(backbone.ARCHITECTURES, name, backbone.ARCHITECTURES[NAME])
    monkeypatch.setattr(select, "_loaded", {})


def trained(model, seed=0):
    """Gives it the same weights each time, and normalizations as training would: none of them is the identity."""
    random = np.random.RandomState(seed)

    def weights_like(array):
        if array.ndim == 1:
            return random.uniform(0.5, 1.5, array.shape) * (array + 0.1)
        fan_in = np.prod(array.shape[:-1])
        return random.normal(0.1, 1, array.shape) * np.sqrt(2 / fan_in)

    model.set_weights([weights_like(array) for array in model.get_weights()])
    return model
