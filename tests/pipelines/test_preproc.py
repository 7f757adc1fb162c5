from __future__ import annotations

import fnmatch
import pathlib
import re
import subprocess
import sys

import pytest

from configs.errors import InputError
from configs.printed_commands import program_command
from configs.recipe import load_recipe
from pipelines import preproc, recipe_lists

REPOSITORY = pathlib.Path(preproc.__file__).resolve().parents[1]


class FakeEmbed:
    def __init__(self, codes=()):
        self.calls = []
        self._codes = iter(codes)

    def __call__(self, argv):
        self.calls.append(list(argv))
        return next(self._codes, 0)


@pytest.fixture
def data_dir(tmp_path):
    folder = tmp_path / "my data"
    folder.mkdir()
    for name in ("dict.txt", "train.csv", "eval.csv", "test.csv"):
        (folder / name).write_text("x\n")
    return folder


def test_every_list_is_embedded_with_the_flags_passed_on(data_dir, capsys):
    embed = FakeEmbed()
    argv = [
        "--data_dir",
        f"{data_dir}/",
        "--job_dir",
        "/job",
        "--recipe",
        "hugs",
        "--weights",
        "random",
        "--seed=3",
    ]
    assert preproc.main(argv, embed=embed) == 0
    assert embed.calls == [
        [
            *("--input_path", f"{data_dir}/{split}.csv", "--input_dict", f"{data_dir}/dict.txt"),
            *(
                "--output_path",
                f"/job/preproc/{split}",
                "--recipe",
                "hugs",
                "--weights",
                "random",
                "--seed=3",
            ),
        ]
        for split in ("train", "eval", "test")
    ]
    assert capsys.readouterr().out.endswith(f"hugs_train.sh '{data_dir}' /job\n")


def test_the_job_directory_has_recipe_and_time_in_its_name(data_dir, tmp_path):
    recipe = tmp_path / "cats.yaml"
    recipe.write_text("lists: {test: null}")
    embed = FakeEmbed()
    preproc.main(["--data_dir", str(data_dir), "--recipe", str(recipe)], embed=embed)
    outputs = [argv[argv.index("--output_path") + 1] for argv in embed.calls]
    assert len(outputs) == 2
    assert re.fullmatch(rf"{re.escape(str(data_dir))}/cats_\d{{8}}_\d{{6}}/preproc/train", outputs[0])


class FinishingEmbed(FakeEmbed):
    """Leaves a manifest for each set, and stops at one of them."""

    def __init__(self, stops_at=None):
        super().__init__()
        self._stops_at = stops_at

    def __call__(self, argv):
        super().__call__(argv)
        prefix = pathlib.Path(argv[argv.index("--output_path") + 1])
        sidecars = prefix.parent / f"_{prefix.name}"
        if prefix.name == self._stops_at:
            (sidecars / "parts-0").mkdir(parents=True)
            (sidecars / "parts-0/job.json").write_text("{}")
            raise KeyboardInterrupt
        sidecars.mkdir(parents=True, exist_ok=True)
        (sidecars / "manifest.json").write_text("{}")
        for part in sidecars.glob("parts-*/*"):
            part.unlink()
        return 0


@pytest.mark.parametrize("split", ["train", "eval", "test"])
def test_the_same_command_goes_on_in_the_directory_of_a_run_that_was_stopped(data_dir, split, capsys):
    argv = ["--data_dir", str(data_dir)]
    stopped = FinishingEmbed(stops_at=split)
    with pytest.raises(KeyboardInterrupt):
        preproc.main(argv, embed=stopped)
    again = FinishingEmbed()
    preproc.main(argv, embed=again)
    assert len(again.calls) == 3
    assert stopped.calls[0] == again.calls[0]
    assert "going on in " in capsys.readouterr().out
    # Finished, it is left alone (a second later, so that the names differ).
    (job_dir,) = data_dir.glob("hugs_*")
    job_dir.rename(data_dir / "hugs_20200101_000000")
    preproc.main(argv, embed=FinishingEmbed())
    said = capsys.readouterr().out
    assert "going on in " not in said
    assert f"{data_dir}/hugs_20200101_000000 is finished; all lists are embedded anew into {data_dir}/hugs_2" in said
    assert len(list(data_dir.glob("hugs_*"))) == 2


def test_a_run_that_was_stopped_between_two_lists_is_unfinished(data_dir, capsys):
    argv = ["--data_dir", str(data_dir)]
    preproc.main(argv, embed=FinishingEmbed())
    next(data_dir.glob("hugs_*/preproc/_test/manifest.json")).unlink()
    preproc.main(argv, embed=FinishingEmbed())
    assert "going on in " in capsys.readouterr().out


def test_a_directory_of_another_name_is_nobody_s_newest(data_dir, capsys):
    argv = ["--data_dir", str(data_dir)]
    with pytest.raises(KeyboardInterrupt):
        preproc.main(argv, embed=FinishingEmbed(stops_at="eval"))
    # Of a recipe whose name begins like this one's, of a copy, of a model that was renamed.
    for name in ("hugs_more_20300101_000000", "hugs_backup", "hugs_20300101_000000_old", "hugs_3000"):
        (data_dir / name / "preproc/_train/parts-1").mkdir(parents=True)
        (data_dir / name / "preproc/_train/parts-1/job.json").write_text("{}")
    preproc.main(argv, embed=FinishingEmbed())
    assert re.search(r"going on in .*/hugs_2\d{7}_\d{6},", capsys.readouterr().out)


