import json

import numpy as np

from benchmarks import accuracy
from trainer.search import tuning


def test_differences_are_paired():
    row = accuracy.figure("some.npz", "peer", [0.50, 0.60, 0.55], [0.49, 0.59, 0.54])
    assert row.met
    assert "difference +0.010, standard error 0.000" in row.figure
    assert not accuracy.figure("some.npz", "peer", [0.49, 0.59, 0.55], [0.50, 0.60, 0.56]).met


def test_small_embeddings(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tuning, "_FOLDS", 2)
    monkeypatch.setattr(accuracy, "_LOGISTIC_C", (1e-2,))
    monkeypatch.setattr(accuracy, "_VECTORS_C", (3.0,))
    random = np.random.default_rng(0)
    labels = np.arange(120) % 3
    embeddings = random.normal(0, 1, (3, 16))[labels] * 3 + random.normal(0, 1, (120, 16))
    np.savez(tmp_path / "some.npz", embedding=embeddings.astype(np.float32), label=labels)
    accuracy.main(["--splits", "2", "--trials", "1", "--bottlenecks", str(tmp_path / "some.npz")])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["target"] for row in result["rows"]] == [result["rows"][0]["target"]] * 3
    assert all(run["SVC"] > 0.9 and run["LogisticRegressionCV"] > 0.9 and run["--tune"] > 0.9 for run in result["runs"])


def test_without_the_embeddings_it_is_skipped(tmp_path, capsys):
    accuracy.main(["--bottlenecks", str(tmp_path / "none.npz")])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == []
