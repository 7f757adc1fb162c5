"""Thirty faults, each made as it comes about: `hugs why` names the right cause in its first line, and no other."""

import dataclasses
import errno
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from configs.errors import InputError
from configs.printed_commands import program_words
from pipelines import embed, ingest, preproc, why
from pipelines.diagnosis import look, places
from preprocess.jobs import commit
from preprocess.locks.lock_holder import this_process
from preprocess.machine.machine_faults import MachineFault
from preprocess.machine.run_note import RunNote, noted
from preprocess.storage.base import LocalStorage
from tests.support.programs import ROOT, start_program

LABELS = ("daisy", "rose")
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)


@pytest.fixture(autouse=True)
def time_enough(monkeypatch):
    """However slow this machine is, nothing is left out for lack of time."""
    monkeypatch.setattr(look, "BUDGET_SEC", 600.0)
    monkeypatch.setattr(places, "SEARCH_SEC", 600.0)


def photo(path, seed, side=9):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.RandomState(seed).randint(0, 256, (side, side, 3), np.uint8)).save(path)


def write_list(folder, rows, name="train"):
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data/dict.txt").write_text("".join(f"{label}\n" for label in LABELS))
    (folder / f"data/{name}.csv").write_text("".join(f"{row}\n" for row in rows))


def rows_of(count):
    return [f"../photos/{LABELS[n % 2]}/{n}.png,{LABELS[n % 2]}" for n in range(count)]


def flags_of(name="train", *more):
    paths = [
        "--input_path",
        f"data/{name}.csv",
        "--input_dict",
        "data/dict.txt",
        "--output_path",
        f"out/preproc/{name}",
    ]
    return [*paths, "--weights", "random", "--rows_per_shard", "4", *more]


def run(*more, name="train"):
    return embed.main(flags_of(name, *more))


@pytest.fixture
def folder(tmp_path, monkeypatch, engine):
    """Twelve photos of two classes and their list. Jobs here embed with a stand-in for the network."""
    monkeypatch.chdir(tmp_path)
    for number in range(12):
        photo(tmp_path / f"photos/{LABELS[number % 2]}/{number}.png", number)
    write_list(tmp_path, rows_of(12))
    return tmp_path


@pytest.fixture
def ask(capsys):
    """Asks, and gives the first line of the answer, and all of it. Nothing on the disk is changed by that."""

    def ask(what, *flags):
        before = snapshot()
        capsys.readouterr()
        assert why.main([str(what), *flags]) == 0
        text = capsys.readouterr().out
        assert snapshot() == before
        first = text.splitlines()[0]
        print(f"FIRST LINE: {first}")  # For those who read the tests' output: pytest -rP.
        return first, text

    return ask


def snapshot():
    return {path: path.lstat().st_mtime_ns for path in pathlib.Path().rglob("*") if ".result" not in path.name}


def command_in(text, words="to go on"):
    line = next(line for line in text.splitlines() if line.strip().startswith(words))
    return line.strip().removeprefix(words).strip()


def give(command):
    """Runs a printed command of `hugs embed` in this process."""
    words = shlex.split(command)
    start = program_words("embed")
    assert words[: len(start)] == start
    return embed.main(words[len(start) :])


# Photos.


