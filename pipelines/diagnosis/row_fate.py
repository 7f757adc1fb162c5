"""The fate of one row of a list: read, decoded, embedded or not, and why; its duplicates; what models take it for."""

from __future__ import annotations

import csv
import json
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from configs.counts import counted
from configs.errors import InputError
from configs.list_names import DICT_NAME, SPLITS
from pipelines.diagnosis.job_lists import has_changed, position_in_job, same_name
from pipelines.diagnosis.list_rows import ListRow, find_rows
from pipelines.diagnosis.look import BROKEN, FINE, NOTICE, UNFINISHED, Answer, Look, objects_in, short
from pipelines.diagnosis.next_commands import command_of_definition, command_of_note
from pipelines.diagnosis.places import METRICS_NAME, PREDICTIONS_NAME, SHARED_TABLE_NAME, Places
from pipelines.diagnosis.set_files import SetFiles, Work, list_set, read_set
from pipelines.diagnosis.shard_bytes import holds
from pipelines.diagnosis.stops import holder_of, what_stopped
from pipelines.diagnosis.table_rows import tell_tables
from preprocess.jobs.job import JOURNAL_NAME
from preprocess.lists.labels import parse_label_dict
from preprocess.records.record_set import FAILED_NAME, MANIFEST_NAME, REPORT_NAME, SKIPPED_NAME, sidecar_path
from preprocess.storage.base import has_file
from preprocess.storage.uris import has_scheme

_DUPLICATES_NAME = "duplicates.jsonl"
_SHARED_NAME = "shared_images.jsonl"
_MAX_ENTRIES = 200
_MAX_OTHERS = 4
_SCORE_COLUMNS = "score_"
_RETRY = "--retry_failures"


def explain_rows(rows: Sequence[ListRow], places: Places, look: Look) -> Answer:
    """The fate of an image, by the rows that name it.

    Args:
      rows: rows of one image, at least one. Rows of several lists, or several rows of one, are told together.
      places: the sets, trainings and lists to look at.
      look: reads them.

    Raises:
      OSError: storage failed.
    """
    fate = _Fate(rows, places, look)
    return fate.tell()


