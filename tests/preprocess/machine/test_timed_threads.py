import subprocess
import sys
import threading
import time

import pytest

from preprocess.machine.machine_faults import MachineFault
from preprocess.machine.timed_threads import DaemonThreads, TimedThreads

WAIT_SEC = 20


class Task:
    """Notes what becomes of it; `run` waits for `gate`, if there is one."""

    def __init__(self, gate=None, *, deadline_sec=60.0, prepare=lambda: None):
        self.deadline_sec = deadline_sec
        self.prepare = prepare
        self._gate = gate
        self.began = threading.Event()
        self.ended = threading.Event()
        self.outcomes = []

    def run(self):
        self.began.set()
        if self._gate:
            self._gate.wait(WAIT_SEC)

    def finish(self):
        self.outcomes.append("finished")
        self.ended.set()

    def give_up(self, error):
        self.outcomes.append("given up" if error is None else str(error))
        self.ended.set()


def submitted(pool, *tasks):
    for task in tasks:
        pool.submit(task)
    return tasks


def outcomes(tasks):
    assert all(task.ended.wait(WAIT_SEC) for task in tasks)
    return [task.outcomes for task in tasks]


def wait_until(condition):
    deadline = time.monotonic() + WAIT_SEC
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert condition()


def test_tasks_are_run_in_order():
    done, ended = [], threading.Event()
    pool = DaemonThreads(1, "test")
    for number in range(100):
        pool.submit(lambda number=number: done.append(number))
    pool.submit(ended.set)
    assert ended.wait(WAIT_SEC)
    assert done == list(range(100))


def test_a_task_in_time_is_finished():
    pool = TimedThreads(2, "test")
    assert outcomes(submitted(pool, *(Task() for _ in range(50)))) == [["finished"]] * 50
    assert pool.num_stuck == 0


def test_threads_that_hang_are_replaced_and_what_they_bring_late_is_dropped():
    gate = threading.Event()
    pool = TimedThreads(2, "test")
    hanging = submitted(pool, *(Task(gate, deadline_sec=0.02) for _ in range(5)))
    others = submitted(pool, *(Task() for _ in range(5)))
    assert outcomes(others) == [["finished"]] * 5
    assert outcomes(hanging) == [["given up"]] * 5
    assert pool.num_stuck == 5
    gate.set()
    wait_until(lambda: pool.num_stuck == 0)
    assert outcomes(hanging) == [["given up"]] * 5
    # Two threads serve, not seven: of three tasks that hold theirs, the last does not begin.
    gate = threading.Event()
    holding = submitted(pool, *(Task(gate) for _ in range(3)))
    wait_until(lambda: sum(task.began.is_set() for task in holding) == 2)
    assert not holding[2].began.wait(0.05)
    gate.set()
    assert outcomes(holding) == [["finished"]] * 3


def test_waiting_before_the_clock_starts_does_not_count():
    gate = threading.Event()
    pool = TimedThreads(1, "test")
    waiting, queued = submitted(pool, Task(prepare=gate.wait, deadline_sec=0.1), Task(deadline_sec=0.1))
    assert not waiting.ended.wait(0.2)
    gate.set()
    assert outcomes([waiting, queued]) == [["finished"]] * 2


def test_an_earlier_deadline_is_not_held_up_by_a_later_one():
    gate = threading.Event()
    pool = TimedThreads(2, "test")
    late, early = submitted(pool, Task(gate, deadline_sec=60), Task(gate, deadline_sec=0.02))
    assert outcomes([early]) == [["given up"]]
    gate.set()
    assert outcomes([late]) == [["finished"]]


def test_with_too_many_that_hang_everything_is_given_up_until_they_come_back():
    gate = threading.Event()
    pool = TimedThreads(2, "test", max_stuck=3)
    hanging = submitted(pool, *(Task(gate, deadline_sec=0.02) for _ in range(4)))
    assert sorted(outcomes(hanging)) == [["given up"]] * 3 + [["storage does not answer: 4 reads hang in this process"]]
    (refused,) = submitted(pool, Task())
    assert "does not answer" in outcomes([refused])[0][0]
    gate.set()
    wait_until(lambda: pool.num_stuck == 0)
    assert outcomes(submitted(pool, *(Task() for _ in range(9)))) == [["finished"]] * 9


