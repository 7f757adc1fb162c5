"""The same images again: retried, found in the cache, there twice, and in two sets."""

import dataclasses
import json

import pytest

from configs.errors import InputError
from preprocess.beam.transforms import EngineLoader
from tests.pipelines.test_embed import ledger, photo, records, report_of, run
from tests.support.mutated_corpus import mutated


@pytest.fixture
def thirty(tmp_path, engine):
    """A list of 30 rows in five shards, of which row 4 is missing and row 17 is no image."""
    (tmp_path / "dict.txt").write_text("daisy\nrose\n")
    for number in range(30):
        photo(tmp_path / f"photos/{number}.png", seed=number, size=(9, 9), image_format="PNG")
    (tmp_path / "photos/4.png").rename(tmp_path / "4.png")
    (tmp_path / "photos/17.png").write_text("not yet an image")
    rows = [f"photos/{number}.png,{'rose' if number % 3 else 'daisy'}\n" for number in range(30)]
    (tmp_path / "train.csv").write_text("".join(rows))
    return tmp_path


def shards(folder, name="out"):
    return {path.name: path.read_bytes() for path in (folder / name).glob("train-*")}


def test_dead_letters_are_tried_again_and_complete_the_same_set(thirty, capsys):
    flags = ["--rows_per_shard", "6"]
    run(thirty, *flags)
    assert report_of(thirty)["failed"] == {"not_an_image": 1, "not_found": 1}
    before = shards(thirty)
    (thirty / "4.png").rename(thirty / "photos/4.png")
    photo(thirty / "photos/17.png", seed=17, size=(9, 9), image_format="PNG")
    run(thirty, *flags, "--retry_failures", "not_found,deadline")
    assert report_of(thirty)["embedded_by"] == {"earlier_run": 28, "computed": 1}
    assert report_of(thirty)["failed"] == {"not_an_image": 1}
    assert [entry["line"] for entry in ledger(thirty, "failed.jsonl")] == [18]
    after = shards(thirty)
    assert [name for name in before if before[name] != after[name]] == ["train-00000-of-00005.tfrecord"]
    run(thirty, *flags, "--retry_failures")
    assert report_of(thirty)["failed"] == {}
    retried = shards(thirty)
    run(thirty, *flags, "--overwrite")
    assert shards(thirty) == retried
    capsys.readouterr()
    assert run(thirty, *flags, "--retry_failures") == 0
    assert "no failed row to try again" in capsys.readouterr().out


def test_what_cannot_be_retried_is_said(thirty):
    with pytest.raises(InputError, match="retry_failures: there is no finished set of records"):
        run(thirty, "--retry_failures")
    run(thirty)
    with pytest.raises(InputError, match="that was made with other rows_per_shard"):
        run(thirty, "--retry_failures", "--rows_per_shard", "3")
    with pytest.raises(InputError, match="retry_failures: completes the set that is there"):
        run(thirty, "--retry_failures", "--overwrite")


def test_too_many_failures_fail_the_job_with_examples_and_cost_nothing_twice(thirty, capsys):
    with pytest.raises(InputError, match=r"6.67 % of the rows to embed failed, more than max_failed_percent \(5\)"):
        run(thirty, "--max_failed_percent", "5")
    printed = capsys.readouterr().out
    assert "not_found" in printed
    assert "train.csv:18: " in printed
    assert not (thirty / "out/_train/manifest.json").exists()
    (thirty / "4.png").rename(thirty / "photos/4.png")
    run(thirty, "--max_failed_percent", "5")
    report = report_of(thirty)
    assert report["embedded_by"] == {"earlier_run": 28, "computed": 1}
    assert report["failed"] == {"not_an_image": 1}


