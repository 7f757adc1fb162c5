"""Jobs of runners that are not in this process: how they end, and what is said about it."""

import dataclasses
import json
import os

import grpc
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from configs.errors import InputError
from pipelines.embedding import local_run, submission
from pipelines.embedding.submission import RemoteRun, run_remotely, submit
from pipelines.runners.beam_noise import quiet_children
from pipelines.runners.beam_options import make_runner, parse_beam_options
from preprocess.beam.transforms import EmbedLists, EmbedOptions
from preprocess.jobs.report import COMPLETE, NOTHING_EMBEDDED, WRONG_ROW_ACCOUNTING
from preprocess.lists.labels import parse_label_dict
from preprocess.records.record_set import MANIFEST_NAME, Manifest, sidecar_path
from preprocess.storage.base import LocalStorage, write_file
from tests.support.stand_ins import IDENTITY, load_stand_in, make_job


@pytest.fixture
def job(tmp_path):
    return make_job(tmp_path)


@pytest.fixture
def labels():
    return parse_label_dict(b"a\nb\n", where="dict.txt")


@dataclasses.dataclass
class Result:
    """Beam's handle of a job that is over."""

    state: str = "DONE"
    failure: BaseException | None = None

    def wait_until_finish(self):
        if self.failure is not None:
            raise self.failure
        return self.state


def run_of(job, *, outlives_us=True, **result):
    return RemoteRun(
        jobs=[job],
        result=Result(**result),
        storage=LocalStorage(),
        where="https://console/jobs/7",
        job_id="7",
        outlives_us=outlives_us,
    )


@pytest.fixture(autouse=True)
def short_table(monkeypatch):
    monkeypatch.setattr(local_run, "print_summary", lambda report, prefix, **_: print(f"{prefix}: {report['status']}"))


def leave_report(job, status, *, run_id="r1", error=None):
    folder = f"{job.output_prefix.removesuffix('train')}_train" if status == COMPLETE else job.parts_dir
    report = {"run_id": run_id, "status": status, "error": error, "embedded": 0, "output": {"shards": 0}}
    write_file(LocalStorage(), f"{folder}/report.json", json.dumps(report).encode())


def leave_manifest(job):
    manifest = Manifest(backbone=IDENTITY, labels=("a",), compression="none", records=0, shards=())
    write_file(LocalStorage(), sidecar_path(job.output_prefix, MANIFEST_NAME), manifest.to_bytes())


def test_a_finished_job_ends_with_the_table_of_its_report(job, capsys):
    leave_report(job, COMPLETE)
    leave_manifest(job)
    assert run_of(job).wait() == 0
    assert capsys.readouterr().out == f"{job.output_prefix}: complete\n"


@pytest.mark.parametrize("state", ["DONE", "FAILED"])
def test_a_report_that_says_complete_without_a_manifest_is_no_finished_set(job, state):
    leave_report(job, COMPLETE)
    with pytest.raises(InputError, match=f"the job ended in state {state}, without a report of a finished set"):
        run_of(job, state=state).wait()


def test_a_job_that_failed_by_its_own_verdict_is_told_as_here(job, capsys):
    leave_report(job, NOTHING_EMBEDDED, error="None of 10 rows could be embedded.")
    # For the runner it is a job that failed, with the traceback of a stage.
    run = run_of(job, state="FAILED", failure=RuntimeError("Traceback ...\nJobFailed: None of 10 rows"))
    with pytest.raises(InputError, match=r"None of 10 rows could be embedded. The table above says why"):
        run.wait()
    assert capsys.readouterr().out == f"{job.output_prefix}: nothing_embedded\n"


def test_books_that_do_not_balance_are_exit_code_1(job, capsys):
    leave_report(job, WRONG_ROW_ACCOUNTING, error="10 rows were counted before the start, 9 were read.")
    assert run_of(job, state="FAILED").wait() == 1
    assert "the row accounting is wrong" in capsys.readouterr().err


@pytest.mark.parametrize("state", ["DONE", "FAILED", "CANCELLED"])
def test_the_report_of_another_run_is_not_taken_for_this_one(job, state):
    leave_report(job, COMPLETE, run_id="r0")
    with pytest.raises(InputError) as caught:
        run_of(job, state=state).wait()
    assert (
        f"the job ended in state {state}, without a report of a finished set. Look at https://console/jobs/7."
        in str(caught.value)
    )


def test_of_a_failure_the_last_line_is_told(job):
    failure = RuntimeError("Dataflow pipeline failed. State: FAILED, Error:\nTraceback ...\nInputError: old image.\n")
    with pytest.raises(InputError, match=r"ended in state FAILED \(InputError: old image\), without a report"):
        run_of(job, state="FAILED", failure=failure).wait()


