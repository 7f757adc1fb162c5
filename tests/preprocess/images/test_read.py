import errno
import os
import socket

import pytest

from preprocess.images.read import read_image_bytes
from preprocess.lists.outcomes import RowFailure
from preprocess.machine.machine_faults import MachineFault
from preprocess.storage.base import TooLarge
from preprocess.storage.retry import RetriesExhausted


def read_nothing(location, *, max_bytes=None):
    raise FileNotFoundError(location)


def reason_of(location, **kwargs):
    with pytest.raises(RowFailure) as failure:
        read_image_bytes(str(location), **({"read_remote": read_nothing} | kwargs))
    assert failure.value.stage == "read"
    assert "\n" not in failure.value.message
    return failure.value.reason


def test_files_are_read_whole(tmp_path):
    path = tmp_path / "été 1.jpg"
    path.write_bytes(bytes(range(256)) * 1000)
    assert read_image_bytes(str(path), read_remote=read_nothing) == path.read_bytes()
    assert read_image_bytes("gs://b/x", read_remote=lambda location, *, max_bytes=None: b"remote") == b"remote"


def test_what_cannot_be_read_has_a_reason(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    os.mkfifo(tmp_path / "fifo")
    assert reason_of(tmp_path / "none.jpg") == "not_found"
    assert reason_of(tmp_path / "file" / "x.jpg") == "not_found"
    assert reason_of(tmp_path) == "is_a_directory"
    assert reason_of(tmp_path / "fifo") == "not_a_regular_file"
    assert reason_of("/dev/zero") == "not_a_regular_file"
    assert reason_of(tmp_path / "file", max_bytes=4) == "too_large"
    assert reason_of("a\0b.jpg") == "bad_uri"
    assert reason_of("x" * 5000) == "bad_uri"


def test_odd_names_and_links(tmp_path):
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert reason_of(tmp_path / "dangling") == "not_found"
    assert reason_of(tmp_path / "loop") == "bad_uri"
    assert reason_of(tmp_path / "two\nlines") == "not_found"
    assert reason_of(tmp_path / "\udcff.jpg") == "not_found"  # a byte that is no UTF-8
    assert reason_of(tmp_path / "\ud800.jpg") == "bad_uri"  # no byte at all
    assert reason_of("") == "not_found"
    for name in ("new\nline", "tab\t", "\udcff"):
        (tmp_path / name).write_bytes(b"x")
        assert read_image_bytes(str(tmp_path / name), read_remote=read_nothing) == b"x"


def test_messages_can_be_written_as_utf8(tmp_path):
    for name in ("\udcff.jpg", "\ud800.jpg"):
        with pytest.raises(RowFailure) as failure:
            read_image_bytes(str(tmp_path / name), read_remote=read_nothing)
        failure.value.message.encode()


def test_sockets_and_files_that_cannot_be_read(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        assert reason_of(tmp_path / "socket") == "not_a_regular_file"
    if os.path.exists("/proc/self/mem"):
        assert reason_of("/proc/self/mem") == "not_a_regular_file"


def test_a_file_that_shrinks_or_grows_while_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"12345")

    def rewriting(content):
        status_of = os.fstat

        def fstat(descriptor):
            status = status_of(descriptor)
            path.write_bytes(content())
            return status

        return fstat

    lengths = iter(range(6, 0, -1))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", rewriting(lambda: bytes(next(lengths))))
        path.write_bytes(bytes(7))
        assert reason_of(path) == "read_error"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", rewriting(lambda: b"1234567"))
        assert reason_of(path, max_bytes=6) == "too_large"


def test_a_file_that_is_being_written_is_read_once_it_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    status_of, contents = os.fstat, [b"123", b"1234567"]

    def fstat(descriptor):
        status = status_of(descriptor)
        if contents:
            path.write_bytes(contents.pop())
        return status

    monkeypatch.setattr(os, "fstat", fstat)
    assert read_image_bytes(str(path), read_remote=read_nothing) == b"123"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_what_the_machine_fails_at_is_no_failure_of_the_image(tmp_path, monkeypatch, number):
    (tmp_path / "file").write_bytes(b"x")

    def fail(*args):
        raise OSError(number, os.strerror(number), str(tmp_path / "file"))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(MachineFault, match=f"file: {os.strerror(number)}"):
        read_image_bytes(str(tmp_path / "file"), read_remote=read_nothing)


def test_a_member_of_an_archive_is_a_range(tmp_path):
    archive = tmp_path / "s.tar"
    archive.write_bytes(b"0123456789")
    assert read_image_bytes(f"{archive}#a.jpg@2+3", read_remote=read_nothing) == b"234"
    assert read_image_bytes(f"{archive}#a.jpg@2+0", read_remote=read_nothing) == b""
    assert reason_of(f"{archive}#a.jpg@8+3") == "read_error"
    assert reason_of(f"{archive}#a.jpg@2+3", max_bytes=2) == "too_large"
    assert reason_of(f"{tmp_path}/none.tar#a.jpg@2+3") == "not_found"
    assert reason_of("gs://b/s.tar#a.jpg@2+3") == "bad_uri"
    (tmp_path / "s.tar#b.jpg@2+3").write_bytes(b"a file of this very name")
    assert read_image_bytes(f"{tmp_path}/s.tar#b.jpg@2+3", read_remote=read_nothing) == b"a file of this very name"


def test_an_empty_file_is_read_and_left_to_the_decoder(tmp_path):
    (tmp_path / "empty").touch()
    assert read_image_bytes(str(tmp_path / "empty"), read_remote=read_nothing) == b""


def test_remote_faults_have_a_reason():
    def raising(error):
        def read_remote(location, *, max_bytes=None):
            raise error

        return read_remote

    assert reason_of("gs://b/x") == "not_found"
    assert reason_of("gs://b/x", read_remote=raising(PermissionError("403"))) == "no_permission"
    assert reason_of("gs://b/x", read_remote=raising(OSError("503"))) == "read_error"
    assert reason_of("gs:///x", read_remote=raising(OSError(errno.EINVAL, "no bucket"))) == "bad_uri"
    assert reason_of("foo://b/x", read_remote=raising(ValueError("no filesystem"))) == "bad_uri"
    for fault in (RetriesExhausted("HTTP 503 (tried 3 times in 1 s)"), OSError(errno.EMFILE, "Too many open files")):
        with pytest.raises(MachineFault, match="^gs://b/x: (HTTP 503|Too many open files)"):
            read_image_bytes("gs://b/x", read_remote=raising(fault))
    assert reason_of("gs://b/x", read_remote=raising(TooLarge("gs://b/x", 4)), max_bytes=4) == "too_large"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path):
    path = tmp_path / "secret.jpg"
    path.write_bytes(b"x")
    path.chmod(0)
    assert reason_of(path) == "no_permission"


def test_permission_errors_have_their_own_reason(tmp_path, monkeypatch):
    def refuse(*args):
        raise PermissionError(errno.EPERM, "not permitted")

    monkeypatch.setattr(os, "open", refuse)
    assert reason_of(tmp_path / "secret.jpg") == "no_permission"
