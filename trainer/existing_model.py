"""Measures an exported model on record sets, without any training."""

from __future__ import annotations

import contextlib
import functools
import os
import posixpath
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from configs.counts import counted
from configs.errors import InputError
from preprocess.records.backbone_identity import difference_of
from trainer.data.dataset import EmbeddingDataset, in_label_mode
from trainer.data.embedding_findings import embedding_findings, finding_warnings
from trainer.data.photos import finder_of_sets
from trainer.data.record_origins import origin_warnings, record_origins
from trainer.data.record_sets import RecordSet
from trainer.evaluation.assess import Calibration, LogitsOf, assess
from trainer.export.classifier import Classifier, load_saved_model
from trainer.export.model_info import ModelInfo
from trainer.export.output_folder import PREDICTIONS_NAME, write_json
from trainer.export.photo_check import check_on_photos
from trainer.options import TrainingOptions
from trainer.reports.held_out_files import write_predictions, write_report
from trainer.run_metrics import engine_of_models
from trainer.storage.files import cause_of
from trainer.storage.working_folder import working_folder

# The names differ from metrics.json and report.html, which are about the training and may lie in the same folder.
EVALUATION_NAME = "evaluation.json"
EVALUATION_REPORT_NAME = "evaluation.html"
EVALUATION_FORMAT = 1


def require_fitting(info: ModelInfo, model_dir: str, sets: Mapping[str, tuple[RecordSet, ...]]) -> None:
    """Refuses records that the model was not made for.

    Raises:
      InputError: their backbone or their labels are not the model's.
    """
    for part in sets.values():
        for record_set in part:
            size = record_set.manifest.backbone.embedding_size
            if size != info.backbone.embedding_size:
                raise InputError(
                    f"The record set {record_set.prefix} has embeddings of {size} numbers, and the model {model_dir} "
                    f"takes {info.backbone.embedding_size}. Embed the images with the model's backbone."
                )
            # If a backbone is unverified, nothing else can be checked.
            if not (info.backbone_verified and record_set.verified):
                continue
            if not info.backbone.agrees_with(record_set.manifest.backbone):
                difference = difference_of(info.backbone, record_set.manifest.backbone)
                raise InputError(
                    f"The model {model_dir} and the record set {record_set.prefix} have different backbones: "
                    f"{difference}. Embed the images with the model's."
                )


def require_labels(info: ModelInfo, model_dir: str, data: Mapping[str, EmbeddingDataset]) -> None:
    """Refuses data sets whose labels are not those of the model.

    Raises:
      InputError: a label has another name, or there are more or fewer.
    """
    for name, dataset in data.items():
        if dataset.labels != info.labels:
            pairs = zip(info.labels, dataset.labels, strict=False)
            different = next((f"label {i} is {a!r} against {b!r}" for i, (a, b) in enumerate(pairs) if a != b), None)
            numbers = f"{counted(len(info.labels), 'label')} against {len(dataset.labels)}"
            raise InputError(
                f"--{name}_data_paths: the labels are not those of the model {model_dir}: "
                f"{different or numbers}. "
                "Embed the images with the dict.txt that the model was trained with."
            )


def _logits_of_model(model: Any, info: ModelInfo) -> LogitsOf:
    """The logits of an exported model, from `load_saved_model`, computed from its scores.

    With a softmax, logits are known except for a constant for each example, which changes no score.
    """
    signature = model.signatures["embeddings"]

    def logits_of(owner: Any, piece: np.ndarray) -> np.ndarray:
        scores = signature(embeddings=tf.constant(piece))["scores"].numpy().astype(np.float64)
        # Scores that float32 rounded to 0 or 1 are replaced by the nearest float32 numbers between 0 and 1.
        logits = np.log(np.maximum(scores, np.finfo(np.float32).tiny))
        if info.label_mode == "multi":
            logits -= np.log(np.maximum(1.0 - scores, np.finfo(np.float32).epsneg))
        return (logits * info.temperature).astype(np.float32)

    # A signature does not keep a reference to its model, so `logits_of` keeps one.
    return functools.partial(logits_of, model)


