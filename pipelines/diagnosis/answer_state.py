"""The state of answers that `hugs predict_all` wrote: finished, unfinished, or being written."""

from __future__ import annotations

import posixpath
from typing import Any

from configs.counts import counted
from pipelines.diagnosis.look import BROKEN, FINE, NOTICE, RUNNING, UNFINISHED, Answer, Look
from pipelines.diagnosis.set_files import is_set
from pipelines.diagnosis.set_state import explain_set
from pipelines.diagnosis.stops import holder_of
from preprocess.answers.answer_files import ANSWERS_NAME, BEGUN_NAME, RECORDS_NAME
from preprocess.records.record_set import sidecar_dir, sidecar_path
from preprocess.storage.base import has_file


def are_answers(prefix: str, look: Look) -> bool:
    """Whether answers, finished or not, lie at a prefix. Raises OSError."""
    return bool(posixpath.basename(prefix)) and has_file(look.storage, sidecar_path(prefix, BEGUN_NAME))


def explain_answers(prefix: str, look: Look) -> Answer:
    """The state of answers.

    Raises:
      OSError: storage failed.
    """
    told = look.json(sidecar_path(prefix, ANSWERS_NAME))
    holder = holder_of(sidecar_path(prefix, ".lock"), look)
    if holder is not None and holder.lives:
        answer = Answer(f"{prefix}: {holder.is_writing}", weight=RUNNING)
        answer.add("lock", "the process lives" if holder.is_certain else holder.doubt, holder.path)
        if told:
            answer.add("until then", "the finished answers that were there before stay as they are")
        return answer
    answer = _finished(prefix, told, look) if told else _unfinished(prefix)
    photos = posixpath.join(sidecar_dir(prefix), RECORDS_NAME)
    if is_set(photos, look):
        of_photos = explain_set(photos, look)
        answer.add("photos", of_photos.headline)
        if of_photos.weight > NOTICE:
            answer.commands.extend(of_photos.commands)
    return answer


def _unfinished(prefix: str) -> Answer:
    answer = Answer(f"{prefix}: answers were begun and are not finished", weight=UNFINISHED)
    answer.add("to go on", "give the same command again; what was embedded is kept", sidecar_path(prefix, BEGUN_NAME))
    return answer


def _finished(prefix: str, told: dict[str, Any], look: Look) -> Answer:
    path = sidecar_path(prefix, ANSWERS_NAME)
    try:
        names = [str(file["name"]) for file in told["files"]]
        headline = f"{prefix}: is finished: {counted(told['answered'], 'answer')} in {counted(len(names), 'file')}"
        failed = sum(told.get("failed", {}).values())
    except (KeyError, TypeError, AttributeError, ValueError):
        answer = Answer(f"{prefix}: its description is damaged", weight=BROKEN)
        answer.add("to mend it", "give the same command again; what was embedded is kept", path)
        return answer
    gone = [name for name in names if not has_file(look.storage, posixpath.join(posixpath.dirname(prefix), name))]
    if gone:
        answer = Answer(f"{prefix}: {counted(len(gone), 'file')} of answers is gone, such as {gone[0]}", weight=BROKEN)
        answer.add("to mend it", "give the same command again; what was embedded is kept", path)
        return answer
    answer = Answer(headline + f", {counted(failed, 'photo')} failed" * bool(failed), weight=NOTICE if failed else FINE)
    if failed:
        answer.add("failed", ", ".join(f"{why} {n}" for why, n in told["failed"].items()), str(told.get("failed_rows")))
    by = told.get("answered_by")
    if isinstance(by, dict):
        answer.add("answered by", str(by.get("model_dir") or by.get("classes_of")), path)
    return answer
