"""Wrong labels that `hugs audit` finds, beside cleanlab, and the accuracy that comes back when they are corrected.

    python -m benchmarks.audit [--seeds N] [--first_seed N] [--photos DIR] [--bottlenecks FILE.npz] [--only NAME]
    [--quick]

Labels of 5 % and of 10 % of the photos are flipped: to any other class, or to the class that is most often confused
with the right one. A fifth of the photos is kept apart with right labels, to measure accuracy. Two data sets: photos
through EfficientNet-Lite0 with ImageNet weights, and embeddings of Inception v3 of a hard task.

Two peers give cleanlab (AGPL, so never a dependency; without it, its part is left out) cross-validated scores of
scikit-learn's logistic regression: of the embeddings as they are with its default penalty, and of standardized
embeddings with C = 0.01. The better one in a setting is the peer. The constants of `insight.label_errors` were chosen
on the seeds 0 to 4 with flips in all photos, so the seeds here begin at 100.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.photos import add_photos_flag, find_photos
from benchmarks.real_embeddings import STYLES, embedded
from benchmarks.report import Figure, finish, say
from configs.errors import EXIT_OK
from configs.program import run_program
from insight.label_errors.features import principal_features
from insight.label_errors.judge import judge_labels
from insight.label_errors.regression import fit_regression, logits_of

_FLOWERS, _STYLES = "flowers", "styles"
_SHARES, _KINDS = (0.05, 0.1), ("at random", "between confused classes")
# Suspects that a person looks at, for each flip there is.
_LOOKED_AT = 1.5
_RECOVERED = 0.8
# Of the head that measures the accuracy.
_PENALTY = 0.03


def flipped(labels: np.ndarray, share: float, kind: str, confused_with: np.ndarray, *, seed: int) -> np.ndarray:
    """The labels with a share of them flipped.

    Args:
      labels: int64 [n].
      share: of them.
      kind: one of `_KINDS`.
      confused_with: int64 [classes]: the class that each class is most often confused with.
      seed: the same seed flips the same labels.
    """
    random = np.random.default_rng([seed, round(100 * share), _KINDS.index(kind)])
    rows = random.choice(len(labels), round(share * len(labels)), replace=False)
    given = labels.copy()
    classes = int(labels.max()) + 1
    other = (labels[rows] + random.integers(1, classes, len(rows))) % classes
    given[rows] = other if kind == _KINDS[0] else confused_with[labels[rows]]
    return given


def average_precision(order: np.ndarray, wrong: np.ndarray) -> float:
    """The mean, over the wrong labels, of the precision among the suspects up to each."""
    hits = wrong[order]
    return float(((np.cumsum(hits) / np.arange(1, len(hits) + 1)) * hits).sum() / hits.sum())


def found_share(order: np.ndarray, wrong: np.ndarray) -> float:
    """The share of the wrong labels among the first 1.5 n suspects."""
    return float(wrong[order[: _looked_at(wrong)]].sum() / wrong.sum())


def _looked_at(wrong: np.ndarray) -> int:
    return int(_LOOKED_AT * wrong.sum())


def one_hot(labels: np.ndarray) -> np.ndarray:
    """float64, shape [n, classes]."""
    return np.eye(int(labels.max()) + 1)[labels]


def peer_orders(embeddings: np.ndarray, given: np.ndarray, *, seed: int) -> dict[str, np.ndarray]:
    """The suspects by cleanlab, the worst first, for both peers; nothing if it is not installed."""
    try:
        from cleanlab.rank import get_label_quality_scores  # type: ignore[import-not-found]
    except ImportError:
        return {}
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.preprocessing import StandardScaler

    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    orders = {}
    for name, features, penalty in (
        ("as they are, C = 1", embeddings, 1.0),
        ("standardized, C = 0.01", StandardScaler().fit_transform(embeddings), 0.01),
    ):
        centred = features - features.mean(axis=0)
        # Turned to their axes: logistic regression is the same, and quicker where there are fewer photos than numbers.
        left, values, _ = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
        regression = LogisticRegression(C=penalty, max_iter=1000)
        scores = cross_val_predict(regression, left * values, given, cv=folds, method="predict_proba")
        orders[name] = np.argsort(get_label_quality_scores(given, scores), kind="stable")
    return orders


def accuracy(features: np.ndarray, labels: np.ndarray, train: np.ndarray, given: np.ndarray, test: np.ndarray) -> float:
    """Of a logistic regression that learns `given` at the rows `train`, on the right labels at the rows `test`."""
    weights = fit_regression(features[train], one_hot(np.append(given, labels.max()))[:-1], l2=_PENALTY)
    return float((logits_of(features[test], weights).argmax(axis=1) == labels[test]).mean())


def measure(name: str, embeddings: np.ndarray, labels: np.ndarray, seeds: Sequence[int]) -> dict[str, Any]:
    """All settings of one data set.

    Returns:
      For each setting, an array [seeds, 8]: our average precision and found share, those of both peers (NaN without
      cleanlab), and the accuracy lost and won back.
    """
    features = principal_features(embeddings)
    clean = judge_labels(embeddings, one_hot(labels), np.arange(len(labels)))
    confusions = np.zeros((int(labels.max()) + 1,) * 2)
    np.add.at(confusions, (labels, clean.unseen_scores.argmax(axis=1)), 1)
    np.fill_diagonal(confusions, -1)
    results: dict[str, Any] = {}
    for kind in _KINDS:
        for share in _SHARES:
            rows = []
            for seed in seeds:
                random = np.random.default_rng(seed)
                test = random.random(len(labels)) < 0.2
                train = np.flatnonzero(~test)
                right = labels[train]
                given = flipped(right, share, kind, confusions.argmax(axis=1), seed=seed)
                wrong = given != right
                order = judge_labels(embeddings[train], one_hot(given), np.arange(len(train))).order
                peers = list(peer_orders(embeddings[train], given, seed=seed).values())
                measured = [average_precision(order, wrong), found_share(order, wrong)]
                for place in range(2):
                    measured += (
                        [average_precision(peers[place], wrong), found_share(peers[place], wrong)]
                        if peers
                        else [np.nan, np.nan]
                    )
                mended = given.copy()
                looked = order[: _looked_at(wrong)]
                mended[looked] = right[looked]
                held_out = np.flatnonzero(test)
                of = [accuracy(features, labels, train, taught, held_out) for taught in (right, given, mended)]
                rows.append([*measured, of[0] - of[1], of[2] - of[1]])
            results[f"{share:.0%} {kind}"] = np.array(rows)
            means = np.mean(rows, axis=0)
            say(f"{name}, {share:.0%} {kind}: " + " ".join(f"{value:.3f}" for value in means))
    return results


def figures(name: str, results: dict[str, Any]) -> list[Figure]:
    """The rows of one data set."""
    made, differences = [], []
    for setting, values in results.items():
        ours, with_peer = values[:, :2], not np.isnan(values[:, 2]).any()
        peer = values[:, 2:4] if values[:, 2].mean() >= values[:, 4].mean() else values[:, 4:6]
        paired = ours[:, 0] - peer[:, 0]
        error = float(paired.std(ddof=1) / len(paired) ** 0.5) if len(paired) > 1 else 0.0
        differences.append(paired)
        made.append(
            Figure(
                figure=f"{name}, {setting}: average precision / share of flips in the first 1.5 n suspects, "
                f"{len(values)} seeds",
                ours=f"{ours[:, 0].mean():.3f} / {ours[:, 1].mean():.3f}",
                peer=f"{peer[:, 0].mean():.3f} / {peer[:, 1].mean():.3f} (cleanlab)" if with_peer else "",
                ratio=round(float(ours[:, 0].mean() / peer[:, 0].mean()), 3) if with_peer else None,
                target="not below cleanlab by more than two standard errors" if with_peer else "",
                met=bool(paired.mean() >= -2 * error) if with_peer else None,
            )
        )
    if not np.isnan(differences).any():
        mean = float(np.mean(differences))
        made.append(
            Figure(
                figure=f"{name}: average precision above cleanlab, mean of all settings",
                ours=f"{mean:+.3f}",
                target="> 0",
                met=mean > 0,
            )
        )
    lost = sum(float(values[:, 6].sum()) for values in results.values())
    won = sum(float(values[:, 7].sum()) for values in results.values())
    count = sum(len(values) for values in results.values())
    made.append(
        Figure(
            figure=f"{name}: accuracy that is back after correcting the first 1.5 n suspects, of the "
            f"{100 * lost / count:.1f} points that flips cost",
            ours=f"{won / lost:.2f}" if lost > 0 else "nothing was lost",
            target=f">= {_RECOVERED}",
            met=won >= _RECOVERED * lost,
        )
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first_seed", type=int, default=100)
    parser.add_argument("--bottlenecks", default=str(STYLES), metavar="FILE.npz")
    parser.add_argument("--only", choices=(_FLOWERS, _STYLES))
    parser.add_argument("--quick", action="store_true", help="one seed")
    add_photos_flag(parser)
    args = parser.parse_args(argv)
    seeds = range(args.first_seed, args.first_seed + (1 if args.quick else args.seeds))
    made: list[Figure] = []
    if args.only != _STYLES:
        made += figures(_FLOWERS, measure(_FLOWERS, *embedded(find_photos(args.photos)), seeds))
    if args.only != _FLOWERS and os.path.exists(args.bottlenecks):
        with np.load(args.bottlenecks) as file:
            made += figures(_STYLES, measure(_STYLES, file["embedding"], file["label"].astype(np.int64), seeds))
    finish("audit", made)
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
