"""Parity checks: the images on which an exported format is compared with the trainer, and the scores of both."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from preprocess.images.decode import IMAGE_SIZE, ImageError, decode_image, encode_png
from preprocess.images.decode_graph import decode_images_or_errors_graph, scale_pixels
from preprocess.images.probe_images import probe_images
from trainer.data.photos import Photo, decode_photo
from trainer.evaluation.scores import scores_of
from trainer.export.model_info import ModelInfo
from trainer.storage.tensorflow_paths import path_for_tensorflow
from trainer.training.head import predict_logits

_MAX_IMAGES = 16
_BATCH_SIZE = 4

# Sizes (width, height) of generated images: smaller and larger than the network's input; one is decoded at half scale.
_GENERATED_SIZES = ((200, 150), (299, 299), (420, 560), (1000, 800))

Source = Literal["photos", "generated images", "generated embeddings"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Samples:
    """The inputs on which the trainer and an exported model are compared.

    Attributes:
      source: where the samples come from.
      names: the names of the samples: paths of photos, or descriptions of generated images.
      encoded: the encoded images that the SavedModel gets; empty for embeddings.
      inputs: the pixels that `decode_image` gives, uint8 [n, size, size, 3], or embeddings, float32 [n, m].
      sent_as_png: how many of `encoded` are PNGs of `inputs`, because TensorFlow cannot decode the file.
    """

    source: Source
    names: tuple[str, ...]
    encoded: tuple[bytes, ...]
    inputs: np.ndarray
    sent_as_png: int = 0

    def __len__(self) -> int:
        return len(self.names)

    def pieces(self) -> Iterator[slice]:
        """First one sample alone and then several at a time, so that a model with a fixed batch size fails."""
        yield slice(0, 1)
        for start in range(1, len(self), _BATCH_SIZE):
            yield slice(start, start + _BATCH_SIZE)


def _generated() -> Iterator[Photo]:
    for number, pixels in enumerate(probe_images(8)):
        width, height = _GENERATED_SIZES[number % len(_GENERATED_SIZES)]
        encoded = io.BytesIO()
        Image.fromarray(pixels).resize((width, height)).save(encoded, "JPEG", quality=90)
        yield f"generated image {number}, {width} x {height}", encoded.getvalue()


def image_samples(photos: Sequence[Photo], size: int = IMAGE_SIZE) -> Samples:
    """Up to 16 images: the photos that can be decoded. If there is none, always the same generated JPEGs.

    Args:
      photos: names and contents of image files.
      size: the side of the square that the backbone takes.
    """
    found: list[tuple[str, bytes, np.ndarray]] = []
    for name, data in photos:
        try:
            found.append((name, data, decode_photo(data, size=size)))
        except ImageError:  # The pipeline could not have embedded this photo either.
            continue
        if len(found) == _MAX_IMAGES:
            break
    are_photos = bool(found)
    if are_photos:
        # A format that TensorFlow does not read, or a fault of a file that Pillow forgives.
        _, errors = decode_images_or_errors_graph(tf.constant([data for _, data, _ in found]), size)
        readable = [not error for error in errors.numpy()]
    else:
        found = [(name, data, decode_image(data, size=size)) for name, data in _generated()]
        readable = [True] * len(found)  # TensorFlow reads these JPEGs. To ask it takes most of a second.
    return Samples(
        source="photos" if are_photos else "generated images",
        names=tuple(name for name, _, _ in found),
        encoded=tuple(
            data if is_readable else encode_png(pixels)
            for (_, data, pixels), is_readable in zip(found, readable, strict=True)
        ),
        inputs=np.stack([pixels for _, _, pixels in found]),
        sent_as_png=readable.count(False),
    )


def embedding_samples(embedding_size: int) -> Samples:
    """Samples for a model without a backbone: non-negative numbers, as they come from a ReLU and an average."""
    inputs = np.abs(np.random.RandomState(0).standard_normal((_MAX_IMAGES, embedding_size))).astype(np.float32)
    names = tuple(f"generated embedding {number}" for number in range(_MAX_IMAGES))
    return Samples(source="generated embeddings", names=names, encoded=(), inputs=inputs)


def trainer_scores(samples: Samples, *, backbone: keras.Model | None, head: keras.Model, info: ModelInfo) -> np.ndarray:
    """The scores of the trainer's own parts: the network in Keras, and the scores in NumPy.

    Returns:
      float64 [n, num_labels].
    """

    def embeddings(inputs: np.ndarray) -> np.ndarray:
        if backbone is None:
            return inputs
        return keras.ops.convert_to_numpy(
            backbone(scale_pixels(tf.constant(inputs), info.image.scaling), training=False)
        )

    logits = predict_logits(head, (embeddings(samples.inputs[piece]) for piece in samples.pieces()))
    return scores_of(logits, info.label_mode, temperature=info.temperature)


def saved_model_scores(model_dir: str, samples: Samples) -> np.ndarray:
    """The scores of a SavedModel, which is loaded again. It gets encoded images if it takes images.

    Returns:
      float32 [n, num_labels].
    """
    with path_for_tensorflow(model_dir) as path:
        model = tf.saved_model.load(path)

    def scores_of_piece(piece: slice) -> np.ndarray:
        if samples.encoded:
            images = samples.encoded[piece]
            found = model.signatures["images"](image_bytes=tf.constant(images, tf.string))
        else:
            found = model.signatures["embeddings"](embeddings=tf.constant(samples.inputs[piece]))
        return found["scores"].numpy()

    return np.concatenate([scores_of_piece(piece) for piece in samples.pieces()])


def scores_in_pieces(run: Callable[[np.ndarray], np.ndarray], samples: Samples) -> np.ndarray:
    """The scores of a model that takes pixels or embeddings: float32 [n, num_labels]."""
    return np.concatenate([run(samples.inputs[piece]) for piece in samples.pieces()])


def largest_difference(scores: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference between two scores of the same label and sample; infinite if a score is NaN."""
    difference = float(np.abs(scores - expected).max())
    return difference if np.isfinite(difference) else float("inf")
