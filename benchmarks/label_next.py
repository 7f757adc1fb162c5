"""Labels that `hugs next` needs for nearly full accuracy, beside a random choice and k-center, on real photos.

Usage: python -m benchmarks.label_next [--replays N] [--all] [--photos DIR] [--bottlenecks FILE.npz] [--quick]

Each replay keeps three tenths of the photos for testing, begins with ten random labels, and adds ten labels at a time,
chosen by each method. The head and its features are the same for all. "Full accuracy" is that of all labels. k-center
(Sener and Savarese, 2018) is the greedy one.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

import numpy as np

from benchmarks.photos import add_photos_flag, find_photos
from benchmarks.real_embeddings import BACKBONE, STYLES, embedded
from benchmarks.report import Figure, finish, say
from configs.errors import EXIT_OK
from configs.program import run_program
from insight.label_errors.features import principal_features
from insight.neighbours.exact import unit_vectors
from insight.selection.choose import choose, head_scores

_FIRST, _STEP = 10, 10
_REPLAYS, _ALL_REPLAYS = 5, 20
_SHARE_OF_FULL = 0.95
_OURS, _RANDOM, _K_CENTER = "hugs next", "random", "k-center"


def _k_center(units: np.ndarray, labelled: np.ndarray, count: int) -> np.ndarray:
    nearest = (units @ units[labelled].T).max(axis=1)
    chosen = []
    for _ in range(count):
        chosen.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, units @ units[chosen[-1]])
    return np.array(chosen)


def _chosen(
    method: str, features: np.ndarray, units: np.ndarray, labelled: np.ndarray, labels: np.ndarray, seed: int
) -> np.ndarray:
    """Places of the photos that a method would label next."""
    rest = np.setdiff1d(np.arange(len(features)), labelled)
    if method == _RANDOM:
        return np.random.default_rng([seed, len(labelled)]).choice(rest, _STEP, replace=False)
    if method == _K_CENTER:
        return _k_center(units, labelled, _STEP)
    num_labels = int(labels.max()) + 1
    scores = head_scores(features, labelled, labels[labelled], num_labels)
    counts = np.bincount(labels[labelled], minlength=num_labels)
    return rest[choose(features[rest], None if scores is None else scores[rest], counts, _STEP, seed=seed).rows]


def replay(
    embeddings: np.ndarray, labels: np.ndarray, *, seed: int, num_rounds: int
) -> tuple[float, dict[str, list[float]]]:
    """The accuracy with all labels, and for each method those with the first labels and after each round."""
    order = np.random.default_rng(seed).permutation(len(labels))
    test, pool = order[: len(order) * 3 // 10], order[len(order) * 3 // 10 :]
    features = principal_features(embeddings[np.concatenate([pool, test])])
    of_pool, units = features[: len(pool)], unit_vectors(features[: len(pool)].astype(np.float32))
    num_labels = int(labels.max()) + 1

    def accuracy(labelled: np.ndarray) -> float:
        scores = head_scores(features, labelled, labels[pool[labelled]], num_labels)
        if scores is None:
            return float(np.mean(labels[test] == labels[pool[labelled[0]]]))
        return float(np.mean(scores[len(pool) :].argmax(axis=1) == labels[test]))

    found = {}
    for method in (_OURS, _RANDOM, _K_CENTER):
        labelled = np.arange(_FIRST)  # The pool is in random order.
        found[method] = [accuracy(labelled)]
        for _ in range(num_rounds):
            labelled = np.concatenate([labelled, _chosen(method, of_pool, units, labelled, labels[pool], seed)])
            found[method].append(accuracy(labelled))
    return accuracy(np.arange(len(pool))), found


def measure(
    name: str, embeddings: np.ndarray, labels: np.ndarray, *, num_replays: int, num_rounds: int
) -> list[Figure]:
    """The figures of one set of embeddings."""
    full, curves = [], {method: [] for method in (_OURS, _RANDOM, _K_CENTER)}  # type: ignore[var-annotated]
    for seed in range(num_replays):
        of_all, found = replay(embeddings, labels, seed=seed, num_rounds=num_rounds)
        full.append(of_all)
        for method, accuracies in found.items():
            curves[method].append(accuracies)
    means = {method: np.mean(accuracies, axis=0) for method, accuracies in curves.items()}
    for method, values in means.items():
        say(f"{name}, {method}: {', '.join(f'{value:.3f}' for value in values)} (full {np.mean(full):.3f})")

    def labels_needed(method: str) -> float:
        reached = np.flatnonzero(means[method] >= _SHARE_OF_FULL * np.mean(full))
        return float(_FIRST + _STEP * reached[0]) if len(reached) else float("inf")

    ours = labels_needed(_OURS)
    rows = []
    for peer in (_RANDOM, _K_CENTER):
        theirs = labels_needed(peer)
        differences = np.mean(np.array(curves[_OURS]) - np.array(curves[peer]), axis=1)
        error = float(differences.std(ddof=1) / np.sqrt(num_replays))
        most = _FIRST + _STEP * num_rounds
        rows.append(
            Figure(
                figure=f"{name}: labels for {_SHARE_OF_FULL:.0%} of full accuracy, {num_replays} replays, against "
                f"{peer} (on the way {100 * differences.mean():+.1f} points, standard error {100 * error:.1f})",
                ours=f"{ours:.0f}" if np.isfinite(ours) else f"more than {most}",
                peer=f"{theirs:.0f}" if np.isfinite(theirs) else f"more than {most}",
                ratio=round(theirs / ours, 2) if np.isfinite(ours) and np.isfinite(theirs) else None,
                target="never worse than two standard errors",
                met=bool(differences.mean() >= -2 * error),
            )
        )
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.label_next", description=(__doc__ or "").split("\n")[0])
    add_photos_flag(parser)
    parser.add_argument("--replays", type=int, default=_REPLAYS, help=f"at least 2 (default: {_REPLAYS})")
    parser.add_argument("--all", action="store_true", help=f"{_ALL_REPLAYS} replays, as the figures of the pages have")
    parser.add_argument("--bottlenecks", default=str(STYLES), help="npz with `embedding` and `label`")
    parser.add_argument("--quick", action="store_true", help="2 replays of 3 rounds, 100 photos: does everything run?")
    args = parser.parse_args(argv)
    num_replays, num_rounds = (2, 3) if args.quick else (_ALL_REPLAYS if args.all else args.replays, 20)
    photo_set = find_photos(args.photos)
    count = 100 if args.quick else None
    say(photo_set.describe())
    embeddings, labels = embedded(photo_set, count=count)
    rows = measure(f"{photo_set.name}, {BACKBONE}", embeddings, labels, num_replays=num_replays, num_rounds=num_rounds)
    if os.path.exists(args.bottlenecks) and not args.quick:
        with np.load(args.bottlenecks) as stored:
            name = os.path.basename(args.bottlenecks)
            rows += measure(name, stored["embedding"], stored["label"], num_replays=num_replays, num_rounds=num_rounds)
    finish("label_next", rows, photos=photo_set.name, backbone=BACKBONE)
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
