"""The whole workflow in a bucket, from lists and photos to records and models: real programs, a service on loopback."""

import csv
import io
import json
import os
import pathlib
import signal
import time

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")

from configs.errors import InputError
from pipelines import ingest
from pipelines.splits.assign import name_share, split_of
from preprocess.images import class_folders
from tests.support.faulty_gcs import FaultPlan, FaultyGcs
from tests.support.programs import end_program, start_program

ROOT = pathlib.Path(__file__).parents[1]
BASES = {"dark": 40, "light": 200}
PHOTOS_EACH = 25
TRAIN = ["--train_data_paths", "gs://bucket/out/preproc/train*", "--eval_data_paths", "gs://bucket/out/preproc/eval"]
HEAD = ["--hidden_units", "64", "--max_steps", "200", "--eval_every_steps", "20"]


def png(base, seed):
    pixels = np.random.default_rng(seed).normal(base, 30, (40, 50, 3))
    encoded = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(encoded, "PNG")
    return encoded.getvalue()


def start(gcs, module, *flags, tiny=True):
    program = ["-m", "tests.support.tiny_program", module] if tiny else ["-m", module]
    environment = gcs.environment
    # What a killed program leaves on the disk goes with the service.
    environment["TMPDIR"] = os.path.dirname(environment["GOOGLE_APPLICATION_CREDENTIALS"])
    return start_program([*program, *flags], environment, tensorflow=module != "pipelines.ingest")


def run(*args, expect=0, **changes):
    return end_program(start(*args, **changes), expect=expect)


def train(gcs, output, *flags, **changes):
    return run(gcs, "trainer.task", *TRAIN, *HEAD, "--output_path", output, *flags, **changes)


def metrics_of(gcs, folder):
    return json.loads(gcs.get("bucket", f"{folder}/metrics.json"))


@pytest.fixture(scope="module")
def bucket():
    """A bucket in which class folders became lists, records and a model; one photo of the eval list is mislabelled."""
    with FaultyGcs(buckets=["bucket"]) as gcs:
        for label, base in BASES.items():
            for number in range(PHOTOS_EACH):
                gcs.put("bucket", f"photos/{label}/{number}.png", png(base, number))
        name = next(
            name
            for name in (f"wrong-{number}.png" for number in range(100))
            if split_of(name_share(name), eval_percent=25, test_percent=0) == "eval"
        )
        gcs.put("bucket", f"photos/dark/{name}", png(BASES["light"], 1000))
        gcs.put("bucket", "photos/light/notes", b"no image")
        lists = ["--image_dir", "gs://bucket/photos", "--output_dir", "gs://bucket/data"]
        _, said = run(gcs, "pipelines.ingest", *lists, "--eval_percent", "25", "--test_percent", "0", tiny=False)
        assert "1 file is not an image that is read here, left out: light/notes" in said
        for part in ("train", "eval"):
            paths = ["--input_path", f"gs://bucket/data/{part}.csv", "--input_dict", "gs://bucket/data/dict.txt"]
            backbone = ["--backbone", "tiny", "--weights", "random", "--precision", "float32"]
            run(gcs, "pipelines.embed", *paths, "--output_path", f"gs://bucket/out/preproc/{part}", *backbone)
        train(gcs, "gs://bucket/out/training", "--write_predictions")
        yield gcs


def test_the_row_accounting_agrees_from_photos_to_metrics(bucket):
    rows = {}
    for part in ("train", "eval"):
        text = bucket.get("bucket", f"data/{part}.csv").decode()
        rows[part] = dict(csv.reader(text.splitlines()))
        manifest = json.loads(bucket.get("bucket", f"out/preproc/_{part}/manifest.json"))
        report = json.loads(bucket.get("bucket", f"out/preproc/_{part}/report.json"))
        assert manifest["records"] == sum(shard["records"] for shard in manifest["shards"]) == len(rows[part])
        assert report["rows_read"] == report["embedded"] == len(rows[part])
        assert not report["failed"] and not report["skipped"]
    assert len(rows["train"] | rows["eval"]) == 2 * PHOTOS_EACH + 1
    metrics = metrics_of(bucket, "out/training")
    assert metrics["train"]["examples"] == len(rows["train"])
    assert metrics["eval"]["examples"] == len(rows["eval"])
    assert metrics["eval"]["accuracy"] == pytest.approx(1 - 1 / len(rows["eval"]))
    predictions = list(csv.DictReader(bucket.get("bucket", "out/training/predictions.csv").decode().splitlines()))
    assert {row["uri"]: row["label"] for row in predictions} == rows["eval"]
    (mistake,) = [row["uri"] for row in predictions if row["correct"] == "0"]
    assert "photos/dark/wrong-" in mistake
    report = bucket.get("bucket", "out/training/report.html").decode()
    assert mistake in report and "data:image/jpeg;base64," in report
    # The formats were compared on photos of the bucket.
    assert metrics["exports"]["savedmodel"]["samples_are"] == "photos"
    model = json.loads(bucket.get("bucket", "out/training/model/assets.extra/model.json"))
    assert model["head_digest"] == metrics["model"]["head_digest"]
    names = {name.removeprefix("out/training/") for name in bucket.names("bucket") if name.startswith("out/training/")}
    assert {name.partition("/")[0] for name in names} == {
        *("checkpoints", "logs", "metrics.json", "model", "predictions.csv", "report.html")
    }
    assert {name.split("/")[1] for name in names if name.startswith("logs/")} == {"train", "eval", "final_eval"}
    assert not [name for name in names if "partial" in name or "test" in name]


