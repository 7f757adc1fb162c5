import errno
import http.client
import itertools
import pickle
import socket
import ssl

import pytest
import requests
import urllib3

from preprocess.storage.retry import NotReached, RetriesExhausted, RetryPolicy, as_os_error, call, is_transient


class Clock:
    """Time that only sleeping moves."""

    def __init__(self):
        self.now = 1000.0
        self.slept = []

    def __call__(self):
        return self.now

    def sleep(self, sec):
        self.slept.append(sec)
        self.now += sec


def policy(clock, **fields):
    return RetryPolicy(clock=clock, sleep=clock.sleep, random=fields.pop("random", lambda: 1.0), **fields)


class Status(Exception):
    def __init__(self, code):
        super().__init__(f"{code} somewhere")
        self.code = code


class BeamLikeError(OSError):
    def __init__(self, cause):
        super().__init__("operation failed")
        self.exception_details = {("gs://b/x", "gs://b/y"): cause}


def failing(error, times):
    """Raises `error` so many times, then gives the number of the call."""
    calls = itertools.count(1)

    def function():
        number = next(calls)
        if number <= times:
            raise error
        return number

    return function


TRANSIENT = [
    *(Status(code) for code in (408, 429, 500, 502, 503, 504)),
    ConnectionResetError(),
    TimeoutError(),
    ssl.SSLEOFError(),
    http.client.IncompleteRead(b""),
    http.client.RemoteDisconnected(),
    requests.ConnectionError(),
    requests.exceptions.ChunkedEncodingError(),
    requests.ReadTimeout(),
    urllib3.exceptions.ProtocolError(),
    urllib3.exceptions.ReadTimeoutError(None, "", ""),
    urllib3.exceptions.IncompleteRead(1, 2),
    BeamLikeError(Status(503)),
    BeamLikeError(503),
    BeamLikeError(ConnectionResetError()),
]
PERMANENT = [
    *(Status(code) for code in (400, 401, 403, 404, 409, 412, 501)),
    FileNotFoundError(2, "none"),
    PermissionError(),
    OSError("no space"),
    ValueError(),
    requests.exceptions.InvalidURL(),
    requests.exceptions.SSLError(
        urllib3.exceptions.MaxRetryError(None, "/", urllib3.exceptions.SSLError(ssl.SSLCertVerificationError()))
    ),
    BeamLikeError(404),
    BeamLikeError(Status(403)),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=repr)
def test_what_passes_by_itself_is_tried_again(error):
    assert is_transient(error)
    clock = Clock()
    assert call(failing(error, 2), policy(clock)) == 3
    assert len(clock.slept) == 2


@pytest.mark.parametrize("error", PERMANENT, ids=repr)
def test_all_else_is_not(error):
    assert not is_transient(error)
    clock = Clock()
    with pytest.raises(type(error)):
        call(failing(error, 1), policy(clock))
    assert clock.slept == []


def test_what_googles_clients_raise():
    exceptions = pytest.importorskip("google.api_core.exceptions")
    auth = pytest.importorskip("google.auth.exceptions")
    assert is_transient(exceptions.ServiceUnavailable("x"))
    assert is_transient(exceptions.TooManyRequests("x"))
    assert is_transient(exceptions.RetryError("late", cause=exceptions.BadGateway("x")))
    assert is_transient(auth.TransportError(requests.ConnectionError()))
    assert not is_transient(exceptions.RetryError("late", cause=exceptions.Forbidden("x")))
    assert not is_transient(exceptions.PreconditionFailed("x"))
    assert not is_transient(auth.RefreshError("invalid_grant"))
    refused = as_os_error(auth.RefreshError("invalid_grant"), "gs://b/x")
    assert isinstance(refused, PermissionError)
    assert str(refused).startswith("No permission for gs://b/x: invalid_grant (for credentials: gcloud auth")


def test_waits_grow_to_a_ceiling():
    clock = Clock()
    call(failing(TimeoutError(), 7), policy(clock, first_wait_sec=1, max_wait_sec=10))
    assert clock.slept == [1, 2, 4, 8, 10, 10, 10]


def test_waits_are_drawn_from_all_of_the_interval():
    clock = Clock()
    draws = iter([0.0, 0.5, 0.25])
    call(failing(TimeoutError(), 3), policy(clock, first_wait_sec=1, random=lambda: next(draws)))
    assert clock.slept == [0, 1, 1]


