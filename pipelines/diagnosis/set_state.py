"""The state of a set: finished, unfinished, failed, damaged, or being written; what stopped it, and what is kept."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

from configs.counts import counted
from configs.errors import InputError
from pipelines.diagnosis.job_lists import changes
from pipelines.diagnosis.look import BROKEN, FINE, NOTICE, RUNNING, UNFINISHED, Answer, Look, short
from pipelines.diagnosis.next_commands import (
    command_of_definition,
    command_of_note,
)
from pipelines.diagnosis.set_files import SetFiles, Work, list_set, read_set
from pipelines.diagnosis.shard_bytes import whole_records
from pipelines.diagnosis.stops import holder_of, what_stopped
from preprocess.jobs.job import RESULT_SUFFIX
from preprocess.records.record_set import (
    FAILED_NAME,
    MANIFEST_NAME,
    REPORT_FORMAT,
    REPORT_NAME,
    Manifest,
    sidecar_dir,
    sidecar_path,
)
from preprocess.storage.uris import has_scheme


def explain_set(prefix: str, look: Look) -> Answer:
    """The state of a set.

    Raises:
      OSError: storage failed.
    """
    files = list_set(prefix, look)
    holder = holder_of(sidecar_path(prefix, ".lock"), look)
    if holder is not None and holder.lives:
        answer = Answer(f"{prefix}: {holder.is_writing}", weight=RUNNING)
        answer.add("lock", "the process lives" if holder.is_certain else holder.doubt, holder.path)
        for work in files.works:
            _add_kept(answer, work, look)
        if files.has(MANIFEST_NAME):
            answer.add("until then", "the finished set that was there before stays as it is")
        return answer
    files.has_dead_lock = holder is not None
    if files.works:
        # The one that was worked on last, if there are several.
        files.works.sort(key=lambda work: str((work.note or {}).get("started", "")))
        return _explain_work(files, files.works[-1], look)
    if files.has(MANIFEST_NAME):
        return _explain_finished(files, look)
    return _explain_without_manifest(files, look)


# Finished sets.


def _explain_finished(files: SetFiles, look: Look) -> Answer:
    prefix = files.prefix
    path = sidecar_path(prefix, MANIFEST_NAME)
    try:
        manifest, report = read_set(prefix, look)
    except InputError as error:
        answer = Answer(f"{prefix}: its manifest cannot be used: {error}", weight=BROKEN)
        answer.add("kept", f"{counted(len(files.shards), 'shard')} of the set")
        _add_command_again(answer, files, look, "--overwrite")
        return answer
    damage, unread = _damage(files, manifest, report, look)
    if damage:
        answer = Answer(f"{prefix}: is damaged: {damage[0]}", weight=BROKEN)
        for other in damage[1:6]:
            answer.add("also", other)
        if len(damage) > 6:
            answer.add("also", f"{counted(len(damage) - 6, 'more fault')}")
        answer.add("kept", "all other files of the set; the command below embeds only what was lost")
        # A byte that flipped is found only if every file is read.
        _add_command_again(answer, files, look, *(["--verify"] if "another SHA-256" in damage[0] else []))
        return answer
    if not report:
        answer = Answer(
            f"{prefix}: has its manifest and its shards, but {REPORT_NAME}, which says how it was made, is "
            + ("damaged" if files.has(REPORT_NAME) else "gone"),
            weight=BROKEN,
        )
        answer.add("kept", f"{counted(manifest.records, 'record')} in {counted(len(manifest.shards), 'shard')}", path)
        answer.add("training", "reads the set as it is: it needs the manifest and the shards only")
        return answer
    answer = _whole(files, manifest, report, look)
    if unread:
        words = f"of {counted(len(unread), 'file')} only the size was compared; hugs embed … --verify reads them all"
        answer.add("not read", words)
    return answer


def _whole(files: SetFiles, manifest: Manifest, report: Mapping[str, Any], look: Look) -> Answer:
    prefix = files.prefix
    failed, skipped = (sum(_counts(report, name).values()) for name in ("failed", "skipped"))
    rows = report.get("rows_read")
    rows = rows if isinstance(rows, int) else manifest.records
    older = report.get("format") != REPORT_FORMAT
    by = (
        f"was finished by an earlier version (its report has format {report.get('format')!r})"
        if older
        else "is finished"
    )
    words = f"{prefix}: {by}: {manifest.records:,} of {counted(rows, 'row')} embedded"
    words += f", {failed:,} failed" * bool(failed) + f", {skipped:,} skipped" * bool(skipped)
    answer = Answer(words, weight=NOTICE if failed else FINE)
    report_path = sidecar_path(prefix, REPORT_NAME)
    if failed:
        answer.add("failed", _reasons(_counts(report, "failed")), sidecar_path(prefix, FAILED_NAME))
    if skipped:
        answer.add("skipped", _reasons(_counts(report, "skipped")), sidecar_path(prefix, "skipped.jsonl"))
    duplicates = report.get("duplicates") or {}
    if isinstance(duplicates, dict) and duplicates.get("images"):
        different = duplicates.get("images_with_different_labels") or "none"
        text = f"{duplicates['images']} images are there more than once, {different} of them under different labels"
        answer.add("duplicates", text, str(duplicates.get("file")))
    backbone = manifest.backbone
    answer.add("made by", f"{backbone.describe()}, on {str(report.get('started', '?'))[:19]}", report_path)
    if manifest.views is not None:
        answer.add("views", f"{manifest.views.describe()} of each image", sidecar_path(prefix, MANIFEST_NAME))
    for text, known_from in changes(report.get("definition") or {}, None, look):
        answer.add("since then", text, known_from)
        answer.weight = max(answer.weight, NOTICE)
    if failed:
        command, _ = command_of_definition(report.get("definition") or {}, prefix, look, "--retry_failures")
        if command:
            answer.commands.append(("try again", command))
    return answer


def _damage(files: SetFiles, manifest: Manifest, report: Mapping[str, Any], look: Look) -> tuple[list[str], list[str]]:
    """The faults of a set, in words, and the files whose digests there was no time to compare."""
    folder = posixpath.dirname(files.prefix)
    found: list[str] = []
    to_read: list[tuple[str, str]] = []
    for shard in manifest.shards:
        path = posixpath.join(folder, shard.name)
        if path not in files.shards:
            found.append(f"the shard {path} is not there ({counted(shard.records, 'record')})")
        elif files.shards[path] != shard.num_bytes:
            found.append(f"the shard {path} has {files.shards[path]:,} bytes, the manifest says {shard.num_bytes:,}")
        else:
            to_read.append((path, shard.sha256))
    listed = report.get("files")
    for name, entry in listed.items() if isinstance(listed, dict) else ():
        path = sidecar_path(files.prefix, str(name))
        wanted = entry if isinstance(entry, dict) else {}
        if path not in files.sidecars:
            found.append(f"{path} is not there")
        elif files.sidecars[path] == wanted.get("num_bytes"):
            to_read.append((path, str(wanted.get("sha256"))))
        else:
            num_bytes = files.sidecars[path]
            found.append(f"{path} has {num_bytes:,} bytes, {REPORT_NAME} says {wanted.get('num_bytes')}")
    unread = []
    for path, sha256 in to_read:
        digest = look.digest(path) if look.is_early and not has_scheme(path) else None
        if digest is None:
            unread.append(path)
        elif digest != sha256:
            found.append(f"{path} is not what was written (another SHA-256)")
    return found, unread


def _explain_without_manifest(files: SetFiles, look: Look) -> Answer:
    prefix = files.prefix
    report = look.json(sidecar_path(prefix, REPORT_NAME))
    path = sidecar_path(prefix, MANIFEST_NAME)
    if report is not None:
        answer = Answer(
            f"{prefix}: its manifest is gone ({path} is not there), so the trainer refuses the set", weight=BROKEN
        )
        answer.add("kept", f"{counted(len(files.shards), 'shard')}, and the results of the blocks, if they are whole")
        answer.add("why", "what removed it is not written down")
        _add_command_again(answer, files, look)
        return answer
    if files.shards:
        answer = Answer(
            f"{prefix}: {counted(len(files.shards), 'shard')} without a manifest, a report or unfinished work: another "
            "program made them, or their folder "
            f"{sidecar_dir(prefix)}/ was left behind when they were copied",
            weight=BROKEN,
        )
        answer.add("training", "on records made elsewhere needs --input_dict dict.txt")
        return answer
    if files.has_dead_lock:
        answer = Answer(
            f"{prefix}: nothing is embedded; a run locked the output and was gone before it began", weight=UNFINISHED
        )
        answer.add("lock", _dead_lock(prefix, look), sidecar_path(prefix, ".lock"))
        return answer
    return Answer(f"{prefix}: nothing is embedded there", weight=UNFINISHED)


def _dead_lock(prefix: str, look: Look) -> str:
    holder = holder_of(sidecar_path(prefix, ".lock"), look)
    who = f"of {holder.words}, which does not live any more" if holder else "that cannot be read"
    return f"a lock {who}; the next run takes it over by itself"


# Unfinished work.


def _explain_work(files: SetFiles, work: Work, look: Look) -> Answer:
    prefix = files.prefix
    stop = what_stopped(work.note, work.folder, has_lock=files.has_dead_lock)
    answer = Answer("", weight=UNFINISHED)
    changed = list(changes(work.definition or {}, work.note, look))
    failed = work.failed
    if work.is_journaled:
        words = f"{prefix}: all rows are done, and the set is not put together yet: {stop.words}"
    elif failed is not None:
        words = f"{prefix}: the job failed: {_failure_words(failed)}"
        answer.weight = BROKEN
    else:
        words = f"{prefix}: is not finished: {stop.words}"
    if changed:
        words += f"; and {changed[0][0]}"
    if files.has(MANIFEST_NAME):
        words += "; the finished set that was there before is still whole in its place"
    answer.headline = words
    if failed is not None:
        folder = work.folder
        answer.add("failed", _reasons(_counts(failed, "failed")), posixpath.join(folder, REPORT_NAME))
        for example in _examples(posixpath.join(folder, FAILED_NAME), look):
            answer.add("for example", example, posixpath.join(folder, FAILED_NAME))
    elif stop.known_from:
        answer.add("stopped", stop.detail, stop.known_from)
    for text, known_from in changed:
        answer.add("changed", text, known_from)
    if files.has_dead_lock:
        answer.add("lock", _dead_lock(prefix, look), sidecar_path(prefix, ".lock"))
    _add_kept(answer, work, look)
    others = [other for other in files.works if other is not work]
    for other in others:
        answer.add("also", "unfinished work of a job with other options or another list", other.folder)
    _add_work_command(answer, work, prefix, look, changed=bool(changed))
    return answer


def _add_work_command(answer: Answer, work: Work, prefix: str, look: Look, *, changed: bool) -> None:
    command, why = command_of_note(work.note) if work.note else None, None
    if command is None:
        command, why = command_of_definition(work.definition or {}, prefix, look)
    if command is None:
        answer.add("to go on", f"give the command that began this job again; it cannot be shown: {why}")
    elif not changed:
        answer.commands.append(("to go on", command))
    else:
        answer.commands.append(("to go on", f"put back what changed, then: {command}"))
        answer.commands.append(("or anew", f"{command} --overwrite"))


def _failure_words(report: Mapping[str, Any]) -> str:
    error = short(str(report.get("error")))
    top = _reasons(_counts(report, "failed"), at_most=2)
    return f"{error} Reasons: {top}" if top else error


def _add_kept(answer: Answer, work: Work, look: Look) -> None:
    """Adds how much of the work is kept."""
    rows = (work.note or {}).get("rows")
    of = f" of {counted(rows, 'row')}" if isinstance(rows, int) else ""
    results = [path for path in work.sizes if path.endswith(RESULT_SUFFIX)]
    if has_scheme(work.folder):
        per_block = (work.definition or {}).get("rows_per_shard")
        each = f" of at most {per_block} rows each" if isinstance(per_block, int) else ""
        answer.add("kept", f"{counted(len(results), 'finished block')}{each}{of and f',{of} in all'}", work.folder)
        return
    embedded = failed = skipped = 0
    stems, blocks, is_counted = set(), set(), True
    for path in results:
        if not look.has_time:
            is_counted = False
            break
        result = look.json(path)
        name = posixpath.basename(path)
        if result is None:
            continue
        stems.add(name.partition(".")[0])
        block = name[: len("00000-0000000")]
        if block not in blocks:
            blocks.add(block)
            embedded += sum(_counts(result, "sources").values())
            failed += sum(_counts(result, "failed").values())
            skipped += sum(_counts(result, "skipped").values())
    if not is_counted:
        answer.add("kept", f"{counted(len(results), 'finished block')}{of and f',{of} in all'}", work.folder)
        return
    cut_off: dict[str, int] = {}
    for path in work.sizes:
        name = posixpath.basename(path)
        block = name[: len("00000-0000000")]
        if ".tfrecord" in name and name.partition(".")[0] not in stems and block not in blocks and look.has_time:
            cut_off[block] = max(cut_off.get(block, 0), whole_records(path))
    text = f"{embedded + sum(cut_off.values()):,} rows embedded{of}"
    text += f", {failed:,} failed" * bool(failed) + f", {skipped:,} skipped" * bool(skipped)
    answer.add("kept", text, work.folder)


def _add_command_again(answer: Answer, files: SetFiles, look: Look, *more: str) -> None:
    report = look.json(sidecar_path(files.prefix, REPORT_NAME)) or {}
    command, why = command_of_definition(report.get("definition") or {}, files.prefix, look, *more)
    if command:
        answer.commands.append(("to repair", command))
    else:
        flags = f" with {' '.join(more)}" if more else ""
        answer.add("to repair", f"give the command that made the set again{flags}; it cannot be shown: {why}")


def _counts(data: Mapping[str, Any], name: str) -> dict[str, int]:
    found = data.get(name)
    return {str(key): value for key, value in found.items() if type(value) is int} if isinstance(found, dict) else {}


def _reasons(counts: Mapping[str, int], *, at_most: int = 6) -> str:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    more = f" and {len(ordered) - at_most} other reasons" if len(ordered) > at_most else ""
    return ", ".join(f"{name} {number:,}" for name, number in ordered[:at_most]) + more


def _examples(path: str, look: Look) -> Iterator[str]:
    for _, line in look.lines_with(path, b'"reason"', at_most=3):
        try:
            entry = json.loads(line)
            yield short(f"{entry['list']}:{entry['line']}: {entry['message']}")
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
