"""Turns a folder of class-named folders of photos into the lists that everything else reads.

`python -m pipelines.ingest --image_dir photos/ --output_dir data/` writes `dict.txt` (the names of the class
folders, sorted, one a line) and `train.csv`, `eval.csv` and `test.csv` with rows `image_uri,label`.

Which list a photo is in depends on its file name alone (`name_share`), so adding photos, relabelling one or
moving the folder moves no photo from one list to another. `pipelines.splits` has the exceptions: folders that are
split already, groups of photos that stay together, and `--stratify`.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import math
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence

from configs.activity import doing
from configs.arguments import OneLineParser
from configs.counts import counted
from configs.errors import EXIT_OK, InputError
from configs.file_uris import path_argument
from configs.list_names import DICT_NAME, SPLITS
from configs.printed_commands import program_command
from configs.program import begins_again, run_program
from configs.recipe import PreprocessOptions
from pipelines.splits.assign import name_share, split_of, stratified
from pipelines.splits.earlier_lists import moved_message, read_earlier_lists
from pipelines.splits.given_split import CLASSES, KEEP, POOL, GivenSplit, find_given_split, parent_folders
from pipelines.splits.photo_groups import PhotoGroups
from pipelines.splits.summary import (
    MIN_IMAGES,
    say_doubts,
    say_given_split,
    say_groups,
    say_left_out,
    say_odd_folders,
    table,
)
from preprocess.images.class_folders import (
    ClassFolders,
    find_local_images,
    find_stored_images,
    is_listable,
    labels_of,
)
from preprocess.locks.file_lock import FileLock
from preprocess.locks.lease import Lease
from preprocess.locks.lock_holder import this_process
from preprocess.locks.output_lock import fenced, locked
from preprocess.storage.base import LocalStorage, Storage, read_file
from preprocess.storage.uris import has_scheme, is_in_bucket

_PERCENT = 10.0
# Its weights are installed with the project (the extra `weights`).
_INSTALLED = "efficientnet_lite0"

# A photo of a list: (share of what identifies it, URI, label). Sorted, such rows are in the order of the list.
_Photo = tuple[float, str, str]


def _parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        module="pipelines.ingest",
        description="Turns a folder of class-named folders of photos into the lists that embedding reads.",
        epilog="The list that a photo goes to depends on its file name alone: adding photos or moving the "
        "folder moves no photo between lists. Versions of one photo, such as a.jpg, a.webp and 'a (1).jpg' in one "
        "folder, go to one list.",
    )
    parser.add_argument("--image_dir", required=True, metavar="DIR", help="folder with one sub-folder for each class")
    parser.add_argument("--output_dir", required=True, metavar="DIR", help="folder for the lists; made if missing")
    parser.add_argument("--eval_percent", type=_percent, metavar="P", help="share for evaluation (default: 10)")
    parser.add_argument(
        "--test_percent", type=_percent, metavar="P", help="share for the final test; 0: none (default: 10)"
    )
    parser.add_argument(
        "--group_by",
        metavar="parent|REGEX|FILE",
        help="keep all photos of one thing in one list. parent: the photos of a folder below the class folder; REGEX: "
        "those with the same text in its first group (or match), searched in the path below --image_dir; FILE: those "
        "of one group in a CSV file of rows photo,group, or copies by the twins.csv that `hugs twins` wrote (it reads "
        "the photos, to find them by content). name and path: each photo by itself, known by its file name, "
        "or by its path below --image_dir (default: by its name, or its path where there are few names)",
    )
    parser.add_argument(
        "--stratify",
        action="store_true",
        help="give each class its share in each list, at least one photo of it where there are enough; the price: "
        "photos that are added may move a few others to another list",
    )
    parser.add_argument(
        "--split_folders",
        choices=(KEEP, POOL, CLASSES),
        default=KEEP,
        help="folders that are named like lists (train, val, test ...) and hold the same class folders: "
        f"{KEEP} takes them as the lists (default), {POOL} puts their photos together and splits anew, {CLASSES} takes "
        "them as classes",
    )
    parser.add_argument(
        "--absolute_uris",
        action="store_true",
        help="write absolute URIs; the default is relative to the lists where both are local, so that "
        "the folder that holds both can be moved",
    )
    args = parser.parse_args(argv)
    eval_percent, test_percent = (_PERCENT if p is None else p for p in (args.eval_percent, args.test_percent))
    if eval_percent + test_percent >= 100:
        raise InputError(
            "--eval_percent and --test_percent must add up to less than 100, so that some photos are left to "
            f"train on. Received: {eval_percent:g} + {test_percent:g}."
        )
    return args


def _percent(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 100:  # also false for NaN
        raise argparse.ArgumentTypeError(f"must be a number from 0 to below 100. Received: {text!r}")
    return value


def _check_folders(image_dir: str, output_dir: str) -> None:
    if not has_scheme(image_dir):
        if not os.path.exists(image_dir):
            raise InputError(
                f"--image_dir: there is no folder {image_dir!r}. Give the one that holds the class folders."
            )
        if not os.path.isdir(image_dir):
            raise InputError(f"--image_dir: must be a folder of class folders, but {image_dir!r} is a file.")
    elif any(character in image_dir for character in "*?["):
        raise InputError(f"--image_dir: must be one folder, not a pattern. Received: {image_dir!r}.")
    # The nearest part of the path that exists must be a folder that can be written to.
    existing = os.path.abspath(output_dir)
    while not has_scheme(output_dir) and not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    if not has_scheme(output_dir):
        if not os.path.isdir(existing):
            raise InputError(f"--output_dir: must be a folder, but {existing!r} is a file. Choose another.")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise InputError(f"--output_dir: no permission to write to {existing!r}. Choose another folder.")


def _uri_prefix(image_dir: str, output_dir: str, *, absolute: bool) -> str:
    """The prefix that makes an image's path below `image_dir` its URI, with "/" at its end."""
    if has_scheme(image_dir):
        return image_dir.rstrip("/") + "/"
    whole = os.path.abspath(image_dir).rstrip("/") + "/"
    if absolute or has_scheme(output_dir):
        return whole
    relative = os.path.relpath(image_dir, output_dir)
    if relative[0].isspace():
        return whole  # readers of lists remove blanks around a cell
    # If the output folder is a link, "../photos" is another folder, so absolute URIs are needed.
    target = os.path.realpath(os.path.join(os.path.realpath(output_dir), relative))
    if target != os.path.realpath(image_dir):
        return whole
    return "" if relative == "." else f"{relative}/"


