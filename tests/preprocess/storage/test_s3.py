"""`s3://` through the AWS client, against a server on loopback."""

import concurrent.futures
import os
import ssl

import botocore.exceptions
import pytest
import urllib3

from configs.errors import InputError
from preprocess.backbones.weights_files import check_file
from preprocess.locks.lease import Lease, Timing
from preprocess.locks.lock_holder import this_process
from preprocess.locks.output_lock import locked
from preprocess.machine.machine_faults import is_machine_fault
from preprocess.storage import router, s3_objects
from preprocess.storage.base import TooLarge, read_file, write_file
from preprocess.storage.retry import RetriesExhausted, RetryPolicy, is_transient
from preprocess.storage.router import UriStorage, local_copy
from preprocess.storage.s3 import S3Storage
from tests.support.s3_server import Fault, S3Server

QUICK = RetryPolicy(limit_sec=5, first_wait_sec=0.01, max_wait_sec=0.02)


@pytest.fixture(scope="module")
def server():
    with S3Server(buckets=["bucket"]) as s3:
        yield s3


@pytest.fixture
def s3(server, monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    server.faults.clear()
    server.met.clear()
    server.ignores_conditions = False
    monkeypatch.setattr(s3_objects, "_conditions", {})
    for name in server.names("bucket"):
        server.client.delete_object(Bucket="bucket", Key=name)
    return server


@pytest.fixture
def storage(s3):
    return S3Storage(QUICK)


def test_ranges_are_read_up_to_the_end(s3, storage):
    write_file(storage, "s3://bucket/shard.tar", b"0123456789")
    ranges = {(2, 3): b"234", (8, 5): b"89", (10, 5): b"", (40, 5): b"", (3, 0): b""}
    for (offset, num_bytes), expected in ranges.items():
        assert storage.read_part("s3://bucket/shard.tar", offset=offset, num_bytes=num_bytes) == expected
    with pytest.raises(FileNotFoundError):
        storage.read_part("s3://bucket/none.tar", offset=0, num_bytes=4)


def test_files_are_written_read_listed_moved_and_deleted(s3, storage):
    write_file(storage, "s3://bucket/a/b.txt", b"content")
    assert s3.get("bucket", "a/b.txt") == b"content"
    assert read_file(storage, "s3://bucket/a/b.txt") == b"content"
    with storage.open("s3://bucket/a/b.txt") as stream:
        assert stream.read(3) == b"con"
    assert storage.sizes("s3://bucket/a/*") == {"s3://bucket/a/b.txt": 7}
    storage.move("s3://bucket/a/b.txt", "s3://bucket/c.txt")
    assert s3.names("bucket") == ["c.txt"]
    storage.delete_file("s3://bucket/c.txt")
    storage.delete_file("s3://bucket/c.txt")
    assert s3.names("bucket") == []


def test_an_empty_file_is_a_file(s3, storage):
    with storage.create("s3://bucket/failed.jsonl"):
        pass
    assert s3.get("bucket", "failed.jsonl") == b""
    assert storage.read("s3://bucket/failed.jsonl", max_bytes=0) == b""
    assert storage.match("s3://bucket/failed.jsonl") == ["s3://bucket/failed.jsonl"]


def test_names_with_signs_of_globs_and_urls(s3, storage):
    names = ["a [1].png", "a#b?c.png", "a+b %20.png", "ä/é.png", "x/y/z.png", "x/w.png"]
    for name in names:
        write_file(storage, f"s3://bucket/{name}", name.encode())
        assert storage.match(f"s3://bucket/{name}") == [f"s3://bucket/{name}"]
        assert storage.read(f"s3://bucket/{name}") == name.encode()
        storage.move(f"s3://bucket/{name}", f"s3://bucket/moved/{name}")
        storage.move(f"s3://bucket/moved/{name}", f"s3://bucket/{name}")
    assert storage.match("s3://bucket/x/*.png") == ["s3://bucket/x/w.png"]
    assert storage.match("s3://bucket/x/**") == ["s3://bucket/x/w.png", "s3://bucket/x/y/z.png"]
    assert storage.match("s3://bucket/x") == []
    s3.put("bucket", "x/", b"")
    storage.delete_tree("s3://bucket/x")
    assert not [name for name in s3.names("bucket") if name.startswith("x/")]


def test_more_objects_than_one_page_lists(s3, storage, monkeypatch):
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")
    for number in range(10):
        s3.put("bucket", f"many/{number}", b"1")
    assert "NextContinuationToken" in s3.client.list_objects_v2(Bucket="bucket")
    assert len(storage.match("s3://bucket/many/*")) == 10


def test_a_fault_while_writing_sends_nothing(s3, storage):
    with pytest.raises(RuntimeError), storage.create("s3://bucket/a") as stream:
        stream.write(b"half")
        raise RuntimeError
    assert s3.names("bucket") == []


def test_what_is_missing_or_forbidden_is_one_line(s3, storage):
    with pytest.raises(FileNotFoundError, match="No such object: s3://bucket/none"):
        storage.read("s3://bucket/none")
    with pytest.raises(FileNotFoundError, match="No such bucket: s3://nowhere"):
        storage.match("s3://nowhere/*")
    with pytest.raises(FileNotFoundError, match="No such bucket"):
        write_file(storage, "s3://nowhere/a", b"")
    with pytest.raises(OSError, match="must be s3://bucket/object"):
        storage.read("s3://bucket")
    s3.put("bucket", "a", b"12345")
    with pytest.raises(TooLarge):
        storage.read("s3://bucket/a", max_bytes=4)
    s3.faults.append(Fault(only="GET /bucket/a", status=403, code="AccessDenied"))
    with pytest.raises(PermissionError, match="No permission for s3://bucket/a") as caught:
        storage.read("s3://bucket/a")
    assert "\n" not in str(caught.value) and "testing-secret" not in str(caught.value)
    assert s3.met["GET /bucket/a"] == 1


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (503, "SlowDown"),
        (500, "InternalError"),
        (429, "TooMany"),
        (400, "RequestTimeout"),
        (409, "OperationAborted"),
        (0, ""),
    ],
)
def test_faults_that_may_pass_are_tried_again(s3, storage, status, code):
    s3.put("bucket", "a", b"1")
    s3.faults += [
        Fault(only=only, status=status, code=code, number=2) for only in ("GET /bucket/a", "PUT /bucket/b", "list-type")
    ]
    assert storage.read("s3://bucket/a") == b"1"
    write_file(storage, "s3://bucket/b", b"2")
    assert storage.match("s3://bucket/*") == ["s3://bucket/a", "s3://bucket/b"]
    assert set(s3.met.values()) == {2}


