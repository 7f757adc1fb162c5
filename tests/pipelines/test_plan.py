"""Plans: the program as a user runs it, with a small network in Inception's place."""

import dataclasses
import json
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from configs.errors import InputError
from pipelines import embed, plan, preproc
from pipelines.checks.preflight import ScannedLists
from pipelines.embedding import preparation
from pipelines.planning import contents
from pipelines.planning.file import RunMachines, find_planned_cost, runs_on
from pipelines.runners.beam_options import parse_beam_options
from preprocess.storage.base import LocalStorage
from tests.support import tiny_network
from tests.support.programs import end_program, start_program
from tests.support.stand_ins import INFO, StandInEngine

ROOT = pathlib.Path(__file__).parents[2]
NETWORK = ("--backbone", tiny_network.NAME, "--weights", "random", "--precision", "float32")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("pipelines.planning.sample._ROUND_SEC", 0.01)
    tiny_network.install(monkeypatch)


@pytest.fixture
def data_dir(tmp_path):
    """24 photos in a training list, one of them broken and one missing; 6 in the evaluation list; no test list."""
    random = np.random.default_rng(0)
    for number in range(24):
        pixels = random.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((320, 240)).save(tmp_path / f"{number}.jpg")
    (tmp_path / "3.jpg").write_text("no image")
    (tmp_path / "dict.txt").write_text("a\nb\n")
    (tmp_path / "train.csv").write_text("".join(f"{number}.jpg,a\n" for number in range(25)))
    (tmp_path / "eval.csv").write_text("".join(f"{number}.jpg,b\n" for number in range(10, 16)))
    return tmp_path


def run_plan(data_dir, *flags):
    assert plan.main(["--data_dir", str(data_dir), *NETWORK, *flags]) == 0
    return json.loads((data_dir / "hugs_plan.json").read_text())


def run_embed(data_dir, *flags):
    argv = ["--input_path", f"{data_dir}/train.csv", "--input_dict", f"{data_dir}/dict.txt"]
    argv += ["--output_path", f"{data_dir}/out/train", *NETWORK, "--max_failed_percent", "50", *flags]
    assert embed.main(argv) == 0
    return json.loads((data_dir / "out/_train/report.json").read_text())


def test_a_plan_is_what_the_run_then_takes(data_dir, capsys):
    before = {path.name for path in data_dir.iterdir()}
    made = run_plan(data_dir, "--rows_per_shard", "10")
    assert {path.name for path in data_dir.iterdir()} - before == {"hugs_plan.json"}
    printed = capsys.readouterr().out
    assert "of 25 images tried, failed: " in printed
    assert "on this machine (" in printed
    assert "n2-standard-4: 4 vCPUs and 16 GB for $0.28 an hour at the prices of us-central1" in printed
    assert "check them before you rely on them" in printed
    train, evaluation = made["lists"]
    assert (train["split"], train["rows"], train["blocks"]) == ("train", 25, 3)
    assert train["sample"]["failed"] == {"not_an_image": 1, "not_found": 1}
    assert (evaluation["rows"], evaluation["sample"]["failed"]) == (6, {})
    report = run_embed(data_dir, "--prediction", f"{data_dir}/hugs_plan.json")
    prediction = report["prediction"]
    assert prediction["compared"]
    quantities = prediction["quantities"]
    # All of the list was tried, so what does not depend on time is known.
    assert quantities["read_bytes"]["expected"] == pytest.approx(report["read_bytes"], rel=1e-4)
    assert quantities["failed_percent"] == {"low": 8, "expected": 8, "high": 8, "actual": 8}
    # A plan knows where the images lie, and not how the list puts it.
    unknown_bytes = 23 * (len(str(data_dir)) + 20)
    assert made["lists"][0]["output_bytes"]["expected"] == pytest.approx(
        report["output"]["num_bytes"], abs=unknown_bytes
    )
    assert quantities["wall_sec"]["actual"] == report["wall_sec"]
    assert re.search(r"  predicted [\d.]+ s \([\d.]+ - [\d.]+\), took [\d.]+ s", capsys.readouterr().out)


def test_what_was_not_predicted_or_not_done_is_not_compared(data_dir, monkeypatch, capsys):
    run_plan(data_dir)
    flags = ["--prediction", f"{data_dir}/hugs_plan.json", "--overwrite", "--embedding_cache", f"{data_dir}/cache"]
    with monkeypatch.context() as patched:
        patched.setattr(preparation, "runs_on", lambda _: RunMachines(where="elsewhere"))
        quantities = run_embed(data_dir, *flags)["prediction"]["quantities"]
    assert set(quantities) == {"read_bytes", "decode_sec_per_image", "failed_percent"}
    assert re.search(r"  predicted to read (.+ KB), read \1; no time was predicted", capsys.readouterr().out)
    assert not run_embed(data_dir, *flags)["prediction"]["compared"]
    assert "  not compared with the plan: the cache gave 23 of the records" in capsys.readouterr().out


