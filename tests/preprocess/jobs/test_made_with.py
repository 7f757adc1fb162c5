"""One set, one arithmetic: what the first run takes, later runs and other workers take as well, or refuse."""

import concurrent.futures
import dataclasses
import json
import pathlib

import pytest

from configs.errors import InputError
from preprocess.engines.base import EngineInfo
from preprocess.engines.libraries import libraries
from preprocess.jobs.commit import JobFailed, finish_record_set
from preprocess.jobs.job import Retry
from preprocess.jobs.made_with import (
    differences,
    forget_record,
    load_for_worker,
    load_recorded,
    record_path,
    recorded,
    write_record,
)
from preprocess.storage.base import LocalStorage
from tests.preprocess.jobs.test_resume import Engine, embed
from tests.support.stand_ins import INFO, StandInEngine, make_job

HERE = dataclasses.replace(INFO, libraries=("network 1", "pillow 12.3.0", "openvino 2026.4.0", "webp 1.6.0"))
STORAGE = LocalStorage()


@pytest.fixture
def job(tmp_path):
    return make_job(tmp_path)


def loads(**changes):
    return lambda: StandInEngine(info=dataclasses.replace(HERE, **changes))


def report(job, *engines):
    path = pathlib.Path(job.output_prefix).parent / "_train/report.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"engines": list(engines)}))


def test_what_is_written_comes_back(job):
    assert recorded(job, STORAGE, of_finished_set=False) is None
    write_record(job, STORAGE, HERE)
    assert recorded(job, STORAGE, of_finished_set=False) == HERE
    assert load_recorded(loads(why="otherwise", fidelity=0.5), HERE, job).info.why == "otherwise"
    forget_record(job, STORAGE)
    assert recorded(job, STORAGE, of_finished_set=False) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"precision": "bfloat16"}, r"\(precision float32 then, bfloat16 now\)"),
        ({"engine": "tensorflow"}, r"\(engine stand_in then, tensorflow now\)"),
        ({"calibration": "abc"}, r"\(images of the int8 calibration none then, abc now\)"),
        (
            {"libraries": ("network 1", "pillow 13.0.0", "openvino 2026.4.0", "webp 1.7.0")},
            r"\(pillow 12.3.0 then, 13.0.0 now; webp 1.6.0 then, 1.7.0 now\).*\(pip install pillow==12.3.0\)",
        ),
        ({"libraries": HERE.libraries[:-1]}, r"\(webp 1.6.0 then, none now\)"),
        ({"libraries": ("network 2", *HERE.libraries[1:])}, r"\(network 1 then, 2 now\)"),
    ],
)
def test_what_differs_is_refused_by_name_with_the_way_out(job, changes, words):
    with pytest.raises(InputError, match=words) as raised:
        load_recorded(loads(**changes), HERE, job)
    assert "this was begun with other" in str(raised.value)
    assert "give the same command with --overwrite" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_auto_leaves_open_is_taken_from_the_record(job):
    @dataclasses.dataclass(frozen=True)
    class Loader:
        precision: str = "bfloat16"

        def __call__(self):
            return loads(precision=self.precision)()

        def obeying(self, record):
            return Loader(record.precision)

    assert load_recorded(Loader(), HERE, job).info.precision == "float32"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"engine": 5}', b"\xff"])
def test_a_damaged_record_is_one_line(job, content):
    write_record(job, STORAGE, HERE)
    pathlib.Path(record_path(job)).write_bytes(content)
    with pytest.raises(InputError, match="made_with.json: does not say what the job embeds with.*--overwrite"):
        recorded(job, STORAGE, of_finished_set=False)


def test_rows_of_a_finished_set_are_tried_again_with_what_made_it(job):
    retry = dataclasses.replace(job, retry=Retry(of_finished_set=True))
    # A run with --overwrite that was killed leaves a record beside its parts, which says nothing of the set.
    write_record(job, STORAGE, dataclasses.replace(HERE, precision="bfloat16"))
    report(job, HERE.to_json(), {**HERE.to_json(), "why": "otherwise"})
    assert recorded(retry, STORAGE, of_finished_set=True) == HERE
    with pytest.raises(InputError, match="begun with other.*instead of --retry_failures"):
        load_recorded(loads(precision="int8"), HERE, retry)
    report(job, HERE.to_json(), {**HERE.to_json(), "precision": "bfloat16"})
    with pytest.raises(
        InputError, match="the set is a mixture already .precision float32 then, bfloat16 now.*--overwrite"
    ):
        recorded(retry, STORAGE, of_finished_set=True)
    of_earlier_version = {name: value for name, value in HERE.to_json().items() if name != "libraries"}
    report(job, of_earlier_version)
    with pytest.raises(InputError, match="does not say with which libraries the set was made.*--overwrite"):
        recorded(retry, STORAGE, of_finished_set=True)
    assert EngineInfo.from_json(of_earlier_version).libraries == ()


def test_the_first_worker_decides_and_the_others_obey_or_refuse(job):
    choices = ["float32", "bfloat16"] * 8

    def work(precision):
        try:
            return load_for_worker(loads(precision=precision), job, STORAGE).info.precision
        except InputError:
            return None

    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        found = list(threads.map(work, choices))
    (chosen,) = {precision for precision in found if precision}
    assert recorded(job, STORAGE, of_finished_set=False).precision == chosen
    assert [precision for precision in choices if precision == chosen] == [
        precision for precision in found if precision
    ]
    assert [path.name for path in pathlib.Path(job.parts_dir).iterdir()] == ["made_with.json"]


def test_blocks_of_several_arithmetics_make_no_set(tmp_path):
    job = make_job(tmp_path, input_paths=("d/list.csv",), rows_expected=40)
    results, _ = embed(job, Engine())
    other = dataclasses.replace(results[1], engine=dataclasses.replace(INFO, precision="bfloat16"))
    with pytest.raises(JobFailed, match="precision float32 then, bfloat16 now.*Give the same command again"):
        finish_record_set([results[0], other, *results[2:]], job=job, storage=STORAGE)
    assert not list((tmp_path / "out").glob("train-*"))


def test_the_libraries_of_this_machine():
    found = dict(library.split(" ", 1) for library in libraries(engine="tensorflow", network_sha256="ab"))
    assert found["network"] == "ab"
    assert {"pillow", "tensorflow", "webp", "avif", "jpg_2000"} <= found.keys()
    assert "zlib" not in found
    assert "openvino" not in found
    assert differences(INFO, INFO) == []
