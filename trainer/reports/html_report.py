"""report.html: one file for colleagues. It says how good the model is, on which data, and how it was trained."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from trainer.data.record_origins import engine_words
from trainer.evaluation.ranking import ThresholdCounts
from trainer.reports.correction_words import correction_words
from trainer.reports.html_evaluation import SET_NAMES, Thumbnails, shown_evaluation
from trainer.reports.page_templates import render
from trainer.reports.svg_charts import Line, line_chart, shortened
from trainer.reports.view_words import views_words

# More warnings are folded.
_MAX_WARNINGS = 5


def _training_charts(metrics: Mapping[str, Any]) -> dict[str, Markup]:
    history = metrics["history"]
    steps = [point["step"] for point in history]

    def line(name: str, key: str) -> Line:
        return Line(name=name, xs=steps, ys=[point[key] for point in history])

    return {
        "loss": line_chart(
            [line("training", "train_loss"), line("evaluation", "eval_loss")],
            title="loss during training",
            x_name="step",
            y_name="loss",
        ),
        "accuracy": line_chart(
            [line("evaluation", "eval_accuracy")], title="accuracy during training", x_name="step", y_name="accuracy"
        ),
    }


def _learning_curve(points: list[Mapping[str, Any]]) -> Markup:
    return line_chart(
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


def html_report(
    metrics: Mapping[str, Any], *, curves: Mapping[str, ThresholdCounts], thumbnail: Thumbnails, created: str
) -> str:
    """The report as one page that needs no other file and no network.

    All text from the data (labels, URIs, paths) is escaped.

    Args:
      metrics: as in metrics.json; results that a run did not measure are not shown.
      curves: for "eval" and "test", from their evaluation; missing curves are not drawn.
      thumbnail: gives the thumbnail of a URI.
      created: the time of creation, in words.
    """
    options, model = metrics.get("options", {}), metrics["model"]
    # An existing model is named by its own folder, a new one by the folder that holds the model and this page.
    model_dir = model.get("model_dir") or posixpath.join(options.get("output_path") or "", "model")
    held_out = [name for name in ("test", "eval") if name in metrics]
    charts = _training_charts(metrics) if "history" in metrics else {}
    if "learning_curve" in metrics:
        charts["learning_curve"] = _learning_curve(metrics["learning_curve"]["points"])
    return render(
        "report.html",
        metrics=metrics,
        model_dir=model_dir,
        held_out=held_out,
        set_names=SET_NAMES,
        shown={name: shown_evaluation(metrics[name], curves.get(name), thumbnail) for name in held_out},
        charts=charts,
        checks=metrics.get("exported_model_on_photos", {}),
        records_by={name: engine_words(origins) for name, origins in metrics.get("record_origins", {}).items()},
        model_engine=f"{model['libraries'][0]} in {model['precision']}" if "libraries" in model else "",
        views=views_words(metrics),
        corrections=correction_words(metrics),
        class_names=", ".join(shortened(label, 24) for label in metrics["labels"]),
        max_warnings=_MAX_WARNINGS,
        created=created,
    )
