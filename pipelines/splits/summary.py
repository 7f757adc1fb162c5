"""The summary of an ingest: photos by class and list, the spread over the classes, what was left out, and warnings."""

from __future__ import annotations

import os
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence

from configs.counts import counted
from configs.list_names import SPLITS
from pipelines.splits.given_split import POOL, GivenSplit, same_folders, training_folders
from pipelines.splits.photo_groups import NAME, PARENT, PATH, PhotoGroups
from preprocess.images.class_folders import ClassFolders, few_of, formats_hint

FEW_IMAGES = 20
MIN_IMAGES = 2
"""One to train on and one to evaluate on."""
_MAX_TABLE_ROWS = 40
_MAX_PARENTS = 3

Counts = Mapping[str, Mapping[str, int]]


def _say(kind: str, message: str) -> None:
    print(f"{kind}: {message}", file=sys.stderr)


def say_left_out(found: ClassFolders, *, has_parents: bool = False) -> None:
    """Prints on standard error which files are in no list, and why.

    Args:
      found: the files.
      has_parents: whether the folder seems to be the wrong one. Then nobody wants to use its other files.
    """
    if found.ignored:
        _say("note", f"recycle bins and other folders that systems make, left out: {few_of(found.ignored)}.")
    if found.others:
        number = len(found.others)
        hint = "" if has_parents else formats_hint(found.others)
        what = "1 file is not an image that is" if number == 1 else f"{number} files are not images that are"
        _say("note", f"{what} read here, left out: {few_of(found.others)}.{hint}")
    if found.loose:
        _say("warning", f"{counted(len(found.loose), 'image')} in no class folder, left out: {few_of(found.loose)}.")
    if found.unlistable:
        _say(
            "warning",
            f"{counted(len(found.unlistable), 'image')} left out because of the name (not UTF-8, or with a "
            f"line break or a blank at its end): {few_of(found.unlistable)}. Rename to include.",
        )
    empty = [folder for folder, paths in found.images.items() if not paths]
    if empty:
        _say("warning", f"{counted(len(empty), 'folder')} without an image, not a class: {few_of(empty)}.")


def say_odd_folders(found: ClassFolders, parents: Mapping[str, Sequence[str]], image_dir: str) -> None:
    """Prints on standard error whether folders below the class folders may be the classes.

    Args:
      found: the class folders.
      parents: those that look like parents of class folders, from `parent_folders`.
      image_dir: the folder that holds the class folders.
    """
    same = same_folders(found)
    if same:
        _say(
            "warning",
            f"all class folders hold the same folders ({few_of(same)}). If those are the classes, let --image_dir hold "
            "them directly.",
        )
    training = training_folders(found)
    if training:
        _say(
            "warning",
            f"{few_of(training)} is a class with folders of its own. If those are the classes, let --image_dir be that "
            "folder.",
        )
    others = {} if same else {name: inside for name, inside in parents.items() if name not in training}
    for name, inside in list(others.items())[:_MAX_PARENTS]:
        _say(
            "warning",
            f"{few_of([name])} looks like the parent of class folders: it holds no photo of its own, only folders "
            f"({few_of(inside)}). If those are the classes, --image_dir is one level too high: pass "
            f"--image_dir {shlex.quote(os.path.join(image_dir, name))}.",
        )


def say_given_split(given: GivenSplit, *, mode: str, eval_percent: float, test_percent: float) -> None:
    """Prints on standard error how folders that are already split were taken."""
    if mode == POOL:
        _say("note", f"the photos of {few_of(list(given.lists))} are put together and split anew.")
    else:
        names = {split: [name for name in given.lists if given.lists[name] == split] for split in SPLITS}
        taken = ", ".join(f"{name}/ -> {split}.csv" for split in SPLITS for name in sorted(names[split]))
        _say("note", f"the photos are split already: {taken}. --split_folders {POOL} would split them anew.")
        if not names["eval"] and eval_percent:
            _say("note", f"no folder for evaluation; {eval_percent:g} % of the training photos are taken for it.")
        if not names["test"] and test_percent:
            _say("note", f"no folder for the test; {test_percent:g} % of the training photos are taken for it.")
    for name, paths in sorted(given.left_out.items()):
        _say(
            "warning",
            f"{name}/ has no class folder that training has, so its {counted(len(paths), 'image')} have no "
            "label and are left out.",
        )


