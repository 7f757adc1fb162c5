"""The disk of one worker of two is full. A worker needs it to send a shard of more than 32 MB to a bucket."""

import os
import shutil
import subprocess

import pytest

from tests.support.cluster_jobs import ClusterJob, files_of
from tests.support.photos import write_photos

pytest.importorskip("distributed", reason="dask[distributed] is not installed")
pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")
from tests.support.bucket_program import Bucket
from tests.support.dask_cluster import DaskCluster

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="a disk of a test is a tmpfs, for which root is needed"
)
# Two blocks, whose shards are of 36 MB.
_ROWS, _TIMES = 40, 150_000


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "small_disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_it_stops_the_job_with_one_line_and_the_same_command_goes_on(tmp_path, small_disk, monkeypatch):
    data = tmp_path / "data"
    data.mkdir()
    write_photos(data, _ROWS, side=20)
    sizes = {"rows_per_shard": 20, "times": _TIMES}
    here = ClusterJob(data, tmp_path / "here", **sizes)
    with Bucket(data) as bucket:
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        here.end()
        disks = [{"TMPDIR": str(small_disk)}, {}]
        with DaskCluster(tmp_path, worker_settings=disks) as cluster:

            def start(meet):
                flags = ("--runner=DaskRunner", f"--dask_client_address={cluster.address}")
                return ClusterJob("gs://bucket/data", tmp_path, *flags, bucket="gs://bucket/out", meet=meet, **sizes)

            _, stderr = start(meet=2).end(expect=2)
            assert "Traceback" not in stderr
            last = stderr.splitlines()[-1]
            assert "No space left on device" in last
            assert "To go on, give the same command again" in last
            assert not list(bucket.put_out(tmp_path / "stopped").glob("train-*"))
            subprocess.run(["mount", "-o", "remount,size=400m", small_disk], check=True)
            start(meet=0).end()
            assert files_of(bucket.put_out(tmp_path / "again")) == files_of(here.out)
