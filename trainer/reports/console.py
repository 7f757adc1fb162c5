"""The text that a training run prints at its end."""

from __future__ import annotations

import posixpath
from typing import Any

from configs.counts import counted
from configs.printed_commands import program_command, tool_command
from trainer.data.record_origins import engine_words
from trainer.data.shared_images import SHARED_IMAGES_NAME
from trainer.reports.correction_words import correction_words
from trainer.reports.view_words import views_words

_MAX_MATRIX_CLASSES = 12
_MAX_TABLE_CLASSES = 30
_LABEL_WIDTH = 20
# A calibration error that is larger by less than this is printed as the same number.
_NOTICED = 0.0005


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}%"


def _interval(measured: dict[str, Any]) -> str:
    """The interval of an accuracy, worded the same way wherever it stands."""
    low, high = measured["accuracy_interval"]
    return f"95% interval {100 * low:.1f} to {100 * high:.1f}%"


def confidence_words(answers: dict[str, Any]) -> str:
    """The effect of the threshold on the predictions, in words."""
    threshold = answers["threshold"]
    if answers["precision"] is None:
        why = ", because no lower threshold made enough of them right" if threshold >= 1 else ""
        return f"no prediction is confident (a score of {threshold:.2f} or more){why}"
    if threshold <= 0:
        return f"all predictions are confident, of which {_percent(answers['precision'])} are right"
    share, right = _percent(answers["coverage"]), _percent(answers["precision"])
    return f"a score of {threshold:.2f} or more is confident: {share} of the predictions, of which {right} are right"


def _count(count: int | None) -> str:
    return "–" if count is None else str(count)


def _short(label: str) -> str:
    return label if len(label) <= _LABEL_WIDTH else f"{label[: _LABEL_WIDTH - 1]}…"


def per_class_table(evaluation: dict[str, Any]) -> str:
    """Counts, precision and recall, one class on each line; if there are many classes, the worst come first."""
    rows = evaluation["per_class"]
    note = ""
    if len(rows) > _MAX_TABLE_CLASSES:
        measured = [row for row in rows if row["recall"] is not None]
        note = f"\n  … of {len(rows)} classes, those with the lowest recall; all are in the metrics"
        rows = sorted(measured, key=lambda row: row["recall"])[:_MAX_TABLE_CLASSES]
    width = max(5, *(len(_short(row["label"])) for row in rows))
    lines = [f"  {'class':<{width}}  {'train':>6}  {'held out':>8}  {'right':>6}  {'recall':>7}  {'precision':>9}"]
    lines += [
        f"  {_short(row['label']):<{width}}  {_count(row['train_support']):>6}  {row['support']:>8}"
        f"  {row['correct']:>6}  {_percent(row['recall']):>7}  {_percent(row['precision']):>9}"
        for row in rows
    ]
    return "\n".join(lines) + note


def confusion_table(evaluation: dict[str, Any]) -> str:
    """The confusion matrix: a line for each true class, a numbered column for each predicted class."""
    matrix = evaluation["confusion_matrix"]
    labels, counts = matrix["labels"], matrix["counts"]
    if len(labels) > _MAX_MATRIX_CLASSES:
        pairs = [
            f"  {_short(p['label'])} taken for {_short(p['predicted'])}: {p['count']}"
            for p in evaluation["top_confusions"][:10]
        ]
        return "\n".join(["  most often confused", *pairs])
    names = [f"{i} {_short(label)}" for i, label in enumerate(labels)]
    width = max(len(name) for name in names)
    cell = max(4, *(len(str(count)) for row in counts for count in row))
    line = matrix["rows"] if evaluation["multi_label"] else "true"
    lines = [f"  confusion matrix (line: {line}; column: predicted)"]
    lines.append(" " * (width + 4) + "".join(f"{i:>{cell + 1}}" for i in range(len(labels))))
    lines += [
        f"  {name:<{width}}  " + "".join(f"{count or '·':>{cell + 1}}" for count in row)
        for name, row in zip(names, counts, strict=True)
    ]
    return "\n".join(lines)


def accuracy_line(name: str, evaluation: dict[str, Any]) -> str:
    """Accuracy with its interval, and the accuracy of always predicting the most common class."""
    measure, baseline = "accuracy", "always answering"
    majority = f"{evaluation['majority_class']!r}: {_percent(evaluation['majority_share'])}"
    if evaluation["label_mode"] == "multi":
        measure, baseline = "exactly the right labels", "share of"
    return (
        f"{name}: {measure} {_percent(evaluation['accuracy'])} on {counted(evaluation['examples'], 'image')}, "
        f"{_interval(evaluation)} ({baseline} {majority}), "
        f"loss {evaluation['loss']:.3f}"
    )


def calibration_line(evaluation: dict[str, Any]) -> str:
    """The calibration of the scores, and the effect of the threshold."""
    calibration = evaluation["calibration"]
    before, after = calibration["error_before"], calibration["error_after"]
    worse = " (worse)" if after > before + _NOTICED else ""
    temperature, macro = calibration["temperature"], evaluation["macro"]["f1"]
    scaled = "" if temperature == 1.0 else f", with temperature {temperature:.2f} {_percent(after)}{worse}"
    return (
        f"  macro F1 {'–' if macro is None else f'{macro:.3f}'}; calibration error {_percent(before)}{scaled}; "
        f"{confidence_words(evaluation['answers'])}"
    )


def temperature_line(model: dict[str, Any]) -> str | None:
    """Why the model has its temperature; None if that is not known, as for an existing model."""
    choice = model.get("temperature_choice")
    return f"  {choice['reason']}" if choice else None