def test_what_a_bucket_refuses_to_the_lists_is_one_line(bucket, monkeypatch, capsys):
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    flags = ["--image_dir", "gs://bucket/photos", "--output_dir", "gs://bucket/lists", "--test_percent", "0"]
    # Whether it is an image is not known, so it may not be left out as none.
    bucket.plan = FaultPlan(share=1, faults=["403"], only="GET.*notes")
    with pytest.raises(InputError, match="^--image_dir: gs://bucket/photos/light/notes cannot be read .No permission"):
        ingest.main(flags)
    bucket.plan = FaultPlan(share=1, faults=["403"], only="DELETE.*test.csv")
    bucket.put("bucket", "lists/test.csv", b"old")
    with pytest.raises(InputError, match="^--output_dir: earlier lists cannot be removed from gs://bucket/lists"):
        ingest.main(flags)
    bucket.plan = FaultPlan()
    monkeypatch.setattr(class_folders, "_MAX_SNIFFED_BYTES", 3)  # A film, as it were.
    ingest.main(flags)
    assert "1 file is not an image" in capsys.readouterr().err
    assert "lists/test.csv" not in bucket.names("bucket")


def test_the_model_answers_from_the_bucket_as_from_a_disk(bucket, tmp_path):
    from trainer.export.classifier import Classifier, normalize_photo

    photos = [f"gs://bucket/photos/{label}/{number}.png" for label in BASES for number in (1, 2)]
    flags = ["--json", "--model_dir", "gs://bucket/out/training/model"]
    stdout, stderr = run(bucket, "trainer.predict", *flags, *photos, "gs://bucket/gone.png", expect=2, tiny=False)
    assert "error: No such file: gs://bucket/gone.png (not_found)" in stderr
    answers = [json.loads(line) for line in stdout.splitlines()]
    assert [answer["image"] for answer in answers] == photos
    assert [answer["predictions"][0]["label"] for answer in answers] == ["dark", "dark", "light", "light"]
    prefix = "out/training/model/"
    for name in bucket.names("bucket"):
        if name.startswith(prefix):
            path = tmp_path / name.removeprefix(prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bucket.get("bucket", name))
    contents = [bucket.get("bucket", uri.removeprefix("gs://bucket/")) for uri in photos]
    classifier = Classifier(str(tmp_path))
    size = classifier.info.image.size
    on_disk = classifier.predict([normalize_photo(data, size=size) for data in contents])
    for answer, prediction in zip(answers, on_disk, strict=True):
        scores = {row["id"]: row["score"] for row in answer["predictions"]}
        assert [scores[i] for i in range(2)] == pytest.approx(prediction.scores.tolist(), abs=1e-6)


def test_killed_a_trainer_goes_on_in_a_bucket_that_fails_a_tenth_of_the_time(bucket):
    process = start(bucket, "trainer.task", *TRAIN, *HEAD, "--output_path", "gs://bucket/out/killed")

    def wait_for(arrived):
        while not arrived():
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)

    wait_for(lambda: any("killed%2F.write-test" in one.request for one in bucket.exchanges))
    # Waiting for the bucket makes a save due, and long enough to be met.
    bucket.plan = FaultPlan(latency_sec=0.3)
    wait_for(lambda: "out/killed/checkpoints/last/checkpoint" in bucket.names("bucket"))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert "out/killed/metrics.json" not in bucket.names("bucket")
    first = len(bucket.exchanges)
    bucket.plan = FaultPlan(share=0.1, stall_sec=0.2, seed=1)
    _, stderr = train(bucket, "gs://bucket/out/killed")
    bucket.plan = FaultPlan()
    assert "going on from the checkpoint of step" in stderr
    assert "InitializeLog" not in stderr and "oneDNN" not in stderr  # TensorFlow's notes hide ours.
    assert len([one for one in bucket.exchanges[first:] if one.fault]) >= 3
    undisturbed, killed = metrics_of(bucket, "out/training"), metrics_of(bucket, "out/killed")
    assert killed["model"]["head_digest"] == undisturbed["model"]["head_digest"]
    assert killed["history"] == undisturbed["history"]
    for name in ("best", "last"):  # Nothing half-written is left.
        kept = [path for path in bucket.names("bucket") if path.startswith(f"out/killed/checkpoints/{name}/")]
        assert len(kept) == 3, kept


def test_a_bucket_that_is_missing_or_may_not_be_written_to_is_one_line(bucket):
    _, stderr = train(bucket, "gs://no-such-bucket/x", expect=2, tiny=False)
    assert stderr == (
        "error: --output_path: cannot write to gs://no-such-bucket/x: there is no bucket gs://no-such-bucket. "
        "Make it, or correct the name\n"
    )
    before = bucket.names("bucket")
    bucket.plan = FaultPlan(share=1, faults=["403"], only="^(POST|PUT)")
    _, stderr = train(bucket, "gs://bucket/closed", expect=2, tiny=False)
    bucket.plan = FaultPlan()
    assert stderr.startswith("error: --output_path: cannot write to gs://bucket/closed: No permission for gs://bucket/")
    assert stderr.count("\n") == 1
    assert bucket.names("bucket") == before
