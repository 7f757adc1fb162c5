import fnmatch
import io
from types import SimpleNamespace

import pytest

from preprocess.beam import beam_storage
from preprocess.beam.beam_storage import BeamStorage
from preprocess.storage.base import LocalStorage, TooLarge, is_file, read_file, write_file
from preprocess.storage.retry import RetryPolicy, as_os_error


@pytest.fixture(params=[LocalStorage, BeamStorage])
def storage(request):
    return request.param()


def test_files_are_written_matched_moved_and_deleted(storage, tmp_path):
    folder = f"{tmp_path}/a/b"
    write_file(storage, f"{folder}/x-1", b"one")
    write_file(storage, f"{folder}/x-2", b"two")
    assert storage.match(f"{folder}/x-*") == [f"{folder}/x-1", f"{folder}/x-2"]
    assert storage.sizes(f"{folder}/x-*") == {f"{folder}/x-1": 3, f"{folder}/x-2": 3}
    assert storage.sizes(f"{folder}/x-1") == {f"{folder}/x-1": 3}
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


def test_more_than_enough_is_refused(storage, tmp_path):
    write_file(storage, f"{tmp_path}/x", b"four")
    assert storage.read(f"{tmp_path}/x", max_bytes=4) == storage.read(f"{tmp_path}/x") == b"four"
    with pytest.raises(TooLarge, match=r"/x has more than 3 bytes"):
        storage.read(f"{tmp_path}/x", max_bytes=3)


class Files:
    """In the place of Beam's FileSystems: every second call of each method fails, after what it does if `late`."""

    def __init__(self, *, late=False):
        self.files = {}
        self.calls = []
        self._late = late
        self._pipeline_options = object()

    def _fails(self, name):
        self.calls.append(name)
        return self.calls.count(name) % 2 == 1

    def _do(self, name, action):
        fails = self._fails(name)
        if fails and not self._late:
            raise ConnectionResetError(name)
        result = action()
        if fails:
            raise ConnectionResetError(name)
        return result

    def open(self, path, compression_type):
        stream = io.BytesIO(self.files[path])
        if self._fails("open"):
            read = stream.read

            def break_off(size=-1):
                if size > 1000 and not stream.tell():
                    return read(1)
                raise ConnectionResetError("read")

            stream.read = break_off
        return stream

    def create(self, path, compression_type):
        stream = io.BytesIO()

        def close():
            self._do("create", lambda: self.files.__setitem__(path, stream.getvalue()))

        return SimpleNamespace(write=stream.write, close=close)

    def exists(self, path):
        return path in self.files

    def match(self, patterns):
        paths = [path for path in self.files if fnmatch.fnmatchcase(path, patterns[0])]
        found = [SimpleNamespace(path=one, size_in_bytes=len(self.files[one])) for one in paths]
        return self._do("match", lambda: [SimpleNamespace(metadata_list=found)])

    def rename(self, sources, targets):
        self._do("rename", lambda: self.files.__setitem__(targets[0], self.files.pop(sources[0])))

    def delete(self, paths):
        self._do("delete", lambda: [self.files.pop(path) for path in paths])


@pytest.mark.parametrize("late", [False, True])
def test_other_filesystems_are_tried_again(monkeypatch, late):
    files = Files(late=late)
    monkeypatch.setattr(beam_storage, "FileSystems", files)
    storage = BeamStorage(RetryPolicy(first_wait_sec=0))
    write_file(storage, "hdfs://b/x", b"content")
    with storage.open("hdfs://b/x") as stream:
        assert stream.read() == b"content"
    assert storage.read("hdfs://b/x") == b"content"
    assert storage.match("hdfs://b/*") == ["hdfs://b/x"]
    assert storage.sizes("hdfs://b/*") == {"hdfs://b/x": 7}
    storage.move("hdfs://b/x", "hdfs://b/f/y")
    assert files.files == {"hdfs://b/f/y": b"content"}
    storage.delete_file("hdfs://b/f/y")
    storage.delete_file("hdfs://b/f/y")
    assert files.files == {}
    write_file(storage, "hdfs://b/f/z", b"z")
    storage.delete_tree("hdfs://b/f")
    assert files.files == {}


def test_other_filesystems_take_nothing_from_a_writer_that_fails(monkeypatch):
    files = Files()
    monkeypatch.setattr(beam_storage, "FileSystems", files)
    with pytest.raises(RuntimeError), BeamStorage().create("hdfs://b/x") as stream:
        stream.write(b"half")
        raise RuntimeError
    assert files.calls == []
    files.files["hdfs://b/x"] = b"four"
    with pytest.raises(TooLarge):
        BeamStorage(RetryPolicy(first_wait_sec=0)).read("hdfs://b/x", max_bytes=3)


def test_a_file_is_looked_for_by_its_very_name(storage, tmp_path):
    for name in ("a1.csv", "b[1].csv"):
        write_file(storage, f"{tmp_path}/{name}", b"x")
    names = ("a1.csv", "a[1].csv", "a*", "b[1].csv", "c")
    assert [name for name in names if is_file(storage, f"{tmp_path}/{name}")] == ["a1.csv", "b[1].csv"]
