"""Images of web hosts, read over loopback."""

import collections
import contextlib
import datetime
import gzip
import ipaddress
import socket
import threading
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from preprocess.images import web_client
from preprocess.images.host_queues import HostQueues
from preprocess.images.loader import ImageLoader
from preprocess.images.read import read_image_bytes
from preprocess.images.web_images import WebImages, user_agent
from preprocess.lists.outcomes import RowFailure
from preprocess.machine.machine_faults import MachineFault
from preprocess.storage.retry import RetryPolicy
from preprocess.storage.uris import host_of, is_web, shown
from tests.support.web_host import Page, WebHost

PHOTO = b"\xff\xd8" + b"photo" * 2000


class Clock:
    """Time that passes only in waits."""

    def __init__(self):
        self.now = 1000.0
        self.waits = []

    def sleep(self, seconds):
        self.waits.append(seconds)
        self.now += seconds

    def policy(self, limit_sec=120.0):
        return RetryPolicy(limit_sec=limit_sec, clock=lambda: self.now, sleep=self.sleep, random=lambda: 1.0)


@pytest.fixture(scope="module")
def server():
    with WebHost() as host:
        yield host


@pytest.fixture
def host(server):
    server.pages.clear()
    server.requests.clear()
    server.agents.clear()
    server.most_at_once = 0
    return server


def images(clock=None, *, deadline_sec=10.0, limit_sec=120.0, **options):
    return WebImages(retry=(clock or Clock()).policy(limit_sec), deadline_sec=deadline_sec, **options)


def failure(web, url, **options):
    with pytest.raises(RowFailure) as caught:
        read(web, url, **options)
    assert caught.value.stage == "read"
    assert "\n" not in caught.value.message
    return caught.value


def read(web, url, max_bytes=10**6):
    return read_image_bytes(url, read_remote=web.read, max_bytes=max_bytes)


def closed_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_an_image_is_read_and_the_program_introduces_itself(host):
    host.pages["/a%20b.jpg?size=1"] = Page(body=PHOTO)
    assert read(images(contact="me@example.org"), f"{host.url}/a b.jpg?size=1#top") == PHOTO
    (agent,) = host.agents
    assert agent == user_agent("me@example.org")
    assert agent.startswith("hugs-image-classifier") and agent.endswith("(me@example.org)")


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (404, "not_found"),
        (410, "not_found"),
        (401, "no_permission"),
        (403, "no_permission"),
        (451, "no_permission"),
        (400, "read_error"),
        (418, "read_error"),
        (204, "read_error"),
        (206, "read_error"),
        (304, "read_error"),
        (300, "read_error"),
    ],
)
def test_what_the_host_says_is_the_reason_and_is_not_asked_again(host, status, reason):
    host.pages["/a.jpg?signature=secret"] = Page(status=status)
    found = failure(images(), f"{host.url}/a.jpg?signature=secret")
    assert found.reason == reason
    assert f"HTTP {status}" in found.message
    assert "secret" not in found.message
    assert len(host.requests) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_faults_that_may_pass_are_tried_again(host, status):
    host.pages["/a.jpg"] = [Page(status=status), Page(status=status), Page(body=PHOTO)]
    clock = Clock()
    assert read(images(clock), f"{host.url}/a.jpg") == PHOTO
    assert clock.waits == [0.2, 0.4]


def test_a_cut_body_is_tried_again(host):
    host.pages["/a.jpg"] = [Page(body=PHOTO, cut=True), Page(body=PHOTO)]
    assert read(images(), f"{host.url}/a.jpg") == PHOTO


@pytest.mark.parametrize("page", [Page(status=500), Page(body=PHOTO, cut=True)])
def test_an_image_that_fails_at_a_host_that_answers_costs_few_tries(host, page):
    host.pages["/a.jpg"] = page
    found = failure(images(), f"{host.url}/a.jpg")
    assert found.reason == ("server_error" if page.status == 500 else "unreachable")
    assert "tried 5 times" in found.message
    assert len(host.requests) == 5


def test_retry_after_is_honoured_by_all_images_of_the_host(host):
    host.pages["/a.jpg"] = [Page(status=429, headers={"Retry-After": "7"}), Page(body=PHOTO)]
    host.pages["/b.jpg"] = [
        Page(
            status=503,
            headers={"Date": "Thu, 01 Jan 2026 00:00:00 GMT", "Retry-After": "Thu, 01 Jan 2026 00:00:09 GMT"},
        ),
        Page(body=PHOTO),
    ]
    clock = Clock()
    web = images(clock)
    assert read(web, f"{host.url}/a.jpg") == PHOTO
    assert read(web, f"{host.url}/b.jpg") == PHOTO
    assert clock.waits == [7.0, pytest.approx(9.0)]
    host.pages["/c.jpg"] = Page(status=429, headers={"Retry-After": "3600"})
    assert failure(web, f"{host.url}/c.jpg").reason == "server_busy"
    assert clock.waits[2:] == []  # It would be too long.
    host.requests.clear()
    assert failure(web, f"{host.url}/a.jpg").reason == "server_busy"
    assert host.requests == []


def test_a_host_that_stays_busy_is_waited_for_to_the_limit(host):
    host.pages["/a.jpg"] = Page(status=503)
    clock = Clock()
    assert failure(images(clock), f"{host.url}/a.jpg").reason == "server_busy"
    assert 100 < sum(clock.waits) <= 120


def test_sizes_are_limited_by_the_header_and_while_reading(host):
    host.pages["/long.jpg"] = Page(headers={"Content-Length": "1000000000"})
    # No length: the connection ends the body.
    host.pages["/endless.jpg"] = Page(body=PHOTO * 50, headers={"Content-Length": "", "Connection": "close"})
    for path in host.pages:
        found = failure(images(), host.url + path, max_bytes=1000)
        assert found.reason == "too_large"
        assert "max_image_bytes" in found.message


def test_a_compressed_answer_is_limited_by_what_it_becomes(host):
    host.pages["/bomb"] = Page(body=gzip.compress(bytes(5_000_000)), headers={"Content-Encoding": "gzip"})
    assert failure(images(), f"{host.url}/bomb").reason == "too_large"
    host.pages["/small"] = Page(body=gzip.compress(PHOTO), headers={"Content-Encoding": "gzip"})
    assert read(images(), f"{host.url}/small") == PHOTO


@pytest.mark.parametrize("page", [Page(body=PHOTO, delay_sec=3), Page(body=PHOTO, byte_every_sec=0.05)])
def test_a_host_that_takes_too_long_is_cut_off(host, page):
    host.pages["/a.jpg"] = page
    started = time.monotonic()
    found = failure(images(limit_sec=0, deadline_sec=0.3), f"{host.url}/a.jpg")
    assert found.reason == "unreachable"
    assert "in time" in found.message
    assert time.monotonic() - started < 2.9


def test_headers_that_never_end_are_cut_off():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip():
            connection, _ = listener.accept()
            with connection:
                try:
                    connection.sendall(b"HTTP/1.1 200 OK\r\n")
                    for number in range(100):
                        connection.sendall(b"X-%d: 1\r\n" % number)
                        time.sleep(0.05)
                except OSError:
                    pass

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        found = failure(images(limit_sec=0, deadline_sec=0.3), f"http://127.0.0.1:{listener.getsockname()[1]}/a.jpg")
        assert found.reason == "unreachable"
        thread.join(2.0)
        assert not thread.is_alive()


def test_redirects_are_followed_a_few_times(host):
    host.pages["/a.jpg"] = Page(status=302, headers={"Location": "/b.jpg"})
    host.pages["/b.jpg"] = Page(status=308, headers={"Location": f"{host.url}/c.jpg"}, body=b"moved")
    host.pages["/c.jpg"] = Page(body=PHOTO)
    assert read(images(), f"{host.url}/a.jpg") == PHOTO
    host.pages["/loop"] = Page(status=301, headers={"Location": "/loop"})
    found = failure(images(), f"{host.url}/loop")
    assert found.reason == "read_error"
    assert "redirects" in found.message


def test_a_redirect_to_a_host_that_is_gone_says_nothing_of_the_host_that_sent_it(host):
    host.pages["/a.jpg"] = Page(status=302, headers={"Location": f"http://127.0.0.1:{closed_port()}/a.jpg"})
    host.pages["/b.jpg"] = Page(body=PHOTO)
    web = images()
    found = failure(web, f"{host.url}/a.jpg")
    assert found.reason == "unreachable"
    assert "tried 5 times" in found.message
    assert read(web, f"{host.url}/b.jpg") == PHOTO


def test_the_body_of_a_redirect_has_no_more_time_than_the_image(host):
    host.pages["/a.jpg"] = Page(status=302, headers={"Location": "/b.jpg"}, body=b"-" * 200, byte_every_sec=0.05)
    host.pages["/b.jpg"] = Page(body=PHOTO)
    started = time.monotonic()
    with contextlib.suppress(RowFailure):
        read(images(limit_sec=0, deadline_sec=0.5), f"{host.url}/a.jpg")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/a", "gs://bucket/a", "javascript:0", "http://[::1/a"]
)
def test_redirects_to_other_schemes_are_refused(host, target):
    host.pages["/a.jpg"] = Page(status=302, headers={"Location": target})
    assert failure(images(), f"{host.url}/a.jpg").reason == "refused_redirect"


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1]/",
        "http://[::ffff:169.254.169.254]/",
        "http://2852039166/",  # 169.254.169.254 as one number
    ],
)
def test_no_redirect_leads_to_a_metadata_service(host, target):
    host.pages["/a.jpg"] = Page(status=302, headers={"Location": target})
    found = failure(images(limit_sec=0), f"{host.url}/a.jpg")
    assert found.reason in ("refused_redirect", "unreachable")
    if "2852039166" not in target:
        assert found.reason == "refused_redirect"


def test_no_redirect_leads_from_the_internet_into_this_network(host, monkeypatch):
    # The first server stands for a host on the internet.
    monkeypatch.setattr(web_client, "is_public", lambda address: address == "127.0.0.1")
    with WebHost("127.0.0.2") as inner:
        inner.pages["/secret"] = Page(body=PHOTO)
        assert read(images(), f"{inner.url}/secret") == PHOTO  # The list itself may name it.
        inner.requests.clear()
        host.pages["/a.jpg"] = Page(status=302, headers={"Location": f"{inner.url}/secret"})
        web = images()
        assert failure(web, f"{host.url}/a.jpg").reason == "refused_redirect"
        assert inner.requests == []
        # Not by a name either, which resolves only when the connection is made.
        monkeypatch.setattr(
            web_client.urllib3.util.connection.socket,
            "getaddrinfo",
            lambda name, port, *_: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", port))],
        )
        port = inner.url.rpartition(":")[2]
        host.pages["/b.jpg"] = Page(status=302, headers={"Location": f"http://harmless.example:{port}/secret"})
        assert failure(web, f"{host.url}/b.jpg").reason in ("refused_redirect", "not_found")
        assert inner.requests == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("10.0.0.1", False),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("2001:4860:4860::8888", True),
        ("::1", False),
        ("fd00:ec2::254", False),
        ("::ffff:10.0.0.1", False),
        ("2002:0a00:0001::1", False),
        ("64:ff9b::169.254.169.254", False),
        ("fe80::1%eth0", False),
        ("nonsense", False),
    ],
)
def test_public_addresses(address, public):
    assert web_client.is_public(address) is public


def test_a_proxy_of_the_environment_is_used(host, monkeypatch):
    monkeypatch.setenv("http_proxy", host.url.replace("http://", "http://user:word@"))
    monkeypatch.setenv("no_proxy", "127.0.0.2")
    host.pages["http://photos.example/a.jpg"] = Page(body=PHOTO)
    host.pages["http://photos.example/b.jpg"] = Page(status=302, headers={"Location": "http://127.0.0.1:1/c.jpg"})
    web = images()
    assert read(web, "http://photos.example/a.jpg") == PHOTO
    assert host.requests == ["http://photos.example/a.jpg"]
    assert failure(web, "http://photos.example/b.jpg").reason == "refused_redirect"
    with WebHost("127.0.0.2") as other:
        other.pages["/a.jpg"] = Page(body=PHOTO)
        assert read(web, f"{other.url}/a.jpg") == PHOTO


def test_a_host_that_is_gone_costs_its_images_and_not_the_job(host):
    host.pages["/a.jpg"] = Page(body=PHOTO)
    clock = Clock()
    web = images(clock)
    assert read(web, f"{host.url}/a.jpg") == PHOTO
    gone = f"http://127.0.0.1:{closed_port()}"
    found = failure(web, f"{gone}/a.jpg?key=secret")
    assert found.reason == "unreachable"
    assert "refused" in found.message and "secret" not in found.message
    assert 100 < sum(clock.waits) <= 120
    # The next ones do not wait for it again.
    clock.waits.clear()
    assert failure(web, f"{gone}/b.jpg").reason == "unreachable"
    assert clock.waits == []
    # Now and then one of them looks whether it is back.
    clock.now += 100
    assert "tried" in failure(web, f"{gone}/c.jpg").message


