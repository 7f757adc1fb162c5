"""An exported model, loaded to answer: encoded photos in, labels with scores out."""

from __future__ import annotations

import dataclasses
import os
import posixpath
from collections.abc import Sequence

import numpy as np

from configs.errors import InputError, cause_in_one_line
from preprocess.backbones.tensorflow_import import import_tensorflow, without_tensorflow_noise
from preprocess.images.decode import IMAGE_SIZE, encode_png
from preprocess.images.isolated_decoder import DEFAULT_DEADLINE_SEC
from trainer.data.photos import decode_photo
from trainer.export.model_info import MODEL_INFO_PATH, ModelInfo
from trainer.storage.files import cause_of, is_in_bucket, is_missing_bucket, local_folder, storage

_BATCH_SIZE = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """The model's answer for one photo.

    Attributes:
      label: the name of the best label.
      label_id: its id.
      scores: float32, shape [num_labels]: one for each label in order of ids; they add up to 1 unless the model
        is for photos of several labels.
      confident: whether the best score reaches the model's threshold; True for a model of an earlier version,
        which had none.
    """

    label: str
    label_id: int
    scores: np.ndarray
    confident: bool = True

    def top(self, labels: Sequence[str], k: int) -> list[tuple[str, float, int]]:
        """The `k` best labels with score and id, best first; equal scores in order of ids."""
        best = np.argsort(-self.scores, kind="stable")[:k]
        return [(labels[i], float(self.scores[i]), int(i)) for i in best]


def normalize_photo(data: bytes) -> bytes:
    """A photo of any format that Pillow reads, as the PNG of exactly the pixels the model was trained on.

    TensorFlow decodes fewer formats than Pillow; a PNG of the right size passes its decoder unchanged. The photo is
    decoded in another process, as in the pipeline: one that crashes its decoder costs its own answer.

    Raises:
      ImageError: the bytes are no image that can be used; `reason` and `message` say why.
    """
    return encode_png(decode_photo(data, deadline_sec=DEFAULT_DEADLINE_SEC))


def read_model_info(model_dir: str) -> ModelInfo:
    """What lies beside a model's graph. Does not import TensorFlow.

    Raises:
      InputError: there is no such folder, or no model that trainer.task exported in it.
    """
    if not is_in_bucket(model_dir) and not os.path.isdir(model_dir):
        raise InputError(f"model_dir: there is no folder {model_dir}. Train first: `python -m trainer.task --help`.")
    path = posixpath.join(model_dir, MODEL_INFO_PATH)
    try:
        raw = storage().read(path)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not is_missing_bucket(error):
            raise InputError(
                f"model_dir: {model_dir} holds no model exported by trainer.task.{_hint_of_inner(model_dir)}"
            ) from error
        raise InputError(f"model_dir: cannot read {path} ({cause_of(error)}).") from error
    return ModelInfo.from_bytes(raw, where=path)


def _hint_of_inner(model_dir: str) -> str:
    """The folder above is the usual slip: it holds the metrics and, in `model`, the model."""
    inside = posixpath.join(model_dir, "model")
    return f" Did you mean {inside}?" if storage().match(posixpath.join(inside, MODEL_INFO_PATH)) else ""


class Classifier:
    """A loaded model. Thread-safe.

    Attributes:
      info: its labels and its backbone.
    """

    def __init__(self, model_dir: str):
        """Loads the model, which takes seconds; from a bucket by way of a copy on disk.

        Raises:
          InputError: there is no whole model in the folder, or it takes embeddings only.
        """
        self.info = read_model_info(model_dir)
        if not self.info.takes_images:
            raise InputError(
                f"model_dir: the model in {model_dir} takes embeddings and no photos, because its records do not say "
                "which network made them. If you know it, train with --weights FILE."
            )
        tf = import_tensorflow()
        try:
            with local_folder(model_dir) as folder:
                self._model = tf.saved_model.load(folder)
            self._signature = self._model.signatures["serving_default"]
            # The first run optimizes the graph, notes how on standard error, and takes over a second. It is done
            # here, where one thread is, because holding the notes back is not for several at a time.
            with without_tensorflow_noise():
                self.predict([encode_png(np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8))])
        except (OSError, KeyError, tf.errors.OpError) as error:
            cause = cause_in_one_line(error)
            raise InputError(f"model_dir: the model in {model_dir} cannot be loaded ({cause}). Train again.") from error

    def predict(self, images: Sequence[bytes]) -> list[Prediction]:
        """Answers for encoded images, in their order.

        Args:
          images: each a whole file as the model's decoder reads it; `normalize_photo` makes such of any.
        """
        tf = import_tensorflow()
        predictions = []
        for start in range(0, len(images), _BATCH_SIZE):
            batch = list(images[start : start + _BATCH_SIZE])
            keys = [str(start + i) for i in range(len(batch))]
            outputs = self._signature(key=tf.constant(keys), image_bytes=tf.constant(batch, tf.string))
            answers = {name: tensor.numpy() for name, tensor in outputs.items()}
            confident = answers.get("confident", np.ones(len(batch), bool))
            predictions += [
                Prediction(label=label.decode(), label_id=int(label_id), scores=scores, confident=bool(sure))
                for label, label_id, scores, sure in zip(
                    answers["label"], answers["prediction"], answers["scores"], confident, strict=True
                )
            ]
        return predictions
