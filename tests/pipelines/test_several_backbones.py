"""Several backbones in one run: a set of records of each, from one read and one decode of each image."""

import dataclasses
import json
import shlex
import shutil

import numpy as np
import pytest

from configs.errors import InputError
from configs.recipe import load_recipe
from configs.several_backbones import folder_names, split_backbones
from pipelines import embed, plan, preproc, recipe_lists, why
from pipelines.planning import sample
from preprocess.backbones.backbone import BackboneSpec
from preprocess.beam.image_source import ImageReader
from preprocess.beam.transforms import EngineLoader
from preprocess.images.isolated_decoder import IsolatedDecoder
from preprocess.locks.lock_holder import this_process
from preprocess.locks.output_lock import locked
from preprocess.records.record_set import Manifest
from preprocess.storage.base import LocalStorage
from tests.pipelines.test_embed import photo
from tests.support.slow_job import SlowEngine
from tests.support.stand_ins import IDENTITY

# Of the table, for their sizes: 299, 224 and 224. What runs is a stand-in.
A, B, C = "inception_v3", "mobilenet_1.0_224", "mobilenet_0.25_224"
IMAGES = 11
VIEWS = ["--views", "3", "--flip_left_right", "--random_crop", "10", "--random_brightness", "20"]


class PowerFails(RuntimeError):
    pass


class Engine(SlowEngine):
    """A stand-in for one backbone, which can fail, or give embeddings that must fail."""

    def __init__(self, architecture, *, batch_size=4):
        super().__init__(0)
        self.identity = dataclasses.replace(IDENTITY, architecture=architecture)
        self.batch_size = batch_size
        self.limit = 10**6
        self.is_dead = False

    def embed(self, pixels):
        if sum(self.batches) >= self.limit:
            raise PowerFails
        self.batches.append(len(pixels))
        embeddings = super().embed(pixels) + len(self.identity.architecture)
        return np.zeros_like(embeddings) if self.is_dead else embeddings


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    (folder / "dict.txt").write_text("daisy\nrose\n")
    for number in range(IMAGES):
        photo(folder / f"photos/{number}.jpg", seed=number, size=(500 + 9 * number, 420))
    rows = [f"photos/{number}.jpg,{'rose' if number % 3 else 'daisy'}\n" for number in range(IMAGES)]
    (folder / "train.csv").write_text("".join([*rows, "photos/none.jpg,rose\n", "\n"]))
    (folder / "eval.csv").write_text("".join(rows[:5]))
    return folder


@pytest.fixture
def engines(monkeypatch):
    """The stand-ins by backbone."""
    found = {A: Engine(A), B: Engine(B, batch_size=3), C: Engine(C, batch_size=2)}
    monkeypatch.setattr(EngineLoader, "__call__", lambda self: found[self.backbone.architecture])
    return found


@pytest.fixture
def work(monkeypatch):
    """The images that were read, and those that were decoded."""
    read, decoded = [], []
    reader, decoder = ImageReader.__call__, IsolatedDecoder.__call__
    monkeypatch.setattr(ImageReader, "__call__", lambda self, location: read.append(location) or reader(self, location))
    monkeypatch.setattr(
        IsolatedDecoder, "__call__", lambda self, *image: decoded.append(self.layout.sizes) or decoder(self, *image)
    )
    return read, decoded


def run(folder, to, *flags, name="train"):
    paths = ["--input_path", f"{folder}/{name}.csv", "--input_dict", f"{folder}/dict.txt"]
    options = ["--rows_per_shard", "6", "--weights", "random", "--output_path", f"{to}/{name}"]
    return embed.main([*paths, *options, *flags])


def shards(folder, name="train"):
    found = {path.name: path.read_bytes() for path in folder.glob(f"{name}-*")}
    assert found
    return found


def report_of(folder, name="train"):
    return json.loads((folder / f"_{name}/report.json").read_text())


def lines_of(folder, name="train", file="failed.jsonl"):
    return (folder / f"_{name}" / file).read_bytes()


def alone(photos, to, backbone, *flags):
    """The shards of a job with one backbone."""
    assert run(photos, to / f"alone_{backbone}", "--backbone", backbone, *flags) == 0
    return shards(to / f"alone_{backbone}")


