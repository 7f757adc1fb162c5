"""The part of the HTML report about one data set: classes, confusions, scores, mistakes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from trainer.evaluation.ranking import NUM_THRESHOLDS, ThresholdCounts
from trainer.reports.svg_charts import Line, escaped, heatmap, line_chart, reliability_chart, shortened

THUMBNAIL_SIDE = 150
_MAX_MISTAKES_SHOWN = 24
_MAX_PICTURE_CLASSES = 30
_MAX_TABLE_CLASSES = 60
_MAX_CURVES = 10
SET_NAMES = {"eval": "evaluation set", "test": "test set"}

# A function that gives the photo of a URI as a `data:` URI, or None if the photo cannot be read.
Thumbnail = Callable[[str], str | None]


def percent(share: float | None) -> str:
    """A share in percent, or a dash for None."""
    return "–" if share is None else f"{100 * share:.1f}%"


def number(value: float | None, digits: int = 3) -> str:
    """A number, or a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}"


def count_of(count: int | None) -> str:
    """A count, or a dash for None."""
    return "–" if count is None else f"{count:,}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, words: Sequence[int] = ()) -> str:
    """A table. The cells are HTML already; the columns in `words` hold text that may be long."""

    def line(cells: Sequence[str], tag: str) -> str:
        kinds = (' class="words"' if i in words else "" for i in range(len(cells)))
        return "<tr>" + "".join(f"<{tag}{k}>{cell}</{tag}>" for k, cell in zip(kinds, cells, strict=True)) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    heading = f"<thead>{line(head, 'th')}</thead>" if head else ""
    return f'<div class="scroll"><table>{heading}<tbody>{body}</tbody></table></div>'


def section(title: str, *parts: str) -> str:
    """A section with a heading; `parts` are HTML."""
    return f"<section><h2>{escaped(title)}</h2>{''.join(parts)}</section>"


def _tile(value: str, words: str) -> str:
    return f'<div class="tile"><b>{value}</b><span>{escaped(words)}</span></div>'


def _interval(evaluation: Mapping[str, Any]) -> str:
    low, high = evaluation["accuracy_interval"]
    return f"{100 * low:.1f}–{100 * high:.1f}%"


def _is_multi(evaluation: Mapping[str, Any]) -> bool:
    return evaluation["label_mode"] == "multi"


def tiles(evaluation: Mapping[str, Any], name: str) -> str:
    """The numbers that matter most, as tiles."""
    calibration, answers = evaluation["calibration"], evaluation["answers"]
    what = "have exactly their labels" if _is_multi(evaluation) else "are classified correctly"
    found = [
        _tile(percent(evaluation["accuracy"]), f"of the {evaluation['examples']:,} images of the {name} {what}"),
        _tile(_interval(evaluation), "is where the true accuracy lies, with 95% confidence"),
        _tile(
            percent(evaluation["majority_share"]),
            f"have the most common label, {shortened(evaluation['majority_class'], 40)!r}",
        ),
        _tile(number(evaluation["macro"]["f1"]), "macro F1: the mean over classes, small and large ones alike"),
        _tile(number(evaluation["loss"]), "loss (cross-entropy, nats)"),
        _tile(
            f"{100 * calibration['error_before']:.1f} → {100 * calibration['error_after']:.1f}%",
            "calibration error before and after temperature scaling",
        ),
        _tile(
            percent(answers["coverage"]),
            f"get a confident prediction: the best score is {answers['threshold']:.2f} or more; "
            f"{percent(answers['precision'])} of these predictions are right",
        ),
    ]
    found += [
        _tile(percent(share), f"have their label among the {k} best labels")
        for k, share in evaluation["top_k"].items()
        if k in ("3", "5") and not _is_multi(evaluation)
    ]
    return f'<div class="tiles">{"".join(found)}</div>'


def _per_class(evaluation: Mapping[str, Any]) -> str:
    rows = evaluation["per_class"]
    note = ""
    if len(rows) > _MAX_TABLE_CLASSES:
        measured = sorted((row for row in rows if row["f1"] is not None), key=lambda row: row["f1"])
        note = f'<p class="soft">The {_MAX_TABLE_CLASSES} classes with the lowest F1 of {len(rows)}.</p>'
        rows = measured[:_MAX_TABLE_CLASSES]
    listed = table(
        ["class", "training images", "images", "precision", "recall", "F1", "ROC-AUC", "average precision"],
        [
            [
                escaped(shortened(row["label"], 40)),
                count_of(row["train_support"]),
                count_of(row["support"]),
                percent(row["precision"]),
                percent(row["recall"]),
                f'<i class="bar" style="width:{round(70 * (row["f1"] or 0))}px"></i>{number(row["f1"])}',
                number(row["roc_auc"]),
                number(row["average_precision"]),
            ]
            for row in rows
        ],
    )
    macro = evaluation["macro"]
    means = (
        f"Mean over the classes with images: precision {percent(macro['precision'])}, "
        f"recall {percent(macro['recall'])}, F1 {number(macro['f1'])}, ROC-AUC {number(macro['roc_auc'])}, "
        f"average precision {number(macro['average_precision'])}."
    )
    if _is_multi(evaluation):
        means += f" All predictions together (micro): F1 {number(evaluation['micro']['f1'])}."
    return note + listed + f'<p class="soft">{escaped(means)}</p>'


