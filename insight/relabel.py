"""Applies corrections to a list of labelled images, so that the next embedding and every other tool reads right labels.

Usage: python -m insight.relabel --input_path data/train.csv --input_dict data/dict.txt --corrections corrections.csv
--output_path data/train-corrected.csv --data_paths data/preproc/train
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import posixpath
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from configs.console import require_printed
from configs.counts import counted
from configs.csv_text import csv_writer
from configs.errors import EXIT_OK, InputError
from configs.option import REQUIRED, Options, option, same_option
from configs.program import run_program
from configs.rules import Text
from insight.options import PageOptions, SetOptions, parse_options
from preprocess.storage.uris import has_scheme, resolve_uri
from trainer.options import Path
from trainer.storage.files import cause_of, storage

if TYPE_CHECKING:
    from preprocess.lists.corrections import Correction, Corrections
    from preprocess.lists.labels import LabelDict
    from preprocess.lists.rows import Row


@dataclasses.dataclass(frozen=True, kw_only=True)
class RelabelOptions(Options):
    """The options of the program.

    Raises:
      InputError: a value breaks its rule.
    """

    prefix = "--"

    input_path: str = option(
        REQUIRED,
        Path("a file", "read"),
        help="the list, in any format that embed reads",
        decides="neither",
        metavar="LIST",
    )
    input_dict: str = option(
        REQUIRED, Path("a file", "read"), help="its dict.txt: one label a line", decides="neither", metavar="FILE"
    )
    corrections: str = option(
        REQUIRED,
        Path("a file", "read"),
        help="CSV of corrections, as the page of `hugs audit` downloads it",
        decides="neither",
        metavar="FILE",
    )
    output_path: str = option(
        REQUIRED,
        Path("a file", "written"),
        help="the corrected list, a CSV of rows image_uri,label[,label...]; beside it a ledger of what was changed",
        decides="neither",
        metavar="LIST",
    )
    data_paths: tuple[str, ...] = same_option(
        SetOptions,
        "data_paths",
        default=(),
        help="record sets that were made of the list: they know the content of each photo, so corrections find it also "
        "under another name; without them photos are found by their URIs",
    )
    by: str = option(
        "",
        Text(anything=True),
        help="who decided, for corrections that do not say it",
        decides="neither",
        metavar="NAME",
    )
    overwrite: bool = same_option(PageOptions, "overwrite")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program with the arguments; see the module's docstring.

    Raises:
      InputError: the user's input is wrong.
    """
    options = parse_options(
        argv,
        RelabelOptions,
        module="insight.relabel",
        description="Applies corrections to a list of labelled images. Nothing is embedded.",
    )
    from insight.pages.output_folder import OutputFolder
    from preprocess.lists.labels import parse_label_dict
    from trainer.data.corrected import read_corrections

    folder, name = posixpath.split(options.output_path)
    if not name:
        raise InputError(f"--output_path: must name a file, not a folder. Received: {options.output_path!r}.")
    ledger = f"{name}.corrections.jsonl"
    output = OutputFolder(folder, [name, ledger], overwrite=options.overwrite)
    labels = parse_label_dict(_read(options.input_dict, "input_dict"), where=options.input_dict)
    corrections = read_corrections(options.corrections, labels=labels.names, by=options.by)
    digests = _digests(options.data_paths, options.input_path) if options.data_paths else {}
    lookup = _Lookup(corrections, digests, options.input_path)
    # A relative URI belongs to the folder of its list.
    moved = posixpath.dirname(options.input_path) != folder
    entries = []
    counts = dict.fromkeys(("rows", "changed", "removed", "already"), 0)
    with output.text(name) as stream:
        writer = csv_writer(stream)
        for row in _rows(options.input_path, labels):
            counts["rows"] += 1
            found = lookup.find(row)
            said = row.labels
            if found is not None:
                already = found.action == "change" and set(found.labels) == set(row.labels)
                counts["already" if already else "removed" if found.action == "remove" else "changed"] += 1
                entries.append(_entry(row, found, digests.get(resolve_uri(row.uri, options.input_path))))
                if found.action == "remove":
                    continue
                said = found.labels
            writer.writerow([_moved(row.uri, options.input_path, folder) if moved else row.uri, *said])
    output.write(ledger, "".join(f"{json.dumps(entry, ensure_ascii=False)}\n" for entry in entries))
    unmatched = lookup.unmatched()
    if unmatched:
        first = unmatched[0]
        hint = (
            "" if options.data_paths else ". --data_paths names record sets, by which photos are found by their content"
        )
        print(
            f"warning: {counted(len(unmatched), 'correction')} of {options.corrections} matched no row of "
            f"{options.input_path}, such as line {first.line} ({first.uri or first.digest.hex()}){hint}",
            file=sys.stderr,
        )
    print(
        f"{counted(counts['rows'], 'row')}: {counted(counts['changed'], 'label')} changed, "
        f"{counted(counts['removed'], 'row')} removed, {counted(counts['already'], 'label')} right already"
    )
    print(f"written: {output.path(name)}, {output.path(ledger)}")
    require_printed()
    return EXIT_OK


