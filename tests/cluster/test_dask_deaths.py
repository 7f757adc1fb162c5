"""Parts of a Dask cluster die or stall in the middle of a job. The set is the undisturbed one, byte for byte.

One cluster has other code.
"""

import os
import shutil
import signal
import time

import pytest

from tests.cluster.conftest import ROWS
from tests.support.cluster_jobs import ClusterJob, decoders_of, files_of, is_alive

pytest.importorskip("distributed", reason="dask[distributed] is not installed")
from tests.support.dask_cluster import ROOT, DaskCluster
from tests.support.hosts import LOOPBACK

# A worker that does not answer for so long loses its work to another one; Dask's default is 5 minutes.
_WORKER_LIMIT = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "8s"}


def start(data, out, cluster, **options):
    options = {"batch_sec": 0.2, "meet": 2, **options}
    flags = ("--runner=DaskRunner", f"--dask_client_address={cluster.address}")
    return ClusterJob(data, out, *flags, **options)


def say_nothing_to_do(data, out, cluster):
    stdout, _ = start(data, out, cluster, meet=0).end()
    assert "nothing to do" in stdout


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with DaskCluster(tmp_path_factory.mktemp("cluster"), settings=_WORKER_LIMIT) as cluster:
        yield cluster


def test_a_decoder_that_is_killed_costs_no_row(data, cluster, undisturbed, tmp_path):
    job = start(data, tmp_path, cluster)
    worker, _ = job.wait_until_embedding(workers=2)
    for decoder in decoders_of(worker):
        os.kill(decoder, signal.SIGKILL)
    job.end()
    assert files_of(tmp_path) == undisturbed


def test_a_machine_that_dies_for_good_costs_no_row(data, undisturbed, tmp_path):
    folder = tmp_path / "cluster"
    folder.mkdir()
    with DaskCluster(folder, settings=_WORKER_LIMIT) as cluster:
        job = start(data, tmp_path, cluster)
        job.wait_until_embedding(workers=2)
        os.killpg(cluster.nannies[0].pid, signal.SIGKILL)
        job.end()
    assert files_of(tmp_path) == undisturbed


def test_a_worker_that_stalls_and_writes_late_changes_nothing(data, cluster, undisturbed, tmp_path):
    job = start(data, tmp_path, cluster)
    zombie, _ = job.wait_until_embedding(workers=2)
    # Its nanny would end it, so the whole machine stalls, so to speak.
    (nanny,) = (nanny for nanny in cluster.nannies if os.getpgid(zombie) == nanny.pid)
    os.killpg(nanny.pid, signal.SIGSTOP)
    before = (job.embedders / str(zombie)).stat().st_size
    try:
        job.end()
        assert files_of(tmp_path) == undisturbed
    finally:
        os.killpg(nanny.pid, signal.SIGCONT)
    # It goes on with what it had in its hands, until it hears that nobody wants it any more.
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and (job.embedders / str(zombie)).stat().st_size == before and is_alive(zombie):
        time.sleep(0.1)
    time.sleep(1)
    assert files_of(tmp_path) == undisturbed
    say_nothing_to_do(data, tmp_path, cluster)
    assert files_of(tmp_path) == undisturbed
    assert not list(tmp_path.glob("_train/parts-*"))


def test_a_scheduler_that_is_killed_stops_the_job_and_the_same_command_goes_on(data, undisturbed, tmp_path):
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    with DaskCluster(tmp_path / "first", settings=_WORKER_LIMIT) as cluster:
        job = start(data, tmp_path, cluster)
        job.wait_until_embedding(workers=2)
        os.kill(cluster.scheduler.pid, signal.SIGKILL)
        _, stderr = job.end(expect=2)
    assert "To go on, give the same command again" in stderr.splitlines()[-1]
    assert not list(tmp_path.glob("train-*"))
    done = sum(path.stat().st_size for path in job.embedders.iterdir())
    assert done < ROWS - 2
    with DaskCluster(tmp_path / "second", hosts=(LOOPBACK,) * 2) as cluster:
        start(data, tmp_path, cluster, batch_sec=0.0, meet=1).end()
    assert files_of(tmp_path) == undisturbed


def test_a_command_that_is_killed_and_given_again_at_once_takes_over(data, cluster, undisturbed, tmp_path):
    killed = start(data, tmp_path, cluster, batch_sec=0.4)
    killed.wait_until_embedding(workers=2)
    os.killpg(killed.process.pid, signal.SIGKILL)
    killed.process.communicate()
    # Nobody has told the workers; they go on with the killed job meanwhile.
    start(data, tmp_path, cluster, batch_sec=0.0).end()
    assert files_of(tmp_path) == undisturbed
    time.sleep(10)
    assert files_of(tmp_path) == undisturbed
    say_nothing_to_do(data, tmp_path, cluster)
    assert files_of(tmp_path) == undisturbed
    assert not list(tmp_path.glob("_train/parts-*"))


def test_a_cluster_with_other_code_refuses_in_one_line(data, tmp_path):
    # The scheduler unpickles a job as well.
    code = tmp_path / "code"
    for package in ("configs", "preprocess"):
        shutil.copytree(ROOT / package, code / package)
    with (code / "preprocess/images/decode.py").open("a") as module:
        module.write("# Another version.\n")
    with DaskCluster(tmp_path, hosts=(LOOPBACK,) * 2, code=code) as cluster:
        _, stderr = start(data, tmp_path, cluster, meet=1).end(expect=2)
    assert "has other code of hugs than the program that started the job" in stderr.splitlines()[-1]
    assert "Traceback" not in stderr