class _Fate:
    """Collects what is known of one image.

    Attributes:
      problems: (weight, end of a sentence), for the headline.
      news: the end of a sentence each, for the headline if there are no problems.
    """

    def __init__(self, rows: Sequence[ListRow], places: Places, look: Look):
        self._rows = rows
        self._places = places
        self._look = look
        self._answer = Answer("")
        self.problems: list[tuple[int, str]] = []
        self.news: list[str] = []
        self._held_by: list[str] = []

    def tell(self) -> Answer:
        answer, first = self._answer, self._rows[0]
        for row in self._rows:
            labels = ", ".join(map(repr, row.labels)) or "none"
            answer.add("list", f"{row.place}: label {labels}" if row.uri else f"{row.place}: no image", row.list_path)
        of_sets = self._tell_sets()
        self._compare_lists(of_sets)
        self._tell_leaks()
        tell_tables(self._answer, self._rows, self._places, self._look)
        if first.uri:
            for uri in dict.fromkeys(row.uri for row in self._rows):
                for folder in self._places.trainings:
                    self._tell_training(uri, folder)
        return self._concluded(first.uri or first.place, or_else="it stands in a list, and nothing more is known")

    def tell_without_list(self) -> Answer | None:
        """What sets and trainings say of an image that no list names; None if they do not name it."""
        (row,) = self._rows
        for prefix in self._places.sets:
            for path in list_set(prefix, self._look).shards if self._look.has_time else ():
                if self._look.has_time and holds(path, row.uri, self._look):
                    self._answer.add("embedded", f"in the set {prefix}", path)
                    self.news.append(f"it is embedded, in {prefix}, and no list that was found names it")
                    break
            self._tell_content(row, prefix)
        for folder in self._places.trainings:
            self._tell_training(row.uri, folder)
        return self._concluded(row.uri, or_else="") if self.problems or self.news else None

    def _concluded(self, called: str, *, or_else: str) -> Answer:
        self.problems.sort(key=lambda problem: -problem[0])
        if self._held_by:
            self.news.insert(0, f"it is embedded, in {' and '.join(dict.fromkeys(self._held_by))}")
        words = [text for _, text in self.problems] or self.news or [or_else]
        self._answer.headline = f"{called}: {'; '.join(dict.fromkeys(words))}"
        self._answer.weight = self.problems[0][0] if self.problems else FINE
        return self._answer

    def _problem(self, weight: int, text: str) -> None:
        self.problems.append((weight, text))

    # Lists.

    def _compare_lists(self, rows: Sequence[ListRow]) -> None:
        """Compares the rows that count: those of lists that became sets, if there are any."""
        by_list: dict[str, list[ListRow]] = {}
        for row in rows:
            by_list.setdefault(row.list_path, []).append(row)
        if len({tuple(sorted(row.labels)) for row in rows}) > 1:
            named = " and ".join(f"{', '.join(map(repr, row.labels)) or 'none'} ({row.place})" for row in rows[:4])
            self._problem(NOTICE, f"its rows have different labels: {named}")
        elif (times := max(map(len, by_list.values()), default=0)) > 1:
            self._problem(NOTICE, f"it stands {times} times in its list")

    # Sets.

    def _tell_sets(self) -> list[ListRow]:
        """Tells what sets say of the rows. Returns the rows of lists that became sets; if none did, all own ones."""
        of_sets: list[ListRow] = []
        without: list[ListRow] = []
        unclear: dict[str, SetFiles] = {}
        for row in self._rows:
            found = False
            for prefix in self._places.sets:
                files = list_set(prefix, self._look)
                found |= self._tell_set(row, files)
                if not self._names_its_lists(files):
                    unclear[prefix] = files
            (of_sets if found else without).append(row)
        own = [row for row in without if not self._ledger_of(row.list_path)] or without
        for path in dict.fromkeys(row.list_path for row in without):
            ledger = self._ledger_of(path)
            if ledger or of_sets:
                by = "hugs relabel wrote this corrected list, and " if ledger else ""
                self._answer.add("no set", f"{path}: {by}no set is made of it", ledger or path)
        if of_sets or self._is_in(unclear.values()):
            return of_sets or own
        for path in dict.fromkeys(row.list_path for row in own):
            if unclear:
                self._problem(UNFINISHED, f"no set of {path} is found; of {', '.join(unclear)} no list is known")
            else:
                self._problem(UNFINISHED, f"it is not embedded: no set of {path} is found")
                for row in own:
                    if row.list_path == path:
                        self._tell_what_would_come(row)
        return own

    def _ledger_of(self, list_path: str) -> str | None:
        """The file in which `hugs relabel` says what it changed in a list that it wrote; None for other lists."""
        path = f"{list_path}.corrections.jsonl"
        return path if has_file(self._look.storage, path) else None

    def _is_in(self, sets: Iterable[SetFiles]) -> bool:
        """Whether one of some sets, of whose lists nothing is known, holds the photo under the name of a row."""
        for files in sets:
            for path in files.shards if self._look.has_time else ():
                if any(row.uri and holds(path, row.uri, self._look) for row in self._rows):
                    self._answer.add("embedded", f"in the set {files.prefix}", path)
                    self._held_by.append(files.prefix)
                    break
        return bool(self._held_by)

    def _tell_leaks(self) -> None:
        """Tells where the record is in a set that is trained on and in one that the same model is measured on."""
        held = {os.path.realpath(prefix): prefix for prefix in self._held_by}
        leaks: list[str] = []
        for folder in self._places.trainings:
            named = (self._look.json(posixpath.join(folder, METRICS_NAME)) or {}).get("record_sets")
            found: dict[str, list[str]] = {}
            for use, prefixes in named.items() if isinstance(named, dict) else ():
                for prefix in prefixes if isinstance(prefixes, list) else ():
                    if isinstance(prefix, str) and os.path.realpath(prefix) in held:
                        found.setdefault(use, []).append(prefix)
            if len(found) > 1 and "train" in found:
                sets = " and ".join(held[os.path.realpath(prefix)] for inner in found.values() for prefix in inner)
                leaks.append(
                    f"it stands in several lists, {' and '.join(found)}, and in their sets {sets}, so the model of "
                    f"{folder} is measured on what it has seen"
                )
        by_folder: dict[str, set[str]] = {}
        for prefix in self._held_by:
            by_folder.setdefault(posixpath.dirname(prefix), set()).add(posixpath.basename(prefix))
        for folder, names in by_folder.items():
            used = [name for name in SPLITS if name in names]
            if not leaks and len(used) > 1 and "train" in used:
                sets = " and ".join(posixpath.join(folder, name) for name in used)
                leaks.append(
                    f"it stands in several lists, {' and '.join(used)}, and in their sets {sets}, so a model of them "
                    "is measured on what it has seen"
                )
        # It is the gravest of what is only noticed.
        self.problems[:0] = [(NOTICE, leak) for leak in leaks]

    def _names_its_lists(self, files: SetFiles) -> bool:
        """Whether it can be read of which lists a set is."""
        definitions = [(self._look.json(sidecar_path(files.prefix, REPORT_NAME)) or {}).get("definition")]
        definitions += [work.definition for work in files.works]
        return any(isinstance(found, dict) and isinstance(found.get("input_path"), list) for found in definitions)

    def _tell_what_would_come(self, row: ListRow) -> None:
        """Tells what can be seen of a row of a list that nobody has embedded: a run may have refused it."""
        dictionary = posixpath.join(posixpath.dirname(row.list_path), DICT_NAME)
        raw = self._look.read(dictionary)
        try:
            known = parse_label_dict(raw, where=dictionary) if raw is not None else None
        except InputError:
            known = None
        # In a list with further columns, not every cell is a label.
        if known is not None and len(row.labels) == 1 and known.id_of(row.labels[0]) is None:
            self._problem(
                UNFINISHED, f"its label {row.labels[0]!r} is not in {dictionary}, so hugs embed refuses the list"
            )
            self._answer.add("labels", f"the dictionary has {counted(len(known), 'label')}", dictionary)
        if row.uri and not has_scheme(row.location) and not os.path.lexists(row.location):
            self._problem(UNFINISHED, f"there is no file {row.location}")

    def _tell_set(self, row: ListRow, files: SetFiles) -> bool:
        """Tells what a set says of a row. Returns whether the set is one of the row's list."""
        prefix, look = files.prefix, self._look
        report = look.json(sidecar_path(prefix, REPORT_NAME)) or {}
        told = False
        if (index := position_in_job(row.list_path, report, look)) is not None:
            told = True
            if not self._tell_outcome(row, sidecar_path(prefix, "")):
                self._tell_embedded(row, files, report, index)
            elif files.has(MANIFEST_NAME):
                self._add_retry(row, prefix, report)
            self._tell_content(row, prefix)
        for work in files.works:
            if (index := position_in_job(row.list_path, {"definition": work.definition}, look)) is None:
                continue
            already = told and files.has(MANIFEST_NAME)
            told = True
            if not already:
                self._tell_work(row, files, work, index)
        return told

    def _tell_outcome(self, row: ListRow, folder: str) -> bool:
        """Whether the row failed or was skipped; then it tells so."""
        for name in (FAILED_NAME, SKIPPED_NAME):
            path = posixpath.join(folder, name)
            if entry := self._entry_of(row, path):
                self._tell_entry(entry, path)
                return True
        return False

    def _entry_of(self, row: ListRow, path: str) -> Mapping[str, Any] | None:
        needle = f'"uri": {json.dumps(row.uri, ensure_ascii=False)}' if row.uri else f'"line": {row.line},'
        lines = self._look.lines_with(path, needle.encode("utf-8", "surrogateescape"), at_most=_MAX_ENTRIES)
        for entry in objects_in(line for _, line in lines):
            is_it = entry.get("uri") == row.uri and entry.get("line") == row.line
            if is_it and same_name(str(entry.get("list")), row.list_path):
                return entry
        return None

    def _tell_entry(self, entry: Mapping[str, Any], path: str) -> None:
        message = short(str(entry.get("message")))
        if "reason" in entry:
            stage, reason = entry.get("stage"), entry["reason"]
            self._problem(BROKEN, f"it was not embedded, because it failed ({stage}, {reason}): {message}")
            self._answer.add("failed", f"while the stage {stage!r} worked on it: {reason}", path)
        else:
            self._problem(BROKEN, f"its row was skipped by a rule, {entry.get('rule')}: {message}")
            self._answer.add("skipped", f"by the rule {entry.get('rule')}", path)

    def _add_retry(self, row: ListRow, prefix: str, report: Mapping[str, Any]) -> None:
        entry = self._entry_of(row, sidecar_path(prefix, FAILED_NAME))
        if entry is None:
            return
        if entry.get("reason") == "not_found" and os.path.isfile(row.location):
            self._answer.add("now", f"the file {row.location} is there")
        command, _ = command_of_definition(
            report.get("definition") or {}, prefix, self._look, _RETRY, str(entry.get("reason"))
        )
        if command:
            self._answer.commands.append(("try again", command))

    def _tell_embedded(self, row: ListRow, files: SetFiles, report: Mapping[str, Any], index: int) -> None:
        prefix, look = files.prefix, self._look
        definition = report.get("definition") or {}
        try:
            manifest, _ = read_set(prefix, look)
        except InputError as error:
            self._problem(UNFINISHED, f"its set {prefix} cannot be used: {error}")
            return
        per_block = definition.get("rows_per_shard")
        block = (row.line - 1) // per_block if isinstance(per_block, int) and per_block > 0 else 0
        names = [_shard_of(prefix, index, near, look) for near in (block, block - 1) if near >= 0]
        folder = posixpath.dirname(prefix)
        candidates = [posixpath.join(folder, name) for name in names if name]
        # Rows whose fields hold line breaks, and lists that have changed, move rows to other blocks.
        likely = list(candidates)
        candidates += [posixpath.join(folder, shard.name) for shard in manifest.shards]
        gone, is_cut = [], False
        for path in dict.fromkeys(candidates):
            if path not in files.shards:
                gone.append(path)
            elif holds(path, row.uri, look):
                self._answer.add("embedded", f"in the set {prefix}", path)
                self._held_by.append(prefix)
                return
            if path not in likely and not look.has_time:
                is_cut = True
                break
        changed = has_changed(row.list_path, definition, look)
        if gone and gone[0] in likely and not changed:
            self._problem(BROKEN, f"it was embedded, but the shard that held it is gone: {gone[0]}")
        elif is_cut or gone:
            self.news.append(
                f"the set {prefix} of its list is finished, and it is neither failed nor skipped there; its record was "
                f"not found in the shards that were read{', and some are gone' * bool(gone)}"
            )
        elif changed:
            self._problem(
                UNFINISHED, f"it is not in the set {prefix}: the list {row.list_path} has changed since it was embedded"
            )
        else:
            self._problem(BROKEN, f"it is neither in {prefix} nor in its lists of failed and skipped rows")

    def _tell_work(self, row: ListRow, files: SetFiles, work: Work, index: int) -> None:
        """Tells what unfinished work says of a row."""
        look, prefix = self._look, files.prefix
        if work.failed is not None and self._tell_outcome(row, work.folder):
            self._add_command(work)
            return
        per_block = (work.definition or {}).get("rows_per_shard")
        block = (row.line - 1) // per_block if isinstance(per_block, int) and per_block > 0 else 0
        start = posixpath.join(work.folder, f"{index:05d}-{block:07d}-")
        parts = sorted(path for path in work.sizes if path.startswith(start))
        for path in parts:
            is_ledger = ".failed.jsonl" in path or ".skipped.jsonl" in path
            if is_ledger and (entry := self._entry_of(row, path)):
                self._tell_entry(entry, path)
                self._add_command(work)
                return
        holder = holder_of(sidecar_path(prefix, ".lock"), look)
        if holder is not None and holder.lives:
            why = f"its set {prefix} {holder.is_writing}"
        elif work.failed is not None:
            why = f"the job of its set {prefix} failed: {short(str(work.failed.get('error')))}"
        else:
            stop = what_stopped(work.note, work.folder, has_lock=holder is not None)
            why = f"its set {prefix} is not finished: {stop.words}"
        held = next((path for path in parts if ".tfrecord" in path and row.uri and holds(path, row.uri, look)), None)
        if held:
            self._problem(UNFINISHED, f"it is embedded already, but {why}")
            self._answer.add("embedded", "in the unfinished work, which is kept", held)
        else:
            self._problem(UNFINISHED, f"it is not embedded yet: {why}")
        self._add_command(work)

    def _add_command(self, work: Work) -> None:
        if work.note and (command := command_of_note(work.note)):
            entry = ("to go on", command)
            if entry not in self._answer.commands:
                self._answer.commands.append(entry)

    # The same image elsewhere.

    def _tell_content(self, row: ListRow, prefix: str) -> None:
        if not row.uri:
            return
        needle = json.dumps(row.uri, ensure_ascii=False).encode("utf-8", "surrogateescape")
        path = sidecar_path(prefix, _DUPLICATES_NAME)
        for entry in objects_in(line for _, line in self._look.lines_with(path, needle, at_most=1)):
            uris = [str(uri) for uri in entry.get("uris") or ()]
            others = [uri for uri in uris if uri != row.uri]
            repeated = uris.count(row.uri) - 1
            named = ", ".join(map(self._with_label, others[:_MAX_OTHERS]))
            named += f" and {len(others) - _MAX_OTHERS} more" if len(others) > _MAX_OTHERS else ""
            where = f"as {named}" if others else f"in {repeated + 1} rows"
            kind = "with the same labels" if entry.get("same_labels") else "under different labels"
            self._problem(NOTICE, f"the same image is in {prefix} more than once, {kind}, {where}")
            self._answer.add("duplicates", f"{len(uris)} records of this image, {kind}", path)
        path = sidecar_path(prefix, _SHARED_NAME)
        for entry in objects_in(line for _, line in self._look.lines_with(path, needle, at_most=_MAX_OTHERS)):
            if entry.get("uri") == row.uri:
                self._problem(NOTICE, f"the same image is also in the set {entry.get('also_in')}")
                self._answer.add("shared", f"with {entry.get('also_in')}", path)

    def _with_label(self, uri: str) -> str:
        rows = find_rows(uri, [row.list_path for row in self._rows], self._look) if self._look.has_time else []
        labels = {label for row in rows if row.uri == uri for label in row.labels}
        return f"{uri} ({', '.join(map(repr, sorted(labels)))})" if labels else uri

    # Trainings.

    def _tell_training(self, uri: str, folder: str) -> None:
        metrics = self._look.json(posixpath.join(folder, METRICS_NAME))
        if metrics is None:
            return
        path = posixpath.join(folder, SHARED_TABLE_NAME)
        for entry in self._table(path, uri):
            if uri in (entry.get("uri"), entry.get("other_uri")):
                other = entry["other_uri"] if entry.get("uri") == uri else entry.get("uri")
                self._problem(
                    NOTICE,
                    f"the same image is in the {entry.get('set')} set and in the {entry.get('also_in')} set of {folder}"
                    + (f", there as {other}" if other != uri else ""),
                )
                self._answer.add("shared", f"compared by {entry.get('compared_by')}", path)
        path = posixpath.join(folder, PREDICTIONS_NAME)
        predictions = [entry for entry in self._table(path, uri) if entry.get("uri") == uri]
        for entry in predictions:
            self._tell_prediction(entry, folder, path)
        if not predictions:
            self._tell_mistake(metrics, uri, folder)

    def _tell_prediction(self, entry: Mapping[str, str], folder: str, path: str) -> None:
        true, given, score = entry.get("label"), entry.get("prediction"), entry.get("score", "")
        sure = "confident" if entry.get("confident") == "1" else "not confident"
        text = f"{given!r} with the score {_number(score)}, {sure}"
        if entry.get("correct") == "1":
            self.news.append(f"the model of {folder} takes it rightly for {text}")
        else:
            own = entry.get(f"{_SCORE_COLUMNS}{true}")
            of_true = f" (that has {_number(own)})" if own else ""
            self._problem(NOTICE, f"the model of {folder} takes it for {text}, and its label is {true!r}{of_true}")
        self._answer.add("predicted", f"{entry.get('set')} set: label {true!r}, prediction {given!r}", path)

    def _tell_mistake(self, metrics: Mapping[str, Any], uri: str, folder: str) -> None:
        """Tells of the surest mistakes, which the metrics hold even without predictions.csv."""
        for name in ("eval", "test"):
            part = metrics.get(name)
            mistakes = part.get("mistakes") if isinstance(part, dict) else None
            for mistake in mistakes if isinstance(mistakes, list) else ():
                if isinstance(mistake, dict) and mistake.get("uri") == uri:
                    about, sureness = mistake.get("about"), _number(str(mistake.get("sureness")))
                    labels = mistake.get("labels")
                    true = " | ".join(map(repr, labels if isinstance(labels, list) else ())) or "none"
                    missed = mistake.get("kind") == "missed"
                    text = f"does not take it for {about!r}" if missed else f"takes it for {about!r}"
                    text += f" (sureness {sureness})"
                    self._problem(NOTICE, f"the model of {folder} {text}, and its label is {true}")
                    self._answer.add("predicted", "one of the surest mistakes", posixpath.join(folder, METRICS_NAME))

    def _table(self, path: str, uri: str) -> Iterator[dict[str, str]]:
        needle = uri.replace('"', '""').encode("utf-8", "surrogateescape")
        lines = self._look.lines_with(path, needle, at_most=_MAX_ENTRIES)
        if not lines:
            return
        first = self._look.line(path, 1) or b""
        header = next(csv.reader([first.decode(errors="replace")]), [])
        for _, line in lines:
            cells = next(csv.reader([line.decode("utf-8", "surrogateescape")]), [])
            yield dict(zip(header, cells, strict=False))


