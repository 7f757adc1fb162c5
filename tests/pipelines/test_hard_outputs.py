"""Outputs at which a set could be begun and not be finished: that is said before the first image is read."""

import errno
import os
import re
import shutil

import pytest

from configs.errors import InputError
from preprocess.jobs import journal
from tests.pipelines.test_whole_sets import files, photos, run  # noqa: F401 (a fixture)
from tests.support.slow_job import SlowEngine


@pytest.fixture
def nothing_embeds(monkeypatch):
    def embed(self, pixels):
        raise AssertionError("an image was embedded")

    return lambda: monkeypatch.setattr(SlowEngine, "embed", embed)


def is_sidecar(path):
    return "/_train/" in os.fspath(path)


@pytest.mark.parametrize("flags", [(), ("--overwrite",)])
def test_shards_that_cannot_be_moved_to_their_places_are_refused_at_the_start(
    photos,  # noqa: F811
    nothing_embeds,
    monkeypatch,
    flags,
):
    if flags:
        run(photos)
    before = files(photos / "out")
    nothing_embeds()
    replace = os.replace

    def replace_within_one(source, target):
        # The sidecar folder is a filesystem of its own, as a link to another disk and a mount are.
        if is_sidecar(source) != is_sidecar(target):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), source, None, target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_within_one)
    with pytest.raises(InputError, match=r"files cannot be moved from .*/out/_train' to .*/out' \(Invalid cross"):
        run(photos, *flags)
    # An older set stays whole, and nothing is left behind.
    assert files(photos / "out") == before


@pytest.mark.parametrize("flags", [(), ("--dry_run",)])
def test_a_set_whose_shards_would_have_too_long_names_is_refused_at_the_start(photos, flags):  # noqa: F811
    longest = "x" * (255 - len("-00000-of-00001.tfrecord.gz"))
    with pytest.raises(InputError, match=re.escape("bytes, and names there may have 255")):
        run(photos, *flags, out=photos / f"out/{longest}x")
    assert not (photos / "out").exists()
    assert run(photos, *flags, "--compression", "gzip", out=photos / f"out/{longest}") == 0


@pytest.mark.parametrize(
    "name",
    ["parts-*/blocks.jsonl", "parts-*/made_with.json", "parts-*/report.json", "parts-1/job.json", "report.json"],
)
def test_json_that_is_nested_too_deeply_is_damaged_json(photos, monkeypatch, name):  # noqa: F811
    sidecars = photos / "out/_train"
    if name == "report.json":
        run(photos)
        path = sidecars / name
    else:
        write_file = journal.write_file

        def fail(storage, path, data):
            if path.endswith("manifest.json") and "/set/" not in path:
                raise OSError("the disk is full")
            write_file(storage, path, data)

        with monkeypatch.context() as patch, pytest.raises(InputError, match="the disk is full"):
            patch.setattr(journal, "write_file", fail)
            run(photos)
        (folder,) = sidecars.glob("parts-*")
        if "blocks" not in name:
            (folder / "blocks.jsonl").unlink()
        path = sidecars / name.replace("*", folder.name.removeprefix("parts-"))
        path.parent.mkdir(exist_ok=True)
    path.write_text("[" * 100_000)
    try:
        run(photos)
    except InputError:
        run(photos, "--overwrite")
    assert len(files(photos / "out")) == 10


@pytest.mark.parametrize(
    "flag", ["--output_path", "--input_path", "--against", "--embedding_cache", "a glob", "the folder"]
)
def test_a_path_that_is_not_utf_8_is_refused_at_the_start(photos, nothing_embeds, monkeypatch, flag):  # noqa: F811
    odd = os.fsdecode(os.fsencode(photos) + b"/\xff")
    flags = {
        "--output_path": (flag, f"{odd}/train"),
        "--input_path": (flag, f"{odd}/train.csv"),
        "a glob": ("--input_path", f"{photos}/*/train.csv"),
        "the folder": ("--input_path", "train.csv"),
    }
    os.mkdir(odd)
    shutil.copy(photos / "train.csv", odd)
    if flag == "the folder":
        monkeypatch.chdir(odd)
    nothing_embeds()
    with pytest.raises(InputError, match=r"is not UTF-8.*\(byte 0xff\)"):
        run(photos, *flags.get(flag, (flag, odd)))
    assert sorted(os.listdir(odd)) == ["train.csv"] and not (photos / "out").exists()


def test_links_at_names_that_are_written_lead_nowhere(photos):  # noqa: F811
    outside = photos / "precious.txt"
    outside.write_text("precious")
    run(photos)
    written = {path.name for path in (photos / "out/_train").iterdir() if path.suffix != ".lock"}
    for name in written:
        (photos / f"out/_train/{name}.partial").symlink_to(outside)
    os.mkfifo(photos / "out/_train/blocks.jsonl.partial.fifo")
    os.replace(photos / "out/_train/blocks.jsonl.partial.fifo", photos / "out/_train/blocks.jsonl.partial")
    assert run(photos, "--overwrite") == 0
    (photos / "out/_train/.lock").symlink_to(outside)
    with pytest.raises(InputError, match="Too many levels of symbolic links: .*/_train/.lock"):
        run(photos)
    assert outside.read_text() == "precious"


@pytest.mark.parametrize(
    "name", ["new\nline", "a b", "-x", "_train", "a{b}", "$HOME", "%s", "a\\b", "train-00000-of-00001.tfrecord"]
)
def test_a_set_of_an_odd_name_is_a_set_like_others(photos, name):  # noqa: F811
    out = photos / "out" / name
    run(photos, out=out)
    (photos / "4.png").rename(photos / "photos/4.png")
    assert run(photos, "--retry_failures", "all", out=out) == 0
    assert run(photos, "--overwrite", "--compression", "gzip", out=out) == 0
    assert run(photos, "--verify", "--compression", "gzip", out=out) == 0
    assert len([path for path in (photos / "out").iterdir() if path.is_file()]) == 4
