"""Finds out what a name is the name of, and asks for the state of that: a set, a training, a folder, a row, a photo."""

from __future__ import annotations

import datetime
import os
import posixpath
import re
from collections.abc import Sequence

from configs.counts import counted
from configs.errors import InputError
from pipelines.diagnosis.answer_state import are_answers, explain_answers
from pipelines.diagnosis.folder_state import explain_folder
from pipelines.diagnosis.job_lists import position_in_job
from pipelines.diagnosis.list_rows import ListRow, cells_of, find_rows, nearest_names, row_at
from pipelines.diagnosis.look import NOTICE, UNFINISHED, Answer, Look
from pipelines.diagnosis.places import METRICS_NAME, Places, find_places, is_list_name
from pipelines.diagnosis.row_fate import explain_rows, explain_unlisted_record
from pipelines.diagnosis.set_files import is_set, list_set
from pipelines.diagnosis.set_state import explain_set
from pipelines.diagnosis.table_rows import explain_by_tables, explain_table
from preprocess.answers.answer_files import answers_of_file
from preprocess.images.class_folders import why_left_out
from preprocess.images.formats import format_by_name
from preprocess.records.record_set import REPORT_NAME, definitions_glob, set_of_shard, sidecar_path
from preprocess.storage.uris import has_scheme, is_web, resolve_uri

_ROW = re.compile(r"(?P<list>.+):(?P<line>[1-9]\d*)", re.DOTALL)
_MAX_IMAGES = 5
# Rows of a list from which the folder of class folders is found.
_SAMPLED_ROWS = 50


def explain(what: str, look: Look, look_in: str, around: Look) -> list[Answer]:
    """The answers about a name, mostly one.

    Args:
      what: a photo, LIST:LINE, a set, or a folder.
      look: reads what lies there.
      look_in: the folder in which lists, sets and trainings are looked for.
      around: reads what lies in that folder.

    Raises:
      InputError: nothing is known of the name.
      OSError: storage failed.
    """
    fault: OSError | None = None
    # Of a photo in a bucket, the files of this machine may know, even without a network.
    if not is_web(what) and not (has_scheme(what) and format_by_name(what)):
        try:
            if answer := _explain_place(what, look):
                return [answer]
        except OSError as error:
            if not has_scheme(what):
                raise
            fault = error
    places = find_places("" if look_in == "." else look_in, around)
    _follow_links(places, around)
    row = _ROW.fullmatch(what)
    if table := _table_named(what, places):
        return [explain_table(table, None, places, around)]
    if row and (table := _table_named(row["list"], places)):
        return [explain_table(table, int(row["line"]), places, around)]
    if row and (list_path := _list_named(row["list"], places)):
        return [_explain_row(list_path, int(row["line"]), places, around)]
    if list_path := _list_named(what, places):
        return _explain_list(list_path, places, around)
    rows = find_rows(what, places.lists, around)
    images: dict[str, list[ListRow]] = {}
    for found in rows:
        images.setdefault(os.path.realpath(found.location), []).append(found)
    if len(images) > _MAX_IMAGES:
        some = ", ".join(of_image[0].uri for of_image in list(images.values())[:_MAX_IMAGES])
        raise InputError(f"{what}: fits {counted(len(images), 'image')} or more, such as {some}. Name one of them.")
    if images:
        return [explain_rows(of_image, places, around) for of_image in images.values()]
    if answer := explain_unlisted_record(what, places, around):
        return [answer]
    if answer := explain_by_tables(what, places, around):
        return [answer]
    if not has_scheme(what) and os.path.lexists(what) and not os.path.isdir(what):
        return [_explain_unlisted(what, places, around)]
    if fault is not None:
        raise fault
    raise _nothing_known(what, look_in, places, around)


def _explain_place(what: str, look: Look) -> Answer | None:
    """The answer about a set or a folder; None if the name is that of neither."""
    folder, name = posixpath.split(what)
    prefixes = [what, posixpath.join(folder, name[1:])] if name.startswith("_") else [what]
    if prefix := set_of_shard(what):
        prefixes.append(prefix)
    if answers := answers_of_file(what):
        prefixes.append(answers)
    for prefix in prefixes:
        if are_answers(prefix, look):
            return explain_answers(prefix, look)
        if is_set(prefix, look):
            return explain_set(prefix, look)
    if has_scheme(what):
        return explain_folder(what, find_places(what, look), look)
    if not os.path.isdir(what):
        return None
    answer = explain_folder(what, find_places("" if what == "." else what, look), look)
    if answer is None:
        raise InputError(f"{what}: no list, set or training lies in this folder. Name a photo, or another folder.")
    return answer


def _follow_links(places: Places, look: Look) -> None:
    """Adds the sets that trainings name and the lists that sets name, wherever they lie on this machine."""
    for folder in places.trainings:
        metrics = look.json(posixpath.join(folder, METRICS_NAME)) or {}
        named = metrics.get("record_sets")
        for prefixes in named.values() if isinstance(named, dict) else ():
            for prefix in prefixes if isinstance(prefixes, list) else ():
                if isinstance(prefix, str) and not _is_among(prefix, places.sets) and is_set(prefix, look):
                    places.sets.append(prefix)
    for prefix in places.sets:
        paths = [
            sidecar_path(prefix, REPORT_NAME),
            *look.storage.match(definitions_glob(prefix)),
        ]
        for path in paths:
            data = look.json(path) or {}
            definition = data.get("definition", data)
            lists = definition.get("input_path") if isinstance(definition, dict) else None
            for entry in lists if isinstance(lists, list) else ():
                list_path = entry[0] if isinstance(entry, list) and entry else None
                if (
                    isinstance(list_path, str)
                    and not has_scheme(list_path)
                    and not _is_among(list_path, places.lists)
                    and os.path.isfile(list_path)
                ):
                    # A table that somebody embedded is a list, too.
                    same = [path for path in places.tables if os.path.realpath(path) == os.path.realpath(list_path)]
                    for path in same:
                        del places.tables[path]
                    places.lists.append(same[0] if same else list_path)