@pytest.fixture(scope="module")
def messy(tmp_path_factory):
    """A folder with a finished set of a list in which much is wrong, made once for many questions."""
    from preprocess.beam.transforms import EngineLoader
    from tests.support.slow_job import SlowEngine

    folder = tmp_path_factory.mktemp("messy")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        engine = SlowEngine(0)
        patch.setattr(EngineLoader, "__call__", lambda self: engine)
        for number in range(12):
            photo(folder / f"photos/{LABELS[number % 2]}/{number}.png", number)
        rose = folder / "photos/rose"
        whole = (rose / "1.png").read_bytes()
        (rose / "corrupt.png").write_bytes(whole[: len(whole) // 2])
        (rose / "phone.heic").write_bytes(HEIC)
        (rose / "camera.cr2").write_bytes(b"II*\0\x10\0\0\0CR\x02\0" + bytes(64))
        (rose / "large.png").write_bytes(whole + bytes(90_000))
        (rose / "copy of 2.png").write_bytes((folder / "photos/daisy/2.png").read_bytes())
        rows = rows_of(12)
        rows += [f"../photos/rose/{name},rose" for name in ("missing.png", "corrupt.png", "phone.heic", "camera.cr2")]
        rows += ["../photos/rose/large.png,rose", "../photos/rose/3.png,tulip", "", "../photos/rose/copy of 2.png,rose"]
        write_list(folder, rows)
        run("--unknown_labels", "skip", "--max_failed_percent", "100", "--max_image_bytes", "60000")
        write_list(folder, ["../photos/rose/5.png,rose", "../photos/daisy/0.png,daisy"], "eval")
        run("--against", "out/preproc/train", name="eval")
        write_training(folder / "out/training")
    return folder


def write_training(folder):
    """What a training leaves that `why` reads, as trainer.reports writes it."""
    (folder / "model").mkdir(parents=True)
    (folder / "model/saved_model.pb").touch()
    sets = {"train": ["out/preproc/train"], "eval": ["out/preproc/eval"]}
    metrics = {"eval": {"accuracy": 0.5, "examples": 2}, "record_sets": sets, "warnings": [], "steps": 9}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    lines = [
        "set,uri,label,prediction,correct,confident,score,score_daisy,score_rose",
        "eval,../photos/rose/5.png,rose,daisy,0,1,0.97,0.97,0.03",
        "eval,../photos/daisy/0.png,daisy,daisy,1,1,0.99,0.99,0.01",
    ]
    (folder / "predictions.csv").write_text("".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize(
    ("what", "cause"),
    [
        (
            "photos/rose/missing.png",
            r"missing\.png: it was not embedded, because it failed \(read, not_found\): No such",
        ),
        ("corrupt.png", r"it was not embedded, because it failed \(decode, truncated\)"),
        ("phone.heic", r"it was not embedded, because it failed \(decode, (unsupported_format\): .*HEIC|corrupt\): .)"),
        ("camera.cr2", r"it was not embedded, because it failed \(decode, unsupported_format\): .*RAW"),
        ("large.png", r"it was not embedded, because it failed \(read, too_large\)"),
        ("data/train.csv:18", r"its row was skipped by a rule, unknown_label: .*tulip"),
        ("train.csv:19", r"train\.csv:19: its row was skipped by a rule, blank_line"),
        (
            "copy of 2.png",
            r"the same image is in out/preproc/train more than once, under different labels, as \S*2\.png \('daisy'\)",
        ),
        (
            "photos/daisy/0.png",
            r"it stands in several lists, train and eval, .*the same image is also in the set out/pre",
        ),
        (
            "../photos/rose/5.png",
            r"the model of out/training takes it for 'daisy' with the score 0\.97, confident, and its label is 'rose'",
        ),
        ("photos/daisy/4.png", r"4\.png: it is embedded, in out/preproc/train$"),
        ("out/preproc/train", r"is finished: 13 of 20 rows embedded, 5 failed, 2 skipped"),
    ],
)
def test_photos_and_rows(messy, monkeypatch, ask, what, cause):
    monkeypatch.chdir(messy)
    first, _ = ask(what)
    assert re.search(cause, first), first


def test_a_photo_that_failed_is_tried_again_by_the_printed_command(folder, ask):
    (folder / "photos/rose/7.png").rename(folder / "7.png")
    run()
    (folder / "7.png").rename(folder / "photos/rose/7.png")
    first, text = ask("photos/rose/7.png")
    assert "failed (read, not_found)" in first
    assert "../photos/rose/7.png is there" in text
    assert give(command_in(text, "try again")) == 0
    first, _ = ask("rose/7.png")
    assert first == "../photos/rose/7.png: it is embedded, in out/preproc/train"


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        (
            "photos/rose/film.mp4",
            b"\0\0\0\x18ftypmp42",
            r"because hugs ingest leaves it out: MP4 or QuickTime video is not read; extract",
        ),
        ("photos/rose/shot.nef", b"MM\0*\0\0\0\x08", r"because hugs ingest leaves it out: .*RAW"),
        (
            "photos/loose.png",
            None,
            r"because hugs ingest leaves it out: it lies directly in .*/photos, not in a folder",
        ),
        ("photos/rose/.hidden.png", None, r"because hugs ingest leaves it out: '\.hidden\.png' is hidden"),
    ],
)
def test_what_ingest_leaves_out(folder, ask, name, content, cause):
    if content is None:
        photo(folder / name, 1)
    else:
        (folder / name).write_bytes(content)
    ingest.main(["--image_dir", "photos", "--output_dir", "data", "--eval_percent", "40"])
    first, _ = ask(name)
    assert re.search(f"is in no list, {cause}", first), first


def test_a_photo_that_came_after_the_lists(folder, ask):
    old = time.time() - 100
    os.utime(folder / "data/train.csv", (old, old))
    time.sleep(0.02)
    photo(folder / "photos/rose/new.png", 99)
    first, _ = ask("photos/rose/new.png")
    assert "new.png: is in no list: it came after the lists were written" in first


def test_a_name_that_nothing_knows_is_one_line_with_the_nearest(folder):
    with pytest.raises(InputError, match=r"nothing is known of it .*Near it: \.\./photos/rose/11\.png"):
        why.main(["111.png"])
    with pytest.raises(InputError, match=r"\.png: fits 12 images or more, such as .* Name one of them"):
        why.main([".png"])


# Jobs.


def slow(folder, *more, batch_sec=0.2, **popen):
    words = ["-m", "tests.support.slow_job", str(batch_sec), *flags_of("train", *more)]
    return start_program(words, {"PYTHONPATH": str(ROOT)}, cwd=folder, **popen)


def wait_for(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.fixture
def many(folder):
    for number in range(12, 120):
        photo(folder / f"photos/{LABELS[number % 2]}/{number}.png", number)
    write_list(folder, rows_of(120))
    return folder


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (
            signal.SIGKILL,
            r"is not finished: its process is gone without a word, as after kill -9, .* is not written down",
        ),
        (signal.SIGINT, r"is not finished: it was stopped by Ctrl-C \(SIGINT\)$"),
        (signal.SIGTERM, r"is not finished: it was stopped by SIGTERM, which"),
    ],
)
def test_a_job_that_was_ended(many, ask, number, cause):
    process = slow(many)
    wait_for(lambda: list(many.glob("out/preproc/_train/parts-*/*.result.json")), process)
    if number == signal.SIGKILL:
        os.killpg(process.pid, signal.SIGSTOP)
        first, text = ask("out/preproc/train")
        assert re.search(rf"is being written at this moment, by pipelines\.embed, process {process.pid} of", first)
        assert "rows embedded of 120 rows" in text
        first, _ = ask("daisy/118.png")
        assert "it is not embedded yet: its set out/preproc/train is being written at this moment" in first
    os.killpg(process.pid, number)
    process.communicate()
    first, text = ask("out/preproc/train")
    assert re.search(cause, first), first
    kept = int(re.search(r"kept +(\d+) rows embedded of 120 rows", text)[1])
    assert 4 <= kept < 120
    assert "which does not live any more; the next run takes it over" in text
    first, _ = ask("daisy/118.png")
    assert "it is not embedded yet: its set out/preproc/train is not finished" in first
    first, _ = ask("daisy/0.png")
    assert "it is embedded already, but its set out/preproc/train is not finished" in first
    assert give(command_in(text)) == 0
    assert not list(many.glob("out/preproc/_train/parts-*"))
    report = json.loads((many / "out/preproc/_train/report.json").read_text())
    assert report["embedded_by"]["earlier_run"] >= kept


