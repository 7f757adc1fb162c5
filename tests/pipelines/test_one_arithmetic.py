"""A job that goes on with another precision, or other libraries, than it was begun with."""

import dataclasses
import json

import pytest

from configs.errors import InputError
from preprocess.beam.transforms import EngineLoader
from tests.pipelines.test_embed import photo, report_of, run
from tests.support.slow_job import SlowEngine

FLAGS = ["--rows_per_shard", "6"]
BEGUN = ("network 1", "pillow 12.2.0", "openvino 2026.4.0")


class PowerFails(RuntimeError):
    pass


class Engine(SlowEngine):
    """Says in every embedding in which precision it was computed; dies after so many images."""

    limit = 10**6

    def embed(self, pixels):
        if sum(self.batches) >= self.limit:
            raise PowerFails
        self.batches.append(len(pixels))
        embeddings = super().embed(pixels)
        return embeddings + (1000 if self.info.precision == "bfloat16" else 0)


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts a run with an engine of some kind; gives the report."""
    (tmp_path / "dict.txt").write_text("daisy\nrose\n")
    for number in range(20):
        photo(tmp_path / f"photos/{number}.png", seed=number, size=(9, 9), image_format="PNG")
    rows = [f"photos/{number}.png,{'rose' if number % 3 else 'daisy'}\n" for number in range(20)]
    (tmp_path / "train.csv").write_text("".join(rows))

    def start(*flags, limit=10**6, **info):
        engine = Engine(0)
        engine.limit = limit
        engine.info = dataclasses.replace(engine.info, **({"libraries": BEGUN} | info))
        monkeypatch.setattr(EngineLoader, "__call__", lambda self: engine)
        assert run(tmp_path, *FLAGS, *flags) == 0
        return report_of(tmp_path)

    return start


def kinds(report):
    return {(engine["precision"], *engine["libraries"]) for engine in report["engines"]}


@pytest.mark.parametrize("limit", [0, 1, 9, 17])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"precision": "bfloat16"}, "precision float32 then, bfloat16 now"),
        ({"libraries": ("network 1", "pillow 12.3.0", "openvino 2026.4.0")}, "pip install pillow==12.2.0"),
    ],
)
def test_a_run_that_goes_on_otherwise_is_refused_and_overwrite_leads_out(start, tmp_path, limit, change, words):
    with pytest.raises(Exception, match="PowerFails"):
        start(limit=limit)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=words):
        start(**change)
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
    report = start("--overwrite", **change)
    assert report["embedded_by"] == {"computed": 20}
    assert len(kinds(report)) == 1
    assert not list((tmp_path / "out/_train").glob("parts-*"))


def test_a_run_that_goes_on_as_it_was_begun_keeps_what_is_there(start):
    with pytest.raises(Exception, match="PowerFails"):
        start(limit=13)
    report = start()
    assert report["embedded_by"]["earlier_run"] >= 6
    assert kinds(report) == {("float32", *BEGUN)}


def test_an_overwriting_run_that_is_killed_binds_the_next_one_to_what_it_took(start):
    with pytest.raises(Exception, match="PowerFails"):
        start(limit=9)
    with pytest.raises(Exception, match="PowerFails"):
        start("--overwrite", limit=9, precision="bfloat16")
    with pytest.raises(InputError, match="precision bfloat16 then, float32 now"):
        start()
    assert kinds(start(precision="bfloat16")) == {("bfloat16", *BEGUN)}


def test_failures_are_tried_again_with_what_made_the_set_or_not_at_all(start, tmp_path):
    (tmp_path / "photos/4.png").rename(tmp_path / "4.png")
    assert start()["failed"] == {"not_found": 1}
    (tmp_path / "4.png").rename(tmp_path / "photos/4.png")
    files = {path: path.read_bytes() for path in (tmp_path / "out").glob("train-*")}
    with pytest.raises(InputError, match="begun with other.*instead of --retry_failures"):
        start("--retry_failures", precision="bfloat16")
    assert {path: path.read_bytes() for path in (tmp_path / "out").glob("train-*")} == files
    report = start("--retry_failures")
    assert report["embedded_by"] == {"earlier_run": 19, "computed": 1}
    assert kinds(report) == {("float32", *BEGUN)}


def test_a_set_of_an_earlier_version_is_not_added_to(start, tmp_path):
    (tmp_path / "photos/4.png").unlink()
    report = start()
    for engine in report["engines"]:
        del engine["libraries"]
    (tmp_path / "out/_train/report.json").write_text(json.dumps(report))
    with pytest.raises(InputError, match="does not say with which libraries the set was made"):
        start("--retry_failures")


def test_the_cache_of_embeddings_tells_versions_apart(start, tmp_path):
    cache = ["--embedding_cache", str(tmp_path / "cache"), "--overwrite"]
    assert start(*cache)["embedded_by"] == {"computed": 20}
    assert start(*cache)["embedded_by"] == {"cache": 20}
    newer = ("network 1", "pillow 12.3.0", "openvino 2026.4.0")
    assert start(*cache, libraries=newer)["embedded_by"] == {"computed": 20}
    assert start(*cache)["embedded_by"] == {"cache": 20}
