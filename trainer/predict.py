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
from configs.file_uris import local_path_of
from configs.option import REQUIRED, Options, add_flags, given_values, option, options_of
from configs.program import run_program
from configs.rules import Arguments, Number, Switch, Text, Whole
from preprocess.storage.uris import shown
from trainer.options import Path, with_supported_paths
from trainer.storage.files import cause_of, is_missing_bucket, storage

if TYPE_CHECKING:
    import numpy as np

    from trainer.export.classifier import Classifier, Prediction
    from trainer.export.graph_classifier import GraphClassifier
    from trainer.export.model_info import ModelInfo

# Photos that are read and decoded ahead: 0.27 MB each.
_MAX_AHEAD = 64
# A read that takes longer is tried again in another thread. Storage retries come on top.
_READ_DEADLINE_SEC = 60.0
# So many photos in a row that the machine could not read: its storage is gone, and waiting for each of the others is
# of no use.
_MAX_FAULTS = 8
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
    return PredictOptions(**with_supported_paths(given_values(parser.parse_args(argv), PredictOptions), PredictOptions))


def _graph_classifier(options: PredictOptions, graph: str) -> GraphClassifier:
    from trainer.export.graph_classifier import GraphClassifier, GraphFlags

    given = {name: getattr(options, name) for name in _OF_GRAPH}
    numbers = ("input_mean", "input_std")
    flags = {name: value for name, value in given.items() if value is not None or name not in numbers}
    return GraphClassifier(GraphFlags(graph=graph, **flags))


def _read(location: str) -> bytes:
    """The bytes of a photo. Raises RowFailure, or what `read_image_bytes` raises."""
    from preprocess.images.read import read_image_bytes
    from preprocess.lists.outcomes import RowFailure

    def read_remote(uri: str, *, max_bytes: int | None = None) -> bytes:
        try:
            return storage().read(uri, max_bytes=max_bytes)
        except FileNotFoundError as error:
            if is_missing_bucket(error):
                raise RowFailure("read", "not_found", f"{uri}: {cause_of(error)}") from error
            raise

    return read_image_bytes(location, read_remote=read_remote, read_part=storage().read_part)


@dataclasses.dataclass(frozen=True)
class _BadPhoto:
    """A photo that cannot be read: its path, and why; whether that is a fault of the machine and not of the photo."""

    path: str
    message: str
    is_machine_fault: bool = False


class _Photos:
    """Reads and decodes photos ahead, and gives them in their order. A photo that cannot be read is reported.

    Only a bounded number of photos is in memory, however many there are.

    Attributes:
      num_bad: how many photos could not be read so far.
      num_left: how many photos were not given out or reported yet.
    """

    def __init__(self, paths: Sequence[str], size: int):
        """Starts to read.

        Args:
          paths: of the photos.
          size: the width and the height of the model's images, in pixels.
        """
        from preprocess.images.isolated_decoder import IsolatedDecoder
        from preprocess.images.loader import ImageLoader
        from preprocess.storage.retry import RetryPolicy

        self.num_bad = 0
        self.num_left = len(paths)
        self._paths = iter(paths)
        self._held: _BadPhoto | None = None
        self._faults_in_a_row = 0
        self._loader = ImageLoader(
            read=_read,
            decode=IsolatedDecoder(size=size),
            max_ahead=_MAX_AHEAD,
            deadline_sec=_READ_DEADLINE_SEC + RetryPolicy().limit_sec,
        )
        self._loader.add(local_path_of(path) for path in paths)

    def next_batch(self, size: int) -> list[tuple[str, bytes]]:
        """The paths of the next photos, with a PNG of the pixels that the model gets.

        It waits for one photo, and takes others only if they are ready. So no result waits for a slow photo after it.

        Args:
          size: how many photos to give at most.

        Returns:
          Fewer photos than `size` if some are not ready or cannot be read; none if no photo is left.

        Raises:
          InputError: the machine or its storage failed for many photos in a row.
        """
        from preprocess.images.decode import encode_png

        batch: list[tuple[str, bytes]] = []
        while self.num_left and len(batch) < size and (not batch or self._loader.next_is_ready):
            photo = self._next_photo()
            if isinstance(photo, _BadPhoto):
                self._held = photo
                if batch:  # It is reported after the results of the photos before it.
                    break
                self.report_held()
            else:
                self.num_left -= 1
                path, pixels = photo
                batch.append((path, encode_png(pixels)))
        return batch

    def _next_photo(self) -> tuple[str, np.ndarray] | _BadPhoto:
        from preprocess.images.loader import LoadedImage
        from preprocess.lists.outcomes import RowFailure
        from preprocess.machine.machine_faults import MachineFault

        path = next(self._paths)
        try:
            image = self._loader.next()
        except (InputError, MachineFault) as error:
            return _BadPhoto(path, str(error), is_machine_fault=isinstance(error, MachineFault))
        if isinstance(image, LoadedImage):
            self._faults_in_a_row = 0
            return path, image.pixels
        assert isinstance(image, RowFailure)
        return _BadPhoto(path, f"{image.message.rstrip('.')} ({image.reason})")

    def report_held(self) -> None:
        """Reports the bad photo that ended the last batch, if one did."""
        bad, self._held = self._held, None
        if bad is not None:
            self.num_left -= 1
            self._report(bad)

    def report(self, path: str, message: str) -> None:
        """Reports a photo that could be read here, and that the model cannot read."""
        self._report(_BadPhoto(path, message))

    def _report(self, bad: _BadPhoto) -> None:
        message = bad.message if shown(bad.path) in bad.message else f"{bad.path}: {bad.message}"
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
        self.num_bad += 1
        self._faults_in_a_row = self._faults_in_a_row + 1 if bad.is_machine_fault else 0
        if self._faults_in_a_row == _MAX_FAULTS and self.num_left:
            raise InputError(
                f"{_MAX_FAULTS} photos in a row could not be read for a fault of this machine or its storage, so "
                f"{counted(self.num_left, 'photo')} after them {'was' if self.num_left == 1 else 'were'} not tried."
            )


def _print(path: str, prediction: Prediction, info: ModelInfo, options: PredictOptions) -> None:
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
        return
    print(path if prediction.confident else f"{path}  (not sure: no score reaches {info.threshold:.1%})")
    for label, score, _ in best:
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
    total, printed = len(options.photos), 0

    try:
        from preprocess.images.decode import IMAGE_SIZE
        from trainer.export.classifier import BATCH_SIZE, Classifier, read_model_info

        classifier: Classifier | GraphClassifier | None = None
        if options.graph is not None:
            with doing("loading the graph"):
                classifier = _graph_classifier(options, options.graph)
            info = classifier.info
        else:
            info = read_model_info(options.model_dir or "")
        with doing("predicting", total=total, unit="photo") as progress:
            photos = _Photos(options.photos, info.image.size if info.takes_images else IMAGE_SIZE)
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
