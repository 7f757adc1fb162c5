"""An engine, a bucket and the Dataflow service on loopback, for the tests of several modules."""

import pytest

from tests.support.dataflow_job import ROWS
from tests.support.photos import write_photos


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A directory of photos, with dict.txt and the lists train.csv and eval.csv of all of them."""
    return write_photos(tmp_path_factory.mktemp("photos"), ROWS, side=40, lists=("train", "eval"))


@pytest.fixture
def cloud(photos, monkeypatch):
    """(bucket, service) for programs in this process; the bucket holds the photos and their lists."""
    pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")
    from apache_beam.internal.gcp import auth

    from preprocess.storage.retry import RetryPolicy
    from tests.support.fake_dataflow import FakeDataflow
    from tests.support.faulty_gcs import FaultyGcs

    monkeypatch.setattr(auth._Credentials, "_credentials_init", False)
    # Nothing here waits for a fault to pass.
    monkeypatch.setattr(RetryPolicy, "wait_sec", lambda self, tries: 0.0)
    with FaultyGcs(buckets=["bucket"]) as gcs, FakeDataflow() as service:
        for path in photos.iterdir():
            gcs.put("bucket", path.name, path.read_bytes())
        for name, value in gcs.environment.items():
            monkeypatch.setenv(name, value)
        yield gcs, service


@pytest.fixture
def engine(monkeypatch):
    """The stand-in engine that jobs of this process embed with."""
    from preprocess.beam.transforms import EngineLoader
    from tests.support.slow_job import SlowEngine

    engine = SlowEngine(0)
    monkeypatch.setattr(EngineLoader, "__call__", lambda self: engine)
    return engine


@pytest.fixture
def gcs(data):
    """A bucket that holds the files of a module's fixture `data` below data/."""
    pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")
    from tests.support.faulty_gcs import FaultyGcs

    with FaultyGcs(buckets=["bucket"]) as gcs:
        for path in data.iterdir():
            gcs.put("bucket", f"data/{path.name}", path.read_bytes())
        yield gcs