def test_a_full_disk(many, ask):
    import resource

    def limit_file_size():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))

    process = slow(many, "--rows_per_shard", "120", batch_sec=0.0, preexec_fn=limit_file_size)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 2, stderr
    first, text = ask("out/preproc/train")
    assert re.search(r"is not finished: it was stopped by an error: .*storage failed \(.*File too large", first), first
    assert give(command_in(text)) == 0


class Failing:
    """Stands in for a fault: of the disk or of a service, in the middle of a job."""

    def __init__(self, engine, error, after):
        self._embed, self._error, self.left = engine.embed, error, after
        engine.max_pending = 1  # Of batches that run at once, the first may be the one that fails.

    def __call__(self, pixels):
        self.left -= 1
        if self.left < 0:
            raise self._error
        return self._embed(pixels)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "out/x"),
            r"an error: .*storage failed \(No space left on dev",
        ),
        (
            MachineFault("gs://bucket/photos: the service did not answer for 120 s (503)."),
            r"the service did not answer for",
        ),
        (ZeroDivisionError("of the program"), r"by a fault of the program or of a library: .*of the program"),
    ],
)
def test_a_job_that_met_a_fault(folder, ask, engine, error, cause):
    embed_well = engine.embed
    engine.embed = Failing(engine, error, after=1)
    with pytest.raises(Exception, match=r".*"):
        run("--batch_size", "4")
    engine.embed = embed_well
    first, text = ask("out/preproc/train")
    assert re.search(rf"is not finished: it was (stopped|ended) by .*{cause.removeprefix('by ')}", first), first
    assert give(command_in(text)) == 0
    first, _ = ask("out/preproc/train")
    assert first == "out/preproc/train: is finished: 12 of 12 rows embedded"