def test_a_host_that_comes_back_is_read_again():
    clock = Clock()
    web = images(clock, limit_sec=1)
    port = closed_port()
    assert failure(web, f"http://127.0.0.1:{port}/a.jpg").reason == "unreachable"
    with socket.create_server(("127.0.0.1", port)) as listener:

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

        threading.Thread(target=answer, daemon=True).start()
        clock.now += 100
        assert read(web, f"http://127.0.0.1:{port}/a.jpg") == b"ok"


def test_without_any_network_the_machine_is_at_fault():
    web = images(limit_sec=1)
    with WebHost() as host:
        host.pages["/a.jpg"] = Page(body=PHOTO, headers={"Connection": "close"})
        assert read(web, f"{host.url}/a.jpg") == PHOTO
    for url in (f"{host.url}/b.jpg", f"http://127.0.0.1:{closed_port()}/c.jpg"):
        with pytest.raises(MachineFault, match="lost its network"):
            read(web, url)


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///a.jpg",
        "http://[::1/a.jpg",
        "http://host:port/a.jpg",
        "http://host:99999/a.jpg",
        "https://a..b/c",
    ],
)
def test_what_is_no_address_is_a_failure_of_its_row(url):
    assert failure(images(limit_sec=0), url).reason in ("bad_uri", "unreachable")


def test_a_password_in_an_address_is_not_used_and_not_shown(host):
    found = failure(images(), f"http://me:secret@{host.name}/a.jpg")
    assert found.reason == "bad_uri"
    assert "secret" not in found.message
    assert host.requests == []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """The path of a key and of a certificate of 127.0.0.1 that nobody has signed but itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return str(path)


def test_a_certificate_that_nobody_vouches_for(certificate, monkeypatch):
    with WebHost(certificate=certificate) as host:
        host.pages["/a.jpg"] = Page(body=PHOTO)
        host.pages["/slow.jpg"] = Page(body=PHOTO, byte_every_sec=0.05)
        clock = Clock()
        found = failure(images(clock), f"{host.url}/a.jpg")
        assert found.reason == "tls_error"
        assert "self-signed" in found.message
        assert clock.waits == []
        monkeypatch.setenv("SSL_CERT_FILE", certificate)
        web = images(limit_sec=0, deadline_sec=0.5)
        assert read(web, f"{host.url}/a.jpg") == PHOTO
        assert failure(web, f"{host.url}/slow.jpg").reason == "unreachable"
        assert read(web, f"{host.url}/a.jpg") == PHOTO


def test_a_server_without_tls(host):
    # It may pass.
    found = failure(images(limit_sec=0), host.url.replace("http://", "https://") + "/a.jpg")
    assert found.reason == "tls_error"


def test_addresses():
    assert is_web("http://a/b") and is_web("HTTPS://a/b")
    assert not any(map(is_web, ["httpd/a.jpg", "http.jpg", "http:/a", "gs://http/a", "", "https"]))
    assert host_of("HTTPS://u@Example.org:8443?x#y") == "example.org:8443"
    assert host_of("a.jpg") is None
    assert shown("https://u:p@host/a.jpg?sig=1#x") == "https://host/a.jpg"


def test_a_host_queue_runs_no_more_than_its_limit():
    started = []
    queues = HostQueues(started.append, 2)
    for number in range(4):
        queues.submit("a", f"a{number}")
    queues.submit("b", "b0")
    assert started == ["a0", "a1", "b0"]
    queues.end("a")
    assert started == ["a0", "a1", "b0", "a2"]
    for _ in range(3):
        queues.end("a")
    queues.end("b")
    assert started[-1] == "a3"
    assert not queues._running and not queues._waiting


def test_a_slow_host_has_few_readers_and_the_others_go_on(host):
    release = threading.Event()
    lock = threading.Lock()
    at_once = collections.Counter()
    most = collections.Counter()
    others = []

    def read_one(location):
        name = host_of(location)
        with lock:
            at_once[name] += 1
            most[name] = max(most[name], at_once[name])
        if name == "slow.example":
            release.wait(20)
        else:
            others.append(location)
        with lock:
            at_once[name] -= 1
        raise RowFailure("read", "not_found", "none")

    loader = ImageLoader(read=read_one, decode=lambda data: None, max_ahead=128, connections_per_host=3)
    slow = [f"http://slow.example/{n}.jpg" for n in range(60)]
    fast = [f"http://fast.example/{n}.jpg" for n in range(60)]
    loader.add([*slow, *fast])
    deadline = time.monotonic() + 20
    while len(others) < 60 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(others) == 60
    release.set()
    assert [loader.next().reason for _ in range(120)] == ["not_found"] * 120
    assert most["slow.example"] == 3
    assert most["fast.example"] <= 3
