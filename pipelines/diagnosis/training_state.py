"""The state of a training: finished, stopped, or running; what stopped it, and what is kept."""

from __future__ import annotations

import datetime
import os
import posixpath
import re
from collections.abc import Mapping
from typing import Any

from configs.counts import counted
from pipelines.diagnosis.look import BROKEN, FINE, NOTICE, RUNNING, UNFINISHED, Answer, Look, short
from pipelines.diagnosis.next_commands import command_of_note
from pipelines.diagnosis.places import METRICS_NAME
from pipelines.diagnosis.stops import holder_of, what_stopped
from preprocess.machine.run_note import ERROR, NOTE_NAME, read_note
from preprocess.storage.base import has_file

_CHECKPOINT = re.compile(rb'^model_checkpoint_path: "(?:.*/)?ckpt-(\d+)"', re.MULTILINE)
_MODEL_FILES = ("saved_model.pb",)


def explain_training(folder: str, look: Look) -> Answer:
    """The state of the training whose output folder this is.

    Raises:
      OSError: storage failed.
    """
    metrics = look.json(posixpath.join(folder, METRICS_NAME))
    note = read_note(folder, look.storage)
    step = _saved_step(folder, look)
    holder = holder_of(posixpath.join(folder, ".lock"), look)
    if holder is not None and holder.lives:
        answer = Answer(f"{folder}: {holder.is_writing}", weight=RUNNING)
        answer.add("lock", "the process lives" if holder.is_certain else holder.doubt, holder.path)
        _add_checkpoint(answer, folder, step)
        return answer
    if note is not None:
        stop = what_stopped(note, folder, has_lock=holder is not None)
        refused = step is None and metrics is None and (note.get("ended") or {}).get("how") == ERROR
        what = "the training was refused or stopped" if refused else "the training is not finished"
        words = stop.words.removeprefix("it was stopped by an error: ") if refused else stop.words
        answer = Answer(f"{folder}: {what}: {words}", weight=UNFINISHED)
        answer.add("stopped", stop.detail, stop.known_from)
        if metrics is not None and _is_newer(posixpath.join(folder, METRICS_NAME), note):
            # It had yet to copy the model elsewhere, or to write for TensorBoard.
            answer.headline = f"{folder}: the model is written, but the run did not get to its end after that: {words}"
            answer.add("model", _accuracy(metrics), posixpath.join(folder, METRICS_NAME))
        elif metrics is not None:
            answer.headline += "; the model of an earlier run is still there, whole"
            answer.add("model", _accuracy(metrics), posixpath.join(folder, METRICS_NAME))
        _add_checkpoint(answer, folder, step)
        if command := command_of_note(note):
            answer.commands.append(("to go on", command))
        return answer
    if metrics is not None:
        return _finished(folder, metrics, look)
    answer = Answer(
        f"{folder}: the training is not finished: what stopped it is not written down (there is no {NOTE_NAME})",
        weight=UNFINISHED,
    )
    _add_checkpoint(answer, folder, step)
    answer.add("to go on", "give the command that began it again")
    return answer


def _finished(folder: str, metrics: Mapping[str, Any], look: Look) -> Answer:
    path = posixpath.join(folder, METRICS_NAME)
    missing = [name for name in _MODEL_FILES if not has_file(look.storage, posixpath.join(folder, "model", name))]
    warnings = metrics.get("warnings")
    warnings = warnings if isinstance(warnings, list) else []
    if missing:
        answer = Answer(
            f"{folder}: {METRICS_NAME} is there, but {posixpath.join(folder, 'model', missing[0])} is gone",
            weight=BROKEN,
        )
        answer.add("to repair", "give the command that trained it again")
    else:
        answer = Answer(
            f"{folder}: the training is finished: {_accuracy(metrics)}", weight=NOTICE if warnings else FINE
        )
    answer.add(
        "steps", f"{metrics.get('steps')}, stopped early: {'yes' if metrics.get('stopped_early') else 'no'}", path
    )
    named = metrics.get("record_sets")
    for name, prefixes in named.items() if isinstance(named, dict) else ():
        answer.add(str(name), ", ".join(map(str, prefixes)) if isinstance(prefixes, list) else "?", path)
    for warning in warnings[:5]:
        answer.add("warning", short(str(warning)), path)
    if len(warnings) > 5:
        answer.add("warning", f"and {len(warnings) - 5} more", path)
    return answer


def _is_newer(path: str, note: Mapping[str, Any]) -> bool:
    """Whether a local file was written after the noted run began."""
    try:
        began = datetime.datetime.strptime(str(note.get("started")), "%Y-%m-%d %H:%M:%S UTC")
        return os.path.getmtime(path) > began.replace(tzinfo=datetime.UTC).timestamp()
    except (OSError, ValueError):
        return False


def _accuracy(metrics: Mapping[str, Any]) -> str:
    found = []
    for name in ("eval", "test"):
        part = metrics.get(name)
        if isinstance(part, dict) and isinstance(part.get("accuracy"), int | float):
            examples = part.get("examples")
            of = f" of {counted(examples, 'example')}" if isinstance(examples, int) else ""
            found.append(f"{100 * part['accuracy']:.1f} %{of} of the {name} set right")
    return ", ".join(found) or "its metrics name no accuracy"


def _saved_step(folder: str, look: Look) -> int | None:
    """The step of the checkpoint from which a training goes on; None if there is none."""
    raw = look.read(posixpath.join(folder, "checkpoints", "last", "checkpoint"))
    found = _CHECKPOINT.search(raw or b"")
    return int(found[1]) if found else None


def _add_checkpoint(answer: Answer, folder: str, step: int | None) -> None:
    path = posixpath.join(folder, "checkpoints", "last")
    if step is not None:
        answer.add("kept", f"the state after step {step:,}", path)
    else:
        answer.add("kept", "no checkpoint, so the training begins anew")
