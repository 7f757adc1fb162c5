"""Each benchmark at toy size, with stand-ins for what is slow."""

import concurrent.futures
import json
import pathlib
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from benchmarks import (
    answers,
    audit,
    audit_scale,
    clusters,
    commit_scale,
    costs,
    decode,
    embedding,
    engines,
    faults,
    fidelity,
    gpu,
    list_passes,
    networks,
    overhead,
    photos,
    pipeline,
    run,
    startup,
    streams,
    training,
    training_on_views,
    training_profile,
    twins,
)
from benchmarks.report import Figure, at_least, finish, limit
from benchmarks.stand_ins import StandInEngine
from configs.errors import InputError
from preprocess.images.decode import decode_image


@pytest.fixture(scope="module")
def photo_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for number in range(20):
        path = folder / ("cats", "dogs")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (60, 80, 3), np.uint8)).save(path)
    return folder


class SlowEngine(StandInEngine):
    """Takes its time, and embeds an image as sixteen means, a little off where it is of low precision."""

    def __init__(self, error=0.0):
        super().__init__(batch_size=4)
        self._error = error
        self._thread = concurrent.futures.ThreadPoolExecutor(1)

    def start(self, pixels):
        return self._thread.submit(self._embed, pixels)

    def _embed(self, pixels):
        time.sleep(0.004)
        bands = [pixels[:, band::32, band::32].mean(axis=(1, 2, 3), dtype=np.float32) for band in range(16)]
        means = np.stack(bands, axis=1)
        return means + self._error * np.arange(16, dtype=np.float32) * (means[:, :1] > means[:, 1:2])


@pytest.fixture
def stand_in_engines(monkeypatch):
    errors = {"tensorflow/float32": 0, "openvino/float32": 0, "openvino/bfloat16": 1e-4, "openvino/int8": 1e-3}
    monkeypatch.setattr(engines, "_kept", {choice: SlowEngine(error) for choice, error in errors.items()})


def result_of(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_the_rate_of_a_cluster_is_that_of_the_report(capsys):
    rate = clusters._rate("here", 1, rows=300, image_sec=1e-4)
    assert rate is None or rate > 0
    assert capsys.readouterr().out.startswith("here, 1 workers: ")


def test_figures():
    assert at_least("a", 12, 2, 5, unit="images/s").met
    assert not at_least("a", 9, 2, 5, unit="images/s").met
    assert limit("a", 1, 2, unit="s", at_most=True).met
    assert "MISSED" in limit("a", 1, 2, unit="x").line()


def test_the_last_line_is_json(capsys):
    finish("name", [Figure(figure="f", ours="1 s")], more=1)
    result = result_of(capsys)
    assert result["benchmark"] == "name"
    assert result["more"] == 1
    assert result["rows"] == [
        {"figure": "f", "ours": "1 s", "peer": "", "ratio": None, "target": "", "met": None, "noise": None}
    ]


def test_photos_are_repeated_under_distinct_names_and_with_distinct_bytes(photo_folder, tmp_path):
    photo_set = photos.find_photos(str(photo_folder))
    assert photo_set.classes == ("cats", "dogs")
    assert [label for _, label in photo_set.photos[:4]] == ["cats", "dogs", "cats", "dogs"]
    lists = photos.make_lists(photo_set, 45, tmp_path)
    assert len({path for path, _ in lists.rows}) == 45
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 45
    assert len(list(lists.folder.glob("*/*.jpg"))) == 45
    # An image that occurs twice is embedded once, so repetitions differ in their bytes, and not in their pixels.
    contents = [pathlib.Path(path).read_bytes() for path, _ in lists.rows]
    assert len(set(contents)) == 45
    np.testing.assert_array_equal(decode_image(contents[41]), decode_image(contents[1]))


def test_a_folder_without_photos_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="photos"):
        photos.find_photos(str(tmp_path))