def test_too_many_failed(folder, ask):
    for number in (1, 3, 5):
        (folder / f"photos/rose/{number}.png").write_text("no image")
    with pytest.raises(InputError):
        run()
    first, text = ask("out/preproc/train")
    assert re.search(r"the job failed: 25 % of the rows to embed failed, .*Reasons: not_an_image 3$", first), first
    assert re.search(r"for example data/train\.csv:2: ", text)
    first, _ = ask("rose/3.png")
    assert "it was not embedded, because it failed (decode, not_an_image)" in first
    first, _ = ask("rose/7.png")
    assert "it is embedded already, but the job of its set out/preproc/train failed: 25 %" in first
    for number in (1, 3, 5):
        photo(folder / f"photos/rose/{number}.png", number)
    assert give(command_in(text)) == 0


def test_nothing_embedded(folder, ask):
    shutil.rmtree(folder / "photos")
    with pytest.raises(InputError):
        run()
    first, text = ask("out/preproc/train")
    assert "the job failed: None of 12 rows could be embedded. Reasons: not_found 12" in first
    assert re.search(r"kept +0 rows embedded of 12 rows, 12 failed", text)


def begin(engine, *more):
    """Begins a job that is stopped by a fault after its first block."""
    embed_well = engine.embed
    engine.embed = Failing(engine, MachineFault("the disk does not answer."), after=1)
    with pytest.raises(InputError):
        run("--batch_size", "4", *more)
    engine.embed = embed_well


def test_a_list_that_changed_midway(folder, ask, engine):
    begin(engine)
    with (folder / "data/train.csv").open("a") as stream:
        stream.write("../photos/rose/1.png,rose\n")
    first, text = ask("out/preproc/train")
    assert re.search(
        r"the disk does not answer\.?; and the list \S*data/train\.csv has changed since the job began", first
    )
    assert "--overwrite" in command_in(text, "or anew")


def test_a_list_that_changed_while_the_job_ran(folder, ask):
    parts = folder / "out/preproc/_train/parts-0123456789ab"
    parts.mkdir(parents=True)
    (parts / "job.json").write_text("{}")
    note = RunNote(str(parts), LocalStorage(), module="pipelines.embed", arguments=flags_of())
    with pytest.raises(InputError), noted(note):
        raise InputError("data/train.csv: the list changed after it was checked, so none of its rows was embedded.")
    first, _ = ask("out/preproc/train")
    assert "stopped by an error: data/train.csv: the list changed after it was checked" in first


def test_a_dictionary_that_changed(folder, ask, engine):
    begin(engine)
    (folder / "data/dict.txt").write_text("rose\ndaisy\n")
    first, _ = ask("out/preproc/train")
    assert re.search(
        r"and the dictionary \S*data/dict\.txt has changed since the job began, so the ids of labels", first
    )


def test_a_job_that_was_begun_with_other_options(folder, ask, engine):
    begin(engine, "--compression", "gzip")
    with pytest.raises(InputError, match="differs from this one in compression"):
        run()
    first, text = ask("out/preproc/train")
    assert "is not finished: it was stopped by an error: the disk does not answer" in first
    assert "--compression gzip" in command_in(text)
    # Without the note, the command is made of the job's definition.
    (note,) = folder.glob("out/preproc/_train/parts-*/last_run.json")
    note.unlink()
    first, text = ask("out/preproc/train")
    assert "is not finished: what stopped it is not written down" in first
    assert "--compression gzip" in command_in(text)
    assert give(command_in(text)) == 0
    assert json.loads((folder / "out/preproc/_train/report.json").read_text())["embedded_by"]["earlier_run"] == 4


