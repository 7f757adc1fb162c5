import threading
import time

import pytest

from preprocess.machine import deadlines
from preprocess.machine.deadlines import DeadlineWatch
from preprocess.machine.machine_faults import MachineFault

WAIT_SEC = 20


class Clock:
    """The monotonic clock, moved on by hand."""

    def __init__(self):
        self.ahead_sec = 0.0

    def __call__(self):
        return time.monotonic() + self.ahead_sec


def test_what_is_late_is_told_and_what_is_in_time_is_not():
    watch = DeadlineWatch("test")
    late, never = threading.Event(), threading.Event()
    in_time = watch.start(60, never.set)
    token = watch.start(0.02, late.set)
    assert late.wait(WAIT_SEC)
    assert not watch.end(token)
    assert watch.end(in_time)
    assert not watch.end(in_time)
    assert not never.is_set()


def test_time_in_which_the_process_did_not_run_is_given_back(monkeypatch):
    monkeypatch.setattr(deadlines, "_TICK_SEC", 0.02)
    clock = Clock()
    watch = DeadlineWatch("test", clock=clock)
    late, waking = threading.Event(), threading.Event()
    token = watch.start(100, late.set)
    clock.ahead_sec += 1000
    # What is started later is late as soon as ever.
    watch.start(0.01, waking.set)
    assert waking.wait(WAIT_SEC)
    time.sleep(0.1)
    assert not late.is_set()
    assert watch.end(token)


def test_time_in_which_the_process_ran_is_not_given_back(monkeypatch):
    monkeypatch.setattr(deadlines, "_TICK_SEC", 0.01)
    watch = DeadlineWatch("test")
    late = threading.Event()
    watch.start(0.3, late.set)
    assert late.wait(WAIT_SEC)


def test_what_fails_once_late_does_not_end_the_watching():
    watch = DeadlineWatch("test")
    late = threading.Event()
    watch.start(0.01, lambda: 1 / 0)
    watch.start(0.05, late.set)
    assert late.wait(WAIT_SEC)


def test_many_short_tasks_do_not_wake_the_watching_thread(monkeypatch):
    watch = DeadlineWatch("test")
    notified = []
    monkeypatch.setattr(watch._changed, "notify", lambda: notified.append(1))
    for _ in range(1000):
        watch.end(watch.start(60, lambda: None))
    assert len(notified) <= 2


def test_no_thread_to_watch_is_the_machines_fault(monkeypatch):
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(MachineFault, match="no thread can be started"):
        DeadlineWatch("test")


def refuse(thread):
    raise RuntimeError("can't start new thread")