def test_the_steady_state_ends_before_the_last_image_is_read():
    # 10 rows a second from the second second on; the last image is read at 6 s, what follows is only drained, fast.
    notes = [(2 + second, 10 * second) for second in range(1, 6)] + [(7.1, 60), (7.2, 70), (7.3, 80), (7.4, 90)]
    run_ = embedding.EmbedRun(seconds=8, rows=90, notes=tuple(notes), last_read=6.0, report={})
    assert run_.steady_rate() == pytest.approx(10)
    with pytest.raises(ValueError, match="too few"):
        embedding.EmbedRun(seconds=8, rows=90, notes=tuple(notes), last_read=0.5, report={}).steady_rate()


def test_the_saturated_rate_is_the_engine_s():
    rate = engines.saturated_rate(SlowEngine(), np.zeros((3, 32, 32, 3), np.uint8), 0.3)
    assert 300 < rate < 1000  # 4 images in 4 ms and a little


def test_pipeline(photo_folder, stand_in_engines, capsys):
    flags = ["--photos", str(photo_folder), "--seconds", "0.2", "--rounds", "2", "--rows", "600", "--peer_images", "0"]
    pipeline.main([*flags, "--choices", "openvino/bfloat16", "openvino/int8"])
    result = result_of(capsys)
    assert [row["target"] for row in result["rows"]] == [">= 0.95", ">= 0.95"]
    assert all(one["ours"] > 0 and one["bound"] > 0 and one["ratio"] > 0 for one in result["measured"])


def test_peers(photo_folder, tmp_path, monkeypatch):
    keras = pytest.importorskip("keras")
    peers = pytest.importorskip("benchmarks.peers")
    model = keras.Sequential([keras.layers.Input((299, 299, 3)), keras.layers.GlobalAveragePooling2D()])
    monkeypatch.setattr(peers, "_model", lambda *_: model)
    lists = photos.make_lists(photos.find_photos(str(photo_folder)), 70, tmp_path)
    assert peers.keras_predict_rate(str(lists.folder)) > 0
    assert peers.run_inference_rate(lists.list_path, str(tmp_path / "out" / "all")) > 0
    assert list((tmp_path / "out").glob("all-*.tfrecord"))


def test_pipeline_figures_hold_ours_against_the_peers():
    measured = [{"choice": "openvino/bfloat16", "ours": 60.0, "bound": 61.0, "ratio": 60 / 61}]
    rows = pipeline.figures(measured, {"keras": 12.0, "beam": 6.0})
    assert [(row.target, row.met) for row in rows] == [(">= 0.95", True), (">= 6", False), (">= 10", True)]


def test_networks(photo_folder, monkeypatch, capsys):
    """Two networks of different sizes, of which one has no engine here; the engines and Keras are stand-ins."""
    kept = {"openvino/bfloat16": SlowEngine(), "mobilenet_0.25_128, openvino/bfloat16": SlowEngine()}
    monkeypatch.setattr(engines, "_kept", kept)
    peers = pytest.importorskip("benchmarks.peers")
    sizes = []

    def keras_predict_rate(folder, backbone):
        sizes.append(backbone.image.size)
        return 10.0

    monkeypatch.setattr(peers, "keras_predict_rate", keras_predict_rate)
    flags = ["--photos", str(photo_folder), "--seconds", "0.2", "--rounds", "1", "--rows", "600"]
    networks.main([*flags, "--networks", "inception_v3", "mobilenet_0.25_128", "--choices", "openvino/bfloat16"])
    result = result_of(capsys)
    assert [one["network"] for one in result["networks"]] == ["inception_v3", "mobilenet_0.25_128"]
    assert sizes == [299, 299, 128, 128]
    assert len(result["rows"]) == 4
    assert all(one["keras"] == 10 and one["ours"] > 0 and one["bound"] > 0 for one in result["networks"])


def test_training_on_views_beside_a_loop_that_distorts_in_each_step(photo_folder, capsys):
    flags = ["--photos", str(photo_folder), "--quick", "--steps", "10", "--batch_size", "4", "--peer_steps", "2"]
    training_on_views.main([*flags, "--backbone", "mobilenet_0.25_128"])
    result = result_of(capsys)
    assert len(result["rows"]) == 2
    assert all(row["ratio"] > 0 for row in result["rows"])


def test_distortions_are_those_of_retrain_py(photo_folder):
    tf = pytest.importorskip("tensorflow")
    path = str(next(photo_folder.rglob("*.jpg")))
    distort = training_on_views.Distortion(size=32, flip_left_right=True, crop=20, scale=10, brightness=30)
    squares = np.stack([distort(tf.constant(path), tf.constant([0, seed])).numpy() for seed in range(40)])
    assert squares.shape == (40, 32, 32, 3)
    plain = training_on_views.Distortion(size=32, flip_left_right=False, crop=0, scale=0, brightness=0)
    first = plain(tf.constant(path), tf.constant([0, 0])).numpy()
    assert (plain(tf.constant(path), tf.constant([0, 1])).numpy() == first).all()
    ratios = squares.mean(axis=(1, 2, 3)) / first.mean()
    assert 0.6 < ratios.min() < 0.85 and 1.15 < ratios.max() < 1.4  # Not clipped: the mean of the photo is near 128.


def test_fidelity(photo_folder, stand_in_engines, capsys):
    fidelity.main(["--photos", str(photo_folder), "--seeds", "2"])
    result = result_of(capsys)
    assert len(result["rows"]) == 6
    assert all(row["met"] is not None for row in result["rows"])


def test_twins(photo_folder, monkeypatch, capsys):
    monkeypatch.setattr(engines, "load", lambda *_: SlowEngine())
    twins.main(["--photos", str(photo_folder), "--quick", "--hashes", "5000"])
    rows = {row["figure"]: row for row in result_of(capsys)["rows"]}
    assert rows["5,000 hashes: recall, up to 40 bits at random places"]["met"]
    # The photos are noise, and so are the numbers of this engine. So it is only seen whether all is counted.
    assert all("/5; lowest" in rows[f"hugs twins: recall, {kind}"]["ours"] for kind in twins.KINDS)
    assert "hugs twins: precision of pairs" in rows


def test_decode(photo_folder, capsys):
    decode.main(["--photos", str(photo_folder), "--size", "1600", "1280", "--quick"])
    rows = result_of(capsys)["rows"]
    assert rows[0]["ratio"] > 0
    assert rows[3]["met"], rows[3]


@pytest.mark.parametrize("parallel", [False, True])
def test_gpu_from_files_to_records(photo_folder, tmp_path, monkeypatch, parallel):
    monkeypatch.setattr(gpu, "is_worthwhile", lambda: parallel)
    monkeypatch.setattr(gpu, "_ROWS_PER_BLOCK", 64)
    lists = photos.make_lists(photos.find_photos(str(photo_folder)), 300, tmp_path)
    measured = gpu.pipeline_rate(SlowEngine(), [path for path, _ in lists.rows], str(tmp_path / "parts"))
    assert measured["rate"] > 0
    assert len(list((tmp_path / "parts").glob("*.tfrecord"))) == 5


def test_gpu_figures_compare_with_the_lower_of_decoding_and_the_device():
    one = {"precision": "float16", "pipeline": 3500.0, "ratio": 0.77, "worst": 0.9999}
    bound, fidelity_to_float32 = gpu.figures([one])
    assert (bound.ratio, bound.met) == (0.77, False)
    assert fidelity_to_float32.met


def test_gpu_without_one_says_what_it_needs(monkeypatch):
    monkeypatch.setattr(gpu, "find_gpu", lambda: None)
    with pytest.raises(InputError, match=r"needs a GPU and JAX for it: pip install '\.\[gpu\]'"):
        gpu.main([])


