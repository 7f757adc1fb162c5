"""Record sets with several views of each image, from their bytes to data sets."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
import tensorflow as tf

from configs.errors import InputError
from preprocess.records.example import encode_example
from preprocess.records.record_set import MANIFEST_NAME, sidecar_path
from preprocess.records.tfrecord import MalformedRecordError
from tests.support.view_sets import add_views, with_views
from trainer.data.dataset import read_dataset
from trainer.data.memory import MemoryBudget
from trainer.data.record_parser import RecordParser
from trainer.data.record_sets import find_record_sets
from trainer.data.set_views import require_same_views

VIEWS = np.arange(12 * 3 * 2, dtype=np.float32).reshape(12, 3, 2)  # Twelve examples, three views, two numbers each.
LABELS = [[row % 3] for row in range(12)]


def record_of(views: np.ndarray, *, uri: str = "é.jpg", label_ids: tuple[int, ...] = (0, 300)) -> bytes:
    record = encode_example(image_uri=uri, embedding=views[0], label_ids=label_ids, image_sha256=b"d" * 32)
    return with_views(record, views[1:])


def parse(parser: RecordParser, *records: bytes):
    data = b"before" + b"".join(records)
    ends = np.cumsum([6, *map(len, records)]).tolist()
    return parser.parse(data, list(itertools.pairwise(ends)))


@pytest.mark.parametrize("all_views", [True, False])
@pytest.mark.parametrize("label_ids", [(), (0,), (2, 300)])
def test_our_own_records_are_read_by_their_bytes(all_views, label_ids):
    parser = RecordParser(2, stored_views=3, all_views=all_views)
    parser._any_layout = None  # type: ignore[assignment,method-assign]  # It must not be needed.
    found = parse(parser, *(record_of(views, label_ids=label_ids) for views in VIEWS[:4]))
    np.testing.assert_array_equal(found.views, VIEWS[:4] if all_views else VIEWS[:4, :1])
    np.testing.assert_array_equal(found.embeddings, VIEWS[:4, 0])
    assert found.uris == ["é.jpg"] * 4
    assert found.label_ids.tolist() == list(label_ids) * 4
    assert (found.image_digests == ord("d")).all()


def foreign_record(views: np.ndarray, **more: np.ndarray) -> bytes:
    """The same record, with its features in no particular order."""
    floats = {"view_embeddings": views[1:].ravel(), "embedding": views[0], **more}
    feature = {name: tf.train.Feature(float_list=tf.train.FloatList(value=values)) for name, values in floats.items()}
    feature["image_uri"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"a.jpg"]))
    feature["label"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[1]))
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


@pytest.mark.parametrize("all_views", [True, False])
def test_other_layouts_are_read_too(all_views):
    parser = RecordParser(2, stored_views=3, all_views=all_views)
    found = parse(parser, record_of(VIEWS[0]), foreign_record(VIEWS[1], z=np.ones(1)))
    np.testing.assert_array_equal(found.views, VIEWS[:2] if all_views else VIEWS[:2, :1])


def test_a_reader_that_knows_of_no_views_reads_view_0():
    np.testing.assert_array_equal(parse(RecordParser(2), record_of(VIEWS[3])).views, VIEWS[3:4, :1])


@pytest.mark.parametrize(
    "record",
    [
        record_of(VIEWS[0, :2]),
        record_of(VIEWS[0])[:-8],
        encode_example(image_uri="a", embedding=VIEWS[0, 0], label_ids=[1]),
    ],
)
def test_too_few_views_are_an_error(record):
    with pytest.raises(MalformedRecordError):
        parse(RecordParser(2, stored_views=3, all_views=True), record)


@pytest.fixture
def view_set(tmp_path, write_set, mean_colour_identity):
    """Writes a set with views; the number of shards may be another."""
    identity = dataclasses.replace(mean_colour_identity, embedding_size=2)

    def write(name: str = "train", views: np.ndarray = VIEWS, label_ids=LABELS, **parameters) -> str:
        prefix = write_set(f"{tmp_path}/{name}", views[:, 0], label_ids, identity=identity, num_shards=3)
        return add_views(prefix, views[:, 1:], **parameters)

    return write


def read(prefix: str, *, all_views: bool = True, budget: MemoryBudget | None = None):
    return read_dataset(find_record_sets([prefix], flag="f"), flag="f", all_views=all_views, budget=budget)


def views_of(dataset) -> np.ndarray:
    return np.concatenate(list(dataset.embeddings.view_pieces()))


@pytest.mark.parametrize("budget", [None, MemoryBudget(0)])
def test_a_set_with_views(view_set, budget):
    label_ids = [[] if row % 4 == 1 else ids for row, ids in enumerate(LABELS)]  # Three records are left out.
    kept = [row for row, ids in enumerate(label_ids) if ids]
    dataset = read(view_set(label_ids=label_ids), budget=budget)
    assert dataset.embeddings.in_memory == (budget is None)
    np.testing.assert_array_equal(views_of(dataset), VIEWS[kept])
    np.testing.assert_array_equal(np.concatenate(list(dataset.embeddings.pieces())), VIEWS[kept, 0])
    np.testing.assert_array_equal(np.concatenate(list(dataset.embeddings.first_view().view_pieces())), VIEWS[kept, :1])
    # Statistics are those of undistorted images.
    np.testing.assert_allclose(dataset.embeddings.feature_statistics().mean, VIEWS[kept, 0].mean(axis=0))
    out = np.empty((len(kept), 2), np.float32)
    rows = dataset.embeddings.shuffled(0).fill(out)
    assert all((row == VIEWS[kept[number]]).all(axis=1).any() for number, row in zip(rows, out, strict=True))


def test_view_0_alone_is_read_where_the_others_are_not_wanted(view_set):
    dataset = read(view_set(), all_views=False)
    assert dataset.embeddings.num_views == 1
    np.testing.assert_array_equal(dataset.embeddings.array, VIEWS[:, 0])
    assert dataset.digest() != read(view_set()).digest()


def test_all_views_count_for_the_memory(tmp_path, write_set, mean_colour_identity):
    size = 60_000
    identity = dataclasses.replace(mean_colour_identity, embedding_size=size)
    views = np.zeros((3, 3, size), np.float32)  # 0.7 MiB of one view, 2.1 MiB of all.
    prefix = write_set(f"{tmp_path}/train", views[:, 0], [[0], [1], [2]], identity=identity)
    add_views(prefix, views[:, 1:])
    assert read(prefix, all_views=False, budget=MemoryBudget(1)).embeddings.in_memory
    assert not read(prefix, budget=MemoryBudget(1)).embeddings.in_memory
    assert read(prefix, budget=MemoryBudget(3)).embeddings.in_memory


def test_a_number_that_is_not_finite_in_a_view_is_named(view_set):
    views = VIEWS.copy()
    views[7, 2, 1] = np.nan
    prefix = view_set(views=views)
    with pytest.raises(InputError, match=r"the embedding of train/7.jpg holds a number that is not finite"):
        read(prefix)
    assert len(read(prefix, all_views=False)) == 12


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"count": 0}, "count must be a whole number from 1 to 32, not 0"),
        ({"count": "4"}, "count must be"),
        ({"count": True}, "count must be"),
        ({"random_crop": 100}, "random_crop must be a number of percent from 0 to 99, not 100"),
        ({"random_scale": "1"}, "random_scale must be"),
        ({"random_brightness": float("nan")}, "random_brightness must be"),
        ({"flip_left_right": 1}, "flip_left_right must be true or false, not 1"),
    ],
)
def test_a_manifest_with_wrong_views_is_one_line(view_set, parameters, words):
    with pytest.raises(InputError, match=rf"manifest.json: the field `views` is wrong: {words}") as error:
        read(view_set(**parameters))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("views", "words"), [({"count": 3}, "lacks 'flip_left_right'"), (3, "is wrong"), ([], "wrong")]
)
def test_views_that_are_no_such_object_are_one_line(view_set, views, words):
    path = sidecar_path(view_set(), MANIFEST_NAME)
    with open(path) as stream:
        manifest = json.load(stream)
    with open(path, "w") as stream:
        json.dump({**manifest, "views": views}, stream)
    with pytest.raises(InputError, match=words):
        find_record_sets([path.replace("_train/manifest.json", "train")], flag="f")


@pytest.mark.parametrize(
    ("views", "parameters", "words"),
    [
        (VIEWS[:, :2], {}, r"2 views \(mirrored, crop 10 %\) against 3 views \(mirrored, crop 10 %\)"),
        (VIEWS, {"random_crop": 0, "random_brightness": 12.5}, r"3 views \(mirrored, brightness 12.5 %\) against"),
    ],
)
def test_training_sets_with_different_views_are_one_line(view_set, views, parameters, words):
    prefixes = [view_set("a", views, **parameters), view_set("b")]
    sets = find_record_sets(prefixes, flag="f")
    with pytest.raises(InputError, match=words) as error:
        require_same_views(sets)
    assert "--no-draw_views" in str(error.value)
    # That way is open.
    assert read_dataset(sets, flag="f").embeddings.shape == (24, 2)


def test_the_draw_of_a_set_is_the_same_from_memory_and_from_disk(view_set):
    prefix = view_set()
    drawn = []
    for budget in (None, MemoryBudget(0)):
        shuffle = read(prefix, budget=budget).embeddings.shuffled(3)
        out = np.empty((36, 2), np.float32)
        rows = shuffle.fill(out)
        drawn.append([sorted(map(tuple, epoch)) for epoch in np.split(np.column_stack([rows, out]), 3)])
    assert drawn[0] == drawn[1]