@pytest.mark.parametrize("flags", [[], [*VIEWS, "--compression", "gzip"]], ids=["plain", "views"])
def test_each_set_has_the_bytes_of_its_job_alone_from_one_read_and_one_decode(
    photos, tmp_path, engines, work, flags, capsys
):
    read, decoded = work
    assert run(photos, tmp_path / "out", "--backbone", f"{A},{B}, {C}", *flags) == 0
    assert len(read) == len(set(read)) == IMAGES + 1
    assert decoded == [(299, 224)] * IMAGES
    table = capsys.readouterr().out
    for backbone in (A, B, C):
        folder, reference = tmp_path / "out" / backbone, tmp_path / f"alone_{backbone}"
        assert shards(folder) == alone(photos, tmp_path, backbone, *flags)
        assert lines_of(folder) == lines_of(reference)
        assert lines_of(folder, file="skipped.jsonl") == lines_of(reference, file="skipped.jsonl")
        report, of_alone = report_of(folder), report_of(reference)
        for field in ("job_key", "definition", "embedded", "failed", "skipped", "rows_read", "read_bytes", "backbone"):
            assert report[field] == of_alone[field], field
        assert report["together_with"] == [f"{tmp_path}/out/{other}/train" for other in (A, B, C) if other != backbone]
        assert of_alone["together_with"] == []
        manifest = Manifest.from_bytes((folder / "_train/manifest.json").read_bytes(), where="m")
        assert manifest.backbone.architecture == backbone
        assert f"{folder}/train: 13 rows read" in table
    assert not list(tmp_path.glob("out/*/_train/parts-*"))


@pytest.mark.parametrize(("stopped", "limit"), [(A, 1), (A, 7), (B, 7)])
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(photos, tmp_path, engines, stopped, limit):
    engines[stopped].limit = limit
    with pytest.raises(Exception, match="PowerFails"):
        run(photos, tmp_path / "out", "--backbone", f"{A},{B}", "--batch_size", "2")
    embedded = {backbone: sum(engines[backbone].batches) for backbone in (A, B)}
    engines[stopped].limit = 10**6
    assert run(photos, tmp_path / "out", "--backbone", f"{A},{B}", "--batch_size", "2") == 0
    for backbone in (A, B):
        assert sum(engines[backbone].batches) <= IMAGES + min(embedded[backbone], 4)
        assert shards(tmp_path / "out" / backbone) == alone(photos, tmp_path, backbone, "--batch_size", "2")


def test_a_set_that_was_begun_alone_is_finished_with_others_and_the_reverse(photos, tmp_path, engines, work):
    read, _ = work
    engines[A].limit = 7
    with pytest.raises(Exception, match="PowerFails"):
        run(photos, tmp_path / "out" / A, "--backbone", A, "--batch_size", "2")
    engines[A].limit, engines[B].limit = 10**6, 7
    with pytest.raises(Exception, match="PowerFails"):
        run(photos, tmp_path / "out", "--backbone", f"{A},{B}", "--batch_size", "2")
    engines[B].limit = 10**6
    assert run(photos, tmp_path / "out" / B, "--backbone", B, "--batch_size", "2") == 0
    assert run(photos, tmp_path / "out", "--backbone", f"{A},{B}", "--batch_size", "2") == 0
    for backbone in (A, B):
        assert report_of(tmp_path / "out" / backbone)["embedded_by"]["earlier_run"] >= 6
        assert shards(tmp_path / "out" / backbone) == alone(photos, tmp_path, backbone, "--batch_size", "2")
    read.clear()
    assert run(photos, tmp_path / "out", "--backbone", f"{A},{B}") == 0
    assert not read


def test_finished_sets_are_left_alone_and_the_others_made(photos, tmp_path, engines, capsys):
    assert run(photos, tmp_path / "out", "--backbone", f"{A},{B}") == 0
    before = sum(engines[A].batches)
    capsys.readouterr()
    assert run(photos, tmp_path / "out", "--backbone", f"{A},{C},{B}") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert sum(engines[A].batches) == before
    assert report_of(tmp_path / "out" / C)["together_with"] == []
    assert shards(tmp_path / "out" / C) == alone(photos, tmp_path, C)