def test_a_set_that_is_damaged(folder, ask):
    run()
    shard = folder / "out/preproc/train-00001-of-00003.tfrecord"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
    first, text = ask("out/preproc/train")
    assert f"is damaged: {shard.relative_to(folder)} is not what was written (another SHA-256)" in first
    assert give(command_in(text, "to repair")) == 0
    assert shard.read_bytes() == whole
    shard.write_bytes(whole[:-3])
    first, _ = ask("out/preproc/train")
    assert re.search(r"is damaged: the shard \S+ has [\d,]+ bytes, the manifest says", first)
    shard.unlink()
    first, text = ask(shard.relative_to(folder))
    assert "is damaged: the shard out/preproc/train-00001-of-00003.tfrecord is not there (4 records)" in first
    first, _ = ask("daisy/4.png")
    assert "it was embedded, but the shard that held it is gone: out/preproc/train-00001-of-00003.tfrecord" in first
    assert give(command_in(text, "to repair")) == 0
    assert shard.read_bytes() == whole


def test_a_set_without_its_manifest_or_report(folder, ask):
    run()
    side = folder / "out/preproc/_train"
    manifest, report = ((side / name).read_bytes() for name in ("manifest.json", "report.json"))
    (side / "manifest.json").unlink()
    first, text = ask("out/preproc/_train")
    assert "its manifest is gone (out/preproc/_train/manifest.json is not there)" in first
    assert give(command_in(text, "to repair")) == 0
    (side / "report.json").unlink()
    first, _ = ask("out/preproc/train")
    assert "report.json, which says how it was made, is gone" in first
    (side / "manifest.json").write_bytes(manifest.replace(b'"format": 1', b'"format": 0'))
    (side / "report.json").write_bytes(report)
    first, text = ask("out/preproc/train")
    assert "its manifest cannot be used: out/preproc/_train/manifest.json: manifest format 0, but this version" in first
    assert "--overwrite" in command_in(text, "to repair")
    shutil.rmtree(side)
    first, _ = ask("out/preproc/train")
    assert "3 shards without a manifest, a report or unfinished work" in first


def test_a_set_of_an_older_version(folder, ask):
    run()
    path = folder / "out/preproc/_train/report.json"
    report = json.loads(path.read_text())
    path.write_text(json.dumps({**{k: v for k, v in report.items() if k not in ("files", "duplicates")}, "format": 1}))
    first, _ = ask("out/preproc/train")
    assert "was finished by an earlier version (its report has format 1): 12 of 12 rows embedded" in first


def test_a_lock_of_a_dead_process_and_nothing_else(folder, ask):
    script = "from preprocess.locks.lock_holder import *; print(this_process(program='x').to_text())"
    dead = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    (folder / "out/preproc/_train").mkdir(parents=True)
    (folder / "out/preproc/_train/.lock").write_text(dead)
    first, text = ask("out/preproc/train")
    assert "nothing is embedded; a run locked the output and was gone before it began" in first
    assert "which does not live any more; the next run takes it over by itself" in text
    (folder / "out/preproc/_train/.lock").write_text(this_process(program="pipelines.embed").to_text())
    first, _ = ask("out/preproc/train")
    assert "is being written at this moment, by pipelines.embed, process" in first


def test_lists_that_were_being_replaced(folder, ask):
    (folder / "data/dict.txt").rename(folder / "data/.dict.txt.new")
    first, _ = ask("data")
    assert "the lists have no dict.txt, so nothing reads them: hugs ingest was stopped while it replaced" in first


def test_a_bucket_that_is_away_is_one_line(monkeypatch):
    pytest.importorskip("google.cloud.storage")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"gs://bucket/out/train: cannot be looked at \(.*\)\. Check"):
        why.main(["gs://bucket/out/train"])


def test_a_lack_of_time_is_said(folder, ask, monkeypatch):
    run()
    monkeypatch.setattr(look, "BUDGET_SEC", 0.0)
    first, text = ask("out/preproc/train")
    assert first == "out/preproc/train: is finished: 12 of 12 rows embedded"
    assert "of 7 files only the size was compared" in " ".join(text.split())
    monkeypatch.setattr(places, "SEARCH_SEC", 0.0)
    with pytest.raises(InputError, match=r"nothing is known|is found in the current folder"):
        why.main(["nowhere.png"])


# Where jobs and lists may lie.


