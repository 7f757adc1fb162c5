"""Trains a classifier on the embeddings of record sets and exports it as one SavedModel.

Usage: python -m trainer.task --train_data_paths out/preproc/train --eval_data_paths out/preproc/eval
--output_path out/training
"""

from __future__ import annotations

import os
import posixpath
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from configs.activity import doing
from configs.choices import Unlabeled
from configs.counts import counted
from configs.errors import EXIT_OK, InputError
from configs.page import PageOptions
from configs.printed_commands import program_command
from configs.program import run_program
from preprocess.backbones.tensorflow_import import import_tensorflow
from preprocess.locks.lock_holder import LockLost
from preprocess.machine.run_note import RunNote, noted
from preprocess.records.backbone_identity import BackboneIdentity
from preprocess.storage.uris import has_scheme
from trainer.data.record_sets import RecordSet, find_record_sets, require_agreement, require_disjoint
from trainer.data.set_views import describe_views, require_same_views
from trainer.options import TrainingOptions, parse_options
from trainer.storage.files import storage
from trainer.training.distributed import GradientExchange, read_cluster

if TYPE_CHECKING:
    import keras
    import numpy as np

    from preprocess.lists.corrections import Corrections
    from trainer.data.dataset import EmbeddingDataset
    from trainer.data.photos import Photo
    from trainer.data.shared_images import SharedImages, TwinGroups
    from trainer.evaluation.metrics import Evaluation
    from trainer.export.output_folder import OutputFolder
    from trainer.training.loop import TrainingResult

_MAX_WARNINGS_PRINTED = 12
# Photos of the evaluation set for the parity check of every exported format.
_PARITY_PHOTOS, _PARITY_TRIES = 16, 200


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings[:_MAX_WARNINGS_PRINTED]:
        print(f"warning: {warning}", file=sys.stderr)
    if len(warnings) > _MAX_WARNINGS_PRINTED:
        print(f"warning: … and {len(warnings) - _MAX_WARNINGS_PRINTED} more in the metrics", file=sys.stderr)


def _say(words: str) -> None:
    print(words, file=sys.stderr)


def _find_sets(options: TrainingOptions) -> dict[str, tuple[RecordSet, ...]]:
    """The record sets of each given part ("train", "eval", "test"). They are checked to fit together."""
    parts = ("eval", "test") if options.evaluates_only else ("train", "eval", "test")
    sets = {}
    for name in parts:
        flag = f"{name}_data_paths"
        if paths := getattr(options, flag):
            with doing(f"looking at the record sets of --{flag}"):
                sets[name] = find_record_sets(paths, flag=flag, input_dict=options.input_dict)
            if "train" in sets and name != "train":
                require_disjoint(sets["train"], sets[name], flag=flag)
    require_agreement([record_set for part in sets.values() for record_set in part])
    if "train" in sets and options.draw_views:
        require_same_views(sets["train"])
    return sets


def _output_folder(options: TrainingOptions) -> OutputFolder:
    """The folder of the run. It and all other folders that the run writes into are checked to be writable."""
    from trainer.export.output_folder import OutputFolder
    from trainer.storage.working_folder import working_folder

    output = OutputFolder(options.output_path)
    for flag, paths in options.paths_that_are("written").items():
        for path in () if flag == "output_path" else paths:
            working_folder(path, flag=flag).require_writable()
    return output


def _twins_command(options: TrainingOptions, sets: Mapping[str, tuple[RecordSet, ...]]) -> str:
    """The command that shows the photos that the sets of a run share."""
    words = ["--data_paths", ",".join(record_set.prefix for part in sets.values() for record_set in part)]
    words += [] if options.input_dict is None else ["--input_dict", options.input_dict]
    return program_command("twins", *words, "--output_path", posixpath.join(options.output_path, "twins"))


