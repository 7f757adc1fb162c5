"""Tests of whole clusters, which take minutes: `make cluster` sets up what they need, `make cluster-test` runs them."""

import os

import pytest

from tests.support.cluster_jobs import ClusterJob, files_of
from tests.support.photos import write_photos

ROWS = 100


def pytest_collection_modifyitems(items):
    if os.environ.get("CLUSTER_TESTS") != "1":
        for item in items:
            if "tests/cluster/" in item.path.as_posix():
                item.add_marker(pytest.mark.skip(reason="make cluster-test runs the tests of clusters"))


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("data"), ROWS, side=20, broken={40}, missing={41})


@pytest.fixture(scope="session")
def undisturbed(data, tmp_path_factory):
    """The set of a job here."""
    out = tmp_path_factory.mktemp("local")
    ClusterJob(data, out).end()
    return files_of(out)
