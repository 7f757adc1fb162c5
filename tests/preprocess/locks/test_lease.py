"""The lease in a bucket: who gets it, who is refused in which words, and who finds out that it is lost."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")

from configs.errors import InputError
from preprocess.locks.lease import Lease, Timing
from preprocess.locks.lock_holder import Holder, LockLost, this_process
from preprocess.locks.output_lock import Witness, fenced
from preprocess.storage.base import write_file
from preprocess.storage.gcs import GcsStorage
from preprocess.storage.retry import RetryPolicy
from preprocess.storage.router import UriStorage
from tests.support.faulty_gcs import FaultPlan, FaultyGcs
from tests.support.programs import end_program, start_program

PATH = "gs://bucket/out/.lock"
NAME = "out/.lock"
_MINE = this_process(program="test", run_id="mine")
_ELSEWHERE = dataclasses.replace(_MINE, token="t2", run_id="other", host="other-host", machine="other", user="eve")


@pytest.fixture
def gcs(monkeypatch):
    with FaultyGcs(buckets=["bucket"]) as gcs:
        for name, value in gcs.environment.items():
            monkeypatch.setenv(name, value)
        yield gcs


class Clock:
    """Seconds that pass when somebody sleeps, beginning anywhere."""

    def __init__(self, start=0.0):
        self.now = start
        self.slept = 0.0
        self.on_sleep = lambda: None

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.slept += seconds
        self.on_sleep()


def lock_object(path=PATH):
    return GcsStorage(RetryPolicy(limit_sec=5.0)).versioned(path)


def take(clock=None, *, path=PATH, holder=None, **options):
    """A lease that no thread renews."""
    clock = clock or Clock()
    timing = Timing(clock=clock, sleep=clock.sleep, renew_every_sec=1e6)
    holder = holder or this_process(program="test", run_id="mine")
    return Lease(
        lock_object(path), holder=holder, flag="output_path", output="gs://bucket/out", timing=timing, **options
    )


def put(holder):
    """Writes the lease of somebody else over what is there."""
    lock = lock_object()
    text = holder if isinstance(holder, str) else holder.to_text()
    found = lock.look()
    return lock.replace(text, found) if found else lock.create(text)


def holder_of(gcs):
    return Holder.from_text(gcs.get("bucket", NAME).decode())


def test_who_comes_second_is_told_at_once_who_holds_it(gcs):
    clock = Clock()
    lease = take()
    assert holder_of(gcs).pid == os.getpid()
    with pytest.raises(InputError) as refusal:
        take(clock)
    assert clock.slept == 0
    said = str(refusal.value)
    assert said.startswith("output_path: another process is writing 'gs://bucket/out' at this moment (test, process ")
    assert f"process {os.getpid()} of {_MINE.user} on {_MINE.host}, since 20" in said
    assert said.endswith("Wait for it, or stop it first.")
    lease.confirm()
    lease.release()
    assert NAME not in gcs.names("bucket")
    take().release()


def test_what_a_dead_process_of_this_machine_held_is_free_at_once(gcs):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    put(dataclasses.replace(_MINE, token="t1", pid=process.pid))
    clock = Clock()
    take(clock).release()
    # The number may be another process's by now.
    put(dataclasses.replace(_MINE, token="t1", process_start="1"))
    take(clock).release()
    assert clock.slept == 0


def test_a_process_that_nobody_has_asked_for_is_dead(gcs):
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    with open(f"/proc/{process.pid}/stat") as stream:
        start = stream.read().rpartition(")")[2].split()[19]
    holder = dataclasses.replace(_MINE, token="t1", pid=process.pid, process_start=start)
    assert holder.is_alive()
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # It stays as a zombie.
    assert holder.is_alive() is False
    process.wait()
    assert holder.is_alive() is False
    assert _ELSEWHERE.is_alive() is None


@pytest.mark.parametrize("start", [0.0, -1e9, 1e12])
def test_a_dead_holder_elsewhere_costs_what_is_left_of_its_term_by_the_time_of_the_service(gcs, capsys, start):
    put(_ELSEWHERE)
    gcs.make_older("bucket", NAME, 25)
    clock = Clock(start)
    lease = take(clock)
    assert 33 <= clock.slept <= 38
    assert holder_of(gcs).run_id == "mine"
    said = capsys.readouterr().err
    assert said.startswith("gs://bucket/out: waiting up to 3")
    assert "process" in said and "eve on other-host" in said and said.count("\n") == 1
    lease.release()
    put(_ELSEWHERE)
    gcs.make_older("bucket", NAME, 61)
    clock = Clock(start)
    take(clock).release()
    assert clock.slept == 0


def test_a_holder_elsewhere_that_renews_its_lease_is_left_alone(gcs):
    put(_ELSEWHERE)
    clock = Clock()
    clock.on_sleep = lambda: clock.slept > 8 and put(_ELSEWHERE)
    with pytest.raises(InputError, match="another process is writing .*eve on other-host"):
        take(clock)
    assert clock.slept < 15
    assert holder_of(gcs) == _ELSEWHERE


def test_a_lease_that_is_released_while_it_is_waited_for_is_free(gcs):
    put(_ELSEWHERE)
    clock = Clock()
    clock.on_sleep = lambda: lock_object().look() and lock_object().delete(lock_object().look())
    take(clock).release()
    assert clock.slept < 5


def test_without_the_right_to_ask_for_its_age_a_lease_is_watched_for_a_whole_term(gcs):
    put(_ELSEWHERE)
    gcs.make_older("bucket", NAME, 1000)
    gcs.plan = FaultPlan(share=1.0, faults=["403"], only="^PATCH")
    clock = Clock()
    take(clock).release()
    assert 60 <= clock.slept <= 63


@pytest.mark.parametrize("text", ["", "[]", "{}", "nonsense", '{"token": 3}', "[" * 100000])
def test_a_lock_that_says_nothing_ends_like_any_other(gcs, text):
    gcs.put("bucket", NAME, text.encode())
    clock = Clock()
    take(clock).release()
    assert 58 <= clock.slept <= 63


def test_what_a_stranger_wrote_cannot_steer_a_terminal(gcs):
    put(dataclasses.replace(_ELSEWHERE, user="\x1b[2Jeve\n\r" + 5000 * "x"))
    clock = Clock()
    clock.on_sleep = lambda: put(dataclasses.replace(_ELSEWHERE, user="\x1b[2Jeve\n"))
    with pytest.raises(InputError) as refusal:
        take(clock)
    assert "\x1b" not in str(refusal.value) and "\n" not in str(refusal.value)


def race(number, expect_winners):
    """Starts so many at once; gives the lease of who won."""
    barrier, leases, refused = threading.Barrier(number), [], []

    def start():
        barrier.wait()
        try:
            leases.append(take())
        except InputError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(leases), len(refused)) == (expect_winners, number - expect_winners)
    assert all("another process is writing" in said for said in refused)
    return leases[0]


@pytest.mark.parametrize("before", [None, dataclasses.replace(_MINE, token="t", process_start="1"), _ELSEWHERE])
def test_of_many_that_start_at_once_one_wins(gcs, before):
    for seed in range(5):
        if before is not None:
            put(before)
            gcs.make_older("bucket", NAME, 100)
        # Some do not hear that they have won.
        gcs.plan = FaultPlan(share=0.2, faults=["lost", "503", "drop"], seed=seed)
        lease = race(12, 1)
        assert holder_of(gcs).token == lease.holder.token
        gcs.plan = FaultPlan()
        lease.confirm()
        lease.release()


@pytest.mark.parametrize("before", [None, _ELSEWHERE])
def test_an_answer_that_is_lost_is_no_refusal(gcs, before):
    if before is not None:
        put(before)
        gcs.make_older("bucket", NAME, 100)
    clock = Clock()
    gcs.plan = FaultPlan(share=1.0, faults=["lost"], max_faults=1, only="^POST.*ifGenerationMatch=")
    lease = take(clock)
    gcs.plan = FaultPlan(share=1.0, faults=["lost"], max_faults=1, only="^POST.*ifGenerationMatch=")
    clock.now += 55
    lease.check()
    lease.confirm()
    assert gcs.faults()["lost"] == 2
    gcs.plan = FaultPlan(share=1.0, faults=["lost"], max_faults=1, only="^DELETE")
    lease.release()
    assert NAME not in gcs.names("bucket")


def test_a_holder_that_was_suspended_and_lost_it_changes_nothing(gcs):
    clock = Clock()
    lease = take(clock)
    storage = fenced(UriStorage(RetryPolicy(limit_sec=5.0)), lease)
    write_file(storage, "gs://bucket/out/a", b"old")
    put(_ELSEWHERE)
    # By its own clock no time has passed, as on a machine whose clock was set back or stood still.
    with pytest.raises(LockLost, match="has lost 'gs://bucket/out': .* eve on other-host.* has taken it over"):
        write_file(storage, "gs://bucket/out/a", b"new")
    clock.now += 1000
    for change in (
        lambda: write_file(storage, "gs://bucket/out/b", b"new"),
        lambda: storage.move("gs://bucket/out/a", "gs://bucket/out/c"),
        lambda: storage.delete_file("gs://bucket/out/a"),
        lambda: storage.delete_tree("gs://bucket/out"),
    ):
        with pytest.raises(LockLost):
            change()
    assert storage.read("gs://bucket/out/a") == b"old"
    lease.release()
    assert sorted(gcs.names("bucket")) == [NAME, "out/a"]
    assert holder_of(gcs) == _ELSEWHERE


def test_time_that_has_passed_is_noticed_before_the_next_change(gcs):
    clock = Clock()
    lease = take(clock)
    storage = fenced(UriStorage(RetryPolicy(limit_sec=5.0)), lease)
    gcs.put("bucket", "out/a", b"old")
    clock.now += 49
    requests = len(gcs.exchanges)
    lease.check()
    assert len(gcs.exchanges) == requests  # The usual case costs nothing.
    put(_ELSEWHERE)
    clock.now += 2
    with pytest.raises(LockLost):
        storage.delete_file("gs://bucket/out/a")
    assert gcs.get("bucket", "out/a") == b"old"


def test_a_holder_that_was_suspended_and_lost_nothing_goes_on(gcs):
    clock = Clock()
    lease = take(clock)
    clock.now += 1e6
    gcs.plan = FaultPlan(share=1.0, faults=["503"], max_faults=2)
    lease.check()
    lease.confirm()
    lease.release()


def test_a_lease_that_was_taken_over_and_released_is_lost_too(gcs):
    lease = take()
    put(_ELSEWHERE)
    lock_object().delete(lock_object().look())
    with pytest.raises(LockLost, match="its lock is gone"):
        lease.confirm()
    lease.release()


def test_a_lease_is_renewed_while_it_is_held(gcs):
    timing = Timing(renew_every_sec=0.02)
    holder = this_process(program="test")
    lease = Lease(lock_object(), holder=holder, flag="f", output="o", timing=timing)
    first = lock_object().look()
    gcs.plan = FaultPlan(share=1.0, faults=["403"], max_faults=2, only="^POST")  # The thread goes on after any fault.
    while lock_object().look().generation == first.generation:
        time.sleep(0.01)
    while put(_ELSEWHERE) is None:  # It was renewed in between.
        pass
    while lease._thread.is_alive():  # It has noticed.
        time.sleep(0.01)
    with pytest.raises(LockLost):
        lease.check()
    lease.release()


def test_what_the_bucket_refuses_is_one_line(gcs):
    with pytest.raises(InputError, match="^output_path: cannot write to 'gs://bucket/out' .No such bucket"):
        take(path="gs://no-such-bucket/.lock")
    gcs.plan = FaultPlan(share=1.0, faults=["403"], only="^POST")
    with pytest.raises(InputError, match="^output_path: cannot write to 'gs://bucket/out' .No permission"):
        take()


_JOB = ("project", "region", "job-name")


def test_a_job_on_a_service_holds_its_lease_until_the_service_says_that_it_is_over(gcs):
    holder = dataclasses.replace(_ELSEWHERE, service_job=_JOB, handed_over=True)
    put(holder)
    asked, watch = [], "https://watch"

    def ask(job):
        asked.append(job)
        return watch

    with pytest.raises(InputError, match="being written by the job job-name in project project.* Watch it: https://w"):
        take(ask_service=ask)
    with pytest.raises(InputError, match=f"cannot be told .*remove {PATH}"):
        take()
    watch = ""
    take(ask_service=ask).release()
    assert asked == [_JOB, _JOB]


def test_who_was_killed_after_it_had_started_a_job_on_a_service_leaves_it_the_lease(gcs):
    put(dataclasses.replace(_ELSEWHERE, service_job=_JOB))
    gcs.make_older("bucket", NAME, 100)
    with pytest.raises(InputError, match=r"on other-host, since .* Watch it: https://w"):
        take(ask_service=lambda job: "https://watch")


def test_a_lease_that_was_handed_over_stays_until_the_workers_end_it(gcs):
    lease = take(holder=this_process(program="test", run_id="mine", service_job=_JOB))
    lease.hand_over()
    lease.release()
    assert holder_of(gcs).handed_over
    storage = UriStorage()
    stranger = Witness("gs://bucket/out", run_id="another", output="gs://bucket/out/train", storage=storage)
    with pytest.raises(LockLost):
        stranger.check()
    stranger.release()
    worker = Witness("gs://bucket/out", run_id="mine", output="gs://bucket/out/train", storage=storage)
    worker.check()
    worker.release()
    assert NAME not in gcs.names("bucket")
    worker.check()  # It has looked of late ...
    with pytest.raises(LockLost):
        worker.confirm()  # ... and looks.


def program(gcs, folder="gs://bucket/out", term_sec=600):
    return start_program(
        ["-m", "tests.support.lock_program", folder, str(term_sec)], gcs.environment, stdin=subprocess.PIPE
    )


def test_killed_a_process_leaves_its_lease_to_the_next(gcs):
    first = program(gcs)
    assert first.stdout.readline() == "held\n"
    _, said = end_program(program(gcs), expect=2)
    assert f"process {first.pid} of " in said and said.count("\n") == 1
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert NAME in gcs.names("bucket")
    end_program(program(gcs))
    assert gcs.names("bucket") == []


def test_a_process_that_was_suspended_wakes_up_and_stops_in_one_line(gcs):
    first = program(gcs)
    assert first.stdout.readline() == "held\n"
    os.killpg(first.pid, signal.SIGSTOP)
    gcs.make_older("bucket", NAME, 601)
    second = program(gcs)
    assert second.stdout.readline() == "held\n"
    os.killpg(first.pid, signal.SIGCONT)
    first.stdin.write("first\n")
    stdout, said = end_program(first, expect=2)
    assert stdout == ""
    assert said.startswith("error: folder: this run has lost 'gs://bucket/out'")
    assert f"process {second.pid} of " in said and said.count("\n") == 1
    assert gcs.names("bucket") == [NAME]
    second.stdin.write("second\n")
    stdout, _ = end_program(second)
    assert stdout == "published\n"
    assert gcs.names("bucket") == ["out/published"]
    assert gcs.get("bucket", "out/published") == b"second\n"


def test_what_is_written_can_be_read_by_people(gcs):
    lease = take()
    data = json.loads(gcs.get("bucket", NAME))
    assert data["program"] == "test" and data["host"] and data["since"].endswith(" UTC")
    lease.release()