def _warnings(
    options: TrainingOptions,
    sets: dict[str, tuple[RecordSet, ...]],
    data: dict[str, EmbeddingDataset],
    backbone: BackboneIdentity,
    shared: Mapping[str, SharedImages],
    findings: Mapping[str, Any],
    origins: Mapping[str, Any],
) -> list[str]:
    from trainer.data.dataset import data_warnings
    from trainer.data.embedding_findings import finding_warnings
    from trainer.data.record_origins import origin_warnings
    from trainer.data.repeated_images import repeated_image_warnings
    from trainer.data.shared_images import shared_image_warnings

    warnings = []
    if not sets["train"][0].verified:
        warnings.append(
            "the records were made elsewhere and do not say by which network: the backbone is UNVERIFIED. "
            + (
                f"The model contains {backbone.describe()}, as --weights says"
                if backbone.is_known
                else "The model takes embeddings only; --weights FILE puts a network into it"
            )
        )
    if backbone.is_random:
        warnings.append(
            f"the records were made by {backbone.describe()}: good for trying the workflow, not for its accuracy"
        )
    for part in sets.values():
        for record_set in part:
            if stale := record_set.stale_files:
                are = "is" if len(stale) == 1 else "are"
                left = f"{counted(len(stale), 'file')} that an earlier pipeline run left {are} not read"
                warnings.append(f"{left}, such as {stale[0]}")
    for name in ("eval", "test"):
        if name in data:
            warnings += data_warnings(data["train"], data[name], held_out_name=name)
    warnings = [
        # The first warnings are those about images that were trained on: they are printed whatever else there is.
        *shared_image_warnings(shared, look=_twins_command(options, sets)),
        *repeated_image_warnings(data["train"]),
        *finding_warnings(findings, (record_set for part in sets.values() for record_set in part)),
        *origin_warnings(origins),
        *warnings,
    ]
    return list(dict.fromkeys(warnings))


def read_datasets(
    sets: dict[str, tuple[RecordSet, ...]],
    *,
    max_memory_mb: int | None,
    unlabeled: Unlabeled = "drop",
    draw_views: bool = True,
    corrections: Corrections | None = None,
) -> dict[str, EmbeddingDataset]:
    """Reads the data of a run into memory if they fit, and prints a line if they do not.

    Of sets with several views of each image, a line says which views are used: of held-out sets only view 0, because a
    model meets undistorted images.

    Args:
      sets: the record sets of "train", "eval" and "test", if given.
      max_memory_mb: as in the options.
      unlabeled: as in the options.
      draw_views: as in the options.
      corrections: of labels; None for none.

    Raises:
      InputError: see `read_dataset`.
    """
    from trainer.data.dataset import read_dataset
    from trainer.data.memory import MemoryBudget

    budget = MemoryBudget(max_memory_mb)
    data = {}
    # The set that is read most often comes first; a test set is read only once.
    for name in sorted(sets, key=["eval", "train", "test"].index):
        all_views = name == "train" and draw_views
        data[name] = read_dataset(
            sets[name],
            flag=f"{name}_data_paths",
            budget=budget,
            unlabeled=unlabeled,
            all_views=all_views,
            corrections=corrections,
        )
        if views := next((found.manifest.views for found in sets[name] if found.manifest.views), None):
            use = "each step draws one of them" if all_views else "only view 0, the undistorted one, is used"
            _say(f"the images of the {name} set have {describe_views(views)}: {use}")
        if not data[name].embeddings.in_memory:
            _say(f"the {name} set does not fit the memory for embeddings and is read as needed")
    return {name: data[name] for name in sets}


def _read_data(
    options: TrainingOptions, sets: dict[str, tuple[RecordSet, ...]], corrections: Corrections | None = None
) -> dict[str, EmbeddingDataset]:
    return read_datasets(
        sets,
        max_memory_mb=options.max_memory_mb,
        unlabeled=options.unlabeled,
        draw_views=options.draw_views,
        corrections=corrections,
    )


def _read_twins(path: str | None, data: dict[str, EmbeddingDataset]) -> TwinGroups | None:
    """The table of copies that the user named.

    Raises:
      InputError: it cannot be read, or it names none of the photos of the run.
    """
    if path is None:
        return None
    from preprocess.records.twin_groups import parse_twin_groups
    from trainer.data.shared_images import count_named
    from trainer.storage.files import cause_of

    try:
        content = storage().read(path)
    except OSError as error:
        raise InputError(f"--twins: cannot read {path}: {cause_of(error)}.") from error
    twins = parse_twin_groups(content, path=path, flag="twins")
    if len(twins) and not any(count_named(dataset, twins) for dataset in data.values()):
        raise InputError(
            f"--twins: {path} names none of the photos of this run. Give the table that `hugs twins` wrote for these "
            "very sets."
        )
    return twins


def _read_corrections(options: TrainingOptions, sets: dict[str, tuple[RecordSet, ...]]) -> Corrections | None:
    if options.corrections is None:
        return None
    from trainer.data.corrected import read_corrections

    return read_corrections(options.corrections, labels=next(iter(sets.values()))[0].manifest.labels)


