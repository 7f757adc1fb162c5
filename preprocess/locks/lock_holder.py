"""The holder of a lock, which is written into the lock: for messages, and to find out that a holder is dead."""

from __future__ import annotations

import dataclasses
import datetime
import getpass
import json
import os
import socket
import uuid
from typing import Any

from configs.errors import InputError

_MAX_SHOWN = 100
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_PROCESS_NAMESPACE = "/proc/self/ns/pid"
_DEAD_STATES = ("Z", "X")  # The states of a process that has ended and that its parent has not waited for.


class LockLost(InputError):  # noqa: N818 (the name says what happened)
    """A run does not hold its lock any more, and must not change the output any more."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Holder:
    """The process, or the job on a service, that holds a lock.

    Attributes:
      token: a unique id of this lock, which no other lock has.
      run_id: the id of the run, which all its workers know.
      program: the program that runs.
      user: the user who runs it.
      host: the machine on which it runs.
      pid: the number of the process.
      machine: the id of the machine's boot and of its process namespace; empty if they are not known.
      process_start: the start of the process in ticks of the machine, because process numbers are used again.
      since: the time when it took the lock, by its own clock, for messages only.
      service_job: a job on a service that goes on without this process, as (project, region, name); None for none.
      handed_over: the process has ended its part, and only the job on the service holds the lock.
    """

    token: str
    run_id: str
    program: str
    user: str
    host: str
    pid: int
    machine: str
    process_start: str
    since: str
    service_job: tuple[str, str, str] | None = None
    handed_over: bool = False

    def to_text(self) -> str:
        """The text that is written into a lock."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    @classmethod
    def from_text(cls, text: str) -> Holder | None:
        """Reads the text of a lock; None if this program did not write it."""
        try:
            data = json.loads(text)
            names = {field.name: field.type for field in dataclasses.fields(cls)}
            known = {name: value for name, value in data.items() if name in names}
            for name, value in known.items():
                if names[name] in ("str", "int", "bool") and type(value).__name__ != names[name]:
                    return None
            if known.get("service_job") is not None:
                project, region, name = map(str, known["service_job"])
                known["service_job"] = (project, region, name)
            return cls(**known)
        except (ValueError, TypeError, AttributeError, RecursionError):
            return None

    def describe(self) -> str:
        """The holder and the time since when, for a message. Control characters are replaced."""
        process = f"{self.program}, process {self.pid} of {self.user} on {self.host}"
        if self.service_job is not None and self.handed_over:
            project, region, name = self.service_job
            process = f"the job {name} in project {project}, region {region}, started by {self.user} on {self.host}"
        return shown(f"{process}, since {self.since}")

    def is_alive(self) -> bool | None:
        """Whether the process lives; None if this machine cannot know that."""
        machine = _machine()
        if not machine or self.machine != machine or self.host != socket.gethostname() or self.pid <= 0:
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except (OSError, OverflowError):
            pass  # The process exists and belongs to another user.
        found = _state_and_start(self.pid)
        if found is None:
            return None
        state, start = found
        return state not in _DEAD_STATES and start == self.process_start


def shown(text: str) -> str:
    """Text from another source, made safe to print: one line without control characters."""
    plain = "".join(character if character.isprintable() else "?" for character in text)
    return plain if len(plain) <= 4 * _MAX_SHOWN else plain[: 4 * _MAX_SHOWN] + "…"


def this_process(*, program: str, run_id: str = "", service_job: tuple[str, str, str] | None = None) -> Holder:
    """Makes this process the holder of a new lock."""
    found = _state_and_start(os.getpid())
    return Holder(
        token=uuid.uuid4().hex,
        run_id=run_id,
        program=program,
        user=_user()[:_MAX_SHOWN],
        host=socket.gethostname()[:_MAX_SHOWN],
        pid=os.getpid(),
        machine=_machine() if found else "",
        process_start=found[1] if found else "",
        since=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S} UTC",
        service_job=service_job,
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # The user has no name, which is common in containers.
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"


def _machine() -> str:
    try:
        with open(_BOOT_ID, encoding="ascii") as stream:
            return f"{stream.read().strip()} {os.readlink(_PROCESS_NAMESPACE)}"
    except OSError:
        return ""


def _state_and_start(pid: int) -> tuple[str, str] | None:
    """The state and the start time of a process; None if they cannot be read."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            fields: list[Any] = stream.read().rpartition(")")[2].split()
        return fields[0], fields[19]
    except (OSError, IndexError):
        return None