def test_the_cache_gives_what_it_has_of_each_backbone(photos, tmp_path, engines, work):
    _, decoded = work
    cache = ["--embedding_cache", f"{tmp_path}/cache"]
    assert run(photos, tmp_path / "first", "--backbone", A, *cache) == 0
    decoded.clear()
    assert run(photos, tmp_path / "out", "--backbone", f"{A},{B}", *cache) == 0
    assert len(decoded) == IMAGES
    assert report_of(tmp_path / "out" / A)["embedded_by"] == {"cache": IMAGES}
    assert report_of(tmp_path / "out" / B)["embedded_by"] == {"computed": IMAGES}
    decoded.clear()
    assert run(photos, tmp_path / "again", "--backbone", f"{B},{A}", *cache) == 0
    assert not decoded
    for backbone in (A, B):
        assert shards(tmp_path / "again" / backbone) == alone(photos, tmp_path, backbone)


def test_failed_rows_are_tried_again_in_each_set(photos, tmp_path, engines):
    allowed = ["--max_failed_percent", "20"]
    missing = tmp_path / "photos"
    missing.mkdir()
    rows = "".join(f"{photos}/photos/{number}.jpg,rose\n" for number in range(8)) + f"{missing}/late.jpg,rose\n"
    (tmp_path / "train.csv").write_text(rows)
    (tmp_path / "dict.txt").write_text("rose\n")
    assert run(tmp_path, tmp_path / "out", "--backbone", f"{A},{B}", *allowed) == 0
    (missing / "late.jpg").write_bytes((photos / "photos/9.jpg").read_bytes())
    assert run(tmp_path, tmp_path / "out" / B, "--backbone", B, *allowed, "--retry_failures") == 0
    assert report_of(tmp_path / "out" / A)["failed"] == {"not_found": 1}
    assert run(tmp_path, tmp_path / "out", "--backbone", f"{A},{B}", *allowed, "--retry_failures") == 0
    for backbone in (A, B):
        assert report_of(tmp_path / "out" / backbone)["embedded_by"] == {"earlier_run": 8, "computed": 1}
        assert shards(tmp_path / "out" / backbone) == alone(tmp_path, tmp_path, backbone)


def test_a_set_that_fails_does_not_hold_up_the_others(photos, tmp_path, engines, capsys):
    engines[A].is_dead = True
    with pytest.raises(InputError, match=rf"^{tmp_path}/out/{A}/train: None of 13 rows could be embedded"):
        run(photos, tmp_path / "out", "--backbone", f"{A},{B}")
    assert shards(tmp_path / "out" / B) == alone(photos, tmp_path, B)
    # The note of the run lies beside the work that is left, and nowhere else.
    assert [path.parts[-4] for path in tmp_path.glob("out/*/_train/*/last_run.json")] == [A]
    engines[A].is_dead = False
    assert run(photos, tmp_path / "out", "--backbone", f"{A},{B}") == 0
    assert shards(tmp_path / "out" / A) == alone(photos, tmp_path, A)


def test_a_set_that_another_run_writes_refuses_the_whole_run_before_anything_is_embedded(photos, tmp_path, engines):
    (tmp_path / "out" / B / "_train").mkdir(parents=True)
    holder = this_process(program="pipelines.embed", run_id="other")
    folder = f"{tmp_path}/out/{B}/_train"
    other_run = locked(folder, holder=holder, flag="output_path", output=folder, storage=LocalStorage())
    with other_run, pytest.raises(InputError, match=f"output_path: .*{B}"):
        run(photos, tmp_path / "out", "--backbone", f"{A},{B}")
    assert not engines[A].batches
    assert not list(tmp_path.glob(f"out/{A}/_train/parts-*"))


