import io
import os

import pytest

from preprocess.outcomes import RowFailure
from preprocess.reading import read_image_bytes


def open_nothing(location):
    raise FileNotFoundError(location)


def reason_of(location, **kwargs):
    with pytest.raises(RowFailure) as failure:
        read_image_bytes(str(location), **({"open_remote": open_nothing} | kwargs))
    assert failure.value.stage == "read"
    assert "\n" not in failure.value.message
    return failure.value.reason


def test_files_are_read_whole(tmp_path):
    path = tmp_path / "été 1.jpg"
    path.write_bytes(bytes(range(256)) * 1000)
    assert read_image_bytes(str(path), open_remote=open_nothing) == path.read_bytes()
    assert read_image_bytes("gs://b/x", open_remote=lambda location: io.BytesIO(b"remote")) == b"remote"


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


def test_remote_faults_have_a_reason():
    def raising(error):
        def open_remote(location):
            raise error

        return open_remote

    assert reason_of("gs://b/x") == "not_found"
    assert reason_of("gs://b/x", open_remote=raising(PermissionError("403"))) == "no_permission"
    assert reason_of("gs://b/x", open_remote=raising(OSError("503"))) == "read_error"
    assert reason_of("foo://b/x", open_remote=raising(ValueError("no filesystem"))) == "bad_uri"
    assert reason_of("gs://b/x", open_remote=lambda location: io.BytesIO(b"12345"), max_bytes=4) == "too_large"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path):
    path = tmp_path / "secret.jpg"
    path.write_bytes(b"x")
    path.chmod(0)
    assert reason_of(path) == "no_permission"
