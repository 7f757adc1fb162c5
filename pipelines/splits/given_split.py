"""Recognizes a folder of photos that is already split, such as `{train,val,test}/{daisy,roses}/*.jpg`.

Such folders name lists, not classes. They are recognized by their names (`list_of_folder`) and because they hold the
same class folders. A class that is called "test" beside other classes stays a class.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable, Mapping

from configs.errors import InputError
from preprocess.images.class_folders import ClassFolders, few_of

KEEP, POOL, CLASSES = "keep", "pool", "classes"

_WORDS = {
    "train": "train|training|trn",
    "eval": "val|valid|validation|validate|validating|eval|evaluation|evaluate|dev",
    "test": "test|testing|tst|holdout",
}
# The word stands alone, or with a usual ending, between characters that are no letters: Train, test_set, seg_train,
# trainset, val2017; but not "trains" or "contest".
_NAMED = re.compile(
    r"(?<![^\W\d_])(?:" + "|".join(f"(?P<{split}>{words})" for split, words in _WORDS.items()) + r")"
    r"(?:set|data|images|imgs|dir|split)?(?![^\W\d_])"
)
_OTHERWISE = f"If these are the classes, pass --split_folders {CLASSES}."

_ByName = dict[str, list[str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GivenSplit:
    """A folder that is already split.

    Attributes:
      found: its images by class, over all lists.
      depth: the position, in the path of an image, of the folder that names its list.
      lists: the list ("train", "eval" or "test") of each folder at that position.
      left_out: the images of folders without labels, by folder; they are in no list.
    """

    found: ClassFolders
    depth: int
    lists: Mapping[str, str]
    left_out: Mapping[str, Collection[str]]

    def list_of(self, path: str) -> str:
        """The list of an image, by its path below the folder of photos."""
        return self.lists[path.split("/", self.depth + 1)[self.depth]]


def list_of_folder(name: str) -> tuple[str, str] | None:
    """The list that the name of a folder speaks of, and the rest of the name; None if it speaks of none or of two.

    "training_set" is ("train", "_set"): together with "test_set", whose rest is the same, it is a split.
    """
    name = name.casefold()
    matches = list(_NAMED.finditer(name))
    if len(matches) != 1:
        return None
    (match,) = matches
    split = match.lastgroup or ""
    return split, name[: match.start(split)] + name[match.end(split) :]


def find_given_split(found: ClassFolders, image_dir: str) -> GivenSplit | None:
    """The split that the folders make, or None if they are classes.

    Args:
      found: the images by the folder of the first level.
      image_dir: the folder of photos, for messages.

    Raises:
      InputError: the folders are named like lists, and are neither a split nor classes.
    """
    if not any(list_of_folder(part) for part in _folder_names(found)):
        return None
    folders: _ByName = {name: paths for name, paths in found.images.items() if paths}
    depth, beside = 0, list(found.loose)
    while len(folders) == 1:  # Everything lies in one folder, as after unpacking an archive.
        (paths,) = folders.values()
        folders, loose = _by_folder(paths, depth + 1)
        beside += loose
        depth += 1
    given = _lists_first(folders, depth, image_dir) if folders else None
    given = given or _classes_first(folders, depth)
    if given is None:
        return None
    given.found.loose += beside
    given.found.others, given.found.unlistable = found.others, found.unlistable
    given.found.ignored = found.ignored
    return given


def _folder_names(found: ClassFolders) -> set[str]:
    names = set()
    for paths in found.images.values():
        for folder in {path.rpartition("/")[0] for path in paths}:
            names.update(folder.split("/"))
    return names


def _by_folder(paths: Iterable[str], depth: int) -> tuple[_ByName, list[str]]:
    """The paths by their folder at a depth, and those that have none there because the file itself is there."""
    folders: _ByName = {}
    files = []
    for path in paths:
        parts = path.split("/", depth + 1)
        if len(parts) == depth + 2:
            folders.setdefault(parts[depth], []).append(path)
        else:
            files.append(path)
    return folders, files


def _class_folders(name: str, paths: list[str], depth: int) -> tuple[_ByName, list[str]]:
    """The class folders of a list's folder, also where it holds but a folder of its own name, as archives do."""
    classes, files = _by_folder(paths, depth + 1)
    while len(classes) == 1 and not files and next(iter(classes)).casefold() == name.casefold():
        depth += 1
        classes, files = _by_folder(paths, depth + 1)
    return classes, files


def same_folders(found: ClassFolders) -> list[str]:
    """The folders that every class folder holds, if all hold the same ones and nothing else: perhaps the classes.

    Numbered ones, such as those of patients, are no classes.
    """
    inside = []
    for paths in found.images.values():
        if paths:
            folders, files = _by_folder(paths, 1)
            inside.append(set() if files else folders.keys())
    first = sorted(inside[0]) if inside else []
    if len(first) < 2 or any(folders != set(first) for folders in inside) or re.search(r"\d", "".join(first)):
        return []
    return first


def training_folders(found: ClassFolders) -> list[str]:
    """The class folders that are named like a training list and hold nothing but folders, at least two."""
    named = []
    for name, paths in found.images.items():
        spoken = list_of_folder(name)
        if spoken and spoken[0] == "train":
            folders, files = _by_folder(paths, 1)
            if len(folders) > 1 and not files:
                named.append(name)
    return named


def parent_folders(found: ClassFolders) -> dict[str, list[str]]:
    """The class folders that look like parents of class folders, each with the folders in it.

    They hold no photo of their own, but two folders or more. Numbered ones, such as those of patients, are no classes.
    """
    parents = {}
    for name, paths in found.images.items():
        folders, files = _by_folder(paths, 1)
        if len(folders) > 1 and not files and not re.search(r"\d", "".join(folders)):
            parents[name] = sorted(folders)
    return parents


def _lists_first(folders: _ByName, depth: int, image_dir: str) -> GivenSplit | None:
    """The split of a layout list/class/photo."""
    named = {name: spoken for name in folders if (spoken := list_of_folder(name))}
    only_lists = len(named) == len(folders)
    if not only_lists:  # Those that are named alike but for the list, such as train_set and test_set.
        by_rest: dict[str, dict[str, tuple[str, str]]] = {}
        for name, spoken in named.items():
            by_rest.setdefault(spoken[1], {})[name] = spoken
        named = max(by_rest.values(), key=len, default={})
    if len(named) < 2:
        return None
    lists = {name: split for name, (split, _) in named.items()}
    inside = {name: _class_folders(name, folders[name], depth) for name in lists}
    trained = {label for name, (classes, _) in inside.items() if lists[name] == "train" for label in classes}
    labelled = {name for name, (classes, _) in inside.items() if classes.keys() & trained}
    if not only_lists:
        common = {label for name in labelled if lists[name] != "train" for label in inside[name][0]} & trained
        others = folders.keys() - lists.keys()
        alike = any(_by_folder(folders[name], depth + 1)[0].keys() & trained for name in others)
        if not common or alike:
            return None  # Classes, one of which is called "test"; their own folders may have a name in common.
        if len(common) == 1:
            raise InputError(
                f"{image_dir}: are {few_of(list(lists))} lists or classes? They hold the same folder ({min(common)}), "
                f"and {few_of(list(others))} beside them does not. If they are lists, move away what lies beside "
                f"them. {_OTHERWISE}"
            )
    else:
        others = set()
        _check_lists(lists, inside, trained, image_dir)
    found = ClassFolders()
    left_out = {name: folders[name] for name in others}
    for name in sorted(lists):
        classes, files = inside[name]
        if name not in labelled:
            left_out[name] = folders[name]
            continue
        found.loose += files
        for label, paths in classes.items():
            found.images.setdefault(label, []).extend(paths)
    lists = {name: split for name, split in lists.items() if name in labelled}
    return GivenSplit(found=found, depth=depth, lists=lists, left_out=left_out)


def _check_lists(
    lists: Mapping[str, str], inside: Mapping[str, tuple[_ByName, list[str]]], trained: set[str], image_dir: str
) -> None:
    """Raises InputError for folders that are all named like lists, and that are no split."""
    names = few_of(list(lists))
    if not any(classes for classes, _ in inside.values()):
        raise InputError(
            f"{image_dir}: its folders are named like lists ({names}), but the photos lie directly in them and so have "
            f"no label. Put the photos of each class into a folder of their own, such as train/daisy. {_OTHERWISE}"
        )
    if "train" not in lists.values():
        raise InputError(
            f"{image_dir}: its folders are named like lists ({names}), but there is none to train on. Name one of "
            f"them train. {_OTHERWISE}"
        )
    if not trained:
        raise InputError(
            f"{image_dir}: its folders are named like lists ({names}), but the photos to train on lie in no class "
            f"folder. Put the photos of each class into a folder of their own, such as train/daisy. {_OTHERWISE}"
        )
    for name, (classes, _) in inside.items():
        # One folder is where tools want photos without labels to lie, such as test/unknown.
        if len(classes) > 1 and not classes.keys() & trained:
            raise InputError(
                f"{image_dir}: its folders are named like lists ({names}), but no class folder of {name} "
                f"({few_of(list(classes))}) is in the training folder ({few_of(sorted(trained))}). {_OTHERWISE}"
            )


def _classes_first(folders: _ByName, depth: int) -> GivenSplit | None:
    """The split of a layout class/list/photo, if every photo lies in a folder that is named like a list."""
    lists = {}
    for paths in folders.values():
        inside, files = _by_folder(paths, depth + 1)
        named = {name: list_of_folder(name) for name in inside}
        if files or not all(named.values()):
            return None
        lists.update({name: spoken[0] for name, spoken in named.items() if spoken})
    if len(folders) < 2 or len(set(lists.values())) < 2 or "train" not in lists.values():
        return None
    found = ClassFolders(images={label: list(paths) for label, paths in folders.items()})
    return GivenSplit(found=found, depth=depth + 1, lists=lists, left_out={})