def _is_among(path: str, paths: Sequence[str]) -> bool:
    return os.path.realpath(path) in map(os.path.realpath, paths)


def _table_named(name: str, places: Places) -> str | None:
    if not has_scheme(name) and os.path.isfile(name):
        return next((path for path in places.tables if os.path.realpath(path) == os.path.realpath(name)), None)
    return next((path for path in places.tables if path.endswith(f"/{name}")), None)


def _list_named(name: str, places: Places) -> str | None:
    if not is_list_name(posixpath.basename(name)):
        return None
    if not has_scheme(name) and os.path.isfile(name):
        return name
    return next((path for path in places.lists if path == name or path.endswith(f"/{name}")), None)


def _explain_list(list_path: str, places: Places, look: Look) -> list[Answer]:
    """The answers about the sets of a list."""
    of_list = []
    for prefix in places.sets:
        definitions = [(look.json(sidecar_path(prefix, REPORT_NAME)) or {}).get("definition")]
        definitions += [work.definition for work in list_set(prefix, look).works]
        if any(position_in_job(list_path, {"definition": found}, look) is not None for found in definitions):
            of_list.append(explain_set(prefix, look))
    return of_list or [Answer(f"{list_path}: is not embedded: no set of this list is found", weight=UNFINISHED)]


def _explain_row(list_path: str, line: int, places: Places, look: Look) -> Answer:
    row = row_at(list_path, line, look)
    if row is None:
        raise InputError(f"{list_path}:{line}: the list has fewer lines.")
    return explain_rows([row], places, look)


# Photos in no list.


def _explain_unlisted(path: str, places: Places, look: Look) -> Answer:
    if not places.lists:
        return Answer(
            f"{path}: is a file, and no list is found that could name it (--in names another folder)", weight=NOTICE
        )
    for list_path in places.lists:
        for image_dir in _image_dirs(list_path, look):
            relative = os.path.relpath(os.path.realpath(path), image_dir)
            if relative.startswith(os.pardir):
                continue
            answer = Answer("", weight=UNFINISHED)
            why = why_left_out(image_dir, relative)
            if why is not None:
                answer.headline = f"{path}: is in no list, because hugs ingest leaves it out: {why}"
            elif _time_of(path) > _time_of(list_path):
                answer.headline = (
                    f"{path}: is in no list: it came after the lists were written, on {_when(path)} (they were on "
                    f"{_when(list_path)}). hugs ingest takes it if it is run again"
                )
            else:
                answer.headline = (
                    f"{path}: is in no list, and why is not written down: hugs ingest takes such a file, which was "
                    f"there on {_when(path)}"
                )
            answer.add("lists", ", ".join(places.lists[:4]), list_path)
            answer.add("folder", f"the lists were made of {image_dir}")
            return answer
    lists = ", ".join(places.lists[:4])
    return Answer(
        f"{path}: is in none of the lists that were found, and lies outside of their folders: {lists}", weight=NOTICE
    )


def _image_dirs(list_path: str, look: Look) -> list[str]:
    """The folders of class folders that a list seems to be made of: those above a folder that is named as the label."""
    found: dict[str, None] = {}
    with look.storage.open(list_path) as stream:
        for line, _ in zip(stream, range(_SAMPLED_ROWS), strict=False):
            cells = cells_of(line.rstrip(b"\r\n"), list_path)
            if len(cells) < 2 or has_scheme(location := resolve_uri(cells[0], list_path)):
                continue
            parts = os.path.realpath(location).split("/")
            if cells[1] in parts[:-1]:
                found["/".join(parts[: parts.index(cells[1])])] = None
    return list(found)


def _time_of(path: str) -> float:
    """When a file was written, or came to its place."""
    there = os.lstat(path)
    return max(there.st_mtime, there.st_ctime)


def _when(path: str) -> str:
    return f"{datetime.datetime.fromtimestamp(_time_of(path), datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"


def _nothing_known(what: str, look_in: str, places: Places, look: Look) -> InputError:
    where = "the current folder" if look_in == "." else look_in
    if not (places.lists or places.sets or places.trainings):
        return InputError(
            f"{what}: there is no such file or folder, and no list, set or training is found in {where}. --in names "
            "another folder."
        )
    near = nearest_names(what, places.lists, look)
    near += [path for path in (*places.sets, *places.trainings) if posixpath.basename(path) == posixpath.basename(what)]
    hint = f" Near it: {', '.join(near[:5])}." if near else ""
    seen = f"{counted(len(places.lists), 'list')}, {counted(len(places.sets), 'set')} and "
    seen += counted(len(places.trainings), "training")
    cut = "" if places.whole else " The folder is large, and not all of it was looked at: --in names a smaller one."
    gone = "" if has_scheme(what) or os.path.lexists(what) else "there is no such file or folder, and "
    return InputError(f"{what}: {gone}nothing is known of it in {where} ({seen}).{hint}{cut}")
