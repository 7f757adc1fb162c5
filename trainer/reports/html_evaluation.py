"""What the HTML report shows of one data set: charts, the classes of the table, the photos of the mistakes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from trainer.evaluation.ranking import NUM_THRESHOLDS, ThresholdCounts
from trainer.reports.svg_charts import Line, heatmap, line_chart, reliability_chart

THUMBNAIL_SIDE = 150
_MAX_MISTAKES_SHOWN = 24
_MAX_PICTURE_CLASSES = 30
_MAX_TABLE_CLASSES = 60
_MAX_CURVES = 10
SET_NAMES = {"eval": "evaluation set", "test": "test set"}

# A function that gives the photo of a URI as a `data:` URI, or None if the photo cannot be read.
Thumbnail = Callable[[str], str | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShownEvaluation:
    """What the templates need beside the numbers of an evaluation.

    Attributes:
      classes: the rows of the table of classes, entries of `per_class`.
      is_part: whether these are not all classes.
      max_classes: how many classes the table shows at most.
      matrix: the confusion matrix as a chart; None if there are too many classes.
      reliability: the calibration as a chart.
      curves: precision against recall as a chart; None if it was not measured.
      mistakes: entries of `mistakes`, each with its `picture`: a `data:` URI or None.
    """

    classes: Sequence[Mapping[str, Any]]
    is_part: bool
    max_classes: int
    matrix: Markup | None
    reliability: Markup
    curves: Markup | None
    mistakes: Sequence[Mapping[str, Any]]


def _bins(bins: Sequence[Mapping[str, Any]]) -> list[tuple[float, float, int]]:
    return [(item["mean_score"], item["accuracy"], item["count"]) for item in bins]


def _pr_curves(evaluation: Mapping[str, Any], counts: ThresholdCounts) -> Markup | None:
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
        return None
    return line_chart(
        lines, title="precision and recall", x_name="recall", y_name="precision", x_range=(0, 1), y_range=(0, 1.02)
    )


def shown_evaluation(
    evaluation: Mapping[str, Any], counts: ThresholdCounts | None, thumbnail: Thumbnail
) -> ShownEvaluation:
    """Prepares one data set for the templates, from its numbers, its curves (may be None) and its photos."""
    rows = evaluation["per_class"]
    is_part = len(rows) > _MAX_TABLE_CLASSES
    if is_part:
        measured = sorted((row for row in rows if row["f1"] is not None), key=lambda row: row["f1"])
        rows = measured[:_MAX_TABLE_CLASSES]
    matrix, calibration = evaluation["confusion_matrix"], evaluation["calibration"]
    drawn = matrix["counts"] is not None and len(matrix["labels"]) <= _MAX_PICTURE_CLASSES
    bins = [("before", _bins(calibration["bins_before"])), ("after", _bins(calibration["bins_after"]))]
    return ShownEvaluation(
        classes=rows,
        is_part=is_part,
        max_classes=_MAX_TABLE_CLASSES,
        matrix=heatmap(matrix["labels"], matrix["counts"]) if drawn else None,
        reliability=reliability_chart(bins),
        curves=None if counts is None else _pr_curves(evaluation, counts),
        mistakes=[
            {**mistake, "picture": thumbnail(mistake["uri"])}
            for mistake in evaluation["mistakes"][:_MAX_MISTAKES_SHOWN]
        ],
    )