def say_groups(
    groups: PhotoGroups,
    *,
    chosen: str | None,
    of_group: Mapping[float, Mapping[str, int]],
    is_split: bool,
    has_parents: bool = False,
) -> None:
    """Prints on standard error what identifies the photos, where that is not the name or where the user chose it.

    Args:
      groups: of the photos.
      chosen: the flag `--group_by`, if it was given.
      of_group: photos of each group in each list, where `--group_by` names groups.
      has_parents: whether the folder seems to be the wrong one; folders below class folders are no groups then.
      is_split: the photos are split already.
    """
    if is_split and chosen is None:
        return
    photos = counted(groups.num_photos, "photo")
    names = counted(groups.num_names, "name")
    if groups.chosen_by_path and chosen is None:
        _say(
            "note",
            f"{photos} have only {names}, so the path of a photo decides about its list; in earlier versions it was "
            f"the name (--group_by {NAME}).",
        )
    elif chosen is None and 2 * groups.num_names <= groups.num_photos:
        _say(
            "note",
            f"{photos} have {names}, and photos of one name are always in one list; --group_by {PATH} takes "
            "each by itself.",
        )
    if groups.num_versions:
        _say(
            "note",
            f"{counted(groups.num_versions, 'photo')} are versions or shots of another photo, by their names, and are "
            f"in its list; --group_by {NAME} takes each by itself, as earlier versions did.",
        )
    if groups.masks:
        _say(
            "warning",
            f"{counted(len(groups.masks), 'photo')} are named like the mask of another photo "
            f"({few_of(groups.masks)}), and are taken as photos of the class. Move masks out of the class folders.",
        )
    num_nested, num_folders = groups.nested if chosen is None else (0, 0)
    if chosen is None and num_folders > 1 and num_nested >= 2 * num_folders and not has_parents:
        _say(
            "note",
            f"{counted(num_nested, 'photo')} lie in {counted(num_folders, 'folder')} below their class folders; "
            f"if each folder shows one thing, pass --group_by {PARENT}, so that no thing is in two lists.",
        )
    if of_group:
        most = max(sum(lists.values()) for lists in of_group.values())
        _say("note", f"{photos} in {counted(len(of_group), 'group')} of at most {most}.")
    torn = sum(len(lists) > 1 for lists in of_group.values())
    if torn:
        _say(
            "warning",
            f"{counted(torn, 'group')} of photos are in several lists, as the folders split them, so what is "
            f"measured on them is too favorable. --split_folders {POOL} keeps groups together.",
        )
    if groups.num_ungrouped:
        _say(
            "warning", f"--group_by says nothing of {groups.num_ungrouped} of {photos}; each of them stands for itself."
        )


def say_doubts(labels: Sequence[str], counts: Counts, *, eval_percent: float, is_split: bool, stratify: bool) -> None:
    """Prints on standard error warnings about classes: few photos, none to train on, none to evaluate on."""
    folded: dict[str, str] = {}
    for label in labels:
        other = folded.setdefault(label.casefold(), label)
        if other != label:
            _say("warning", f"the classes {other!r} and {label!r} differ in capitals only. Is that meant?")
    total = {label: sum(row.values()) for label, row in counts.items()}
    few = [f"{label} ({total[label]})" for label in labels if total[label] < FEW_IMAGES]
    if few:
        _say("warning", f"fewer than {FEW_IMAGES} images, too few to learn or to measure much: {few_of(few)}.")
    stratified = "" if stratify or is_split else ", or pass --stratify"
    untrained = [label for label in labels if not counts[label]["train"]]
    if untrained:
        advice = _advice(untrained, total, stratified, "lower --eval_percent or --test_percent")
        _say(
            "warning",
            f"NO TRAINING IMAGE of {few_of(untrained)}: the model can never learn it. "
            + ("Add photos to the training folder." if is_split else advice),
        )
    unevaluated = [label for label in labels if not counts[label]["eval"]]
    if (eval_percent or is_split) and unevaluated:
        advice = _advice(unevaluated, total, stratified, "raise --eval_percent")
        _say(
            "warning",
            f"no evaluation image of {few_of(unevaluated)}: nothing will be known about it. "
            + ("Add photos to evaluate on." if is_split else advice),
        )
    elif not stratify and not is_split and eval_percent:
        percents = [100 * counts[label]["eval"] / total[label] for label in labels if total[label] >= FEW_IMAGES]
        if percents and (max(percents) > 1.5 * eval_percent or 1.5 * min(percents) < eval_percent):
            _say(
                "note",
                f"eval.csv has between {min(percents):.0f} and {max(percents):.0f} % of the images of a class; with "
                f"--stratify it has {eval_percent:g} % of each.",
            )


def _advice(labels: Sequence[str], total: Mapping[str, int], stratified: str, change: str) -> str:
    """What to do about classes that a list lacks. No flag puts the only photo of a class into two lists."""
    single = [label for label in labels if total[label] < MIN_IMAGES]
    if single:
        return f"Add photos: {few_of(single)} has {total[single[0]]}, and each class needs at least {MIN_IMAGES}."
    return f"Add photos{stratified}, or {change}."


def table(counts: Counts) -> str:
    """The photos by class and list, and how they spread over the classes."""
    rows = [(label, [*row.values(), sum(row.values())]) for label, row in counts.items()]
    columns = list(zip(*(numbers for _, numbers in rows), strict=True))
    caption = ""
    if len(rows) > _MAX_TABLE_ROWS:
        caption = f"(the {_MAX_TABLE_ROWS} smallest of {len(rows)} classes)\n"
        rows = sorted(rows, key=lambda row: row[1][-1])[:_MAX_TABLE_ROWS]
    cells: list[tuple[str, Sequence[object]]] = [("class", (*SPLITS, "all")), *rows]
    cells.append(("all", [sum(column) for column in columns]))
    if len(counts) > 2:
        cells += [("", []), *_spread(columns)]
    width = max(len(label) for label in (*counts, *(label for label, _ in cells)))
    lines = ["  ".join([f"{label:<{width}}", *(f"{number!s:>7}" for number in row)]).rstrip() for label, row in cells]
    return caption + "\n".join(lines)


def _spread(columns: Sequence[Sequence[int]]) -> list[tuple[str, Sequence[object]]]:
    """How the photos of each list spread over the classes; nothing for a list that is not there."""
    there = [column if any(column) else None for column in columns]
    return [
        ("of a class: min", [min(column) if column else "-" for column in there]),
        ("median", [f"{statistics.median(column):g}" if column else "-" for column in there]),
        ("max", [max(column) if column else "-" for column in there]),
        ("classes without", [sum(not number for number in column) if column else "-" for column in there]),
    ]
