from __future__ import annotations

import pytest

from tests.support import tiny_network

HEALTH_ROUTE = "/health"
PREDICT_ROUTE = "/v1/endpoints/7/deployedModels/8:predict"


@pytest.fixture(scope="session")
def with_tiny_network():
    with pytest.MonkeyPatch.context() as patch:
        tiny_network.install(patch)
        yield


@pytest.fixture(scope="session")
def with_extra():
    for package in ("starlette", "uvicorn", "prometheus_client", "python_multipart"):
        pytest.importorskip(package, reason="the extra serve is not installed")


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory, with_tiny_network):
    from tests.support.serving import export_tiny_model

    return export_tiny_model(str(tmp_path_factory.mktemp("served") / "model"), threshold=0.7)


@pytest.fixture(scope="session")
def server(with_extra, model_dir):
    """A server with short limits, for all tests that only ask it."""
    from configs.recipe import load_recipe
    from tests.support.serving import running_server

    with running_server(
        load_recipe("hugs").page,
        model_dir=(model_dir,),
        max_body_bytes=2_000_000,
        body_deadline_sec=5,
        image_deadline_sec=5,
        max_queue=40,
        health_route=HEALTH_ROUTE,
        predict_route=PREDICT_ROUTE,
    ) as running:
        yield running
