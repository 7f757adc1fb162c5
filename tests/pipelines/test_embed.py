"""The program as a user runs it: real images, the real (randomly drawn) Inception v3, real files."""

import importlib.util
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from configs.errors import InputError
from pipelines import embed
from preprocess.images.resample import resize_state
from preprocess.records.example import feature_spec
from preprocess.records.record_set import Manifest


def photo(path, seed=0, size=(320, 240), image_format="JPEG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, (8, 8, 3)).astype(np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(path, image_format)
    return path


def run(folder, *flags, input_path=None):
    return embed.main(
        [
            "--input_path",
            str(input_path or folder / "train.csv"),
            "--input_dict",
            str(folder / "dict.txt"),
            "--output_path",
            str(folder / "out" / "train"),
            "--weights",
            "random",
            *flags,
        ]
    )


def report_of(folder):
    return json.loads((folder / "out/_train/report.json").read_text())


def ledger(folder, name):
    return [json.loads(line) for line in (folder / "out/_train" / name).read_text().splitlines()]


def records(folder, compression="", size=2048):
    manifest = Manifest.from_bytes((folder / "out/_train/manifest.json").read_bytes(), where="m")
    paths = [str(folder / "out" / shard.name) for shard in manifest.shards]
    for raw in tf.data.TFRecordDataset(paths, compression):
        yield tf.io.parse_single_example(raw, feature_spec(size))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "dict.txt").write_text("daisy\nrose\n")
    for number in range(3):
        photo(tmp_path / f"photos/{number}.jpg", seed=number)
    (tmp_path / "train.csv").write_text("".join(f"photos/{n}.jpg,{'daisy' if n else 'rose'}\n" for n in range(3)))
    return tmp_path


