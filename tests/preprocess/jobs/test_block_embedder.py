import hashlib
import io
import threading

import numpy as np
import pytest

from preprocess.images.loader import ImageLoader
from preprocess.jobs.block_embedder import BlockEmbedder
from preprocess.jobs.block_writer import BlockWriter
from preprocess.jobs.recent_embeddings import RecentEmbeddings
from preprocess.jobs.resume import ResumedBlock
from preprocess.lists.blocks import into_blocks
from preprocess.lists.labels import LabelDict
from preprocess.lists.rows import parse_rows
from preprocess.records.example import DecodedExample, decode_example
from preprocess.records.tfrecord import whole_records
from preprocess.records.views import Views
from preprocess.storage.base import LocalStorage
from tests.support.stand_ins import StandInEngine, decode_stand_in, read_stand_in

LABELS = LabelDict(("a", "b"))


def blocks_of(text, rows_per_block):
    rows = parse_rows(io.BytesIO(text.encode()), list_path="d/list.csv", labels=LABELS, unknown_labels="skip")
    return list(into_blocks(rows, list_index=0, list_path="d/list.csv", rows_per_block=rows_per_block))


def make_embedder(
    tmp_path, engine=None, read=read_stand_in, max_ahead=4, on_rows_done=lambda rows: None, decode=decode_stand_in
):
    engine, recent = engine or StandInEngine(), RecentEmbeddings()

    def recall(digest):
        embedding = recent.find(digest)
        return None if embedding is None else (embedding,)

    return BlockEmbedder(
        loader=ImageLoader(read=read, decode=decode, max_ahead=max_ahead, recall=recall),
        engine=engine,
        open_writer=lambda block: BlockWriter(
            block, storage=LocalStorage(), parts_dir=str(tmp_path), compression="none", engine=engine
        ),
        batch_size=3,
        on_rows_done=on_rows_done,
        recent=recent,
    )


def complete_all(embedder, blocks):
    for block in blocks:
        embedder.submit(block)
    return [embedder.complete_next() for _ in blocks]


def test_every_row_has_one_outcome(tmp_path):
    done = []
    text = "1.jpg,a\nmissing.jpg,a\n\n2.jpg,zzz\ntext.jpg,b\n254.jpg,b\n255.jpg,b\ncrash.jpg,a\n,a\n3.jpg\n4.jpg,a,b\n"
    (result,) = complete_all(make_embedder(tmp_path, on_rows_done=done.append), blocks_of(text, 100))
    assert result.rows == 11
    assert result.embedded == 3
    assert result.failed == {
        "not_found": 1,
        "not_an_image": 1,
        "all_zero": 1,
        "not_finite": 1,
        "unexpected_error": 1,
        "no_uri": 1,
    }
    assert result.skipped == {"blank_line": 1, "unknown_label": 1}
    assert result.label_counts == {0: 2, 1: 1}
    assert result.unlabeled == 1
    assert result.shard.records == 3
    assert sum(done) == 11


def test_batches_are_full_and_never_span_blocks(tmp_path):
    engine = StandInEngine(max_pending=1)  # one after the other: two at once are counted in either order
    text = "".join(f"{i}.jpg,a\n" if i % 4 else f"missing{i}.jpg,a\n" for i in range(1, 21))
    results = complete_all(make_embedder(tmp_path, engine=engine), blocks_of(text, 10))
    assert [result.embedded for result in results] == [8, 7]
    assert engine.batches == [3, 3, 2, 3, 3, 1]


def test_batches_of_the_next_block_start_before_the_last_of_this_one_is_done(tmp_path):
    release, started = threading.Event(), []

    class Engine(StandInEngine):
        def embed(self, pixels):
            # The first block's only batch is held until the second block's has been handed over.
            assert release.wait(10)
            return super().embed(pixels)

        def start(self, pixels):
            started.append(int(pixels[0, 0, 0, 0]))
            if len(started) == 2:
                release.set()
            return super().start(pixels)

    results = complete_all(make_embedder(tmp_path, engine=Engine()), blocks_of("1.jpg,a\n2.jpg,a\n", 1))
    assert started == [1, 2]
    assert [result.embedded for result in results] == [1, 1]


def records_of(tmp_path, result):
    path = tmp_path / result.shard.name.rpartition("/")[2]
    return [decode_example(data) for data in whole_records(path.read_bytes())]


@pytest.mark.parametrize("max_ahead", [1, 4, 40])
def test_an_image_that_occurs_again_is_embedded_once_and_its_rows_have_the_same_embedding(tmp_path, max_ahead):
    # Equal images under several names, in one batch, in the next one, in the next block, and far from each other.
    numbers = [1, 1, 2, 3, 4, 1, 5, 2, 6, 7, 8, 9, 10, 11, 12, 3, 12, 12, 13, 1]
    text = "".join(f"{row}/{number}.jpg,a\n" for row, number in enumerate(numbers))
    engine, done = StandInEngine(max_pending=2), []
    embedder = make_embedder(tmp_path, engine=engine, max_ahead=max_ahead, on_rows_done=done.append)
    results = complete_all(embedder, blocks_of(text, 10))
    assert sum(engine.batches) == 13
    assert [dict(result.sources) for result in results] == [{"computed": 7, "copied": 3}, {"computed": 6, "copied": 4}]
    assert sum(done) == 20
    records = [record for result in results for record in records_of(tmp_path, result)]
    assert [record.image_uri for record in records] == [f"{row}/{number}.jpg" for row, number in enumerate(numbers)]
    assert [int(record.embedding[0]) for record in records] == numbers
    digests = [hashlib.sha256(str(number).encode()).digest() for number in numbers]
    assert [record.image_sha256 for record in records] == digests