def test_an_embedding_is_found_again_by_what_the_file_holds(thirty, engine):
    cache = ["--embedding_cache", str(thirty / "cache")]
    run(thirty, *cache)
    assert report_of(thirty)["embedded_by"] == {"computed": 28}
    undisturbed = shards(thirty)
    # The same images in another order, under other names and labels, with a new one among them.
    (thirty / "photos").rename(thirty / "moved")
    photo(thirty / "moved/new.png", seed=99, size=(9, 9), image_format="PNG")
    rows = [f"moved/{number}.png,rose\n" for number in range(29, -1, -1)]
    (thirty / "train.csv").write_text("moved/new.png\n" + "".join(rows))
    run(thirty, *cache, "--overwrite", "--rows_per_shard", "7")
    assert report_of(thirty)["embedded_by"] == {"cache": 28, "computed": 1}
    # A damaged entry is made anew; what is written is the same with and without the cache.
    (thirty / "moved").rename(thirty / "photos")
    for entry in list((thirty / "cache").rglob("*.embedding"))[:3]:
        entry.write_bytes(entry.read_bytes()[:-5])
    rows = [f"photos/{number}.png,{'rose' if number % 3 else 'daisy'}\n" for number in range(30)]
    (thirty / "train.csv").write_text("".join(rows))
    run(thirty, *cache, "--overwrite")
    assert report_of(thirty)["embedded_by"]["computed"] in (2, 3)  # One of the three may be the new image's.
    assert shards(thirty) == undisturbed
    # What another engine made is not found, and what this one made is still there.
    engine.info = dataclasses.replace(engine.info, precision="bfloat16")
    run(thirty, *cache, "--overwrite")
    assert report_of(thirty)["embedded_by"] == {"computed": 28}
    engine.info = dataclasses.replace(engine.info, precision="float32")
    run(thirty, *cache, "--overwrite")
    assert report_of(thirty)["embedded_by"] == {"cache": 28}


def test_images_that_are_there_twice_are_counted_and_named(thirty, capsys):
    (thirty / "copies").mkdir()
    for number in (1, 2, 3):
        (thirty / f"copies/{number}.png").write_bytes((thirty / f"photos/{number}.png").read_bytes())
    with (thirty / "train.csv").open("a") as stream:
        stream.write("copies/1.png,rose\ncopies/2.png,daisy\ncopies/3.png,daisy\nphotos/3.png,daisy\n")
    run(thirty, "--rows_per_shard", "10")
    path = str(thirty / "out/_train/duplicates.jsonl")
    duplicates = {"images": 3, "extra_records": 4, "images_with_different_labels": 1, "file": path}
    assert report_of(thirty)["duplicates"] == duplicates
    found = ledger(thirty, "duplicates.jsonl")
    assert [(entry["uris"], entry["same_labels"]) for entry in found] == [
        (["photos/1.png", "copies/1.png"], True),
        (["photos/2.png", "copies/2.png"], False),
        (["photos/3.png", "copies/3.png", "photos/3.png"], True),
    ]
    assert "4  records of 3 images that are there more than once, 1 of them under different labels" in (
        capsys.readouterr().out
    )


def test_images_of_another_set_are_counted_and_named(thirty, capsys):
    run(thirty)
    (thirty / "eval.csv").write_text("photos/5.png,rose\n4.png,rose\n4.png\nphotos/6.png,daisy\n")
    flags = ["--output_path", str(thirty / "out/eval"), "--against", str(thirty / "out/train")]
    run(thirty, *flags, input_path=thirty / "eval.csv")
    report = json.loads((thirty / "out/_eval/report.json").read_text())
    path = str(thirty / "out/_eval/shared_images.jsonl")
    assert report["shared_with"] == [{"prefix": str(thirty / "out/train"), "records": 2, "file": path}]
    uris = [json.loads(line)["uri"] for line in (thirty / "out/_eval/shared_images.jsonl").read_text().splitlines()]
    assert uris == ["photos/5.png", "photos/6.png"]
    assert "2  records whose image is also in" in capsys.readouterr().out
    with pytest.raises(InputError, match="against: there is no finished set of records at"):
        run(thirty, "--against", str(thirty / "out/none"), "--overwrite")


@pytest.mark.parametrize("flag", ["--max_failed_percent=101", "--image_deadline_sec=0", "--max_image_pixels=0"])
def test_limits_have_rules(thirty, flag):
    with pytest.raises(InputError, match=flag.strip("-").partition("=")[0]):
        run(thirty, flag)


