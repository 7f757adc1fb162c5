"""Workers on two hosts without a common disk: lists, photos and the set lie in a bucket. One host is cut off."""

import time

import pytest

from tests.cluster.conftest import ROWS
from tests.support.cluster_jobs import ClusterJob, files_of
from tests.support.hosts import CAN_MAKE_HOSTS, WHY_NOT, made_hosts

pytest.importorskip("distributed", reason="dask[distributed] is not installed")
pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")
from tests.support.bucket_program import Bucket
from tests.support.dask_cluster import DaskCluster

pytestmark = pytest.mark.skipif(not CAN_MAKE_HOSTS, reason=WHY_NOT)


def test_a_host_that_is_cut_off_and_comes_back_changes_nothing(data, undisturbed, tmp_path, monkeypatch):
    with made_hosts(3) as hosts, Bucket(data, hosts[0]) as bucket:
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        settings = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "8s"}
        with DaskCluster(tmp_path, hosts=hosts, settings=settings) as cluster:

            def start(**options):
                flags = ("--runner=DaskRunner", f"--dask_client_address={cluster.address}")
                places = {"bucket": "gs://bucket/out", "prefix": hosts[0].prefix}
                return ClusterJob("gs://bucket/data", tmp_path, *flags, **places, **options)

            job = start(batch_sec=0.3, meet=2)
            job.wait_until_embedding(workers=2, blocks=0)
            time.sleep(1)
            hosts[2].cut_off()
            job.end()
            assert files_of(bucket.put_out(tmp_path / "cut_off")) == undisturbed
            # None began anew: one host embedded its own share and that of the other.
            assert sum(path.stat().st_size for path in job.embedders.iterdir()) < 2 * ROWS
            hosts[2].bring_back()
            time.sleep(5)
            assert files_of(bucket.put_out(tmp_path / "back")) == undisturbed
            stdout, _ = start().end()
            assert "nothing to do" in stdout
            left = bucket.put_out(tmp_path / "again")
            assert files_of(left) == undisturbed
            assert not list(left.glob("_train/parts-*/*"))