def test_images_whose_equal_is_embedded_already_are_not_decoded(tmp_path):
    decoded = []

    def decode(data):
        decoded.append(data)
        return decode_stand_in(data)

    text = "".join(f"{row}/{row % 30}.jpg,a\n" for row in range(60))
    (result,) = complete_all(make_embedder(tmp_path, max_ahead=1, decode=decode), blocks_of(text, 100))
    assert result.sources == {"computed": 30, "copied": 30}
    assert len(decoded) < 45


def test_each_row_of_an_image_without_an_embedding_fails(tmp_path):
    names = ["a/254", "a/1", "b/254", "a/2", "a/3", "a/255", "b/255", "a/missing", "c/254"]
    text = "".join(f"{name}.jpg,a\n" for name in names)
    for max_ahead in (1, 4):
        (result,) = complete_all(make_embedder(tmp_path, max_ahead=max_ahead), blocks_of(text, 100))
        assert result.failed == {"all_zero": 3, "not_finite": 2, "not_found": 1}
        assert result.sources == {"computed": 3}


def test_images_of_an_earlier_run_are_not_embedded_again_under_another_name(tmp_path):
    (block,) = blocks_of("a/1.jpg,a\nb/1.jpg,b\n2.jpg,a\n", 100)
    known = DecodedExample("a/1.jpg", np.float32([7, 7, 7]), hashlib.sha256(b"1").digest())
    engine = StandInEngine()
    embedder = make_embedder(tmp_path, engine=engine)
    embedder.submit(block, ResumedBlock(records={"a/1.jpg": known}))
    result = embedder.complete_next()
    assert engine.batches == [1]
    assert result.sources == {"earlier_run": 1, "copied": 1, "computed": 1}
    assert [int(record.embedding[0]) for record in records_of(tmp_path, result)] == [7, 7, 2]


class ViewEngine(StandInEngine):
    """Notes the first pixel of each image of each batch, with its brightness."""

    def embed(self, pixels):
        self.batches.append(list(pixels[:, 0, 0, 0]))
        values = pixels[:, 0, 0, 0].astype(np.float32)
        embeddings = np.stack([values, values + 1, values + 2], axis=1)
        embeddings[values == 254] = 0
        return embeddings


def embed_views(tmp_path, text, views):
    def decode_views(data, digest):
        pixels = decode_stand_in(data)
        return np.stack([pixels, *(pixels + 100 * view for view in range(1, views.count))])

    engine = ViewEngine(max_pending=1)
    embedder = BlockEmbedder(
        loader=ImageLoader(read=read_stand_in, decode=decode_views, decodes_views=True, max_ahead=4),
        engine=engine,
        open_writer=lambda block: BlockWriter(
            block, storage=LocalStorage(), parts_dir=str(tmp_path), compression="none", engine=engine
        ),
        batch_size=3,
        on_rows_done=lambda rows: None,
        views=views,
    )
    (result,) = complete_all(embedder, blocks_of(text, 100))
    records = [] if result.shard is None else whole_records((tmp_path.parent.parent / result.shard.name).read_bytes())
    return result, [decode_example(record) for record in records], engine


def test_each_view_has_batches_of_its_own_and_those_of_view_0_are_those_without_views(tmp_path):
    text = "1.jpg,a\nmissing.jpg,a\n2.jpg,b\n3.jpg\n4.jpg,a\n"
    views = Views(count=3, random_crop=1)
    result, records, engine = embed_views(tmp_path / "x" / "parts", text, views)
    assert engine.batches == [[1, 2, 3], [101, 102, 103], [201, 202, 203], [4], [104], [204]]
    assert (result.embedded, result.failed) == (4, {"not_found": 1})
    for number, record in enumerate(records, start=1):
        np.testing.assert_array_equal(record.embedding, [number, number + 1, number + 2])
        np.testing.assert_array_equal(record.view_embeddings[:, 0], [number + 100, number + 200])


def test_the_brightness_of_a_view_is_drawn_from_its_image_and_view_0_has_none(tmp_path):
    views = Views(count=3, random_brightness=50)
    _, records, engine = embed_views(tmp_path / "x" / "parts", "1.jpg,a\n2.jpg,b\n", views)
    assert engine.batches[0] == [1, 2]
    for number, record in enumerate(records, start=1):
        digest = hashlib.sha256(str(number).encode()).digest()
        assert record.image_sha256 == digest
        expected = [(number + 100 * v) * np.float32(views.distortion(digest, v, size=2).brightness) for v in (1, 2)]
        np.testing.assert_allclose(record.view_embeddings[:, 0], expected, rtol=1e-6)


def test_a_row_fails_if_one_of_its_views_has_no_embedding(tmp_path):
    parts = tmp_path / "x" / "parts"
    result, records, _ = embed_views(parts, "1.jpg,a\n54.jpg,a\n2.jpg,b\n", Views(count=3, random_crop=1))
    assert (result.rows, result.embedded, result.failed) == (3, 2, {"all_zero": 1})
    assert [record.image_uri for record in records] == ["1.jpg", "2.jpg"]
    assert "The embedding of view 2 is all zero." in (parts.parent.parent / result.failed_ledger.name).read_text()


def test_the_same_block_gives_the_same_bytes(tmp_path):
    text = "".join(f"{i}.jpg,b\n" for i in range(1, 40))
    blocks = blocks_of(text, 16)
    first = complete_all(make_embedder(tmp_path), blocks)
    alone = [complete_all(make_embedder(tmp_path), [block])[0] for block in reversed(blocks)]
    assert [r.shard.sha256 for r in first] == [r.shard.sha256 for r in reversed(alone)]
