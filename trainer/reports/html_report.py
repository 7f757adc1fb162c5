"""report.html: one file for colleagues. It says how good the model is, on which data, and how it was trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.evaluation.ranking import ThresholdCounts
from trainer.reports.html_evaluation import (
    SET_NAMES,
    Thumbnail,
    evaluation_sections,
    number,
    percent,
    section,
    table,
    tiles,
)
from trainer.reports.report_style import CSS
from trainer.reports.svg_charts import Line, escaped, line_chart, shortened

_MAX_WARNINGS = 12


def _training(metrics: Mapping[str, Any]) -> str:
    history = metrics["history"]
    steps = [point["step"] for point in history]

    def line(name: str, key: str) -> Line:
        return Line(name=name, xs=steps, ys=[point[key] for point in history])

    loss = line_chart(
        [line("training", "train_loss"), line("evaluation", "eval_loss")],
        title="loss during training",
        x_name="step",
        y_name="loss",
    )
    accuracy = line_chart(
        [line("evaluation", "eval_accuracy")], title="accuracy during training", x_name="step", y_name="accuracy"
    )
    chosen, train = metrics["exported_checkpoint"], metrics["train"]
    words = (
        f"{metrics['steps']:,} steps in {metrics['train_sec']:.1f} s. Exported is step {chosen['step']:,} "
        f"({chosen['rule']}), whose accuracy on the {train['examples']:,} training images is "
        f"{percent(train['accuracy'])}."
    )
    options = {name: value for name, value in metrics["options"].items() if value not in (None, [], "")}
    listed = table(
        ["option", "value"],
        [
            [escaped(name), escaped(", ".join(map(str, v)) if isinstance(v, list | tuple) else v)]
            for name, v in options.items()
        ],
        words=(1,),
    )
    return section(
        "How it was trained",
        f'<p>{escaped(words)}</p><div class="pair"><div>{loss}</div><div>{accuracy}</div></div>',
        f"<details><summary>all options</summary>{listed}</details>",
    )


def _plus_minus(summary: Mapping[str, float | None]) -> str:
    mean, deviation = summary["mean"], summary["deviation"]
    return percent(mean) if deviation is None else f"{percent(mean)} ± {100 * deviation:.1f}"


def _seeds(found: Mapping[str, Any]) -> str:
    parts = [
        f"{SET_NAMES[name]}: accuracy {_plus_minus(found[name]['accuracy'])}" for name in SET_NAMES if name in found
    ]
    words = (
        f"Trained with {len(found['seeds'])} seeds; {'; '.join(parts)} (mean ± standard deviation; {found['note']})."
    )
    return section("Influence of the seed", f"<p>{escaped(words)}</p>")


def _learning_curve(found: Mapping[str, Any]) -> str:
    points = found["points"]
    chart = line_chart(
        [
            Line(
                name="evaluation set",
                xs=[point["examples"] for point in points],
                ys=[point["accuracy"]["mean"] for point in points],
                spread=[point["accuracy"]["deviation"] or 0.0 for point in points],
            )
        ],
        title="learning curve",
        x_name="training images",
        y_name="accuracy",
    )
    parts = [f"<div>{chart}</div>"]
    if "classes" in found:
        answer = {"yes": "Yes.", "no": "Hardly.", "unclear": "The data do not show it."}[found["more_images_help"]]
        gain, error = found["last_doubling"]["accuracy_gain"], found["last_doubling"]["standard_error"]
        spread = "" if error is None else f" ± {100 * error:.1f}"
        words = f"{answer} The last doubling of the images changed the accuracy by {100 * gain:+.1f}{spread} points."
        rows = [
            [
                escaped(shortened(row["label"], 40)),
                f"{row['train_support']:,}",
                number(row["f1"]),
                f"{row['gain']:+.3f} ± {row['gain_standard_error']:.3f}",
            ]
            for row in found["classes"][:10]
        ]
        gains = table(["class", "training images", "F1", "F1 gained"], rows)
        parts.append(f"<div><p>{escaped(words)} The classes that gained most from it come first.</p>{gains}</div>")
    return section("Would more images help?", f'<div class="pair">{"".join(parts)}</div>')


def _setting(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else escaped(value)


def _tuning(found: Mapping[str, Any]) -> str:
    settings = list(found["table"][0]["settings"])
    rows = []
    for row in found["table"]:
        loss, accuracy = row["loss"], row["accuracy"]
        rows.append(
            [
                str(row["rank"]),
                number(loss and loss["mean"], 4),
                _plus_minus(accuracy) if accuracy else "diverged",
                *(_setting(row["settings"].get(name)) for name in settings),
            ]
        )
    words = f"{len(rows)} settings were tried by cross-validation on the training images; chosen by: {found['rule']}."
    return section(
        "Settings that were tried",
        f"<p>{escaped(words)}</p>",
        table(["rank", "loss", "accuracy", *map(escaped, settings)], rows),
    )


def _data(metrics: Mapping[str, Any]) -> str:
    rows = []
    for name in ("train", "eval", "test"):
        if name in metrics:
            part = metrics[name]
            counts = [f"{part[key]:,}" for key in ("examples", "multi_label", "unlabeled")]
            rows.append([name, *counts, escaped(", ".join(metrics["record_sets"][name]))])
    head = ["set", "images", "with several labels", "without label", "records"]
    backbone = metrics["backbone"]
    facts = [
        ("backbone", f"{backbone['architecture']}, weights {backbone['weights']}"),
        ("digest of its weights", backbone["weights_digest"]),
        ("image definition", backbone["image_definition"]),
        ("classes", f"{len(metrics['labels']):,}"),
        ("digest of the head", metrics["model"]["head_digest"]),
        *((f"exported: {name}", _exported(found)) for name, found in metrics.get("exports", {}).items()),
    ]
    return section(
        "On what",
        table(head, rows, words=(4,)),
        "<p></p>",
        table([], [[escaped(name), escaped(value)] for name, value in facts], words=(1,)),
    )


def _exported(found: Mapping[str, Any]) -> str:
    file = "" if found["path"] == "." else f"{found['path']}, "
    return (
        f"{file}{found['bytes'] / 1e6:.1f} MB; scores differ from the trainer's by at most "
        f"{found['largest_difference']:.1g} ({found['tolerance']:.1g} allowed) on {found['samples']} "
        f"{found['samples_are']}"
    )


def _alarms(metrics: Mapping[str, Any]) -> str:
    alarms = []
    if metrics["backbone"].get("random_weights"):
        alarms.append("The backbone has RANDOM weights: this does not show what a model with ImageNet weights can do.")
    if not metrics["backbone_verified"]:
        alarms.append("The backbone is UNVERIFIED: the records do not say which network made them.")
    boxes = "".join(f'<section class="alarm"><b>{escaped(alarm)}</b></section>' for alarm in alarms)
    warnings = metrics["warnings"]
    if warnings:
        more = len(warnings) - _MAX_WARNINGS
        items = [*map(escaped, warnings[:_MAX_WARNINGS]), *([f"… and {more} more in metrics.json"] if more > 0 else [])]
        boxes += f'<section class="note"><ul>{"".join(f"<li>{item}</li>" for item in items)}</ul></section>'
    return boxes


def html_report(
    metrics: Mapping[str, Any], *, curves: Mapping[str, ThresholdCounts], thumbnail: Thumbnail, created: str
) -> str:
    """The report as one page that needs no other file and no network.

    All text from the data (labels, URIs, paths) is escaped.

    Args:
      metrics: as in metrics.json; results that a run did not measure are not shown.
      curves: for "eval" and "test", from their evaluation; missing curves are not drawn.
      thumbnail: gives the photo of a URI.
      created: the time of creation, in words.
    """
    held_out = [name for name in ("test", "eval") if name in metrics]
    first = metrics[held_out[0]]
    classes = shortened(", ".join(shortened(label, 24) for label in metrics["labels"]), 120)
    chosen_on = (
        "The evaluation set chose the checkpoint, the temperature and the threshold, so its numbers are slightly too "
        "favorable. "
    )
    judged = chosen_on + (
        "The test set took no part in any choice."
        if "test" in metrics
        else "Give --test_data_paths for a set that took no part in any choice."
    )
    body = [
        f'<p class="soft">hugs · {escaped(created)}</p><h1>How good is this model?</h1>'
        f'<p class="soft">{len(metrics["labels"]):,} classes: {escaped(classes)}</p>',
        _alarms(metrics),
        *(tiles(metrics[name], SET_NAMES[name]) for name in held_out[:1]),
        f'<p class="soft">{escaped(judged)}</p>',
        evaluation_sections(held_out[0], first, curves.get(held_out[0]), thumbnail),
        _seeds(metrics["seeds"]) if "seeds" in metrics else "",
        _learning_curve(metrics["learning_curve"]) if "learning_curve" in metrics else "",
        _tuning(metrics["tuning"]) if "tuning" in metrics else "",
        _training(metrics) if "history" in metrics else "",
        _data(metrics),
    ]
    for name in held_out[1:]:
        inside = tiles(metrics[name], SET_NAMES[name])
        inside += evaluation_sections(name, metrics[name], curves.get(name), thumbnail)
        body.append(f"<details><summary>The same on the {SET_NAMES[name]}</summary>{inside}</details>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        # A second protection beside escaping: the page loads nothing from elsewhere and runs no script.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>How good is this model?</title><style>{CSS}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )
