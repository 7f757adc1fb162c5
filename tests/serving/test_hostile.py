"""Hostile requests: each gets the right status, none hangs, no file is opened, and the server goes on."""

from __future__ import annotations

import concurrent.futures
import sys
import time

import httpx
import pytest

from tests.support.classifiers import jpeg
from tests.support.hostile_requests import hostile_requests

_MAX_BODY_BYTES = 2_000_000
_opened: list[tuple[str, object]] = []
_is_watching = False


def _watch_opened(event, arguments):
    if _is_watching and event == "open":
        _opened.append((str(arguments[0]), arguments[1]))


def may_be_opened(path, mode):
    # What Python and the machine need; none of it comes from a request.
    reads = mode is None or not set(str(mode)) & set("wax+")
    if path.isdigit():  # The pipes of a decoder process.
        return True
    return reads and path.startswith(("/proc/", "/sys/", "/dev/null", sys.prefix, "/usr/"))


@pytest.fixture
def short_bounds(monkeypatch):
    from serving import http_protocol

    monkeypatch.setattr(http_protocol, "HEAD_SEC", 1.5)
    monkeypatch.setattr(http_protocol, "LINGER_SEC", 0.5)


def test_hostile_requests(server, short_bounds, caplog):
    global _is_watching
    httpx.post(f"{server.url}/predict", content=jpeg(0))  # What is opened at the first use only.
    # Those that wait for a deadline come first, so that the others run meanwhile.
    cases = sorted(hostile_requests(_MAX_BODY_BYTES), key=lambda case: not case.name.startswith("time:"))
    assert len(cases) > 150
    sys.addaudithook(_watch_opened)
    _is_watching = True
    try:
        with concurrent.futures.ThreadPoolExecutor(16) as threads:
            statuses = list(threads.map(lambda case: case.send(server.port), cases))
    finally:
        _is_watching = False
    wrong = {case.name: status for case, status in zip(cases, statuses, strict=True) if status not in case.right}
    assert not wrong, wrong
    assert [entry for entry in _opened if not may_be_opened(*entry)] == []
    assert httpx.post(f"{server.url}/predict", content=jpeg(0)).status_code == 200
    assert "bug of the server" not in caplog.text
    state = server.server.server_state
    until = time.monotonic() + 20
    while state.connections or state.tasks:
        assert time.monotonic() < until, "connections are left"
        time.sleep(0.05)
    assert server.server.served.admission.images == 0


def test_the_log_says_nothing_of_a_broken_form(server, caplog):
    form = {"content-type": "multipart/form-data; boundary=x"}
    assert httpx.post(f"{server.url}/predict", content=b"secret", headers=form).status_code == 400
    assert [record.name for record in caplog.records if not record.name.startswith(("serving", "http"))] == []


def test_no_stack_trace_leaves(server, monkeypatch, caplog):
    from serving import app

    monkeypatch.setattr(app, "file_of", lambda body, kind: 1 / 0)
    response = httpx.post(f"{server.url}/predict", content=jpeg(0))
    assert response.status_code == 500
    assert "division" not in response.text and "Traceback" not in response.text and ".py" not in response.text
    until = time.monotonic() + 20
    while "ZeroDivisionError" not in caplog.text:  # It is logged after the answer.
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_machine_that_cannot_decode_is_said(server, monkeypatch):
    from preprocess.images.isolated_decoder import IsolatedDecoder
    from preprocess.machine.machine_faults import MachineFault

    def fault(self, data):
        raise MachineFault("no process can be started in /secret/path")

    monkeypatch.setattr(IsolatedDecoder, "__call__", fault)
    response = httpx.post(f"{server.url}/predict", content=jpeg(0))
    assert response.status_code == 503
    assert response.headers["retry-after"]
    assert "secret" not in response.text