def test_a_job_directory_goes_on_with_all_its_lists(folder, ask, engine, monkeypatch):
    write_list(folder, rows_of(12)[:8], "eval")
    words = ["--data_dir", "data", "--weights", "random", "--rows_per_shard", "4", "--batch_size", "4"]
    embed_well = engine.embed
    engine.embed = Failing(engine, MachineFault("the disk does not answer."), after=4)
    with pytest.raises(InputError):
        preproc.main(words)
    engine.embed = embed_well
    (job_dir,) = (folder / "data").glob("hugs_*")
    monkeypatch.chdir(folder / "photos")  # The command that goes on names the folder that it is to be given in.
    first, text = ask(job_dir)
    assert re.search(r"preproc/eval: is not finished: it was stopped by an error: .*the disk does not answer", first), (
        first
    )
    assert re.search(r"kept +4 rows embedded of 8 rows", text)
    assert re.search(r"also +\S+/preproc/train: is finished: 12 of 12 rows embedded", text)
    command = command_in(text)
    assert command.startswith(f"cd {folder} && ")
    assert f"--data_dir data --job_dir data/{job_dir.name} --weights random" in command
    monkeypatch.chdir(folder)
    given = shlex.split(command_in(ask(f"data/{job_dir.name}")[1]))
    assert preproc.main(given[len(program_words("preproc")) :]) == 0
    first, text = ask(f"data/{job_dir.name}")
    assert re.search(r"preproc/train: is finished: 12 of 12 rows embedded$", first), first


def test_a_set_that_was_stopped_while_it_was_put_together(folder, ask, monkeypatch):
    def stop(*args, **kwargs):
        raise OSError(errno.EIO, "Input/output error", "out/preproc/train-0")

    with monkeypatch.context() as patch:
        patch.setattr(commit, "make_set", stop)
        with pytest.raises(InputError):
            run()
    first, text = ask("out/preproc/train")
    assert "all rows are done, and the set is not put together yet: it was stopped by an error" in first
    assert "Input/output error" in first
    assert give(command_in(text)) == 0


def test_a_job_in_a_bucket(folder, ask, engine, monkeypatch):
    pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")
    from tests.support.faulty_gcs import FaultyGcs

    with FaultyGcs(buckets=["bucket"]) as gcs:
        for name, value in gcs.environment.items():
            monkeypatch.setenv(name, value)
        begin(engine, "--output_path", "gs://bucket/out/preproc/train")
        before = gcs.names("bucket")
        first, text = ask("gs://bucket/out/preproc/train")
        assert first.startswith("gs://bucket/out/preproc/train: is not finished: it was stopped by an error: ")
        assert "the disk does not answer" in first
        assert re.search(r"kept +1 finished block of at most 4 rows each, of 12 rows in all", text), text
        first, _ = ask("gs://bucket/out")
        assert "the disk does not answer" in first
        first, _ = ask("daisy/8.png", "--in", "gs://bucket/out")
        assert "8.png: it is not embedded yet: its set gs://bucket/out/preproc/train is not finished" in first
        assert gcs.names("bucket") == before
        assert give(command_in(text)) == 0
        first, _ = ask("gs://bucket/out/preproc/train")
        assert first == "gs://bucket/out/preproc/train: is finished: 12 of 12 rows embedded"
        first, _ = ask("daisy/8.png", "--in", "gs://bucket/out")
        assert first == "../photos/daisy/8.png: it is embedded, in gs://bucket/out/preproc/train"


