from __future__ import annotations

import pytest

from tests.support.faulty_gcs import FaultyGcs


@pytest.fixture
def gcs(monkeypatch):
    with FaultyGcs() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server
