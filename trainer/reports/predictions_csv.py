"""predictions.csv: the model's predictions for the held-out sets, one example on each line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TextIO

import numpy as np

from configs.csv_text import LABEL_SEPARATOR, csv_writer
from trainer.data.dataset import EmbeddingDataset
from trainer.evaluation.metrics import MULTI_LABEL_CUT
from trainer.evaluation.scores import scores_of

# If there are more classes than this, a line holds only the five best. A thousand classes and a million photos would
# otherwise take ten gigabytes.
MAX_SCORE_COLUMNS = 100
_BEST = 5
_ROWS_AT_A_TIME = 4096


class PredictionsWriter:
    """Writes the table, one set after the other.

    Columns: `set`, `uri`, `label` (of the example), `prediction`, `correct` and `confident` (0 or 1), `score` (of the
    prediction, or of the best label if no label is predicted), then `score_LABEL` for each label. If there are more
    than 100 labels, `label_1`, `score_1` to `label_5`, `score_5` instead. Several labels are separated by " | ". Last
    comes `location`: where the photo lies, since `uri` may be relative to the list that names it; empty if not known.
    """

    def __init__(self, stream: TextIO, labels: tuple[str, ...], *, temperature: float, threshold: float):
        """Writes the first line."""
        self._writer = csv_writer(stream)
        self._labels = labels
        self._temperature = temperature
        self._threshold = threshold
        header = ["set", "uri", "label", "prediction", "correct", "confident", "score"]
        if len(labels) <= MAX_SCORE_COLUMNS:
            header += [f"score_{label}" for label in labels]
        else:
            header += [f"{name}_{rank}" for rank in range(1, _BEST + 1) for name in ("label", "score")]
        header.append("location")
        self._writer.writerow(header)

    def write(
        self, name: str, logits: Iterable[np.ndarray], dataset: EmbeddingDataset, *, location: Callable[[str], str]
    ) -> None:
        """Writes a data set.

        Args:
          name: the name for the first column.
          logits: the logits of all examples in order, in pieces: float32, shapes [m, num_labels].
          dataset: the examples.
          location: gives the location of the photo of a URI; empty if it is not known.
        """
        row = 0
        for piece in logits:
            for start in range(0, len(piece), _ROWS_AT_A_TIME):
                part = piece[start : start + _ROWS_AT_A_TIME]
                self._write_part(name, row, part, dataset, location)
                row += len(part)

    def _write_part(
        self, name: str, row: int, logits: np.ndarray, dataset: EmbeddingDataset, location: Callable[[str], str]
    ) -> None:
        scores = scores_of(logits, dataset.label_mode, temperature=self._temperature)
        ids, splits = dataset.label_ids, dataset.label_splits
        best = scores.argmax(axis=1)
        for i, line in enumerate(scores):
            true = list(dict.fromkeys(ids[splits[row + i] : splits[row + i + 1]].tolist()))
            if dataset.label_mode == "multi":
                given = np.flatnonzero(line >= MULTI_LABEL_CUT).tolist()
                correct = set(given) == set(true)
            else:
                given = [int(best[i])]
                correct = given[0] in true
            self._writer.writerow(
                [
                    name,
                    dataset.uris[row + i],
                    self._names(true),
                    self._names(given),
                    int(correct),
                    int(line[best[i]] >= self._threshold),
                    f"{line[best[i]]:.6g}",
                    *self._score_cells(line),
                    location(dataset.uris[row + i]),
                ]
            )

    def _names(self, ids: Iterable[int]) -> str:
        return LABEL_SEPARATOR.join(self._labels[i] for i in ids)

    def _score_cells(self, line: np.ndarray) -> list[str]:
        if len(line) <= MAX_SCORE_COLUMNS:
            return [f"{score:.6g}" for score in line]
        top = np.argpartition(-line, _BEST)[:_BEST]
        top = top[np.argsort(-line[top], kind="stable")]
        return [cell for i in top for cell in (self._labels[i], f"{line[i]:.6g}")]
