"""Several backbones in one option: `--backbone NAME,NAME`, and where each of them writes its set of records."""

from __future__ import annotations

import dataclasses
import os
import posixpath
import re
from typing import TypeVar

from configs.errors import InputError
from configs.file_uris import path_argument
from configs.recipe import BackboneOptions

PLACEHOLDER = "{backbone}"
"""What stands in a path for the name of the backbone."""

_Options = TypeVar("_Options", bound=BackboneOptions)

_OTHER_PLACEHOLDER = re.compile(r"\{\w*\}")
# Of a name of a folder that users type, and that is a part of patterns of paths.
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


def split_backbones(text: str) -> tuple[str, ...]:
    """The backbones that a value of `--backbone` names. A path with a comma is one if it is there, or in a bucket.

    Raises:
      InputError: one of the names is empty, or stands there twice.
    """
    if "," not in text or os.path.lexists(text):
        return (text,)
    names = [name.strip() for name in text.split(",")]
    if "://" in names[0] and _is_end_of_path(names[-1]):
        return (text,)
    if not all(names):
        raise InputError(
            f"backbone: {text!r} has a comma without a name on each side. Write the names as in "
            "--backbone inception_v3,mobilenet_1.0_224."
        )
    names = [path_argument(name) for name in names]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"backbone: {twice!r} is named twice. Name each network once.")
    return tuple(names)


def folder_names(backbones: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the folders of backbones: a network's own name, or that of its file without its ending.

    Raises:
      InputError: two have one name.
    """
    names = tuple(_folder_name(backbone) for backbone in backbones)
    for position, name in enumerate(names):
        # Filesystems of some systems do not tell cases apart.
        first = [one.lower() for one in names].index(name.lower())
        if first != position:
            raise InputError(
                f"backbone: {backbones[first]!r} and {backbones[position]!r} would both write to a folder {name!r}. "
                "Embed with one after the other, each with another --output_path."
            )
    return names


def options_of_each(options: _Options) -> dict[str, _Options]:
    """The options for each backbone, by the name of its folder. All else is the same for all of them.

    Raises:
      InputError: the names of the backbones are wrong, or there are several and the weights are the file of one.
    """
    backbones = split_backbones(options.backbone)
    names = folder_names(backbones)
    if len(backbones) > 1 and options.weights not in ("imagenet", "random"):
        raise InputError(
            f"weights: {options.weights!r} is the file of one network, and --backbone names {len(backbones)}. Embed "
            "with that network by itself, or leave --weights out (or pass random)."
        )
    return {
        name: dataclasses.replace(options, backbone=backbone) for name, backbone in zip(names, backbones, strict=True)
    }


def has_several(backbone: str) -> bool:
    """Whether a value of `--backbone` names several networks. Raises InputError as `split_backbones`."""
    return len(split_backbones(backbone)) > 1


def path_of_each(path: str) -> str:
    """The output of several backbones with a placeholder: where none stands, each has a folder before the last name.

    Raises:
      InputError: the path has another placeholder.
    """
    other = _OTHER_PLACEHOLDER.search(path.replace(PLACEHOLDER, ""))
    if other is not None:
        raise InputError(
            f"output_path: {other[0]} stands for nothing; {PLACEHOLDER} stands for the name of the backbone. Received: "
            f"{path!r}."
        )
    if PLACEHOLDER in path:
        return path
    folder, name = posixpath.split(path)
    return posixpath.join(folder, PLACEHOLDER, name)


def path_for(path: str, folder_name: str) -> str:
    """A path with the name of a backbone in the place of the placeholder."""
    return path.replace(PLACEHOLDER, folder_name)


def _is_end_of_path(name: str) -> bool:
    """Whether a text ends like a file of a network, but names none here."""
    return name.endswith((".pb", ".keras")) and "/" not in name and not os.path.lexists(name)


def _folder_name(backbone: str) -> str:
    stem = posixpath.basename(backbone.rstrip("/"))
    if "/" in backbone or os.path.lexists(backbone):
        stem = os.path.splitext(stem)[0]
    return _NOT_IN_NAMES.sub("-", stem).strip("-.") or "backbone"
