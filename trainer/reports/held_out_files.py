"""Writes the files about a model's predictions on its held-out sets: predictions.csv and report.html."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from trainer.data.dataset import EmbeddingDataset
from trainer.data.photos import PhotoFinder
from trainer.evaluation.assess import Calibration, LogitsOf, logits_in_pieces
from trainer.evaluation.metrics import Evaluation
from trainer.reports.html_evaluation import THUMBNAIL_SIDE
from trainer.reports.html_report import html_report
from trainer.reports.predictions_csv import PredictionsWriter

# Twice the size on the page, for high-resolution screens.
_THUMBNAIL_PIXELS = 2 * THUMBNAIL_SIDE


def write_predictions(
    path: str,
    logits_of: LogitsOf,
    data: Mapping[str, EmbeddingDataset],
    calibration: Calibration,
    photos: Mapping[str, PhotoFinder],
) -> None:
    """Writes predictions.csv for some data sets; each is read once. See `PredictionsWriter`.

    `photos` finds the photos of each data set.
    """
    labels = next(iter(data.values())).labels
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = PredictionsWriter(stream, labels, temperature=calibration.temperature, threshold=calibration.threshold)
        for name, dataset in data.items():
            logits = logits_in_pieces(logits_of, dataset)
            writer.write(name, logits, dataset, location=photos[name].location)


def write_report(
    path: str, metrics: Mapping[str, Any], evaluations: Mapping[str, Evaluation], photos: PhotoFinder
) -> None:
    """Writes report.html; see `html_report`."""
    page = html_report(
        metrics,
        curves={name: evaluation.threshold_counts for name, evaluation in evaluations.items()},
        thumbnail=lambda uri, digest: photos.thumbnail(uri, digest, side=_THUMBNAIL_PIXELS),
        created=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
    )
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(page)
