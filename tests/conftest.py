"""What all tests share: a cache of models of their own, so that none depends on what a machine has kept."""

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def model_cache_of_the_session(tmp_path_factory):
    before = os.environ.get("HUGS_CACHE_DIR")
    os.environ["HUGS_CACHE_DIR"] = str(tmp_path_factory.mktemp("model_cache"))
    yield
    if before is None:
        del os.environ["HUGS_CACHE_DIR"]
    else:
        os.environ["HUGS_CACHE_DIR"] = before
