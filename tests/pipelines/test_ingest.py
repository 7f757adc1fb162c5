from __future__ import annotations

import contextlib
import csv
import fnmatch
import io
import os
import re
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from configs.errors import InputError
from configs.list_names import SPLITS
from configs.printed_commands import program_command
from pipelines import ingest
from pipelines.splits.assign import name_share, split_of
from preprocess.images import formats
from preprocess.lists.labels import parse_label_dict
from preprocess.lists.rows import parse_rows
from preprocess.storage.uris import resolve_uri

PERCENTS = st.floats(0, 100, allow_nan=False)
SHARES = st.floats(0, 1, exclude_max=True)


def make_photos(folder, classes, extension=".jpg"):
    for name, count in classes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (folder / name / f"{name}-{number}{extension}").touch()


def image_bytes(image_format):
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(stream, image_format)
    return stream.getvalue()


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    make_photos(folder, {"rose": 40, "daisy": 60})
    return folder


def run(image_dir, output_dir, *flags):
    return ingest.main(["--image_dir", str(image_dir), "--output_dir", str(output_dir), *map(str, flags)])


def complaint(image_dir, output_dir, *flags):
    with pytest.raises(InputError) as caught:
        run(image_dir, output_dir, *flags)
    return str(caught.value)


def read(output_dir):
    """{split: {uri: label}} of all lists that are there."""
    found = {}
    for split in SPLITS:
        path = os.path.join(output_dir, f"{split}.csv")
        if os.path.exists(path):
            with open(path, newline="", encoding="utf-8") as file:
                found[split] = dict(csv.reader(file))
    return found


def names(output_dir):
    return {split: {os.path.basename(uri) for uri in rows} for split, rows in read(output_dir).items()}


# The split


def test_name_share_is_what_it_says_and_will_stay_so():
    assert name_share("daisy.jpg") == 0.5320422729642156
    assert name_share(unicodedata.normalize("NFD", "é.jpg")) == name_share("\u00e9.jpg")


@given(SHARES, PERCENTS, PERCENTS, PERCENTS)
def test_a_percentage_moves_photos_between_its_list_and_training_only(share, eval_percent, test_percent, other):
    if eval_percent + max(test_percent, other) >= 100:
        return
    before = split_of(share, eval_percent=eval_percent, test_percent=test_percent)
    after = split_of(share, eval_percent=eval_percent, test_percent=other)
    assert before == after or {before, after} == {"train", "test"}


def test_shares_are_evenly_spread():
    shares = [name_share(f"{number}.jpg") for number in range(10_000)]
    splits = [split_of(share, eval_percent=10, test_percent=20) for share in shares]
    assert splits.count("eval") == pytest.approx(1000, abs=120)
    assert splits.count("test") == pytest.approx(2000, abs=160)


def test_zero_percent_is_nothing():
    assert {split_of(share, eval_percent=0, test_percent=0) for share in (0.0, 0.5, 1 - 2**-53)} == {"train"}


def test_adding_and_relabelling_and_moving_moves_no_photo(photos, tmp_path):
    run(photos, tmp_path / "a")
    before = names(tmp_path / "a")
    make_photos(photos, {"tulip": 30, "rose": 50})
    os.rename(photos / "daisy" / "daisy-0.jpg", photos / "rose" / "daisy-0.jpg")
    os.rename(photos, tmp_path / "moved")
    run(tmp_path / "moved", tmp_path / "b")
    after = names(tmp_path / "b")
    assert all(before[split] <= after[split] for split in SPLITS)


# The lists


def test_the_lists_are_read_by_the_pipeline_and_name_files_that_exist(photos, tmp_path):
    weird = photos / 'a, "b" c#'
    make_photos(photos, {weird.name: 30})
    (weird / "sub folder").mkdir()
    (weird / "sub folder" / "\u00e9 , \u202f.JPG").touch()
    output = tmp_path / "data"
    run(photos, output)
    labels = parse_label_dict((output / "dict.txt").read_bytes(), where="dict.txt")
    assert labels.names == (weird.name, "daisy", "rose")
    seen = 0
    for split in SPLITS:
        path = str(output / f"{split}.csv")
        with open(path, "rb") as stream:
            for row in parse_rows(stream, list_path=path, labels=labels, unknown_labels="fail"):
                assert row.outcome is None
                assert os.path.isfile(resolve_uri(row.uri, path))
                assert row.uri.startswith(f"../photos/{row.labels[0]}/")
                seen += 1
    assert seen == 131
    assert b"\r" not in (output / "train.csv").read_bytes()