def test_the_row_accounting_holds_on_a_messy_list(tmp_path, capsys):
    (tmp_path / "dict.txt").write_text("daisy\n\nrose\n")
    photo(tmp_path / "photos/good.jpg")
    photo(tmp_path / "photos/été 雏菊.jpg", seed=1)
    photo(tmp_path / "photos/really_a_png.jpg", seed=2, image_format="PNG")
    (tmp_path / "photos/folder.jpg").mkdir()
    (tmp_path / "photos/empty.jpg").touch()
    whole = photo(tmp_path / "photos/truncated.jpg", seed=3, size=(900, 900)).read_bytes()
    (tmp_path / "photos/truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "photos/text.jpg").write_text("this is no image")
    lines = [
        "photos/good.jpg,daisy",
        "photos/missing.jpg,daisy",
        "photos/folder.jpg,rose",
        "photos/empty.jpg,rose",
        "photos/truncated.jpg,rose",
        "photos/text.jpg,rose",
        "photos/really_a_png.jpg,rose,daisy",
        "photos/good.jpg,dasy",
        "",
        ",rose",
        "photos/été 雏菊.jpg",
    ]
    (tmp_path / "train.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\r\n")
    assert run(tmp_path, "--unknown_labels", "skip", "--compression", "gzip", "--max_failed_percent", "100") == 0
    report = report_of(tmp_path)
    assert report["rows_read"] == len(lines)
    assert report["embedded"] == 3
    assert report["failed"] == {
        "empty_file": 1,
        "is_a_directory": 1,
        "no_uri": 1,
        "not_an_image": 1,
        "not_found": 1,
        "truncated": 1,
    }
    assert report["skipped"] == {"blank_line": 1, "unknown_label": 1}
    assert report["rows_read"] == report["embedded"] + sum(report["failed"].values()) + sum(report["skipped"].values())
    assert report["records_per_label"] == {"daisy": 2, "rose": 1}
    assert report["records_without_label"] == 1
    assert report["backbone"]["random_weights"] is True
    assert ("openvino" in report["versions"]) == (importlib.util.find_spec("openvino") is not None)
    assert report["versions"]["resize"] == resize_state()
    failed = ledger(tmp_path, "failed.jsonl")
    assert [(entry["line"], entry["stage"], entry["reason"]) for entry in failed] == [
        (2, "read", "not_found"),
        (3, "read", "is_a_directory"),
        (4, "decode", "empty_file"),
        (5, "decode", "truncated"),
        (6, "decode", "not_an_image"),
        (10, "parse", "no_uri"),
    ]
    assert failed[0]["uri"] == "photos/missing.jpg"
    assert failed[0]["labels"] == ["daisy"]
    assert failed[0]["list"] == str(tmp_path / "train.csv")
    assert [entry["rule"] for entry in ledger(tmp_path, "skipped.jsonl")] == ["unknown_label", "blank_line"]
    found = list(records(tmp_path, "GZIP"))
    assert [record["image_uri"].numpy().decode() for record in found] == [
        "photos/good.jpg",
        "photos/really_a_png.jpg",
        "photos/été 雏菊.jpg",
    ]
    assert [record["label"].numpy().tolist() for record in found] == [[0], [1, 0], []]
    assert all(np.abs(record["embedding"]).sum() > 0 for record in found)
    printed = capsys.readouterr()
    assert "11 rows read" in printed.out
    assert "RANDOM weights" in printed.out
    assert "train.csv:2: No such file" in printed.out


def test_the_same_list_gives_the_same_bytes(folder):
    shards = []
    for _ in range(2):
        run(folder, "--overwrite", "--rows_per_shard", "2")
        shards.append([path.read_bytes() for path in sorted((folder / "out").glob("train-*"))])
    assert len(shards[0]) == 2
    assert shards[0] == shards[1]


def test_images_that_occur_again_are_copied_and_have_the_bytes_of_images_that_are_computed(folder, capsys):
    # Three images, each under three names; a copy of a list has each of them once.
    for number in range(3):
        for name in ("b", "c"):
            shutil.copy(folder / f"photos/{number}.jpg", folder / f"photos/{number}{name}.jpg")
    again = "".join(f"photos/{number}{name}.jpg,rose\n" for name in ("", "b", "c") for number in (2, 0, 1))
    (folder / "again.csv").write_text(again)
    run(folder)
    computed = {r["image_uri"].numpy()[7:8]: r["embedding"].numpy().tobytes() for r in records(folder)}
    run(folder, "--overwrite", "--rows_per_shard", "4", input_path=folder / "again.csv")
    report = report_of(folder)
    assert report["embedded_by"] == {"copied": 6, "computed": 3}
    assert report["rows_read"] == report["embedded"] == 9
    assert "of equal images   6\n" in capsys.readouterr().out
    found = [(r["image_uri"].numpy()[7:8], r["embedding"].numpy().tobytes()) for r in records(folder)]
    assert found == [(name, computed[name]) for _ in range(3) for name in (b"2", b"0", b"1")]


def test_a_glob_of_lists_is_one_set(folder):
    photo(folder / "more/photos/9.jpg", seed=9)
    (folder / "more/b.csv").write_text("photos/9.jpg,rose\n")
    (folder / "more/a.csv").write_text("../photos/1.jpg,daisy\n")
    assert run(folder, input_path=folder / "more/*.csv") == 0
    assert [r["image_uri"].numpy() for r in records(folder)] == [b"../photos/1.jpg", b"photos/9.jpg"]


def test_a_finished_set_is_not_overwritten_unasked(folder):
    run(folder)
    before = (folder / "out/_train/manifest.json").read_bytes()
    with pytest.raises(
        InputError, match="a finished set of records lies at .* with other compression. Pass --overwrite"
    ):
        run(folder, "--compression", "gzip")
    assert (folder / "out/_train/manifest.json").read_bytes() == before


def test_foreign_shards_are_not_touched_unasked(folder):
    (folder / "out").mkdir()
    (folder / "out/train-00000-of-00001.tfrecord").write_text("somebody's")
    with pytest.raises(InputError, match="shards that this pipeline did not finish"):
        run(folder)
    assert (folder / "out/train-00000-of-00001.tfrecord").read_text() == "somebody's"


def test_nothing_embedded_is_an_error_with_a_report(folder, capsys):
    (folder / "train.csv").write_text("a.jpg,rose\nb.jpg,rose\n")
    with pytest.raises(InputError, match="None of 2 rows could be embedded"):
        run(folder)
    (report,) = (folder / "out/_train").glob("parts-*/report.json")
    assert json.loads(report.read_text())["failed"] == {"not_found": 2}
    assert not (folder / "out/_train/manifest.json").exists()
    assert "not_found" in capsys.readouterr().out


def test_a_recipe_gives_defaults_and_flags_win(folder):
    (folder / "r.yaml").write_text("preprocess: {compression: gzip, seed: 5, rows_per_shard: 1}\n")
    run(folder, "--recipe", str(folder / "r.yaml"), "--seed", "0")
    assert report_of(folder)["output"]["compression"] == "gzip"
    assert report_of(folder)["output"]["shards"] == 3
    assert report_of(folder)["backbone"]["seed"] == 0


WRONG = {
    "no list": ({"input_path": "none.csv"}, [], "input_path: no such file: '{folder}/none.csv'"),
    "a directory": ({"input_path": "photos"}, [], "input_path: it is a directory"),
    "an empty list": ({"list": ""}, [], "0 rows, none of them with an image"),
    "a list of blanks": ({"list": "\n\n"}, [], "2 rows, none of them with an image"),
    "an unknown label": ({"list": "photos/1.jpg,dasy\n"}, [], "train.csv:1: Label 'dasy' {is_unknown}"),
    "a stray quote": ({"list": 'photos/1.jpg,rose\n"x,rose\n'}, [], "train.csv:2: not valid CSV"),
    "no dictionary": ({"dict": None}, [], "input_dict: no such file"),
    "a dictionary without an end": ({}, ["--input_dict", "/dev/zero"], "input_dict: /dev/zero has more than"),
    "an empty dictionary": ({"dict": "\n"}, [], "dict.txt: no label in it"),
    "a label twice": ({"dict": "rose\nrose\n"}, [], "dict.txt:2: label 'rose' stands on line 1"),
    "an unknown backbone": ({}, ["--backbone", "inception_v9"], "Did you mean 'inception_v3'?"),
    "no weights file": ({}, ["--weights", "none.h5"], "weights: no such file: 'none.h5'"),
    "a bad seed": ({}, ["--seed", "-1"], "--seed must be a whole number of at least 0. Received: -1"),
    "a misspelt flag": ({}, ["--weigths", "random"], "unknown flag '--weigths'. Did you mean '--weights'?"),
    "a bad choice": ({}, ["--compression", "zip"], "argument --compression: invalid choice: 'zip'"),
    "no batch": ({}, ["--batch_size", "0"], "--batch_size must be a whole number of at least 1. Received: 0"),
    "no set name": ({}, ["--output_path", "{folder}/out/"], "output_path: must end in the name of the set"),
    "a glob as output": ({}, ["--output_path", "{folder}/out/train*"], "output_path: must not hold any of"),
    "a file as folder": ({}, ["--output_path", "{folder}/dict.txt/train"], "output_path: cannot write to"),
    "an unknown runner": ({}, ["--runner", "FastRunner"], "runner: Beam has no runner 'FastRunner'"),
    "a bad Beam value": ({}, ["--num_workers", "many"], "argument --num_workers"),
    "an unknown recipe": ({}, ["--recipe", "hgus"], "Did you mean 'hugs'?"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_line_and_leaves_nothing(folder, case):
    changes, flags, words = WRONG[case]
    if "list" in changes:
        (folder / "train.csv").write_text(changes["list"])
    if "dict" in changes:
        (folder / "dict.txt").unlink()
        if changes["dict"] is not None:
            (folder / "dict.txt").write_text(changes["dict"])
    input_path = folder / changes.get("input_path", "train.csv")
    with pytest.raises(InputError) as error:
        run(folder, *(flag.format(folder=folder) for flag in flags), input_path=input_path)
    expected = words.format(folder=folder, is_unknown="is not in the dictionary. Did you mean 'daisy'?")
    assert expected in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(folder.glob("out/*"))


def test_an_unreachable_bucket_is_said_at_once(folder, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match=r"gs://bucket/train.csv: cannot reach http://127.0.0.1:9"):
        run(folder, input_path="gs://bucket/train.csv")


def test_the_program_ends_with_code_2_and_no_traceback(folder):
    command = [sys.executable, "-m", "pipelines.embed", "--input_path", str(folder / "none.csv")]
    command += ["--input_dict", str(folder / "dict.txt"), "--output_path", str(folder / "out/train")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: input_path: no such file")
    assert done.stderr.count("\n") == 1