def explain_unlisted_record(text: str, places: Places, look: Look) -> Answer | None:
    """What sets and trainings say of an image that no list names; None if they do not name it either.

    Args:
      text: its URI or the end of it; for its record, the whole URI.
      places: the sets and trainings to look at.
      look: reads them.

    Raises:
      OSError: storage failed.
    """
    name = posixpath.basename(text).encode("utf-8", "surrogateescape")
    for prefix in places.sets:
        for file_name in (FAILED_NAME, SKIPPED_NAME):
            path = sidecar_path(prefix, file_name)
            for entry in objects_in(line for _, line in look.lines_with(path, name, at_most=_MAX_ENTRIES)):
                if _ends_so(str(entry.get("uri")), text):
                    row = ListRow(str(entry.get("list")), int(entry.get("line") or 0), str(entry.get("uri")), ())
                    answer = explain_rows([row], places, look)
                    answer.add("now", f"no list that was found names it; it was {row.place}")
                    return answer
    fate = _Fate([ListRow("", 0, text, ())], places, look)
    return fate.tell_without_list()


def _ends_so(uri: str, text: str) -> bool:
    return uri == text or uri.endswith(f"/{text.lstrip('/')}")


def _number(text: str) -> str:
    try:
        return f"{float(text):.2f}"
    except ValueError:
        return text


def _shard_of(prefix: str, list_index: int, block_index: int, look: Look) -> str | None:
    """The name of the shard that a block of rows became; None if it has none."""
    path = sidecar_path(prefix, JOURNAL_NAME)
    needle = f'"order": [{list_index}, {block_index}],'.encode()
    for result in objects_in(line for _, line in look.lines_with(path, needle, at_most=1)):
        shard = result.get("shard")
        if isinstance(shard, dict):
            return posixpath.basename(str(shard.get("name", shard.get("path", "")))) or None
    return None
