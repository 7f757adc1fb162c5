"""The road of views: `pipelines.embed --views` writes a set, and `trainer.task` trains on it."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from configs.errors import InputError
from pipelines import embed
from preprocess.records.example import decode_example
from preprocess.records.tfrecord import whole_records
from tests.pipelines.test_embed import photo
from tests.support import tiny_network
from trainer import task
from trainer.data.dataset import read_dataset
from trainer.data.record_parser import RecordParser
from trainer.data.record_sets import find_record_sets

VIEWS = ["--views", "3", "--flip_left_right", "--random_crop", "10"]


def embed_list(folder, name: str, numbers: range, *flags: str) -> str:
    for number in numbers:
        photo(folder / f"{number}.png", seed=number, size=(40, 40), image_format="PNG")
    with open(folder / f"{name}.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([f"{number}.png", "odd" if number % 2 else "even"] for number in numbers)
    (folder / "dict.txt").write_text("even\nodd\n")
    prefix = str(folder / name)
    paths = ["--input_path", f"{prefix}.csv", "--input_dict", str(folder / "dict.txt"), "--output_path", prefix]
    network = ["--backbone", "tiny", "--weights", "random", "--engine", "tensorflow", "--precision", "float32"]
    assert embed.main([*paths, *network, *flags]) == 0
    return prefix


def test_views_from_photos_to_a_report(tmp_path, monkeypatch, capsys):
    tiny_network.install(monkeypatch)
    train = embed_list(tmp_path, "train", range(12), *VIEWS)
    plain = embed_list(tmp_path, "plain", range(12, 14))
    evaluation = embed_list(tmp_path, "eval", range(14, 20), *VIEWS)
    monkeypatch.setattr(RecordParser, "_any_layout", None)  # The slow way is not taken.
    data = read_dataset(find_record_sets([train], flag="f"), flag="f", all_views=True)
    shards = sorted(tmp_path.glob("train-*"))
    records = [decode_example(record) for shard in shards for record in whole_records(shard.read_bytes())]
    found = np.concatenate(list(data.embeddings.view_pieces()))
    np.testing.assert_array_equal(found, [record.embeddings for record in records])
    assert data.uris.tolist() == [record.image_uri for record in records]

    more = ["--output_path", str(tmp_path / "training"), "--max_steps", "5", "--check_photos", "0"]
    arguments = ["--eval_data_paths", evaluation, *more]
    task.main(["--train_data_paths", f"{train}", *arguments])
    printed = capsys.readouterr()
    assert "each step drew one of them" in printed.out
    assert "the images of the eval set have 3 views (mirrored, crop 10 %): only view 0" in printed.err
    metrics = json.loads((tmp_path / "training" / "metrics.json").read_text())
    assert metrics["views"]["count"] == 3
    with pytest.raises(InputError, match="have different views: 1 view against 3 views"):
        task.main(["--train_data_paths", f"{train},{plain}", *arguments])