def _split(
    classes: ClassFolders,
    labels: Mapping[str, str],
    prefix: str,
    *,
    groups: PhotoGroups,
    given: GivenSplit | None,
    eval_percent: float,
    test_percent: float,
    stratify: bool,
) -> tuple[dict[str, list[_Photo]], dict[float, Counter[str]]]:
    """The photos of each list, in the order of the list; and, where groups are chosen, the photos of each by list.

    Lists are in the order of the hash of what identifies a photo, not of class and name: any block of a list is then
    a fair sample of all classes, so that a run that is stopped early, a rate, a time left, or the first N rows mean
    something. New photos slip in between; they never reorder the others.
    """
    photos: dict[str, list[_Photo]] = {split: [] for split in SPLITS}
    to_split: list[tuple[float, _Photo]] = []
    of_group: dict[float, Counter[str]] = {}
    for folder, label in labels.items():
        for path, (own, key) in zip(classes.images[folder], groups.keys(folder), strict=True):
            order = name_share(own)
            share = order if key == own else name_share(key)
            photo = order, prefix + path, label
            split = given.list_of(path) if given is not None else "train"
            if split == "train":
                to_split.append((share, photo))
            else:
                photos[split].append(photo)
                if groups.are_chosen:
                    of_group.setdefault(share, Counter())[split] += 1
    percents = {"eval_percent": eval_percent, "test_percent": test_percent}
    chosen = stratified(((share, photo[2]) for share, photo in to_split), **percents) if stratify else None
    for share, photo in to_split:
        split = chosen[share] if chosen is not None else split_of(share, **percents)
        photos[split].append(photo)
        if groups.are_chosen:
            of_group.setdefault(share, Counter())[split] += 1
    for rows in photos.values():
        rows.sort()
    return photos, of_group


