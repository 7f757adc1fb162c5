import os
import pathlib
import stat
import subprocess
import sys
import time

import pytest

from preprocess.engines import model_cache
from preprocess.engines.model_cache import MAX_ENTRIES, ModelCache, cache_folder

KEY = {"kind": "test", "code": [1, 2]}


class Writer:
    def __init__(self, content=b"weights"):
        self.calls = 0
        self.content = content

    def __call__(self, folder):
        self.calls += 1
        pathlib.Path(folder, "model.bin").write_bytes(self.content)


def read(folder):
    return pathlib.Path(folder, "model.bin").read_bytes()


def test_an_entry_is_made_once_and_found_again(tmp_path):
    writer = Writer()
    made = ModelCache(str(tmp_path / "cache")).find_or_make(KEY, writer)
    again = ModelCache(str(tmp_path / "cache")).find_or_make(KEY, writer)
    assert made == again
    assert read(again) == b"weights"
    assert writer.calls == 1
    assert ModelCache(str(tmp_path / "cache")).find({**KEY, "code": [1, 3]}) is None


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "entry", "other key", "a file in its place"])
def test_a_damaged_entry_is_made_anew(tmp_path, damage):
    cache = ModelCache(str(tmp_path))
    folder = pathlib.Path(cache.find_or_make(KEY, Writer(b"old")))
    if damage == "flip":
        (folder / "model.bin").write_bytes(b"0ld")
    elif damage == "truncate":
        (folder / "model.bin").write_bytes(b"ol")
    elif damage == "remove":
        (folder / "model.bin").unlink()
    elif damage == "entry":
        (folder / "entry.json").write_text("[]")
    elif damage == "other key":
        (folder / "entry.json").write_text((folder / "entry.json").read_text().replace("test", "rest"))
    else:
        folder.rename(tmp_path / "elsewhere")
        folder.write_bytes(b"")
    assert cache.find(KEY) is None
    assert read(cache.find_or_make(KEY, Writer(b"new"))) == b"new"
    assert read(cache.find(KEY)) == b"new"
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".") and "damaged" not in name]


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    cache = ModelCache(str(tmp_path / "file" / "cache"))
    writer = Writer()
    assert read(cache.find_or_make(KEY, writer)) == b"weights"
    assert read(cache.find_or_make(KEY, writer)) == b"weights"
    assert writer.calls == 2


def test_without_a_key_nothing_is_kept(tmp_path):
    assert read(ModelCache(str(tmp_path)).find_or_make(None, Writer())) == b"weights"
    assert os.listdir(tmp_path) == []


def test_a_failure_keeps_nothing_and_is_passed_on(tmp_path):
    def fail(folder):
        Writer()(folder)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ModelCache(str(tmp_path)).find_or_make(KEY, fail)
    assert os.listdir(tmp_path) == []


def test_the_folder_is_the_user_s_to_choose(monkeypatch):
    monkeypatch.setenv("HUGS_CACHE_DIR", "/somewhere")
    assert cache_folder() == "/somewhere"
    monkeypatch.delenv("HUGS_CACHE_DIR")
    assert cache_folder().endswith(".cache/hugs")


def test_what_was_used_longest_ago_goes_first_and_nothing_that_was_used_today(tmp_path):
    cache = ModelCache(str(tmp_path))
    folders = [cache.find_or_make({"number": number}, Writer()) for number in range(MAX_ENTRIES + 3)]
    assert len(os.listdir(tmp_path)) == MAX_ENTRIES + 3
    for number, folder in enumerate(folders):
        long_ago = time.time() - (2 + number) * 24 * 3600
        os.utime(os.path.join(folder, "entry.json"), (long_ago, long_ago))
    assert cache.find({"number": MAX_ENTRIES + 2})  # The oldest; now it is the one that was used last.
    cache.find_or_make(KEY, Writer())
    assert len(os.listdir(tmp_path)) == MAX_ENTRIES
    assert cache.find({"number": MAX_ENTRIES + 2})
    assert cache.find({"number": 0})
    assert not cache.find({"number": MAX_ENTRIES + 1})


