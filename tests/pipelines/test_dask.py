"""Beam's own Dask runner on a scheduler and two workers. Other ways in which parts of it die: tests/cluster."""

import os
import signal

import pytest

from tests.support.cluster_jobs import ClusterJob, files_of
from tests.support.photos import write_photos

pytest.importorskip("distributed", reason="dask[distributed] is not installed")
from tests.support.dask_cluster import DaskCluster

_ROWS = 80


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("data"), _ROWS, side=20, broken={40})


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """A job here, which runs while the cluster starts."""
    job = ClusterJob(data, tmp_path_factory.mktemp("local"))
    yield job
    job.end()


@pytest.fixture(scope="module")
def cluster(undisturbed, tmp_path_factory):
    with DaskCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


def test_workers_die_and_share_the_rows_and_the_set_is_the_undisturbed_one(data, cluster, undisturbed, tmp_path):
    job = ClusterJob(data, tmp_path, "--runner", "DaskRunner", "--dask_client_address", cluster.address, batch_sec=0.15)
    victim, _ = job.wait_until_embedding(workers=2)
    os.kill(victim, signal.SIGKILL)
    stdout, stderr = job.end()
    assert f"{_ROWS} rows read" in stdout
    assert "Traceback" not in stderr
    undisturbed.end()
    assert files_of(tmp_path) == files_of(undisturbed.out)
    # What was done is not embedded again: 79 photos, and what the killed worker had in its hands.
    embedded = sum(path.stat().st_size for path in job.embedders.iterdir())
    assert _ROWS - 1 <= embedded < 1.5 * _ROWS
