"""The whole workflow on s3://, from photos to a prediction: the real programs against a server on loopback."""

import json
import os
import pathlib
import shlex
import signal
import time

import pytest

from configs.printed_commands import program_command
from tests.support.programs import end_program, start_program
from tests.support.s3_server import Fault, S3Server
from tests.test_bucket_workflow import BASES, PHOTOS_EACH, png

HEAD = ["--hidden_units", "64", "--max_steps", "100", "--eval_every_steps", "50"]


def start(s3, module, *flags, tiny=True):
    program = ["-m", "tests.support.tiny_program", module] if tiny else ["-m", module]
    return start_program([*program, *flags], s3.environment, tensorflow=module != "pipelines.ingest")


def run(*args, expect=0, **changes):
    return end_program(start(*args, **changes), expect=expect)


@pytest.fixture(scope="module")
def road():
    with S3Server(buckets=["bucket"]) as s3:
        for label, base in BASES.items():
            for number in range(PHOTOS_EACH):
                s3.put("bucket", f"photos/{label}/{number}.png", png(base, number))
        lists = ["--image_dir", "s3://bucket/photos", "--output_dir", "s3://bucket/data"]
        run(s3, "pipelines.ingest", *lists, "--eval_percent", "25", "--test_percent", "0", tiny=False)
        s3.faults.append(Fault(only="(GET|PUT|HEAD) /bucket/out", number=5))
        backbone = ["--backbone", "tiny", "--weights", "random", "--precision", "float32"]
        job = ["--data_dir", "s3://bucket/data", "--job_dir", "s3://bucket/out"]
        said, _ = run(s3, "pipelines.preproc", *job, *backbone, "--embedding_cache", "s3://bucket/cache")
        next_command = said.rstrip().splitlines()[-1].removeprefix(f"next: {program_command('train')} ")
        assert sum(s3.met.values()) == 5
        run(s3, "trainer.task", *shlex.split(next_command), *HEAD, "--write_predictions")
        yield s3


def test_lists_sets_and_a_model_lie_in_the_bucket(road):
    names = set(road.names("bucket"))
    assert {"data/dict.txt", "data/train.csv", "data/eval.csv"} <= names
    for part in ("train", "eval"):
        report = json.loads(road.get("bucket", f"out/preproc/_{part}/report.json"))
        assert report["rows_read"] == report["embedded"] == len(road.get("bucket", f"data/{part}.csv").splitlines())
        # A clean job has no failures: an empty object.
        assert road.get("bucket", f"out/preproc/_{part}/failed.jsonl") == b""
    assert {"out/training/metrics.json", "out/training/report.html", "out/training/model/saved_model.pb"} <= names
    metrics = json.loads(road.get("bucket", "out/training/metrics.json"))
    assert metrics["eval"]["accuracy"] > 0.9
    # The trainer found the photos in the bucket.
    assert metrics["exports"]["savedmodel"]["samples_are"] == "photos"
    embedded = sum(len(road.get("bucket", f"data/{part}.csv").splitlines()) for part in ("train", "eval"))
    assert len([name for name in names if name.endswith(".embedding")]) == embedded
    left = [name for name in names if name.endswith((".lock", ".probe", ".partial")) or "/parts-" in name]
    assert left == []


def test_a_model_in_a_bucket_predicts_photos_in_a_bucket(road):
    out, _ = run(
        road, "trainer.predict", "--model_dir", "s3://bucket/out/training/model", "s3://bucket/photos/dark/1.png"
    )
    assert "dark" in out


def test_killed_a_job_in_a_bucket_goes_on(road):
    command = ["-m", "tests.support.slow_job", "0.2", "--weights", "random", "--rows_per_shard", "10"]
    command += ["--input_path", "s3://bucket/data/train.csv", "--input_dict", "s3://bucket/data/dict.txt"]
    command += ["--output_path", "s3://bucket/killed/train", "--batch_size", "4"]
    process = start_program(command, road.environment)
    while not [name for name in road.names("bucket") if name.startswith("killed") and name.endswith(".result.json")]:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert "killed/_train/.lock" in road.names("bucket")
    end_program(start_program(command, road.environment), expect=0)
    report = json.loads(road.get("bucket", "killed/_train/report.json"))
    assert report["embedded_by"]["earlier_run"] >= 10
    assert report["rows_read"] == report["embedded"]
    assert "killed/_train/.lock" not in road.names("bucket")


@pytest.mark.parametrize(
    ("module", "flags", "words"),
    [
        (
            "trainer.task",
            ["--train_data_paths", "s3://nowhere/a", "--eval_data_paths", "s3://nowhere/b"],
            "s3://nowhere",
        ),
        ("trainer.predict", ["--model_dir", "s3://nowhere/model", "a.png"], "s3://nowhere"),
    ],
)
def test_a_bucket_that_is_not_there_is_one_line(road, module, flags, words, tmp_path):
    output = ["--output_path", str(pathlib.Path(tmp_path) / "out")] if module == "trainer.task" else []
    _, said = run(road, module, *flags, *output, expect=2)
    assert words in said.splitlines()[-1]
    assert "testing-secret" not in said
