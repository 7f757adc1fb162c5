"""Reads the images of web hosts, with retries, and tells an image that is gone from a host that is gone.

A web host is not the user's storage: one that stays away costs its own images, as failures that can be retried, and not
the job. Only if no host answers any more that answered before, the network of this machine is at fault, and the job
stops.
"""

from __future__ import annotations

import collections
import dataclasses
import importlib.metadata
import threading
from typing import NoReturn

from preprocess.images.host_queues import DEFAULT_CONNECTIONS_PER_HOST
from preprocess.images.web_client import WebClient, WebFault
from preprocess.lists.outcomes import RowFailure
from preprocess.machine.machine_faults import MachineFault
from preprocess.storage.retry import RetryPolicy
from preprocess.storage.uris import host_of, shown

PROJECT = "hugs-image-classifier"
# An image that fails this often, while its host answers, is not tried again: the fault is about the image.
_MAX_TRIES = 5
# A host that gave no answer for the whole time of the retries is left alone for this long, then tried with one image.
_LEFT_ALONE_SEC = 60.0
# How many hosts are remembered. A list may name a million of them.
_MAX_HOSTS = 4096
# How many hosts are asked to find out whether the network is gone.
_ASKED_HOSTS = 3


def user_agent(contact: str | None) -> str:
    """How this program introduces itself to web hosts: its name, its version, and whom to write to."""
    try:
        version = f"/{importlib.metadata.version(PROJECT)}"
    except importlib.metadata.PackageNotFoundError:  # A worker has the code, but not the package.
        version = ""
    return f"{PROJECT}{version}" + (f" ({contact})" if contact else "")


@dataclasses.dataclass(slots=True)
class _Host:
    """What is known of a host; times are of the clock of the retries.

    Attributes:
      url: an address of it.
      answered_sec: when it last answered; None for never.
      away_sec: since when it is known not to answer; None if it answers.
      quiet_until_sec: until when it asks to be left alone.
    """

    url: str
    answered_sec: float | None = None
    away_sec: float | None = None
    quiet_until_sec: float = 0.0