def test_an_answer_that_is_cut_is_tried_again(s3, storage):
    s3.put("bucket", "a", b"content" * 1000)
    s3.faults.append(Fault(only="GET /bucket/a", status=200, number=2))
    assert storage.read("s3://bucket/a") == b"content" * 1000
    s3.met.clear()
    with storage.open("s3://bucket/a") as stream:
        assert stream.read() == b"content" * 1000
    assert s3.met["GET /bucket/a"] == 2


def test_a_certificate_that_is_not_valid_is_no_fault_that_passes():
    bad = urllib3.exceptions.SSLError(ssl.SSLCertVerificationError(1, "certificate verify failed"))
    assert not is_transient(botocore.exceptions.SSLError(endpoint_url="https://h", error=bad))
    assert is_transient(botocore.exceptions.EndpointConnectionError(endpoint_url="https://h"))


def test_weights_in_a_bucket(s3):
    with pytest.raises(InputError, match="weights"):
        check_file("s3://bucket/none.weights.h5", UriStorage(QUICK))
    s3.put("bucket", "my.weights.h5", b"w")
    check_file("s3://bucket/my.weights.h5", UriStorage(QUICK))


def test_a_service_that_stays_away_is_a_fault_of_the_machine(s3):
    s3.faults.append(Fault(only="GET"))
    with pytest.raises(RetriesExhausted, match="s3://bucket/a: .*SlowDown") as caught:
        S3Storage(RetryPolicy(limit_sec=0)).read("s3://bucket/a")
    assert is_machine_fault(caught.value)


def test_no_server_is_one_line(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(RetriesExhausted, match="s3://bucket/a") as caught:
        S3Storage(RetryPolicy(limit_sec=0)).read("s3://bucket/a")
    assert "\n" not in str(caught.value)


def test_without_credentials_public_objects_are_read(s3, monkeypatch):
    s3.client.put_object(Bucket="bucket", Key="a", Body=b"1", ACL="public-read")
    monkeypatch.setattr(s3_objects, "_clients", {})
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert S3Storage(QUICK).read("s3://bucket/a") == b"1"
    s3.faults.append(Fault(only="GET", status=403, code="AccessDenied"))
    with pytest.raises(PermissionError, match="no AWS credentials were found"):
        S3Storage(QUICK).read("s3://bucket/a")


def test_of_several_creators_one_succeeds(s3, storage):
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda n: storage.create_new("s3://bucket/new", b"%d" % n), range(4)))
    assert sum(made) == 1
    assert s3.get("bucket", "new") == b"%d" % made.index(True)
    assert s3.names("bucket") == ["new"]
    assert not storage.create_new("s3://bucket/new", b"x")


