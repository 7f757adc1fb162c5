"""Loads an exported model and predicts: it takes encoded photos and gives labels with scores."""

from __future__ import annotations

import dataclasses
import os
import posixpath
from collections.abc import Sequence
from typing import Any

import numpy as np

from configs.errors import InputError, cause_in_one_line
from configs.printed_commands import program_command
from preprocess.backbones.tensorflow_import import import_tensorflow, without_tensorflow_noise
from preprocess.images.decode import encode_png
from preprocess.images.isolated_decoder import DEFAULT_DEADLINE_SEC
from trainer.data.photos import decode_photo
from trainer.export.model_info import MODEL_INFO_PATH, ModelInfo
from trainer.storage.files import cause_of, is_in_bucket, is_missing_bucket, local_folder, storage
from trainer.storage.tensorflow_paths import path_for_tensorflow

BATCH_SIZE = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """The model's prediction for one photo.

    Attributes:
      label: the name of the best label; empty if there is an error.
      label_id: its id; -1 if there is an error.
      scores: float32, shape [num_labels]: one score for each label in order of ids. They add up to 1, unless the model
        gives photos several labels. All are 0 if there is an error.
      confident: whether the best score reaches the model's threshold. Models of earlier versions have no threshold;
        for them it is True. False if there is an error.
      error: empty, or why the model could not decode the photo, as `reason: message`.
    """

    label: str
    label_id: int
    scores: np.ndarray
    confident: bool = True
    error: str = ""

    def top(self, labels: Sequence[str], k: int) -> list[tuple[str, float, int]]:
        """The `k` best labels with score and id, best first; equal scores in order of ids."""
        best = np.argsort(-self.scores, kind="stable")[:k]
        return [(labels[i], float(self.scores[i]), int(i)) for i in best]

    def to_json(self, info: ModelInfo, top_k: int) -> dict[str, Any]:
        """The answer for a photo as programs read it: its best labels, and what is known of the model."""
        best = self.top(info.labels, top_k)
        return {
            "predictions": [{"label": label, "score": score, "id": i} for label, score, i in best],
            "confident": self.confident,
            "threshold": info.threshold,
            "random_weights": info.backbone.is_random,
            "backbone_verified": info.backbone_verified,
        }

    @classmethod
    def of_scores(cls, scores: np.ndarray, info: ModelInfo) -> Prediction:
        """The prediction that follows from the scores of a photo, as in `trainer.export.prediction_ops.predictions`.

        Args:
          scores: float32 [num_labels].
          info: of the model.
        """
        best = int(np.argmax(scores))
        confident = bool(scores[best] >= np.float32(info.threshold))
        return cls(label=info.labels[best], label_id=best, scores=scores, confident=confident)

    @classmethod
    def of_error(cls, error: str, info: ModelInfo) -> Prediction:
        """The prediction for a photo that cannot be decoded; `error` is `reason: message`."""
        return cls(label="", label_id=-1, scores=np.zeros(len(info.labels), np.float32), confident=False, error=error)


def normalize_photo(data: bytes, *, size: int) -> bytes:
    """Turns a photo of any format that Pillow reads into a PNG of exactly the pixels that the pipeline would use.

    TensorFlow decodes fewer formats than Pillow, and it decodes a PNG of this size without changing a pixel. The photo
    is decoded in another process, as in the pipeline. If a photo crashes the decoder, only its own prediction is lost.

    Args:
      data: the content of an image file.
      size: the side of the square that the model's backbone takes, `Classifier.info.image.size`. A picture of another
        size is resized once more in the model, which gives other scores.

    Raises:
      ImageError: the bytes are not a usable image; `reason` and `message` say why.
    """
    return encode_png(decode_photo(data, deadline_sec=DEFAULT_DEADLINE_SEC, size=size))


def read_model_info(model_dir: str) -> ModelInfo:
    """Reads the description that is stored with a model. Does not import TensorFlow.

    Raises:
      InputError: there is no such folder, or it holds no model that trainer.task exported.
    """
    if not is_in_bucket(model_dir) and not os.path.isdir(model_dir):
        raise InputError(
            f"model_dir: there is no folder {model_dir}. Train first: `{program_command('train', '--help')}`."
        )
    path = posixpath.join(model_dir, MODEL_INFO_PATH)
    try:
        raw = storage().read(path)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not is_missing_bucket(error):
            raise InputError(
                f"model_dir: {model_dir} holds no model that `hugs train` wrote.{_hint_of_inner(model_dir)}"
            ) from error
        raise InputError(f"model_dir: cannot read {path} ({cause_of(error)}).") from error
    return ModelInfo.from_bytes(raw, where=path)