class WebImages:
    """The images of web hosts. Threads may share it.

    Args:
      retry: how long an image is tried again.
      deadline_sec: for one try.
      connections_per_host: the largest number of connections to one host.
      contact: an address of the user for the owners of hosts.
    """

    def __init__(
        self,
        *,
        retry: RetryPolicy,
        deadline_sec: float,
        connections_per_host: int = DEFAULT_CONNECTIONS_PER_HOST,
        contact: str | None = None,
    ):
        self._retry = retry
        self._deadline_sec = deadline_sec
        self._client = WebClient(user_agent=user_agent(contact), connections_per_host=connections_per_host)
        self._lock = threading.Lock()
        self._hosts: collections.OrderedDict[str, _Host] = collections.OrderedDict()

    def read(self, location: str, /, *, max_bytes: int | None = None) -> bytes:
        """The bytes of an image.

        Raises:
          TooLarge: it has more than `max_bytes` bytes.
          RowFailure: it cannot be had: not_found, no_permission, tls_error, refused_redirect, bad_uri, read_error; or
            not now: unreachable, server_busy, server_error.
          MachineFault: this machine has lost its network.
        """
        host = host_of(location) or ""
        if "@" in location.partition("://")[2].partition("/")[0]:
            raise RowFailure(
                "read", "bad_uri", f"{shown(location)}: an address with a user name is not read; records would hold it."
            )
        clock = self._retry.clock
        started_sec = clock()
        tries = 0
        self._require_present(host, location, started_sec)
        wait_sec = self._quiet_sec(host)
        while True:
            if wait_sec:
                if clock() + wait_sec - started_sec >= max(self._retry.limit_sec, 1e-9):
                    raise RowFailure("read", "server_busy", f"{host} asks to be left alone for {wait_sec:.0f} s more.")
                self._retry.sleep(wait_sec)
            tries += 1
            try_sec = clock()
            try:
                data = self._client.get(location, max_bytes=max_bytes, deadline_sec=self._deadline_sec)
            except WebFault as fault:
                if fault.answered:
                    self._note_answer(host, location)
                if not fault.transient:
                    if not fault.answered:
                        self._note_away(host, location)
                    raise _failure(fault, tries) from fault
                wait_sec = max(self._retry.wait_sec(tries), self._told_to_wait(host, fault))
                late = clock() + wait_sec - started_sec >= self._retry.limit_sec
                if late and not fault.answered:
                    self._give_up_on(host, location, fault, tries)
                # Meanwhile the host may have answered to other images.
                patient = fault.reason == "server_busy" or not self._answered_since(host, try_sec)
                if late or (tries >= _MAX_TRIES and not patient):
                    raise _failure(fault, tries) from fault
            except Exception:
                self._note_answer(host, location)  # TooLarge
                raise
            else:
                self._note_answer(host, location)
                return data

    def _of(self, host: str, location: str) -> _Host:
        """What is known of a host; the lock is held."""
        found = self._hosts.setdefault(host, _Host(location))
        self._hosts.move_to_end(host)
        if len(self._hosts) > _MAX_HOSTS:
            self._hosts.popitem(last=False)
        return found

    def _note_answer(self, host: str, location: str) -> None:
        with self._lock:
            found = self._of(host, location)
            found.answered_sec, found.away_sec = self._retry.clock(), None

    def _note_away(self, host: str, location: str) -> None:
        with self._lock:
            self._of(host, location).away_sec = self._retry.clock()

    def _answered_since(self, host: str, since_sec: float) -> bool:
        with self._lock:
            found = self._hosts.get(host)
            return found is not None and found.answered_sec is not None and found.answered_sec >= since_sec

    def _quiet_sec(self, host: str) -> float:
        with self._lock:
            found = self._hosts.get(host)
            return max(0.0, found.quiet_until_sec - self._retry.clock()) if found else 0.0

    def _told_to_wait(self, host: str, fault: WebFault) -> float:
        """The seconds for which a host asks to be left alone, by this answer or by an earlier one."""
        if fault.wait_sec is not None:
            with self._lock:
                found = self._hosts.get(host)
                if found is not None:
                    found.quiet_until_sec = max(found.quiet_until_sec, self._retry.clock() + fault.wait_sec)
        return self._quiet_sec(host)

    def _require_present(self, host: str, location: str, now_sec: float) -> None:
        """Raises RowFailure if the host is known to be away. Now and then it lets one image try."""
        with self._lock:
            found = self._hosts.get(host)
            if found is None or found.away_sec is None:
                return
            if now_sec - found.away_sec > _LEFT_ALONE_SEC:
                found.away_sec = now_sec
                return
        raise RowFailure("read", "unreachable", f"{shown(location)}: {host} does not answer.")

    def _give_up_on(self, host: str, location: str, fault: WebFault, tries: int) -> NoReturn:
        """Ends the tries of an image whose last one got no answer.

        Raises:
          RowFailure: the fault is about the image, or its host is gone.
          MachineFault: its host is gone, and all other hosts too that answered before.
        """
        if not self._client.can_connect(location):
            with self._lock:
                known = sorted(
                    (found.answered_sec, name, found.url)
                    for name, found in self._hosts.items()
                    if found.answered_sec is not None
                )
            others = [url for _, name, url in known if name != host]
            if known and not any(map(self._client.can_connect, others[-_ASKED_HOSTS:])):
                raise MachineFault(
                    f"{fault.message} (tried {tries} times), and no web host answers that answered before. Has this "
                    "machine lost its network?"
                ) from fault
            self._note_away(host, location)
        raise _failure(fault, tries) from fault


def _failure(fault: WebFault, tries: int) -> RowFailure:
    tried = f" (tried {tries} times)" if tries > 1 else ""
    message = f"{fault.message}{tried}".encode("utf-8", "backslashreplace").decode()
    return RowFailure("read", fault.reason, message)
