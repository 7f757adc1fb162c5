"""Accuracy of `--tune` on difficult, real embeddings, compared with scikit-learn's logistic regression and SVC.

Usage: python -m benchmarks.accuracy [--splits 5] [--trials 10] [--bottlenecks FILE.npz] [--quick]

Each split keeps a fifth of every class for testing. All three methods use the other four fifths: they choose their
settings by cross-validation on them, and are then fitted to all of them with these settings. All are tested on the same
images, so the differences are paired by split.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.report import Figure, finish, say
from benchmarks.training import dataset_of, split
from configs.program import run_program
from preprocess.backbones.tensorflow_import import import_tensorflow

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_BOTTLENECKS = os.path.join(os.path.dirname(_ROOT), "shared/data/inception_v3_bottlenecks/style.npz")
# Both grids are wider, in both directions, than the values that cross-validation chose here.
_LOGISTIC_C = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_VECTORS_C = (1.0, 3.0, 10.0, 30.0)
_VECTORS_GAMMA = (1e-5, 1e-4, 3e-4, 1e-3)
_FOLDS = 5
_LOGISTIC, _VECTORS, _DEFAULT, _OURS = "LogisticRegressionCV", "SVC", "default head", "--tune"


def peer_accuracies(
    embeddings: np.ndarray, labels: np.ndarray, taught: np.ndarray, test: np.ndarray, *, seed: int
) -> dict[str, float]:
    """Accuracies of both peers, with standardized inputs, on rows that they were not trained on."""
    import threadpoolctl  # type: ignore[import-untyped]
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    models = {
        _LOGISTIC: make_pipeline(
            StandardScaler(), LogisticRegressionCV(Cs=_LOGISTIC_C, cv=folds, scoring="accuracy", max_iter=300)
        ),
        _VECTORS: GridSearchCV(
            make_pipeline(StandardScaler(), SVC()), {"svc__C": _VECTORS_C, "svc__gamma": _VECTORS_GAMMA}, cv=folds
        ),
    }
    # For such small matrices, threads would only wait for each other.
    with threadpoolctl.threadpool_limits(1), warnings.catch_warnings():
        # The weakest penalties of the grid are never chosen, and waiting for them to converge takes too long.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", FutureWarning)
        return {
            name: float(model.fit(embeddings[taught], labels[taught]).score(embeddings[test], labels[test]))
            for name, model in models.items()
        }


def our_accuracies(
    embeddings: np.ndarray, labels: np.ndarray, taught: np.ndarray, test: np.ndarray, *, seed: int, trials: int
) -> dict[str, float]:
    """Accuracies of the default settings and of those that `tune` chose; cross-validation chose the number of steps."""
    from trainer.options import TrainingOptions
    from trainer.search.tuning import tune

    options = TrainingOptions(train_data_paths=("-",), eval_data_paths=("-",), output_path="-", seed=seed)
    # The second data set takes no part in the choice, so `tune`'s results on it are the measurement.
    _, account = tune(
        dataset_of(embeddings, labels, taught),
        dataset_of(embeddings, labels, test),
        options,
        trials=trials,
        budget_sec=None,
        say=_tell,
    )
    checks = account["eval_check"]
    return {_DEFAULT: checks["given"]["accuracy"], _OURS: checks["chosen"]["accuracy"]}


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def figure(dataset_name: str, peer: str, ours: Sequence[float], theirs: Sequence[float]) -> Figure:
    """The figure that compares our accuracy with that of a peer on the same splits.

    Args:
      dataset_name: the name of the embeddings.
      peer: the name of the peer.
      ours: our accuracy on each split.
      theirs: the accuracy of the peer on each split.
    """
    differences = np.subtract(ours, theirs)
    error = float(differences.std(ddof=1) / len(differences) ** 0.5)
    return Figure(
        figure=f"accuracy of --tune, {dataset_name}, {len(ours)} splits, against {peer} "
        f"(difference {differences.mean():+.3f}, standard error {error:.3f})",
        ours=f"{np.mean(ours):.3f} ± {np.std(ours, ddof=1):.3f}",
        peer=f"{np.mean(theirs):.3f} ± {np.std(theirs, ddof=1):.3f}",
        ratio=round(float(np.mean(ours) / np.mean(theirs)), 4),
        target="not below by more than two standard errors of the paired difference",
        met=bool(differences.mean() >= -2 * error),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--splits", type=int, default=5, help="at least 2")
    parser.add_argument("--first_split", type=int, default=0, help="number of the first split")
    parser.add_argument("--trials", type=int, default=10, help="of --tune, on each split")
    parser.add_argument("--bottlenecks", default=_BOTTLENECKS, help="npz with `embedding` and `label`")
    parser.add_argument("--quick", action="store_true", help="two splits, three trials: does everything run?")
    args = parser.parse_args(argv)
    if args.quick:
        args.splits, args.trials = 2, 3
    if not os.path.exists(args.bottlenecks):
        say(f"skipped, there is no {args.bottlenecks}")
        finish("accuracy", [])
        return
    import_tensorflow()
    with np.load(args.bottlenecks) as stored:
        embeddings, labels = stored["embedding"], stored["label"]
    name = os.path.basename(args.bottlenecks)
    say(f"{len(labels)} embeddings of {name}, {len(np.unique(labels))} classes, {args.splits} splits")
    runs: list[dict[str, Any]] = []
    for seed in range(args.first_split, args.first_split + args.splits):
        train, choose, test = split(labels, seed=seed)
        taught = np.sort(np.concatenate([train, choose]))
        started = time.perf_counter()
        accuracies = our_accuracies(embeddings, labels, taught, test, seed=seed, trials=args.trials)
        ours_sec = time.perf_counter() - started
        started = time.perf_counter()
        accuracies |= peer_accuracies(embeddings, labels, taught, test, seed=seed)
        peers_sec = time.perf_counter() - started
        runs.append({**accuracies, "ours_sec": round(ours_sec, 1), "peers_sec": round(peers_sec, 1)})
        told = ", ".join(f"{who} {accuracy:.3f}" for who, accuracy in accuracies.items())
        say(f"split {seed}: {told}; {ours_sec:.0f} s and {peers_sec:.0f} s of the peers")
    columns = {who: [run[who] for run in runs] for who in (_OURS, _DEFAULT, _LOGISTIC, _VECTORS)}
    peers = (_LOGISTIC, _VECTORS, _DEFAULT)
    finish("accuracy", [figure(name, peer, columns[_OURS], columns[peer]) for peer in peers], runs=runs)


if __name__ == "__main__":
    run_program(main)