def _hint_of_inner(model_dir: str) -> str:
    """Users often name the folder above, which holds the metrics and, in `model`, the model. Gives a hint if so."""
    inside = posixpath.join(model_dir, "model")
    return f" Did you mean {inside}?" if storage().match(posixpath.join(inside, MODEL_INFO_PATH)) else ""


def load_saved_model(model_dir: str) -> Any:
    """Loads a model, which takes seconds. A model in a bucket is copied to a local disk first.

    Returns:
      The object that `tf.saved_model.load` gives; `trainer.export.saved_model.save_model` names its signatures. Its
      functions work as long as it exists.

    Raises:
      InputError: the folder holds no complete model.
    """
    tf = import_tensorflow()
    try:
        with local_folder(model_dir) as folder, path_for_tensorflow(folder) as path:
            model = tf.saved_model.load(path)
        for name in ("serving_default", "embeddings"):
            model.signatures[name]
        return model
    except (OSError, KeyError, tf.errors.OpError) as error:
        cause = cause_in_one_line(error)
        raise InputError(f"model_dir: the model in {model_dir} cannot be loaded ({cause}). Train again.") from error


class Classifier:
    """A loaded model. Thread-safe.

    Attributes:
      info: its labels and its backbone.
      signature: the function of the SavedModel from encoded images to predictions.
    """

    def __init__(self, model_dir: str, *, model: Any = None):
        """Loads the model, which takes seconds. A model in a bucket is copied to a local disk first.

        Args:
          model_dir: the folder of the model.
          model: what `load_saved_model` gave for this folder; None if the model is not loaded yet.

        Raises:
          InputError: the folder holds no complete model, or the model takes only embeddings.
        """
        self.info = read_model_info(model_dir)
        if not self.info.takes_images:
            raise InputError(
                f"model_dir: the model in {model_dir} takes embeddings and no photos, because its records do not say "
                "which network made them. If you know it, train with --weights FILE."
            )
        tf = import_tensorflow()
        self._model = load_saved_model(model_dir) if model is None else model
        self.signature = self._model.signatures["serving_default"]
        try:
            # The first run optimizes the graph, writes notes to standard error, and takes more than a second. It runs
            # here because there is only one thread here, and the notes cannot be hidden safely with several threads.
            with without_tensorflow_noise():
                size = self.info.image.size
                self.predict([encode_png(np.zeros((size, size, 3), np.uint8))])
        except (OSError, tf.errors.OpError) as error:
            cause = cause_in_one_line(error)
            raise InputError(f"model_dir: the model in {model_dir} cannot be loaded ({cause}). Train again.") from error

    def predict(self, images: Sequence[bytes]) -> list[Prediction]:
        """Predicts for encoded images, in their order.

        An image that the model cannot decode has an `error` in its prediction, and the others get theirs.

        Args:
          images: the contents of image files that the model's decoder can read; `normalize_photo` makes such contents.
        """
        predictions = []
        for start in range(0, len(images), BATCH_SIZE):
            predictions += self._predict(images[start : start + BATCH_SIZE])
        return predictions

    def _predict(self, batch: Sequence[bytes]) -> list[Prediction]:
        tf = import_tensorflow()
        keys = tf.constant([str(number) for number in range(len(batch))])
        try:
            outputs = self.signature(key=keys, image_bytes=tf.constant(list(batch), tf.string))
        except tf.errors.InvalidArgumentError as error:
            # In models of earlier versions, an image that cannot be decoded fails its whole batch.
            if len(batch) > 1:
                return [prediction for image in batch for prediction in self._predict([image])]
            return [Prediction.of_error(f"corrupt: {cause_in_one_line(error)}", self.info)]
        arrays = {name: tensor.numpy() for name, tensor in outputs.items()}
        confident = arrays.get("confident", np.ones(len(batch), bool))
        errors = arrays.get("error", [b""] * len(batch))
        return [
            Prediction(
                label=label.decode(), label_id=int(label_id), scores=scores, confident=bool(sure), error=error.decode()
            )
            for label, label_id, scores, sure, error in zip(
                arrays["label"], arrays["prediction"], arrays["scores"], confident, errors, strict=True
            )
        ]
