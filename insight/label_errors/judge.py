"""Judges the labels of photos: which are probably wrong, and what the photos show instead.

1. Heads (logistic regressions) are trained in cross-validation; a photo, and every photo of its group, is scored by
   heads that did not see it. The scores of several divisions into folds are averaged.
2. From these scores and the labels: how probable each label is to be the true one (`label_noise`). These probabilities
   are the targets of new heads, again in cross-validation. So wrong labels hardly teach the second heads.
3. A kernel regression scores each photo by all others (`kernel_scores`), and learns a second time from such
   probabilities, too. Of more than 3,000 photos it would take too long, and is left out.
4. The nearest photos of other groups vouch for the labels that are probably theirs, by their similarity.
5. Heads, kernel and neighbours together are made as sure as they are right (temperature, through the mistakes that
   `label_noise` estimates), and `label_noise` decides again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from configs.activity import doing
from configs.errors import InputError
from insight.label_errors.features import EXACT_ROWS, MOST_AXES, principal_features
from insight.label_errors.folds import NOT_TESTED, grouped_folds
from insight.label_errors.kernel_scores import KernelScores
from insight.label_errors.label_noise import true_label_scores
from insight.label_errors.regression import fit_regression, log_softmax, logits_of
from insight.label_errors.row_blocks import row_blocks
from insight.neighbours.exact import nearest, unit_vectors

NUM_NEIGHBOURS = 20
_FOLDS = 5
# Penalties that are tried, from simple to flexible, by the loss on the folds that a head did not see.
_PENALTIES = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
_MORE_FLEXIBLE = 0.1
# How fast the voice of a neighbour fades: at a similarity that is lower by this than the nearest one's, to 37 %.
_FADING = 0.1
# What neighbours count beside the heads, whose logarithms of scores count 1. Chosen with benchmarks.audit, other seeds.
_NEIGHBOUR_WEIGHT = 0.4
_TEMPERATURES = np.exp(np.linspace(-1.2, 1.2, 25))
# Above this many photos one division into folds is used: the scores of so many hardly depend on it.
_MANY = 20_000
# A head is trained on at most so many photos, and neighbours are looked for among at most so many.
_MAX_TRAINED_ON, _MAX_CANDIDATES = 50_000, 100_000
# Of more photos, the kernel would take gigabytes and minutes.
_MAX_KERNEL = 3000
# Neighbours of very many photos are looked for by the axes that differ most.
_NEIGHBOUR_AXES = 128


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Judgement:
    """What is known of the labels of n photos.

    Attributes:
      wrong: float64, shape [n]: the probability that no label of the photo is right; NaN where it cannot be judged,
        because its class has no photo of another group.
      order: int64, shape [n]: the photos, those with the highest probability first, those that are not judged last.
      scores: float, shape [n, classes]: the probability of each label to be the true one, the label that was given
        included.
      unseen_scores: float, shape [n, classes]: the same without any knowledge of the label that was given.
      neighbours: int64, shape [n, k]: the nearest photos of other groups, the nearest first; -1 where there are fewer.
      confusions: float64, shape [true class, label]: the estimated share of photos of a class that have each label.
    """

    wrong: np.ndarray
    order: np.ndarray
    scores: np.ndarray
    unseen_scores: np.ndarray
    neighbours: np.ndarray
    confusions: np.ndarray


def judge_labels(
    embeddings: np.ndarray, given: np.ndarray, groups: np.ndarray, *, num_divisions: int = 3, seed: int = 0
) -> Judgement:
    """Judges the labels of photos by their embeddings.

    Up to 20,000 photos are judged in float64 by heads that see all photos of four folds. Of more photos, a head sees a
    sample of 50,000, neighbours are looked for among a sample of 100,000 by their first 128 axes, and scores are
    float32. So time and memory grow with n (`benchmarks.audit_scale`).

    Args:
      embeddings: float32, shape [n, size].
      given: float, shape [n, classes]: the labels of each photo in equal parts; each row adds up to 1.
      groups: int64, shape [n]: the number of the group of each photo. Photos of one group never vouch for each other.
      num_divisions: how many divisions into folds are averaged; 1 above 20,000 photos.
      seed: the same seed gives the same judgement.

    Raises:
      InputError: there are fewer than two classes with photos of two groups, so there is nothing to compare.
    """
    label_ids = given.argmax(axis=1)
    present = np.flatnonzero(given.any(axis=0))
    num_divisions = 1 if len(given) > _MANY else num_divisions
    divisions = [grouped_folds(label_ids, groups, _FOLDS, seed=seed + number) for number in range(2 * num_divisions)]
    judged = divisions[0] != NOT_TESTED
    if len(np.unique(label_ids[judged])) < 2:
        raise InputError(
            "--data_paths: an audit compares classes, and fewer than two classes have photos of two groups. Give "
            "records of two or more classes."
        )
    targets = given if len(present) == given.shape[1] else given[:, present]
    targets = targets.astype(np.float64 if len(given) <= _MANY else np.float32, copy=False)
    features = principal_features(embeddings, seed=seed)
    penalty = _best_penalty(features, targets, divisions[0], seed)
    with doing("scoring photos by heads that did not see them", total=2 * _FOLDS * num_divisions, unit="head") as heads:
        logs = _unseen_logs(features, targets, divisions[:num_divisions], penalty, seed, heads.advance)
        cleaned, _ = true_label_scores(logs, targets)
        # Where no head could judge, the label stands.
        cleaned[~judged] = targets[~judged]
        logs = _unseen_logs(features, cleaned, divisions[num_divisions:], penalty, seed, heads.advance)
    if len(features) <= _MAX_KERNEL:
        logs += _kernel_logs(features, targets, groups, judged)
    neighbours, similarities = _neighbours(features, groups, seed)
    _add_voices(logs, cleaned, neighbours, similarities)
    del cleaned
    factor = _as_sure_as_right(logs, targets, judged, seed)
    for block in row_blocks(len(logs)):
        logs[block] = log_softmax(factor * logs[block])
    scores, confusions = true_label_scores(logs, targets)
    wrong, order = _order(scores, targets, judged)
    classes = given.shape[1]
    all_confusions = np.eye(classes)
    all_confusions[np.ix_(present, present)] = confusions
    return Judgement(
        wrong=wrong,
        order=order,
        scores=_of_all_classes(scores, present, classes),
        unseen_scores=_of_all_classes(np.exp(logs, out=logs), present, classes),
        neighbours=neighbours,
        confusions=all_confusions,
    )


def _kernel_logs(features: np.ndarray, targets: np.ndarray, groups: np.ndarray, judged: np.ndarray) -> np.ndarray:
    with doing("scoring each photo by all others"):
        kernel = KernelScores(features, groups)
        kernel.choose_ridge(targets)
        cleaned, _ = true_label_scores(kernel.unseen_logs(targets), targets)
        cleaned[~judged] = targets[~judged]
        return kernel.unseen_logs(cleaned)


def bytes_needed(count: int, size: int, classes: int) -> int:
    """The memory that `judge_labels` takes at most beside its arguments, for so many photos, numbers and classes."""
    number = 8 if count <= _MANY else 4
    kernel = 5 * 8 * count**2 if count <= _MAX_KERNEL else 0
    # The labels, cleaned labels, logarithms, scores, and one more while a step makes the next; and all features.
    return kernel + count * number * (5 * classes + 2 * min(size, MOST_AXES if count > EXACT_ROWS else count))


def _order(scores: np.ndarray, targets: np.ndarray, judged: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`Judgement.wrong` and `Judgement.order`."""
    own, other = np.empty(len(scores)), np.empty(len(scores))
    for block in row_blocks(len(scores)):
        has = targets[block] > 0
        own[block] = np.where(has, scores[block], 0).sum(axis=1, dtype=np.float64)
        # not 1 - own, which loses the order of the smallest numbers
        other[block] = np.where(has, 0, scores[block]).sum(axis=1, dtype=np.float64)
    wrong = np.where(judged, other / (own + other), np.nan)
    # Of equally probable ones, those whose label has the lower score come first.
    return wrong, np.lexsort((own, -np.where(judged, wrong, -1.0)))