def test_limits_reach_the_images(thirty):
    photo(thirty / "photos/big.png", size=(100, 100), image_format="PNG")
    (thirty / "photos/large.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40_000))
    with (thirty / "train.csv").open("a") as stream:
        stream.write("photos/big.png\nphotos/large.png\n")
    run(thirty, "--max_image_pixels", "9999", "--max_image_bytes", "30000", "--max_failed_percent", "20")
    assert report_of(thirty)["failed"] == {"not_an_image": 1, "not_found": 1, "too_large": 1, "too_many_pixels": 1}


def test_hundreds_of_damaged_files_leave_the_row_accounting_right(thirty):
    (thirty / "damaged").mkdir()
    files = list(mutated())[::2]
    for number, (_, data) in enumerate(files):
        (thirty / f"damaged/{number}").write_bytes(data)
    with (thirty / "train.csv").open("a") as stream:
        stream.writelines(f"damaged/{number},rose\n" for number in range(len(files)))
    run(thirty, "--max_failed_percent", "100", "--max_image_pixels", "4000000")
    report = report_of(thirty)
    assert report["rows_read"] == 30 + len(files) == report["embedded"] + sum(report["failed"].values())
    assert 28 + 50 < report["embedded"] == sum(1 for _ in records(thirty, size=3))
    assert len(ledger(thirty, "failed.jsonl")) == sum(report["failed"].values()) > 100
    assert {entry["stage"] for entry in ledger(thirty, "failed.jsonl")} == {"read", "decode"}


def test_a_damaged_file_of_the_set_is_one_line(thirty):
    run(thirty)
    blocks = thirty / "out/_train/blocks.jsonl"
    blocks.write_bytes(blocks.read_bytes()[:100])
    for flags in (["--retry_failures"], ["--against", str(thirty / "out/train"), "--output_path", str(thirty / "o/x")]):
        with pytest.raises(InputError, match="blocks.jsonl:1: not the result of a block"):
            run(thirty, *flags)


def test_a_list_that_changes_between_check_and_use_is_refused_and_a_dictionary_is_read_once(
    thirty, engine, monkeypatch
):
    checked = (thirty / "train.csv").read_text()

    def change_and_load(_):
        (thirty / "train.csv").write_text(checked.replace("rose", "daisy"))
        (thirty / "dict.txt").write_text("rose\ndaisy\n")
        return engine

    monkeypatch.setattr(EngineLoader, "__call__", change_and_load)
    with pytest.raises(InputError, match="train.csv: the list changed after it was checked"):
        run(thirty)
    assert not (thirty / "out/_train/manifest.json").exists()
    # What is checked before the start is the list as it is now, so what the message names leads out.
    (thirty / "dict.txt").write_text("daisy\nrose\n")
    monkeypatch.setattr(EngineLoader, "__call__", lambda _: (thirty / "dict.txt").write_text("rose\n") and engine)
    run(thirty, "--overwrite")
    assert report_of(thirty)["records_per_label"] == {"daisy": 28, "rose": 0}
    assert json.loads((thirty / "out/_train/manifest.json").read_text())["labels"] == ["daisy", "rose"]


def test_a_list_that_is_corrected_after_nothing_was_embedded_is_taken_with_the_same_command(thirty):
    good = (thirty / "train.csv").read_text()
    (thirty / "train.csv").write_text(good.replace("photos/", "fotos/"))
    with pytest.raises(InputError) as failed:
        run(thirty)
    assert "--max_failed_percent" not in str(failed.value).partition("The table above")[2]
    (thirty / "train.csv").write_text(good)
    run(thirty)
    assert report_of(thirty)["failed"] == {"not_an_image": 1, "not_found": 1}
    assert not list((thirty / "out/_train").glob("parts-*"))


def test_a_list_that_is_corrected_after_some_were_embedded_needs_a_flag_that_is_named(thirty):
    with pytest.raises(InputError, match="If you change the list itself, add --overwrite"):
        run(thirty, "--max_failed_percent", "5")
    (thirty / "train.csv").write_text((thirty / "train.csv").read_text().replace("photos/4.png,rose\n", ""))
    with pytest.raises(InputError, match="an unfinished job lies at"):
        run(thirty, "--max_failed_percent", "5")
    run(thirty, "--max_failed_percent", "5", "--overwrite")
    assert report_of(thirty)["failed"] == {"not_an_image": 1}
