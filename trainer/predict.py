"""Predicts the labels of photos with a model that trainer.task exported.

python -m trainer.predict --model_dir out/training/model photo.jpg …
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Sequence

from configs.arguments import OneLineParser
from configs.console import require_printed
from configs.errors import EXIT_INPUT_ERROR, EXIT_OK, InputError
from configs.file_uris import local_path_of
from configs.option import REQUIRED, Options, add_flags, given_values, option, options_of
from configs.program import run_program
from configs.rules import Arguments, Switch, Whole
from trainer.options import Path
from trainer.storage.files import cause_of, is_missing_bucket, storage, supported_path


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
    model_dir: str = option(
        REQUIRED,
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


def _parse(argv: Sequence[str] | None) -> PredictOptions:
    parser = OneLineParser(module="trainer.predict", description="Predicts the labels of photos.", any_bytes=True)
    add_flags(parser, options_of(PredictOptions))
    options = PredictOptions(**given_values(parser.parse_args(argv), PredictOptions))
    return dataclasses.replace(options, model_dir=supported_path(options.model_dir, flag="model_dir"))


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

    info = read_model_info(options.model_dir)
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

    predictions = Classifier(options.model_dir).predict([photo for _, photo in photos])
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
