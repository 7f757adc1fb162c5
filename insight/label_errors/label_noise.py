"""How often a class is given another class's label, and what that says of each label.

Northcutt et al., Confident Learning (2021), estimate the joint distribution of given and true labels from scores of
heads that did not see the record. This module fits the same quantity by expectation maximization, as Dawid and Skene
(1979) do for one observer, with a prior that all mistakes are equally frequent: with a few mistakes a class, counts
alone mislead.
"""

from __future__ import annotations

import numpy as np

from insight.label_errors.row_blocks import row_blocks

# The prior weighs as much as this many records of each class. Chosen with benchmarks.audit on other seeds.
_PRIOR_RECORDS = 50.0
_ITERATIONS = 20
_FIRST_SHARE = 0.05


def true_label_scores(logs: np.ndarray, given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The probability of each label to be the true one, from the scores and the label that was given.

    Args:
      logs: float, shape [n, classes]: logarithms of scores that do not know the record's own label.
      given: float, shape [n, classes]: the labels of each record in equal parts; each row adds up to 1.

    Returns:
      The probabilities, shape [n, classes], of the type of `logs`; and the share of the records of each true class that
      have each label, float64 [true class, label], whose rows add up to 1.
    """
    classes = logs.shape[1]
    if classes == 1:
        return np.ones_like(logs), np.ones((1, 1))
    shares = np.full((classes, classes), _FIRST_SHARE / (classes - 1))
    np.fill_diagonal(shares, 1 - _FIRST_SHARE)
    for _ in range(_ITERATIONS):
        counts = np.zeros((classes, classes))
        for block in row_blocks(len(logs)):
            counts += _posterior(logs[block], given[block], shares).T @ given[block]
        wrong = 1 - np.trace(counts) / counts.sum()
        prior = np.full((classes, classes), wrong / (classes - 1))
        np.fill_diagonal(prior, 1 - wrong)
        counts += _PRIOR_RECORDS * prior
        shares = counts / counts.sum(axis=1, keepdims=True)
    posterior = np.empty_like(logs)
    for block in row_blocks(len(logs)):
        posterior[block] = _posterior(logs[block], given[block], shares)
    return posterior, shares


def _posterior(logs: np.ndarray, given: np.ndarray, shares: np.ndarray) -> np.ndarray:
    joint = np.exp(logs, dtype=np.float64) * (given @ shares.T)
    return joint / np.maximum(joint.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
