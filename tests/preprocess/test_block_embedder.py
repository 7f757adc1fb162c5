import concurrent.futures
import io
import threading
import time

import pytest

from preprocess.block_embedder import BlockEmbedder
from preprocess.block_writer import BlockWriter
from preprocess.labels import LabelDict
from preprocess.row_blocks import into_blocks
from preprocess.rows import parse_rows
from preprocess.storage import LocalStorage
from tests.preprocess.stand_ins import IDENTITY, StandInBackbone, decode_stand_in, read_stand_in

LABELS = LabelDict(("a", "b"))


def blocks_of(text, rows_per_block):
    rows = parse_rows(io.BytesIO(text.encode()), list_path="d/list.csv", labels=LABELS, unknown_labels="skip")
    return list(into_blocks(rows, list_index=0, list_path="d/list.csv", rows_per_block=rows_per_block))


@pytest.fixture
def pool():
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        yield pool


def make_embedder(tmp_path, pool, **overrides):
    arguments = {
        "read": read_stand_in,
        "decode": decode_stand_in,
        "backbone": StandInBackbone(),
        "open_writer": lambda block: BlockWriter(
            block, storage=LocalStorage(), parts_dir=str(tmp_path), compression="none", backbone=IDENTITY
        ),
        "pool": pool,
        "batch_size": 3,
        "max_in_flight": 4,
        "on_rows_done": lambda rows: None,
    }
    return BlockEmbedder(**(arguments | overrides))


def complete_all(embedder, blocks):
    for block in blocks:
        embedder.submit(block)
    return [embedder.complete_next() for _ in blocks]


def test_every_row_has_one_outcome(tmp_path, pool):
    done = []
    text = "1.jpg,a\nmissing.jpg,a\n\n2.jpg,zzz\ntext.jpg,b\n254.jpg,b\n255.jpg,b\ncrash.jpg,a\n,a\n3.jpg\n4.jpg,a,b\n"
    (result,) = complete_all(make_embedder(tmp_path, pool, on_rows_done=done.append), blocks_of(text, 100))
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


def test_batches_are_full_and_never_span_blocks(tmp_path, pool):
    backbone = StandInBackbone()
    text = "".join(f"{i}.jpg,a\n" if i % 4 else f"missing{i}.jpg,a\n" for i in range(1, 21))
    results = complete_all(make_embedder(tmp_path, pool, backbone=backbone), blocks_of(text, 10))
    assert [result.embedded for result in results] == [8, 7]
    assert backbone.batches == [3, 3, 2, 3, 3, 1]


def test_reading_ahead_crosses_blocks_but_not_its_limit(tmp_path, pool):
    lock = threading.Lock()
    started, finished = [], []

    def read(location):
        with lock:
            started.append(location)
        return read_stand_in(location)

    class Backbone(StandInBackbone):
        def embed(self, pixels):
            deadline = time.monotonic() + 10
            while len(started) < min(len(finished) + len(pixels) + 4, 12) and time.monotonic() < deadline:
                time.sleep(0.001)
            # Taken from the read-ahead so far: all earlier images and this batch.
            assert len(started) <= len(finished) + len(pixels) + 4
            finished.extend(pixels)
            return super().embed(pixels)

    text = "".join(f"{i}.jpg,a\n" for i in range(1, 13))
    complete_all(make_embedder(tmp_path, pool, read=read, backbone=Backbone()), blocks_of(text, 6))
    assert len(started) == len(finished) == 12
    # Before the last batch of the first block was embedded, images of the second were on their way.
    assert len(started) > 6


def test_the_same_block_gives_the_same_bytes(tmp_path, pool):
    text = "".join(f"{i}.jpg,b\n" for i in range(1, 40))
    blocks = blocks_of(text, 16)
    first = complete_all(make_embedder(tmp_path, pool), blocks)
    alone = [complete_all(make_embedder(tmp_path, pool), [block])[0] for block in reversed(blocks)]
    assert [r.shard.sha256 for r in first] == [r.shard.sha256 for r in reversed(alone)]


def test_a_backbone_that_fails_leaves_no_parts(tmp_path, pool):
    class Broken(StandInBackbone):
        def embed(self, pixels):
            if self.batches:
                raise RuntimeError("out of memory")
            return super().embed(pixels)

    embedder = make_embedder(tmp_path, pool, backbone=Broken())
    embedder.submit(blocks_of("1.jpg,a\n2.jpg,a\n3.jpg,a\n4.jpg,a\n", 10)[0])
    with pytest.raises(RuntimeError, match="out of memory"):
        embedder.complete_next()
    assert list(tmp_path.iterdir()) == []