def without_shared_line(evaluation: dict[str, Any]) -> str | None:
    """The accuracy without the images that other sets have too; None if there are no such images."""
    rest = evaluation.get("without_shared_images")
    if rest is None:
        return None
    count, copies = rest["left_out"], rest.get("twins", 0)
    these = "1 image that another set has too" if count == 1 else f"{count} images that other sets have too"
    if copies:
        these += f" ({copies} of them as {'a copy' if copies == 1 else 'copies'})"
    if differing := rest.get("labels_differ", 0):
        there = "has another label" if differing == 1 else "have other labels"
        these += f" ({'it' if count == 1 else f'{differing} of them'} {there} there)"
    if not rest["examples"]:
        return f"  without the {these}: none is left, so this accuracy says nothing about new images"
    return (
        f"  without the {these}: accuracy {_percent(rest['accuracy'])} of {counted(rest['examples'], 'image')} "
        f"({_interval(rest)})"
    )


def exported_model_line(check: dict[str, Any] | None, records_by: str) -> str | None:
    """What the exported model itself answered on photos, beside the records; None if it takes no photos.

    Args:
      check: an entry of `exported_model_on_photos` in the metrics.
      records_by: what computed the embeddings in the records, in words; empty if it is not known.
    """
    if not check:
        return None
    by = f" (computed by {records_by})" if records_by else ""
    if not check["photos"]:
        return (
            f"  these numbers come from the records{by}; the exported model was not run on photos: {check['why_not']}"
        )
    answers = "1 answer differs" if check["different_answers"] == 1 else f"{check['different_answers']} answers differ"
    return (
        f"  the exported model itself, run on {check['photos']} of these {counted(check['of'], 'image')}: accuracy "
        f"{_percent(check['accuracy'])} ({_interval(check)}), their records{by} "
        f"{_percent(check['accuracy_of_records'])}; {answers}, "
        f"largest score difference {check['largest_score_difference']:.2g}"
        + ("; the time was over before all photos" if check["ran_out_of_time"] else "")
    )


def _held_out(metrics: dict[str, Any], name: str) -> list[str]:
    lines = [
        without_shared_line(metrics[name]),
        calibration_line(metrics[name]),
        temperature_line(metrics["model"]) if name == "eval" else None,
        exported_model_line(
            metrics.get("exported_model_on_photos", {}).get(name),
            engine_words(metrics.get("record_origins", {}).get(name, ())),
        ),
    ]
    return [accuracy_line(name, metrics[name]), *filter(None, lines), ""]


def seeds_line(seeds: dict[str, Any]) -> str:
    """The accuracy over the seeds; a spread only from three seeds on, because two values say little about it."""
    left_out = seeds["left_out"]["eval"]
    without = f" (without the {counted(left_out, 'shared image')})" if left_out else ""
    start = f"eval over {len(seeds['seeds'])} seeds{without}: accuracy"
    found = seeds["eval"]["accuracy"]
    if len(seeds["seeds"]) > 2:
        return f"{start} {_percent(found['mean'])} ± {100 * found['deviation']:.1f}"
    return f"{start} {' and '.join(_percent(run['eval']['accuracy']) for run in seeds['runs'])}"


def summary(
    metrics: dict[str, Any], *, metrics_path: str, model_dir: str, report_path: str, log_dir: str, photo: str | None
) -> str:
    """The summary of a run from its metrics: results, data, paths, and the commands to run next.

    Args:
      metrics: of the run.
      metrics_path: the file of these metrics.
      model_dir: the exported model.
      report_path: the page.
      log_dir: TensorBoard's logs.
      photo: a held-out photo for the command; None if none can be read here.
    """
    chosen = metrics["exported_checkpoint"]
    lines = [
        "",
        f"Trained {counted(metrics['steps'], 'step')} on {counted(metrics['train']['examples'], 'image')} in "
        f"{metrics['train_sec']:.1f} s; exported is step {chosen['step']} ({chosen['rule']}).",
        *_held_out(metrics, "eval"),
        per_class_table(metrics["eval"]),
        "",
        confusion_table(metrics["eval"]),
        "",
        *(_held_out(metrics, "test") if "test" in metrics else ()),
    ]
    if "seeds" in metrics:
        lines += [seeds_line(metrics["seeds"]), ""]
    if corrections := correction_words(metrics):
        lines += [*corrections, ""]
    if views := views_words(metrics):
        lines += [*views, ""]
    if metrics["backbone"]["random_weights"]:
        lines += ["RANDOM weights: this accuracy does not show what a model with ImageNet weights can do.", ""]
    lines += [
        f"report   {report_path}",
        f"metrics  {metrics_path}",
        f"model    {model_dir}",
        f"curves   {tool_command('tensorboard', '--logdir', log_dir)}",
    ]
    if any("without_shared_images" in metrics.get(name, ()) for name in ("eval", "test")):
        lines.append(f"shared   {posixpath.join(posixpath.dirname(metrics_path), SHARED_IMAGES_NAME)}")
    if metrics["model"]["takes_images"]:
        lines.append(f"next     {program_command('predict', '--model_dir', model_dir, photo or 'PHOTO')}")
    return "\n".join(lines)


def evaluation_summary(metrics: dict[str, Any], *, output_path: str) -> str:
    """The summary of the evaluation of an existing model: results and paths."""
    lines = [f"Evaluated {metrics['model']['model_dir']}; nothing was trained."]
    for name in ("eval", "test"):
        if name in metrics:
            lines += [*_held_out(metrics, name), per_class_table(metrics[name]), ""]
    return "\n".join([*lines, f"predictions.csv, evaluation.json and evaluation.html are in {output_path}"])
