"""Wrong labels that `hugs audit` finds, beside cleanlab, and the accuracy that comes back when they are corrected.

    python -m benchmarks.audit [--all] [--seeds N] [--first_seed N] [--photos DIR] [--bottlenecks FILE.npz]
    [--only NAME] [--quick]

Labels of 5 % and of 10 % of the photos are flipped: to any other class, or to the class that is most often confused
with the right one. A fifth of the photos is kept apart with right labels, to measure accuracy. Two data sets: photos
through EfficientNet-Lite0 with ImageNet weights, and embeddings of Inception v3 of a hard task.

Two peers give cleanlab (AGPL, so never a dependency; without it, its part is left out) cross-validated scores of
scikit-learn's logistic regression: of the embeddings as they are with its default penalty, and of standardized
embeddings with C = 0.01. The better one in a setting is the peer. The constants of `insight.label_errors` were chosen
on the seeds 0 to 4 with flips in all photos, so the seeds here begin at 100.

How much of the lost accuracy can come back at all? The rows "who knew the right labels" are of a judge whose heads and
neighbours learned from the right labels of all other photos. Nobody has such a judge: what it does not find, these
embeddings do not tell. Errors are standard errors of the seeds (jackknife).
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.photos import add_photos_flag, find_photos
from benchmarks.real_embeddings import STYLES, embedded
from benchmarks.report import Figure, finish, say
from configs.counts import counted
from configs.errors import EXIT_OK
from configs.program import run_program
from insight.label_errors.features import principal_features
from insight.label_errors.judge import judge_labels
from insight.label_errors.label_noise import true_label_scores
from insight.label_errors.regression import fit_regression, logits_of

_FLOWERS, _STYLES = "flowers", "styles"
_SHARES, _KINDS = (0.05, 0.1), ("at random", "between confused classes")
# Suspects that a person looks at, for each flip there is.
_LOOKED_AT = 1.5
_RECOVERED = 0.8
_SEEDS, _ALL_SEEDS = 2, 5
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


def measure(name: str, embeddings: np.ndarray, labels: np.ndarray, seeds: Sequence[int]) -> dict[str, Measured]:
    """All settings of one data set, by their names."""
    features = principal_features(embeddings)
    clean = judge_labels(embeddings, one_hot(labels), np.arange(len(labels)))
    confusions = np.zeros((int(labels.max()) + 1,) * 2)
    np.add.at(confusions, (labels, clean.unseen_scores.argmax(axis=1)), 1)
    np.fill_diagonal(confusions, -1)
    found: dict[str, list[list[float]]] = {}
    for seed in seeds:
        test = np.random.default_rng(seed).random(len(labels)) < 0.2
        train, held_out = np.flatnonzero(~test), np.flatnonzero(test)
        right = labels[train]
        of_right = accuracy(features, labels, train, right, held_out)
        knowing = judge_labels(embeddings[train], one_hot(right), np.arange(len(train))).unseen_scores
        for kind, share in itertools.product(_KINDS, _SHARES):
            given = flipped(right, share, kind, confusions.argmax(axis=1), seed=seed)
            wrong = given != right
            of_given = accuracy(features, labels, train, given, held_out)
            ours = judge_labels(embeddings[train], one_hot(given), np.arange(len(train))).order
            orders = [ours, _order_of(knowing, given), *peer_orders(embeddings[train], given, seed=seed).values()]
            setting = f"{share:.0%} {kind}"
            row = [of_right - of_given]
            for order in orders:
                looked = order[: _looked_at(wrong)]
                mended = given.copy()
                mended[looked] = right[looked]
                of_mended = accuracy(features, labels, train, mended, held_out)
                row += [average_precision(order, wrong), found_share(order, wrong), of_mended - of_given]
            found.setdefault(setting, []).append(row)
            say(f"{name}, {setting}, seed {seed}: " + " ".join(f"{value:.3f}" for value in found[setting][-1]))
    return {setting: Measured(np.array(rows)) for setting, rows in found.items()}


def _order_of(unseen_scores: np.ndarray, given: np.ndarray) -> np.ndarray:
    """The suspects by scores that do not know the given labels, the worst first."""
    scores, _ = true_label_scores(np.log(np.maximum(unseen_scores, 1e-300)), one_hot(given))
    return np.argsort(scores[np.arange(len(given)), given], kind="stable")


class Measured:
    """What was measured in one setting.

    Attributes:
      lost: the accuracy that the flips cost, shape [seeds].
      ours, knowing: average precision, found share and accuracy that came back, shape [3, seeds]; `knowing` is of the
        judge that knew the right labels.
      peers: of each peer the same; empty without cleanlab.
    """

    def __init__(self, rows: np.ndarray):
        """`rows`: as `measure` makes them, shape [seeds, 1 + 3 judges]."""
        self.lost = rows[:, 0]
        self.ours, self.knowing, *self.peers = np.split(rows[:, 1:].T, (rows.shape[1] - 1) // 3)

    @property
    def peer(self) -> np.ndarray | None:
        """The better peer by the mean of its average precision."""
        return max(self.peers, key=lambda peer: float(peer[0].mean()), default=None)


def share_back(lost: np.ndarray, back: np.ndarray) -> tuple[float, float]:
    """The share of the lost accuracy that is back, and its standard error by the jackknife (Efron, 1982).

    Args:
      lost: shape [settings, seeds].
      back: the same.
    """
    lost, back = lost.sum(axis=0), back.sum(axis=0)
    if not lost.sum() > 0:
        return float("nan"), float("nan")
    without = (back.sum() - back) / (lost.sum() - lost) if len(lost) > 1 else np.full(1, np.nan)
    error = np.sqrt((len(lost) - 1) * np.square(without - without.mean()).mean())
    return float(back.sum() / lost.sum()), float(error)


def figures(name: str, results: dict[str, Measured]) -> list[Figure]:
    """The rows of one data set."""
    made, differences = [], []
    for setting, found in results.items():
        peer, count = found.peer, len(found.lost)
        compared: dict[str, Any] = {}
        if peer is not None:
            paired = found.ours[0] - peer[0]
            error = float(paired.std(ddof=1) / count**0.5) if count > 1 else 0.0
            differences.append(paired)
            compared = {
                "peer": f"{peer[0].mean():.3f} / {peer[1].mean():.3f} (cleanlab)",
                "ratio": round(float(found.ours[0].mean() / peer[0].mean()), 3),
                "target": "not below cleanlab by more than two standard errors",
                "met": bool(paired.mean() >= -2 * error),
            }
        made.append(
            Figure(
                figure=f"{name}, {setting}: average precision / share of flips in the first 1.5 n suspects, "
                f"{counted(count, 'seed')} (who knew the right labels: {found.knowing[0].mean():.3f} / "
                f"{found.knowing[1].mean():.3f})",
                ours=f"{found.ours[0].mean():.3f} / {found.ours[1].mean():.3f}",
                **compared,
            )
        )
    if differences:
        mean = float(np.mean(differences))
        figure = f"{name}: average precision above cleanlab, mean of all settings"
        made.append(Figure(figure=figure, ours=f"{mean:+.3f}", target="> 0", met=mean > 0))
    lost = np.array([found.lost for found in results.values()])
    of_ours = np.array([found.ours[2] for found in results.values()])
    of_knowing = np.array([found.knowing[2] for found in results.values()])
    for setting, *of in (
        *zip(results, lost, of_ours, of_knowing, strict=True),
        ("all settings", lost, of_ours, of_knowing),
    ):
        of_setting = [np.atleast_2d(values) for values in of]
        share, error = share_back(of_setting[0], of_setting[1])
        knowing, its_error = share_back(of_setting[0], of_setting[2])
        pooled = setting == "all settings"
        made.append(
            Figure(
                figure=f"{name}, {setting}: accuracy that is back after correcting the first 1.5 n suspects, of the "
                f"{100 * of_setting[0].mean():.1f} points that flips cost (who knew the right labels: {knowing:.2f} ± "
                f"{its_error:.2f})",
                ours=f"{share:.2f} ± {error:.2f}",
                target=f">= {_RECOVERED}" if pooled else "",
                met=share >= _RECOVERED if pooled else None,
            )
        )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=_SEEDS, help=f"default: {_SEEDS}")
    parser.add_argument("--all", action="store_true", help=f"{_ALL_SEEDS} seeds, as the figures of the pages have")
    parser.add_argument("--first_seed", type=int, default=100)
    parser.add_argument("--bottlenecks", default=str(STYLES), metavar="FILE.npz")
    parser.add_argument("--only", choices=(_FLOWERS, _STYLES))
    parser.add_argument("--quick", action="store_true", help="one seed, 150 photos: does everything run?")
    add_photos_flag(parser)
    args = parser.parse_args(argv)
    count = 1 if args.quick else _ALL_SEEDS if args.all else args.seeds
    seeds = range(args.first_seed, args.first_seed + count)
    made: list[Figure] = []
    if args.only != _STYLES:
        made += figures(
            _FLOWERS, measure(_FLOWERS, *embedded(find_photos(args.photos), count=150 if args.quick else None), seeds)
        )
    if args.only == _STYLES or (args.only is None and not args.quick and os.path.exists(args.bottlenecks)):
        with np.load(args.bottlenecks) as file:
            made += figures(_STYLES, measure(_STYLES, file["embedding"], file["label"].astype(np.int64), seeds))
    finish("audit", made)
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
