"""Asks a network which of its own classes photos show, such as the 1,000 classes of ImageNet. Nothing is trained.

python -m preprocess.classify --backbone efficientnet_lite0 photo.jpg another.webp
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from configs.arguments import OneLineParser
from configs.console import require_printed
from configs.errors import EXIT_INPUT_ERROR, EXIT_OK, InputError
from configs.option import add_flags, options_of
from configs.program import run_program
from configs.recipe import PreprocessOptions

if TYPE_CHECKING:
    import numpy as np

_BATCH_SIZE = 16
# The options of `pipelines.embed` that say which network it is.
_OF_BACKBONE = ("backbone", "weights", "input_tensor", "output_tensor", "image_size", "scaling")
_HELP = {
    "backbone": "network: a name that `hugs backbones` lists with classes, or the path of a frozen graph, a "
    "SavedModel or a .keras file (default: inception_v3)",
    "weights": "imagenet, or a weights file with the layer of the classes (default: imagenet)",
    "input_tensor": "of a --backbone PATH: the tensor that takes the pixels",
    "output_tensor": "of a --backbone PATH: the tensor that holds the scores of the classes",
    "image_size": "of a --backbone PATH: the side of the images that it takes",
    "scaling": "of a --backbone PATH: how it wants pixels, as for pipelines.embed",
}


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = OneLineParser(module="preprocess.classify", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="image file, local or gs://")
    parser.add_argument("--top_k", type=int, default=5, metavar="K", help="classes to print (default: %(default)s)")
    parser.add_argument("--json", dest="as_json", action="store_true", help="one JSON object for each photo")
    parser.add_argument(
        "--labels",
        action="append",
        default=[],
        metavar="FILE",
        help="names of the classes, one a line, or the label files that came with the graph of 2015; may be repeated "
        "(default: ImageNet's names)",
    )
    described = options_of(PreprocessOptions)
    add_flags(parser, {name: described[name] for name in _OF_BACKBONE}, help=_HELP)
    args = parser.parse_args(argv)
    if args.top_k < 1:
        raise InputError(f"--top_k: must be at least 1. Received: {args.top_k}.")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program. It reports photos that cannot be read, and still classifies the others.

    Returns:
      0 if every photo was classified, else 2.

    Raises:
      InputError: an argument is wrong, or the network cannot be loaded or has no classes.
    """
    args = _parse(argv)
    # Imported here so that --help and wrong flags answer at once.
    import numpy as np

    from preprocess.backbones.backbone import BackboneSpec, load_classifier
    from preprocess.backbones.class_names import class_names

    given = {name: value for name in _OF_BACKBONE if (value := getattr(args, name)) is not None}
    spec = BackboneSpec.asked_for(**given)
    label_files = [(path, _read(path)) for path in args.labels]
    classifier = load_classifier(spec)
    names = class_names(classifier.model.output_shape[-1], label_files)
    all_usable = True
    for start in range(0, len(args.photos), _BATCH_SIZE):
        found: list[tuple[str, np.ndarray]] = []
        for path in args.photos[start : start + _BATCH_SIZE]:
            try:
                found.append((path, _pixels(path, classifier.image.size)))
            except InputError as error:
                print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
                all_usable = False
        if found:
            scores = classifier.scores(np.stack([pixels for _, pixels in found]))
            for (path, _), row in zip(found, scores, strict=True):
                _print(path, row, names, top_k=args.top_k, as_json=args.as_json)
    require_printed()  # The program exists to print classes.
    return EXIT_OK if all_usable else EXIT_INPUT_ERROR


def _read(path: str) -> bytes:
    from preprocess.storage.router import UriStorage

    try:
        return UriStorage().read(path)
    except (OSError, ValueError) as error:
        raise InputError(f"--labels: {path} cannot be read ({getattr(error, 'strerror', None) or error}).") from error


def _pixels(path: str, size: int) -> np.ndarray:
    """The pixels of a photo, decoded in another process as in the pipeline: uint8 [size, size, 3]."""
    from preprocess.images.decode import ImageError
    from preprocess.images.isolated_decoder import IsolatedDecoder
    from preprocess.images.read import read_image_bytes
    from preprocess.lists.outcomes import RowFailure
    from preprocess.machine.machine_faults import MachineFault
    from preprocess.storage.router import UriStorage

    try:
        return IsolatedDecoder(size=size)(read_image_bytes(path, read_remote=UriStorage().read))
    except ImageError as error:
        raise InputError(f"{path}: {error.message} ({error.reason})") from error
    except RowFailure as failure:
        raise InputError(f"{failure.message} ({failure.reason})") from failure
    except MachineFault as fault:
        raise InputError(f"{path}: {fault}") from fault


def _print(path: str, scores: np.ndarray, names: Sequence[str], *, top_k: int, as_json: bool) -> None:
    best = (-scores).argsort(kind="stable")[:top_k]  # Equal scores in the order of the classes.
    if as_json:
        predictions = [{"label": names[i], "score": float(scores[i]), "id": int(i)} for i in best]
        print(json.dumps({"image": path, "predictions": predictions}, ensure_ascii=False))
        return
    print(path)
    for i in best:
        print(f"  {scores[i]:6.1%}  {names[i]}")


if __name__ == "__main__":
    run_program(main)