def test_answers(capsys):
    answers.main(["--rows", "300", "--turns", "1"])
    printed = capsys.readouterr().out
    assert "300 rows with stand-ins: predict_all, against embed" in printed
    assert [run["program"] for run in json.loads(printed.splitlines()[-1])["runs"]] == ["embed", "predict_all"]


def test_overhead(capsys):
    overhead.main(["--rows", "100", "3000"])
    result = result_of(capsys)
    assert [one["rows"] for one in result["runs"]] == [100, 3000]
    # (Not whether it is met: a process that a large one starts counts the memory of that one as well.)
    assert "peak memory" in result["rows"][1]["figure"]


def test_startup_help():
    assert 0 < startup.help_seconds("pipelines.ingest", repeats=1) < 10


# Runs modules as `python -m MODULE --help` does, in one process: their imports take seconds.
_HELP = """
import json, runpy, sys
for name in json.loads(sys.argv[1]):
    sys.argv = [name, "--help"]
    print(f"=={name}==")
    try:
        runpy.run_module(f"benchmarks.{name}", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        assert end.code == 0, (name, end.code)
    else:
        raise AssertionError(name)
"""


@pytest.fixture(scope="module")
def helps():
    """What each benchmark prints for `--help`, by its name."""
    command = [sys.executable, "-c", _HELP, json.dumps(list(run.BENCHMARKS))]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    texts = [text.partition("==\n") for text in f"\n{printed}".split("\n==")[1:]]
    return {name: text for name, _, text in texts}


@pytest.mark.parametrize("name", run.BENCHMARKS)
def test_every_benchmark_takes_the_flags_that_run_passes_on(helps, name):
    assert name in helps[name].partition("\n")[0]
    for quick, all_sizes in ((True, False), (False, False), (False, True)):
        flags = run.flags_of(name, quick=quick, all_sizes=all_sizes)
        assert all(f"{flag} " in helps[name] for flag in flags if flag.startswith("--")), flags
    assert ("--photos DIR" in helps[name]) == run.BENCHMARKS[name].takes_photos