def test_a_plan_that_does_not_speak_of_the_run_is_left_out_and_that_is_said(data_dir, capsys):
    run_plan(data_dir)
    flags = ["--prediction", f"{data_dir}/hugs_plan.json", "--overwrite"]
    assert run_embed(data_dir, *flags, "--batch_size", "2")["prediction"] is None
    assert "made for another batch_size; going without its prediction" in capsys.readouterr().err
    made = json.loads((data_dir / "hugs_plan.json").read_text())
    made["machine"]["cores"] += 1
    (data_dir / "hugs_plan.json").write_text(json.dumps(made))
    assert run_embed(data_dir, *flags)["prediction"] is None
    assert "made on a machine with " in capsys.readouterr().err
    (data_dir / "train.csv").write_text("5.jpg,a\n")
    assert run_embed(data_dir, *flags)["prediction"] is None
    assert "the list has changed since, or is not in it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("machines", "where"),
    [
        (RunMachines(where="here"), "this machine, "),
        (RunMachines(where="dataflow", machine_type="n2-standard-4", max_workers=20), "Dataflow, at most 1 n2-"),
        (RunMachines(where="dataflow", machine_type="n2-standard-8", max_workers=20), None),
        (RunMachines(where="dataflow", machine_type="n2-standard-4", max_workers=50), None),
        (RunMachines(where="elsewhere"), "machines that the plan does not know"),
    ],
)
def test_a_plan_has_a_prediction_for_each_place_that_it_knows(data_dir, monkeypatch, capsys, machines, where):
    monkeypatch.setattr(contents, "EngineLoader", FakeLoader)
    made = run_plan(data_dir)
    sha256 = tuple(made["lists"][0]["sha256"])
    lists = ScannedLists(paths=("train.csv",), sha256=sha256, rows=25, images=25, sample=())
    path, storage = str(data_dir / "hugs_plan.json"), LocalStorage()
    found = find_planned_cost(path, lists=lists, options=made["options"], machines=machines, storage=storage)
    if where is None:
        assert found is None
        assert "made for at most 20 workers of type n2-standard-4" in capsys.readouterr().err
    else:
        assert found.where.startswith(where)
        assert (found.wall_sec is None) == (machines.where == "elsewhere")


def test_beam_s_options_say_on_what_a_job_runs():
    dataflow = ["--runner=DataflowRunner", "--machine_type=n2-standard-4", "--max_num_workers=7"]
    flags_by_machines = {
        RunMachines(where="here"): [],
        RunMachines(where="elsewhere"): ["--runner=PortableRunner"],
        RunMachines(where="dataflow", machine_type="n2-standard-4", max_workers=7): dataflow,
    }
    for machines, flags in flags_by_machines.items():
        assert runs_on(parse_beam_options(flags, own_flags=[])) == machines


def test_lists_and_images_in_a_bucket(data_dir):
    pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")
    from tests.support.faulty_gcs import FaultyGcs

    with FaultyGcs(buckets=["bucket"]) as gcs:
        for path in data_dir.iterdir():
            gcs.put("bucket", path.name, path.read_bytes())
        before = set(gcs.names("bucket"))
        command = ["-m", "tests.support.tiny_program", "pipelines.plan", "--data_dir", "gs://bucket"]
        end_program(start_program([*command, *NETWORK, "--sample", "10"], gcs.environment, tensorflow=True))
        assert set(gcs.names("bucket")) - before == {"hugs_plan.json"}
        made = json.loads(gcs.get("bucket", "hugs_plan.json"))
        images_read = sum("jpg" in exchange.request for exchange in gcs.exchanges)
    assert [(entry["rows"], entry["sample"]["tried"]) for entry in made["lists"]] == [(25, 10), (6, 6)]
    assert made["machine"]["free_bytes"] is None
    assert images_read == 16


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "there is no file"),
        ("no json", "is damaged"),
        ("[]", "is damaged"),
        ('{"format": "hugs_plan/0"}', "no plan of this version"),
        ('{"format": "hugs_plan/1"}', "is damaged"),
        ('{"format": "hugs_plan/1", "lists": [{}]}', "is damaged"),
    ],
)
def test_what_is_no_plan_is_one_line_before_the_run(data_dir, content, expected):
    path = data_dir / "mine.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=expected):
        run_embed(data_dir, "--prediction", str(path))
    assert not list(data_dir.glob("out/train*"))


