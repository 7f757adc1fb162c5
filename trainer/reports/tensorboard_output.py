"""The end of a run in TensorBoard: measures, confusion matrix, precision-recall curves, embeddings in space."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tensorboard.plugins import projector

from trainer.data.dataset import EmbeddingDataset
from trainer.evaluation.metrics import Evaluation
from trainer.reports.svg_charts import shortened
from trainer.storage.working_folder import working_folder
from trainer.training.event_log import EventLog

_MAX_PICTURE_CLASSES = 50
_MAX_CURVES = 50
# What the projector still moves about smoothly, and holds in a small file.
_MAX_POINTS = 2000
_MAX_DIMENSIONS = 50
_FONT_PIXELS = 14


def confusion_picture(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> Image.Image:
    """A confusion matrix as a picture: rows are true, columns predicted; shaded by the share of the row."""
    font = ImageFont.load_default(_FONT_PIXELS)
    names = [shortened(label) for label in labels]
    margin = 14 + int(max(font.getlength(name) for name in names))
    size = 44 if len(labels) <= 20 else 28
    side = margin + size * len(labels) + 8
    picture = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(picture)
    for i, name in enumerate(names):
        middle = margin + i * size + size // 2
        draw.text((margin - 6, middle), name, fill="black", font=font, anchor="rm")
        column = Image.new("RGB", (margin - 8, size), "white")
        ImageDraw.Draw(column).text((0, size // 2), name, fill="black", font=font, anchor="lm")
        turned = column.transpose(Image.Transpose.ROTATE_90)
        picture.paste(turned, (margin + i * size, margin - 6 - turned.height))
    for i, row in enumerate(counts):
        total = max(sum(row), 1)
        for j, count in enumerate(row):
            share = count / total
            full = (0, 114, 178) if i == j else (213, 94, 0)
            color = tuple(round(255 + (channel - 255) * share) for channel in full)
            x, y = margin + j * size, margin + i * size
            draw.rectangle((x, y, x + size, y + size), fill=color, outline=(224, 224, 224))
            if count:
                fill = "white" if share > 0.55 else "black"
                draw.text((x + size / 2, y + size / 2), str(count), fill=fill, font=font, anchor="mm")
    return picture


def _tag(label: str) -> str:
    """A label as the end of a tag, in which a slash would begin another group."""
    return re.sub(r"[^\w .()-]", "_", label)


def write_evaluation(log_dir: str, evaluation: Evaluation, *, step: int) -> None:
    """Writes scalars, the confusion matrix and precision-recall curves as one run.

    Args:
      log_dir: the run's own folder; what an earlier run of this program wrote there is replaced.
      evaluation: from `evaluate`.
      step: at which the model was exported.
    """
    numbers = evaluation.numbers
    log = EventLog(log_dir)
    scalars: dict[str, Any] = {
        "accuracy": numbers["accuracy"],
        "loss": numbers["loss"],
        "calibration_error": numbers["calibration"]["error_after"],
        "answered": numbers["answers"]["coverage"],
        **{f"macro_{name}": value for name, value in numbers["macro"].items()},
    }
    log.write(step, **{f"final/{name}": value for name, value in scalars.items() if value is not None})
    matrix = numbers["confusion_matrix"]
    if matrix["counts"] is not None and len(matrix["labels"]) <= _MAX_PICTURE_CLASSES:
        picture = confusion_picture(matrix["labels"], matrix["counts"])
        log.write_image(step, "confusion_matrix", np.asarray(picture))
    labels = [row["label"] for row in numbers["per_class"]][:_MAX_CURVES]
    log.write_pr_curves(
        step, [f"precision_recall/{i} {_tag(label)}" for i, label in enumerate(labels)], evaluation.threshold_counts
    )
    log.close()


def _principal(points: np.ndarray) -> np.ndarray:
    """Points in the directions in which they differ most: float32, shape [n, at most 50]."""
    centred = points.astype(np.float64) - points.mean(axis=0)
    count = min(_MAX_DIMENSIONS, *centred.shape)
    # Subspace iteration: the exact decomposition of 2,000 points takes ten seconds, and three rounds show the same.
    basis = np.random.default_rng(0).normal(size=(centred.shape[1], count))
    for _ in range(3):
        basis = np.linalg.qr(centred.T @ (centred @ basis))[0]
    reduced = centred @ basis
    return (reduced @ np.linalg.eigh(reduced.T @ reduced)[1][:, ::-1]).astype(np.float32)


def _cell(text: str) -> str:
    """Text that ends neither the cell nor the line of a tab-separated file."""
    return " ".join(text.split())


def write_projector(log_dir: str, dataset: EmbeddingDataset, predictions: Sequence[str]) -> None:
    """Writes embeddings with names for TensorBoard's projector, at most 2,000 of them, reduced to 50 dimensions.

    Args:
      log_dir: the run's own folder.
      dataset: with at least one example.
      predictions: the predicted label of each example.
    """
    count = min(len(dataset), _MAX_POINTS)
    rows = np.linspace(0, len(dataset) - 1, count).astype(np.int64)
    points = np.empty((count, dataset.embeddings.shape[1]), np.float32)
    start = 0
    for piece in dataset.embeddings.pieces():
        here = (rows >= start) & (rows < start + len(piece))
        points[here] = piece[rows[here] - start]
        start += len(piece)
    folder = working_folder(log_dir, flag="log_dir")
    with folder.writing():
        os.makedirs(folder.local, exist_ok=True)
        with open(os.path.join(folder.local, "embeddings.tsv"), "w", encoding="utf-8") as stream:
            for point in _principal(points):
                stream.write("\t".join(f"{value:.4g}" for value in point) + "\n")
        with open(os.path.join(folder.local, "names.tsv"), "w", encoding="utf-8") as stream:
            stream.write("label\tprediction\turi\n")
            for row in rows:
                ids = dataset.label_ids[dataset.label_splits[row] : dataset.label_splits[row + 1]]
                label = ", ".join(dataset.labels[i] for i in dict.fromkeys(ids.tolist()))
                cells = (label, predictions[row], str(dataset.uris[row]))
                stream.write("\t".join(_cell(cell) or "?" for cell in cells) + "\n")
        table = projector.EmbeddingInfo(
            tensor_name="embeddings", tensor_path="embeddings.tsv", metadata_path="names.tsv"
        )
        projector.visualize_embeddings(folder.local, projector.ProjectorConfig(embeddings=[table]))
    folder.send()
