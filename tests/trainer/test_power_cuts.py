"""What a power cut leaves of a training: at each step the model before it or the new one, and a checkpoint."""

from __future__ import annotations

import json
import os
import pathlib

from tests.support.folders import files_below
from tests.support.power_cut import forgetful, lay_out
from tests.trainer.test_resume import options_for
from tests.trainer.training.test_loop import clusters
from trainer import task
from trainer.export.output_folder import MODEL_NAME, OutputFolder, copy_model
from trainer.training.checkpoints import Saving
from trainer.training.loop import train_head


def whole_or_none(folder: pathlib.Path, models: list[dict[str, bytes]]) -> int | None:
    """Which of some models is there, as a later run finds it; its metrics, if there are any, must be its own."""
    output = OutputFolder(str(folder))
    if not os.path.exists(output.local_model_dir):
        return None
    number = models.index(files_below(folder / MODEL_NAME))
    if (folder / "metrics.json").exists():
        digest = json.loads((folder / "metrics.json").read_bytes())["model"]["head_digest"]
        assert digest == json.loads(models[number]["assets.extra/model.json"])["head_digest"]
        assert (folder / "report.html").read_bytes().endswith(b"</html>\n")
    return number


def test_a_power_cut_at_each_step_leaves_one_of_two_models(without_network, task_arguments, tmp_path, monkeypatch):
    training = tmp_path / "training"
    task.main(task_arguments)
    models = [files_below(training / MODEL_NAME)]
    with forgetful(training, monkeypatch) as disk:
        task.main([*task_arguments, "--seed", "5"])
    models.append(files_below(training / MODEL_NAME))
    assert models[0] != models[1]
    found = []
    for number, state in enumerate(disk.cuts):
        found.append(whole_or_none(lay_out(state, tmp_path / "cuts" / str(number)), models))
    # First the older one, at the end the new one, and never none.
    assert found == sorted(found)
    assert set(found) == {0, 1}
    last = tmp_path / "cuts" / str(len(found) - 1)
    assert json.loads((last / "metrics.json").read_bytes()) == json.loads((training / "metrics.json").read_bytes())
    for name in ("best", "last"):
        # (A checkpoint before it may still be there: that it is gone need not survive.)
        kept, wanted = files_below(last / "checkpoints" / name), files_below(training / "checkpoints" / name)
        assert wanted.items() <= kept.items() and len(wanted) == 3


def test_a_power_cut_at_each_step_leaves_a_checkpoint_to_go_on_from(tmp_path, monkeypatch):
    train, evaluation = clusters(60, 0), clusters(30, 1)
    folder = tmp_path / "run"
    folder.mkdir()
    options = options_for(folder, max_steps=21)
    with forgetful(folder, monkeypatch) as disk:
        train_head(train, evaluation, options, saving=Saving(resumes=True, every_sec=0), say=lambda words: None)
    steps = []
    for number, state in enumerate(disk.cuts):
        cut = lay_out(state, tmp_path / "cuts" / str(number))
        said = []
        result = train_head(
            train,
            evaluation,
            options_for(cut, max_steps=21),
            saving=Saving(writes=False, resumes=True),
            say=said.append,
        )
        assert not any("cannot be read" in words for words in said)
        steps.append(result.resumed_step)
    assert steps == sorted(steps)
    assert steps[-1] == 21
    assert len(set(steps)) >= 4


def test_a_power_cut_while_a_model_is_copied_leaves_no_graph_without_its_files(
    without_network, task_arguments, tmp_path, monkeypatch
):
    task.main(task_arguments)
    source = tmp_path / "training" / "model"
    target = tmp_path / "export"
    copy_model(str(source), str(target))
    (target / "mine.txt").write_text("stays")
    with forgetful(target, monkeypatch) as disk:
        copy_model(str(source), str(target))
    for number, state in enumerate(disk.cuts):
        left = files_below(lay_out(state, tmp_path / "cuts" / str(number)))
        assert "saved_model.pb" not in left or left == {"mine.txt": b"stays", **files_below(source)}
    assert "saved_model.pb" in left


def test_the_files_of_an_evaluation_are_whole(without_network, task_arguments, tmp_path, monkeypatch):
    task.main(task_arguments)
    flags = ["--eval_data_paths", task_arguments[3], "--output_path", str(tmp_path / "eval"), "--write_predictions"]
    flags += ["--model_dir", str(tmp_path / "training" / "model")]
    (tmp_path / "eval").mkdir()
    with forgetful(tmp_path / "eval", monkeypatch) as disk:
        task.main(flags)
    for step in ("evaluation.json", "evaluation.html", "predictions.csv"):
        written = (tmp_path / "eval" / step).read_bytes()
        assert all(state.get(step, written) == written for state in disk.cuts)
        assert step in disk.cuts[-1]
