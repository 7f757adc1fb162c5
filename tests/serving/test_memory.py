"""A server keeps nothing of the requests that it has answered."""

from __future__ import annotations

import collections
import gc
import time

from benchmarks.serving_memory import send_mixed
from tests.support.classifiers import jpeg
from tests.support.mixed_requests import mixed_requests

_REQUESTS = 120


def _objects(server):
    """The objects that are alive, by their type, once no request is answered any more."""
    until = time.monotonic() + 20
    while (
        server.server.server_state.connections or server.server.served.admission.images
    ) and time.monotonic() < until:
        time.sleep(0.02)
    gc.collect()
    return collections.Counter(type(one).__name__ for one in gc.get_objects())


def test_a_mixed_load_leaves_no_objects(server):
    requests = mixed_requests([jpeg(number) for number in range(8)], embedding_size=24)
    assert {request.status for request in requests} >= {200, 400, 404, 415, 422}
    assert not send_mixed(
        server.port, requests, _REQUESTS // 2, seed=0, clients=8
    )  # What is made at the first use only.
    before = _objects(server)
    assert not send_mixed(server.port, requests, _REQUESTS, seed=1, clients=8)
    grown = _objects(server) - before
    # One object for each fourth request would be a leak.
    assert max(grown.values(), default=0) < _REQUESTS // 4, grown.most_common(5)
    admission = server.server.served.admission
    assert (admission.images, admission._bytes) == (0, 0)