def _of_all_classes(scores: np.ndarray, present: np.ndarray, classes: int) -> np.ndarray:
    if len(present) == classes:
        return scores
    whole = np.zeros((len(scores), classes), scores.dtype)
    whole[:, present] = scores
    return whole


def _trained_on(rows: np.ndarray, seed: int) -> np.ndarray:
    """The rows that a head is trained on: all, or a sample of very many."""
    if len(rows) <= _MAX_TRAINED_ON:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, _MAX_TRAINED_ON, replace=False))


def _best_penalty(features: np.ndarray, targets: np.ndarray, folds: np.ndarray, seed: int) -> float:
    """A tenth of the penalty with the lowest loss on photos that a head did not see.

    The head with the lowest loss is too cautious here: it takes wrong labels into account by being less sure of all
    photos, and confuses classes that a more flexible head tells apart. On hard classes (the embeddings of styles in
    benchmarks.audit) a tenth finds far more, on easy ones as much. Of very many photos only the first fold is tested.
    """
    tested = [fold for fold in (range(_FOLDS) if len(features) <= _MANY else range(1)) if (folds == fold).any()]
    losses: list[float] = []
    weights: dict[int, np.ndarray] = {}
    with doing("choosing how flexible a head is"):
        for penalty in _PENALTIES:
            loss = 0.0
            for fold in tested:
                rows, held_out = _trained_on(np.flatnonzero(folds != fold), seed), np.flatnonzero(folds == fold)
                weights[fold] = fit_regression(features[rows], targets[rows], l2=penalty, start=weights.get(fold))
                for block in row_blocks(len(held_out)):
                    part = held_out[block]
                    loss -= float((targets[part] * log_softmax(logits_of(features[part], weights[fold]))).sum())
            losses.append(loss)
            if len(losses) > 1 and losses[-1] > losses[-2]:
                break
    return _MORE_FLEXIBLE * _PENALTIES[int(np.argmin(losses))]


def _unseen_logs(
    features: np.ndarray,
    targets: np.ndarray,
    divisions: Sequence[np.ndarray],
    penalty: float,
    seed: int,
    advance: Callable[[], None],
) -> np.ndarray:
    """Shape [n, classes]: mean logarithms of the scores of heads that did not see the photo's group."""
    total = np.zeros_like(targets)
    for folds in divisions:
        weights = None
        for fold in range(_FOLDS):
            if (folds == fold).any():
                rows = _trained_on(np.flatnonzero(folds != fold), seed)
                weights = fit_regression(features[rows], targets[rows], l2=penalty)
                _add_logs(total, np.flatnonzero(folds == fold), features, weights)
            advance()
        if weights is not None:
            _add_logs(total, np.flatnonzero(folds == NOT_TESTED), features, weights)
    for block in row_blocks(len(total)):
        total[block] = log_softmax(total[block] / len(divisions))
    return total


def _add_logs(total: np.ndarray, rows: np.ndarray, features: np.ndarray, weights: np.ndarray) -> None:
    for block in row_blocks(len(rows)):
        total[rows[block]] += log_softmax(logits_of(features[rows[block]], weights))


def _neighbours(features: np.ndarray, groups: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest photos of other groups; see `Judgement`."""
    vectors = unit_vectors(features if len(features) <= _MANY else features[:, :_NEIGHBOUR_AXES])
    candidates = np.arange(len(vectors))
    if len(candidates) > _MAX_CANDIDATES:
        chosen = np.random.default_rng(seed).choice(len(candidates), _MAX_CANDIDATES, replace=False)
        candidates = np.sort(chosen)
    place = np.full(len(vectors), -1, np.int64)
    place[candidates] = np.arange(len(candidates))
    _, groups = np.unique(groups, return_inverse=True)
    # As many more are looked for as photos of the own group may be among them, up to twice as many in all.
    more = min(int(np.bincount(groups).max()) - 1, NUM_NEIGHBOURS)
    rows, similarities = nearest(vectors, vectors[candidates], NUM_NEIGHBOURS + more, query_rows=place)
    if not rows.shape[1]:
        return rows, similarities
    rows = candidates[rows]
    foreign = groups[rows] != groups[:, np.newaxis]
    order = np.argsort(~foreign, axis=1, kind="stable")[:, :NUM_NEIGHBOURS]
    kept = np.take_along_axis(foreign, order, axis=1)
    return (
        np.where(kept, np.take_along_axis(rows, order, axis=1), -1),
        np.where(kept, np.take_along_axis(similarities, order, axis=1), 0).astype(np.float32),
    )


def _add_voices(logs: np.ndarray, labels: np.ndarray, neighbours: np.ndarray, similarities: np.ndarray) -> None:
    """Adds the logarithms of the scores that neighbours give to those of the heads, in place.

    Beside the neighbours one more voice, as loud as the nearest one's, says how frequent each class is.
    """
    frequencies = labels.mean(axis=0, dtype=np.float64)
    for block in row_blocks(len(logs)):
        near = neighbours[block]
        known = near >= 0
        nearest_one = np.where(known, similarities[block], -np.inf).max(axis=1, keepdims=True, initial=-1.0)
        loudness = np.where(known, np.exp((similarities[block] - nearest_one) / _FADING), 0.0)
        votes = np.tile(frequencies, (len(near), 1))
        for column in range(near.shape[1]):  # one at a time: all at once would take n x k x classes numbers
            votes += loudness[:, column : column + 1] * labels[near[:, column]]
        votes /= votes.sum(axis=1, keepdims=True)
        logs[block] += _NEIGHBOUR_WEIGHT * np.log(np.maximum(votes, 1e-12))


def _as_sure_as_right(logs: np.ndarray, targets: np.ndarray, judged: np.ndarray, seed: int) -> float:
    """The factor of logarithms of scores with which the labels are most probable, 1 / temperature (Guo et al., 2017).

    The labels are those that mistakes made of the true ones. Without that, the scores would learn to be as unsure as
    the labels are wrong, and mistakes would count twice.
    """
    rows = np.flatnonzero(judged)
    if len(rows) > _MANY:
        rows = np.sort(np.random.default_rng(seed).choice(rows, _MANY, replace=False))
    losses = []
    for factor in _TEMPERATURES:
        tempered = log_softmax(factor * logs[rows])
        _, shares = true_label_scores(tempered, targets[rows])
        given = np.maximum(np.exp(tempered) @ shares, np.finfo(np.float64).tiny)
        losses.append(-float((targets[rows] * np.log(given)).sum()))
    return float(_TEMPERATURES[int(np.argmin(losses))])