def test_what_waits_is_given_up_too():
    gate = threading.Event()
    pool = TimedThreads(1, "test", max_stuck=0)
    tasks = submitted(pool, Task(gate, deadline_sec=0.02), Task(), Task())
    assert all("does not answer" in outcome for (outcome,) in outcomes(tasks))
    gate.set()


def test_each_task_ends_once_however_close_to_its_deadline():
    pool = TimedThreads(4, "test", max_stuck=1000)
    tasks = [Task(deadline_sec=0.002) for _ in range(200)]
    for task in tasks:
        task.run = lambda: time.sleep(0.002)
    submitted(pool, *tasks)
    assert {tuple(outcome) for outcome in outcomes(tasks)} <= {("finished",), ("given up",)}
    wait_until(lambda: pool.num_stuck == 0)
    assert outcomes(submitted(pool, *(Task() for _ in range(9)))) == [["finished"]] * 9


class FewThreads:
    """Lets so many more threads be started."""

    def __init__(self, monkeypatch, number):
        self.left = number
        start = threading.Thread.start

        def start_or_refuse(thread):
            if self.left <= 0:
                raise RuntimeError("can't start new thread")
            self.left -= 1
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", start_or_refuse)


def test_a_pool_makes_do_with_the_threads_that_it_gets(monkeypatch):
    FewThreads(monkeypatch, 2)  # The one that watches, and one that serves.
    pool = TimedThreads(8, "test")
    assert outcomes(submitted(pool, *(Task() for _ in range(20)))) == [["finished"]] * 20


@pytest.mark.parametrize("number", [0, 1])
def test_without_any_thread_it_is_the_machines_fault(monkeypatch, number):
    FewThreads(monkeypatch, number)
    with pytest.raises(MachineFault, match="no thread can be started"):
        TimedThreads(8, "test")
        DaemonThreads(8, "test")


def test_threads_that_cannot_be_replaced_do_not_end_the_watching(monkeypatch):
    few = FewThreads(monkeypatch, 3)
    gate = threading.Event()
    pool = TimedThreads(2, "test")
    hanging = submitted(pool, Task(gate, deadline_sec=0.02))
    assert outcomes(hanging) == [["given up"]]
    # One serves still.
    assert outcomes(submitted(pool, *(Task() for _ in range(9)))) == [["finished"]] * 9
    hanging = submitted(pool, Task(gate, deadline_sec=0.02), Task())
    assert all("does not answer" in outcome for (outcome,) in outcomes(hanging))
    # Once there are threads again, it goes on.
    few.left = 100
    assert outcomes(submitted(pool, *(Task() for _ in range(9)))) == [["finished"]] * 9
    gate.set()


def test_what_follows_a_task_has_a_clock_of_its_own():
    gate = threading.Event()
    pool = TimedThreads(1, "test")
    first, second = Task(deadline_sec=60), Task(gate, deadline_sec=0.02)
    finish = first.finish
    first.finish = lambda: (finish(), second)[1]
    submitted(pool, first)
    assert outcomes([first, second]) == [["finished"], ["given up"]]
    assert outcomes(submitted(pool, Task())) == [["finished"]]
    gate.set()


def test_a_thread_that_hangs_does_not_keep_the_process_from_exiting():
    program = """
import threading
from tests.preprocess.machine.test_timed_threads import DaemonThreads, Task, TimedThreads
began = threading.Event()
DaemonThreads(1, "test").submit(lambda: (began.set(), threading.Event().wait()))
task = Task(threading.Event())
TimedThreads(2, "test").submit(task)
assert began.wait(20) and task.began.wait(20)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=15)
    assert (done.returncode, done.stderr) == (0, "")