def test_a_run_is_gone_on_with_though_the_clock_was_set_back(data_dir, capsys):
    argv = ["--data_dir", str(data_dir)]
    preproc.main(argv, embed=FinishingEmbed())
    (job_dir,) = data_dir.glob("hugs_*")
    job_dir.rename(data_dir / "hugs_29991231_235959")
    with pytest.raises(KeyboardInterrupt):
        preproc.main(argv, embed=FinishingEmbed(stops_at="eval"))
    preproc.main(argv, embed=FinishingEmbed())
    assert "going on in " in capsys.readouterr().out
    assert {path.name for path in data_dir.glob("hugs_*")} == {"hugs_29991231_235959", "hugs_30000101_000000"}


def test_the_other_sets_are_compared_with_the_training_set_once_it_is_there(data_dir):
    embed = FinishingEmbed()
    preproc.main(["--data_dir", str(data_dir)], embed=embed)
    train, *others = embed.calls
    assert "--against" not in train
    for call in others:
        assert call[call.index("--against") + 1] == train[train.index("--output_path") + 1]


def test_another_recipe_is_part_of_the_next_command(data_dir, capsys):
    preproc.main(["--data_dir", str(data_dir), "--recipe", "flowers"], embed=FakeEmbed())
    assert "RECIPE=flowers " in capsys.readouterr().out.splitlines()[-1]


def test_a_missing_test_list_is_no_error(data_dir):
    (data_dir / "test.csv").unlink()
    embed = FakeEmbed()
    preproc.main(["--data_dir", str(data_dir)], embed=embed)
    assert len(embed.calls) == 2


def test_missing_lists_are_all_named_before_anything_runs(data_dir):
    (data_dir / "eval.csv").unlink()
    (data_dir / "dict.txt").unlink()
    embed = FakeEmbed()
    with pytest.raises(InputError) as caught:
        preproc.main(["--data_dir", str(data_dir)], embed=embed)
    message = str(caught.value)
    assert "dict.txt (lists.dict)" in message
    assert "eval.csv (lists.eval)" in message
    assert program_command("ingest", "--image_dir", "PHOTOS", "--output_dir", str(data_dir)) in message
    assert not embed.calls


def test_the_first_failure_stops(data_dir, capsys):
    embed = FakeEmbed(codes=[0, 1])
    assert preproc.main(["--data_dir", str(data_dir)], embed=embed) == 1
    assert len(embed.calls) == 2
    captured = capsys.readouterr()
    assert captured.err == "eval failed; not started: test\n"
    assert "next:" not in captured.out


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], "--data_dir"),
        (["--data_dir", "/no/such"], "there is no directory '/no/such'"),
        (["--data_dir", ".", "--recipe", "hug"], "Did you mean 'hugs'"),
        (["--data_dir", ""], "there is no directory ''"),
        (["--data_dir", ".", "--job_dir", "gs://bucket/a;b"], "--job_dir: must be gs://BUCKET/FOLDER, without commas"),
        (["--data_dir", ".", "--job_dir", "gs://bucket/a/../b"], "without folders named '', '.' or '..'"),
        (["--data_dir", ".", "--output_path=x"], "--output_path is set by this program"),
        (["--data_dir", ".", "--input_dict", "x"], "--input_dict is set by this program"),
        (["--data_dir", "gs://bucket", "--job_name=x"], "--job_name is set by this program"),
        (["--data_dir", "gs://"], "there is no directory 'gs:'"),
    ],
)
def test_wrong_flags(argv, expected):
    with pytest.raises(InputError, match=re.escape(expected)):
        preproc.main(argv, embed=FakeEmbed())


def test_help_and_wrong_flags_import_neither_beam_nor_tensorflow():
    code = (
        "import sys\nfrom pipelines import ingest, preproc\n"
        "for program in (ingest, preproc):\n"
        "    try: program.main(['--help'])\n"
        "    except SystemExit as error: assert not error.code\n"
        "heavy = {'apache_beam', 'tensorflow', 'PIL', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, cwd=REPOSITORY)


class Listing:
    """Storage that knows some names."""

    def __init__(self, *names):
        self.names = names

    def match(self, pattern):
        return [name for name in self.names if fnmatch.fnmatch(name, pattern)]


def test_two_colleagues_share_a_bucket_and_a_recipe(monkeypatch):
    recipe, splits = load_recipe("hugs"), ["train", "eval"]
    unfinished = "gs://bucket/hugs_anna_20260102_030405"
    storage = Listing(f"{unfinished}/preproc/_train/parts-1/job.json")
    found = {}
    for user in ("anna", "bob"):
        monkeypatch.setattr("getpass.getuser", lambda user=user: user)
        found[user] = recipe_lists.newest_job_dir(recipe, splits, data_dir="gs://bucket", storage=storage)
        new = recipe_lists.new_job_dir(recipe, None, data_dir="gs://bucket")
        assert re.fullmatch(rf"gs://bucket/hugs_{user}_\d{{8}}_\d{{6}}", new)
    assert found == {"anna": (unfinished, False), "bob": None}


@pytest.mark.parametrize(
    ("user", "before_time"),
    [("Änna.B@CORP\\x", "hugs_nna-b-corp-x_"), ("雏菊", "hugs_"), ("a_b", "hugs_a-b_"), (KeyError("uid"), "hugs_")],
)
def test_job_directories_have_names_that_every_tool_takes(monkeypatch, user, before_time):
    def name():
        if isinstance(user, str):
            return user
        raise user

    monkeypatch.setattr("getpass.getuser", name)
    assert recipe_lists._before_time(load_recipe("hugs"), "gs://bucket") == before_time
    assert recipe_lists._before_time(load_recipe("hugs"), "data") == "hugs_"