def _corrections_in_metrics(
    options: TrainingOptions,
    sets: dict[str, tuple[RecordSet, ...]],
    data: dict[str, EmbeddingDataset],
    corrections: Corrections,
    *,
    left_out: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """What the corrections changed, and what that brought, if the options ask for it and anything was changed."""
    from trainer.data.corrected import correction_counts
    from trainer.data.dataset import in_label_mode
    from trainer.search.correction_comparison import compare_corrections
    from trainer.search.paired_comparison import num_trainings

    applied = [one for dataset in data.values() for one in dataset.corrections]
    found: dict[str, Any] = {
        "file": corrections.path,
        "changes": len(corrections),
        "keep": corrections.num_kept,
        "unsure": corrections.num_unsure,
        "records": correction_counts(applied),
    }
    if options.compare_corrections and not all(one.changes_nothing for one in applied):
        number = num_trainings(options)
        _say(f"measuring what the corrections brought, with {number} trainings; --no-compare_corrections leaves it out")
        read = _read_data(options, {name: part for name, part in sets.items() if name != "test"})
        before = in_label_mode(read, data["train"].label_mode)
        found["gain"] = compare_corrections(before, data, options, left_out=left_out)
    return found


def _load_backbone(record_set: RecordSet, weights: str | None) -> tuple[keras.Model | None, BackboneIdentity]:
    """The network for the exported model and its identity. The network is None if nothing says which one it is."""
    from trainer.export.saved_model import load_backbone_of_records, load_unverified_backbone

    identity = record_set.manifest.backbone
    if record_set.verified:
        return load_backbone_of_records(identity, weights=weights), identity
    if weights is not None:
        return load_unverified_backbone(weights, records=identity)
    return None, identity


def _train(
    options: TrainingOptions,
    data: dict[str, EmbeddingDataset],
    exchange: GradientExchange | None,
    *,
    left_out: Mapping[str, np.ndarray],
) -> tuple[TrainingOptions, TrainingResult, dict[str, Any]]:
    """Searches settings if the options ask for it, and trains.

    Args:
      options: of the run.
      data: the data sets of the run.
      exchange: as in `train_and_export`.
      left_out: the examples of "eval" and "test" that other sets have too; seeds and learning curve leave them out.

    Returns:
      The options that the head was trained with, the result of the training, and further results for the metrics.
    """
    from trainer.training.checkpoints import Saving
    from trainer.training.loop import train_head
    from trainer.training.progress import TrainingProgress

    extras: dict[str, Any] = {}
    train, evaluation = data["train"], data["eval"]
    if options.tune:
        from trainer.search.tuning import tune

        options, extras["tuning"] = tune(
            train, evaluation, options, trials=options.tune, budget_sec=options.tune_sec, say=_say
        )
    with TrainingProgress(options.num_steps(len(train))) as progress:
        result = train_head(
            train,
            evaluation,
            options,
            on_progress=progress.update,
            saving=Saving(resumes=True),
            say=_say,
            exchange=exchange,
        )
    if options.seeds > 1:
        from trainer.search.seeds_and_curves import over_seeds

        _say(f"training with {options.seeds} seeds")
        extras["seeds"] = over_seeds(train, evaluation, data.get("test"), options, left_out=left_out)
    if train.embeddings.num_views > 1 and options.compare_views:
        from trainer.search.paired_comparison import num_trainings
        from trainer.search.view_comparison import compare_views

        number = num_trainings(options)
        _say(f"measuring what the views brought, with {number} more trainings; --no-compare_views leaves it out")
        extras["view_gain"] = compare_views(train, evaluation, data.get("test"), options, left_out=left_out)
    if options.learning_curve:
        from trainer.search.seeds_and_curves import learning_curve

        _say("measuring what more images would bring")
        extras["learning_curve"] = learning_curve(train, evaluation, options, left_out=left_out["eval"])
    return options, result, extras


def _views_used(options: TrainingOptions, train: RecordSet) -> dict[str, Any] | None:
    """The views of the training images and whether they were drawn; None if each image has one."""
    views = train.manifest.views
    return None if views is None else {**views.to_json(), "drawn": options.draw_views}


def _write_tensorboard(
    options: TrainingOptions, evaluations: dict[str, Evaluation], evaluation: EmbeddingDataset, *, step: int
) -> None:
    from trainer.reports.tensorboard_output import write_evaluation, write_projector

    for name in ("eval", "test"):
        if name in evaluations:
            write_evaluation(posixpath.join(options.log_folder, f"final_{name}"), evaluations[name], step=step)
    predictions = [evaluation.labels[i] for i in evaluations["eval"].best_label_ids]
    # TensorBoard's projector looks only into the folders of runs.
    write_projector(posixpath.join(options.log_folder, "final_eval"), evaluation, predictions)


def train_as_worker(options: TrainingOptions, exchange: GradientExchange) -> None:
    """Trains as a worker that is not the chief, and writes nothing.

    Raises:
      InputError: the record sets cannot be used, or the workers do not go on from the same checkpoint.
    """
    sets = _find_sets(options)

    from trainer.data.dataset import in_label_mode
    from trainer.training.checkpoints import Saving
    from trainer.training.loop import train_head

    data = _read_data(options, sets, _read_corrections(options, sets))
    data = in_label_mode(data, options.label_mode)
    train_head(
        data["train"], data["eval"], options, saving=Saving(writes=False, resumes=True), say=_say, exchange=exchange
    )
    cluster = exchange.cluster
    _say(f"worker {cluster.index} of {cluster.count} is done; the chief evaluates and writes the model")


def train_and_export(
    options: TrainingOptions, exchange: GradientExchange | None = None, *, note: RunNote | None = None
) -> dict[str, Any]:
    """A whole run: check, read, train, evaluate, export.

    Wrong input is refused before training starts.

    Args:
      options: of the run.
      exchange: of gradients, among the workers that train together, of which this one is the chief; None for a worker
        that is alone.
      note: says in the output folder what runs, and then what stopped it; None for no note.

    Returns:
      What `metrics.json` holds.

    Raises:
      InputError: the record sets, the backbone's weights or the output folder cannot be used.
    """
    from trainer.storage.output_locks import locked_outputs  # here: its imports would double the time of `--help`

    started = time.monotonic()
    try:
        sets = _find_sets(options)
    except InputError as error:
        if note is not None:
            from preprocess.locks.output_lock import LOCK_NAME

            note.refuse(str(error), unless=posixpath.join(options.output_path, LOCK_NAME))
        raise
    with locked_outputs(options), noted(note, lost=LockLost):
        metrics = _train_and_export(options, sets, exchange, started=started)
        if note is not None:
            note.forget()
        return metrics


def _train_and_export(
    options: TrainingOptions,
    sets: dict[str, tuple[RecordSet, ...]],
    exchange: GradientExchange | None,
    *,
    started: float,
) -> dict[str, Any]:
    """The part of `train_and_export` that runs while the folders of the run are locked."""
    with doing("checking that the output can be written"):
        output = _output_folder(options)
    import_tensorflow()  # This takes seconds, so paths are checked before it.

    from preprocess.images.decode import IMAGE_SIZE
    from trainer.data.corrected import (
        LEDGER_NAME,
        correction_counts,
        correction_warnings,
        counts_in_words,
        write_ledger,
    )
    from trainer.data.dataset import in_label_mode
    from trainer.data.embedding_findings import embedding_findings
    from trainer.data.photos import finder_of_sets
    from trainer.data.record_origins import record_origins
    from trainer.data.shared_images import SHARED_IMAGES_NAME, find_shared_images
    from trainer.data.training_sketch import sketch_training_set
    from trainer.evaluation.assess import assess, calibrate
    from trainer.evaluation.gate import measure_gate, refusal
    from trainer.export.classifier import Classifier
    from trainer.export.formats import export_all, require_formats
    from trainer.export.output_folder import PREDICTIONS_NAME, REPORT_NAME, copy_model
    from trainer.export.photo_check import check_on_photos
    from trainer.export.saved_model import save_model
    from trainer.export.sketch_file import write_sketch
    from trainer.reports.console import summary
    from trainer.reports.held_out_files import write_predictions, write_report
    from trainer.reports.shared_images_csv import write_shared_images
    from trainer.run_metrics import run_metrics
    from trainer.training.head import predict_logits
    from trainer.training.loop import require_trainable
    from trainer.vertex_trial import report_trial

    require_formats(options.export_formats)
    corrections = _read_corrections(options, sets)
    # Loaded now and not at the export: if the network is not available, no training time is lost.
    with doing("loading the network that the model will contain"):
        network, backbone = _load_backbone(sets["train"][0], options.weights)
    data = _read_data(options, sets, corrections)
    data = in_label_mode(data, options.label_mode)
    require_trainable(data["train"])
    with doing("looking for images that the sets share"):
        twins = _read_twins(options.twins, data)
        shared, findings = find_shared_images(data, twins), embedding_findings(sets)
    left_out = {name: images.rows for name, images in shared.items()}
    origins = record_origins(sets)
    warnings = _warnings(options, sets, data, backbone, shared, findings, origins)
    if corrections is not None:
        applied = [one for dataset in data.values() for one in dataset.corrections]
        warnings = [
            *correction_warnings(corrections, applied, num_unlabeled=data["train"].num_unlabeled),
            *warnings,
        ]
        _say(f"corrections: {counts_in_words(correction_counts(applied))}")
    _warn(warnings)

    options, result, extras = _train(options, data, exchange, left_out=left_out)
    if corrections is not None:
        extras["corrections"] = _corrections_in_metrics(options, sets, data, corrections, left_out=left_out)

    def logits_of(piece: np.ndarray) -> np.ndarray:
        return predict_logits(result.head, [piece])

    _say("evaluating and exporting the model")
    with doing("evaluating the model"):
        calibration, threshold, choice = calibrate(logits_of, data["eval"], min_precision=options.min_precision)
        evaluations = assess(logits_of, data, calibration, train_support=data["train"].support(), left_out=left_out)
    for name, images in shared.items():
        if images.knows_twins and len(images.rows):
            evaluations[name].numbers["without_shared_images"]["twins"] = images.num_twins
        if images.num_labels_differ:
            evaluations[name].numbers["without_shared_images"]["labels_differ"] = images.num_labels_differ
    metrics = run_metrics(options, sets, data, backbone, result, evaluations, calibration, threshold, choice, warnings)
    metrics |= {
        "shared_images": {name: images.to_json() for name, images in shared.items()},
        "embedding_found": findings,
        "record_origins": origins,
        "views": _views_used(options, sets["train"][0]),
        **extras,
    }
    held_out = {name: dataset for name, dataset in data.items() if name != "train"}
    photos = finder_of_sets((record_set for part in sets.values() for record_set in part), options.photo_dirs)
    photos_of = {name: finder_of_sets(part, options.photo_dirs) for name, part in sets.items()}
    with doing("reading photos of the evaluation set"):
        some_photos = photos.some(data["eval"].uris, at_most=_PARITY_PHOTOS, tries=_PARITY_TRIES)

    def write_model(model_dir: str) -> None:
        with doing("writing the model"):
            info = save_model(
                model_dir,
                backbone=network,
                head=result.head,
                labels=data["train"].labels,
                identity=backbone,
                label_mode=data["train"].label_mode,
                temperature=calibration.temperature,
                threshold=calibration.threshold,
                backbone_verified=sets["train"][0].verified,
                page=_page_of(options, data["train"].labels),
            )
        with doing("writing the sketch of the training set"):
            sketch = sketch_training_set(
                data["train"],
                photos_of["train"],
                image_size=info.image.size if info.takes_images else IMAGE_SIZE,
                max_statistics=options.check_photos,
            )
            write_sketch(model_dir, sketch)
        metrics["model"]["takes_images"] = info.takes_images
        metrics["exports"] = export_all(
            options.export_formats,
            model_dir=model_dir,
            output_dir=model_dir,
            photos=some_photos,
            head=result.head,
            backbone=network,
            info=info,
        )
        metrics["exported_model_on_photos"] = {}
        if info.takes_images:
            metrics["exported_model_on_photos"] = check_on_photos(
                lambda: Classifier(model_dir),
                held_out,
                photos_of,
                logits_of=logits_of,
                calibration=calibration,
                at_most=options.check_photos,
                size=info.image.size,
            )
        metrics["wall_sec"] = round(time.monotonic() - started, 3)  # It includes the export.

    files = {REPORT_NAME: lambda path: write_report(path, metrics, evaluations, photos)}
    if corrections is not None:
        files[LEDGER_NAME] = lambda path: write_ledger(path, applied)
    if options.assert_accuracy_at_least is not None:
        metrics["gate"] = measure_gate(metrics, options.assert_accuracy_at_least)
        if not metrics["gate"]["passed"]:
            metrics["warnings"].insert(0, f"NOT EXPORTED: {refusal(metrics['gate'])}")
            metrics["model"]["takes_images"], metrics["exports"] = network is not None, {}
            metrics["wall_sec"] = round(time.monotonic() - started, 3)
            with doing("writing the report and the metrics"):
                refused_dir = output.refuse(metrics, files)
            _write_tensorboard(options, evaluations, data["eval"], step=result.best.step)
            report_trial(_of_trial(metrics), step=result.best.step)
            raise InputError(
                f"the model is not exported: {refusal(metrics['gate'])}. All numbers are in {refused_dir}; an older "
                "model stays as it is."
            )
    if options.write_predictions:
        files[PREDICTIONS_NAME] = lambda path: write_predictions(path, logits_of, held_out, calibration, photos_of)
    if any(len(rows) for rows in left_out.values()):
        files[SHARED_IMAGES_NAME] = lambda path: write_shared_images(path, shared, data, photos_of)
    with doing("writing the report, the metrics and the model"):
        output.publish(write_model, metrics, files)
    # If the output folder is the job's base directory, Vertex AI's folder for the model is `model` in it.
    if options.export_dir and options.export_dir.rstrip("/") != output.model_dir:
        with doing(f"copying the model to {options.export_dir}"):
            copy_model(output.local_model_dir, options.export_dir)
    with doing("writing what TensorBoard shows"):
        _write_tensorboard(options, evaluations, data["eval"], step=result.best.step)
    report_trial(_of_trial(metrics), step=result.best.step)
    print(
        summary(
            metrics,
            metrics_path=output.metrics_path,
            model_dir=output.model_dir,
            report_path=output.report_path,
            log_dir=options.log_folder,
            photo=_photo_to_try(some_photos),
        )
    )
    return metrics


def _of_trial(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {"accuracy": metrics["eval"]["accuracy"], "loss": metrics["eval"]["loss"]}


def _photo_to_try(photos: Sequence[Photo]) -> str | None:
    """The location of the first of some photos, for a command to try the model; None if that has no photo to read."""
    for path, _ in photos[:1]:
        if has_scheme(path):
            return path
        if os.path.isfile(path):  # A member of a tar file is none.
            return os.path.normpath(path)
    return None


def evaluate_model(options: TrainingOptions) -> dict[str, Any]:
    """Evaluates an existing model on the held-out sets and trains nothing.

    Returns:
      What `evaluation.json` holds.

    Raises:
      InputError: the model, the record sets or the output folder cannot be used.
    """
    from trainer.export.classifier import read_model_info

    info = read_model_info(options.existing_model_dir)
    sets = _find_sets(options)
    import_tensorflow()

    from trainer.existing_model import evaluate_existing, require_fitting
    from trainer.reports.console import evaluation_summary
    from trainer.storage.output_locks import locked_outputs

    require_fitting(info, options.existing_model_dir, sets)
    data = _read_data(options, sets)
    with locked_outputs(options), doing("evaluating the model"):
        metrics = evaluate_existing(options, sets, data, info)
    _warn(metrics["warnings"])
    print(evaluation_summary(metrics, output_path=options.output_path))
    if options.assert_accuracy_at_least is not None:
        from trainer.evaluation.gate import measure_gate, refusal

        gate = measure_gate(metrics, options.assert_accuracy_at_least)
        if not gate["passed"]:
            raise InputError(
                f"the model is not good enough: {refusal(gate)}. All numbers are in {options.output_path}."
            )
    return metrics


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program with the arguments; see the module's docstring.

    Raises:
      InputError: the user's input is wrong.
    """
    options = parse_options(argv)
    cluster = read_cluster(os.environ)
    if options.evaluates_only:
        evaluate_model(options)
        return EXIT_OK
    exchange = None
    if cluster.count > 1:
        _require_one_search(options)
        import_tensorflow(start=False)
        _say(f"worker {cluster.index} of {cluster.count}: waiting for the others")
        exchange = GradientExchange(cluster)
    if exchange and not cluster.is_chief:
        train_as_worker(options, exchange)
    else:
        words = list(sys.argv[1:] if argv is None else argv)
        train_and_export(
            options, exchange, note=RunNote(options.output_path, storage(), module="trainer.task", arguments=words)
        )
    return EXIT_OK


def _page_of(options: TrainingOptions, labels: Sequence[str]) -> PageOptions:
    """The page of the model, unless it is for other labels, as that of the default recipe of `hugs_train.sh` may be."""
    page = options.page_options
    unknown = page.labels.difference(labels)
    if unknown and unknown != page.labels:
        names = ", ".join(sorted(unknown))
        _say(f"note: the model gets no page of the recipe, since that names labels that are not there: {names}")
    return PageOptions() if unknown else page


def _require_one_search(options: TrainingOptions) -> None:
    if options.tune:
        raise InputError(
            "--tune: a search by several workers could end differently in each. Search with one worker, and give the "
            "settings that it prints to all of them."
        )


if __name__ == "__main__":
    run_program(main)
