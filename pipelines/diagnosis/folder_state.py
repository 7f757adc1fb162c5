"""The state of a folder: a job directory, lists that `hugs ingest` wrote, and what was made of them."""

from __future__ import annotations

import glob
import os
import posixpath

from configs.counts import counted
from configs.list_names import DICT_NAME, SPLITS
from pipelines.diagnosis.answer_state import explain_answers
from pipelines.diagnosis.look import BROKEN, FINE, NOTICE, RUNNING, UNFINISHED, Answer, Look
from pipelines.diagnosis.next_commands import command_of_job_dir
from pipelines.diagnosis.places import Places
from pipelines.diagnosis.set_files import list_set
from pipelines.diagnosis.set_state import explain_set
from pipelines.diagnosis.stops import holder_of
from pipelines.diagnosis.training_state import explain_training
from preprocess.records.record_set import REPORT_NAME, sidecar_path
from preprocess.storage.base import has_file
from preprocess.storage.uris import has_scheme

_MAX_PARTS = 12


def explain_folder(folder: str, places: Places, look: Look) -> Answer | None:
    """The state of a folder by what lies in it; None if nothing of ours does.

    Raises:
      OSError: storage failed.
    """
    answers = [explain_set(prefix, look) for prefix in places.sets[:_MAX_PARTS]]
    answers += [explain_training(path, look) for path in places.trainings[:_MAX_PARTS]]
    answers += [explain_answers(prefix, look) for prefix in places.answers[:_MAX_PARTS]]
    lists = explain_lists(folder, look)
    if lists is not None:
        answers.append(lists)
    if not answers:
        return None
    if len(answers) == 1:
        return answers[0]
    order = sorted(answers, key=lambda answer: -answer.weight)
    first = order[0]
    whole = Answer(first.headline, [*first.facts], [*first.commands], weight=first.weight)
    for other in answers:
        if other is not first:
            whole.add("also", other.headline)
    left = sum(len(found[_MAX_PARTS:]) for found in (places.sets, places.trainings, places.answers))
    if left:
        whole.add("also", f"{counted(left, 'more set')}, trainings or answers; name one of them to hear of it")
    if first.weight >= UNFINISHED and any(posixpath.basename(posixpath.dirname(p)) == "preproc" for p in places.sets):
        _add_job_command(whole, places, look)
    if not places.trainings and first.weight < RUNNING and places.sets:
        whole.add("training", "none is found here")
    return whole


def _add_job_command(answer: Answer, places: Places, look: Look) -> None:
    """The command for all lists instead of the one for a single list, if the directory was begun by `preproc`."""
    notes = {}
    of_training = None
    for prefix in places.sets:
        works = list_set(prefix, look).works
        for work in works:
            if work.note is not None:
                notes[prefix] = work.note
        if posixpath.basename(prefix) == "train":
            report = look.json(sidecar_path(prefix, REPORT_NAME)) or {}
            of_training = works[-1].definition if works else report.get("definition")
    command = command_of_job_dir(notes, of_training if isinstance(of_training, dict) else None)
    if command is not None:
        answer.commands = [("to go on", command), *(entry for entry in answer.commands if entry[0] != "to go on")]


def explain_lists(folder: str, look: Look) -> Answer | None:
    """The state of the lists that `hugs ingest` wrote into a folder; None if there are none.

    Raises:
      OSError: storage failed.
    """
    storage = look.storage
    lists = [f"{split}.csv" for split in SPLITS if has_file(storage, posixpath.join(folder, f"{split}.csv"))]
    new = storage.match(f"{glob.escape(folder)}/.*.new*") if not has_scheme(folder) else []
    holder = holder_of(posixpath.join(folder, ".lock"), look)
    has_dict = has_file(storage, posixpath.join(folder, DICT_NAME))
    if holder is not None and holder.lives and "ingest" in holder.words:
        return Answer(f"{folder}: its lists are being written at this moment, by {holder.words}", weight=RUNNING)
    if not lists and not new:
        return None
    if not has_dict:
        cause = "hugs ingest was stopped while it replaced the lists" if new else "it was deleted, or never written"
        answer = Answer(
            f"{folder}: the lists have no {DICT_NAME}, so nothing reads them: {cause}",
            weight=BROKEN,
        )
        answer.add("kept", f"the photos; the lists there may be of two runs: {', '.join(lists) or 'none'}")
        answer.add("to go on", "give the command of hugs ingest again")
        return answer
    if new:
        answer = Answer(
            f"{folder}: hugs ingest was stopped before it replaced the lists, so the earlier ones are whole",
            weight=NOTICE,
        )
        answer.add("to go on", "give the command of hugs ingest again", new[0])
        return answer
    answer = Answer(f"{folder}: has the lists {', '.join(lists)} and {DICT_NAME}", weight=FINE)
    for name in lists:
        path = os.path.join(folder, name)
        answer.add(name.partition(".")[0], counted(_lines(path, look), "line"), path)
    if "eval.csv" not in lists:
        answer.weight = NOTICE
        answer.headline += ", and no eval.csv, which training needs"
    return answer


def _lines(path: str, look: Look) -> int:
    with look.storage.open(path) as stream:
        return sum(1 for _ in stream)
