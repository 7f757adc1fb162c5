"""Predicts the labels of photos with a model that trainer.task exported.

python -m trainer.predict --model_dir out/training/model photo.jpg …
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from configs.arguments import OneLineParser
from configs.console import require_printed
from configs.errors import EXIT_INPUT_ERROR, EXIT_OK, InputError
from configs.file_uris import local_path_of
from configs.option import REQUIRED, Options, add_flags, given_values, option, options_of
from configs.program import run_program
from configs.rules import Arguments, Number, Switch, Text, Whole
from trainer.options import Path
from trainer.storage.files import cause_of, is_missing_bucket, storage, supported_path

if TYPE_CHECKING:
    from trainer.export.graph_classifier import GraphClassifier

_OF_GRAPH = ("labels", "input_layer", "output_layer", "input_height", "input_width", "input_mean", "input_std")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictOptions(Options):
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
    model_dir: str | None = option(
        None,
        Path("a folder", "read"),
        help="the model that trainer.task exported, local or gs://",
        decides="neither",
    )
    top_k: int = option(5, Whole(1), help="labels to print for each photo", decides="neither")
    json: bool = option(
        False,
        Switch(can_be_unset=False),
        help="print one JSON object on each line",
        decides="neither",
    )
    graph: str | None = option(
        None,
        Path("a file", "read"),
        help="a frozen graph in place of --model_dir, such as the output_graph.pb of retrain.py; this and the "
        "following flags are those of TensorFlow's label_image",
        decides="neither",
        metavar="FILE",
    )
    labels: str | None = option(
        None,
        Path("a file", "read"),
        help="names of the graph's classes, one a line, such as output_labels.txt",
        decides="neither",
        metavar="FILE",
        default_words="those of ImageNet",
    )
    input_layer: str | None = option(
        None,
        Text(),
        help="operation that takes the pixels",
        decides="neither",
        metavar="NAME",
        default_words="the only placeholder",
    )
    output_layer: str | None = option(
        None, Text(), help="operation that gives the scores", decides="neither", default_words="final_result"
    )
    input_height: int | None = option(
        None, Whole(8), help="height of the pixels", decides="neither", default_words="as the graph says"
    )
    input_width: int | None = option(
        None, Whole(8), help="width of the pixels", decides="neither", default_words="as the graph says"
    )
    input_mean: float | None = option(
        None, Number(at_least=-255, at_most=255), help="subtracted from pixels", decides="neither", default_words="0"
    )
    input_std: float | None = option(
        None, Number(above=0), help="what the difference is divided by", decides="neither", default_words="255"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [name for name in _OF_GRAPH if getattr(self, name) is not None]
        if self.graph is None and given:
            raise InputError(f"--{given[0]}: belongs to a --graph, and none is given.")
        if (self.graph is None) == (self.model_dir is None):
            raise InputError("Pass --model_dir, or --graph with --labels; one of the two.")


def _parse(argv: Sequence[str] | None) -> PredictOptions:
    parser = OneLineParser(module="trainer.predict", description="Predicts the labels of photos.", any_bytes=True)
    add_flags(parser, options_of(PredictOptions))
    options = PredictOptions(**given_values(parser.parse_args(argv), PredictOptions))
    paths = {name: getattr(options, name) for name in ("model_dir", "graph", "labels")}
    given: dict[str, Any] = {name: supported_path(path, flag=name) for name, path in paths.items() if path is not None}
    return dataclasses.replace(options, **given)


def _graph_classifier(options: PredictOptions, graph: str) -> GraphClassifier:
    from trainer.export.graph_classifier import GraphClassifier, GraphFlags

    given = {name: getattr(options, name) for name in _OF_GRAPH}
    numbers = ("input_mean", "input_std")
    flags = {name: value for name, value in given.items() if value is not None or name not in numbers}
    return GraphClassifier(GraphFlags(graph=graph, **flags))


def _read_photo(path: str, size: int) -> bytes:
    """Reads a photo and converts it to the form that the model takes: a PNG of `size` x `size` pixels.

    Raises:
      InputError: there is no such file, or it is not an image.
    """
    from preprocess.images.decode import ImageError
    from preprocess.images.read import DEFAULT_MAX_IMAGE_BYTES
    from preprocess.storage.base import TooLarge
    from trainer.export.classifier import normalize_photo

    if os.path.isdir(location := local_path_of(path)):
        raise InputError(f"{path}: is a folder; name the photos in it")
    try:
        data = storage().read(location, max_bytes=DEFAULT_MAX_IMAGE_BYTES)
    except TooLarge as error:
        raise InputError(f"{path}: has more than {DEFAULT_MAX_IMAGE_BYTES} bytes") from error
    except ValueError as error:
        raise InputError(f"{path!r}: is not a valid file name ({error})") from error
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not is_missing_bucket(error):
            raise InputError(f"{path}: no such file") from error
        raise InputError(f"{path}: cannot be read ({cause_of(error)})") from error
    try:
        return normalize_photo(data, size=size)
    except ImageError as error:
        raise InputError(f"{path}: {error.message} ({error.reason})") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program. It reports photos that cannot be read, and still predicts for the others.

    Returns:
      0 if every photo got a prediction, else 2.

    Raises:
      InputError: an argument is wrong, there is no model, or the predictions could not be written.
    """
    options = _parse(argv)

    from preprocess.images.decode import IMAGE_SIZE
    from trainer.export.classifier import Classifier, read_model_info

    loaded: Classifier | GraphClassifier | None = None
    if options.graph is not None:
        loaded = _graph_classifier(options, options.graph)
        info = loaded.info
    else:
        info = read_model_info(options.model_dir or "")
    size = info.image.size if info.takes_images else IMAGE_SIZE
    photos: list[tuple[str, bytes]] = []
    all_readable = True
    for path in options.photos:
        try:
            photos.append((path, _read_photo(path, size)))
        except InputError as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            all_readable = False
    if not photos:  # There is nothing to predict, so the model is not loaded.
        return EXIT_INPUT_ERROR
    if info.warning:
        print(f"warning: {info.warning}", file=sys.stderr)

    loaded = loaded or Classifier(options.model_dir or "")
    predictions = loaded.predict([photo for _, photo in photos])
    for (path, _), prediction in zip(photos, predictions, strict=True):
        best = prediction.top(info.labels, options.top_k)
        if options.json:
            line = {
                "image": path,
                "predictions": [{"label": label, "score": score, "id": i} for label, score, i in best],
                "confident": prediction.confident,
                "threshold": info.threshold,
                "random_weights": info.backbone.is_random,
                "backbone_verified": info.backbone_verified,
            }
            print(json.dumps(line, ensure_ascii=False))
        else:
            print(path if prediction.confident else f"{path}  (not sure: no score reaches {info.threshold:.1%})")
            for label, score, _ in best:
                print(f"  {score:6.1%}  {label}")
    require_printed()  # The program exists to print predictions.
    return EXIT_OK if all_readable else EXIT_INPUT_ERROR


if __name__ == "__main__":
    run_program(main)