def test_pipelines_preproc_makes_a_plan_and_the_next_run_is_compared_with_it(data_dir, capsys):
    calls = []

    def fake_embed(argv):
        calls.append(argv)
        return 0

    flags = ["--data_dir", str(data_dir)]
    assert preproc.main([*flags, "--plan", "--sample", "5", *NETWORK], embed=fake_embed) == 0
    assert not calls
    assert capsys.readouterr().out.endswith(f"plan: {data_dir}/hugs_plan.json\n")
    preproc.main(flags, embed=fake_embed)
    assert len(calls) == 2
    assert all(call[call.index("--prediction") + 1] == f"{data_dir}/hugs_plan.json" for call in calls)
    calls.clear()
    preproc.main([*flags, "--prediction=other.json"], embed=fake_embed)
    assert all("--prediction" not in call and "--prediction=other.json" in call for call in calls)


def test_an_image_that_a_list_names_again_and_again_is_tried_once_and_counts_as_often(data_dir):
    (data_dir / "train.csv").write_text("5.jpg,a\n" * 60 + "".join(f"none{number}.jpg,a\n" for number in range(20)))
    sample = run_plan(data_dir, "--sample", "30")["lists"][0]["sample"]
    assert sample["tried"] == 21
    assert sample["failed"] == {"not_found": 20}
    assert sample["failed_share"]["expected"] == 0.25


def test_rows_that_will_be_skipped_are_not_waited_for(data_dir):
    skipped = "image_uri,label\n\n" + "5.jpg,c\n" * 17
    (data_dir / "train.csv").write_text(skipped + "".join(f"{number}.jpg,a\n" for number in range(4)))
    entry = run_plan(data_dir, "--unknown_labels", "skip")["lists"][0]
    assert (entry["rows"], entry["images"], entry["sample"]["tried"]) == (23, 4, 4)
    report = run_embed(data_dir, "--unknown_labels", "skip", "--prediction", f"{data_dir}/hugs_plan.json")
    quantities = report["prediction"]["quantities"]
    assert quantities["read_bytes"]["low"] == quantities["read_bytes"]["high"]
    assert quantities["read_bytes"]["expected"] == pytest.approx(report["read_bytes"], rel=1e-4)
    assert quantities["failed_percent"] == {"low": 25, "expected": 25, "high": 25, "actual": 25}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--sample", "0"], "--sample must be a whole number of at least 1. Received: 0."),
        (["--sample", "many"], "--sample: invalid int value: 'many'"),
        (["--sampel", "5"], "Did you mean '--sample'?"),
        (["--batch_size", "0"], "--batch_size must be a whole number of at least 1"),
        (["--data_dir", "/no/such"], "there is no directory '/no/such'"),
        (["--recipe", "hug"], "Did you mean 'hugs'?"),
        (["--precision", "int9"], "invalid choice: 'int9'"),
        (["--rows_per_shard", "0"], "preprocess.rows_per_shard must be a whole number"),
        (["--prices", "/no/such.yaml"], "prices /no/such.yaml: cannot be read"),
        (["--output", "/no/such/plan.json"], "--output: cannot write a file at"),
        (["--output", "{data_dir}"], "--output: cannot write a file at"),
        (["--output", "{data_dir}/train.csv"], "is there and is no plan"),
        (["--weights", "/no/such.h5"], "--weights random takes the same time"),
    ],
)
def test_wrong_flags(data_dir, flags, expected):
    flags = [flag.format(data_dir=data_dir) for flag in flags]
    before = sorted(data_dir.iterdir())
    with pytest.raises(InputError, match=re.escape(expected)):
        plan.main(["--data_dir", str(data_dir), *NETWORK, *flags])
    assert sorted(data_dir.iterdir()) == before


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "train.csv (lists.train) not found"),
        ("", "0 rows, none of them with an image"),
        ("a.jpg,c\n", "'c'"),
        ("a.jpg,a\nb.jpg,b\n", "none of the 2 images of the sample can be used: not_found 2; for example No such file"),
    ],
)
def test_wrong_lists(data_dir, content, expected):
    (data_dir / "train.csv").unlink()
    if content is not None:
        (data_dir / "train.csv").write_text(content)
    with pytest.raises(InputError, match=re.escape(expected)):
        run_plan(data_dir)
    assert not (data_dir / "hugs_plan.json").exists()


def test_what_a_worker_with_a_gpu_costs_is_known_and_how_long_it_takes_is_not(data_dir, capsys):
    recipe = data_dir / "hugs.yaml"
    recipe.write_text(
        "dataflow: {machine_type: g2-standard-4, gpu: l4, image: 'a/b:1'}\npreprocess: {max_failed_percent: 50}"
    )
    assert list(run_plan(data_dir, "--recipe", str(recipe))["dataflow"]) == ["why_not"]
    printed = capsys.readouterr().out
    # 4 vCPUs for $0.056, 16 GB for $0.003557, an L4 for $0.672, and a disk.
    assert "nothing was ever measured on one. A worker costs $0.96 an hour, $0.67 of it for the GPU, at" in printed