def test_a_set_of_another_job_refuses_the_whole_run(photos, tmp_path, engines):
    assert run(photos, tmp_path / "out" / B, "--backbone", B, "--seed", "1") == 0
    with pytest.raises(InputError, match=f"a finished set of records lies at '{tmp_path}/out/{B}/train'.*other seed"):
        run(photos, tmp_path / "out", "--backbone", f"{A},{B}")
    assert not engines[A].batches
    assert run(photos, tmp_path / "out", "--backbone", f"{A},{B}", "--overwrite") == 0
    assert report_of(tmp_path / "out" / B)["definition"]["seed"] == 0


def test_the_plan_counts_one_decode_and_every_network_and_the_run_is_compared_with_it(
    photos, tmp_path, engines, capsys, monkeypatch
):
    monkeypatch.setattr(sample, "_ROUND_SEC", 0.02)
    options = ["--data_dir", str(photos), "--sample", "4", "--weights", "random"]
    made = {}
    for backbone in (A, B, f"{A},{B}"):
        assert plan.main([*options, "--backbone", backbone, "--output", f"{tmp_path}/plan.json"]) == 0
        made[backbone] = json.loads((tmp_path / "plan.json").read_text())
    assert "stand_in float32 for 2 backbones" in capsys.readouterr().out
    (train, _), of_a, of_b = (made[key]["lists"] for key in (f"{A},{B}", A, B))
    assert train["record_bytes"] == of_a[0]["record_bytes"] + of_b[0]["record_bytes"]
    assert train["sample"]["read_bytes"] == of_a[0]["sample"]["read_bytes"]
    assert made[f"{A},{B}"]["engine"]["embedding_size"] == 6
    flags = ["--prediction", f"{tmp_path}/plan.json"]
    assert run(photos, tmp_path / "out", "--backbone", f"{A},{B}", *flags) == 0
    assert all(report_of(tmp_path / "out" / backbone)["prediction"]["compared"] for backbone in (A, B))
    assert run(photos, tmp_path / "other", "--backbone", A, *flags) == 0
    assert report_of(tmp_path / "other")["prediction"] is None
    # A set that is finished takes no part, so the time of the run says nothing about the plan.
    assert run(photos, tmp_path / "other" / A, "--backbone", A) == 0
    capsys.readouterr()
    assert run(photos, tmp_path / "other", "--backbone", f"{A},{B}", *flags) == 0
    assert "the plan is for 2 backbones, and this run embeds with 1" in capsys.readouterr().err
    assert report_of(tmp_path / "other" / B)["prediction"] is None


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--backbone", f"{A},"], "has a comma without a name on each side"),
        (["--backbone", f",{A}"], "has a comma without a name on each side"),
        (["--backbone", ","], "has a comma without a name on each side"),
        (["--backbone", f"{A},{B},{A}"], f"backbone: '{A}' is named twice"),
        (["--backbone", f"{A},mobilenet_1.0_225"], "there is no network 'mobilenet_1.0_225'. Did you mean"),
        (["--backbone", f"{A},nets/my.pb"], "nets/my.pb"),
        (["--backbone", "one/net.pb,other/net.pb"], "would both write to a folder 'net'"),
        (["--backbone", f"{A},{B}", "--weights", "my.weights.h5"], "'my.weights.h5' is the file of one network"),
        (["--backbone", f"{A},{B}", "--weights", "imagenet", "--input_tensor", "x"], "input_tensor: belongs to a"),
        (["--backbone", f"{A},{B}", "--output_path", "out/{backbones}/train"], "{backbones} stands for nothing"),
        (["--backbone", f"{A},{B}", "--against", "out/train"], "or of each of several backbones, out/preproc/{back"),
        (["--backbone", f"{A};{B}"], f"there is no network '{A};{B}'"),
    ],
)
def test_wrong_backbones_are_one_line_and_leave_nothing(photos, tmp_path, engines, flags, words):
    with pytest.raises(InputError) as caught:
        run(photos, tmp_path / "out", *flags)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_programs_that_take_one_network_say_so():
    with pytest.raises(InputError, match=f"backbone: '{A},{B}' names several networks, and one is wanted here"):
        BackboneSpec.asked_for(f"{A},{B}")


