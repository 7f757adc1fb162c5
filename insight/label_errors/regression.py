"""Multinomial logistic regression by L-BFGS, in NumPy: a head that is quick to train and has one best solution."""

from __future__ import annotations

from collections import deque

import numpy as np

_MEMORY = 10  # pairs of steps and changes of the gradient that L-BFGS keeps
_MAX_ITERATIONS = 200
# Training ends when an iteration lowers the loss by less than this share: the ranking does not change any more.
_TOLERANCE = 1e-4


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """The logarithms of the scores of a softmax. `logits`: float, shape [n, classes]."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def fit_regression(
    features: np.ndarray, targets: np.ndarray, *, l2: float, start: np.ndarray | None = None
) -> np.ndarray:
    """The weights with the lowest mean cross-entropy plus `l2` / 2 times the squared weights; the bias is free.

    L-BFGS with backtracking: Nocedal and Wright, Numerical Optimization (2006), algorithms 7.4 and 3.1.

    Args:
      features: float, shape [n, size].
      targets: float, shape [n, classes]: each row adds up to 1.
      l2: the penalty, above 0.
      start: weights to begin with; None for zeros.

    Returns:
      float64, shape [size + 1, classes]; the last row is the bias.
    """
    shape = (features.shape[1] + 1, targets.shape[1])
    position = np.zeros(shape) if start is None else start.copy()
    loss, gradient = _loss_and_gradient(features, targets, position, l2)
    steps: deque[np.ndarray] = deque(maxlen=_MEMORY)
    changes: deque[np.ndarray] = deque(maxlen=_MEMORY)
    for _ in range(_MAX_ITERATIONS):
        direction = _direction(gradient, steps, changes)
        slope = float((gradient * direction).sum())
        length = 1.0
        while True:
            moved = position - length * direction
            new_loss, new_gradient = _loss_and_gradient(features, targets, moved, l2)
            if new_loss <= loss - 1e-4 * length * slope or length < 1e-10:
                break
            length /= 2
        if new_loss > loss:
            break
        step, change = moved - position, new_gradient - gradient
        if (step * change).sum() > 1e-14:
            steps.append(step)
            changes.append(change)
        gained = loss - new_loss
        position, loss, gradient = moved, new_loss, new_gradient
        if gained < _TOLERANCE * max(loss, 1e-3):
            break
    return position


def logits_of(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float64, shape [n, classes]: of `fit_regression`'s weights."""
    return (features @ weights[:-1].astype(features.dtype)).astype(np.float64) + weights[-1]


def _loss_and_gradient(
    features: np.ndarray, targets: np.ndarray, weights: np.ndarray, l2: float
) -> tuple[float, np.ndarray]:
    logs = log_softmax(logits_of(features, weights))
    loss = -float((targets * logs).sum()) / len(features) + l2 / 2 * float((weights[:-1] ** 2).sum())
    errors = (np.exp(logs) - targets) / len(features)
    gradient = np.empty_like(weights)
    gradient[:-1] = features.T @ errors.astype(features.dtype)
    gradient[:-1] += l2 * weights[:-1]
    gradient[-1] = errors.sum(axis=0)
    return loss, gradient


def _direction(gradient: np.ndarray, steps: deque[np.ndarray], changes: deque[np.ndarray]) -> np.ndarray:
    direction = gradient.copy()
    if not steps:
        return direction / max(1.0, float(np.abs(gradient).sum()))
    factors = []
    for step, change in zip(reversed(steps), reversed(changes), strict=True):
        factor = (step * direction).sum() / (change * step).sum()
        factors.append(factor)
        direction -= factor * change
    direction *= (steps[-1] * changes[-1]).sum() / (changes[-1] ** 2).sum()
    for step, change, factor in zip(steps, changes, reversed(factors), strict=True):
        direction += (factor - (change * direction).sum() / (change * step).sum()) * step
    return direction
