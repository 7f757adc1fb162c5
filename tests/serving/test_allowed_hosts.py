"""Which `Host` a request must name, so that no web page reads from the server through a name of its own."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from configs.errors import InputError
from serving.allowed_hosts import AllowedHosts, host_name, listens_on_loopback
from serving.options import parse_options

LOOPBACK = (
    *("localhost", "LocalHost:8080", "localhost.", "photos.localhost:1", "127.0.0.1", "127.0.0.1:8080", "127.9.9.9:80"),
    *("[::1]", "[::1]:8080", "[::ffff:127.0.0.1]:80"),
)
STRANGE = (
    *("evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "notlocalhost", ""),
    *("10.0.0.1", "0.0.0.0", "[::]", "[::2]:80", "127.0.0.1@evil.example", "127.1", "2130706433", "localhost:80:80"),
    *("localhost evil.example", "evil.example/localhost", "[::1]evil.example", "photos.example.org.evil.example"),
)


def statuses(hosts, *, allowed=()):
    """The status for each header `Host`; None for no such header, a tuple for several."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    found = []

    async def send(message):
        found.append(message.get("status"))

    async def ask():
        checked = AllowedHosts(app, allowed)
        for host in hosts:
            several = () if host is None else host if isinstance(host, tuple) else (host,)
            headers = [(b"accept", b"*/*"), *((b"host", one.encode("latin-1")) for one in several)]
            await checked({"type": "http", "headers": headers}, None, send)

    asyncio.run(ask())
    return dict(zip(hosts, found[::2], strict=True))


def test_loopback_names_are_answered_and_no_others():
    assert set(statuses([*LOOPBACK, None]).values()) == {200}
    assert set(statuses([*STRANGE, ("localhost", "evil.example")]).values()) == {421}


def test_a_proxy_s_name_is_answered_if_it_was_given():
    allowed = parse_options(
        ["--model_dir", "m", "--allowed_hosts", "Photos.Example.org:443,10.0.0.1,[2001:db8::1],::2"], {}
    ).allowed_hosts
    assert allowed == ("photos.example.org", "10.0.0.1", "2001:db8::1", "::2")
    hosts = [
        "photos.example.org",
        "PHOTOS.example.org:8443",
        "10.0.0.1:80",
        "localhost",
        "photos.example.org.evil.example",
    ]
    assert list(statuses(hosts, allowed=allowed).values()) == [200, 200, 200, 200, 421]


@pytest.mark.parametrize(
    "value", ["", ",", "https://photos.example.org", "photos.example.org/x", "a b", "[::1", "*", "*.a.org"]
)
def test_what_is_no_host_is_refused_in_one_line(value):
    with pytest.raises(InputError, match="--allowed_hosts: ") as caught:
        parse_options(["--model_dir", "m", "--allowed_hosts", value], {})
    assert "\n" not in str(caught.value)


def test_every_address_of_a_server_on_loopback_refuses_a_stranger(server):
    def ask(path, host, **body):
        method = "POST" if body else "GET"
        return httpx.request(method, f"{server.url}{path}", headers={"Host": host}, **body)

    paths = ("/", "/healthz", "/readyz", "/metrics", "/page/settings.json", "/v1/models/hugs", "/search/photos/a/1")
    for path in paths:
        assert ask(path, f"evil.example:{server.port}").status_code == 421, path
    refused = ask("/v1/models/hugs:predict", "evil.example", content=b"{}")
    assert (refused.status_code, refused.json()["reason"]) == (421, "unknown_host")
    assert refused.headers["x-content-type-options"] == "nosniff"
    assert ask("/healthz", f"localhost:{server.port}").status_code == 200
    assert 'status="421"' in ask("/metrics", f"127.0.0.1:{server.port}").text


def test_the_address_decides_whether_there_is_a_check():
    assert all(map(listens_on_loopback, ("127.0.0.1", "localhost", "::1", "127.0.0.2")))
    assert not any(map(listens_on_loopback, ("0.0.0.0", "::", "10.1.2.3", "no such host", "")))
    assert host_name("[::1]:80") == "::1"


def test_on_other_addresses_only_the_flag_makes_a_check(with_extra):
    from serving.app import Server

    def is_checked(**options):
        server = Server.__new__(Server)
        server._options = type("Options", (), {"allowed_hosts": (), "host": "127.0.0.1", **options})
        return isinstance(server._for_known_hosts(object()), AllowedHosts)

    assert is_checked()
    assert not is_checked(host="0.0.0.0")
    assert is_checked(host="0.0.0.0", allowed_hosts=("photos.example.org",))
