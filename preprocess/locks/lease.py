"""A lock in a bucket, a lease: its holder renews an object regularly. If the holder stops, others may take the lease.

The clocks of two machines are never compared. There are two ways to know that a lease has expired: the service gives
its age (`VersionedObject.age_sec`), or the waiting process has seen it unchanged for its whole term. Each write names
the generation that it replaces. So if several processes try to take a lease over, only one of them succeeds.

A holder that was suspended or cut off from the network notices that before it changes anything. By the holder's own
clock the lease ends earlier than for all others, because the term counts from before the request that renewed it, and
because of a margin. After that the holder must renew the lease first, and this fails if another process has it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import threading
import time
from collections.abc import Callable

from configs.errors import InputError
from preprocess.locks.lock_holder import Holder, LockLost
from preprocess.storage.versioned_object import Version, VersionedObject

TERM_SEC = 60.0
_MARGIN_SEC = 10.0
_RENEW_EVERY_SEC = 15.0
_POLL_SEC = 2.0
# Asks the service about the job that a holder names. Returns how to watch the job if it is active, otherwise an empty
# text. Raises OSError or InputError if the service gives no answer.
AskService = Callable[[tuple[str, str, str]], str]


def elapsed_sec() -> float:
    """A monotonic clock in seconds, which also counts while the machine sleeps."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """The times and the clock of a lease; tests have clocks of their own.

    Attributes:
      term_sec: a lease that was not renewed for this long may be taken over.
      margin_sec: the holder stops relying on the lease this much earlier.
      renew_every_sec: the time between two renewals.
      poll_sec: the time between two looks of a waiting process.
      clock: a monotonic clock in seconds. Clocks of different machines are not comparable.
      sleep: waits for a number of seconds.
    """

    term_sec: float = TERM_SEC
    margin_sec: float = _MARGIN_SEC
    renew_every_sec: float = _RENEW_EVERY_SEC
    poll_sec: float = _POLL_SEC
    clock: Callable[[], float] = elapsed_sec
    sleep: Callable[[float], None] = time.sleep


class Lease:
    """A lease that this process holds. A thread renews it until it is released.

    Args:
      lock: the object.
      holder: this process.
      flag: the option that names the output, for messages.
      output: the locked output, as the user names it.
      ask_service: asks about a job on a service that holds a lease; None if no service can be asked.
      timing: of the lease.

    Raises:
      InputError: another process holds the lease, or it cannot be written.
    """

    def __init__(
        self,
        lock: VersionedObject,
        *,
        holder: Holder,
        flag: str,
        output: str,
        ask_service: AskService | None = None,
        timing: Timing = Timing(),
    ):
        self.output = output
        self.holder = holder
        self._lock = lock
        self._flag = flag
        self._ask_service = ask_service
        self._timing = timing
        self._mutex = threading.Lock()
        self._released = threading.Event()
        self._lost: LockLost | None = None
        self._version: Version
        self._relied_until = 0.0
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        try:
            self._acquire()
        except OSError as error:
            raise InputError(f"{flag}: cannot write to {output!r} ({error}).") from error
        try:
            self._thread.start()
        except RuntimeError as error:
            self.release()
            raise InputError(f"{flag}: no thread can be started to keep the lock of {output!r} ({error}).") from error

    # Acquiring the lease.

    def _acquire(self) -> None:
        text = self.holder.to_text()
        while True:
            asked_sec = self._timing.clock()
            version = self._lock.create(text)
            if version is None:
                found = self._lock.look()
                if found is None:
                    continue  # Released in between.
                if self._is_ours(found):
                    version = found  # An earlier attempt succeeded, and only its answer was lost.
                elif self._is_free(found):
                    asked_sec = self._timing.clock()
                    version = self._lock.replace(text, found)
            if version is not None:
                self._own(version, asked_sec)
                return

    def _is_ours(self, found: Version) -> bool:
        other = Holder.from_text(found.text)
        return other is not None and other.token == self.holder.token

    def _is_free(self, found: Version) -> bool:
        """Whether the lease of another process may be taken over. If necessary, it waits until the lease expires.

        Returns:
          False if the lease was changed or released meanwhile; the caller must then look at it again.

        Raises:
          InputError: another process holds the lease.
          OSError: storage failed.
        """
        other = Holder.from_text(found.text)
        if other is not None and other.handed_over:
            return self._service_is_done(other)
        alive = other.is_alive() if other else None
        if alive is not False and not self._has_run_out(found, other, alive=alive):
            return False
        # A process may have been killed after it started a job on a service, before it handed the lease over.
        return self._service_is_done(other) if other and other.service_job else True

    def _has_run_out(self, found: Version, other: Holder | None, *, alive: bool | None) -> bool:
        timing = self._timing
        started_sec = timing.clock()
        try:
            age_sec = self._lock.age_sec(found)
        except PermissionError:  # The right to change metadata may be missing although writing is allowed.
            age_sec = 0.0
        if age_sec is None:
            return False
        remaining_sec = timing.term_sec - age_sec
        if remaining_sec <= 0:
            return True
        if alive:
            raise self._refusal(other)
        who = other.describe() if other else f"what wrote {self._lock.path}"
        print(
            f"{self.output}: waiting up to {remaining_sec:.0f} s to see whether its lock is still held ({who})",
            file=sys.stderr,
            flush=True,
        )
        while timing.clock() - started_sec < remaining_sec:
            timing.sleep(timing.poll_sec)
            now = self._lock.look()
            if now is None:
                return False
            if now.generation != found.generation:
                raise self._refusal(Holder.from_text(now.text))
        return True

    def _service_is_done(self, other: Holder) -> bool:
        assert other.service_job is not None
        try:
            if self._ask_service is None:
                raise OSError("this program cannot ask for it")
            watch = self._ask_service(other.service_job)
        except (OSError, InputError) as error:
            raise InputError(
                f"{self._flag}: {self.output!r} belongs to {other.describe()}, and whether that still runs cannot be "
                f"told ({error}). Once it does not, remove {self._lock.path} and give the same command again."
            ) from error
        if watch:
            raise InputError(
                f"{self._flag}: {self.output!r} is being written by {other.describe()}. Watch it: {watch} - wait for "
                "its end, or stop it first."
            )
        return True

    def _refusal(self, other: Holder | None) -> InputError:
        who = other.describe() if other else "by its lock, which this version cannot read"
        return InputError(
            f"{self._flag}: another process is writing {self.output!r} at this moment ({who}). Wait for it, or stop it "
            "first."
        )

    # Keeping the lease.

    def _own(self, version: Version, asked_sec: float) -> None:
        self._version = version
        self._relied_until = asked_sec + self._timing.term_sec - self._timing.margin_sec

    def _keep(self) -> None:
        while not self._released.wait(self._timing.renew_every_sec):
            try:
                self._renew(self._lock.within(self._timing.renew_every_sec))
            except LockLost:
                return
            except Exception:
                continue  # This thread tries again soon, and `check` does so before each change.

    def _renew(self, lock: VersionedObject, *, only_if_due: bool = False) -> None:
        with self._mutex:
            while True:
                if self._lost is not None:
                    raise self._lost
                if only_if_due and self._timing.clock() < self._relied_until:
                    return  # Another thread has renewed it.
                asked_sec = self._timing.clock()
                version = lock.replace(self.holder.to_text(), self._version)
                if version is not None:
                    self._own(version, asked_sec)
                    return
                # Either the answer to an earlier attempt was lost, or the lease is lost.
                self._version = self._require_ours(lock.look())

    def _require_ours(self, found: Version | None) -> Version:
        if found is not None and self._is_ours(found):
            return found
        other = Holder.from_text(found.text) if found else None
        taken = f"{other.describe()} has taken it over" if other else "its lock is gone"
        self._lost = LockLost(
            f"{self._flag}: this run has lost {self.output!r}: it was suspended or cut off from storage for longer "
            f"than {self._timing.term_sec:.0f} s, and {taken}. It stops here and changes nothing more. Give the same "
            "command again once nothing else writes there."
        )
        raise self._lost

    def check(self) -> None:
        """Makes sure that nobody has taken the lease over. It asks the service only if the last renewal is too old.

        Raises:
          LockLost: another process has it.
          OSError: the service does not say.
        """
        if self._lost is not None:
            raise self._lost
        if self._timing.clock() >= self._relied_until:
            self._renew(self._lock, only_if_due=True)

    def confirm(self) -> None:
        """Asks the service whether this process still holds the lease, without relying on any clock.

        Raises:
          LockLost: another process has it.
          OSError: storage failed.
        """
        self.check()
        found = self._lock.look()
        with self._mutex:
            if self._lost is not None:
                raise self._lost
            self._require_ours(found)

    def hand_over(self) -> None:
        """Hands the lease over to the job on a service that its holder names. The job goes on without this process.

        If storage fails, the lease expires, but other processes still ask the service about the job.

        Raises:
          LockLost: another process has it.
        """
        with self._mutex:
            self.holder = dataclasses.replace(self.holder, handed_over=True)
        try:
            with contextlib.suppress(OSError):
                self._renew(self._lock)
        finally:
            self._released.set()

    def release(self) -> None:
        """Ends the lease. If storage fails, the lease expires by itself."""
        handed_over = self._released.is_set()
        self._released.set()
        if handed_over:
            return
        lock = self._lock.within(self._timing.margin_sec)
        with self._mutex, contextlib.suppress(OSError, LockLost):
            if self._lost is None:
                found = lock.look()
                if found is not None and self._is_ours(found):
                    lock.delete(found)
