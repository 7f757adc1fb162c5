"""Measures the exported model itself on photos of the held-out sets.

All other numbers come from the embeddings in the records. A record may have been computed by another library or in a
lower precision than the exported model uses, and its photo may have been decoded by another decoder. So this runs the
model on the photos, where they can be read, and compares its answers with those that the records give.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from configs.activity import Activity, doing
from preprocess.images.decode import IMAGE_SIZE, ImageError, encode_png
from trainer.data.dataset import EmbeddingDataset
from trainer.data.photos import PhotoFinder, decode_photo
from trainer.evaluation.assess import Calibration, LogitsOf, logits_of_some
from trainer.evaluation.metrics import predicted_labels, right_predictions, wilson_interval
from trainer.evaluation.scores import scores_of
from trainer.export.classifier import BATCH_SIZE, Classifier

# For all sets of a run together. The time for loading the model comes on top.
LIMIT_SEC = 60.0


@dataclasses.dataclass
class _Outcomes:
    """What became of the photos of one set.

    Attributes:
      rows: the examples that the model answered.
      scores: its scores for them, float32 [num_labels] each.
      not_found: photos that cannot be read here, or whose file is not the one that was embedded.
      not_decoded: photos that cannot be decoded here.
      sent_as_png: photos of a format that TensorFlow cannot decode. The model got their pixels.
      ran_out_of_time: whether the time limit came first.
    """

    rows: list[int] = dataclasses.field(default_factory=list)
    scores: list[np.ndarray] = dataclasses.field(default_factory=list)
    not_found: int = 0
    not_decoded: int = 0
    sent_as_png: int = 0
    ran_out_of_time: bool = False


def chosen_rows(num_examples: int, at_most: int) -> np.ndarray:
    """Examples at even distances, int64 [min(num_examples, at_most)], each once.

    The order is random but always the same, so that the first of them are spread over the whole set too.
    """
    count = min(num_examples, at_most)
    rows = np.arange(count, dtype=np.int64) * num_examples // max(count, 1)
    return np.random.default_rng(0).permutation(rows)


def check_on_photos(
    load: Callable[[], Classifier],
    data: Mapping[str, EmbeddingDataset],
    photos: Mapping[str, PhotoFinder],
    *,
    logits_of: LogitsOf,
    calibration: Calibration,
    at_most: int,
    size: int = IMAGE_SIZE,
    limit_sec: float = LIMIT_SEC,
) -> dict[str, dict[str, Any]]:
    """Runs an exported model on photos of some data sets and compares it with the records.

    Args:
      load: loads the model. It is called once at most, when the first photo was found.
      data: the data sets by name.
      photos: finds the photos of each of them.
      logits_of: the head of the model.
      calibration: of the model.
      at_most: the number of photos of each set; 0 for none.
      size: the side of the square that the model's backbone takes.
      limit_sec: after this time no further photo is begun.

    Returns:
      For each data set, JSON: `photos`: how many the model answered; `of`: how many examples there are; `chosen`: how
      many photos were looked for, at even distances; `not_found`, `not_decoded`, `sent_as_png` and `ran_out_of_time` as
      in `_Outcomes`. If there are photos, also `different_answers`: how many answers differ from those that the
      records give; `largest_score_difference`; `accuracy` of the model with `accuracy_interval`, and
      `accuracy_of_records`, on the same photos. If there are none, `why_not`.
    """
    chosen = {name: chosen_rows(len(dataset), at_most) for name, dataset in data.items()}
    found: dict[str, _Outcomes] = {}
    classifier: list[Classifier] = []
    clock = _Clock(limit_sec)

    def predict(images: list[bytes]) -> list[Any]:
        if not classifier:
            with clock.stopped(), doing("loading the exported model"):
                classifier.append(load())
        return classifier[0].predict(images)

    total = sum(map(len, chosen.values()))
    with doing("running the model on photos", total=total, unit="photo") as progress:
        for name, dataset in data.items():
            found[name] = _run(predict, dataset, chosen[name], photos[name], size, clock, progress)
    return {
        name: _compared(found[name], data[name], len(chosen[name]), logits_of, calibration, at_most=at_most)
        for name in data
    }


class _Clock:
    """Seconds since the beginning, without those in which it was stopped."""

    def __init__(self, limit_sec: float):
        self._end = time.monotonic() + limit_sec

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._end

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._end += time.monotonic() - started


def _run(
    predict: Callable[[list[bytes]], list[Any]],
    dataset: EmbeddingDataset,
    rows: np.ndarray,
    photos: PhotoFinder,
    size: int,
    clock: _Clock,
    progress: Activity,
) -> _Outcomes:
    outcomes = _Outcomes()
    for start in range(0, len(rows), BATCH_SIZE):
        if clock.is_over:
            outcomes.ran_out_of_time = True
            break
        batch = rows[start : start + BATCH_SIZE].tolist()
        _run_batch(predict, dataset, batch, photos, size, outcomes)
        progress.advance(len(batch))
    return outcomes


def _run_batch(
    predict: Callable[[list[bytes]], list[Any]],
    dataset: EmbeddingDataset,
    rows: list[int],
    photos: PhotoFinder,
    size: int,
    outcomes: _Outcomes,
) -> None:
    images: list[tuple[int, bytes, np.ndarray]] = []
    for row in rows:
        photo = photos.read(dataset.uris[row], dataset.image_digest_of(row))
        if photo is None:
            outcomes.not_found += 1
            continue
        try:
            # In another process: a photo that crashes a decoder must not end the training.
            images.append((row, photo[1], decode_photo(photo[1], size=size)))
        except ImageError:
            outcomes.not_decoded += 1
    if not images:
        return
    answers = predict([data for _, data, _ in images])
    refused = [number for number, answer in enumerate(answers) if answer.error]
    outcomes.sent_as_png += len(refused)
    again = predict([encode_png(images[number][2]) for number in refused]) if refused else []
    for number, answer in zip(refused, again, strict=True):
        answers[number] = answer
    for (row, _, _), answer in zip(images, answers, strict=True):
        outcomes.rows.append(row)
        outcomes.scores.append(answer.scores)


def _compared(
    outcomes: _Outcomes,
    dataset: EmbeddingDataset,
    chosen: int,
    logits_of: LogitsOf,
    calibration: Calibration,
    *,
    at_most: int,
) -> dict[str, Any]:
    count = len(outcomes.rows)
    counts = {
        "photos": count,
        "of": len(dataset),
        "chosen": chosen,
        "not_found": outcomes.not_found,
        "not_decoded": outcomes.not_decoded,
        "sent_as_png": outcomes.sent_as_png,
        "ran_out_of_time": outcomes.ran_out_of_time,
    }
    if not count:
        return {**counts, "why_not": _why_not(outcomes, at_most=at_most)}
    order = np.argsort(outcomes.rows)
    rows = np.array(outcomes.rows, np.int64)[order]
    scores = np.stack(outcomes.scores)[order]
    expected = _scores_of_records(logits_of, dataset, rows, calibration)
    mode = dataset.label_mode
    labels = dataset.targets(rows) > 0
    answers, of_records = predicted_labels(scores, mode), predicted_labels(expected, mode)
    right = int(right_predictions(answers, labels, mode).sum())
    return {
        **counts,
        "different_answers": int((answers != of_records).any(axis=1).sum()),
        # A score that is not a number differs as much as possible.
        "largest_score_difference": float(np.nan_to_num(np.abs(scores - expected), nan=1.0).max()),
        "accuracy": right / count,
        "accuracy_interval": list(wilson_interval(right, count)),
        "accuracy_of_records": int(right_predictions(of_records, labels, mode).sum()) / count,
    }


def _why_not(outcomes: _Outcomes, *, at_most: int) -> str:
    if not at_most:
        return "--check_photos is 0"
    if outcomes.ran_out_of_time:
        return f"no photo could be read within {LIMIT_SEC:g} s"
    return "the photos of the records cannot be read here"


def _scores_of_records(
    logits_of: LogitsOf, dataset: EmbeddingDataset, rows: np.ndarray, calibration: Calibration
) -> np.ndarray:
    """The scores that the embeddings in the records give for some examples, in ascending order of their rows."""
    chosen = np.zeros(len(dataset), bool)
    chosen[rows] = True
    logits = np.concatenate([*logits_of_some(logits_of, dataset, chosen)])
    return scores_of(logits, dataset.label_mode, temperature=calibration.temperature)