def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def test_folder_and_entries_are_private_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        folder = ModelCache(str(tmp_path / "a/b")).find_or_make(KEY, Writer())
    finally:
        os.umask(before)
    assert {mode(tmp_path / "a"), mode(tmp_path / "a/b"), mode(folder)} == {0o700}
    assert {mode(os.path.join(folder, name)) for name in os.listdir(folder)} == {0o600}


@pytest.mark.parametrize("where", ["", "model.bin", "entry.json"])
def test_an_entry_that_others_may_write_is_made_anew(tmp_path, where):
    cache = ModelCache(str(tmp_path))
    folder = cache.find_or_make(KEY, Writer(b"whoever wrote this"))
    os.chmod(os.path.join(folder, where), 0o777)
    assert cache.find(KEY) is None
    assert read(cache.find_or_make(KEY, Writer(b"mine"))) == b"mine"
    assert read(cache.find(KEY)) == b"mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("where", ["", "model.bin", "entry.json"])
def test_an_entry_that_another_user_planted_is_made_anew(tmp_path, where):
    """Its checksums are right: whoever plants a graph writes them too."""
    cache = ModelCache(str(tmp_path))
    folder = cache.find_or_make(KEY, Writer(b"planted"))
    os.chown(os.path.join(folder, where), 12345, 12345)
    assert cache.find(KEY) is None
    assert read(cache.find_or_make(KEY, Writer(b"mine"))) == b"mine"


@pytest.mark.parametrize("what", ["link to a folder", "link to a file", "a further file"])
def test_an_entry_is_its_own_plain_files_and_no_others(tmp_path, what):
    cache = ModelCache(str(tmp_path / "cache"))
    folder = pathlib.Path(cache.find_or_make(KEY, Writer(b"elsewhere")))
    if what == "link to a folder":
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
    elif what == "link to a file":
        (folder / "model.bin").rename(tmp_path / "elsewhere")
        (folder / "model.bin").symlink_to(tmp_path / "elsewhere")
    else:
        (folder / "int8.bin").write_bytes(b"read because of its name")
    assert cache.find(KEY) is None
    assert read(cache.find_or_make(KEY, Writer(b"mine"))) == b"mine"


def test_a_folder_of_ours_that_others_may_write_is_closed_to_them(tmp_path):
    cache = ModelCache(str(tmp_path / "cache"))
    cache.find_or_make(KEY, Writer())
    os.chmod(tmp_path / "cache", 0o777)
    assert read(cache.find(KEY)) == b"weights"
    assert mode(tmp_path / "cache") == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_folder_of_another_user_is_not_used_and_that_is_said(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(model_cache._LOGGER, "warning", lambda template, message: said.append(message))
    cache = ModelCache(str(tmp_path / "cache"))
    cache.find_or_make(KEY, Writer(b"planted"))
    os.chown(tmp_path / "cache", 12345, 12345)
    writer = Writer(b"mine")
    assert read(cache.find_or_make(KEY, writer)) == b"mine"
    assert read(cache.find_or_make(KEY, writer)) == b"mine"
    assert writer.calls == 2
    assert len(said) == 1
    assert "belongs to another user" in said[0]
    assert "Set HUGS_CACHE_DIR to a folder of your own" in said[0]


def test_a_kill_while_a_network_is_prepared_leaves_nothing_for_long(tmp_path):
    script = (
        "import os, signal, sys\n"
        "from preprocess.engines.model_cache import ModelCache\n"
        "ModelCache(sys.argv[1]).find_or_make({'a': 1}, lambda folder: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-c", script, str(tmp_path / "cache")]
    for _ in range(3):
        subprocess.run(command, env=os.environ | {"TMPDIR": str(temporary)}, check=False)
        assert len(os.listdir(temporary)) == 1
