"""Writes photos as the JSON that an endpoint takes, for `gcloud ai endpoints predict --json-request`.

python -m cloud.images_to_json photo.jpg ... -o request.json [-r --model_dir data/training/model]

The lab of 2016 had a program of this name and with these flags, also by their short names. It wrote a line an image.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import posixpath
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from configs.arguments import OneLineParser
from configs.console import require_printed
from configs.errors import EXIT_OK, InputError
from configs.option import REQUIRED, Options, add_flags, given_values, option, options_of
from configs.program import run_program
from configs.rules import Arguments, PathText, Switch, Whole
from trainer.options import Path

if TYPE_CHECKING:
    from trainer.export.model_info import ModelInfo

# https://cloud.google.com/vertex-ai/docs/quotas: "Maximum size of an online prediction request".
_MAX_REQUEST_BYTES = 1_500_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImagesToJsonOptions(Options):
    """The options of the program."""

    # It has no annotation: `runpy` can run a program without registering its module, and then dataclasses do not
    # recognize ClassVar and make a field of it.
    prefix = "--"

    photos: tuple[str, ...] = option(
        REQUIRED, Arguments(), help="image files", decides="neither", metavar="PHOTO", positional=True
    )
    output: str = option("-", PathText(), help="the file to write; - for standard output", decides="neither", short="o")
    resize: bool = option(
        False,
        Switch(can_be_unset=False),
        help="make photos smaller first: send the pixels that the network takes, which gives the same answer. It needs "
        "--model_dir or --image_size",
        decides="neither",
        short="r",
    )
    model_dir: str | None = option(
        None,
        Path("a folder", "read"),
        help="with --resize: the model that answers, as `hugs train` wrote it, local or in a bucket. It says which "
        "size its network takes",
        decides="neither",
        metavar="DIR",
    )
    image_size: int | None = option(
        None,
        Whole(8, 1024),
        help="with --resize, in place of --model_dir: the side of the network's images (299 for inception_v3, 224 for "
        "efficientnet_lite0)",
        decides="neither",
        metavar="PIXELS",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resize and self.model_dir is None and self.image_size is None:
            raise InputError(
                "--resize: the network decides the size, and another size gives another answer. Pass --model_dir DIR, "
                "the folder of the model that answers, or --image_size PIXELS."
            )
        if not self.resize:
            for flag in ("model_dir", "image_size"):
                if getattr(self, flag) is not None:
                    raise InputError(f"--{flag}: it is used with --resize (-r) only, and that is missing.")


def instance_of(photo: bytes, *, key: str, size: int | None) -> dict[str, Any]:
    """The instance of a request for one photo.

    Args:
      photo: the file's content.
      key: the name of the photo in the response.
      size: if given, the photo is sent as a PNG of the size x size pixels that the pipeline makes of it.

    Raises:
      InputError: the file is not an image.
    """
    # Imported here so that --help stays quick.
    from preprocess.images.decode import ImageError, encode_png
    from preprocess.images.isolated_decoder import IsolatedDecoder
    from preprocess.machine.machine_faults import MachineFault

    try:
        # Also without a size, since the request of an endpoint is a bad place to find out.
        pixels = IsolatedDecoder(size=size or 8)(photo)
    except ImageError as error:
        raise InputError(f"{key}: {error.message} ({error.reason})") from error
    except MachineFault as error:
        raise InputError(f"{key}: {error}") from error
    content = photo if size is None else encode_png(pixels)
    return {"key": key, "image_bytes": {"b64": base64.b64encode(content).decode()}}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program.

    Raises:
      InputError: an argument is wrong, a file is no image or cannot be read, or the output cannot be written. Then
        nothing is written.
    """
    parser = OneLineParser(
        module="cloud.images_to_json", description="Writes photos as the JSON that an endpoint takes."
    )
    add_flags(parser, options_of(ImagesToJsonOptions))
    given = ImagesToJsonOptions(**given_values(parser.parse_args(argv), ImagesToJsonOptions))
    _require_no_photo(given.output, given.photos)
    size = _size(given) if given.resize else None
    instances = [instance_of(_read(path), key=path, size=size) for path in given.photos]
    request = json.dumps({"instances": instances}, ensure_ascii=False) + "\n"
    if given.output == "-":
        print(request, end="")
        require_printed()
    else:
        _write(given.output, request)
    if len(request) > _MAX_REQUEST_BYTES:
        hint = "give fewer photos" if given.resize else "-r --model_dir MODEL makes photos smaller"
        print(
            f"warning: the request has {len(request) / 1e6:.1f} MB, and Vertex AI takes 1.5 MB at most: {hint}.",
            file=sys.stderr,
        )
    return EXIT_OK


def _require_no_photo(output: str, photos: Sequence[str]) -> None:
    """Raises InputError if the output is a photo: `-o *.jpg` names the first one."""
    from preprocess.images.formats import format_by_name

    same = any(os.path.exists(output) and os.path.exists(path) and os.path.samefile(output, path) for path in photos)
    if same or format_by_name(output) is not None:
        raise InputError(
            f"--output: {output} is a photo, or has the name of one, and the request would replace it. Name the file "
            "to write, such as request.json, after -o."
        )


def _size(given: ImagesToJsonOptions) -> int:
    """The side of the square that the network takes.

    Raises:
      InputError: there is no model that takes photos, or it takes another size than --image_size says.
    """
    if given.model_dir is None:
        assert given.image_size is not None
        return given.image_size
    info, where = _model_info(given.model_dir)
    if not info.takes_images:
        raise InputError(f"--model_dir: the model in {where} takes embeddings and no photos.")
    if given.image_size not in (None, info.image.size):
        raise InputError(
            f"--image_size: the network of the model in {where} takes {info.image.size}. Received: {given.image_size}. "
            "Leave it out."
        )
    return info.image.size


def _model_info(folder: str) -> tuple[ModelInfo, str]:
    """The description of a model, and its folder: the given one, or the folder `model` in it."""
    from cloud.job_storage import job_storage, read_file
    from trainer.export.model_info import MODEL_INFO_PATH, ModelInfo

    storage = job_storage()
    for model_dir in (folder, posixpath.join(folder, "model")):
        path = posixpath.join(model_dir, MODEL_INFO_PATH)
        if (raw := read_file(path, storage)) is not None:
            return ModelInfo.from_bytes(raw, where=path), model_dir
    raise InputError(
        f"--model_dir: {folder} holds no model that `hugs train` wrote (there is no {MODEL_INFO_PATH}). Give the "
        "folder that `hugs train` names as the model."
    )


def _read(path: str) -> bytes:
    from preprocess.images.read import DEFAULT_MAX_IMAGE_BYTES
    from preprocess.storage.base import LocalStorage

    try:
        return LocalStorage().read(path, max_bytes=DEFAULT_MAX_IMAGE_BYTES)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _write(path: str, text: str) -> None:
    partial = f"{path}.partial"
    try:
        with open(partial, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"--output: {path} cannot be written ({error.strerror or error}).") from error


if __name__ == "__main__":
    run_program(main)
