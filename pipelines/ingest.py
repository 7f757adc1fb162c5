"""Turns a folder of class-named folders of photos into the lists that everything else reads.

`python -m pipelines.ingest --image_dir photos/ --output_dir data/` writes `dict.txt` (the names of the class
folders, sorted, one a line) and `train.csv`, `eval.csv` and `test.csv` with rows `image_uri,label`.

Which list a photo is in depends on its file name alone (`name_share`), so adding photos, relabelling one or
moving the folder moves no photo from one list to another.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import io
import math
import os
import shlex
import sys
import unicodedata
from collections.abc import Mapping, Sequence

from configs.arguments import OneLineParser
from configs.errors import EXIT_OK, InputError
from configs.program import run_program
from pipelines.class_folders import (
    ClassFolders,
    count_of,
    few_of,
    find_local_images,
    find_stored_images,
    heic_hint,
    is_listable,
    labels_of,
)
from preprocess.locks.file_lock import FileLock
from preprocess.locks.lease import Lease
from preprocess.locks.lock_holder import this_process
from preprocess.locks.output_lock import fenced, locked
from preprocess.storage.base import LocalStorage, Storage
from preprocess.storage.uris import has_scheme, is_in_bucket

SPLITS = ("train", "eval", "test")
FEW_IMAGES = 20
_MAX_TABLE_ROWS = 40

# A photo of a list: (share of its name, URI, label). Sorted, such rows are in the order of the list.
_Photo = tuple[float, str, str]


def name_share(name: str) -> float:
    """A hash of a file name in [0, 1): uniformly distributed, and the same on every machine.

    The formula: the first 8 bytes, big-endian, of the SHA-256 of the name (without its folders, in Unicode
    NFC, as UTF-8), shifted right by 11 bits, divided by 2**53. NFC because macOS stores "é" as two code
    points and others as one; 53 bits because a double holds them exactly.
    """
    digest = hashlib.sha256(unicodedata.normalize("NFC", name).encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def split_of(share: float, *, eval_percent: float, test_percent: float) -> str:
    """The list for a name's share: evaluation has the lowest shares, test the highest, training the rest.

    From both ends, so that changing one percentage moves photos between that list and training only.
    """
    if share * 100 < eval_percent:
        return "eval"
    return "test" if (1 - share) * 100 <= test_percent else "train"


def _parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        prog="python -m pipelines.ingest",
        description="Turns a folder of class-named folders of photos into the lists that embedding reads.",
        epilog="The list that a photo goes to depends on its file name alone: adding photos or moving the "
        "folder moves no photo between lists.",
    )
    parser.add_argument("--image_dir", required=True, metavar="DIR", help="folder with one sub-folder for each class")
    parser.add_argument("--output_dir", required=True, metavar="DIR", help="folder for the lists; made if missing")
    parser.add_argument(
        "--eval_percent", type=_percent, default=10.0, metavar="P", help="share for evaluation (default: 10)"
    )
    parser.add_argument(
        "--test_percent",
        type=_percent,
        default=10.0,
        metavar="P",
        help="share for the final test; 0: none (default: 10)",
    )
    parser.add_argument(
        "--absolute_uris",
        action="store_true",
        help="write absolute URIs; the default is relative to the lists where both are local, so that "
        "the folder that holds both can be moved",
    )
    args = parser.parse_args(argv)
    if args.eval_percent + args.test_percent >= 100:
        raise InputError(
            "--eval_percent and --test_percent must add up to less than 100, so that some photos are left to "
            f"train on. Received: {args.eval_percent:g} + {args.test_percent:g}."
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
    found: ClassFolders, labels: Mapping[str, str], prefix: str, *, eval_percent: float, test_percent: float
) -> dict[str, list[_Photo]]:
    """The photos of each list, in the order of the list.

    Lists are in the order of `name_share`, not of class and name: any block of a list is then a fair sample
    of all classes, so that a run that is stopped early, a rate, a time left, or the first N rows mean
    something. New photos slip in between; they never reorder the others.
    """
    photos: dict[str, list[_Photo]] = {split: [] for split in SPLITS}
    for folder, label in labels.items():
        for path in found.images[folder]:
            share = name_share(path.rpartition("/")[2])
            split = split_of(share, eval_percent=eval_percent, test_percent=test_percent)
            photos[split].append((share, prefix + path, label))
    for rows in photos.values():
        rows.sort()
    return photos


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
    contents = {"dict.txt": "".join(f"{label}\n" for label in labels)}
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
            storage.delete_file(final["dict.txt"])
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


def _tell(
    found: ClassFolders, labels: Sequence[str], counts: Mapping[str, Mapping[str, int]], eval_percent: float
) -> None:
    """Prints on standard error which files were left out, and warnings about the classes."""

    def say(kind: str, message: str) -> None:
        print(f"{kind}: {message}", file=sys.stderr)

    if found.others:
        what = "1 file is not an image" if len(found.others) == 1 else f"{len(found.others)} files are not images"
        say("note", f"{what}, left out: {few_of(found.others)}.{heic_hint(found.others)}")
    if found.loose:
        say(
            "warning",
            f"{count_of(len(found.loose), 'image')} in no class folder, left out: {few_of(found.loose)}.",
        )
    if found.unlistable:
        say(
            "warning",
            f"{count_of(len(found.unlistable), 'image')} left out because of the name (not UTF-8, or with a "
            f"line break or a blank at its end): {few_of(found.unlistable)}. Rename to include.",
        )
    empty = [folder for folder, paths in found.images.items() if not paths]
    if empty:
        say("warning", f"{count_of(len(empty), 'folder')} without an image, not a class: {few_of(empty)}.")
    folded: dict[str, str] = {}
    for label in labels:
        other = folded.setdefault(label.casefold(), label)
        if other != label:
            say("warning", f"the classes {other!r} and {label!r} differ in capitals only. Is that meant?")
    total = {label: sum(row.values()) for label, row in counts.items()}
    few = [f"{label} ({total[label]})" for label in labels if total[label] < FEW_IMAGES]
    if few:
        say("warning", f"fewer than {FEW_IMAGES} images, too few to learn or to measure much: {few_of(few)}.")
    untrained = [label for label in labels if not counts[label]["train"]]
    if untrained:
        say(
            "warning",
            f"NO TRAINING IMAGE of {few_of(untrained)}: the model can never learn it. Add photos, or lower "
            "--eval_percent or --test_percent.",
        )
    unevaluated = [label for label in labels if not counts[label]["eval"]]
    if eval_percent and unevaluated:
        say(
            "warning",
            f"no evaluation image of {few_of(unevaluated)}: nothing will be known about it. Add photos, or "
            "raise --eval_percent.",
        )


def _table(counts: Mapping[str, Mapping[str, int]]) -> str:
    rows = [(label, [*row.values(), sum(row.values())]) for label, row in counts.items()]
    totals = [sum(column) for column in zip(*(numbers for _, numbers in rows), strict=True)]
    caption = ""
    if len(rows) > _MAX_TABLE_ROWS:
        caption = f"(the {_MAX_TABLE_ROWS} smallest of {len(rows)} classes)\n"
        rows = sorted(rows, key=lambda row: row[1][-1])[:_MAX_TABLE_ROWS]
    width = max(len(label) for label in ("class", *counts))
    cells: list[tuple[str, Sequence[object]]] = [("class", (*SPLITS, "all")), *rows, ("all", totals)]
    lines = ["  ".join([f"{label:<{width}}", *(f"{number:>7}" for number in row)]) for label, row in cells]
    return caption + "\n".join(lines)


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


def main(argv: Sequence[str] | None = None, *, storage: Storage | None = None) -> int:
    """Runs the program; `storage` replaces the filesystem of URIs with a scheme.

    Raises:
      InputError: the flags or the folder are wrong.
    """
    args = _parse_args(argv)
    image_dir, output_dir = (uri.removeprefix("file://") for uri in (args.image_dir, args.output_dir))
    _check_folders(image_dir, output_dir)
    if has_scheme(image_dir):
        found = find_stored_images(image_dir, storage or _storage_for(image_dir))
    else:
        found = find_local_images(image_dir)
    labels = labels_of(found, args.image_dir)
    prefix = _uri_prefix(image_dir, output_dir, absolute=args.absolute_uris)
    if not is_listable(prefix):
        raise InputError(f"--image_dir: a path in a list is UTF-8 without line breaks. Received: {prefix!r}.")
    photos = _split(found, labels, prefix, eval_percent=args.eval_percent, test_percent=args.test_percent)
    if not photos["train"]:
        raise InputError(
            f"{args.image_dir}: not one of its {count_of(found.num_images, 'image')} falls to the training "
            "list. Add photos, or lower --eval_percent or --test_percent."
        )
    names = list(labels.values())
    list_storage = storage if storage and has_scheme(output_dir) else _storage_for(output_dir)
    with _locked(output_dir, list_storage) as lock:
        written, removed = _write_lists(output_dir, names, photos, fenced(list_storage, lock))
    counts = _counts(names, photos)
    _tell(found, names, counts, args.eval_percent)
    if has_scheme(output_dir) and not has_scheme(image_dir):
        print(
            "warning: the lists name photos on this machine; workers elsewhere cannot read them.",
            file=sys.stderr,
        )
    for path in removed:
        print(f"note: {path} of an earlier run removed: no image falls to that list now.", file=sys.stderr)
    if not photos["eval"]:
        print("warning: there is no eval.csv, and training needs one. Raise --eval_percent.", file=sys.stderr)
    print(_table(counts))
    print(f"\nwritten: {', '.join(written)}")
    flags = {
        "--input_path": os.path.join(output_dir, "train.csv"),
        "--input_dict": written[0],
        "--output_path": os.path.join(output_dir, "preproc", "train"),
    }
    print(
        "next:    python -m pipelines.embed " + " ".join(f"{flag} {shlex.quote(path)}" for flag, path in flags.items())
    )
    print(f"         or all lists at once: python -m pipelines.preproc --data_dir {shlex.quote(output_dir)}")
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
