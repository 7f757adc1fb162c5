"""The table of answers: a row for each image, as CSV, JSON lines or Parquet. The same answers give the same bytes."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, Protocol

import numpy as np

from configs.choices import AnswerFormat
from configs.csv_text import LABEL_SEPARATOR

MULTI_LABEL_CUT = np.float32(0.5)
"""If images may have several labels, those with at least this score are the answer."""

_DECIMALS = 6
# With more classes than this, the best few are found without sorting all.
_SORTED_CLASSES = 32
_ROWS_PER_GROUP = 65_536


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answers:
    """The answers for some images, by column.

    Attributes:
      uris: the URIs of the images, as they stand in the list.
      labels: the label of each image; if images may have several, their names in one text, or nothing.
      scores: float64 [n]: the best score, with six decimals.
      confident: bool [n]: whether it reaches the threshold.
      top_ids: int64 [n, k]: the best classes, the best first; of equal scores the smaller id.
      top_scores: float64 [n, k], with six decimals.
      given: the labels that the list gives the image.
      correct: whether they are the answer; None for an image without a label that is one of the classes.
    """

    uris: Sequence[str]
    labels: Sequence[str]
    scores: np.ndarray
    confident: np.ndarray
    top_ids: np.ndarray
    top_scores: np.ndarray
    given: Sequence[tuple[str, ...]]
    correct: Sequence[bool | None]

    def __len__(self) -> int:
        return len(self.uris)


def best_classes(scores: np.ndarray, k: int) -> np.ndarray:
    """The `k` best classes of each row, best first: int64 [n, k], for scores [n, num_classes], k <= num_classes."""
    if scores.shape[1] <= _SORTED_CLASSES or k >= scores.shape[1]:
        return np.argsort(-scores, axis=1, kind="stable")[:, :k]
    ids = np.sort(np.argpartition(-scores, k - 1, axis=1)[:, :k], axis=1)
    order = np.argsort(-np.take_along_axis(scores, ids, axis=1), axis=1, kind="stable")
    return np.take_along_axis(ids, order, axis=1)


def make_answers(
    uris: Sequence[str],
    scores: np.ndarray,
    given: Sequence[tuple[str, ...]],
    *,
    names: Sequence[str],
    top_k: int,
    threshold: float,
    several_labels: bool,
) -> Answers:
    """Answers from scores.

    Args:
      uris: of n images.
      scores: float32 [n, num_classes].
      given: the labels that each image has already; may be empty.
      names: of the classes.
      top_k: at most as many as there are classes.
      threshold: an answer is confident if its best score is at least this.
      several_labels: whether an image may have several labels.
    """
    top = best_classes(scores, top_k)
    top_scores = np.take_along_axis(scores, top, axis=1)
    best = top_scores[:, 0]
    # Labels that are no classes say nothing about the answer.
    classes = frozenset(names)
    known = {labels: not classes.isdisjoint(labels) for labels in set(given)}

    answered: list[tuple[str, ...]]
    if several_labels:
        answered = [tuple(names[i] for i in np.flatnonzero(row).tolist()) for row in scores >= MULTI_LABEL_CUT]
        labels = [LABEL_SEPARATOR.join(found) for found in answered]
        correct = [set(found) == set(of) if known[of] else None for found, of in zip(answered, given, strict=True)]
    else:
        labels = [names[i] for i in top[:, 0].tolist()]
        correct = [label in of if known[of] else None for label, of in zip(labels, given, strict=True)]
    return Answers(
        uris=uris,
        labels=labels,
        scores=np.round(best.astype(np.float64), _DECIMALS),
        confident=best >= np.float32(threshold),
        top_ids=top,
        top_scores=np.round(top_scores.astype(np.float64), _DECIMALS),
        given=given,
        correct=correct,
    )


class AnswerWriter(Protocol):
    """Writes answers to a stream."""

    def write(self, answers: Answers) -> None:
        """Adds rows."""
        ...

    def close(self) -> None:
        """Writes what is left. It does not close the stream."""
        ...


def open_writer(stream: BinaryIO, kind: AnswerFormat, *, names: Sequence[str], top_k: int) -> AnswerWriter:
    """The writer of a format.

    Args:
      stream: to write to.
      kind: the format.
      names: of the classes.
      top_k: classes of each row.
    """
    makers: dict[AnswerFormat, Callable[[BinaryIO, Sequence[str], int], AnswerWriter]]
    makers = {"csv": _CsvWriter, "jsonl": _JsonLinesWriter, "parquet": _ParquetWriter}
    return makers[kind](stream, names, top_k)


_QUOTED = '",\r\n'
_NEEDS_QUOTES = re.compile(f"[{_QUOTED}]").search


def _cell(text: str) -> str:
    """A text as a cell of CSV (RFC 4180)."""
    return text if _NEEDS_QUOTES(text) is None else '"' + text.replace('"', '""') + '"'


def _cells(texts: Sequence[str]) -> Sequence[str]:
    """Many texts as cells. Looking for each character in all of them takes less time than for all of them in each."""
    together = "".join(texts)
    return [_cell(text) for text in texts] if any(map(together.__contains__, _QUOTED)) else texts


def _score_texts(scores: np.ndarray) -> list[str]:
    """Scores, float64 [n] with six decimals, as texts with six decimals.

    NumPy makes all digits at once, which takes a quarter of the time of formatting one score after the other.
    """
    if not ((scores >= 0) & (scores <= 1)).all():  # What a network gives of itself can be any number.
        return [f"{score:.{_DECIMALS}f}" for score in (scores + 0.0).tolist()]  # No -0.
    texts = np.full((len(scores), _DECIMALS + 2), ord("0"), np.uint32)
    texts[:, 1] = ord(".")
    left = np.rint(scores * 10**_DECIMALS).astype(np.uint32)
    for place in (*range(_DECIMALS + 1, 1, -1), 0):
        left, digit = np.divmod(left, np.uint32(10))
        texts[:, place] += digit
    return texts.view(f"U{_DECIMALS + 2}")[:, 0].tolist()


class _CsvWriter:
    """One line for each image, which ends with only a line feed.

    Columns: image_uri, label, score, confident (0 or 1); label_1, score_1 ... of the best classes, if more than one
    is wanted; given_label and correct (0, 1, or nothing for an image without a label).

    `csv.writer` takes eight times as long, mostly for the numbers.
    """

    def __init__(self, stream: BinaryIO, names: Sequence[str], top_k: int):
        self._stream = stream
        self._names = [_cell(name) for name in names]
        self._cells = dict(zip(names, self._names, strict=True))
        self._top_k = top_k if top_k > 1 else 0
        header = ["image_uri", "label", "score", "confident"]
        header += [f"{what}_{rank}" for rank in range(1, self._top_k + 1) for what in ("label", "score")]
        stream.write(f"{','.join([*header, 'given_label', 'correct'])}\n".encode())

    def write(self, answers: Answers) -> None:
        names, cells = self._names, self._cells
        columns: list[Sequence[str]] = [
            _cells(answers.uris),
            [cells[label] if label in cells else _cell(label) for label in answers.labels],
            _score_texts(answers.scores),
            ["01"[confident] for confident in answers.confident.tolist()],
        ]
        for rank in range(self._top_k):
            columns.append([names[i] for i in answers.top_ids[:, rank].tolist()])
            columns.append(_score_texts(answers.top_scores[:, rank]))
        given = {labels: _cell(LABEL_SEPARATOR.join(labels)) for labels in set(answers.given)}
        columns.append([given[labels] for labels in answers.given])
        columns.append(["" if correct is None else "01"[correct] for correct in answers.correct])
        lines = [*map(",".join, zip(*columns, strict=True)), ""]
        self._stream.write("\n".join(lines).encode())

    def close(self) -> None:
        pass


class _JsonLinesWriter:
    """One object on each line: image_uri, label, score, confident, predictions, given_labels, correct."""

    def __init__(self, stream: BinaryIO, names: Sequence[str], top_k: int):
        self._stream = stream
        self._names = names
        self._encode = functools.partial(json.dumps, ensure_ascii=False)

    def write(self, answers: Answers) -> None:
        lines = io.StringIO()
        for row, uri in enumerate(answers.uris):
            best = zip(answers.top_ids[row].tolist(), answers.top_scores[row].tolist(), strict=True)
            entry = {
                "image_uri": uri,
                "label": answers.labels[row],
                "score": float(answers.scores[row]),
                "confident": bool(answers.confident[row]),
                "predictions": [{"label": self._names[i], "score": score, "id": i} for i, score in best],
                "given_labels": answers.given[row],
                "correct": answers.correct[row],
            }
            lines.write(f"{self._encode(entry)}\n")
        self._stream.write(lines.getvalue().encode())

    def close(self) -> None:
        pass


class _ParquetWriter:
    """The columns are the fields of the JSON lines."""

    def __init__(self, stream: BinaryIO, names: Sequence[str], top_k: int):
        import pyarrow as pa  # here: it comes with Beam, and who writes CSV needs none of it
        import pyarrow.parquet as pq

        self._pa = pa
        self._names = pa.array(names, pa.string())
        self._top_k = top_k
        prediction = pa.struct([("label", pa.string()), ("score", pa.float64()), ("id", pa.int64())])
        self._schema = pa.schema(
            [
                ("image_uri", pa.string()),
                ("label", pa.string()),
                ("score", pa.float64()),
                ("confident", pa.bool_()),
                ("predictions", pa.list_(prediction)),
                ("given_labels", pa.list_(pa.string())),
                ("correct", pa.bool_()),
            ]
        )
        self._writer = pq.ParquetWriter(stream, self._schema)
        self._waiting: list[Any] = []
        self._rows_waiting = 0

    def write(self, answers: Answers) -> None:
        pa = self._pa
        ids = pa.array(answers.top_ids.reshape(-1))
        predictions = pa.StructArray.from_arrays(
            [self._names.take(ids), pa.array(answers.top_scores.reshape(-1)), ids],
            fields=list(self._schema.field("predictions").type.value_type),
        )
        offsets = pa.array(np.arange(len(answers) + 1, dtype=np.int32) * self._top_k)
        columns = [
            pa.array(answers.uris, pa.string()),
            pa.array(answers.labels, pa.string()),
            pa.array(answers.scores),
            pa.array(answers.confident),
            pa.ListArray.from_arrays(offsets, predictions),
            pa.array([list(labels) for labels in answers.given], pa.list_(pa.string())),
            pa.array(answers.correct, pa.bool_()),
        ]
        self._waiting.append(pa.RecordBatch.from_arrays(columns, schema=self._schema))
        self._rows_waiting += len(answers)
        if self._rows_waiting >= _ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(self._pa.Table.from_batches(self._waiting, self._schema))
            self._waiting, self._rows_waiting = [], 0

    def close(self) -> None:
        self._flush()
        self._writer.close()
