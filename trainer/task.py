"""Trains a classifier on the embeddings of record sets and exports it as one SavedModel.

Usage: python -m trainer.task --train_data_paths 'out/preproc/train*' --eval_data_paths 'out/preproc/eval*'
--output_path out/training
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from configs.errors import EXIT_OK, run_program
from preprocess.backbone_identity import BackboneIdentity
from preprocess.tensorflow_import import import_tensorflow
from trainer.options import TrainingOptions, parse_options
from trainer.record_sets import RecordSet, find_record_sets, require_agreement, require_disjoint

if TYPE_CHECKING:
    from trainer.dataset import EmbeddingDataset
    from trainer.training import TrainingResult

METRICS_FORMAT = 1
_MAX_WARNINGS_PRINTED = 12


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings[:_MAX_WARNINGS_PRINTED]:
        print(f"warning: {warning}", file=sys.stderr)
    if len(warnings) > _MAX_WARNINGS_PRINTED:
        print(f"warning: … and {len(warnings) - _MAX_WARNINGS_PRINTED} more in the metrics", file=sys.stderr)


def _find_sets(options: TrainingOptions) -> dict[str, tuple[RecordSet, ...]]:
    """The record sets of each part ("train", "eval", and "test" if given), all fit to be used together."""
    sets = {
        "train": find_record_sets(options.train_data_paths, flag="train_data_paths"),
        "eval": find_record_sets(options.eval_data_paths, flag="eval_data_paths"),
    }
    require_disjoint(sets["train"], sets["eval"], flag="eval_data_paths")
    if options.test_data_paths:
        sets["test"] = find_record_sets(options.test_data_paths, flag="test_data_paths")
        require_disjoint(sets["train"], sets["test"], flag="test_data_paths")
    require_agreement([record_set for part in sets.values() for record_set in part])
    return sets


def _warnings(
    sets: dict[str, tuple[RecordSet, ...]], data: dict[str, EmbeddingDataset], backbone: BackboneIdentity
) -> list[str]:
    from trainer.dataset import data_warnings

    warnings = []
    if backbone.is_random:
        warnings.append(
            f"the records were made by {backbone.describe()}: good for trying the road, not for its accuracy"
        )
    for part in sets.values():
        for record_set in part:
            if stale := record_set.stale_files:
                warnings += [f"{len(stale)} leftovers of an earlier pipeline run are not read, such as {stale[0]}"]
    for name in ("eval", "test"):
        if name in data:
            warnings += data_warnings(data["train"], data[name], held_out_name=name)
    return list(dict.fromkeys(warnings))


def _metrics(
    options: TrainingOptions,
    sets: dict[str, tuple[RecordSet, ...]],
    data: dict[str, EmbeddingDataset],
    result: TrainingResult,
    warnings: Sequence[str],
) -> dict[str, Any]:
    from trainer.evaluation import evaluate
    from trainer.head import head_digest, predict_logits
    from trainer.training import CHECKPOINT_RULE

    train_support = data["train"].support()
    evaluations = {
        name: evaluate(predict_logits(result.head, dataset.embeddings.pieces()), dataset, train_support=train_support)
        for name, dataset in data.items()
    }
    trained = evaluations["train"]
    return {
        "format": METRICS_FORMAT,
        "warnings": list(warnings),
        "eval": evaluations["eval"],
        **({"test": evaluations["test"]} if "test" in evaluations else {}),
        # With the exported weights and without dropout; beside eval, it shows how far the head overfits.
        "train": {name: trained[name] for name in ("accuracy", "loss", "examples", "unlabeled", "multi_label")},
        "exported_checkpoint": {
            "rule": CHECKPOINT_RULE,
            "note": "eval chose it, so eval is slightly too favourable; a test set is not",
            **dataclasses.asdict(result.best),
        },
        "history": [dataclasses.asdict(point) for point in result.history],
        "steps": result.history[-1].step,
        "train_sec": round(result.wall_sec, 3),
        "labels": list(data["train"].labels),
        "backbone": sets["train"][0].manifest.backbone.to_json(),
        "record_sets": {name: [record_set.prefix for record_set in part] for name, part in sets.items()},
        "options": options.to_json(),
        "model": {"head_digest": head_digest(result.head)},
    }


def read_datasets(sets: dict[str, tuple[RecordSet, ...]], *, max_memory_mb: int | None) -> dict[str, EmbeddingDataset]:
    """Reads the data of a run, into memory as far as they fit; says so where they do not.

    Args:
      sets: the record sets of "train", "eval" and perhaps "test".
      max_memory_mb: as in the options.

    Raises:
      InputError: see `read_dataset`.
    """
    from trainer.dataset import read_dataset
    from trainer.memory import MemoryBudget

    budget = MemoryBudget(max_memory_mb)
    data = {}
    # Who is read most often comes first; a test set is gone through once.
    for name in sorted(sets, key=["eval", "train", "test"].index):
        data[name] = read_dataset(sets[name], flag=f"{name}_data_paths", budget=budget)
        if not data[name].embeddings.in_memory:
            print(f"the {name} set does not fit the memory for embeddings and is read as needed", file=sys.stderr)
    return {name: data[name] for name in sets}


def train_and_export(options: TrainingOptions) -> dict[str, Any]:
    """A whole run: check, read, train, evaluate, export.

    Everything that can be refused is refused before training starts.

    Returns:
      What `metrics.json` holds.

    Raises:
      InputError: the record sets, the backbone's weights or the output folder will not do.
    """
    started = time.monotonic()
    sets = _find_sets(options)
    backbone = sets["train"][0].manifest.backbone

    from trainer.artifacts import OutputFolder
    from trainer.export import load_backbone_of_records, save_model
    from trainer.progress import TrainingProgress
    from trainer.report import summary
    from trainer.training import require_trainable, train_head

    output = OutputFolder(options.output_path)
    # Now and not at the export: a network that cannot be had must not cost a training.
    network = load_backbone_of_records(backbone, weights=options.weights)
    data = read_datasets(sets, max_memory_mb=options.max_memory_mb)
    require_trainable(data["train"])
    warnings = _warnings(sets, data, backbone)
    _warn(warnings)

    with TrainingProgress(options.max_steps) as progress:
        result = train_head(data["train"], data["eval"], options, on_progress=progress.update)
    print("exporting the model", file=sys.stderr)
    metrics = _metrics(options, sets, data, result, warnings)
    labels = data["train"].labels

    def write_model(model_dir: str) -> None:
        save_model(model_dir, backbone=network, head=result.head, labels=labels, identity=backbone)
        metrics["wall_sec"] = round(time.monotonic() - started, 3)  # The export is a part of it.

    output.publish(write_model, metrics)
    print(summary(metrics, metrics_path=output.metrics_path, model_dir=output.model_dir))
    return metrics


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program with the arguments; see the module's docstring.

    Raises:
      InputError: the user's input is wrong.
    """
    options = parse_options(argv)
    import_tensorflow()
    train_and_export(options)
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
