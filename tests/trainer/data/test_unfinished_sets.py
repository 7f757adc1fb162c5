"""Training on a set whose job was stopped says which command finishes the set, and that command is of the same job."""

from __future__ import annotations

import glob
import shlex

import pytest

from configs.errors import InputError
from pipelines import embed
from pipelines.checks.output_claim import Claim, Output
from trainer.data.record_sets import find_record_sets

FLAGS = ["--weights", "random", "--seed", "3", "--precision", "float32", "--compression", "gzip"]


@pytest.fixture
def lists(tmp_path):
    folder = tmp_path / "my lists"
    folder.mkdir()
    (folder / "dict.txt").write_text("cat\ndog\n")
    for name in ("a.csv", "b.csv"):
        (folder / name).write_text(f"{name}.jpg,cat\n")
    return folder


def begin(lists, prefix, *flags):
    """Leaves what a job leaves that was stopped before its first record; gives the job."""
    words = ["--input_path", str(lists / "a.csv"), "--input_path", str(lists / "b.csv")]
    words += ["--input_dict", str(lists / "dict.txt"), "--output_path", prefix, *FLAGS, *flags]
    prepared = embed.prepare(words)
    return Output(prepared.job, prepared.storage).prepare(claim=Claim.NEW, overwrite=False)


@pytest.mark.parametrize("pattern", ["*", "-*"])
def test_the_command_that_is_printed_is_of_the_same_job(lists, tmp_path, pattern):
    prefix = str(tmp_path / "out" / "train")
    job = begin(lists, prefix)
    with pytest.raises(InputError, match=r"^--train_data_paths: the record set .*/train is not finished\. ") as refusal:
        find_record_sets([f"{prefix}{pattern}"], flag="train_data_paths")
    command = str(refusal.value).rpartition("this finishes it: ")[2]
    words = shlex.split(command)
    assert "embed" in " ".join(words[:4])
    again = embed.prepare(words[words.index("--input_path") :])
    assert again.job.key == job.key
    assert again.job.output_prefix == prefix


def test_a_set_of_which_shards_are_there_already_is_not_finished_either(lists, tmp_path):
    prefix = str(tmp_path / "out" / "train")
    begin(lists, prefix)
    (tmp_path / "out" / "train-00000-of-00001.tfrecord.gz").write_bytes(b"")
    with pytest.raises(InputError, match=r"is not finished\..* this finishes it: .*--compression gzip"):
        find_record_sets([f"{prefix}*"], flag="train_data_paths")


def test_without_the_dictionary_or_with_two_jobs_no_command_is_made_up(lists, tmp_path):
    prefix = str(tmp_path / "out" / "train")
    begin(lists, prefix)
    (lists / "dict.txt").write_text("dog\ncat\n")
    with pytest.raises(InputError, match=r"not finished\..*the command that began it finishes it\.$"):
        find_record_sets([f"{prefix}*"], flag="train_data_paths")
    (lists / "dict.txt").write_text("cat\ndog\n")
    begin(lists, prefix, "--rows_per_shard", "7")
    assert len(glob.glob(str(tmp_path / "out" / "_train" / "parts-*"))) == 2
    with pytest.raises(InputError, match=r"the command that began it finishes it\.$"):
        find_record_sets([f"{prefix}*"], flag="train_data_paths")


def test_a_definition_that_cannot_be_read_is_no_traceback(lists, tmp_path):
    prefix = str(tmp_path / "out" / "train")
    begin(lists, prefix)
    (definition,) = (tmp_path / "out" / "_train").glob("parts-*/job.json")
    definition.write_text('{"input_path": 5}')
    with pytest.raises(InputError, match=r"the command that began it finishes it\.$"):
        find_record_sets([f"{prefix}*"], flag="train_data_paths")