def test_the_limit_holds_and_is_told():
    clock = Clock()
    with pytest.raises(RetriesExhausted, match=r"^HTTP 503: busy \(tried 5 times in 15 s\)$") as caught:
        error = Status(503)
        error.args = ('503 GET x: {"error": {\n "message": "busy"}}',)
        call(failing(error, 100), policy(clock, limit_sec=30, first_wait_sec=1))
    assert clock.now <= 1030
    assert caught.value.__cause__ is error
    assert not is_transient(caught.value)
    assert str(as_os_error(caught.value, "gs://b/x")) == "gs://b/x: HTTP 503: busy (tried 5 times in 15 s)"


def test_a_limit_of_zero_tries_once():
    clock = Clock()
    with pytest.raises(RetriesExhausted, match="tried once"):
        call(failing(TimeoutError("late"), 1), policy(clock, limit_sec=0, random=lambda: 0.0))
    assert clock.slept == []


def test_many_tries_do_not_overflow():
    assert RetryPolicy(random=lambda: 1.0).wait_sec(100_000) == 16


def test_a_policy_travels_to_workers():
    assert pickle.loads(pickle.dumps(RetryPolicy(limit_sec=7))) == RetryPolicy(limit_sec=7)


def test_errors_say_what_and_where():
    assert str(as_os_error(BeamLikeError(503), "gs://b/x")) == "gs://b/x: HTTP 503"
    assert isinstance(as_os_error(BeamLikeError(404), "gs://b/x"), FileNotFoundError)
    assert isinstance(as_os_error(Status(401), "gs://b/x"), PermissionError)
    assert str(as_os_error(ConnectionResetError("reset"), "gs://b/x")) == "gs://b/x: reset"
    missing = Status(404)
    missing.args = ("The specified bucket does not exist.",)
    assert str(as_os_error(missing, "gs://b/x")) == "No such bucket: gs://b/x"
    own = FileNotFoundError(20, "not a folder", "x")
    assert isinstance(as_os_error(own, "x"), FileNotFoundError)
    full = OSError(28, "no space left", "x")
    assert as_os_error(full, "x") is full


@pytest.fixture
def unreached(monkeypatch):
    monkeypatch.setattr("preprocess.storage.retry._reached", set())


def _fault_of(url, **options):
    """What a client really raises."""
    with pytest.raises(requests.RequestException) as caught:
        requests.get(url, timeout=5, **options)
    return caught.value


def _refused():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{sock.getsockname()[1]}/"


def test_a_service_that_was_never_reached_is_given_up_in_seconds(unreached, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def no_name(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    refused = _fault_of(_refused())
    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", no_name)
        unnamed = _fault_of("http://storage.example/x")
    for error, words in (
        (unnamed, "cannot reach storage.example (its name is not found"),
        (refused, "cannot reach 127.0.0.1 (it refuses connections)"),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), "There seems to be no network"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "There seems to be no network"),
    ):
        clock = Clock()
        with pytest.raises(NotReached) as caught:
            call(failing(error, 99), policy(clock), service="gs")
        assert sum(clock.slept) <= 5
        assert words in str(caught.value)
        assert str(as_os_error(caught.value, "gs://b/x")).startswith("gs://b/x: ")
        assert isinstance(as_os_error(caught.value, "gs://b/x"), NotReached)
    # Another fault of a first contact keeps its patience.
    clock = Clock()
    with pytest.raises(RetriesExhausted, match="busy"):
        call(failing(requests.ConnectionError("busy"), 999), policy(clock), service="gs")
    assert sum(clock.slept) > 100


@pytest.mark.parametrize("reached_by", [None, Status(503)], ids=["an answer", "a busy answer"])
def test_after_the_first_contact_a_lost_network_is_waited_for(unreached, reached_by):
    call(failing(reached_by, 1 if reached_by else 0), policy(Clock()), service="gs")
    lost = requests.ConnectionError(urllib3.exceptions.NameResolutionError("h", None, socket.gaierror(-2, "none")))
    clock = Clock()
    assert call(failing(lost, 9), policy(clock), service="gs") == 10
    assert sum(clock.slept) > 50
    clock = Clock()
    with pytest.raises(NotReached):  # Each service has its own first contact.
        call(failing(lost, 9), policy(clock), service="s3")
    assert sum(clock.slept) <= 5