def test_where_nothing_is_known_no_number_is_given(data_dir, capsys):
    recipe = data_dir / "hugs.yaml"
    recipe.write_text("dataflow: {machine_type: x9-standard-4}\npreprocess: {max_failed_percent: 5}")
    made = run_plan(data_dir, "--recipe", str(recipe))
    assert list(made["dataflow"]) == ["why_not"]
    printed = capsys.readouterr().out
    assert "vCPUs and memory of x9-standard-4 (dataflow.machine_type) are not known" in printed
    assert "$" not in printed
    assert "more than max_failed_percent (5) allows, so the job would fail" in printed


def test_what_the_prices_and_the_recipe_leave_open_is_said(data_dir, capsys):
    recipe = data_dir / "hugs.yaml"
    recipe.write_text(
        "cloud: {region: europe-west4}\n"
        "dataflow: {flexrs: cost, disk_type: pd-balanced, max_workers: 30}\npreprocess: {rows_per_shard: 5}"
    )
    made = run_plan(data_dir, "--recipe", str(recipe))
    printed = capsys.readouterr().out
    assert "has no prices for europe-west4: those of us-central1 are used" in printed
    assert "may wait up to six hours before it starts: not counted" in printed
    assert "a disk of type pd-balanced costs what pd-ssd does" in printed
    assert "at most 5 workers of 30 can work at the same time" in printed
    assert [cost["workers"] for cost in made["dataflow"]["by_workers"]] == [1, 2, 5]


def test_a_long_list_says_where_it_stops_scaling(data_dir, capsys):
    (data_dir / "train.csv").write_text("".join(f"{row % 3}.jpg,a\n" for row in range(450)))
    made = run_plan(data_dir, "--rows_per_shard", "1", "--sample", "5")
    printed = capsys.readouterr().out
    scaling = made["dataflow"]["scaling"]
    assert (scaling["split"], scaling["blocks"], scaling["lists"]) == ("train", 450, 1)
    assert [(cost["workers"], cost["jobs"]["train"]["workers"]) for cost in scaling["by_workers"]] == [
        (20, 20),
        (200, 200),
        (1000, 450),
    ]
    assert "with 20, 200 and 1,000 workers (train has 450 blocks of rows)\n" in printed
    assert "  + more than the recipe allows (dataflow.max_workers: 20)\n" in printed
    assert made["lists"][0]["scan_sec"] > 0


class FakeLoader:
    """In the place of `EngineLoader`: `auto` gives bfloat16, on a device that the test chooses."""

    device = "cpu"

    def __init__(self, *, engine, **_):
        precision = "float32" if engine.precision == "float32" else "bfloat16"
        self._info = dataclasses.replace(INFO, engine="openvino", precision=precision, device=self.device)

    def __call__(self):
        return StandInEngine(info=self._info)


@pytest.mark.parametrize(
    ("machine_type", "precision", "engine", "said"),
    [
        ("n2-standard-4", "auto", "openvino float32", "n2-standard-4 lacks bfloat16, which is what embeds here"),
        ("c3-standard-4", "auto", "openvino bfloat16", "c3-standard-4: 4 vCPUs"),
        ("c3-standard-4", "float32", "openvino float32", "c3-standard-4: 4 vCPUs"),
        ("n2-standard-4", "bfloat16", None, "--precision bfloat16 stops on n2-standard-4, which lacks it"),
    ],
)
def test_workers_that_lack_bfloat16_are_planned_without(
    data_dir, monkeypatch, capsys, machine_type, precision, engine, said
):
    monkeypatch.setattr(contents, "EngineLoader", FakeLoader)
    recipe = data_dir / "hugs.yaml"
    recipe.write_text(f"dataflow: {{machine_type: {machine_type}}}")
    made = run_plan(data_dir, "--recipe", str(recipe), "--precision", precision)
    assert made["dataflow"].get("engine", {}).get("name") == engine
    assert said in capsys.readouterr().out


def test_what_was_timed_on_a_gpu_says_nothing_of_workers_without(data_dir, monkeypatch, capsys):
    monkeypatch.setattr(contents, "EngineLoader", FakeLoader)
    monkeypatch.setattr(FakeLoader, "device", "gpu")
    made = run_plan(data_dir)
    assert made["lists"][0]["predictions"]["here"]["wall_sec"]["expected"] > 0
    printed = capsys.readouterr().out
    assert "of the GPU an image" in printed
    assert "on Dataflow: no prediction: the network was timed on a GPU" in printed
