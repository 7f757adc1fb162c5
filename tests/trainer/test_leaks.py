"""Images that are in a held-out set and in the training set: what a run says about them, and where."""

from __future__ import annotations

import csv
import hashlib
import json

import numpy as np
import pytest

from configs.errors import InputError
from preprocess.records.record_set import REPORT_NAME, sidecar_path
from trainer import task


def embeddings(count, seed):
    rng = np.random.default_rng(seed)
    found = rng.normal(-0.5, 0.2, (count, 3)).astype(np.float32)
    found[np.arange(count), np.arange(count) % 3] += 0.9
    return found


def ids(count):
    return [[row % 3] for row in range(count)]


@pytest.fixture
def folder(tmp_path, write_set):
    """Writes the three sets; an evaluation photo is a training photo if both stand for one content."""

    def write(*, train=range(60), evaluation, test=None, **more):
        sets = {"train": train, "eval": evaluation} | ({"test": test} if test is not None else {})
        for seed, (name, contents) in enumerate(sets.items()):
            count = len(contents)
            write_set(
                str(tmp_path / "preproc" / name),
                embeddings(count, seed),
                ids(count),
                contents=list(contents),
                **more,
            )
        return tmp_path

    return write


def arguments(folder, *more):
    held_out = [name for name in ("eval", "test") if (folder / "preproc" / f"_{name}").exists()]
    return [
        *("--train_data_paths", f"{folder}/preproc/train*", "--output_path", str(folder / "training")),
        *(word for name in held_out for word in (f"--{name}_data_paths", f"{folder}/preproc/{name}*")),
        *("--max_steps", "20", "--eval_every_steps", "10", "--hidden_units", "0", "--batch_size", "30", *more),
    ]


def metrics_of(folder):
    return json.loads((folder / "training" / "metrics.json").read_text())


