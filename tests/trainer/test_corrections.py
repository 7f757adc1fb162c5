"""Corrections of labels in a training: what they change, the ledger, and what they brought."""

from __future__ import annotations

import csv
import hashlib
import json

import numpy as np
import pytest

from configs.errors import InputError
from insight import relabel
from preprocess.lists.corrections import parse_corrections
from tests.support.written_sets import COLOURS
from trainer import task

HEADER = "image_uri,image_sha256,action,label,was,by,when\n"


def digest(content):
    return hashlib.sha256(repr(content).encode()).hexdigest()


def embeddings(count, seed):
    rng = np.random.default_rng(seed)
    found = rng.normal(-0.5, 0.2, (count, 3)).astype(np.float32)
    found[np.arange(count), np.arange(count) % 3] += 0.9
    return found


@pytest.fixture
def folder(tmp_path, write_set):
    """A training set of 60 photos whose first 12 have the label of the next class, and an evaluation set."""
    ids = [[(row + (row < 12)) % 3] for row in range(60)]
    write_set(str(tmp_path / "train"), embeddings(60, 0), ids, contents=[f"t{row}" for row in range(60)])
    write_set(
        str(tmp_path / "eval"), embeddings(30, 1), [[r % 3] for r in range(30)], contents=[f"e{r}" for r in range(30)]
    )
    return tmp_path


def train(folder, *more):
    return task.main(
        [
            *("--train_data_paths", f"{folder}/train*", "--eval_data_paths", f"{folder}/eval*"),
            *("--output_path", f"{folder}/training", "--max_steps", "20", "--eval_every_steps", "10"),
            *("--hidden_units", "0", "--batch_size", "30", *more),
        ]
    )


@pytest.mark.parametrize("streamed", [False, True])
def test_a_training_corrects_labels_leaves_out_records_and_says_what_that_brought(
    folder, capsys, without_network, monkeypatch, streamed
):
    if streamed:
        monkeypatch.setattr("trainer.data.memory.MemoryBudget.take", lambda *_: False)
    rows = [f"train/{r}.jpg,{digest(f't{r}')[:32]},change,{COLOURS[r % 3]},,Ada,2026-01-02" for r in range(11)]
    rows += [f",{digest('t11')},remove,,,Ada,", f",{digest('e3')},keep,,,,", f",{digest('nothing')},remove,,,,"]
    (folder / "corrections.csv").write_text(HEADER + "\n".join(rows) + "\n")
    assert not train(folder, "--corrections", str(folder / "corrections.csv"))
    output = capsys.readouterr()
    assert "11 labels changed, 1 record removed in the training set" in output.out
    assert "1 correction of" in output.err and "matches no record of this run, such as line 15" in output.err
    metrics = json.loads((folder / "training" / "metrics.json").read_text())
    assert metrics["train"]["examples"] == 59
    found = metrics["corrections"]
    assert found["records"] == {"train": {"changed": 11, "removed": 1, "already": 0}} and found["keep"] == 1
    assert found["gain"]["eval"].keys() >= {"before", "after", "gain", "interval", "brought"}
    ledger = [json.loads(line) for line in (folder / "training" / "corrections.jsonl").read_text().splitlines()]
    assert len(ledger) == 12
    assert ledger[0]["was"] == ["green"] and ledger[0]["is"] == ["red"] and ledger[0]["by"] == "Ada"
    assert ledger[0]["image_sha256"] == digest("t0")[:32] and ledger[-1]["is"] is None
    assert "What did the corrections bring?" in (folder / "training" / "report.html").read_text()


def test_another_training_without_corrections_does_not_go_on_from_the_corrected_one(folder, without_network):
    (folder / "c.csv").write_text(f"{HEADER},{digest('t0')},change,red,,,\n")
    assert not train(folder, "--corrections", str(folder / "c.csv"), "--no-compare_corrections")
    assert "gain" not in json.loads((folder / "training" / "metrics.json").read_text())["corrections"]
    assert not train(folder)
    metrics = json.loads((folder / "training" / "metrics.json").read_text())
    assert metrics["resumed_step"] is None or metrics["resumed_step"] == 0
    assert "corrections" not in metrics and not (folder / "training" / "corrections.jsonl").exists()


