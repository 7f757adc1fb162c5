"""Who holds a lock, as it is written into it: for the message to who is refused, and to see that a holder is dead."""

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
_DEAD_STATES = ("Z", "X")  # Of a process that ended and that its parent has not asked for.


class LockLost(InputError):  # noqa: N818 (what it says is what happened)
    """A run no longer holds what it had locked, and must not change it any more."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds a lock.

    Attributes:
      token: of this very lock: nobody else writes it.
      run_id: of the run, which all of its workers know.
      program: that runs.
      user: whose process it is.
      host: that it runs on.
      pid: its number.
      machine: the boot of the machine and the space of its process numbers; empty if that is not known.
      process_start: when the process was started, in ticks of the machine; a number may be used again.
      since: when it took the lock, by its own clock: for people only.
      service_job: the job on a service that goes on without this process, as (project, region, name); None for none.
      handed_over: the process is done with it, and only the service's job holds the lock.
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
        """What is written into a lock."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    @classmethod
    def from_text(cls, text: str) -> Holder | None:
        """Reads what is written in a lock; None if it is nothing that this program wrote."""
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
        """Who it is and since when, for a message; what a stranger wrote cannot steer a terminal."""
        process = f"{self.program}, process {self.pid} of {self.user} on {self.host}"
        if self.service_job is not None and self.handed_over:
            project, region, name = self.service_job
            process = f"the job {name} in project {project}, region {region}, started by {self.user} on {self.host}"
        return shown(f"{process}, since {self.since}")

    def is_alive(self) -> bool | None:
        """Whether the process lives; None if that cannot be told from this machine."""
        machine = _machine()
        if not machine or self.machine != machine or self.host != socket.gethostname() or self.pid <= 0:
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except (OSError, OverflowError):
            pass  # It is there, and another user's.
        found = _state_and_start(self.pid)
        if found is None:
            return None
        state, start = found
        return state not in _DEAD_STATES and start == self.process_start


def shown(text: str) -> str:
    """Text of a stranger as it may be printed: one line, without control characters."""
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
    except (OSError, KeyError):  # A number without a name, as containers have it.
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"


def _machine() -> str:
    try:
        with open(_BOOT_ID, encoding="ascii") as stream:
            return f"{stream.read().strip()} {os.readlink(_PROCESS_NAMESPACE)}"
    except OSError:
        return ""


def _state_and_start(pid: int) -> tuple[str, str] | None:
    """The state of a process and when it was started; None if this machine does not say."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            fields: list[Any] = stream.read().rpartition(")")[2].split()
        return fields[0], fields[19]
    except (OSError, IndexError):
        return None
