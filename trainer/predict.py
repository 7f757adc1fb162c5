"""Predicts the labels of photos with a model that trainer.task exported.

python -m trainer.predict --model_dir out/training/model photo.jpg …
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from configs.activity import doing
from configs.arguments import OneLineParser
from configs.console import require_printed
from configs.counts import counted
from configs.errors import EXIT_INPUT_ERROR, EXIT_OK, InputError
from configs.option import REQUIRED, Options, add_flags, given_values, option, options_of
from configs.program import run_program
from configs.rules import Arguments, Number, Switch, Text, Whole
from trainer.options import Path, with_supported_paths

if TYPE_CHECKING:
    from trainer.export.classifier import Classifier, Prediction
    from trainer.export.graph_classifier import GraphClassifier
    from trainer.export.model_info import ModelInfo

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
        help="image files of any common format, folders and globs of them, or lists with the image in the first "
        "column (.csv, .jsonl ...); local, gs:// or s3://. For very many, `hugs predict_all` is made",
        decides="neither",
        metavar="PHOTO",
        positional=True,
    )
    model_dir: str | None = option(
        None,
        Path("a folder", "read"),
        help="the model that `hugs train` wrote, local or gs://",
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
    return PredictOptions(**with_supported_paths(given_values(parser.parse_args(argv), PredictOptions), PredictOptions))


def _graph_classifier(options: PredictOptions, graph: str) -> GraphClassifier:
    from trainer.export.graph_classifier import GraphClassifier, GraphFlags

    given = {name: getattr(options, name) for name in _OF_GRAPH}
    numbers = ("input_mean", "input_std")
    flags = {name: value for name, value in given.items() if value is not None or name not in numbers}
    return GraphClassifier(GraphFlags(graph=graph, **flags))


def _print(path: str, prediction: Prediction, info: ModelInfo, options: PredictOptions) -> None:
    if options.json:
        line = {"image": path, **prediction.to_json(info, options.top_k)}
        print(json.dumps(line, ensure_ascii=False))
        return
    print(path if prediction.confident else f"{path}  (not sure: no score reaches {info.threshold:.1%})")
    for label, score, _ in prediction.top(info.labels, options.top_k):
        print(f"  {score:6.1%}  {label}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program. It prints each result as soon as it is known, and reports photos that cannot be read.

    Returns:
      0 if every photo got a prediction, else 2.

    Raises:
      InputError: an argument is wrong, there is no model, or the predictions could not be written.
      KeyboardInterrupt: Ctrl-C; it says how many photos were done.
    """
    options = _parse(argv)
    total = printed = 0

    try:
        from preprocess.images.decode import IMAGE_SIZE
        from trainer.export.classifier import BATCH_SIZE, Classifier, read_model_info
        from trainer.photo_reader import PhotoReader, named_photos

        classifier: Classifier | GraphClassifier | None = None
        if options.graph is not None:
            with doing("loading the graph"):
                classifier = _graph_classifier(options, options.graph)
            info = classifier.info
        else:
            info = read_model_info(options.model_dir or "")
        paths = [location for _, location in named_photos(options.photos, info.labels)]
        total = len(paths)
        with doing("predicting", total=total, unit="photo") as progress:
            photos = PhotoReader(paths, info.image.size if info.takes_images else IMAGE_SIZE)
            while photos.num_left:
                batch = photos.next_batch(BATCH_SIZE)
                if batch and classifier is None:  # If there is nothing to predict, the model is not loaded.
                    if info.warning:
                        print(f"warning: {info.warning}", file=sys.stderr)
                    with doing("loading the model"):
                        classifier = Classifier(options.model_dir or "")
                if batch and classifier is not None:
                    predictions = classifier.predict([photo for _, photo in batch])
                    for (path, _), prediction in zip(batch, predictions, strict=True):
                        if prediction.error:
                            photos.report(path, prediction.error)
                        else:
                            _print(path, prediction, info, options)
                    printed += len(batch)
                    # Flushed, so that Ctrl-C or a kill loses nothing that is known.
                    sys.stdout.flush()
                photos.report_held()
                progress.done = total - photos.num_left
    except KeyboardInterrupt:
        sys.stdout.flush()
        answered = (
            f"{printed} of {counted(total, 'photo')} {'has its answer' if printed == 1 else 'have their answers'}"
        )
        raise KeyboardInterrupt(f"{answered} above. The same command begins with the first photo again.") from None
    require_printed()  # The program exists to print predictions.
    return EXIT_INPUT_ERROR if photos.num_bad else EXIT_OK


if __name__ == "__main__":
    run_program(main)
