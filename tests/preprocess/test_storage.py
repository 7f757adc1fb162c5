import pytest

from preprocess.beam_storage import BeamStorage, as_os_error
from preprocess.storage import LocalStorage, read_file, write_file


@pytest.fixture(params=[LocalStorage, BeamStorage])
def storage(request):
    return request.param()


def test_files_are_written_matched_moved_and_deleted(storage, tmp_path):
    folder = f"{tmp_path}/a/b"
    write_file(storage, f"{folder}/x-1", b"one")
    write_file(storage, f"{folder}/x-2", b"two")
    assert storage.match(f"{folder}/x-*") == [f"{folder}/x-1", f"{folder}/x-2"]
    assert storage.match(f"{folder}/y*") == []
    storage.move(f"{folder}/x-1", f"{tmp_path}/c/y")
    assert read_file(storage, f"{tmp_path}/c/y") == b"one"
    storage.move(f"{folder}/x-2", f"{tmp_path}/c/y")
    assert read_file(storage, f"{tmp_path}/c/y") == b"two"
    storage.delete_file(f"{tmp_path}/c/y")
    storage.delete_file(f"{tmp_path}/c/y")
    storage.delete_tree(f"{tmp_path}/a")
    storage.delete_tree(f"{tmp_path}/a")
    assert storage.match(f"{tmp_path}/**") == []
    with pytest.raises(FileNotFoundError):
        storage.open(f"{folder}/x-1")
    with pytest.raises(FileNotFoundError):
        storage.move(f"{folder}/x-1", f"{tmp_path}/z")


def test_a_file_named_like_a_glob_is_found(storage, tmp_path):
    write_file(storage, f"{tmp_path}/a[1].csv", b"x")
    assert storage.match(f"{tmp_path}/a[1].csv") == [f"{tmp_path}/a[1].csv"]


def test_a_file_is_whole_or_not_there(storage, tmp_path):
    with pytest.raises(RuntimeError), storage.create(f"{tmp_path}/x") as stream:
        stream.write(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_what_clients_raise_becomes_an_os_error():
    from apache_beam.io.filesystem import BeamIOError

    class NotFound(Exception):
        code = 404

    class Forbidden(Exception):
        code = 403

    assert isinstance(as_os_error(BeamIOError("x", {"gs://b/x": NotFound("none")}), "gs://b/x"), FileNotFoundError)
    assert isinstance(as_os_error(Forbidden("no"), "gs://b/x"), PermissionError)
    other = as_os_error(BeamIOError("x", {"gs://b/x": RuntimeError("broken\npipe")}), "gs://b/x")
    assert type(other) is OSError
    assert str(other) == "gs://b/x: broken"
