"""What networks with real ImageNet weights give: their own classes, accuracy of a head, the cost of lower precisions.

    python -m benchmarks.backbones [--photos DIR] [--backbones NAME|PATH ...] [--count N] [--seeds N] [--quick]

For each network, the same photos are decoded once at its size. Three things are measured:

- Of photos in a folder `daisy`: for how many is ImageNet's class daisy the first, or among the first five?
- The default head beside scikit-learn's logistic regression, on the same split (60 % to train on, 20 % to choose by, 20
  % to measure on), one split a seed, as in `benchmarks.training`.
- Embeddings in bfloat16 and int8 against float32, and the points of accuracy that a head loses with them, as in
  `benchmarks.fidelity`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

import numpy as np

from benchmarks import training
from benchmarks.fidelity import compare
from benchmarks.photos import ROOT, add_photos_flag, find_photos
from benchmarks.report import Figure, finish, limit, say
from configs.errors import EXIT_OK, InputError
from configs.program import run_program
from preprocess.backbones.backbone import BackboneSpec, complete_spec, load_classifier
from preprocess.backbones.class_names import class_names
from preprocess.beam.image_source import ImageReader, ImageSource
from preprocess.beam.transforms import EngineLoader
from preprocess.engines.fidelity import embed_all
from preprocess.engines.int8 import CALIBRATION_IMAGES
from preprocess.engines.select import EngineSpec
from preprocess.images.decode import decode_image

_GRAPH = ROOT.parent / "shared" / "models" / "mobilenet_v1_0.25_128" / "frozen_graph.pb"
_BACKBONES = ("efficientnet_lite0", *([str(_GRAPH)] if _GRAPH.exists() else []))
_CLASS = "daisy"
_FIRST_FIVE = 0.93


def own_classes(name: str, spec: BackboneSpec, pixels: np.ndarray) -> list[Figure]:
    """How often the network itself says daisy, for photos of daisies."""
    classifier = load_classifier(spec)
    names = class_names(classifier.model.output_shape[-1])
    scores = np.concatenate([classifier.scores(pixels[start : start + 16]) for start in range(0, len(pixels), 16)])
    best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    first = float((best[:, 0] == names.index(_CLASS)).mean())
    among = float((best == names.index(_CLASS)).any(axis=1).mean())
    say(f"{name}: of {len(pixels)} photos of daisies, {first:.3f} have daisy first, {among:.3f} among the first five")
    target = _FIRST_FIVE if name.startswith("efficientnet") else 0.0
    return [limit(f"{name}: share of daisies with daisy among the first five classes", among, target, unit="")]


def head_beside_regression(name: str, embeddings: np.ndarray, labels: np.ndarray, *, num_seeds: int) -> Figure:
    """The default head and logistic regression on the same splits."""
    ours, peers = [], []
    for seed in range(num_seeds):
        parts = training.split(labels, seed=seed)
        ours.append(training.head_accuracy(embeddings, labels, parts, seed=seed))
        peers.append(training.regression_accuracies(embeddings, labels, parts)[0])
        say(f"{name}, split {seed}: default head {ours[-1]:.3f}, logistic regression {peers[-1]:.3f}")
    differences = np.subtract(ours, peers)
    error = float(differences.std(ddof=1) / num_seeds**0.5)
    return Figure(
        figure=f"{name}: accuracy of the default head, {num_seeds} splits, against logistic regression of the same "
        f"examples (difference {differences.mean():+.3f}, standard error {error:.3f})",
        ours=f"{np.mean(ours):.3f} ± {np.std(ours, ddof=1):.3f}",
        peer=f"{np.mean(peers):.3f} ± {np.std(peers, ddof=1):.3f}",
        ratio=round(float(np.mean(ours) / np.mean(peers)), 3),
        target="not below by more than two standard errors of the paired difference",
        met=bool(differences.mean() >= -2 * error),
    )


def _embeddings(spec: BackboneSpec, precision: str, pixels: np.ndarray, paths: Sequence[str]) -> np.ndarray | None:
    """None, with a line that says why, if the precision is not to be had here."""
    loader = EngineLoader(
        backbone=spec,
        engine=EngineSpec(engine="openvino", precision=precision),  # type: ignore[arg-type]
        calibration=tuple(paths[:CALIBRATION_IMAGES]) if precision == "int8" else (),
        images=ImageSource(size=spec.image.size),
    )
    try:
        engine = loader()
    except (InputError, ImportError) as error:
        say(f"{precision}: left out ({error})")
        return None
    say(f"{precision}: {engine.info.why}")
    return embed_all(engine, pixels)


def measure_backbone(
    name: str, paths: Sequence[str], labels: np.ndarray, classes: Sequence[str], *, num_seeds: int
) -> list[Figure]:
    """All figures of one network."""
    spec = complete_spec(BackboneSpec.asked_for(name))
    short = os.path.basename(os.path.dirname(name)) if os.sep in name else name
    read = ImageReader()
    pixels = np.stack([decode_image(read(path), size=spec.image.size) for path in paths])
    rows = []
    if _CLASS in classes:
        rows += own_classes(
            short,
            BackboneSpec.asked_for(name),
            pixels[labels == list(classes).index(_CLASS)],
        )
    reference = _embeddings(spec, "float32", pixels, paths)
    if reference is None:
        raise InputError("OpenVINO is not installed.")
    rows.append(head_beside_regression(short, reference, labels, num_seeds=num_seeds))
    for precision in ("bfloat16", "int8"):
        embeddings = _embeddings(spec, precision, pixels, paths)
        if embeddings is not None:
            rows += compare(f"{short}, openvino/{precision}", embeddings, reference, labels, num_seeds=num_seeds)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backbones", description=(__doc__ or "").split("\n")[0])
    add_photos_flag(parser)
    parser.add_argument("--backbones", nargs="+", default=list(_BACKBONES), metavar="NAME|PATH")
    parser.add_argument("--count", type=int, default=500, help="photos (default: 500)")
    parser.add_argument("--seeds", type=int, default=5, help="splits and draws of the folds, at least 2 (default: 5)")
    parser.add_argument("--quick", action="store_true", help="100 photos, 2 seeds, the first network")
    args = parser.parse_args(argv)
    if args.quick:
        args.count, args.seeds, args.backbones = min(args.count, 100), 2, args.backbones[:1]
    photo_set = find_photos(args.photos)
    say(photo_set.describe())
    photos = photo_set.photos[: args.count]
    paths = [path for path, _ in photos]
    labels = np.array([photo_set.classes.index(label) for _, label in photos])
    rows: list[Figure] = []
    for name in args.backbones:
        rows += measure_backbone(name, paths, labels, photo_set.classes, num_seeds=args.seeds)
    finish("backbones", rows, photos=photo_set.name, backbones=args.backbones)
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