def _photo_size(info: ModelInfo) -> int | None:
    """The side of the square that the model takes; None if it takes no photos, or was made by another version."""
    try:
        return info.image.size if info.takes_images else None
    except InputError:
        return None


def evaluate_existing(
    options: TrainingOptions,
    sets: Mapping[str, tuple[RecordSet, ...]],
    data: Mapping[str, EmbeddingDataset],
    info: ModelInfo,
) -> dict[str, Any]:
    """Writes predictions.csv, evaluation.json and evaluation.html about an exported model into the output folder.

    Args:
      options: the options of the run.
      sets: the record sets of "eval" or "test" or both.
      data: the data sets that were read from them.
      info: from `read_model_info(options.existing_model_dir)`.

    Returns:
      The content of evaluation.json.

    Raises:
      InputError: the model or the output folder cannot be used, or the records do not fit the model.
    """
    model_dir = options.existing_model_dir
    require_labels(info, model_dir, data)
    output = working_folder(options.output_path, flag="output_path")
    output.require_writable()
    data = {name: in_label_mode({"train": dataset}, info.label_mode)["train"] for name, dataset in data.items()}
    calibration = Calibration(temperature=info.temperature, threshold=info.threshold)
    model = load_saved_model(model_dir)
    logits_of = _logits_of_model(model, info)
    evaluations = assess(logits_of, data, calibration, train_support=None)
    findings = embedding_findings(sets)
    about_data = finding_warnings(findings, (record_set for part in sets.values() for record_set in part))
    origins = record_origins(sets)
    about_data += origin_warnings(origins)
    photos_of = {name: finder_of_sets(part, options.photo_dirs) for name, part in sets.items()}
    size = _photo_size(info)
    metrics: dict[str, Any] = {
        "format": EVALUATION_FORMAT,
        "warnings": [*about_data, *([info.warning] if info.warning else [])],
        "embedding_found": findings,
        **{name: evaluation.numbers for name, evaluation in evaluations.items()},
        "labels": list(info.labels),
        "label_mode": info.label_mode,
        "backbone": info.backbone.to_json(),
        "backbone_verified": info.backbone_verified
        and all(record_set.verified for part in sets.values() for record_set in part),
        "record_sets": {name: [record_set.prefix for record_set in part] for name, part in sets.items()},
        "model": {
            "model_dir": model_dir,
            "takes_images": info.takes_images,
            "head_digest": info.head_digest,
            "temperature": info.temperature,
            "threshold": info.threshold,
            **engine_of_models(),
        },
        "record_origins": origins,
        "exported_model_on_photos": check_on_photos(
            lambda: Classifier(model_dir, model=model),
            data,
            photos_of,
            logits_of=logits_of,
            calibration=calibration,
            at_most=options.check_photos,
            size=size,
        )
        if size is not None
        else {},
    }
    photos = finder_of_sets((record_set for part in sets.values() for record_set in part), options.photo_dirs)
    names = (PREDICTIONS_NAME, EVALUATION_NAME, EVALUATION_REPORT_NAME)
    final = [posixpath.join(output.local, name) for name in names]
    partial = [f"{path}.partial" for path in final]
    try:
        write_predictions(partial[0], logits_of, data, calibration, photos_of)
        write_json(partial[1], metrics)
        write_report(partial[2], metrics, evaluations, photos)
        output.sync(*(f"{name}.partial" for name in names))
        for written, path in zip(partial, final, strict=True):
            os.replace(written, path)
        output.sync()
    except OSError as error:
        raise InputError(f"--output_path: cannot write to {options.output_path}: {cause_of(error)}") from error
    finally:
        for path in partial:
            with contextlib.suppress(OSError):
                os.remove(path)
    output.send()
    return metrics
