"""How much more labels would bring: a learning curve, measured on parts of the labelled photos and continued.

The error of a classifier falls like a power of the number of examples, error = a + b n^-c (Hestness et al., "Deep
learning scaling is predictable, empirically", 2017).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from configs.activity import doing
from insight.label_errors.regression import fit_regression, logits_of
from insight.selection.choose import L2

_SHARES = (0.2, 0.35, 0.5, 0.7, 0.85, 1.0)
_REPEATS = 10
_HELD_OUT = 0.25
_POWERS = (0.25, 0.5, 0.75, 1.0)
_MIN_PHOTOS = 20
_RESAMPLES = 400
# More labelled photos than this are sampled: the curve is flat by then.
_MAX_PHOTOS = 5000


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExpectedGain:
    """What further labels would bring.

    Attributes:
      accuracy: of a head that is trained on the labelled photos, on labelled photos that it did not see.
      accuracy_interval: the 90 % interval of it.
      expected: the accuracy with the further labels.
      expected_interval: the 90 % interval of it.
      gain_interval: the 90 % interval of the difference.
    """

    accuracy: float
    accuracy_interval: tuple[float, float]
    expected: float
    expected_interval: tuple[float, float]
    gain_interval: tuple[float, float]


def expected_gain(
    features: np.ndarray, label_ids: np.ndarray, further: int, *, num_labels: int, seed: int = 0
) -> ExpectedGain | None:
    """Measures and continues the learning curve of some labelled photos.

    The further labels are taken for a random choice. Chosen well, they bring more.

    Args:
      features: shape [m, axes]: of the labelled photos, from `principal_features`.
      label_ids: int64, shape [m].
      further: how many labels would be added.
      num_labels: the number of classes.
      seed: of the random parts.

    Returns:
      None if there are fewer than 20 labelled photos or only one class.
    """
    if len(label_ids) < _MIN_PHOTOS or len(np.unique(label_ids)) < 2:
        return None
    random = np.random.default_rng(seed)
    real_count = len(label_ids)
    if real_count > _MAX_PHOTOS:
        rows = random.permutation(real_count)[:_MAX_PHOTOS]
        features, label_ids = features[rows], label_ids[rows]
    targets = np.eye(num_labels)[label_ids]
    taught = len(label_ids) - round(_HELD_OUT * len(label_ids))
    sizes = np.array([max(4, round(share * taught)) for share in _SHARES])
    errors = np.empty((_REPEATS, len(sizes)))
    with doing("measuring the learning curve", total=errors.size, unit="training") as progress:
        for repeat in range(_REPEATS):
            order = random.permutation(len(label_ids))
            test = order[taught:]
            weights = None
            for place, size in enumerate(sizes):
                weights = fit_regression(features[order[:size]], targets[order[:size]], l2=L2, start=weights)
                answers = logits_of(features[test], weights).argmax(axis=1)
                errors[repeat, place] = np.mean(answers != label_ids[test])
                progress.advance()
    now, then = [], []
    for resample in range(_RESAMPLES + 1):
        # The first one is the curve itself. Each repeat tests on other photos, so the repeats are what varies.
        chosen = np.arange(_REPEATS) if resample == 0 else random.integers(_REPEATS, size=_REPEATS)
        here, there = _continued(sizes, errors[chosen].mean(axis=0), (real_count, real_count + further))
        now.append(1 - here)
        then.append(1 - there)
    gains = np.array(then) - np.array(now)
    # The photos that a head is tested on are a sample too.
    spread = 1.645 * np.sqrt(max(now[0] * (1 - now[0]), 1e-4) / min(real_count, _MAX_PHOTOS))
    return ExpectedGain(
        accuracy=now[0],
        accuracy_interval=_interval(np.array(now[1:]), spread),
        expected=then[0],
        expected_interval=_interval(np.array(then[1:]), spread),
        gain_interval=(max(0.0, float(np.quantile(gains[1:], 0.05))), float(np.quantile(gains[1:], 0.95))),
    )


def _interval(values: np.ndarray, spread: float) -> tuple[float, float]:
    """The 90 % interval of resamples, widened by an independent spread (half of a 90 % interval)."""
    middle = float(np.median(values))
    low = np.hypot(middle - float(np.quantile(values, 0.05)), spread)
    high = np.hypot(float(np.quantile(values, 0.95)) - middle, spread)
    return max(0.0, middle - float(low)), min(1.0, middle + float(high))


def _continued(sizes: np.ndarray, errors: np.ndarray, at: tuple[int, int]) -> tuple[float, float]:
    """The errors at two sizes of the curve a + b n^-c that fits best, with a and b of at least 0."""
    best: tuple[float, float, float, float] | None = None
    # A large part has been measured more exactly than a small one, and is nearer to what is asked.
    weights = np.sqrt(sizes / sizes[-1])
    for power in _POWERS:
        shrinking = sizes.astype(np.float64) ** -power
        matrix = np.stack([np.ones(len(sizes)), shrinking], axis=1) * weights[:, np.newaxis]
        (floor, slope), *_ = np.linalg.lstsq(matrix, errors * weights, rcond=None)
        if floor < 0:
            floor, slope = 0.0, float((shrinking * errors * weights**2).sum() / (shrinking**2 * weights**2).sum())
        if slope < 0:
            floor, slope = float(np.average(errors, weights=weights**2)), 0.0
        misfit = float((((floor + slope * shrinking - errors) * weights) ** 2).sum())
        if best is None or misfit < best[0]:
            best = (misfit, floor, slope, power)
    assert best is not None
    _, floor, slope, power = best
    first, second = (floor + slope * float(count) ** -power for count in at)
    return first, second
