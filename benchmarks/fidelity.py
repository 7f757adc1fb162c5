"""How close embeddings of lower precision are to those of float32, and how much accuracy a head loses with them.

    python -m benchmarks.fidelity [--photos DIR] [--count N] [--seeds N] [--backbone NAME] [--quick]

The same photos, decoded once, are embedded in float32 (with OpenVINO if available, else TensorFlow), in bfloat16 and in
int8 (calibrated, as in the pipeline, on a sample of these photos). Each photo's embedding is compared with its float32
embedding by cosine, after subtracting the mean of the float32 set from both: the common part of all embeddings says
nothing about a photo and makes the plain cosine too high. The targets are for the worst photo in bfloat16 and for the
median in int8.

The head is scikit-learn's LogisticRegression. Its inputs are scaled to mean 0 and deviation 1 of the training part.
With five-fold cross-validation, every photo is tested once for each seed, which draws the folds. For each precision, a
head is trained over the same folds. It is tested on embeddings of its own precision, and on float32 embeddings.
The loss is float32's accuracy minus the accuracy of the other precision, in points, paired by seed. The mean over the
seeds and the standard deviation are printed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np

from benchmarks import engines
from benchmarks.photos import add_photos_flag, find_photos
from benchmarks.report import Figure, finish, limit, say
from configs.errors import EXIT_OK, InputError
from configs.program import run_program
from preprocess.backbones.backbone import BackboneSpec
from preprocess.engines.fidelity import centred_cosines, embed_all

_REFERENCES = ("openvino/float32", "tensorflow/float32")
_PRECISIONS = ("openvino/bfloat16", "openvino/int8")
_COSINE = 0.99
_POINTS = 0.5
_FOLDS = 5


def head_accuracies(train_on: np.ndarray, test_on: Sequence[np.ndarray], labels: np.ndarray, seed: int) -> np.ndarray:
    """The accuracy in percent on each set of `test_on`. The heads learn from the other rows of `train_on`."""
    import threadpoolctl  # type: ignore[import-untyped]
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    right = np.zeros(len(test_on))
    # These matrices are so small that threads only wait for each other: a hundred times as long on a busy machine.
    with threadpoolctl.threadpool_limits(1):
        for train, test in StratifiedKFold(_FOLDS, shuffle=True, random_state=seed).split(train_on, labels):
            head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
            head.fit(train_on[train], labels[train])
            right += [(head.predict(rows[test]) == labels[test]).sum() for rows in test_on]
    return 100 * right / len(labels)


def compare(
    name: str, embeddings: np.ndarray, reference: np.ndarray, labels: np.ndarray, *, num_seeds: int
) -> list[Figure]:
    """The figures of one precision against float32."""
    cosines = centred_cosines(embeddings, reference)
    worst, median = float(cosines.min()), float(np.median(cosines))
    say(f"{name}: centred cosine to float32: worst {worst:.5f}, median {median:.5f}, of {len(cosines)} photos")
    if name.endswith("int8"):
        rows = [limit(f"{name}: median centred cosine to float32", median, _COSINE, unit="")]
    else:
        rows = [limit(f"{name}: worst centred cosine to float32", worst, _COSINE, unit="")]
    seeds = range(num_seeds)
    base = np.array([head_accuracies(reference, [reference], labels, seed)[0] for seed in seeds])
    ours = np.array([head_accuracies(embeddings, [embeddings, reference], labels, seed) for seed in seeds])
    for tested_on, accuracies in zip(("its own precision", "float32"), ours.T, strict=True):
        lost = base - accuracies
        spread = float(lost.std(ddof=1)) if num_seeds > 1 else 0.0
        rows.append(
            Figure(
                figure=f"{name}: points of accuracy that a head trained on it loses, tested on {tested_on}",
                ours=f"{lost.mean():+.2f} ± {spread:.2f} ({num_seeds} seeds)",
                peer=f"float32's head: {base.mean():.1f} %",
                target=f"<= {_POINTS:g}",
                met=bool(lost.mean() <= _POINTS),
            )
        )
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fidelity", description=(__doc__ or "").split("\n")[0])
    add_photos_flag(parser)
    parser.add_argument("--count", type=int, default=500, help="photos (default: 500)")
    parser.add_argument("--seeds", type=int, default=5, help="draws of the folds (default: 5)")
    parser.add_argument(
        "--backbone", metavar="NAME", help="a network with its ImageNet weights (default: Inception v3, random weights)"
    )
    parser.add_argument("--quick", action="store_true", help="100 photos, 2 seeds")
    args = parser.parse_args(argv)
    if args.quick:
        args.count, args.seeds = min(args.count, 100), min(args.seeds, 2)
    photo_set = find_photos(args.photos)
    say(photo_set.describe())
    photos = photo_set.photos[: args.count]
    paths = [path for path, _ in photos]
    labels = np.array([photo_set.classes.index(label) for _, label in photos])
    backbone = engines.BACKBONE if args.backbone is None else BackboneSpec.asked_for(args.backbone)
    pixels = engines.read_pixels(paths, backbone.image.size)
    name = next((choice for choice in _REFERENCES if engines.load(choice, paths, backbone)), None)
    if name is None:
        raise InputError("No engine runs in float32.")
    embeddings = {}
    for choice in (name, *_PRECISIONS):
        engine = engines.load(choice, paths, backbone)
        if engine is not None:
            started = time.perf_counter()
            embeddings[choice] = embed_all(engine, pixels)
            say(f"{choice}: {len(pixels)} photos in {time.perf_counter() - started:.1f} s")
    rows: list[Figure] = []
    for choice in _PRECISIONS:
        if choice in embeddings:
            rows += compare(choice, embeddings[choice], embeddings[name], labels, num_seeds=args.seeds)
    finish("fidelity", rows, photos=photo_set.name, reference=name, network=f"{backbone.name}, {backbone.weights}")
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
