"""Beam's Prism, a job server of its own, with workers from a pool: the seam of Flink and Spark."""

import contextlib
import os
import signal
import time

import pytest

from tests.support.cluster_jobs import ClusterJob, decoders_of, files_of
from tests.support.prism import PRISM, WHY_NOT, prism, worker_pool

pytestmark = pytest.mark.skipif(not PRISM.exists(), reason=WHY_NOT)


def start(data, out, port, workers, **options):
    flags = ["--runner=PortableRunner", f"--job_endpoint=localhost:{port}"]
    flags += ["--environment_type=EXTERNAL", f"--environment_config=localhost:{workers}"]
    return ClusterJob(data, out, *flags, **{"batch_sec": 0.2, **options})


@contextlib.contextmanager
def cluster(folder, name):
    folder = folder / name
    folder.mkdir()
    with prism(folder) as (server, port), worker_pool(folder) as workers:
        yield server, port, workers


def goes_on(data, out, undisturbed):
    """The same command, on a new cluster, ends with the set."""
    with cluster(out, "again") as (_, port, workers):
        start(data, out, port, workers, batch_sec=0.0).end()
    assert files_of(out) == undisturbed


def test_the_set_is_the_one_that_is_made_here_and_a_decoder_that_is_killed_costs_no_row(data, undisturbed, tmp_path):
    with cluster(tmp_path, "first") as (_, port, workers):
        job = start(data, tmp_path, port, workers)
        (worker,) = job.wait_until_embedding()
        for decoder in decoders_of(worker):
            os.kill(decoder, signal.SIGKILL)
        job.end()
    assert files_of(tmp_path) == undisturbed


@pytest.mark.parametrize("victim", ["worker", "server"])
def test_what_is_killed_stops_the_job_and_the_same_command_goes_on(data, undisturbed, tmp_path, victim):
    with cluster(tmp_path, "first") as (server, port, workers):
        job = start(data, tmp_path, port, workers)
        (worker,) = job.wait_until_embedding()
        os.kill(worker if victim == "worker" else server.pid, signal.SIGKILL)
        _, stderr = job.end(expect=2)
    assert "Traceback" not in stderr
    last = stderr.splitlines()[-1]
    assert "To go on, give the same command again" in last
    assert "(>)" not in last
    assert not list(tmp_path.glob("train-*"))
    goes_on(data, tmp_path, undisturbed)


def test_a_worker_that_stalls_goes_on_with_its_work(data, undisturbed, tmp_path):
    with cluster(tmp_path, "first") as (_, port, workers):
        job = start(data, tmp_path, port, workers)
        (worker,) = job.wait_until_embedding()
        os.kill(worker, signal.SIGSTOP)
        time.sleep(3)
        os.kill(worker, signal.SIGCONT)
        job.end()
    assert files_of(tmp_path) == undisturbed
