"""What stopped a run, as far as its note and its lock say it. What is not written down is said to be not known."""

from __future__ import annotations

import dataclasses
import os
import posixpath
import socket
from collections.abc import Mapping
from typing import Any

from pipelines.diagnosis.look import Look, short
from preprocess.locks.lock_holder import Holder
from preprocess.machine.run_note import BUG, ERROR, NOTE_NAME, SIGNAL
from preprocess.storage.uris import has_scheme

_SIGNALS = {
    "SIGINT": "Ctrl-C (SIGINT)",
    "SIGTERM": "SIGTERM, which a person, a service or a shutdown of the machine sends",
}


@dataclasses.dataclass(frozen=True)
class Stop:
    """What stopped a run.

    Attributes:
      words: the end of a sentence.
      detail: one sentence more.
      known_from: the file that says so; empty if none does.
      is_known: whether the cause is written down.
    """

    words: str
    detail: str
    known_from: str
    is_known: bool


@dataclasses.dataclass(frozen=True)
class Writer:
    """Who holds a lock.

    Attributes:
      path: of the lock.
      words: who.
      lives: whether it may live.
      is_certain: whether that was seen on this machine.
    """

    path: str
    words: str
    lives: bool
    is_certain: bool

    @property
    def is_writing(self) -> str:
        """Who writes now, or may write, as the end of a sentence."""
        if self.is_certain:
            return f"is being written at this moment, by {self.words}"
        return f"is locked by {self.words}; whether that still lives cannot be seen from here"

    @property
    def doubt(self) -> str:
        """What to say if it is not certain whether the process lives."""
        return "if it does not live any more, the next run finds out and takes the lock over"


def holder_of(path: str, look: Look) -> Writer | None:
    """Who holds the lock at a path, or held it; None if there is no lock that can be read.

    Raises:
      OSError: storage failed.
    """
    raw = look.read(path)
    holder = Holder.from_text((raw or b"").decode(errors="replace"))
    if holder is None:
        return None
    # A job on a service goes on without the process that submitted it.
    alive = None if holder.handed_over or holder.service_job else holder.is_alive()
    if alive is None and not holder.service_job and holder.host == socket.gethostname() and not has_scheme(path):
        # The machine was started anew, or the process ran in another container of that name. The kernel keeps the lock
        # of a local file only as long as the process lives, and a process of before the start does not.
        alive = _same_boot(holder)
    return Writer(path, holder.describe(), lives=alive is not False, is_certain=alive is not None)


def _same_boot(holder: Holder) -> bool | None:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            boot = stream.read().strip()
    except OSError:
        return None
    return None if not holder.machine or holder.machine.split()[0] == boot else False


def what_stopped(note: Mapping[str, Any] | None, folder: str, *, has_lock: bool) -> Stop:
    """What stopped the last run of a job or a training.

    Args:
      note: the note of that run; None if there is none.
      folder: of the note.
      has_lock: whether a lock is left, whose process does not live any more.
    """
    path = f"{folder}/{NOTE_NAME}"
    if note is None:
        return Stop(
            "what stopped it is not written down (no note of its last run is there)",
            "no note of the last run",
            "",
            is_known=False,
        )
    began = f"the run began on {note.get('started')} as process {note.get('pid')} on {note.get('host')}"
    ended = note.get("ended")
    if not isinstance(ended, dict) and not has_lock:
        # On storage without locks, only the number of the process tells something, and only on its own machine.
        running = _may_run(note)
        if running is not False:
            who = f"process {note.get('pid')} on {note.get('host')}"
            words = f"{who} may still be at it" if running else f"it may still be at it, or be gone: {who} wrote no end"
            return Stop(words, began, path, is_known=False)
    if not isinstance(ended, dict):
        return Stop(
            "its process is gone without a word, as after kill -9, a lack of memory, a crash or a power cut; which of "
            "them is not written down",
            began,
            path,
            is_known=False,
        )
    message, at = short(str(ended.get("message"))), f"{began}; it ended on {ended.get('time')}"
    how = ended.get("how")
    if how == SIGNAL:
        return Stop(f"it was stopped by {_SIGNALS.get(message, message)}", at, path, is_known=True)
    if how == ERROR:
        words = _without_advice(message).removeprefix(f"{_prefix_of(folder)}: ").rstrip(".")
        return Stop(f"it was stopped by an error: {words}", at, path, is_known=True)
    if how == BUG:
        return Stop(f"it was ended by a fault of the program or of a library: {message}", at, path, is_known=True)
    return Stop("its note says nothing that this version knows", at, path, is_known=False)


def _prefix_of(folder: str) -> str:
    """The prefix of the set to whose unfinished work a folder belongs, with which messages of a job begin."""
    above, name = posixpath.split(posixpath.dirname(folder))
    return posixpath.join(above, name.removeprefix("_"))


def _may_run(note: Mapping[str, Any]) -> bool | None:
    """Whether the process of a note may live; None if that cannot be seen from here."""
    pid = note.get("pid")
    if note.get("host") != socket.gethostname() or not isinstance(pid, int) or pid <= 0:
        return None
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # It belongs to another user.
    return True


def _without_advice(message: str) -> str:
    """A message without the advice to give the same command again, since the command is printed below."""
    for start in (" What was embedded is kept.", " To go on, give the same command again"):
        message = message.partition(start)[0]
    return message
