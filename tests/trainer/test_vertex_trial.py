from __future__ import annotations

import json

from trainer.vertex_trial import report_trial


def test_metrics_are_written_as_the_package_writes_them(tmp_path):
    path = tmp_path / "made" / "output.metrics"
    environment = {"CLOUD_ML_TRIAL_ID": "7", "CLOUD_ML_HP_METRIC_FILE": str(path)}
    for accuracy in (0.5, 0.9):
        written = report_trial({"accuracy": accuracy, "loss": 0.25}, step=100, environment=environment, now_sec=1.5)
    assert written == str(path)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"timestamp": 1.5, "trial": "7", "accuracy": "0.9", "global_step": "100"},
        {"timestamp": 1.5, "trial": "7", "loss": "0.25", "global_step": "100"},
    ]


def test_nothing_is_written_outside_of_vertex(tmp_path):
    assert report_trial({"accuracy": 0.5}, step=1, environment={"HOME": str(tmp_path)}) is None
    assert not list(tmp_path.iterdir())