def test_run_puts_results_into_one_table_and_keeps_them_with_the_machine(tmp_path, capsys):
    assert run.main(["--only", "overhead", "--quick", "--results", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "| figure | ours |" in out
    (table,) = tmp_path.glob("20??-??-??-??????-*-cores-quick.md")
    assert "peak memory" in table.read_text()
    text = table.with_suffix(".json").read_text()
    assert out.splitlines()[-1] == str(table.with_suffix(".json"))
    assert json.loads(text)["machine"]["cores"] > 0
    assert socket.gethostname() not in text + table.read_text()


def test_the_share_of_accuracy_that_is_back_has_an_error():
    lost, back = np.array([[0.02, 0.04], [0.03, 0.01]]), np.array([[0.01, 0.03], [0.03, 0.01]])
    share, error = audit.share_back(lost, back)
    assert share == pytest.approx(0.08 / 0.1)
    assert error == pytest.approx(0.0)  # 4 of 5 points are back with either seed
    assert audit.share_back(lost, back * [0.5, 1.5])[1] > 0.3
    assert np.isnan(audit.share_back(lost[:, :1], back[:, :1])[1]) and np.isnan(audit.share_back(-lost, back)[0])


def test_an_audit_of_a_written_set_is_measured(tmp_path, capfd):
    measured = audit_scale.audited(400, str(tmp_path))
    assert measured.core_seconds > 0 and measured.peak_mib > 50 and measured.found > 0.3
    assert not list(tmp_path.iterdir())


def test_the_figures_of_a_number_of_cores_hold_the_chosen_streams_against_the_best():
    one = {
        "cores": 4,
        "hint": 2,
        "chosen": 2,
        "same_bytes": True,
        "rates": {"1": [10.0, 12.0, 11.0], "2": [90.0, 94.0, 98.0], "4": [100.0, 104.0, 102.0]},
        "pipeline": {"ours": 88.0, "bound": 92.0, "ratio": 88 / 92, "noise": 0.01},
    }
    best, same, bound = streams.figures("openvino/bfloat16", one)
    assert (best.ratio, best.met) == (round(94 / 102, 4), False)
    assert best.noise > 0
    assert same.met
    assert bound.met


def test_a_benchmark_that_fails_is_a_row_of_the_table(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(run, "BENCHMARKS", {"absent": run.Benchmark()})
    assert run.main(["--results", str(tmp_path)]) == 1
    (table,) = tmp_path.glob("*.md")
    assert "**failed**" in table.read_text()


def test_the_cost_shows_its_arithmetic_and_a_vcpu_is_half_a_core():
    n2, c3, c3d = costs.MACHINES
    line = costs.cost_of_a_million("openvino/bfloat16", 60.0, 2, c3)
    assert "60.0 images/s / 2 cores = 30.00 a core" in line
    assert "4.63 machine-hours" in line  # 1,000,000 / 60 / 3600
    assert "**$0.93**, as a Spot VM x $0.0315 = $0.15" in line  # 4.6296 h x 0.2016 and x 0.0315
    assert line.endswith("x $0.2809 = $1.30")  # 4.6296 h x (4 x 0.056 + 16 x 0.003557)
    measured = [{"choice": f"openvino/{precision}", "ours": 60.0} for precision in ("float32", "bfloat16", "int8")]
    lines = costs.cost_lines([{"measured": measured, "cores": 2}], ["avx512f"])
    assert sum(n2.name in line for line in lines) == 2  # It has no bfloat16.
    assert sum(c3.name in line for line in lines) == sum(c3d.name in line for line in lines) == 3
    assert "lacks AMX" in lines[-1]
    assert costs.cost_lines([{"rows": []}], []) == []


def test_faults(photo_folder):
    pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")
    rows = faults.measure(num_objects=20, num_shards=2, shard_bytes=1000, latency_sec=0)
    rows += faults.measure_jobs([str(path) for path in photo_folder.rglob("*.jpg")], latency_sec=0)
    assert [row.met for row in rows if row.met is not None] == [True, True]


def test_a_training_step_is_compared_with_the_parts_of_keras():
    row = training.step_row(batch_size=4, steps=2, rounds=1)
    assert row["ratio"] == pytest.approx(row["peer"] / row["ours"], rel=0.05)
    assert row["keras_layers_ms"] > 0 and row["keras_optimizer_ms"] > 0


def test_a_training_step_is_compared_with_its_arithmetic():
    took = training_profile.profile(batch_size=4, rounds=2)
    for figure in training_profile.figures(took):
        assert 0 < figure.ratio < 2
        assert figure.noise is not None


def test_commit_scale(capfd):
    commit_scale.main(["--rows", "2000", "9000", "--labels", "5", "--duplicates", "20"])
    result = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert [one["blocks"] for one in result["runs"]] == [2, 9]
    assert result["runs"][1]["duplicates"]["images"] > 100
    assert result["rows"][1]["met"]


@pytest.mark.parametrize("which", ["check", "pipeline"])
def test_list_passes(tmp_path, which):
    list_passes._write_lists(str(tmp_path), rows=2500, rows_per_list=1000)
    began = []
    assert list_passes._PASSES[which](str(tmp_path), lambda: began.append(which)) == 2500
    assert began == [which]


def test_list_passes_figures():
    run_ = {"rows": 100, "rows_per_list": 100, "cpu_sec": 1e-4, "peak_bytes": 2**27}
    runs = [{**run_, "pass": which, "rows": rows} for which in ("check", "pipeline") for rows in (10, 100)]
    figures = list_passes._figures(runs)
    assert [row.met for row in figures] == [True, True, True, True, True, None]
