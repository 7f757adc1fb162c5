"""Chooses the columns of a table that hold the image and the labels, by their names and by the cells of some rows."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from configs.errors import InputError
from preprocess.lists.labels import LabelDict

# Names of a first column that every version took for a header.
HEADER_NAMES = frozenset({"image_uri", "image_url", "image_path", "image", "uri", "url", "path", "filename", "file"})
_URI_NAMES = HEADER_NAMES | {
    *("file_name", "filepath", "file_path", "files", "filenames", "image_file", "image_filename", "image_name", "img"),
    *("img_path", "img_name", "image_file_path", "image_filepath", "images", "imagepath", "imagename", "photo"),
    *("gcs_uri", "gcs_path", "gcs_file_path", "image_gcs_uri", "imagegcsuri", "photo_path", "picture", "fname"),
}
# Such columns hold the names of files in some tables, and numbers in others.
_WEAK_URI_NAMES = frozenset({"id", "image_id", "img_id", "imageid", "x", "name"})
_LABEL_NAMES = frozenset(
    {
        *("label", "labels", "class", "classes", "class_name", "classname", "class_label", "category", "categories"),
        *("category_name", "target", "targets", "tag", "tags", "label_name", "label_names", "species", "breed"),
        *("ground_truth", "display_name", "displayname", "y", "annotation", "annotations"),
    }
)
# What a cell of a one-hot column says, in lower case: whether the image has the label.
YES_OR_NO = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False, "": False}
_LOOKS_LIKE_IMAGE = re.compile(r"\S.*\.[A-Za-z][A-Za-z0-9]{1,4}|[A-Za-z][A-Za-z0-9+.-]+://\S+", re.DOTALL)


def normalized(name: str) -> str:
    """The name of a column in the form in which it is looked up."""
    return re.sub(r"[\s_-]+", "_", name.strip().casefold())


def looks_like_image(cell: str) -> bool:
    """Whether a cell looks like the name of an image file: it ends in a file extension, or is a URI."""
    return _LOOKS_LIKE_IMAGE.fullmatch(cell.strip()) is not None


def is_uri_name(name: str) -> bool:
    """Whether a column of this name holds images."""
    return normalized(name) in _URI_NAMES


def is_label_name(name: str) -> bool:
    """Whether a column of this name holds labels."""
    return normalized(name) in _LABEL_NAMES


def is_header(names: Sequence[str], labels: LabelDict) -> bool:
    """Whether the cells of a first row are certainly the names of columns."""
    if any(looks_like_image(name) for name in names):
        return False
    if normalized(names[0]) in HEADER_NAMES:
        return True
    has_uri = any(is_uri_name(name) for name in names)
    weak = any(normalized(name) in _WEAK_URI_NAMES for name in names)
    label_names = [name for name in names if is_label_name(name) and labels.id_of(name.strip()) is None]
    if has_uri and (label_names or len(names) == 1):
        return True
    if weak and label_names:
        return True
    others = [name.strip() for name in names if not is_uri_name(name)]
    return has_uri and len(others) > 1 and all(labels.id_of(name) is not None for name in others)  # one-hot


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """The chosen columns: the names of those of the image and of the labels, and whether the labels are one-hot."""

    uri: str
    labels: tuple[str, ...]
    one_hot: bool = False


def choose(cells: Mapping[str, Sequence[Sequence[str]]], labels: LabelDict, *, where: str) -> Columns:
    """Chooses the columns of a table whose columns have names.

    Args:
      cells: by the name of a column, in order: for each row of a sample the values of its cell, which may be several.
      labels: the dictionary.
      where: the list, for messages.

    Raises:
      InputError: it is not certain which column holds the image or the labels.
    """
    uri = _uri_column(cells, where)
    others = [name for name in cells if name != uri]
    flat = {name: [value for values in cells[name] for value in values if value] for name in others}
    if _is_one_hot(others, flat, labels):
        return Columns(uri=uri, labels=tuple(others), one_hot=True)
    known = [name for name in others if any(labels.id_of(value) is not None for value in flat[name])]
    all_known = [name for name in known if all(labels.id_of(value) is not None for value in flat[name])]
    named = [name for name in others if is_label_name(name) or not flat[name]]
    if not any(map(is_label_name, others)):
        # Nothing is named like a label. Columns of which every cell is one are labels all the same.
        chosen = all_known or known
        if not chosen and others and any(flat.values()) and not labels.optional:
            raise InputError(
                f"{where}: the columns are {_shown(cells)}, and none of them holds labels of the dictionary. Name the "
                "column of the labels label."
            )
        return Columns(uri=uri, labels=tuple(name for name in others if name in chosen or not flat[name]))
    # Of `label` (numbers) and `class_name`, the one whose cells are in the dictionary is meant.
    if any(name in known for name in named):
        named = [name for name in named if name in known or not flat[name]]
    return Columns(uri=uri, labels=tuple(name for name in others if name in named or name in all_known))


def _uri_column(cells: Mapping[str, Sequence[Sequence[str]]], where: str) -> str:
    candidates = [name for name in cells if is_uri_name(name)]
    if not candidates:
        candidates = [name for name in cells if normalized(name) in _WEAK_URI_NAMES and _all_images(cells[name])]
    if len(candidates) > 1:
        candidates = [name for name in candidates if _all_images(cells[name])] or candidates
    if len(candidates) == 1:
        return candidates[0]
    what = f"{_shown(candidates)} may all name the image" if candidates else "none of them names the image"
    raise InputError(
        f"{where}: the columns are {_shown(cells)}, and {what}. Name the column of the image image_uri, and no other "
        "column so that it could be meant; the column of the labels is label."
    )


def _all_images(cells: Sequence[Sequence[str]]) -> bool:
    return bool(cells) and all(len(values) == 1 and looks_like_image(values[0]) for values in cells)


def _is_one_hot(others: Sequence[str], flat: Mapping[str, Sequence[str]], labels: LabelDict) -> bool:
    return (
        len(others) > 1
        and all(labels.id_of(name.strip()) is not None for name in others)
        and all(flat[name] and all(value.casefold() in YES_OR_NO for value in flat[name]) for name in others)
        and not any(labels.id_of(value) is not None for values in flat.values() for value in values)
    )


def _shown(names: Sequence[str] | Mapping[str, object]) -> str:
    shown = [repr(name) for name in names] or ["none"]
    return ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "")
