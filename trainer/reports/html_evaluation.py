"""What the HTML report shows of one data set: charts, the classes of the table, the photos of the mistakes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from trainer.data.photos import Thumbnail
from trainer.evaluation.ranking import NUM_THRESHOLDS, ThresholdCounts
from trainer.reports.svg_charts import Line, heatmap, line_chart, reliability_chart

THUMBNAIL_SIDE = 150
_MAX_MISTAKES_SHOWN = 24
_MAX_RIGHT_SHOWN = 6
_MAX_PICTURE_CLASSES = 30
# A table of more classes is folded; the weakest of them stand above it.
_MAX_TABLE_CLASSES = 40
_MAX_WEAKEST = 15
_MAX_CURVES = 10
SET_NAMES = {"eval": "evaluation set", "test": "test set"}

# A function that gives the thumbnail of the photo with a URI and a digest (None if it is not known); None if the photo
# cannot be read.
Thumbnails = Callable[[str, str | None], Thumbnail | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShownEvaluation:
    """What the templates need beside the numbers of an evaluation.

    Attributes:
      classes: the classes with images, entries of `per_class`, by name if there are many.
      weakest: if there are many classes, those with the lowest F1; else empty.
      without_images: the names of the classes without images.
      most_confused: the most frequent confusion, an entry of `top_confusions`; None if there is none.
      matrix: the confusion matrix as a chart; None if there are too many classes.
      reliability: the calibration as a chart.
      curves: precision against recall as a chart; None if it was not measured.
      mistakes: entries of `mistakes`, each with its `thumbnail`, which may be None.
      right_answers: entries of `right_answers`, in the same form.
    """

    classes: Sequence[Mapping[str, Any]]
    weakest: Sequence[Mapping[str, Any]]
    without_images: Sequence[str]
    most_confused: Mapping[str, Any] | None
    matrix: Markup | None
    reliability: Markup
    curves: Markup | None
    mistakes: Sequence[Mapping[str, Any]]
    right_answers: Sequence[Mapping[str, Any]]


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


def _with_thumbnails(answers: Sequence[Mapping[str, Any]], thumbnail: Thumbnails) -> list[Mapping[str, Any]]:
    return [{**answer, "thumbnail": thumbnail(answer["uri"], answer["image_digest"])} for answer in answers]


def shown_evaluation(
    evaluation: Mapping[str, Any], counts: ThresholdCounts | None, thumbnail: Thumbnails
) -> ShownEvaluation:
    """Prepares one data set for the templates, from its numbers, its curves (may be None) and its photos."""
    rows = [row for row in evaluation["per_class"] if row["support"]]
    weakest: list[Mapping[str, Any]] = []
    if len(rows) > _MAX_TABLE_CLASSES:
        weakest = sorted(rows, key=lambda row: (row["f1"], -row["support"]))[:_MAX_WEAKEST]
        rows.sort(key=lambda row: row["label"].casefold())
    matrix, calibration = evaluation["confusion_matrix"], evaluation["calibration"]
    drawn = matrix["counts"] is not None and len(matrix["labels"]) <= _MAX_PICTURE_CLASSES
    bins = [("before", _bins(calibration["bins_before"])), ("after", _bins(calibration["bins_after"]))]
    return ShownEvaluation(
        classes=rows,
        weakest=weakest,
        without_images=[row["label"] for row in evaluation["per_class"] if not row["support"]],
        most_confused=next(iter(evaluation["top_confusions"]), None),
        matrix=heatmap(matrix["labels"], matrix["counts"]) if drawn else None,
        reliability=reliability_chart(bins),
        curves=None if counts is None else _pr_curves(evaluation, counts),
        mistakes=_with_thumbnails(evaluation["mistakes"][:_MAX_MISTAKES_SHOWN], thumbnail),
        right_answers=_with_thumbnails(evaluation["right_answers"][:_MAX_RIGHT_SHOWN], thumbnail),
    )