def _write_lists(
    output_dir: str, labels: Sequence[str], photos: Mapping[str, Sequence[_Photo]], storage: Storage
) -> tuple[list[str], list[str]]:
    """Writes the lists; returns the paths written, and the paths of lists of earlier runs that were removed.

    Everything is written under other names first, so a full disk or Ctrl-C while that lasts leaves the earlier lists
    as they were. A list without rows is not written, and an earlier one of that name would contradict the others.
    Lists of two runs together may have one photo for training and for evaluation. So the dictionary, without which
    nothing reads the lists, goes before the first of them is replaced, and the new one comes last.
    """
    # The dictionary is written first and moved last.
    contents = {DICT_NAME: "".join(f"{label}\n" for label in labels)}
    for split in SPLITS:
        if photos[split]:
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows((uri, label) for _, uri, label in photos[split])
            contents[f"{split}.csv"] = text.getvalue()
    final = {name: os.path.join(output_dir, name) for name in contents}
    temporary = {name: os.path.join(output_dir, f".{name}.new") for name in contents}
    try:
        for name, content in contents.items():
            with storage.create(temporary[name]) as stream:
                stream.write(content.encode())
        stale = [os.path.join(output_dir, f"{split}.csv") for split in SPLITS if not photos[split]]
        removed = [path for path in stale if storage.match(path)]
        try:
            storage.delete_file(final[DICT_NAME])
            for path in removed:
                storage.delete_file(path)
        except OSError as error:
            raise InputError(f"--output_dir: earlier lists cannot be removed from {output_dir} ({error}).") from error
        for name in reversed(contents):
            storage.move(temporary[name], final[name])
    except OSError as error:
        raise InputError(f"--output_dir: the lists cannot be written to {output_dir} ({error}).") from error
    finally:
        for path in temporary.values():
            with contextlib.suppress(OSError):
                storage.delete_file(path)
    return list(final.values()), removed


def _locked(output_dir: str, storage: Storage) -> contextlib.AbstractContextManager[Lease | FileLock | None]:
    """Locks the output folder, so that it never has lists of two runs; see `preprocess.locks.output_lock.locked`."""
    return locked(
        output_dir.rstrip("/") or ("/" if output_dir else "."),
        holder=this_process(program="pipelines.ingest"),
        flag="--output_dir",
        output=output_dir,
        storage=storage,
    )


def _counts(labels: Sequence[str], photos: Mapping[str, Sequence[_Photo]]) -> dict[str, dict[str, int]]:
    counts = {label: dict.fromkeys(SPLITS, 0) for label in labels}
    for split, rows in photos.items():
        for _, _, label in rows:
            counts[label][split] += 1
    return counts


def _percents(args: argparse.Namespace, given: GivenSplit | None) -> tuple[float, float]:
    """The percentages for evaluation and test; of folders that are split already, only for lists that they lack.

    Raises:
      InputError: a flag says how to split what is split already.
    """
    lists = set(given.lists.values()) if given is not None else set()
    anew = f"Pass --split_folders {POOL} to split all photos anew, or leave the flag out."
    for split, percent in (("eval", args.eval_percent), ("test", args.test_percent)):
        if split in lists and percent is not None:
            raise InputError(
                f"--{split}_percent: {args.image_dir} is split already and has a folder for {split}. {anew}"
            )
    if given is None:
        default_test = _PERCENT
    else:  # A missing test folder is no reason to take photos away from training.
        default_test = 0.0
        if "eval" in lists and not args.test_percent and args.stratify:
            raise InputError(f"--stratify: {args.image_dir} is split already, so nothing is left to choose. {anew}")
    eval_percent = 0.0 if "eval" in lists else _PERCENT if args.eval_percent is None else args.eval_percent
    return eval_percent, default_test if args.test_percent is None else args.test_percent


def _storage_for(uri: str) -> Storage:
    if not has_scheme(uri):
        return LocalStorage()
    from preprocess.storage.router import UriStorage, refuse_web

    refuse_web(uri)
    if is_in_bucket(uri):
        return UriStorage()
    from preprocess.beam.beam_storage import BeamStorage  # here: Beam takes seconds to import

    others = BeamStorage()
    others.require_scheme(uri)
    return others


def _backbone_here() -> tuple[list[str], str]:
    """The flag for a network whose ImageNet weights are on this machine, and why it is given; nothing for the default.

    Nothing is asked of the network: the default network may well be downloaded later.
    """
    from preprocess.backbones.architectures import ARCHITECTURES

    default = PreprocessOptions.backbone
    if default in ARCHITECTURES and ARCHITECTURES[default].imagenet.find():
        return [], ""
    if not ARCHITECTURES[_INSTALLED].imagenet.find():
        return [], ""
    return ["--backbone", _INSTALLED], (
        f"{_INSTALLED}: its weights are on this machine, those of {default} are not. With a network, leave the flag "
        "out of all commands, and they are downloaded once"
    )


