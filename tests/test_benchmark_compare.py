"""Two runs of the benchmarks side by side: which differences are more than noise?"""

import json
import pathlib

import pytest

from benchmarks import compare, results_files
from benchmarks.report import Figure, at_least, limit, noise_of
from configs.errors import InputError

HERE = {
    "processor": "AMD EPYC (8)",
    "cores": 2,
    "arithmetic": ["avx512_bf16"],
    "memory_gb": 23.5,
    "load": 0.3,
    "versions": {"openvino": "1"},
}


def run_of(folder, *figures, machine=HERE, quick=False):
    rows = [vars(figure) for figure in figures]
    results = [{"benchmark": "pipeline", "rows": rows, "wall_sec": 1.0, "secret": "/home/someone"}]
    path = results_files.write(folder, machine=machine, results=results, quick=quick, table="the table\n")
    assert "someone" not in pathlib.Path(path).read_text()
    return path


def comparison(capsys, *paths):
    assert compare.main([*paths]) == 0
    return capsys.readouterr().out


def rate(ratio, **noise):
    return Figure(figure="rate", ours=f"{40 * ratio:g} images/s", peer="40 images/s", ratio=ratio, **noise)


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (rate(1.0), rate(1.1), "within noise"),
        (rate(1.0), rate(1.3), "**better**"),
        (rate(1.0), rate(0.8), "**worse**"),
        # Rounds that agree with each other show smaller differences.
        (rate(1.0, noise=0.01), rate(1.1, noise=0.01), "**better**"),
        (rate(1.0, noise=0.3), rate(1.3, noise=0.1), "within noise"),
        # Without a peer: on machines of one kind only, and with the direction that the target says.
        (limit("start", 4, 8, unit="s", at_most=True), limit("start", 9, 8, unit="s", at_most=True), "**worse**"),
        (limit("start", 9, 8, unit="s", at_most=True), limit("start", 4, 8, unit="s", at_most=True), "**better**"),
        (limit("rows", 400, 8, unit="rows/s"), limit("rows", 100, 8, unit="rows/s"), "**worse**"),
        (Figure(figure="size", ours="10 MB"), Figure(figure="size", ours="30 MB"), "changed"),
        (Figure(figure="size", ours="10 MB"), Figure(figure="size", ours="0.03 GB"), "not compared"),
        (Figure(figure="size", ours="none"), Figure(figure="size", ours="none"), "not compared"),
        (Figure(figure="size", ours="1"), Figure(figure="other", ours="1"), "not compared"),
    ],
)
def test_a_difference_counts_if_it_is_larger_than_the_noise(tmp_path, capsys, before, after, verdict):
    paths = [run_of(tmp_path / name, figure) for name, figure in (("a", before), ("b", after))]
    assert f"| {verdict} |" in comparison(capsys, *paths)


def test_on_different_machines_only_ratios_are_compared(tmp_path, capsys):
    other = HERE | {"processor": "Xeon", "arithmetic": ["amx_bf16"], "versions": {"openvino": "2"}}
    start = limit("start", 4, 8, unit="s", at_most=True)
    before = run_of(tmp_path / "a", rate(1.0), start)
    after = run_of(tmp_path / "b", rate(2.0), start, machine=other, quick=True)
    out = comparison(capsys, before, after)
    assert "only ratios to peers" in out
    assert "openvino 1 -> 2" in out
    assert "smaller" in out
    assert "| pipeline | rate | 40 images/s (1x) | 80 images/s (2x) | 2 ± 0.2 | **better** |" in out
    assert "| pipeline | start | 4 s | 4 s |  | not compared |" in out
    assert out.endswith("better: 1, not compared: 1.\n")


def test_the_newest_two_runs_are_compared(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results_files, "FOLDER", tmp_path)
    monkeypatch.setattr(results_files.newest, "__defaults__", (tmp_path,))
    with pytest.raises(InputError, match="two runs are wanted to compare, and here are none. Run make bench"):
        compare.main([])
    for number, name in enumerate(("2026-01-01-000000-x", "2026-01-02-000000-x", "2025-12-31-000000-x")):
        source = run_of(tmp_path / "made", rate(1.0 + number))
        (tmp_path / f"{name}.json").write_bytes(pathlib.Path(source).read_bytes())
    assert "| 40 images/s (1x) | 80 images/s (2x) |" in comparison(capsys)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "No such file"),
        ("", "cannot be read as the results"),
        ("[]", "not the results of benchmarks"),
        ('{"format": 7}', "format must be 1. Received: 7"),
        ('{"format": 1, "machine": {}}', "not the results of benchmarks .no 'processor'"),
        (json.dumps({"format": 1, "machine": HERE, "when": "", "quick": 0, "results": [{"rows": [{}]}]}), "'figure'"),
    ],
)
def test_files_of_other_kinds_are_one_line(tmp_path, text, words):
    path = tmp_path / "a.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        compare.main([str(path), str(path)])
    assert "\n" not in str(caught.value)


def test_noise_is_half_of_the_range_of_the_rounds():
    assert noise_of([0.9, 1.0, 1.1]) == pytest.approx(0.1)
    assert noise_of([1.0]) is None
    assert at_least("a", 12, 2, 5, unit="images/s").noise is None


def test_results_that_are_committed_can_be_read():
    for path in results_files.FOLDER.glob("*.json"):
        assert results_files.read(str(path))["results"]
