"""Bottlenecks of retrain.py become record sets, with every file accounted for, and a head is trained on them."""

import hashlib
import json

import numpy as np
import pytest

from configs.errors import InputError
from pipelines import import_bottlenecks
from preprocess.jobs.finished_set import find_damage
from preprocess.lists.bottlenecks import retrain_split
from preprocess.records.example import decode_example
from preprocess.records.record_set import Manifest
from preprocess.records.tfrecord import split_frames
from preprocess.storage.base import LocalStorage

LABELS = ("blue", "green", "red")
SIZE = 8
NETWORK = "mobilenet_9.9_64"


@pytest.fixture(scope="module")
def bottlenecks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bottlenecks")
    rng = np.random.default_rng(0)
    for label_id, label in enumerate(LABELS):
        (folder / label).mkdir()
        for number in range(30):
            embedding = rng.normal(0, 0.3, SIZE).astype(np.float32)
            embedding[label_id] += 2
            text = ",".join(str(value) for value in embedding)
            (folder / label / f"{label}{number}.jpg_{NETWORK}.txt").write_text(text)
    (folder / "red" / f"nan.jpg_{NETWORK}.txt").write_text("1,nan")
    (folder / "red" / f"short.jpg_{NETWORK}.txt").write_text("1,2")
    (folder / "red" / f"folder.jpg_{NETWORK}.txt").mkdir()
    (folder / "red" / f"gone.jpg_{NETWORK}.txt").symlink_to("nowhere")
    (folder / "red" / "Thumbs.db").write_text("x")
    (folder / "dict.txt").write_text("x")
    (folder / "red" / "a.jpg_inception_v3.txt").write_text("1,2")
    return folder


def run(folder, output, *flags):
    arguments = ["--bottleneck_dir", str(folder), "--output_dir", str(output), "--architecture", NETWORK, *flags]
    return import_bottlenecks.main(arguments)


def report_of(output, name):
    return json.loads((output / f"_{name}" / "report.json").read_text())


def records_of(output, name):
    """Label folder and image -> decoded record."""
    data = b"".join(path.read_bytes() for path in sorted(output.glob(f"{name}-*")))
    return [
        decode_example(bytes(piece[slice(*span)]))
        for piece, spans in split_frames([data], check=True)
        for span in spans
    ]


@pytest.fixture(scope="module")
def imported(bottlenecks, tmp_path_factory):
    output = tmp_path_factory.mktemp("imported") / "preproc"
    assert run(bottlenecks, output) == 0
    return output


def test_every_file_is_a_record_a_failure_or_a_skip(bottlenecks, imported):
    reports = [report_of(imported, name) for name in ("train", "eval", "test")]
    files = [path for path in bottlenecks.rglob("*") if not path.is_dir()]
    assert sum(report["rows_read"] for report in reports) == len(files)
    assert sum(report["embedded"] for report in reports) == 90
    failed, skipped = {}, {}
    for report in reports:
        assert report["status"] == "complete"
        failed |= report["failed"]
        skipped |= report["skipped"]
    assert failed == {"not_finite": 1, "wrong_size": 1, "not_found": 1}
    assert skipped == {"not_a_bottleneck": 1, "not_in_a_label_folder": 1, "other_architecture": 1}


def test_records_hold_the_numbers_of_the_files(bottlenecks, imported):
    found = [record for name in ("train", "eval", "test") for record in records_of(imported, name)]
    assert len({record.image_uri for record in found}) == 90
    for record in found:
        text = (bottlenecks / f"{record.image_uri}_{NETWORK}.txt").read_text()
        assert record.embedding.tobytes() == np.array(text.split(","), np.float32).tobytes()
        assert record.image_sha256 == b""


def test_sets_are_whole_and_unverified(imported):
    for name in ("train", "eval", "test"):
        assert find_damage(str(imported / name), LocalStorage(), digests=True) == []
        manifest = Manifest.from_bytes((imported / f"_{name}" / "manifest.json").read_bytes(), where=name)
        assert manifest.labels == LABELS
        assert (manifest.backbone.architecture, manifest.backbone.embedding_size) == (NETWORK, SIZE)
        assert not manifest.backbone.is_known


def test_the_same_command_again_has_nothing_to_do_and_another_one_is_refused(bottlenecks, imported, tmp_path, capsys):
    assert run(bottlenecks, imported) == 0
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(InputError, match="made with other bottlenecks"):
        run(bottlenecks, imported, "--eval_percent", "40")
    assert run(bottlenecks, tmp_path / "b") == 0
    for path in imported.glob("*.tfrecord"):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert run(bottlenecks, tmp_path / "b", "--eval_percent", "40", "--overwrite") == 0
    assert report_of(tmp_path / "b", "eval")["embedded"] > report_of(imported, "eval")["embedded"]


def test_a_stopped_import_goes_on(bottlenecks, imported, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.bottlenecks.sets.finish_record_set", stop)
        with pytest.raises(KeyboardInterrupt):
            run(bottlenecks, output)
    assert run(bottlenecks, output) == 0
    for path in imported.glob("*.tfrecord"):
        assert path.read_bytes() == (output / path.name).read_bytes()
    assert not [*output.rglob("parts-*")]


def test_photos_give_uris_and_digests(bottlenecks, tmp_path):
    photos = tmp_path / "photos"
    for label in LABELS:
        (photos / label).mkdir(parents=True)
    for number in range(5):
        (photos / "red" / f"red{number}.jpg").write_bytes(b"photo %d" % number)
    assert run(bottlenecks, tmp_path / "out", "--image_dir", str(photos), "--compression", "none") == 0
    digests = {
        record.image_uri: record.image_sha256
        for name in ("train", "eval", "test")
        for record in records_of(tmp_path / "out", name)
    }
    assert digests[str(photos / "red" / "red3.jpg")] == hashlib.sha256(b"photo 3").digest()
    assert digests[str(photos / "blue" / "blue3.jpg")] == b""
    assert sum(map(bool, digests.values())) == 5


def test_the_split_of_retrain(bottlenecks, tmp_path):
    flags = ("--split_as_retrain", "/old/photos", "--eval_percent", "20", "--test_percent", "20")
    assert run(bottlenecks, tmp_path, *flags) == 0
    for name in ("train", "eval", "test"):
        for record in records_of(tmp_path, name):
            path = f"/old/photos/{record.image_uri}"
            assert retrain_split(path, eval_percent=20, test_percent=20) == name


def test_equal_numbers_are_told(bottlenecks, tmp_path, capsys):
    folder = tmp_path / "b"
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        for number in range(20):
            text = f"1,{number},3"
            (folder / label / f"{label}{number}.jpg_{NETWORK}.txt").write_text(text)
    assert run(folder, tmp_path / "out", "--eval_percent", "0", "--test_percent", "0") == 0
    printed = capsys.readouterr()
    assert "images that are there more than once" in printed.out
    assert "no evaluation set" in printed.err
    assert report_of(tmp_path / "out", "train")["duplicates"]["images"] == 20


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--architecture", "mobilenet_9.9_65"], "Did you mean 'mobilenet_9.9_64'"),
        (["--eval_percent", "60", "--test_percent", "40"], "add up to less than 100"),
        (["--output_dir", "/dev/null/x"], "cannot"),
        (["--output_dir", "https://x.example/y"], "x.example"),
        (["--bottleneck_dir", "gs://b/c"], "on this machine"),
        (["--bottleneck_dir", "/nowhere"], "there is no folder"),
    ],
)
def test_wrong_input_is_one_line(bottlenecks, tmp_path, flags, message):
    with pytest.raises(InputError, match=message) as caught:
        run(bottlenecks, tmp_path, *flags)
    assert len(str(caught.value).splitlines()) == 1


def test_several_networks_and_no_bottlenecks(bottlenecks, tmp_path):
    with pytest.raises(InputError, match=r"2 networks.*mobilenet_9.9_64 \(93\), inception_v3 \(1\)"):
        import_bottlenecks.main(["--bottleneck_dir", str(bottlenecks), "--output_dir", str(tmp_path)])
    (tmp_path / "photos" / "red").mkdir(parents=True)
    (tmp_path / "photos" / "red" / "a.jpg").touch()
    with pytest.raises(InputError, match="holds no file LABEL/IMAGE_ARCHITECTURE.txt, only 1 others"):
        run(tmp_path / "photos", tmp_path)
    (tmp_path / "photos" / "red" / f"a.jpg_{NETWORK}.txt").write_text("x")
    with pytest.raises(InputError, match=r"can be read: red/a.jpg_mobilenet_9.9_64.txt: number 1 is 'x'"):
        run(tmp_path / "photos", tmp_path)


def test_a_head_is_trained_on_them(imported, tmp_path, capsys):
    from trainer import task

    output = tmp_path / "training"
    arguments = [
        *("--train_data_paths", str(imported / "train*"), "--eval_data_paths", str(imported / "eval*")),
        *("--output_path", str(output), "--max_steps", "60", "--eval_every_steps", "30", "--hidden_units", "0"),
    ]
    assert task.main(arguments) in (0, None)
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["backbone_verified"] is False
    printed = capsys.readouterr()
    assert "UNVERIFIED" in printed.out + printed.err
    info = json.loads((output / "model" / "assets.extra" / "model.json").read_text())
    assert (info["takes_images"], info["backbone"]["architecture"]) == (False, NETWORK)