def _moved(uri: str, list_path: str, folder: str) -> str:
    """The URI by which a list in another folder names a photo of a list. A URI that is not relative stays as it is."""
    location = resolve_uri(uri, list_path)
    if has_scheme(uri) or uri.startswith("/") or has_scheme(location):
        return uri if uri.startswith("/") else location
    parent, name = posixpath.split(location)
    return posixpath.join(_seen_from(folder, parent, list_path), name)


@functools.lru_cache(maxsize=4096)  # Lists have few folders and many photos.
def _seen_from(folder: str, parent: str, list_path: str) -> str:
    """The shortest path from a folder to that of a photo: relative if those of both lists are; "" for the same one."""
    if any(has_scheme(path) or posixpath.isabs(path) for path in (folder, list_path)):
        shortest, whole = posixpath.abspath(parent), posixpath.abspath(parent)
    else:
        shortest = posixpath.relpath(parent or ".", folder or ".")
        whole = posixpath.join(folder, shortest)
    # ".." leads elsewhere after a link to a folder.
    if posixpath.realpath(whole) != posixpath.realpath(parent):
        return posixpath.join(os.getcwd(), parent)
    return "" if shortest == "." else shortest


class _Lookup:
    """Finds the correction of a row: by the content of its photo where that is known, else by its URI."""

    def __init__(self, corrections: Corrections, digests: Mapping[str, bytes], list_path: str):
        self._corrections = corrections
        self._digests = digests
        self._list_path = list_path
        self._by_location: dict[str, Correction] = {}
        self._used: set[int] = set()
        for entry in corrections:
            if entry.uri:
                other = self._by_location.setdefault(resolve_uri(entry.uri, list_path), entry)
                if other.decision != entry.decision and not digests:
                    raise InputError(
                        f"{corrections.path}:{entry.line}: names {entry.uri}, as line {other.line} does, and says "
                        "something else of another content. Give --data_paths, which tells the contents apart."
                    )

    def find(self, row: Row) -> Correction | None:
        location = resolve_uri(row.uri, self._list_path)
        digest = self._digests.get(location)
        if digest is None:
            found = self._by_location.get(location)
        else:
            found = self._corrections.by_digest.get(digest) or self._corrections.by_uri.get(row.uri)
        if found is not None:
            self._used.add(id(found))
        return found

    def unmatched(self) -> list[Correction]:
        """The corrections that no row had."""
        return [entry for entry in self._corrections if id(entry) not in self._used]


def _entry(row: Row, found: Correction, digest: bytes | None) -> dict[str, Any]:
    return {
        "image_uri": row.uri,
        "image_sha256": (digest or found.digest).hex(),
        "action": found.action,
        "was": list(row.labels),
        "is": list(found.labels) if found.action == "change" else None,
        "by": found.by,
        "when": found.when,
        "list_line": row.line,
        "line": found.line,
    }


def _read(path: str, flag: str) -> bytes:
    try:
        return storage().read(path)
    except OSError as error:
        raise InputError(f"--{flag}: cannot read {path}: {cause_of(error)}.") from error


def _rows(path: str, labels: LabelDict) -> Iterator[Row]:
    """The rows of the list that name a photo.

    Raises:
      InputError: the list cannot be read, a label is not in the dictionary, or a row names no photo.
    """
    from preprocess.lists.opened_list import open_list
    from preprocess.lists.outcomes import RowFailure
    from preprocess.lists.rows import parse_rows

    try:
        with storage().open(path) as stream:
            opened = open_list(stream, list_path=path, labels=labels)
            rows = parse_rows(
                opened.content, list_path=path, labels=labels, unknown_labels="fail", list_format=opened.list_format
            )
            for row in rows:
                if isinstance(row.outcome, RowFailure):
                    raise InputError(f"{row.outcome.message.rstrip('.')}. Correct this row first.")
                if row.outcome is None:
                    yield row
    except OSError as error:
        raise InputError(f"--input_path: cannot read {path}: {cause_of(error)}.") from error


def _digests(paths: Sequence[str], list_path: str) -> dict[str, bytes]:
    """The first 16 bytes of the SHA-256 of each photo of some sets, by the location of the photo."""
    from trainer.data.photos import lists_of_sets
    from trainer.data.record_sets import find_record_sets
    from trainer.data.shard_reader import read_shards

    found: dict[str, bytes] = {}
    for record_set in find_record_sets(paths, flag="data_paths"):
        lists = lists_of_sets([record_set]) or (list_path,)
        for shard_records in read_shards([(record_set, shard) for shard in record_set.manifest.shards]):
            for records in shard_records:
                for uri, digest in zip(records.uris, records.image_digests, strict=True):
                    if digest.any():
                        for of_list in lists:
                            found[resolve_uri(uri, of_list)] = digest.tobytes()
    return found


if __name__ == "__main__":
    run_program(main)
