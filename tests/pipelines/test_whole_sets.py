"""Sets that were copied, cut, edited or stopped: what a command makes of them, and what it never touches."""

import json
import pathlib
import shutil

import pytest

from configs.errors import InputError
from pipelines import embed
from preprocess.records.record_set import Manifest
from preprocess.storage.base import LocalStorage
from tests.pipelines.test_embed import photo
from trainer.data.record_sets import find_record_sets

_ROWS = 20


@pytest.fixture
def photos(tmp_path, engine):
    """A list of 20 rows in four shards, of which row 4 is missing; the first and the third image are the same."""
    (tmp_path / "dict.txt").write_text("daisy\nrose\n")
    for number in range(_ROWS):
        photo(tmp_path / f"photos/{number}.png", seed=number if number != 2 else 0, size=(9, 9), image_format="PNG")
    (tmp_path / "photos/4.png").rename(tmp_path / "4.png")
    (tmp_path / "train.csv").write_text("".join(f"photos/{number}.png,rose\n" for number in range(_ROWS)))
    return tmp_path


def run(folder, *flags, out=None):
    words = ["--input_path", str(folder / "train.csv"), "--input_dict", str(folder / "dict.txt")]
    words += ["--output_path", str(out or folder / "out/train"), "--weights", "random", "--rows_per_shard", "5"]
    return embed.main([*words, *flags])


