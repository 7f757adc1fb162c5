"""The names of the classes that networks were trained on.

`imagenet_classes.txt` has the 1,000 classes of ImageNet's challenge of 2012 in their order: the WordNet id, a tab, the
name. Ids and names are WordNet's (https://wordnet.princeton.edu, WordNet License); the list is taken from the package
imagenet-classes 0.2.1 (MIT).
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Sequence

from configs.errors import InputError

_LIST = "imagenet_classes.txt"
BACKGROUND = "background"

# A line of imagenet_synset_to_human_label_map.txt, and the entries of imagenet_2012_challenge_label_map_proto.pbtxt.
_SYNSET = re.compile(r"(n\d{8})\t(.+)")
_ENTRY = re.compile(r'target_class:\s*(\d+)\s+target_class_string:\s*"(n\d{8})"')
# "985:daisy", as files beside frozen graphs have it.
_NUMBERED = re.compile(r"(\d+):(.*)")


def imagenet_classes() -> list[tuple[str, str]]:
    """WordNet id and name of each of the 1,000 classes."""
    text = importlib.resources.files(__package__).joinpath(_LIST).read_text(encoding="utf-8")
    pairs = [line.split("\t") for line in text.splitlines()]
    return [(synset, name) for synset, name in pairs]


def class_names(count: int, label_files: Sequence[tuple[str, bytes]] = ()) -> list[str]:
    """The names of a network's classes.

    Args:
      count: how many classes it has.
      label_files: names and contents of files: a list of names, one a line, or one or both of the files that came with
        the graph of 2015, told apart by their content. Without any, ImageNet's names are taken where the number is that
        of its classes, with or without a class for the background.

    Returns:
      As many names; "class N" for those that have none.

    Raises:
      InputError: a file is none of these, or its names do not belong to so many classes.
    """
    names_of_synsets = dict(imagenet_classes())
    classes: dict[int, str] | None = None
    plain: list[str] | None = None
    for path, content in label_files:
        text = _decoded(content, path)
        entries = _ENTRY.findall(text)
        lines = [line for line in text.splitlines() if line.strip()]
        if entries:
            classes = {int(number): synset for number, synset in entries}
        elif lines and all(_SYNSET.fullmatch(line) for line in lines):
            names_of_synsets |= dict(line.split("\t", 1) for line in lines)
        elif lines:
            plain = _plain_names(lines)
            if len(plain) != count:
                raise InputError(f"--labels: {path} names {len(plain)} classes, and the network has {count}.")
        else:
            raise InputError(f"--labels: {path} is empty.")
    if plain is not None:
        return plain
    if classes is not None:
        if max(classes) >= count:
            raise InputError(f"--labels: the files name class {max(classes)}, and the network has {count} classes.")
        return [names_of_synsets.get(classes.get(number, ""), f"class {number}") for number in range(count)]
    names = [names_of_synsets[synset] for synset, _ in imagenet_classes()]
    if count == len(names):
        return names
    if count == len(names) + 1:
        return [BACKGROUND, *names]
    raise InputError(
        f"--labels: the network has {count} classes, so they are not ImageNet's {len(names)}. Pass a file of their "
        "names, one a line."
    )


def read_label_file(path: str) -> bytes:
    """The content of a file of names, local or in a bucket. Raises InputError if it cannot be read."""
    from preprocess.storage.router import UriStorage  # here: names are wanted without it, too

    try:
        return UriStorage().read(path)
    except (OSError, ValueError) as error:
        raise InputError(f"--labels: {path} cannot be read ({getattr(error, 'strerror', None) or error}).") from error


def _decoded(content: bytes, path: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"--labels: {path} is not UTF-8 text ({error}).") from error


def _plain_names(lines: list[str]) -> list[str]:
    """The names of a list; the numbers before them are dropped if all lines have theirs."""
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    if all(match is not None and int(match[1]) == number for number, match in enumerate(numbered)):
        return [match[2].strip() for match in numbered if match is not None]
    return [line.strip() for line in lines]