def _confusions(evaluation: Mapping[str, Any]) -> str:
    matrix = evaluation["confusion_matrix"]
    parts = []
    if matrix["counts"] is not None and len(matrix["labels"]) <= _MAX_PICTURE_CLASSES:
        rows = matrix["rows"] if evaluation["multi_label"] else "true label"
        words = f"Row: {rows}. Column: {matrix['columns']}. A darker cell is a larger share of its row."
        parts.append(f'<div>{heatmap(matrix["labels"], matrix["counts"])}<p class="soft">{escaped(words)}</p></div>')
    if evaluation["top_confusions"]:
        pairs = [
            [escaped(shortened(pair["label"], 40)), escaped(shortened(pair["predicted"], 40)), f"{pair['count']:,}"]
            for pair in evaluation["top_confusions"][:10]
        ]
        listed = table(["label", "taken for", "images"], pairs, words=(1,))
        parts.append(f"<div><h3>Most often confused</h3>{listed}</div>")
    return f'<div class="pair">{"".join(parts)}</div>' if parts else "<p>There are no confusions.</p>"


def _bins(bins: Sequence[Mapping[str, Any]]) -> list[tuple[float, float, int]]:
    return [(item["mean_score"], item["accuracy"], item["count"]) for item in bins]


def _calibration(evaluation: Mapping[str, Any]) -> str:
    found = evaluation["calibration"]
    chart = reliability_chart([("before", _bins(found["bins_before"])), ("after", _bins(found["bins_after"]))])
    words = (
        "On the dashed line, predictions with a score of 0.8 are right in 80% of the cases. "
        "Below it, the model is too sure. "
        f"The exported model divides its logits by the temperature {found['temperature']:.3g}, which was fitted on the "
        f"evaluation set: the loss here goes from {found['loss_before']:.3f} to {found['loss_after']:.3f}."
        if found["temperature"] != 1.0
        else "On the dashed line, predictions with a score of 0.8 are right in 80% of the cases."
    )
    return f'{chart}<p class="soft">{escaped(words)}</p>'


def _pr_curves(evaluation: Mapping[str, Any], counts: ThresholdCounts) -> str:
    lines = []
    for index, row in enumerate(evaluation["per_class"][:_MAX_CURVES]):
        if not row["support"]:
            continue
        right, wrong = counts.true_positives[index], counts.false_positives[index]
        points = [
            (float(right[t] / row["support"]), float(right[t] / (right[t] + wrong[t])))
            for t in range(NUM_THRESHOLDS)
            if right[t] + wrong[t]
        ]
        lines.append(Line(name=row["label"], xs=[x for x, _ in points], ys=[y for _, y in points]))
    if not lines:
        return ""
    chart = line_chart(
        lines, title="precision and recall", x_name="recall", y_name="precision", x_range=(0, 1), y_range=(0, 1.02)
    )
    return f"<div><h3>Precision against recall</h3>{chart}</div>"


def _end_of(uri: str) -> str:
    """The file and its folder. They say more than the beginning of the path."""
    end = "/".join(uri.split("/")[-2:])
    return uri if end == uri else f"…/{end}"


def _mistake(mistake: Mapping[str, Any], thumbnail: Thumbnail) -> str:
    uri = mistake["uri"]
    picture = thumbnail(uri)
    shown = (
        f'<img src="{escaped(picture)}" alt="" loading="lazy">'
        if picture
        else '<div class="blank">photo not available</div>'
    )
    labels = escaped(", ".join(shortened(label, 40) for label in mistake["labels"]))
    verb = "missed" if mistake["kind"] == "missed" else "said"
    about = escaped(shortened(mistake["about"], 40))
    said = f"{verb} <span class=wrong>{about}</span> ({percent(mistake['sureness'])} sure)"
    return (
        f"<figure>{shown}<div>{said}</div><div>label: <b>{labels}</b></div>"
        f'<div class="uri" title="{escaped(uri)}">{escaped(_end_of(uri))}</div></figure>'
    )


def _mistakes(evaluation: Mapping[str, Any], thumbnail: Thumbnail) -> str:
    shown = evaluation["mistakes"][:_MAX_MISTAKES_SHOWN]
    if not shown:
        return "<p>There are no mistakes.</p>"
    words = '<p class="soft">If the model is sure and wrong, check the label too: it may be a label error.</p>'
    return words + f'<div class="photos">{"".join(_mistake(mistake, thumbnail) for mistake in shown)}</div>'


def evaluation_sections(
    name: str, evaluation: Mapping[str, Any], counts: ThresholdCounts | None, thumbnail: Thumbnail
) -> str:
    """The sections about one data set ("eval" or "test"), from its numbers, its curves (may be None) and its photos."""
    where = SET_NAMES[name]
    curves = _pr_curves(evaluation, counts) if counts is not None else ""
    return (
        section(f"Classes, on the {where}", _per_class(evaluation))
        + section(f"Confusions, on the {where}", _confusions(evaluation))
        + section(
            f"Scores, on the {where}",
            f'<div class="pair"><div><h3>Calibration</h3>{_calibration(evaluation)}</div>{curves}</div>',
        )
        + section(f"Surest mistakes, on the {where}", _mistakes(evaluation, thumbnail))
    )
