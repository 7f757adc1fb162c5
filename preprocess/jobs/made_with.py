"""What a job embeds with, chosen by its first run and kept by all later ones: one set, one arithmetic.

`auto` measures, and may measure otherwise after a kill, on another machine, or on the next worker; libraries are
upgraded between two runs. So the first run writes what it embeds with beside the parts, before the first of them is
there: a kill before that has embedded nothing, and one after it cannot lose it. Whoever embeds for the job later,
another run or another worker, reads it, takes from it what `auto` leaves open, and refuses if its numbers would differ.
A finished set has it in its report, for `--retry_failures`.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from configs.errors import InputError
from preprocess.engines.base import Engine, EngineInfo
from preprocess.engines.libraries import INSTALLABLE
from preprocess.jobs.job import Job
from preprocess.records.record_set import REPORT_NAME, sidecar_path
from preprocess.storage.base import Storage, read_file, write_file

RECORD_NAME = "made_with.json"
_ANEW = "give the same command with --overwrite, which embeds all anew"


@runtime_checkable
class Obeys(Protocol):
    """What loads an engine and can load the one that a job was begun with."""

    def obeying(self, recorded: EngineInfo) -> Callable[[], Engine]:
        """The same, with what `auto` leaves open as recorded."""
        ...


def record_path(job: Job) -> str:
    """Where a job keeps what it embeds with, until its set is finished."""
    return posixpath.join(job.parts_dir, RECORD_NAME)


def recorded(job: Job, storage: Storage, *, of_finished_set: bool) -> EngineInfo | None:
    """What a job is to embed with; None if that is still open.

    Args:
      job: the job.
      storage: of its output.
      of_finished_set: records of the finished set are to be kept; else what an unfinished run left.

    Raises:
      InputError: the record is damaged; or the finished set does not say with what it was made, or was made with
        several.
      OSError: storage failed.
    """
    if of_finished_set:
        return _of_finished_set(job, storage)
    return _read_record(record_path(job), storage)


def _read_record(path: str, storage: Storage) -> EngineInfo | None:
    try:
        return EngineInfo.from_json(json.loads(read_file(storage, path)))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path}: does not say what the job embeds with ({error!r}): the file is damaged. Put it back, or {_ANEW}."
        ) from error


def _of_finished_set(job: Job, storage: Storage) -> EngineInfo:
    path = sidecar_path(job.output_prefix, REPORT_NAME)
    try:
        engines = json.loads(read_file(storage, path))["engines"]
        # Sets of earlier versions name the engine and not the libraries.
        first, *others = [EngineInfo.from_json(engine) for engine in engines if engine["libraries"] is not None]
    except (FileNotFoundError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(
            f"{path}: does not say with which libraries the set was made ({error!r}), so what would be added to it "
            f"might differ from what is there. Leave the set as it is, or {_instead(job)}."
        ) from error
    for other in others:
        if differs := differences(first, other):
            raise InputError(
                f"{path}: the set is a mixture already ({'; '.join(differs)}), and nothing is added to it. Leave it as "
                f"it is, or {_instead(job)}."
            )
    return first


def _instead(job: Job) -> str:
    return f"{'instead of --retry_failures ' if job.retry is not None else ''}{_ANEW}"


def write_record(job: Job, storage: Storage, info: EngineInfo) -> None:
    """Writes what a job embeds with, whatever was recorded; to be called before anything is embedded.

    Raises:
      OSError: storage failed.
    """
    write_file(storage, record_path(job), _encoded(info))


def forget_record(job: Job, storage: Storage) -> None:
    """Leaves open what the job embeds with; raises OSError if storage failed."""
    storage.delete_file(record_path(job))


def load_recorded(load: Callable[[], Engine], record: EngineInfo | None, job: Job) -> Engine:
    """Loads what a job embeds with.

    Args:
      load: loads an engine as the options say.
      record: what the job was begun with; None if that is still open.
      job: the job.

    Raises:
      InputError: the engine cannot be loaded, or gives other numbers than those of the record.
    """
    if record is None:
        return load()
    engine = (load.obeying(record) if isinstance(load, Obeys) else load)()
    differs = differences(record, engine.info)
    if differs:
        pins = " ".join(
            library.replace(" ", "==")
            for library in record.libraries
            if library not in engine.info.libraries and library.startswith(INSTALLABLE)
        )
        raise InputError(
            f"{job.output_prefix}: this was begun with other arithmetic or libraries ({'; '.join(differs)}), and one "
            f"set is not made of both. Go on where they are as they were{f' (pip install {pins})' if pins else ''}, or "
            f"{_instead(job)}."
        )
    return engine


def differences(then: EngineInfo, now: EngineInfo) -> list[str]:
    """In what two differ that decides the numbers, for people; empty if they give the same on one machine."""
    before, after = _facts(then), _facts(now)
    return [
        f"{name} {before.get(name, 'none')} then, {after.get(name, 'none')} now"
        for name in dict.fromkeys((*before, *after))
        if before.get(name) != after.get(name)
    ]


def _facts(info: EngineInfo) -> dict[str, str]:
    facts = {"engine": info.engine, "precision": info.precision}
    if info.calibration is not None:
        facts["images of the int8 calibration"] = info.calibration
    for library in info.libraries:
        name, _, version = library.partition(" ")
        facts[name] = version
    return facts


def _encoded(info: EngineInfo) -> bytes:
    return (json.dumps(info.to_json(), indent=1) + "\n").encode()


def load_for_worker(load: Callable[[], Engine], job: Job, storage: Storage) -> Engine:
    """Loads what a job embeds with; where that is still open, the first worker decides for all.

    Raises:
      InputError: as `load_recorded`.
      OSError: storage failed.
    """
    path = record_path(job)
    record = _read_record(path, storage)
    if record is not None:
        return load_recorded(load, record, job)
    engine = load()
    if storage.create_new(path, _encoded(engine.info)):
        return engine
    return load_recorded(load, _read_record(path, storage), job)
