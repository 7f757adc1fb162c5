"""What becomes of standard output and standard error changes neither what is done nor the exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from configs.console import printable
from tests.pipelines.test_stopped_jobs import files
from tests.support.photos import write_photos
from tests.support.programs import ROOT, environment_of_programs

# What a shell does to the streams of the command in "$@"; the exit code is that of the command.
STREAMS = {
    "| true": '"$@" | true; exit ${PIPESTATUS[0]}',
    "2>&1 >/dev/null | true": '"$@" 2>&1 >/dev/null | true; exit ${PIPESTATUS[0]}',
    "2>&1 | head -1": '"$@" 2>&1 | head -1 >/dev/null; exit ${PIPESTATUS[0]}',
    ">&-": '"$@" >&- 2>/dev/null',
    "2>&-": '"$@" 2>&- >/dev/null',
    "<&- >&- 2>&-": '"$@" <&- >&- 2>&-',
    ">/dev/full 2>/dev/full": '"$@" >/dev/full 2>/dev/full',
}
ASCII = {"PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def in_shell(streams: str, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", STREAMS.get(streams, streams), "-", *command],
        cwd=ROOT,
        env=environment_of_programs(environment),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def embed(data, out, *flags: str, forked: bool = True) -> list[str]:
    client = ["-m", "tests.support.fork_client"] if forked else []
    command = [sys.executable, *client, "-m", "tests.support.slow_job", "0.0", "--weights", "random", *flags]
    command += ["--input_path", str(data / "train.csv"), "--input_dict", str(data / "dict.txt")]
    return [*command, "--output_path", str(out / "train")]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("data"), 12, side=4, broken={3})


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    assert in_shell('"$@"', *embed(data, out, forked=False)).returncode == 0
    return files(out)


# (For the others, the program of a few lines below says the same.)
@pytest.mark.parametrize("streams", ["| true", "2>&1 | head -1", "<&- >&- 2>&-", ">/dev/full 2>/dev/full"])
def test_a_job_is_done_and_ends_as_if_somebody_read(data, undisturbed, tmp_path, streams):
    done = in_shell(streams, *embed(data, tmp_path))
    assert (done.returncode, done.stdout) == (0, "")
    assert files(tmp_path) == undisturbed


@pytest.mark.parametrize("streams", ["2>&1 | head -1", ">&- 2>&-"])
def test_a_job_that_fails_says_so_by_its_exit_code(tmp_path, streams):
    (tmp_path / "data").mkdir()
    data = write_photos(tmp_path / "data", 6, side=4, broken=set(range(6)))
    script = STREAMS.get(streams, f'"$@" {streams}')
    assert in_shell(script, *embed(data, tmp_path / "out")).returncode == 2


def test_an_encoding_that_lacks_letters_is_no_reason_to_stop(data, undisturbed, tmp_path):
    out = tmp_path / "été"
    done = in_shell('"$@"', *embed(data, out), PYTHONUTF8="1", PYTHONIOENCODING="ascii:strict")
    assert done.returncode == 0, done.stderr
    assert "\\u00e9t\\u00e9" in done.stdout
    assert files(out) == undisturbed


def test_an_encoding_of_file_names_that_lacks_letters_loses_no_image(tmp_path):
    data = tmp_path / "été"
    data.mkdir()
    write_photos(data, 12, side=4, broken={3})
    (data / "1.png").rename(data / "日本.png")
    rows = (data / "train.csv").read_text().replace("1.png,b\n", "日本.png,b\n", 1)
    (data / "train.csv").write_text(rows, encoding="utf-8")
    outs = data / "one", data / "two"
    assert in_shell('"$@"', *embed(data, outs[0])).returncode == 0
    done = in_shell('"$@"', *embed(data, outs[1]), LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 0, done.stderr
    assert files(outs[0]) == files(outs[1])
    failed = (outs[1] / "_train" / "failed.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["uri"] for line in failed] == ["3.png"]


@pytest.mark.parametrize(
    "program",
    ["pipelines.embed", "pipelines.preproc", "pipelines.plan", "pipelines.ingest", "trainer.task", "demo.run"],
)
@pytest.mark.parametrize("environment", [{}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_a_name_that_is_no_utf_8_is_one_line(program, environment):
    done = in_shell("\"$@\" $'--image_dir=d\\xff'", sys.executable, "-m", program, **environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: an argument is not UTF-8: '--image_dir=d\\udcff' (byte 0xff)")


def test_lists_of_folders_with_accents_are_made_whatever_the_streams_can_print(tmp_path):
    for label in ("daisy", "pâquerette"):
        (tmp_path / "été" / label).mkdir(parents=True)
        for number in range(30):
            (tmp_path / "été" / label / f"ñ{label}{number}.jpg").touch()
        (tmp_path / "été" / label / "undecodable-\udcff.jpg").touch()
    written = []
    for number, environment in enumerate(({}, ASCII)):
        out = tmp_path / f"liß{number}"
        command = [
            sys.executable,
            "-m",
            "pipelines.ingest",
            "--image_dir",
            str(tmp_path / "été"),
            "--output_dir",
            str(out),
        ]
        done = in_shell('"$@"', *command, **environment)
        assert done.returncode == 0, done.stderr
        assert r"2 images left out because of the name" in done.stderr
        written.append(files(out))
    assert r"p\u00e2querette" in done.stdout
    assert written[0] == written[1]


def test_a_folder_whose_name_is_no_utf_8_is_one_line(tmp_path):
    os.mkdir(os.fsencode(tmp_path) + b"/d\xff")
    script = f"cd '{tmp_path}'/$'d\\xff' && PYTHONPATH='{ROOT}' \"$@\""
    done = in_shell(script, sys.executable, "-m", "pipelines.embed", "--input_path", "train.csv")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: the path of the current folder is not UTF-8")


PROGRAM = """
import json, logging, sys
from configs.console import require_printed
from configs.errors import InputError
from configs.program import run_program

