from __future__ import annotations

import json
import re

import numpy as np
import pytest

from configs.errors import InputError
from preprocess.lists.corrections import parse_corrections
from tests.support.written_sets import COLOURS, write_record_set
from trainer import task
from trainer.data.corrected import corrected, correction_counts, correction_warnings, counts_in_words, read_corrections
from trainer.data.record_parser import Records

HEADER = "image_uri,image_sha256,action,label,was,by,when\n"


def records():
    """Four records; the third has two labels, the last one none. Digests of 1, 2, 3, and none of the last one."""
    digests = np.repeat(np.array([1, 2, 3, 0], np.uint8)[:, np.newaxis], 16, axis=1)
    return Records(
        uris=["a", "b", "c", "d"],
        views=np.arange(8, dtype=np.float32).reshape(4, 1, 2),
        label_ids=np.array([0, 1, 2, 0]),
        label_counts=np.array([1, 1, 2, 0]),
        image_digests=digests,
        image_hashes=np.zeros((4, 32), np.uint8),
    )


def applied(rows):
    corrections = parse_corrections((HEADER + rows).encode(), path="c.csv", labels=COLOURS)
    return (*corrected(records(), corrections, COLOURS, data_set="train"), corrections)


def test_labels_change_and_records_go_by_content_or_uri():
    changed, found, corrections = applied(
        f"other,{'02' * 16},change,blue | red,,Ann,\n,{'01' * 16},remove,,,,\nd,,change,green,,,\ngone,,remove,,,,\n"
    )
    assert changed.uris == ["b", "c", "d"]
    assert changed.label_ids.tolist() == [2, 0, 2, 0, 1] and changed.label_counts.tolist() == [2, 2, 1]
    assert changed.views[:, 0, 0].tolist() == [2, 4, 6] and changed.image_digests[:, 0].tolist() == [2, 3, 0]
    assert [(one.uri, one.was, one.correction.action) for one in found] == [
        *(("a", ("red",), "remove"), ("b", ("green",), "change"), ("d", (), "change")),
    ]
    assert correction_counts(found) == {"train": {"changed": 2, "removed": 1, "already": 0}}
    assert counts_in_words(correction_counts(found)) == "2 labels changed, 1 record removed in the training set"
    (warning,) = correction_warnings(corrections, found, num_unlabeled=5)  # "d" had no label, and got one.
    assert "1 correction of c.csv matches no record of this run, such as line 5 (gone)" in warning


@pytest.mark.parametrize(
    ("count", "words"), [(1, "1 training record has no label"), (80, "80 training records have no")]
)
def test_a_file_that_names_no_record_without_a_label_is_a_warning_where_there_are_such_records(count, words):
    """As where corrections.csv of an audit is given in place of labels.csv, which the page of `hugs next` saves."""
    _, found, corrections = applied("b,,change,red,,,\n")
    assert correction_warnings(corrections, found, num_unlabeled=0) == []
    (warning,) = correction_warnings(corrections, found, num_unlabeled=count)
    assert warning.startswith(words) and "c.csv names none of them" in warning and "labels.csv" in warning


def test_what_is_right_already_is_said_and_all_records_may_go():
    same, found, _ = applied("c,,change,red | blue,,,\n")
    assert found[0].changes_nothing and set(same.label_ids[2:4].tolist()) == {0, 2}
    none, _, _ = applied("".join(f"{uri},,remove,,,,\n" for uri in "abcd"))
    assert none.uris == [] and none.label_ids.shape == (0,) and none.views.shape == (0, 1, 2)
    untouched, found, _ = applied("x,,remove,,,,\n")
    assert untouched.uris == records().uris and not found


def test_a_training_applies_them_and_says_what_they_brought(task_arguments, without_network, tmp_path, capsys):
    """A third of the training labels is wrong; corrections give the right ones."""
    folder = tmp_path / "preproc"
    rng = np.random.default_rng(0)
    classes = np.arange(90) % 3
    embeddings = rng.normal(-0.5, 0.2, (90, 3)).astype(np.float32)
    embeddings[np.arange(90), classes] += 0.9
    wrong = [row for row in range(90) if row % 3 == 0]
    given = [[1] if row in wrong else [int(classes[row])] for row in range(90)]  # no red one is left
    write_record_set(str(folder / "train"), embeddings, given)
    rows = "".join(f"train/{row}.jpg,,change,red,green,Ann,now\n" for row in wrong[1:])
    (tmp_path / "corrections.csv").write_text(HEADER + rows + f"train/{wrong[0]}.jpg,,remove,,,,\nx.jpg,,remove,,,,\n")
    assert task.main([*task_arguments, "--corrections", str(tmp_path / "corrections.csv")]) == 0
    output = tmp_path / "training"
    metrics = json.loads((output / "metrics.json").read_text())["corrections"]
    assert metrics["records"] == {"train": {"changed": 29, "removed": 1, "already": 0}}
    gain = metrics["gain"]["eval"]
    assert gain["brought"] == "more" and gain["before"] < 0.75 < 0.9 < gain["after"]
    ledger = [json.loads(line) for line in (output / "corrections.jsonl").read_text().splitlines()]
    assert len(ledger) == 30
    assert ledger[1] | {"image_sha256": ""} == {
        "set": "train",
        "image_uri": "train/3.jpg",
        "image_sha256": "",
        "action": "change",
        "was": ["green"],
        "is": ["red"],
        "by": "Ann",
        "when": "now",
        "line": 2,
    }
    report = (output / "report.html").read_text()
    assert "What did the corrections bring?" in report
    assert re.search(
        r"The corrections improved the accuracy on the evaluation set: [\d.]+% before, [\d.]+% after", report
    )
    printed = capsys.readouterr()
    assert "29 labels changed, 1 record removed in the training set" in printed.out
    assert "1 correction of" in printed.out + printed.err


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(InputError, match="--corrections: cannot read"):
        read_corrections(str(tmp_path / "gone.csv"), labels=COLOURS)