def files(out):
    """All files of a set's folder, but for the lock."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and not path.name.startswith(".lock")
    }


def content(out):
    """Of the files of a finished set, those that do not depend on how often it was run."""
    varying = {"_train/report.json", "_train/blocks.jsonl"}
    return {name: data for name, data in files(out).items() if name not in varying}


def report_of(out):
    return json.loads((out / "_train/report.json").read_text())


def require_whole(out):
    """The trainer takes the set, every digest agrees, and no work is left over."""
    find_record_sets([f"{out}/train*"], flag="train_data_paths")
    manifest = Manifest.from_bytes((out / "_train/manifest.json").read_bytes(), where="m")
    for shard in manifest.shards:
        assert LocalStorage().read(str(out / shard.name)) and (out / shard.name).stat().st_size == shard.num_bytes
    assert not list((out / "_train").glob("parts-*"))


def test_a_retry_on_a_copied_set_touches_nothing_of_the_original(photos):
    run(photos)
    shutil.copytree(photos / "out", photos / "copy")
    before = files(photos / "out")
    (photos / "4.png").rename(photos / "photos/4.png")
    run(photos, "--retry_failures", out=photos / "copy/train")
    assert files(photos / "out") == before
    require_whole(photos / "copy")
    assert report_of(photos / "copy")["embedded_by"] == {"earlier_run": _ROWS - 1, "computed": 1}
    run(photos, out=photos / "fresh/train")
    assert content(photos / "copy") == content(photos / "fresh")


@pytest.mark.parametrize("name", ["/foreign.bin", "../foreign.bin", "_train/parts-0/../../../foreign.bin", "a\x00b"])
def test_an_edited_line_of_the_set_moves_nothing_into_it(photos, name):
    run(photos)
    foreign = photos / "foreign.bin"
    foreign.write_bytes(b"not ours")
    blocks = photos / "out/_train/blocks.jsonl"
    lines = [json.loads(line) for line in blocks.read_text().splitlines()]
    name = str(foreign) if name.startswith("/") else name
    for key in ("path", "name"):
        if key in lines[2]["shard"]:
            lines[2]["shard"][key] = name
    blocks.write_text("".join(json.dumps(line) + "\n" for line in lines))
    before = files(photos / "out")
    (photos / "4.png").rename(photos / "photos/4.png")
    with pytest.raises(InputError, match="blocks.jsonl:3: .*no file of this set"):
        run(photos, "--retry_failures")
    assert foreign.read_bytes() == b"not ours"
    assert files(photos / "out") == before
    run(photos, "--overwrite")
    require_whole(photos / "out")


def test_a_manifest_that_cannot_be_written_is_no_complete_set(photos, monkeypatch, capsys):
    create = LocalStorage.create

    def fails(self, path, **options):
        if path.endswith("out/_train/manifest.json"):
            raise OSError(28, "No space left on device", path)
        return create(self, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "create", fails)
        with pytest.raises(InputError, match="storage failed .No space left on device"):
            run(photos)
    assert "rows read" not in capsys.readouterr().out
    assert not (photos / "out/_train/manifest.json").exists()
    run(photos)
    require_whole(photos / "out")


def damage_shard(out, number, how):
    path = sorted(out.glob("train-*"))[number]
    data = path.read_bytes()
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])


@pytest.mark.parametrize("how", ["gone", "cut"])
def test_a_shard_that_is_not_whole_is_embedded_again_by_the_same_command(photos, how):
    run(photos)
    whole = content(photos / "out")
    damage_shard(photos / "out", 1, how)
    run(photos)
    assert content(photos / "out") == whole
    require_whole(photos / "out")
    # Only what was lost was embedded.
    assert 0 < report_of(photos / "out")["embedded_by"]["computed"] <= 5


@pytest.mark.parametrize("flags", [["--overwrite"], ["--retry_failures"], ["--verify"]])
@pytest.mark.parametrize("how", ["gone", "cut", "flipped"])
def test_a_set_with_duplicates_and_a_damaged_shard_is_repaired_by_every_command(photos, how, flags):
    run(photos)
    whole = content(photos / "out")
    damage_shard(photos / "out", 0, how)
    run(photos, *flags)
    assert content(photos / "out") == whole
    require_whole(photos / "out")


@pytest.mark.parametrize("name", ["manifest.json", "report.json", "blocks.jsonl", "failed.jsonl", "duplicates.jsonl"])
@pytest.mark.parametrize("how", ["gone", "cut"])
def test_a_damaged_sidecar_file_has_a_command_that_leads_out(photos, how, name):
    run(photos)
    whole = content(photos / "out")
    path = photos / "out/_train" / name
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-20])
    try:
        run(photos, "--verify")
    except InputError as error:
        assert "--overwrite" in str(error)
        run(photos, "--overwrite")
    assert content(photos / "out") == whole
    require_whole(photos / "out")
    run(photos, "--verify")


def journal_of(folder):
    (path,) = (folder / "out/_train").glob("parts-*/blocks.jsonl")
    return path


@pytest.fixture
def journaled(photos, monkeypatch):
    """The photos, and a run over an older set that was stopped right after its journal."""
    run(photos, "--rows_per_shard", "4")

    def stopped(self, *_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "move", stopped)
        with pytest.raises(InputError, match="storage failed"):
            run(photos, "--overwrite")
    assert journal_of(photos)
    return photos


@pytest.mark.parametrize("flags", [[], ["--overwrite"]])
def test_a_part_that_is_gone_after_the_journal_is_embedded_again(journaled, flags):
    next(journal_of(journaled).parent.glob("00000-0000001-*.tfrecord")).unlink()
    run(journaled, *flags)
    require_whole(journaled / "out")
    run(journaled, out=journaled / "fresh/train")
    assert content(journaled / "out") == content(journaled / "fresh")


@pytest.mark.parametrize("flags", [[], ["--overwrite"]])
def test_a_journal_that_cannot_be_read_is_deleted(journaled, flags):
    journal = journal_of(journaled)
    journal.write_bytes(journal.read_bytes()[:300])
    run(journaled, *flags)
    require_whole(journaled / "out")


def test_an_output_given_relatively_and_then_absolutely_is_the_same(journaled, monkeypatch):
    shutil.rmtree(journaled / "out")
    monkeypatch.chdir(journaled)

    def stopped(self, *_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "move", stopped)
        with pytest.raises(InputError, match="storage failed"):
            run(journaled, out="out/train")
    monkeypatch.chdir("/")
    run(journaled)
    require_whole(journaled / "out")


def test_a_finished_part_that_is_cut_after_a_kill_is_embedded_again(photos, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("preprocess.beam.transforms.finish_record_set", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(photos)
    parts = sorted(next((photos / "out/_train").glob("parts-*")).glob("*.tfrecord"))
    parts[0].write_bytes(parts[0].read_bytes()[:-30])
    data = parts[1].read_bytes()
    parts[1].write_bytes(data[:50] + b"\xff" + data[51:])
    run(photos)
    require_whole(photos / "out")
    run(photos, out=photos / "fresh/train")
    assert content(photos / "out") == content(photos / "fresh")


def test_verify_says_that_all_is_whole(photos, capsys):
    run(photos)
    capsys.readouterr()
    assert run(photos, "--verify") == 0
    assert "every digest agrees" in capsys.readouterr().out
    (photos / "out/train-00000-of-00004.tfrecord").write_bytes(
        (photos / "out/train-00000-of-00004.tfrecord").read_bytes()[:-1] + b"\xff"
    )
    before = files(photos / "out")
    with pytest.raises(InputError, match="train-00000-of-00004.tfrecord is not what .* says"):
        run(photos, "--verify", "--dry_run")
    assert files(photos / "out") == before


def test_a_link_in_the_list_s_place_names_no_other_set(photos):
    """The set's folder is where it is opened, also by another name."""
    run(photos)
    (photos / "link").symlink_to(photos / "out")
    (photos / "4.png").rename(photos / "photos/4.png")
    run(photos, "--retry_failures", out=photos / "link/train")
    require_whole(photos / "out")
    assert pathlib.Path(photos / "link").is_symlink()


def test_a_weights_file_of_the_same_name_and_other_content_makes_another_job(photos, capsys):
    weights = photos / "mine.weights.h5"
    weights.write_bytes(b"one")
    run(photos, "--weights", str(weights))
    made = files(photos / "out")
    weights.write_bytes(b"two")
    with pytest.raises(InputError, match="was made with other weights_sha256. Pass --overwrite"):
        run(photos, "--weights", str(weights))
    assert files(photos / "out") == made
    weights.write_bytes(b"one")
    capsys.readouterr()
    assert run(photos, "--weights", str(weights)) == 0
    assert "nothing to do" in capsys.readouterr().out
