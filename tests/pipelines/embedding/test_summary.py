"""The table at the end of a job."""

from __future__ import annotations

import json

import pytest

from pipelines.embedding.summary import summary_lines
from preprocess.storage.base import LocalStorage


def table(tmp_path, **changes):
    report = {
        "status": "complete",
        "rows_read": 700,
        "embedded": 700,
        "embedded_by": {"computed": 700},
        "failed": {},
        "skipped": {},
        "duplicates": None,
        "records_without_label": 0,
        "engines": [{"engine": "openvino", "precision": "bfloat16"}],
        "wall_sec": 25.3,
        "images_per_sec": 27.7,
        "startup_sec": 14.0,
        "steady_images_per_sec": 62.04,
        "prediction": None,
        "output": {"shards": 1, "num_bytes": 1},
        "backbone": {"random_weights": False},
        **changes,
    }
    return "\n".join(summary_lines(report, "out/train", sidecars=str(tmp_path), storage=LocalStorage()))


def test_the_rate_is_that_of_the_steady_state_and_the_start_stands_beside_it(tmp_path):
    assert "  25.3 s, 62 images/s once running, 14 s to start, openvino bfloat16\n" in table(tmp_path)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"steady_images_per_sec": None}, "25.3 s, 14 s to start, openvino bfloat16"),
        (
            {"embedded_by": {"cache": 700}, "startup_sec": None, "steady_images_per_sec": None, "images_per_sec": 0.0},
            "25.3 s, no image was embedded anew, openvino bfloat16",
        ),
        (
            {"embedded_by": {"cache": 699, "computed": 1}, "steady_images_per_sec": None},
            "25.3 s, 14 s to start, 1 image embedded anew, openvino bfloat16",
        ),
    ],
)
def test_no_rate_is_made_up(tmp_path, changes, line):
    printed = table(tmp_path, **changes)
    assert f"  {line}\n" in printed
    assert "images/s" not in printed


def test_one_of_a_thing_is_no_plural(tmp_path):
    duplicates = {"images": 1, "extra_records": 1, "images_with_different_labels": 0, "file": "d.jsonl"}
    shared = [{"prefix": "out/eval", "records": 1, "file": "s.jsonl"}]
    printed = table(tmp_path, rows_read=1, embedded=1, duplicates=duplicates, shared_with=shared)
    assert printed.startswith("out/train: 1 row read\n")
    assert "1  record of 1 image that is there more than once, none of them under" in printed
    assert "1  record whose image is also in out/eval: s.jsonl" in printed


def test_an_example_of_a_failure_names_the_image(tmp_path):
    rows = [("a.jpg", "not_an_image", "no image signature"), ("b.jpg", "not_found", "No such file: /x/b.jpg")]
    lines = [
        json.dumps({"uri": uri, "list": "list.jsonl", "line": number, "reason": reason, "message": message})
        for number, (uri, reason, message) in enumerate(rows, 1)
    ]
    (tmp_path / "failed.jsonl").write_text("".join(f"{line}\n" for line in lines))
    printed = table(tmp_path, failed={"not_an_image": 1, "not_found": 1})
    assert "e.g. list.jsonl:1: a.jpg: no image signature\n" in printed
    assert "e.g. list.jsonl:2: No such file: /x/b.jpg\n" in printed
