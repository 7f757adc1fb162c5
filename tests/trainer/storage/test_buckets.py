"""Records, photos and models in a bucket, and what is seen there at each moment."""

from __future__ import annotations

import gc
import io
import json
import os
import pathlib
import re
import sys
import tempfile

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")

from configs.errors import InputError
from preprocess.storage import router
from tests.support.faulty_gcs import FaultPlan
from tests.trainer.data.test_foreign_sets import EMBEDDINGS, example, write
from trainer import predict, task
from trainer.data.dataset import read_dataset
from trainer.data.memory import MemoryBudget
from trainer.data.photos import PhotoFinder, lists_of_sets
from trainer.data.record_sets import RecordSet, find_record_sets
from trainer.export.model_info import MODEL_INFO_PATH
from trainer.export.output_folder import OutputFolder, copy_model
from trainer.options import parse_options
from trainer.storage import files, working_folder


@pytest.fixture
def bucket_arguments(gcs, colour_sets, task_arguments, tmp_path):
    """Arguments of a training run that takes a second, all in the bucket."""
    put_folder(gcs, tmp_path)
    return [argument.replace(str(tmp_path), "gs://bucket") for argument in task_arguments]


def put_folder(gcs, folder: pathlib.Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            gcs.put("bucket", str(path.relative_to(folder)), path.read_bytes())


def copies_on_disk() -> list[str]:
    """What is kept of the bucket on this machine."""
    gc.collect()
    return [name for name in os.listdir(tempfile.gettempdir()) if name.startswith("hugs-")]


def names(gcs, prefix: str) -> list[str]:
    return sorted(name.removeprefix(prefix) for name in gcs.names("bucket") if name.startswith(prefix))


def note_uploads(gcs, *, close_at: str = "nothing") -> list[str]:
    """The names of the objects that are sent from now on; from one of a certain name on, nothing may be sent."""
    sent: list[str] = []

    def note(body: bytes) -> bytes:
        if found := re.search(rb'"name": "([^"]+)"', body):
            sent.append(found[1].decode())
            if close_at in sent[-1]:
                gcs._plan = FaultPlan(share=1, faults=["403"], only="^POST")  # The lock of `plan` is held.
        return body

    gcs.alter_upload = note
    return sent


@pytest.fixture
def sent_together(monkeypatch) -> list[set[str]]:
    """The base names of the files that are sent, or deleted, in no order among each other."""
    groups: list[set[str]] = []
    in_threads = working_folder._BucketFolder._in_threads

    def note(work, names):
        groups.append({os.path.basename(name) for name in names})
        in_threads(work, names)

    monkeypatch.setattr(working_folder._BucketFolder, "_in_threads", staticmethod(note))
    return groups


def complaint_about(path: str, **more) -> str:
    with pytest.raises(InputError) as caught:
        find_record_sets([path], flag="train_data_paths", **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_wrong_with_records_is_said_as_of_local_ones(gcs, colour_sets, tmp_path):
    put_folder(gcs, tmp_path)
    (found,) = find_record_sets(["gs://bucket/preproc/train"], flag="train_data_paths")
    (local,) = find_record_sets([f"{tmp_path}/preproc/train"], flag="train_data_paths")
    assert found.manifest == local.manifest
    streamed = read_dataset([found], flag="train_data_paths", budget=MemoryBudget(0))
    kept = read_dataset([local], flag="train_data_paths")
    assert not streamed.embeddings.in_memory
    np.testing.assert_array_equal(np.concatenate(list(streamed.embeddings.pieces())), kept.embeddings.array)
    assert streamed.digest() == kept.digest()

    assert "gs://bucket/preproc is a folder" in complaint_about("gs://bucket/preproc")
    assert "no such record set or file: gs://bucket/preproc/test" in complaint_about("gs://bucket/preproc/test")
    assert "nothing matches 'gs://bucket/preproc/test*'" in complaint_about("gs://bucket/preproc/test*")
    assert "there is no bucket gs://no-bucket" in complaint_about("gs://no-bucket/train*")
    shards = [f"gs://bucket/preproc/train-0000{number}-of-00002.tfrecord" for number in range(2)]
    assert (
        f"only part of the record set gs://bucket/preproc/train is named: {os.path.basename(shards[1])}"
        in complaint_about(shards[0])
    )
    damaged = bytearray(gcs.get("bucket", shards[1].removeprefix("gs://bucket/")))
    damaged[-20] ^= 1
    gcs.put("bucket", shards[1].removeprefix("gs://bucket/"), bytes(damaged))
    with pytest.raises(InputError, match=f"^{shards[1]}: its contents are not what its set's manifest says"):
        read_dataset([found], flag="train_data_paths")
    files.storage().delete_file(shards[1])
    assert "there is no such file" in complaint_about("gs://bucket/preproc/train")
    files.storage().delete_file("gs://bucket/preproc/_train/manifest.json")
    assert "is incomplete" in complaint_about("gs://bucket/preproc/train*")


def test_records_made_elsewhere(gcs, tmp_path):
    for shard in range(2):
        rows = [example("u", EMBEDDINGS[row], [row % 2]) for row in (2 * shard, 2 * shard + 1)]
        write(f"{tmp_path}/train-0000{shard}-of-00002.tfrecord.gz", rows)
    (tmp_path / "dict.txt").write_text("hugs\nnot-hugs\n")
    put_folder(gcs, tmp_path)
    options = {"flag": "train_data_paths", "input_dict": "gs://bucket/dict.txt"}
    data = read_dataset(find_record_sets(["gs://bucket/train*"], **options), flag="train_data_paths")
    np.testing.assert_array_equal(data.embeddings.array, EMBEDDINGS)
    assert not copies_on_disk()
    gcs.put("bucket", "train-00000-of-00002.tfrecord.gz", b"no records")
    assert "gs://bucket/train-00000-of-00002.tfrecord.gz cannot be read as a TFRecord" in complaint_about(
        "gs://bucket/train*", input_dict="gs://bucket/dict.txt"
    )
    assert "cannot read gs://bucket/none.txt" in complaint_about("gs://bucket/x", input_dict="gs://bucket/none.txt")


def test_photos_are_found_until_the_bucket_no_longer_answers(gcs, monkeypatch, capsys):
    encoded = io.BytesIO()
    Image.fromarray(np.full((20, 40, 3), 200, np.uint8)).save(encoded, "PNG")
    gcs.put("bucket", "data/photos/a.png", encoded.getvalue())
    gcs.put("bucket", "preproc/_train/report.json", json.dumps({"input": ["gs://bucket/data/train.csv"]}).encode())
    prefixes = ("gs://bucket/preproc/train", "gs://no-bucket/eval", "az://bucket/test")
    finder = PhotoFinder(lists_of_sets(RecordSet(prefix=prefix, manifest=None) for prefix in prefixes))
    found = ("gs://bucket/data/photos/a.png", encoded.getvalue())
    assert finder.read("photos/a.png") == finder.read(found[0]) == found
    assert finder.thumbnail("photos/a.png", side=8).picture.startswith("data:image/jpeg;base64,")
    assert [finder.read(uri) for uri in ("photos/b.png", "gs://no-bucket/a.png", "gs://", "az://b/a.png")] == [None] * 4
    gcs.plan = FaultPlan(share=1, faults=["503"])
    monkeypatch.setattr("preprocess.storage.retry.RetryPolicy.wait_sec", lambda self, tries: 1e9)
    assert finder.read(found[0]) is None
    assert "photos in buckets are left out of the report" in capsys.readouterr().err
    gcs.plan = FaultPlan()
    asked = len(gcs.exchanges)
    assert finder.read(found[0]) is None
    assert len(gcs.exchanges) == asked


def test_only_what_is_new_or_other_is_sent(gcs):
    folder = working_folder.working_folder("gs://bucket/out", flag="output_path")
    sent = note_uploads(gcs)
    for name, content in (("a", "1"), ("b", "1"), ("a", "22")):
        pathlib.Path(folder.local, name).write_text(content)
        folder.send()
    assert sent == ["out/a", "out/b", "out/a"]


def test_metrics_that_are_seen_are_those_of_the_model_beside_them(gcs, sent_together):
    folder = "out [1]*"  # A name that is a glob too.

    def publish(digest: str, **more: str) -> None:
        def write_model(folder: str) -> None:
            contents = {MODEL_INFO_PATH: digest, "saved_model.pb": digest, "variables/v.index": digest, **more}
            for name, text in contents.items():
                path = pathlib.Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)

        report = {"report.html": lambda path: pathlib.Path(path).write_text(digest)}
        OutputFolder(f"gs://bucket/{folder}").publish(write_model, {"head": digest}, report)

    publish("one", old="file")
    gcs.put("bucket", f"{folder}/checkpoints/keep", b"")
    gcs.exchanges.clear()
    sent = note_uploads(gcs)
    sent_together.clear()
    publish("two")
    graph, info = "saved_model.pb", os.path.basename(MODEL_INFO_PATH)
    assert sent_together == [{info}, {"v.index"}, {graph}, {"report.html"}, {"metrics.json"}, {"old"}]
    requests = [one.request.partition("?")[0] for one in gcs.exchanges if one.request.startswith("DELETE")]
    probe, *deleted = [request.rpartition("%2F")[2] for request in requests]
    files = ["metrics.json", "report.html", "predictions.csv", "shared_images.csv", "corrections.jsonl"]
    assert deleted == [*files, "saved_model.pb", "old"]
    order = [f"model/{MODEL_INFO_PATH}", "model/variables/v.index", "model/saved_model.pb"]
    order += ["report.html", "metrics.json"]
    assert sent == [f"{folder}/{name}" for name in (probe, *order)]
    assert names(gcs, f"{folder}/") == sorted(["checkpoints/keep", *order])
    assert json.loads(gcs.get("bucket", f"{folder}/metrics.json")) == {"head": "two"}

    # What was cut off shows neither metrics nor a model, and the next run replaces it.
    note_uploads(gcs, close_at="variables/v.index")
    with pytest.raises(InputError, match="^--output_path: cannot write to gs://bucket/out .*: No permission for gs://"):
        publish("three")
    gcs.plan, gcs.alter_upload = FaultPlan(), bytes
    assert names(gcs, f"{folder}/") == ["checkpoints/keep", f"model/{MODEL_INFO_PATH}", "model/variables/v.index"]
    publish("four")
    assert gcs.get("bucket", f"{folder}/model/saved_model.pb") == b"four"


def test_a_folder_that_is_no_model_of_ours_is_not_replaced(gcs):
    gcs.put("bucket", "out/model/thesis.txt", b"")
    with pytest.raises(InputError, match="gs://bucket/out/model is there already and is not a model"):
        OutputFolder("gs://bucket/out/")
    assert names(gcs, "out/") == ["model/thesis.txt"]


@pytest.mark.parametrize("name", ["../../evil.txt", "/etc/evil", "a/./b"])
def test_no_object_is_fetched_to_another_place_than_its_folder(tmp_path, monkeypatch, name):
    monkeypatch.setattr(files, "names_below", lambda folder: [name])  # The emulator has no such objects.
    with pytest.raises(InputError, match=f"^gs://bucket/evil: the object {name!r} in it has no name that a file"):
        files.fetch_folder("gs://bucket/evil", str(tmp_path))


def test_a_copy_of_a_model_leaves_what_lies_there(gcs, tmp_path):
    (tmp_path / "variables").mkdir()
    for name in ("saved_model.pb", "a.txt", "variables/v"):
        (tmp_path / name).write_text("new")
    for name in ("saved_model.pb", "theirs"):
        gcs.put("bucket", name, b"old")
    sent = note_uploads(gcs)
    copy_model(str(tmp_path), "gs://bucket/")
    assert names(gcs, "") == ["a.txt", "saved_model.pb", "theirs", "variables/v"]
    assert gcs.get("bucket", "saved_model.pb") == b"new"
    assert sent[-1] == "saved_model.pb"


def test_a_run_with_the_folders_of_vertex_ai_and_its_model_again(
    gcs, mean_colour_backbone, bucket_arguments, monkeypatch, capsys, sent_together
):
    # Vertex AI names them below the base directory of the job, which is also what it gives as the output path.
    folders = {"MODEL_DIR": "model", "CHECKPOINT_DIR": "checkpoints", "TENSORBOARD_LOG_DIR": "logs"}
    for name, folder in folders.items():
        monkeypatch.setenv(f"AIP_{name}", f"gs://bucket/training/{folder}/")
    task.main([*bucket_arguments, "--write_predictions"])
    metrics = json.loads(gcs.get("bucket", "training/metrics.json"))
    # TensorFlow finds a checkpoint by the file of that name, which must not be seen before the rest.
    assert {"checkpoint"} in sent_together
    assert not any("checkpoint" in names and len(names) > 1 for names in sent_together)
    assert metrics["eval"]["accuracy"] > 0.9
    assert "predict --model_dir gs://bucket/training/model " in capsys.readouterr().out
    assert metrics["options"]["output_path"] == "gs://bucket/training"
    for name in gcs.names("bucket"):
        if name.endswith((".json", ".html", ".csv", "checkpoint")):
            assert tempfile.tempdir.encode() not in gcs.get("bucket", name), name
    again = ["--write_predictions", "--model_dir", "gs://bucket/training/model", "--output_path", "gs://bucket/again"]
    task.main([*again, *bucket_arguments[2:4]])
    evaluation = json.loads(gcs.get("bucket", "again/evaluation.json"))
    assert evaluation["eval"]["confusion_matrix"] == metrics["eval"]["confusion_matrix"]
    assert names(gcs, "again/") == ["evaluation.html", "evaluation.json", "predictions.csv"]
    assert not copies_on_disk()
    logs = names(gcs, "training/logs/")
    assert [name.partition("/")[0] for name in logs if "tfevents" in name] == ["eval", "final_eval", "train"]

    # Of another head: one event file, one model, one checkpoint stay. (The network adds nothing to that.)
    monkeypatch.setattr("trainer.export.saved_model.load_backbone_of_records", lambda identity, weights: None)
    gcs.put("bucket", "corrections.csv", b"image_uri,action,label,by\ntrain/3.jpg,change,blue,Ann\n")
    corrections = ["--corrections", "gs://bucket/corrections.csv", "--no-compare_corrections"]
    task.main([*bucket_arguments, "--seed", "7", *corrections])
    assert json.loads(gcs.get("bucket", "training/corrections.jsonl"))["by"] == "Ann"
    assert len(names(gcs, "training/logs/")) == len(logs)
    assert "predictions.csv" not in names(gcs, "training/")
    other = json.loads(gcs.get("bucket", "training/metrics.json"))["model"]
    assert other["head_digest"] != metrics["model"]["head_digest"]
    assert len(names(gcs, "training/checkpoints/last/")) == 3
    with pytest.raises(InputError, match="Did you mean gs://bucket/training/model"):
        predict.main(["--model_dir", "gs://bucket/training", "gs://bucket/a.png"])


def test_a_bucket_that_closes_during_training_is_one_line(gcs, mean_colour_backbone, bucket_arguments):
    note_uploads(gcs, close_at="checkpoints/")
    with pytest.raises(InputError, match="cannot write to gs://bucket/training/checkpoints: No permission"):
        task.main(bucket_arguments)
    assert "metrics.json" not in names(gcs, "training/")


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--train_data_paths", "hdfs://node/train*", "opens local paths, gs:// and s3://, not hdfs://"),
        ("--output_path", "az://bucket/out", "opens local paths, gs:// and s3://, not az://"),
        ("--checkpoint_dir", "gs://", "must name a bucket"),
    ],
)
def test_paths_that_the_trainer_cannot_open(flag, value, words):
    given = {"--train_data_paths": "t", "--eval_data_paths": "e", "--output_path": "o", flag: value}
    with pytest.raises(InputError, match=f"^{flag}: .*{words}.*{re.escape(value)}"):
        parse_options([word for pair in given.items() for word in pair])


def test_files_by_their_uri_are_local_ones():
    options = parse_options(["--train_data_paths", "t", "--eval_data_paths", "e", "--output_path", "file:///tmp/o"])
    assert options.output_path == "/tmp/o"


def test_without_the_client_it_is_named_where_it_is_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.cloud.storage", None)
    router.require_client.cache_clear()
    storage = router.UriStorage()
    with pytest.raises(InputError, match=r"google-cloud-storage.*pip install --editable .*\[train\]"):
        storage.read("gs://bucket/x")
    with pytest.raises(InputError, match="only local paths, gs:// and s3:// can be opened here"):
        storage.read("az://bucket/x")
    assert storage.match(os.devnull + "x") == []
    assert working_folder.working_folder("/tmp/x/", flag="log_dir").local == "/tmp/x"
