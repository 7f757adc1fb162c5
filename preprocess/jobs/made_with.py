"""The record of the engine and libraries that a job embeds with. The first run writes it and later runs obey it.

The embeddings of one set must come from one arithmetic. But `auto` measures, and it may choose differently after a
kill, on another machine or on the next worker; and libraries may be upgraded between two runs. So the first run writes
this record before it writes any part. Other runs and other workers of the job read the record. They use the engine and
precision in it where the options say `auto`, and they refuse to embed if their numbers would differ. A finished set has
the record in its report, for `--retry_failures`.
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
    """A loader of an engine that can also load the engine that a job began with."""

    def obeying(self, recorded: EngineInfo) -> Callable[[], Engine]:
        """The same loader, but with the recorded engine and precision where the options say `auto`."""
        ...


def record_path(job: Job) -> str:
    """The path of a job's record until its set is finished."""
    return posixpath.join(job.parts_dir, RECORD_NAME)


def recorded(job: Job, storage: Storage, *, of_finished_set: bool) -> EngineInfo | None:
    """Reads what a job must embed with; None if nothing is recorded yet.

    Args:
      job: the job.
      storage: of its output.
      of_finished_set: the records of the finished set are kept, so its report decides; otherwise the record of an
        unfinished run decides.

    Raises:
      InputError: the record is damaged; or the finished set does not say how it was made, or was made with several
        engines or libraries.
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
    """Writes the record of a job, over an older one. The caller does this before anything is embedded.

    Raises:
      OSError: storage failed.
    """
    write_file(storage, record_path(job), _encoded(info))


def forget_record(job: Job, storage: Storage) -> None:
    """Deletes the record of a job; raises OSError if storage failed."""
    storage.delete_file(record_path(job))


def load_recorded(load: Callable[[], Engine], record: EngineInfo | None, job: Job) -> Engine:
    """Loads the engine of a job.

    Args:
      load: loads an engine as the options say.
      record: the record of the job; None if nothing is recorded yet.
      job: the job.

    Raises:
      InputError: the engine cannot be loaded, or its numbers differ from those of the recorded engine.
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
    """The differences of two engines that change numbers, in words; empty if both give the same numbers here."""
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
    """Loads the engine of a job. If nothing is recorded yet, the first worker records its engine for all workers.

    Raises:
      InputError: as for `load_recorded`.
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