def test_a_photo_in_a_bucket_needs_no_network(folder, ask, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    write_list(folder, ["gs://bucket/daisy/1.png,daisy"])
    first, _ = ask("gs://bucket/daisy/1.png")
    assert first == "gs://bucket/daisy/1.png: it is not embedded: no set of data/train.csv is found"


def test_a_list_that_was_refused_for_a_label(folder, ask):
    write_list(folder, [*rows_of(12), "../photos/rose/1.png,tulip", "../photos/rose/none.png,rose"])
    with pytest.raises(InputError, match="tulip"):
        run()
    first, _ = ask("data/train.csv:13")
    assert (
        "no set of data/train.csv is found; its label 'tulip' is not in data/dict.txt, so hugs embed refuses" in first
    )
    first, _ = ask("none.png")
    assert first.endswith("no set of data/train.csv is found; there is no file data/../photos/rose/none.png")


def test_a_folder_that_was_moved_with_all_that_is_in_it(folder, ask, monkeypatch, tmp_path_factory):
    (folder / "photos/rose/3.png").unlink()
    run()
    moved = tmp_path_factory.mktemp("elsewhere") / "moved"
    folder.rename(moved)
    monkeypatch.chdir(moved)
    first, _ = ask("rose/3.png")
    assert "because it failed (read, not_found)" in first
    first, _ = ask("rose/5.png")
    assert first == "../photos/rose/5.png: it is embedded, in out/preproc/train"


def test_rows_whose_fields_hold_line_breaks(folder, ask):
    rows = [f'"../photos/{LABELS[n % 2]}/{n}.png","{LABELS[n % 2]}\n"' for n in range(12)]
    write_list(folder, rows)
    run()
    first, _ = ask("daisy/8.png")
    assert first == "../photos/daisy/8.png: it is embedded, in out/preproc/train"


def test_a_row_that_came_to_a_list_after_it_was_embedded(folder, ask):
    run()
    photo(folder / "photos/rose/late.png", 77)
    write_list(folder, [*rows_of(12), "../photos/rose/late.png,rose"])
    first, _ = ask("late.png")
    assert first.endswith(
        "is not in the set out/preproc/train: the list data/train.csv has changed since it was embedded"
    )
    first, _ = ask("daisy/8.png")
    assert first == "../photos/daisy/8.png: it is embedded, in out/preproc/train"


def test_a_list_by_its_own_name(folder, ask):
    first, _ = ask("data/train.csv")
    assert first == "data/train.csv: is not embedded: no set of this list is found"
    run()
    first, _ = ask("train.csv")
    assert first == "out/preproc/train: is finished: 12 of 12 rows embedded"


def test_lists_of_other_folders_are_of_other_models(folder, ask):
    run()
    (folder / "other").mkdir()
    shutil.copy("data/train.csv", "other/eval.csv")
    embed.main([*flags_of("train")[2:], "--input_path", "other/eval.csv", "--output_path", "other/preproc/eval"])
    first, text = ask("daisy/8.png")
    assert "several lists" not in text
    assert re.fullmatch(r"../photos/daisy/8.png: it is embedded, in \S+ and \S+", first)


def test_answers_are_no_list(folder, ask):
    run()
    (folder / "out/_answers").mkdir()
    (folder / "out/_answers/begun.json").write_text("{}")
    answers = "image_uri,label,score\n../photos/daisy/8.png,rose,0.9\n"
    (folder / "out/answers-00000-of-00001.csv").write_text(answers)
    first, text = ask("daisy/8.png")
    assert first == "../photos/daisy/8.png: it is embedded, in out/preproc/train"
    assert "answers" not in text
    # A list may be named like answers.
    shutil.copy("data/train.csv", "data/more-00000-of-00001.csv")
    _, text = ask("daisy/8.png")
    assert "data/more-00000-of-00001.csv: no set is made of it" in text


def test_a_lock_of_another_machine_is_not_taken_for_a_process_that_lives(folder, ask):
    (folder / "out/preproc/_train").mkdir(parents=True)
    other = dataclasses.replace(this_process(program="pipelines.embed"), host="elsewhere", machine="other 1")
    (folder / "out/preproc/_train/.lock").write_text(other.to_text())
    first, _ = ask("out/preproc/train")
    assert "is locked by pipelines.embed, process" in first
    assert "whether that still lives cannot be seen from here" in first
    job = dataclasses.replace(
        this_process(program="pipelines.embed"),
        pid=2**30,
        service_job=("p", "us-central1", "hugs-train"),
        handed_over=True,
    )
    (folder / "out/preproc/_train/.lock").write_text(job.to_text())
    first, _ = ask("out/preproc/train")
    assert "is locked by the job hugs-train in project p, region us-central1, started by" in first


def test_storage_without_locks(folder, ask, engine):
    begin(engine)
    (note,) = folder.glob("out/preproc/_train/parts-*/last_run.json")
    content = json.loads(note.read_text())
    del content["ended"]
    for changes, words in (
        ({}, f"process {os.getpid()} on .* may still be at it"),
        ({"pid": 2**30}, "its process is gone without a word"),
        ({"host": "elsewhere"}, f"it may still be at it, or be gone: process {os.getpid()} on elsewhere wrote no end"),
    ):
        note.write_text(json.dumps({**content, **changes}))
        first, _ = ask("out/preproc/train")
        assert re.search(f"is not finished: {words}", first), first


def test_names_with_commas_quotes_and_letters_of_all_kinds_and_json_lines(folder, ask):
    names = ['a, "b".png', "été 雏菊.png", "it's.png"]
    for seed, name in enumerate(names):
        photo(folder / "photos/rose" / name, seed)
    (folder / "data/train.jsonl").write_text(
        "".join(
            json.dumps({"image": f"../photos/rose/{name}", "label": "rose"}, ensure_ascii=False) + "\n"
            for name in names
        )
        + '{"image": "../photos/rose/gone \\"x\\".png", "label": "rose"}\n'
    )
    paths = ["--input_path", "data/train.jsonl", "--input_dict", "data/dict.txt", "--output_path", "out/preproc/train"]
    embed.main([*paths, "--weights", "random", "--max_failed_percent", "50", "--compression", "gzip"])
    (folder / "data/train.csv").unlink()
    for name in names:
        first, _ = ask(name)
        assert first == f"../photos/rose/{name}: it is embedded, in out/preproc/train"
    first, _ = ask('gone "x".png')
    assert "because it failed (read, not_found)" in first


def test_an_answer_of_a_program_of_its_own_imports_nothing_slow(folder):
    run()
    script = (
        "import sys; from pipelines import why; code = why.main(sys.argv[1:]); "
        "print([name for name in ('numpy', 'tensorflow', 'apache_beam', 'yaml') if name in sys.modules])"
    )
    for what in ("out/preproc/train", "daisy/8.png", "."):
        command = [sys.executable, "-c", script, what]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
        assert done.stdout.splitlines()[-1] == "[]", done.stdout


_GARBAGE = [
    b"",
    b"\xff\xfe",
    b"[]",
    b"null\n7\n[1]\n",
    b'{"definition": 3, "failed": [1], "files": {"x": 1}, "duplicates": 3, "eval": [], "warnings": 1, "status": 1}',
    b'{"definition": {"input_path": [[1, 2], 3, ["a"]], "rows_per_shard": "x", "list_formats": [1]}, "rows_read": "x"}',
    b'{"module": "pipelines.embed", "arguments": [], "ended": {"how": 3, "message": [1]}, "rows": "x", "folder": 3}',
    b'{"module": "pipelines.embed", "arguments": [], "ended": 3, "pid": "x", "host": 3, "started": []}',
    b'{"uri": 1, "list": 2, "line": "x", "uris": 3, "order": [0, 0], "shard": 3, "input_path": 7, "files": {"a": {}}}',
    b'{"eval": {"mistakes": [1, {"uri": 1}], "accuracy": "x"}, "record_sets": {"train": [1, "x"]}, "error": null}',
    b'{"eval": {"mistakes": 1}, "record_sets": 7, "duplicates": {"images": "x"}, "record_sets": {"train": 1}}',
]


def test_no_content_of_a_file_is_more_than_one_line(folder, ask, engine, capsys):
    (folder / "photos/rose/3.png").unlink()
    run()
    write_list(folder, rows_of(12), "eval")
    embed_well = engine.embed
    engine.embed = Failing(engine, MachineFault("the disk does not answer."), after=1)
    with pytest.raises(InputError):
        run("--batch_size", "4", name="eval")
    engine.embed = embed_well
    write_training(folder / "out/training")
    names = (
        "report.json",
        "manifest.json",
        "blocks.jsonl",
        "failed.jsonl",
        "skipped.jsonl",
        "duplicates.jsonl",
        ".lock",
    )
    paths = [folder / "out/preproc/_train" / name for name in names]
    paths += list((folder / "out/preproc/_eval").glob("parts-*/*"))
    paths += [folder / "out/training" / name for name in ("metrics.json", "predictions.csv", "last_run.json", ".lock")]
    paths += [folder / "out/training/checkpoints/last/checkpoint"]
    for path in paths:
        whole = path.read_bytes() if path.exists() else None
        path.parent.mkdir(parents=True, exist_ok=True)
        for garbage in (*_GARBAGE, (whole or b"")[: len(whole or b"") // 2]):
            path.write_bytes(garbage)
            for what in (
                "out/preproc/train",
                "out/preproc/eval",
                "out",
                "rose/3.png",
                "daisy/4.png",
                "data/eval.csv:12",
            ):
                try:
                    assert why.main([what]) == 0
                except InputError as error:
                    assert "\n" not in str(error)
        if whole is None:
            path.unlink()
        else:
            path.write_bytes(whole)
    capsys.readouterr()