def main(argv):
    opened = open(sys.argv[1], "w+")
    print("out \\x1b[2J\\x9b", flush=True)
    print("err \\x1b]0;title\\x07", file=sys.stderr)
    logging.warning("logged \\u202e")
    print(json.dumps({"label": "\\x7f\\x9b\\ud83d\\ude00 caf\\xe9"}, ensure_ascii=False))
    assert opened.read() == ""
    if sys.argv[2] == "product":
        require_printed()
    if sys.argv[2] == "wrong":
        raise InputError("wrong\\x1b[31m\\ninput")
    return 7

run_program(main)
"""


@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize(("what", "code"), [("work", 7), ("wrong", 2)])
def test_the_exit_code_is_what_the_program_says(tmp_path, streams, what, code):
    assert in_shell(streams, sys.executable, "-c", PROGRAM, str(tmp_path / "opened"), what).returncode == code


@pytest.mark.parametrize(("streams", "code"), [("| true", 7), (">&-", 2), (">/dev/full 2>/dev/full", 2)])
def test_a_program_whose_output_is_its_product_says_that_it_is_lost(tmp_path, streams, code):
    done = in_shell(streams, sys.executable, "-c", PROGRAM, str(tmp_path / "opened"), "product")
    assert done.returncode == code


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "utf-8"}, ASCII])
def test_control_characters_are_escaped_wherever_they_are_printed(tmp_path, environment):
    done = in_shell('"$@"', sys.executable, "-c", PROGRAM, str(tmp_path / "opened"), "wrong", **environment)
    out, line = done.stdout.splitlines()
    assert out == r"out \u001b[2J\u009b"
    assert json.loads(line) == {"label": "\x7f\x9b😀 café"}
    assert done.stderr.splitlines() == [
        r"err \u001b]0;title\u0007",
        r"WARNING:root:logged \u202e",
        r"error: wrong\u001b[31m input",
    ]


def test_what_people_write_stays_as_it_is():
    assert printable("café\t日本語 😀 a\nb — …") == "café\t日本語 😀 a\nb — …"
    assert printable("a\rb") == r"a\u000db"


@pytest.mark.parametrize("streams", ["2>&1 >/dev/null | true", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("script", ["hugs_preproc.sh", "hugs_train.sh", "hugs_deploy.sh"])
@pytest.mark.parametrize("arguments", [(), ("/nowhere",)])
def test_the_shell_scripts_say_the_same_by_their_exit_code(script, arguments, streams):
    assert in_shell(streams, f"./{script}", *arguments).returncode == 2