def test_the_answer_to_a_creation_may_be_lost(s3, storage):
    s3.put("bucket", "new", b"mine")  # by an earlier attempt
    assert storage.create_new("s3://bucket/new", b"mine")


def test_a_version_is_replaced_only_by_who_knows_it(s3, storage):
    lock = storage.versioned("s3://bucket/out/.lock")
    assert lock.look() is None
    first = lock.create("one")
    assert lock.create("two") is None
    again = lock.replace("one", first)
    assert again.generation != first.generation  # Even with the same text.
    assert lock.look() == again
    assert lock.replace("three", first) is None
    assert lock.age_sec(first) is None
    assert 0 <= lock.age_sec(again) <= 5
    lock.delete(first)
    assert lock.look() == again
    lock.delete(again)
    assert lock.look() is None
    assert lock.replace("four", again) is None
    assert lock.within(1).age_sec(again) is None
    assert s3.names("bucket") == []


def hold(storage):
    holder = this_process(program="test")
    return locked("s3://bucket/out", holder=holder, flag="output_path", output="s3://bucket/out", storage=storage)


def test_a_lease_keeps_others_away_until_it_is_released(s3):
    storage = UriStorage(QUICK)

    with hold(storage) as lock:
        assert isinstance(lock, Lease)
        lock.check()
        lock.confirm()
        with pytest.raises(InputError, match="output_path"), hold(storage):
            pass
    with hold(storage):
        pass
    assert s3.names("bucket") == []


def test_a_lease_that_another_took_over_is_lost(s3):
    storage = UriStorage(QUICK)
    lock = storage.versioned("s3://bucket/.lock")
    mine = Lease(
        lock, holder=this_process(program="test"), flag="output_path", output="out", timing=Timing(renew_every_sec=60)
    )
    other = this_process(program="other")
    assert lock.replace(other.to_text(), lock.look())
    with pytest.raises(InputError, match="has lost"):
        mine.confirm()
    mine.release()
    assert lock.look().text == other.to_text()


@pytest.mark.parametrize("refuses", [False, True])
def test_a_server_without_conditions_has_no_locks_and_that_is_said(s3, capsys, refuses):
    if refuses:
        s3.faults += [
            Fault(only="PUT", status=501, code="NotImplemented", condition=name)
            for name in ("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH")
        ]
    else:
        s3.ignores_conditions = True
    storage = UriStorage(QUICK)
    assert storage.versioned("s3://bucket/.lock") is None
    with hold(storage) as lock:
        assert lock is None
    assert "warning: no lock on 's3://bucket/out'" in capsys.readouterr().err
    assert storage.create_new("s3://bucket/new", b"1")
    assert not storage.create_new("s3://bucket/new", b"2")
    assert s3.names("bucket") == ["new"]


def test_a_bucket_that_may_not_be_written_to_is_one_line(s3):
    s3.faults.append(Fault(only="PUT", status=403, code="AccessDenied"))
    storage = UriStorage(QUICK)
    with (
        pytest.raises(InputError, match="output_path: cannot write to 's3://bucket/out'"),
        hold(storage),
    ):
        pass


def test_the_package_is_asked_for(s3, monkeypatch):
    router.require_client.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    with pytest.raises(InputError, match=r"s3:// needs the package boto3.*aws"):
        UriStorage().read("s3://bucket/a")
    router.require_client.cache_clear()


def test_a_local_copy_of_an_object(s3):
    s3.put("bucket", "w.h5", b"weights")
    with local_copy("s3://bucket/w.h5", UriStorage(QUICK)) as path, open(path, "rb") as stream:
        assert stream.read() == b"weights"
    assert not os.path.exists(path)


@pytest.mark.parametrize("path", ["http://host/list.csv", "HTTPS://host/list.csv?key=secret"])
def test_lists_are_not_read_from_web_hosts(path):
    with pytest.raises(InputError, match="only the images of a list") as caught:
        UriStorage().open(path)
    assert "secret" not in str(caught.value)