def test_the_numbers_of_a_refused_model_have_the_ledger_beside_them(folder, without_network):
    (folder / "c.csv").write_text(f"{HEADER},{digest('t0')},change,red,,Ada,\n")
    refused = ["--no-compare_corrections", "--check_photos", "0", "--assert_accuracy_at_least", "1"]
    for corrections in (["--corrections", str(folder / "c.csv")], []):
        with pytest.raises(InputError, match="the model is not exported"):
            train(folder, *corrections, *refused)
        ledger = folder / "training" / "refused" / "corrections.jsonl"
        # The ledger of the first run says nothing of the second.
        assert ledger.exists() == bool(corrections)
        assert not corrections or json.loads(ledger.read_text())["by"] == "Ada"
        assert not (folder / "training" / "corrections.jsonl").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty. Corrections begin with a line that names the columns"),
        ("uri,label\n", "c.csv:1: the first line of corrections names the columns"),
        (HEADER + "a.jpg,,chnage,red,,,\n", r"c.csv:2: action must be one of keep, .* Did you mean 'change'"),
        (HEADER + "a.jpg,,change,,,,\n", "c.csv:2: a change needs the right label"),
        (HEADER + "a.jpg,,change,redd,,,\n", "c.csv:2: label 'redd' is not in the dictionary.* 'red'"),
        (HEADER + ",,remove,,,,\n", "c.csv:2: names no photo"),
        (HEADER + ",12ab,remove,,,,\n", "c.csv:2: image_sha256 must be the SHA-256"),
        (HEADER + "a,,remove,,,,\n\na,,keep,,,,\n", "c.csv:4: contradicts line 2"),
        (HEADER + 'a,,"remove\n', "c.csv:2: not valid CSV"),
        (HEADER + "a,,remove,,,,,,x\n", "c.csv:2: 9 cells, and the header names 7 columns"),
        ("action,label,label,image_uri\n", "c.csv:1: names the column 'label' twice"),
    ],
)
def test_a_broken_file_is_one_line(text, said):
    with pytest.raises(InputError, match=said):
        parse_corrections(text.encode(), path="c.csv", labels=COLOURS)


def test_what_people_and_spreadsheets_make_of_a_file_is_read():
    text = "\ufeffAction;Label;Image_URI;by\r\nCHANGE;red | blue;a b.jpg;\r\nunsure;;c.jpg;\r\nremove;;c.jpg;Eve\r\n"
    found = parse_corrections(text.encode(), path="c.csv", labels=COLOURS, by="Ada")
    assert found.by_uri["a b.jpg"].label_ids == (0, 2) and found.by_uri["a b.jpg"].by == "Ada"
    assert found.by_uri["c.jpg"].action == "remove" and found.num_unsure == 1
    assert found.find("a b.jpg", bytes(16)) is found.by_uri["a b.jpg"] and found.find("d.jpg", b"") is None


def test_corrections_do_not_go_with_the_evaluation_of_an_existing_model(folder):
    with pytest.raises(InputError, match="--corrections goes with a training"):
        task.main(["--eval_data_paths", "x", "--output_path", "y", "--write_predictions", "--corrections", "c.csv"])


def test_relabel_finds_photos_by_content_or_by_name_and_writes_a_ledger(folder, capsys):
    (folder / "dict.txt").write_text("red\ngreen\nblue\n")
    (folder / "train.csv").write_text("image_uri,label\ntrain/0.jpg,green\ntrain/1.jpg,blue\ntrain/2.jpg,blue\n")
    (folder / "c.csv").write_text(f"{HEADER}other name.jpg,{digest('t0')},change,red,,,\ntrain/1.jpg,,remove,,,,\n")
    arguments = [
        *("--input_path", f"{folder}/train.csv", "--input_dict", f"{folder}/dict.txt"),
        *("--corrections", f"{folder}/c.csv", "--output_path", f"{folder}/new.csv", "--by", "Ada"),
    ]
    assert not relabel.main([*arguments, "--data_paths", f"{folder}/train*.tfrecord"])
    assert "3 rows: 1 label changed, 1 row removed" in capsys.readouterr().out
    assert list(csv.reader((folder / "new.csv").open())) == [["train/0.jpg", "red"], ["train/2.jpg", "blue"]]
    ledger = [json.loads(line) for line in (folder / "new.csv.corrections.jsonl").read_text().splitlines()]
    assert [(one["was"], one["is"], one["by"]) for one in ledger] == [
        (["green"], ["red"], "Ada"),
        (["blue"], None, "Ada"),
    ]
    with pytest.raises(InputError, match="--output_path: .*new.csv is there already"):
        relabel.main(arguments)
    assert not relabel.main([*arguments, "--overwrite"])
    assert "1 correction of" in capsys.readouterr().err  # Without records nobody knows the content.