def test_a_rerun_writes_the_same_bytes_and_leaves_nothing_else(photos, tmp_path):
    output = tmp_path / "data"
    run(photos, output)
    first = {name: (output / name).read_bytes() for name in os.listdir(output)}
    run(photos, output)
    assert {name: (output / name).read_bytes() for name in os.listdir(output)} == first
    assert set(first) == {"dict.txt", "train.csv", "eval.csv", "test.csv"}


def test_any_block_of_a_list_has_all_classes(photos, tmp_path):
    run(photos, tmp_path)
    labels = list(read(tmp_path)["train"].values())
    assert len(set(labels[:20])) == len(set(labels[-20:])) == 2


def test_lists_that_were_there_stay_whole_if_writing_fails(photos, tmp_path, monkeypatch):
    run(photos, tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in ("dict.txt", "train.csv", "eval.csv", "test.csv")}
    make_photos(photos, {"tulip": 30})
    create = ingest.LocalStorage.create

    def full_disk(self, path):
        if "eval" in path:
            raise OSError("No space left on device")
        return create(self, path)

    monkeypatch.setattr(ingest.LocalStorage, "create", full_disk)
    assert "No space left" in complaint(photos, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


class Killed(BaseException):
    """The process is gone: nothing is cleaned up."""


@pytest.mark.parametrize("stop_at", range(1, 14))
def test_killed_at_any_change_it_leaves_no_lists_of_two_runs_together(photos, tmp_path, monkeypatch, stop_at):
    wholes = []
    for folder, flags in (("other", ("--eval_percent", 40, "--test_percent", 0)), ("data", ())):
        run(photos, tmp_path / folder, *flags)
        wholes.append({path.name: path.read_bytes() for path in (tmp_path / folder).glob("[a-z]*")})
    changes = 0

    def counted(change):
        def change_or_die(self, *args, **kwargs):
            nonlocal changes
            changes += 1
            if changes >= stop_at:
                raise Killed
            return change(self, *args, **kwargs)

        return change_or_die

    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        for name in ("create", "move", "delete_file"):
            patch.setattr(ingest.LocalStorage, name, counted(getattr(ingest.LocalStorage, name)))
        run(photos, tmp_path / "data", "--eval_percent", 40, "--test_percent", 0)
    found = {path.name: path.read_bytes() for path in (tmp_path / "data").glob("[a-z]*")}
    assert found in wholes or "dict.txt" not in found
    run(photos, tmp_path / "data", "--eval_percent", 40, "--test_percent", 0)
    assert {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()} == wholes[0]


def test_two_runs_do_not_write_lists_into_one_folder(photos, tmp_path, monkeypatch):
    refused = []
    write_lists = ingest._write_lists

    def write_while_another_starts(*args):
        monkeypatch.setattr(ingest, "_write_lists", write_lists)
        refused.append(complaint(photos, tmp_path / "data", "--eval_percent", 40))
        return write_lists(*args)

    monkeypatch.setattr(ingest, "_write_lists", write_while_another_starts)
    run(photos, tmp_path / "data")
    assert "--output_dir: another process is writing" in refused[0]
    assert "pipelines.ingest" in refused[0]
    assert set(os.listdir(tmp_path / "data")) == {"dict.txt", "train.csv", "eval.csv", "test.csv"}


def test_without_a_test_share_an_old_test_list_is_removed_and_said(photos, tmp_path, capsys):
    run(photos, tmp_path)
    run(photos, tmp_path, "--test_percent", 0)
    assert set(read(tmp_path)) == {"train", "eval"}
    assert f"note: {tmp_path}/test.csv of an earlier run removed" in capsys.readouterr().err


def test_uris_are_relative_only_where_that_holds(photos, tmp_path, monkeypatch):
    deep = tmp_path / "somewhere" / "deep"
    deep.mkdir(parents=True)
    (tmp_path / "data").symlink_to(deep)
    run(photos, tmp_path / "data")  # seen from the link, ../photos is not the photos' folder
    assert all(uri.startswith(f"{photos}/") for uri in read(tmp_path / "data")["train"])
    run(photos, tmp_path / "other", "--absolute_uris")
    assert all(uri.startswith(f"{photos}/") for uri in read(tmp_path / "other")["train"])
    run(photos, photos)
    assert all(re.match("(rose|daisy)/", uri) for uri in read(photos)["train"])
    monkeypatch.chdir(tmp_path)
    run("photos/", "photos/lists")
    assert all(uri.startswith("../") for uri in read("photos/lists")["train"])


# What counts as an image


def test_images_are_known_by_name_or_content_and_the_rest_is_named(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(formats, "_has_heif", lambda: False)
    folder = photos / "rose"
    (folder / "no-extension").write_bytes(image_bytes("JPEG"))
    (folder / "wrong.txt").write_bytes(image_bytes("PNG"))
    (folder / "deep" / "deeper").mkdir(parents=True)
    (folder / "deep" / "deeper" / "below.webp").touch()
    (folder / "jpeg-in-truth.heic").write_bytes(image_bytes("JPEG"))
    (folder / "rose-1.NEF").write_bytes(image_bytes("TIFF"))
    (folder / "drawing.svg").write_bytes(b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    for other in ("notes.txt", "paper.pdf", "empty", "film.mpg", "photo.HEIC"):
        (folder / other).write_bytes(b"P1 some words that are no picture" * bool(other != "empty"))
    for litter in (".hidden.jpg", "._rose.jpg", "Thumbs.db", "desktop.ini"):
        (folder / litter).write_bytes(image_bytes("JPEG"))
    for litter in (".git", "@eaDir", "__MACOSX"):
        make_photos(photos, {litter: 1, f"rose/{litter}": 0})
        (folder / litter / "thumbnail.jpg").touch()
    os.mkfifo(folder / "pipe.jpg")
    run(photos, tmp_path / "data")
    found = set().union(*names(tmp_path / "data").values())
    extra = {name for name in found if not re.fullmatch(r"(rose|daisy)-\d+\.jpg", name)}
    assert extra == {"no-extension", "wrong.txt", "below.webp", "jpeg-in-truth.heic"}
    assert read(tmp_path / "data")["train"].keys().isdisjoint(["x"])
    assert (
        "note: 7 files are not images that are read here, left out: rose/drawing.svg, rose/empty, rose/film.mpg "
        "and 4 more. "
        "To use PDF and SVG files, convert them to JPEG or PNG. To use Nikon RAW files, export them as JPEG from the "
        "camera or a photo program. To use HEIC files, "
        "install the extra heif (pip install '.[heif]'), or convert them to JPEG." in capsys.readouterr().err
    )


def test_links_are_followed_but_not_in_circles(photos, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    make_photos(elsewhere, {"tulips": 30})
    (photos / "tulip").symlink_to(elsewhere / "tulips")
    (photos / "rose" / "up").symlink_to(photos)
    (elsewhere / "tulips" / "roses").symlink_to(photos / "rose")
    (photos / "daisy" / "gone.jpg").symlink_to("/no/such/file")
    run(photos, tmp_path / "data")
    rows = {uri: label for split in read(tmp_path / "data").values() for uri, label in split.items()}
    assert sum(label == "rose" for label in rows.values()) == 40
    assert sum("/tulip/tulips-" in uri for uri in rows) == 30
    assert "../photos/daisy/gone.jpg" in rows


SYSTEM_FOLDERS = (
    *("#recycle", "@Recycle", "@tmp", "@eaDir", ".@__thumb", "@Recently-Snapshot", "$RECYCLE.BIN", "RECYCLER"),
    *("System Volume Information", "__MACOSX", ".ipynb_checkpoints", ".Trash-1000", "lost+found", "LOST.DIR"),
    *("Network Trash Folder", "Temporary Items", "_vti_cnf", "__pycache__", "FOUND.000", "#snapshot", ".AppleDouble"),
)


@pytest.mark.parametrize("bucket", [False, True])
def test_what_systems_keep_in_folders_is_neither_a_class_nor_a_photo(photos, tmp_path, capsys, bucket):
    for name in SYSTEM_FOLDERS:
        for folder in (photos / name / "rose", photos / "rose" / name, photos / "rose" / "deep" / name):
            folder.mkdir(parents=True)
            (folder / "deleted.jpg").touch()
    make_photos(photos, {"trash": 30})  # Some people do tell trash from other things.
    if bucket:
        files = {f"gs://b/{path.relative_to(photos)}": b"" for path in photos.rglob("*") if path.is_file()}
        storage = FakeStorage(files)
        argv = ["--image_dir", "gs://b", "--output_dir", str(tmp_path / "data")]
        assert ingest.main(argv, storage=storage) == 0
    else:
        run(photos, tmp_path / "data")
    assert (tmp_path / "data" / "dict.txt").read_text() == "daisy\nrose\ntrash\n"
    assert sum(map(len, read(tmp_path / "data").values())) == 130
    assert (
        "note: recycle bins and other folders that systems make, left out: #recycle, #snapshot"
        in capsys.readouterr().err
    )


def test_links_to_themselves_and_to_each_other_are_broken_images(photos, tmp_path):
    for link, target in (("self", "self"), ("a.jpg", "b.jpg"), ("b.jpg", "a.jpg"), ("self.jpg", "self.jpg")):
        (photos / "rose" / link).symlink_to(target)
    (photos / "circle").symlink_to("circle")
    (photos / "circle.jpg").symlink_to(photos / "circle.jpg")
    run(photos, tmp_path / "data")
    rows = {uri: label for split in read(tmp_path / "data").values() for uri, label in split.items()}
    assert len(rows) == 103 and {f"../photos/rose/{name}.jpg" for name in ("a", "b", "self")} <= rows.keys()


def test_folders_may_be_nested_deeper_than_calls(photos, tmp_path):
    folder = photos / "rose"
    with contextlib.chdir(folder):
        for _ in range(1100):
            os.mkdir("d")
            os.chdir("d")
        open("deep.jpg", "w").close()
    run(photos, tmp_path / "data")
    subprocess.run(["rm", "-rf", photos], check=True)  # Python's own functions give up on it.
    assert sum(map(len, read(tmp_path / "data").values())) == 101


def test_images_whose_names_no_list_can_hold_are_left_out_and_said(photos, tmp_path, capsys):
    (photos / "rose" / "a\nb.jpg").touch()
    (photos / "rose" / "undecodable-\udcff.jpg").touch()
    (photos / "rose" / "blank at the end ").write_bytes(image_bytes("JPEG"))
    run(photos, tmp_path / "data")
    assert sum(map(len, read(tmp_path / "data").values())) == 100
    said = capsys.readouterr().err
    assert "3 images left out because of the name" in said
    assert r"undecodable-\udcff.jpg" in said


# What is said about classes


def test_the_table_and_the_next_command(photos, tmp_path, capsys):
    output = tmp_path / "my data"
    assert run(photos, output) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert lines[0].split() == ["class", "train", "eval", "test", "all"]
    assert lines[1].split()[0] == "daisy" and lines[1].split()[-1] == "60"
    assert [int(cell) for cell in lines[3].split()[1:]] == [
        *(len(rows) for rows in read(output).values()),
        100,
    ]
    assert (
        f"{program_command('embed')} --input_path '{output}/train.csv' --input_dict '{output}/dict.txt' "
        f"--output_path '{output}/preproc/train'" in captured.out
    )


def test_doubtful_classes_are_said(photos, tmp_path, capsys):
    (photos / "fern").mkdir()
    in_eval = next(f"{n}.jpg" for n in range(1000) if name_share(f"{n}.jpg") < 0.1)
    in_train = next(f"{n}.jpg" for n in range(1000) if 0.2 < name_share(f"{n}.jpg") < 0.8)
    make_photos(photos, {"moss": 0, "Rose": 0})
    (photos / "moss" / in_eval).touch()
    (photos / "Rose" / in_train).touch()
    (photos / "stray.jpg").touch()
    run(photos, tmp_path / "data")
    said = capsys.readouterr().err
    assert "1 image in no class folder, left out: stray.jpg." in said
    assert "1 folder without an image, not a class: fern." in said
    assert "'rose' and 'Rose'" in said or "'Rose' and 'rose'" in said
    assert "fewer than 20 images, too few to learn or to measure much: Rose (1), moss (1)." in said
    assert "NO TRAINING IMAGE of moss" in said
    assert "no evaluation image of Rose" in said
    assert (tmp_path / "data" / "dict.txt").read_text() == "Rose\ndaisy\nmoss\nrose\n"


def test_many_classes_make_a_short_table(tmp_path, capsys):
    make_photos(tmp_path / "photos", {f"c{number:03}": 2 + number % 7 for number in range(90)})
    run(tmp_path / "photos", tmp_path / "data")
    out = capsys.readouterr().out
    assert "(the 40 smallest of 90 classes)" in out
    assert len(out.splitlines()) < 56


# Wrong input


def test_folders_that_are_no_folders_of_classes(tmp_path):
    folder = tmp_path / "photos"
    assert "there is no folder" in complaint(folder, tmp_path)
    folder.mkdir()
    assert "the folder is empty" in complaint(folder, tmp_path)
    (folder / "notes.txt").write_text("no image")
    assert "no image in it, only 0 folders and 1 other file, such as notes.txt" in complaint(folder, tmp_path)
    (folder / "rose.jpg").touch()
    assert "the images lie directly in it (rose.jpg)" in complaint(folder, tmp_path)
    assert "is a file" in complaint(folder / "rose.jpg", tmp_path)
    make_photos(folder / "flowers", {"rose": 20, "daisy": 20})
    message = complaint(folder, tmp_path)
    assert "only one class has images ('flowers', 40 of them)" in message
    assert f"--image_dir {folder}/flowers" in message
    assert sorted(os.listdir(tmp_path)) == ["photos"]


@pytest.mark.parametrize("label", ["a\nb", " a", "a\u00a0", "a\u2028b", "\ufeffa"])
def test_class_names_that_dict_txt_cannot_hold(photos, tmp_path, label):
    make_photos(photos, {label: 0})
    (photos / label / "x.jpg").touch()
    assert f"class folder {label!r} cannot stand in dict.txt" in complaint(photos, tmp_path / "data")


def test_class_names_that_are_the_same_label(photos, tmp_path):
    make_photos(photos, {"caf\u00e9": 2, "cafe\u0301": 2})
    assert r"'cafe\u0301' and 'caf\xe9' are one label" in complaint(photos, tmp_path / "data")


def test_a_class_name_in_another_encoding(photos, tmp_path):
    make_photos(photos, {"caf\udce9": 0})
    (photos / "caf\udce9" / "x.jpg").touch()
    assert r"'caf\udce9' is not UTF-8" in complaint(photos, tmp_path / "data")


def test_output_dir_must_be_a_folder(photos, tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        assert f"must be a folder, but '{tmp_path}/file' is a file" in complaint(photos, path)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--eval_percent", "-1"], "--eval_percent: must be a number from 0 to below 100. Received: '-1'"),
        (["--test_percent", "ten"], "--test_percent: must be a number from 0 to below 100. Received: 'ten'"),
        (["--test_percent", "nan"], "Received: 'nan'"),
        (["--eval_percent", "50", "--test_percent", "50"], "less than 100"),
        (["--evalpercent", "3"], "Did you mean '--eval_percent'?"),
    ],
)
def test_wrong_flags(photos, tmp_path, flags, expected):
    assert expected in complaint(photos, tmp_path / "data", *flags)


def test_a_share_in_place_of_a_percentage_is_said(photos, tmp_path, capsys):
    run(photos, tmp_path, "--eval_percent", "0.2", "--test_percent", "0")
    said = capsys.readouterr().err
    assert "warning: --eval_percent 0.2 means 0.2 %; for 20 % pass --eval_percent 20." in said
    assert "--test_percent" not in said


def test_no_photo_left_to_train_on(tmp_path):
    in_eval = [f"{n}.jpg" for n in range(100) if name_share(f"{n}.jpg") < 0.1][:2]
    for label, name in zip("ab", in_eval, strict=True):
        (tmp_path / "photos" / label).mkdir(parents=True)
        (tmp_path / "photos" / label / name).touch()
    assert "not one of its 2 images falls to the training list" in complaint(tmp_path / "photos", tmp_path / "d")


def test_the_program_ends_with_one_line_and_exit_code_2(tmp_path):
    argv = [
        sys.executable,
        "-m",
        "pipelines.ingest",
        "--image_dir",
        str(tmp_path),
        "--output_dir",
        str(tmp_path),
    ]
    root = os.path.dirname(os.path.dirname(os.path.abspath(ingest.__file__)))
    done = subprocess.run(argv, capture_output=True, text=True, cwd=root, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"error: {tmp_path}: the folder is empty")


# Buckets


class FakeStorage:
    """Files by URI."""

    def __init__(self, files):
        self.files = dict(files)

    def match(self, pattern):
        return sorted(uri for uri in self.files if fnmatch.fnmatchcase(uri, pattern))

    def open(self, path):
        return io.BytesIO(self.files[path])

    def read(self, path, *, max_bytes):
        return self.files[path]

    @contextlib.contextmanager
    def create(self, path):
        stream = io.BytesIO()
        yield stream
        self.files[path] = stream.getvalue()

    def move(self, source, target):
        self.files[target] = self.files.pop(source)

    def delete_file(self, path):
        self.files.pop(path, None)


def test_a_bucket_gives_the_same_split_as_a_folder(photos, tmp_path):
    run(photos, tmp_path / "data")
    files = {
        f"gs://bucket/photos/{label}/{name}": b"" for label in ("rose", "daisy") for name in os.listdir(photos / label)
    }
    extra = {
        "gs://bucket/photos/": b"",
        "gs://bucket/photos/.x/1.jpg": b"",
        "gs://bucket/photos/rose/b": b"no",
    }
    storage = FakeStorage(files | extra | {"gs://bucket/data/test.csv": b"old"})
    argv = ["--image_dir", "gs://bucket/photos/", "--output_dir", "gs://bucket/data"]
    assert ingest.main(argv, storage=storage) == 0
    new = {uri: raw for uri, raw in storage.files.items() if not uri.startswith("gs://bucket/photos/")}
    assert set(new) == {f"gs://bucket/data/{name}" for name in ("dict.txt", "train.csv", "eval.csv", "test.csv")}
    for split, rows in read(tmp_path / "data").items():
        there = [uri for uri, _ in csv.reader(new[f"gs://bucket/data/{split}.csv"].decode().splitlines())]
        assert there == [uri.replace("../", "gs://bucket/") for uri in rows]


def test_a_pattern_is_no_folder(tmp_path):
    assert "must be one folder, not a pattern" in complaint("gs://bucket/*", tmp_path)


def test_ctrl_c_says_that_the_same_command_begins_again(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ingest, "find_local_images", interrupted)
    (tmp_path / "photos").mkdir()
    with pytest.raises(KeyboardInterrupt, match=r"^The same command begins again: "):
        ingest.main(["--image_dir", str(tmp_path / "photos"), "--output_dir", str(tmp_path / "data")])


def test_a_folder_above_the_class_folders_is_said(tmp_path, capsys):
    for number, folder in enumerate(("my photos/daisy", "my photos/roses", "shots/a", "shots/b", "hugs/x")):
        (tmp_path / "home" / folder).mkdir(parents=True)
        for photo in range(6):
            Image.new("RGB", (8, 8), (40 * number, photo, 0)).save(tmp_path / "home" / folder / f"{photo}{number}.png")
    (tmp_path / "home/hugs/logo.svg").write_text("<svg/>")
    words = ["--output_dir", str(tmp_path / "data"), "--image_dir"]
    assert not ingest.main([*words, str(tmp_path / "home")])
    said = capsys.readouterr().err
    assert "my photos looks like the parent of class folders" in said
    assert f"pass --image_dir '{tmp_path}/home/my photos'." in said
    assert "hugs looks like" not in said
    assert "--group_by parent" not in said and "To use SVG" not in said
    assert not ingest.main([*words, str(tmp_path / "home/my photos")])
    assert "looks like the parent" not in capsys.readouterr().err


@pytest.mark.parametrize("found", ["both", "installed", "none"])
def test_the_next_command_has_a_network_whose_weights_are_here(photos, tmp_path, capsys, monkeypatch, found):
    from preprocess.backbones.weights_files import PackagedFile, PublishedFile

    monkeypatch.setattr(PublishedFile, "find", lambda self: "there" if found == "both" else None)
    monkeypatch.setattr(PackagedFile, "find", lambda self: None if found == "none" else "there")
    assert not ingest.main(["--image_dir", str(photos), "--output_dir", str(tmp_path / "data")])
    commands = [line for line in capsys.readouterr().out.splitlines() if "embed" in line or "preproc --" in line]
    is_given = [line.endswith("--backbone efficientnet_lite0") for line in commands]
    assert is_given == [found == "installed"] * 2
