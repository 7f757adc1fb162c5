"""Asks a network which of its own classes photos show, such as the 1,000 classes of ImageNet. Nothing is trained.

python -m preprocess.classify --backbone efficientnet_lite0 photo.jpg another.webp
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from configs.arguments import OneLineParser
from configs.console import require_printed
from configs.errors import EXIT_INPUT_ERROR, EXIT_OK, InputError
from configs.option import REQUIRED, add_flags, given_values, option, options_of
from configs.program import run_program
from configs.recipe import BackboneOptions
from configs.rules import Arguments, PathTexts, Switch, Whole

if TYPE_CHECKING:
    import numpy as np

_BATCH_SIZE = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifyOptions(BackboneOptions):
    """The options of the program.

    Raises:
      InputError: a value breaks its rule.
    """

    # It has no annotation: `runpy` can run a program without registering its module, and then dataclasses do not
    # recognize ClassVar and make a field of it.
    prefix = "--"

    photos: tuple[str, ...] = option(
        REQUIRED,
        Arguments(),
        help="image files of any common format, local or gs://",
        decides="neither",
        metavar="PHOTO",
        positional=True,
    )
    top_k: int = option(5, Whole(1), help="classes to print for each photo", decides="neither")
    labels: tuple[str, ...] = option(
        (),
        PathTexts(),
        help="names of the classes, one a line, or the label files that came with the graph of 2015, instead of "
        "ImageNet's names; may be repeated",
        decides="neither",
        metavar="FILE",
    )
    json: bool = option(
        False,
        Switch(can_be_unset=False),
        help="print one JSON object on each line",
        decides="neither",
    )


def _parse(argv: Sequence[str] | None) -> ClassifyOptions:
    parser = OneLineParser(module="preprocess.classify", description=(__doc__ or "").partition("\n\n")[0])
    add_flags(parser, options_of(ClassifyOptions))
    return ClassifyOptions(**given_values(parser.parse_args(argv), ClassifyOptions))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program. It reports photos that cannot be read, and still classifies the others.

    Returns:
      0 if every photo was classified, else 2.

    Raises:
      InputError: an argument is wrong, or the network cannot be loaded or has no classes.
    """
    options = _parse(argv)
    # Imported here so that --help and wrong flags answer at once.
    import numpy as np

    from preprocess.backbones.backbone import BackboneSpec, load_classifier
    from preprocess.backbones.class_names import class_names, read_label_file

    spec = BackboneSpec.of_options(options)
    label_files = [(path, read_label_file(path)) for path in options.labels]
    classifier = load_classifier(spec)
    names = class_names(classifier.model.output_shape[-1], label_files)
    all_usable = True
    for start in range(0, len(options.photos), _BATCH_SIZE):
        found: list[tuple[str, np.ndarray]] = []
        for path in options.photos[start : start + _BATCH_SIZE]:
            try:
                found.append((path, _pixels(path, classifier.image.size)))
            except InputError as error:
                print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
                all_usable = False
        if found:
            scores = classifier.scores(np.stack([pixels for _, pixels in found]))
            for (path, _), row in zip(found, scores, strict=True):
                _print(path, row, names, top_k=options.top_k, as_json=options.json)
    require_printed()  # The program exists to print classes.
    return EXIT_OK if all_usable else EXIT_INPUT_ERROR


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
