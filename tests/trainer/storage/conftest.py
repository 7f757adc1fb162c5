from __future__ import annotations

import tempfile

import pytest


@pytest.fixture
def gcs(monkeypatch, tmp_path_factory):
    """An emulated bucket, and a folder of its own for temporary files."""
    from tests.support.faulty_gcs import FaultyGcs  # here: not without the emulator

    with FaultyGcs(buckets=["bucket"]) as gcs:
        for name, value in gcs.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("scratch")))
        yield gcs
