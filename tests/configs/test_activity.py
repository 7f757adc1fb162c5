"""What a program is doing is shown if it takes long: as a line that changes on a terminal, else as lines of a log."""

from __future__ import annotations

import io
import os
import pty
import re
import sys
import threading
import time

import pytest

from configs import activity
from configs.activity import doing, shown
from configs.console import settle_streams


class Log(io.StringIO):
    """A log in which a test waits for what it wants to see."""

    def wait_for(self, pattern):
        for _ in range(2000):
            if found := re.search(pattern, self.getvalue()):
                return found
            time.sleep(0.01)
        raise AssertionError(f"{pattern!r} is not in {self.getvalue()!r}")


class Terminal(Log):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(activity, "_SHOWN_AFTER_SEC", 0.0)
    monkeypatch.setattr(activity, "_TICK_SEC", 0.01)
    monkeypatch.setattr(activity, "_FIRST_DISTANCE_SEC", 0.01)


def test_a_log_gets_a_line_at_once_and_then_what_is_done():
    log = Log()
    with shown(log), doing("reading photos", total=300, unit="photo") as reading:
        log.wait_for(r"^reading photos …\n")
        reading.advance(75)
        log.wait_for(r"reading photos: 75 of 300 photos \(25 %\)\n")
        reading.advance()
        log.wait_for(r"76 of 300 photos \(25 %\), [0-9.]+ photos/s, [0-9:]+ left\n")
    assert "\r" not in log.getvalue()
    assert "\x1b" not in log.getvalue()


def test_a_terminal_gets_one_line_that_is_gone_at_the_end():
    terminal = Terminal()
    with shown(terminal):
        with doing("loading the network"):
            terminal.wait_for("\rloading the network … 00:00\x1b\\[K")
        with doing("reading photos", total=4, unit="photo") as reading:
            reading.done = 1
            terminal.wait_for("\rreading photos:  25%")
    assert "\n" not in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_a_bar_that_stays_shows_the_end():
    terminal = Terminal()
    with shown(terminal), doing("embedding train", total=4, unit="row", stays=True) as rows:
        terminal.wait_for("embedding train:   0%")
        rows.advance(4)
    assert re.search(r"\r\x1b\[Kembedding train: 100%\|.*\| 4/4 [^\r]*\n$", terminal.getvalue())


def test_of_activities_within_each_other_the_innermost_is_shown():
    log = Log()
    with shown(log), doing("outer"):
        log.wait_for("outer …")
        with doing("inner"):
            log.wait_for("inner …")
        log.wait_for("inner …[^$]*outer … 00:00")


def test_the_rate_does_not_contain_the_start():
    work = activity.Activity("embedding", 1000, "row", stays=False)
    for now, done in ((0.0, 0), (100.0, 0), (100.5, 8), (101.5, 70), (102.5, 132)):
        work.done = done
        work.sample(work.started + now)
    assert work.rate == pytest.approx(62)
    work.lines = 1
    assert work.line(work.started + 102.5) == "embedding: 132 of 1,000 rows (13 %), 62.0 rows/s, 00:14 left"


def test_the_time_left_is_not_shown_while_a_program_starts():
    """A training compiles before its first step and before its first evaluation, after 25 quick steps here."""
    work = activity.Activity("training", 1000, "step", stays=False)
    work.lines = 1
    seen = {}
    for tick in range(1, 200):
        now = tick * 0.25
        work.done = 0 if now < 4 else 25 if now < 20 else min(25 + int((now - 20) * 50), 1000)
        work.sample(work.started + now)
        seen[now] = work.line(work.started + now), work.bar(work.started + now, 100)
    for now in (5.0, 10.0, 19.0, 21.0):
        assert not any("left" in words or "<" in words for words in seen[now])
    assert "25 of 1,000 steps (2 %)" in seen[10.0][0]
    # When half of what is remembered is quick steps, the estimate begins.
    assert any("left" in line for line, _ in seen.values())
    assert all("18:" not in line for line, _ in seen.values())


def test_without_a_screen_nothing_is_shown_and_no_thread_is_started():
    before = threading.active_count()
    with doing("working", total=1, unit="photo") as work:
        work.advance()
    assert (work.done, threading.active_count()) == (1, before)


def test_an_error_ends_the_line_too():
    terminal = Terminal()
    with shown(terminal), pytest.raises(ValueError, match="bad"), doing("working"):
        terminal.wait_for("working")
        raise ValueError("bad")
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_what_is_printed_meanwhile_stands_on_a_line_of_its_own(monkeypatch):
    """On a real terminal, with standard output and standard error on it, and with descriptor 2 redirected meanwhile."""
    monkeypatch.delenv("HUGS_PROGRESS", raising=False)
    ours, theirs = pty.openpty()
    saved = [os.dup(1), os.dup(2)]
    monkeypatch.setattr(sys, "stdout", os.fdopen(1, "w", closefd=False))
    monkeypatch.setattr(sys, "stderr", os.fdopen(2, "w", closefd=False))
    try:
        os.dup2(theirs, 1)
        os.dup2(theirs, 2)
        settle_streams()
        seen = b""
        with shown(), doing("working"):
            while b"working" not in seen:
                seen += os.read(ours, 1000)
            print("a result", flush=True)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)
            os.close(null)
            while not re.search(rb"\r\x1b\[Ka result\r\n.*\rworking", seen, re.DOTALL):
                seen += os.read(ours, 1000)
    finally:
        for descriptor, copy in enumerate(saved, 1):
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(theirs)
        os.close(ours)
