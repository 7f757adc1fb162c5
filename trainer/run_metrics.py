"""metrics.json: the results of a training run, for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from preprocess.records.backbone_identity import BackboneIdentity
from trainer.data.dataset import EmbeddingDataset
from trainer.data.record_sets import RecordSet
from trainer.evaluation.assess import Calibration
from trainer.evaluation.calibration import Threshold
from trainer.evaluation.metrics import Evaluation
from trainer.evaluation.temperature_choice import TemperatureChoice
from trainer.options import TrainingOptions
from trainer.training.head import head_digest
from trainer.training.loop import CHECKPOINT_RULE, TrainingResult
from trainer.training.precision import training_precision

# Format 2 has intervals, calibration, ranking measures and mistakes; its `loss` is the loss after the temperature.
METRICS_FORMAT = 2


def engine_of_models() -> dict[str, Any]:
    """What computes an exported model: `engine`, `precision`, and `libraries` with their versions here."""
    return {
        "engine": "tensorflow",
        "precision": "float32",
        "libraries": [f"tensorflow {tf.__version__}"],
    }


_OF_TRAIN = ("accuracy", "loss", "examples", "unlabeled", "multi_label")


def run_metrics(
    options: TrainingOptions,
    sets: Mapping[str, tuple[RecordSet, ...]],
    data: Mapping[str, EmbeddingDataset],
    backbone: BackboneIdentity,
    result: TrainingResult,
    evaluations: Mapping[str, Evaluation],
    calibration: Calibration,
    threshold: Threshold,
    choice: TemperatureChoice,
    warnings: Sequence[str],
) -> dict[str, Any]:
    """The metrics of a run, as JSON.

    Args:
      options: the options that the head was trained with.
      sets: the record sets of "train", "eval" and perhaps "test".
      data: the data sets that were read from them.
      backbone: the backbone of the exported model.
      result: the result of the training.
      evaluations: the evaluation of each data set.
      calibration: the calibration of the exported model.
      threshold: the effect of the threshold on the set that it was chosen on.
      choice: why the calibration has this temperature.
      warnings: sentences.
    """
    trained = evaluations["train"].numbers
    return {
        "format": METRICS_FORMAT,
        "warnings": list(warnings),
        **{name: evaluations[name].numbers for name in ("eval", "test") if name in evaluations},
        # Measured with the exported weights and without dropout. Compared with eval, it shows how much the head
        # overfits.
        "train": {name: trained[name] for name in _OF_TRAIN},
        "exported_checkpoint": {
            "rule": CHECKPOINT_RULE,
            "note": "eval chose it, the temperature and the threshold, so eval is slightly too favorable; test is not",
            **dataclasses.asdict(result.best),
        },
        "history": [dataclasses.asdict(point) for point in result.history],
        "steps": result.history[-1].step,
        "stopped_early": result.stopped_early,
        "resumed_step": result.resumed_step,
        "train_sec": round(result.wall_sec, 3),
        "training_precision": training_precision(options),
        "labels": list(data["train"].labels),
        "label_mode": data["train"].label_mode,
        "backbone": backbone.to_json(),
        "backbone_verified": sets["train"][0].verified,
        "record_sets": {name: [record_set.prefix for record_set in part] for name, part in sets.items()},
        "options": options.to_json(),
        "model": {
            "head_digest": head_digest(result.head),
            "temperature": calibration.temperature,
            "temperature_choice": choice.to_json(),
            "threshold": {"min_precision": options.min_precision, "on_eval": dataclasses.asdict(threshold)},
            **engine_of_models(),
        },
    }