def test_a_file_with_a_comma_in_its_name_is_one_network(tmp_path):
    path = str(tmp_path / "a,b.pb")
    (tmp_path / "a,b.pb").write_bytes(b"")
    assert split_backbones(path) == (path,)
    assert split_backbones("gs://bucket/a,b.pb") == ("gs://bucket/a,b.pb",)
    assert split_backbones("gs://bucket/a.pb,gs://bucket/b.pb") == ("gs://bucket/a.pb", "gs://bucket/b.pb")
    assert split_backbones(f"{tmp_path}/x.keras,{A}") == (f"{tmp_path}/x.keras", A)
    assert folder_names((f"{tmp_path}/my net (2).v2.keras", "hub/module/", A)) == ("my-net-2-.v2", "module", A)


def test_the_placeholder_may_stand_anywhere_in_the_output(photos, tmp_path, engines, capsys):
    assert run(photos, f"{tmp_path}/job/{{backbone}}/preproc", "--backbone", f"{A},{B}") == 0
    assert run(photos, f"{tmp_path}/{{backbone}}-alone", "--backbone", A) == 0
    assert shards(tmp_path / "job" / A / "preproc") == shards(tmp_path / f"{A}-alone")
    capsys.readouterr()
    assert run(photos, tmp_path / "new", "--backbone", f"{A},{B}", "--dry_run") == 0
    told = capsys.readouterr().out
    assert f"  {B} writes {tmp_path}/new/{B}/train\n" in told and f"--backbone {A},{B}" in told
    assert not (tmp_path / "new").exists()


def test_a_recipe_with_several_backbones_makes_a_folder_of_each_for_the_training(photos, tmp_path, engines, capsys):
    data = tmp_path / "data"
    shutil.copytree(photos, data)
    (tmp_path / "two.yaml").write_text(f"preprocess: {{backbone: '{A},{B}', weights: random, rows_per_shard: 6}}\n")
    argv = ["--recipe", f"{tmp_path}/two.yaml", "--data_dir", str(data)]
    engines[B].limit = IMAGES + 2
    with pytest.raises(Exception, match="PowerFails"):
        preproc.main([*argv, "--batch_size", "2"])
    (job,) = data.glob("two_*")
    # Without a job directory, the same command finds the one that is unfinished; `why` names the command.
    capsys.readouterr()
    assert why.main([str(job)]) == 0
    told = capsys.readouterr().out
    assert f"preproc --recipe {tmp_path}/two.yaml --data_dir {data} --job_dir {job} --batch_size 2" in told
    engines[B].limit = 10**6
    assert preproc.main([*argv, "--batch_size", "2"]) == 0
    told = capsys.readouterr().out
    assert list(data.glob("two_*")) == [job]
    assert f"going on in {job}" in told
    for backbone in (A, B):
        folder = job / backbone / "preproc"
        assert len(report_of(folder, "eval")["shared_with"]) == 1
        assert report_of(folder, "eval")["shared_with"][0]["prefix"] == f"{folder}/train"
        assert any(
            line.startswith("next: ") and line.endswith(f"hugs_train.sh {data} {job}/{backbone}")
            for line in told.replace(f"RECIPE={tmp_path}/two.yaml ", "").splitlines()
        )
    assert preproc.main([*argv, "--batch_size", "2", "--job_dir", str(job)]) == 0
    # The finished one is left alone.
    assert recipe_lists.newest_job_dir(
        load_recipe(f"{tmp_path}/two.yaml"),
        ["train", "eval"],
        data_dir=str(data),
        storage=LocalStorage(),
        backbones=(A, B),
    ) == (str(job), True)


def test_the_next_commands_embed_the_next_list_and_train_on_each_set(photos, tmp_path, engines, capsys):
    assert run(photos, tmp_path / "out", "--backbone", f"{A},{B}") == 0
    following = [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines() if line[:5] == "next:"]
    (command,) = following
    assert embed.main(shlex.split(command.split(" embed ")[1])) == 0
    trainings = [line for line in capsys.readouterr().out.splitlines() if line[:5] == "next:"]
    assert len(trainings) == 2
    for backbone, line in zip((A, B), trainings, strict=True):
        assert f"--train_data_paths {tmp_path}/out/{backbone}/train " in line
        assert report_of(tmp_path / "out" / backbone, "eval")["shared_with"][0]["records"] == 5