def pairs_of(folder):
    with open(folder / "training" / "shared_images.csv", newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_an_evaluation_set_of_training_photos_under_other_names(without_network, folder, capsys):
    place = folder(evaluation=range(40))
    task.main(arguments(place))
    printed = capsys.readouterr()
    first, *_ = (line for line in printed.err.splitlines() if line.startswith("warning"))
    assert first.startswith("warning: 40 of the 40 evaluation images are also training images: the accuracy looks too")
    assert "without the 40 images that other sets have too: none is left" in printed.out
    metrics = metrics_of(place)
    assert metrics["shared_images"] == {"eval": {"train": {"shared": 40, "unchecked": 0, "labels_differ": 0}}}
    assert metrics["eval"]["without_shared_images"]["examples"] == 0
    assert metrics["eval"]["without_shared_images"]["accuracy"] is None
    pairs = pairs_of(place)
    assert len(pairs) == 40
    assert pairs[1] == {
        "set": "eval",
        "uri": "eval/1.jpg",
        "label": "green",
        "also_in": "train",
        "other_uri": "train/1.jpg",
        "other_label": "green",
        "compared_by": "content",
        "location": "",  # These sets do not name their lists.
        "other_location": "",
    }
    page = (place / "training" / "report.html").read_text()
    assert "40 of the 40 evaluation images are also training images" in page


@pytest.mark.parametrize("label_mode", ["single", "multi"])
def test_the_accuracy_without_them_stands_beside_the_accuracy(without_network, folder, label_mode, capsys):
    place = folder(evaluation=[*range(10), *range(1000, 1020)], test=[50, 1003, 2000])
    task.main(arguments(place, "--label_mode", label_mode, "--write_predictions"))
    metrics = metrics_of(place)
    rest = metrics["eval"]["without_shared_images"]
    with open(place / "training" / "predictions.csv", newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["set"] == "eval"]
    assert (rest["left_out"], rest["examples"], metrics["eval"]["examples"]) == (10, 20, 30)
    assert rest["accuracy"] == np.mean([int(row["correct"]) for row in rows[10:]])
    assert rest["answers"]["coverage"] == np.mean([int(row["confident"]) for row in rows[10:]])
    # A test photo that chose the checkpoint is not new either.
    assert metrics["shared_images"]["test"] == {
        "train": {"shared": 1, "unchecked": 0, "labels_differ": 1},
        "eval": {"shared": 1, "unchecked": 0, "labels_differ": 0},
    }
    assert metrics["test"]["without_shared_images"]["examples"] == 1
    assert [(pair["set"], pair["also_in"], pair["other_uri"]) for pair in pairs_of(place)[10:]] == [
        ("test", "train", "train/50.jpg"),
        ("test", "eval", "eval/13.jpg"),
    ]
    assert "without the 10 images that other sets have too: accuracy" in capsys.readouterr().out


def test_equal_relative_names_in_two_folders_are_no_leak_and_an_old_file_goes(without_network, folder, capsys):
    names = [f"photos/{row}.jpg" for row in range(60)]
    place = folder(evaluation=range(30), uris=names)
    task.main(arguments(place))
    assert (place / "training" / "shared_images.csv").exists()
    folder(evaluation=range(100, 130), uris=names)
    capsys.readouterr()
    task.main(arguments(place))
    assert "also training" not in capsys.readouterr().err
    assert "without_shared_images" not in metrics_of(place)["eval"]
    assert not (place / "training" / "shared_images.csv").exists()


def test_no_number_of_other_warnings_hides_a_leak(without_network, folder, monkeypatch, capsys):
    monkeypatch.setattr("trainer.data.dataset.data_warnings", lambda *_, held_out_name: [f"w{i}" for i in range(99)])
    task.main(arguments(folder(evaluation=range(30))))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert "also training images" in lines[0]
    assert "more in the metrics" in lines[-1]


def test_records_without_digests_say_that_they_cannot_be_compared(without_network, folder, capsys):
    place = folder(train=[None] * 60, evaluation=[None] * 30)
    task.main(arguments(place))
    assert "30 of the 30 evaluation images cannot be compared with the training images" in capsys.readouterr().err
    assert metrics_of(place)["shared_images"]["eval"]["train"] == {"shared": 0, "unchecked": 30, "labels_differ": 0}


def test_seeds_and_learning_curve_leave_them_out(without_network, folder):
    place = folder(evaluation=[*range(10), *range(1000, 1020)])
    task.main(arguments(place, "--seeds", "2", "--learning_curve"))
    metrics = metrics_of(place)
    assert metrics["seeds"]["left_out"] == {"eval": 10}
    assert metrics["learning_curve"]["left_out"] == 10
    assert sum(row["support"] for row in metrics["learning_curve"]["classes"]) == 20


def test_what_embedding_found_is_passed_on(without_network, folder, capsys):
    place = folder(evaluation=range(1000, 1030))
    prefixes = {name: str(place / "preproc" / name) for name in ("train", "eval")}
    reports = {
        "train": {
            "duplicates": {"images": 3, "extra_records": 4, "images_with_different_labels": 2, "file": "d.jsonl"},
            "shared_with": [],
        },
        "eval": {
            "duplicates": {"images": 0, "extra_records": 0, "images_with_different_labels": 0, "file": None},
            "shared_with": [
                {"prefix": prefixes["train"], "records": 7, "file": "s.jsonl"},  # The trainer compares them itself.
                {"prefix": "elsewhere/train", "records": 5, "file": "s.jsonl"},
            ],
        },
    }
    for name, report in reports.items():
        with open(sidecar_path(prefixes[name], REPORT_NAME), "w", encoding="utf-8") as stream:
            json.dump(report, stream)
    task.main(arguments(place))
    errors = capsys.readouterr().err
    page = (place / "training" / "report.html").read_text()
    metrics = metrics_of(place)
    for words in (
        f"2 images of {prefixes['train']} are there more than once, under different labels: check the labels in d.json",
        f"embedding found 5 images of {prefixes['eval']} in elsewhere/train too",
    ):
        assert words in errors
        assert words in page
        assert any(words in warning for warning in metrics["warnings"])
    assert "7 images" not in errors
    assert metrics["embedding_found"]["train"][0]["repeated_records"] == 4

    evaluate = ["--write_predictions", "--output_path", str(place / "again"), "--eval_data_paths", prefixes["eval"]]
    task.main([*evaluate, "--model_dir", str(place / "training" / "model")])
    again = json.loads((place / "again" / "evaluation.json").read_text())
    # The training set takes no part in this run, so what embedding found about it is all that is known.
    assert len([warning for warning in again["warnings"] if warning.startswith("embedding found")]) == 2


def twins_file(folder, *groups):
    """A table of groups of the contents that stand for the photos, as `write_set` makes their digests."""
    lines = ["image_uri,image_sha256,group"]
    for number, group in enumerate(groups):
        lines += [f"x,{hashlib.sha256(repr(content).encode()).hexdigest()[:32]},{number}" for content in group]
    (folder / "twins.csv").write_text("\n".join(lines) + "\n")
    return str(folder / "twins.csv")


def test_copies_of_training_photos_count_as_shared_if_a_table_names_them(without_network, folder, capsys):
    place = folder(evaluation=[*range(5), *range(1000, 1020)], test=[7, 2000, 2001])
    # 1000 is a copy of a training photo, 2000 of one for evaluation; 3 is a training photo itself, 50 and 51 are both.
    table = twins_file(place, (10, 1000), (1005, 2000, 2001), (3, 4, 1001), (50, 51))
    task.main(arguments(place, "--twins", table))
    printed = capsys.readouterr()
    assert "warning: 2 of the 25 evaluation images are copies of training images: " in printed.err
    assert "warning: 5 of the 25 evaluation images are also training images" in printed.err
    metrics = metrics_of(place)
    assert metrics["shared_images"] == {
        "eval": {"train": {"shared": 5, "unchecked": 0, "labels_differ": 1, "twins": 2}},
        "test": {
            "train": {"shared": 1, "unchecked": 0, "labels_differ": 1, "twins": 0},
            "eval": {"shared": 0, "unchecked": 0, "labels_differ": 1, "twins": 2},
        },
    }
    rest = metrics["eval"]["without_shared_images"]
    assert (rest["left_out"], rest["twins"], rest["examples"]) == (7, 2, 18)
    assert metrics["test"]["without_shared_images"]["left_out"] == 3
    assert "without the 7 images that other sets have too (2 of them as copies) (" in printed.out
    assert "(2 of them as a copy that was changed)" in (place / "training" / "report.html").read_text()
    pairs = {(pair["uri"], pair["also_in"]): (pair["other_uri"], pair["compared_by"]) for pair in pairs_of(place)}
    assert pairs["eval/5.jpg", "train"] == ("train/10.jpg", "twins")
    assert pairs["eval/6.jpg", "train"] == ("train/3.jpg", "twins")
    assert pairs["test/1.jpg", "eval"] == ("eval/10.jpg", "twins")
    assert pairs["eval/3.jpg", "train"] == ("train/3.jpg", "content")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"--twins: cannot read .*twins.csv"),
        ("a,b\n", r"--twins: .*twins.csv:1: the header has no column 'image_sha256'"),
        (f"image_sha256,group\n{'0' * 32},1\n", r"--twins: .* names none of the photos of this run"),
    ],
)
def test_a_table_of_twins_that_cannot_be_used_is_one_line(without_network, folder, text, message):
    place = folder(evaluation=range(1000, 1010))
    if text is not None:
        (place / "twins.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        task.main(arguments(place, "--twins", str(place / "twins.csv")))
    assert not (place / "training" / "model").exists()


def test_two_training_sets_with_other_labels_for_the_same_photos(without_network, folder, write_set, capsys):
    place = folder(evaluation=range(1000, 1030))
    other = [[(row + (row < 5)) % 3] for row in range(60)]
    write_set(str(place / "preproc" / "train-corrected"), embeddings(60, 0), other, contents=list(range(60)))
    task.main(arguments(place))
    words = f"60 images are in both {place}/preproc/train and {place}/preproc/train-corrected, 5 of them with different"
    assert words in capsys.readouterr().err
    assert any(words in one and "such as train/0.jpg (red and green)" in one for one in metrics_of(place)["warnings"])
