"""Jobs that an earlier version began or finished: the same command goes on with them as they are."""

from __future__ import annotations

import dataclasses
import json

import pytest

from pipelines.checks import earlier_versions
from pipelines.embedding import preparation
from preprocess.beam import transforms
from tests.pipelines.test_embed import photo, report_of, run


@pytest.fixture
def six(tmp_path, engine):
    (tmp_path / "dict.txt").write_text("daisy\nrose\n")
    for number in range(6):
        photo(tmp_path / f"photos/{number}.png", seed=number, size=(9, 9), image_format="PNG")
    (tmp_path / "photos/4.png").rename(tmp_path / "4.png")
    (tmp_path / "train.csv").write_text("".join(f"photos/{number}.png,daisy\n" for number in range(6)))
    return tmp_path


@pytest.fixture
def earlier_version(monkeypatch):
    """Runs a function as the version before hashes would have."""

    def run_as_before(function):
        with monkeypatch.context() as patch:
            patch.setattr(preparation, "with_hashes", lambda job: job)
            return function()

    return run_as_before


def shards(folder):
    return {path.name: path.read_bytes() for path in (folder / "out").glob("train-*")}


def has_hashes(folder):
    return {b"image_phash" in data for data in shards(folder).values()}


FLAGS = ("--rows_per_shard", "2", "--max_failed_percent", "50")


def test_a_new_set_has_hashes_and_says_so(six):
    run(six, *FLAGS)
    assert has_hashes(six) == {True}
    assert report_of(six)["definition"]["image_phash"] == "dct16/1"


def test_a_finished_set_of_an_earlier_version_is_finished(six, earlier_version, capsys):
    earlier_version(lambda: run(six, *FLAGS))
    before = shards(six)
    assert has_hashes(six) == {False}
    assert "image_phash" not in report_of(six)["definition"]
    capsys.readouterr()
    assert run(six, *FLAGS) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert shards(six) == before
    (six / "4.png").rename(six / "photos/4.png")
    run(six, *FLAGS, "--retry_failures")
    assert report_of(six)["embedded_by"] == {"earlier_run": 5, "computed": 1}
    assert has_hashes(six) == {False}
    run(six, *FLAGS, "--overwrite")
    assert has_hashes(six) == {True}


def test_an_unfinished_job_of_an_earlier_version_goes_on_as_it_was_begun(six, earlier_version, monkeypatch):
    undisturbed = earlier_version(lambda: run(six, *FLAGS)) or shards(six)
    for path in (six / "out").glob("train-*"):
        path.unlink()
    for path in (six / "out/_train").iterdir():
        path.unlink()

    def stop(*_, **__):
        raise OSError("stopped")

    def run_and_stop():
        with monkeypatch.context() as patch:
            patch.setattr(transforms, "finish_record_set", stop)
            with pytest.raises(Exception, match="stopped"):
                run(six, *FLAGS)

    earlier_version(run_and_stop)
    assert not shards(six)
    run(six, *FLAGS)
    assert report_of(six)["embedded_by"] == {"earlier_run": 5}
    assert shards(six) == undisturbed


def test_a_report_that_cannot_be_read_is_not_taken_for_one_of_an_earlier_version(tmp_path):
    from preprocess.storage.base import LocalStorage
    from tests.support.stand_ins import make_job

    job = earlier_versions.with_hashes(make_job(tmp_path, definition={"a": 1}))
    report = tmp_path / "out/_train/report.json"
    report.parent.mkdir(parents=True)
    for text in ("", "[]", "{", json.dumps({"definition": None}), json.dumps({"definition": {"a": 2}})):
        report.write_text(text)
        assert earlier_versions.as_begun(job, LocalStorage(), overwrite=False) is job
    report.write_text(json.dumps({"definition": {"a": 1}}))
    begun = earlier_versions.as_begun(job, LocalStorage(), overwrite=False)
    assert begun == dataclasses.replace(job, definition={"a": 1}, image_hashes=False)
    assert earlier_versions.as_begun(job, LocalStorage(), overwrite=True) is job
