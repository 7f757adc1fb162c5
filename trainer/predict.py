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
from configs.program import run_program
from trainer.storage.files import cause_of, is_missing_bucket, storage, supported_path


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """The options of the program.

    Attributes:
      model_dir: folder of the SavedModel, local or gs://.
      photos: paths of image files, local or gs://.
      top_k: labels to print for each photo.
      as_json: print one JSON object on each line instead of text.

    Raises:
      InputError: a value breaks its rule.
    """

    model_dir: str
    photos: tuple[str, ...]
    top_k: int = 5
    as_json: bool = False

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise InputError(f"--top_k must be 1 or more. Received: {self.top_k}")
        if not self.model_dir:
            raise InputError("--model_dir must name a folder. Received: ''")


def _parse(argv: Sequence[str] | None) -> PredictOptions:
    parser = OneLineParser(
        prog="python -m trainer.predict", description="Predicts the labels of photos.", any_bytes=True
    )
    parser.add_argument("--model_dir", required=True, help="the model that trainer.task exported")
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="image files of any common format")
    parser.add_argument("--top_k", type=int, default=5, help="labels to print for each photo (default: 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on each line")
    given = parser.parse_args(argv)
    model_dir = supported_path(given.model_dir, flag="model_dir")
    return PredictOptions(model_dir=model_dir, photos=tuple(given.photos), top_k=given.top_k, as_json=given.json)


def _read_photo(path: str) -> bytes:
    """Reads a photo and converts it to the form that the model takes.

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
        return normalize_photo(data)
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

    from trainer.export.classifier import Classifier, read_model_info

    info = read_model_info(options.model_dir)
    photos: list[tuple[str, bytes]] = []
    all_readable = True
    for path in options.photos:
        try:
            photos.append((path, _read_photo(path)))
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
        if options.as_json:
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