def test_of_a_failure_that_an_input_error_of_a_worker_has_led_to_that_is_told(job):
    failure = RuntimeError("Error during deserialization of the task graph.\nFor more information, see\nhttps://docs")
    failure.__cause__ = InputError("worker: it has other code.")
    with pytest.raises(InputError, match=r"ended in state FAILED \(worker: it has other code\), without a report"):
        run_of(job, state="FAILED", failure=failure).wait()


def test_of_an_error_of_grpc_its_details_are_told(job):
    class Unavailable(grpc.RpcError):
        def details(self):
            return "failed to connect"

        def __str__(self):
            return "<_MultiThreadedRendezvous of RPC that terminated with:\n\tdetails = ...\n>"

    with pytest.raises(InputError, match=r"in state RUNNING \(failed to connect\)"):
        run_of(job, state="RUNNING", failure=Unavailable()).wait()


def test_a_job_that_is_only_out_of_sight_is_not_said_to_have_ended(job):
    with pytest.raises(InputError, match=r"lost sight of the job in state RUNNING \(no network\)"):
        run_of(job, state="RUNNING", failure=OSError("no network")).wait()


@pytest.mark.parametrize(
    ("outlives_us", "words"),
    [(True, "the job goes on."), (False, "whether the job goes on is up to its runner.")],
)
def test_who_stops_waiting_is_told_whether_the_job_goes_on(job, outlives_us, words, capsys):
    run = run_of(job, outlives_us=outlives_us, failure=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run.wait()
    assert f"no longer waited for; {words} Look at https://console/jobs/7" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "PortableRunner could not be started (You must specify a --job_endpoint"),
        (["--job_endpoint=localhost:9", "--job_server_timeout=1"], "PortableRunner cannot reach its job server"),
    ],
)
def test_a_job_server_that_is_not_there_is_one_line(job, labels, flags, words):
    options = PipelineOptions(["--runner=PortableRunner", "--environment_type=LOOPBACK", *flags])
    transform = EmbedLists(
        job=job, labels=labels, options=EmbedOptions(unknown_labels="fail", load_engine=load_stand_in)
    )
    with pytest.raises(InputError) as caught:
        submit([job], transform, runner=make_runner(options), beam_options=options, storage=LocalStorage())
    assert words in str(caught.value)


def test_a_scheduler_of_dask_that_is_not_there_is_one_line(job, labels):
    pytest.importorskip("distributed", reason="dask[distributed] is not installed")
    flags = ["--runner=dask", "--dask_client_address=tcp://127.0.0.1:9", "--dask_connection_timeout=1"]
    options = parse_beam_options(flags, own_flags=())
    transform = EmbedLists(
        job=job, labels=labels, options=EmbedOptions(unknown_labels="fail", load_engine=load_stand_in)
    )
    with pytest.raises(InputError, match=r"dask could not be started \(.*9") as caught:
        submit([job], transform, runner=make_runner(options), beam_options=options, storage=LocalStorage())
    assert "\n" not in str(caught.value)


_FAILED_IN_WORKER = """\
Pipeline job-7 failed in state FAILED: Traceback (most recent call last):
  File "local_job_service.py", line 293, in _run_job
RuntimeError: Traceback (most recent call last):
  File "transforms.py", line 1, in process
{error}
"""


@pytest.mark.parametrize(
    ("failure", "shown"),
    [
        (_FAILED_IN_WORKER.format(error="KeyError: 'x'"), True),
        (_FAILED_IN_WORKER.format(error="configs.errors.InputError: worker: other code."), False),
        (_FAILED_IN_WORKER.format(error="PermissionError: [Errno 13] Permission denied: 'out'"), False),
        ("Pipeline job-7 failed in state FAILED: Traceback ...\nRuntimeError: Channel closed prematurely.", False),
    ],
)
def test_of_a_job_service_of_ours_the_traceback_is_shown_if_it_is_a_bug(job, monkeypatch, capsys, failure, shown):
    run = run_of(job, outlives_us=False, state="FAILED", failure=RuntimeError(failure))
    monkeypatch.setattr(submission, "submit", lambda *_, **__: run)
    options = PipelineOptions(["--runner=PortableRunner", "--job_endpoint=embed"])
    with pytest.raises(InputError, match="the job ended in state FAILED"):
        run_remotely([job], None, runner=None, beam_options=options, storage=LocalStorage())
    traceback = "Traceback (most recent call last):\n  File \"transforms.py\", line 1, in process\nKeyError: 'x'\n"
    assert capsys.readouterr().err == (traceback if shown else "")


def test_what_children_say_is_shown_if_something_unforeseen_happens(capfd):
    with quiet_children():
        os.write(2, b"chatter\n")
    with pytest.raises(InputError), quiet_children():
        os.write(2, b"more chatter\n")
        raise InputError("wrong")
    assert not capfd.readouterr().err
    with pytest.raises(ZeroDivisionError), quiet_children():
        os.write(2, b"a clue\n")
        raise ZeroDivisionError
    assert capfd.readouterr().err == "a clue\n"
