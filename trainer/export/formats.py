"""Exports formats other than the SavedModel, and checks that every format gives the trainer's scores."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import keras
import numpy as np

from configs.activity import doing
from configs.errors import InputError
from preprocess.backbones.tensorflow_import import without_tensorflow_noise
from trainer.data.photos import Photo
from trainer.export import litert, onnx
from trainer.export.model_info import ModelInfo
from trainer.export.parity import (
    Samples,
    embedding_samples,
    image_samples,
    largest_difference,
    saved_model_scores,
    scores_in_pieces,
    trainer_scores,
)
from trainer.export.pixel_classifier import PixelClassifier

SAVED_MODEL = "savedmodel"
CERTIFICATE_NAME = "parity.json"
CERTIFICATE_FORMAT = 1

# The largest difference of a score that each format may have. The SavedModel runs the trainer's own operations. The
# others fold batch normalization and add numbers in another order. The last digit that users see is 0.1 %.
_TOLERANCES = {SAVED_MODEL: 1e-4, "litert": 1e-3, "onnx": 1e-3}


class _Runner(Protocol):
    def scores(self, inputs: np.ndarray) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Converted:
    """A format that consists of one file and is made from `PixelClassifier`."""

    file_name: str
    convert: Callable[[PixelClassifier, ModelInfo], bytes]
    runner: Callable[[bytes, ModelInfo], _Runner]


_CONVERTED = {
    "litert": _Converted(file_name="model.tflite", convert=litert.convert, runner=litert.Runner),
    "onnx": _Converted(file_name="model.onnx", convert=onnx.convert, runner=onnx.Runner),
}


def require_formats(formats: Sequence[str]) -> None:
    """Refuses formats that cannot be exported, before training starts.

    Raises:
      InputError: the converter of a format is not installed.
    """
    if "onnx" in formats:
        onnx.require_packages()


def _folder_bytes(folder: str) -> int:
    return sum(os.path.getsize(os.path.join(parent, name)) for parent, _, names in os.walk(folder) for name in names)


def _require_parity(name: str, difference: float, samples: Samples, remove: Callable[[], None]) -> None:
    if difference <= _TOLERANCES[name]:
        return
    remove()
    raise InputError(
        f"--export_formats: {name}: on {len(samples)} {samples.source} a score of the exported model differs from the "
        f"trainer's by {difference:.2g}, and {_TOLERANCES[name]:g} is allowed; the model was removed. Export without "
        f"{name}, and please report this."
    )


def _export_one(
    name: str, path: str, classifier: PixelClassifier, info: ModelInfo, samples: Samples, expected: np.ndarray
) -> tuple[int, float]:
    """Converts, writes and checks one format; returns its size and the largest difference of a score."""
    kind = _CONVERTED[name]
    with open(path, "wb") as stream:
        stream.write(kind.convert(classifier, info))
    with open(path, "rb") as stream:  # The check uses the file as it is on the disk.
        written = stream.read()
    difference = largest_difference(scores_in_pieces(kind.runner(written, info).scores, samples), expected)
    _require_parity(name, difference, samples, lambda: os.remove(path))
    return len(written), difference


def export_all(
    formats: Sequence[str],
    *,
    model_dir: str,
    output_dir: str,
    photos: Sequence[Photo],
    head: keras.Model,
    backbone: keras.Model | None,
    info: ModelInfo,
) -> dict[str, Any]:
    """Writes the formats and `parity.json`, the results of their checks, into a local folder.

    Each format is read back from the disk and run on real photos. If there are none, it runs on generated images, and a
    model without a backbone runs on generated embeddings. Its scores are compared with the trainer's own scores, which
    Keras computes from the backbone, the head and the temperature on the pixels of `decode_image`. `model.tflite` and
    `model.onnx` take these pixels, uint8 [n, size, size, 3], because no other runtime decodes images as the SavedModel
    does. They give `scores`, `prediction` and `confident`.

    Args:
      formats: any of "savedmodel", "litert" and "onnx".
      model_dir: the SavedModel that `trainer.export.saved_model.save_model` wrote; it is always checked.
      output_dir: the folder for the other formats and `parity.json`; may be `model_dir`.
      photos: names and contents of image files. Those that cannot be decoded are skipped, and at most 16 are used.
      head: the head that `save_model` got.
      backbone: the backbone that `save_model` got.
      info: the result of `save_model`.

    Returns:
      JSON: for each format `path` (relative to `parity.json`), `bytes`, `largest_difference`, `tolerance`,
      `samples` (their number) and `samples_are` ("photos", "generated images" or "generated embeddings").

    Raises:
      InputError: a converter is not installed; or the scores of a format differ by more than its tolerance. In the
        second case that format has been removed.
    """
    os.makedirs(output_dir, exist_ok=True)
    results: dict[str, dict[str, Any]] = {}
    classifier = None
    with without_tensorflow_noise():
        samples = (
            embedding_samples(head.input_shape[-1]) if backbone is None else image_samples(photos, info.image.size)
        )
        expected = trainer_scores(samples, backbone=backbone, head=head, info=info)
        for name in dict.fromkeys((SAVED_MODEL, *formats)):
            if name == SAVED_MODEL:
                path, num_bytes = model_dir, _folder_bytes(model_dir)
                with doing("checking the model on photos"):
                    difference = largest_difference(saved_model_scores(model_dir, samples), expected)
                _require_parity(name, difference, samples, lambda: shutil.rmtree(model_dir))
            else:
                with doing(f"writing the format {name} and checking it on photos"):
                    classifier = classifier or PixelClassifier(backbone, head, info)
                    path = os.path.join(output_dir, _CONVERTED[name].file_name)
                    num_bytes, difference = _export_one(name, path, classifier, info, samples, expected)
            results[name] = {
                "path": os.path.relpath(path, output_dir),
                "bytes": num_bytes,
                "largest_difference": difference,
                "tolerance": _TOLERANCES[name],
                "samples": len(samples),
                "samples_are": samples.source,
            }
    _write_certificate(os.path.join(output_dir, CERTIFICATE_NAME), info, samples, results)
    return results


def _write_certificate(path: str, info: ModelInfo, samples: Samples, results: dict[str, dict[str, Any]]) -> None:
    certificate = {
        "format": CERTIFICATE_FORMAT,
        "compared": "scores of each exported model against the trainer's own: backbone and head in Keras, temperature",
        "head_digest": info.head_digest,
        "backbone": info.backbone.to_json(),
        "temperature": info.temperature,
        "samples_are": samples.source,
        "samples": list(samples.names),
        "sent_as_png": samples.sent_as_png,
        "formats": results,
    }
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(json.dumps(certificate, indent=2, ensure_ascii=False) + "\n")