@begins_again()
def main(argv: Sequence[str] | None = None, *, storage: Storage | None = None) -> int:
    """Runs the program; `storage` replaces the filesystem of URIs with a scheme.

    Raises:
      InputError: the flags or the folder are wrong.
    """
    args = _parse_args(argv)
    image_dir, output_dir = path_argument(args.image_dir), path_argument(args.output_dir)
    _check_folders(image_dir, output_dir)
    with doing(f"looking for photos in {args.image_dir}", unit="file") as looking:
        if has_scheme(image_dir):
            found = find_stored_images(image_dir, storage or _storage_for(image_dir), looking)
        else:
            found = find_local_images(image_dir, looking)
    folders = None if args.split_folders == CLASSES else find_given_split(found, args.image_dir)
    classes = found if folders is None else folders.found
    given = folders if args.split_folders == KEEP else None
    labels = labels_of(classes, args.image_dir)
    prefix = _uri_prefix(image_dir, output_dir, absolute=args.absolute_uris)
    if not is_listable(prefix):
        raise InputError(f"--image_dir: a path in a list is UTF-8 without line breaks. Received: {prefix!r}.")
    eval_percent, test_percent = _percents(args, given)
    photo_storage = storage if storage and has_scheme(image_dir) else _storage_for(image_dir)
    groups = PhotoGroups(
        args.group_by,
        {folder: classes.images[folder] for folder in labels},
        lambda uri: storage or _storage_for(uri),
        lambda path: read_file(photo_storage, f"{image_dir.rstrip('/')}/{path}"),
    )
    with doing("choosing the list of each photo"):
        photos, of_group = _split(
            classes,
            labels,
            prefix,
            groups=groups,
            given=given,
            eval_percent=eval_percent,
            test_percent=test_percent,
            stratify=args.stratify,
        )
    if not photos["train"]:
        raise InputError(
            f"{args.image_dir}: not one of its {counted(classes.num_images, 'image')} falls to the training "
            "list. Add photos, or lower --eval_percent or --test_percent."
        )
    names = list(labels.values())
    list_storage = storage if storage and has_scheme(output_dir) else _storage_for(output_dir)
    with _locked(output_dir, list_storage) as lock, doing(f"writing the lists into {output_dir}"):
        earlier = read_earlier_lists(output_dir, list_storage)
        written, removed = _write_lists(output_dir, names, photos, fenced(list_storage, lock))
    counts = _counts(names, photos)
    parents: dict[str, list[str]] = {}
    if folders is not None:
        say_given_split(folders, mode=args.split_folders, eval_percent=eval_percent, test_percent=test_percent)
    elif args.split_folders != CLASSES:
        parents = parent_folders(classes)
        say_odd_folders(classes, parents, args.image_dir)
    has_parents = bool(parents)
    say_left_out(classes, has_parents=has_parents)
    say_groups(groups, chosen=args.group_by, of_group=of_group, is_split=given is not None, has_parents=has_parents)
    say_doubts(names, counts, eval_percent=eval_percent, is_split=given is not None, stratify=args.stratify)
    moved = moved_message(earlier, photos)
    if moved is not None:
        print(f"warning: {moved}", file=sys.stderr)
    if has_scheme(output_dir) and not has_scheme(image_dir):
        print(
            "warning: the lists name photos on this machine; workers elsewhere cannot read them.",
            file=sys.stderr,
        )
    for path in removed:
        print(f"note: {path} of an earlier run removed: no image falls to that list now.", file=sys.stderr)
    for flag, percent in (("--eval_percent", args.eval_percent), ("--test_percent", args.test_percent)):
        if percent and percent < 1:
            text = f"{flag} {percent:g} means {percent:g} %; for {100 * percent:g} % pass {flag} {100 * percent:g}"
            print(f"warning: {text}.", file=sys.stderr)
    if not photos["eval"]:
        most = max(sum(of_class.values()) for of_class in counts.values())
        if most < MIN_IMAGES:
            advice = f"Add photos: no class has more than {most}, and each needs at least {MIN_IMAGES}."
        else:
            advice = "Raise --eval_percent" + ("." if args.stratify else ", or pass --stratify.")
        print(f"warning: there is no eval.csv, and training needs one. {advice}", file=sys.stderr)
    print(table(counts))
    print(f"\nwritten: {', '.join(written)}")
    if not photos["eval"]:  # What comes next is to be another run of this program.
        return EXIT_OK
    flags = {
        "--input_path": os.path.join(output_dir, "train.csv"),
        "--input_dict": written[0],
        "--output_path": os.path.join(output_dir, "preproc", "train"),
    }
    backbone, why = _backbone_here()
    if why:
        print(f"network: {why}.")
    print("next:    " + program_command("embed", *(word for pair in flags.items() for word in pair), *backbone))
    print(f"         or all lists at once: {program_command('preproc', '--data_dir', output_dir, *backbone)}")
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
