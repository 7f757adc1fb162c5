import io
import threading

from preprocess.images.loader import ImageLoader
from preprocess.jobs.block_embedder import BlockEmbedder
from preprocess.jobs.block_writer import BlockWriter
from preprocess.lists.blocks import into_blocks
from preprocess.lists.labels import LabelDict
from preprocess.lists.rows import parse_rows
from preprocess.storage.base import LocalStorage
from tests.support.stand_ins import StandInEngine, decode_stand_in, read_stand_in

LABELS = LabelDict(("a", "b"))


def blocks_of(text, rows_per_block):
    rows = parse_rows(io.BytesIO(text.encode()), list_path="d/list.csv", labels=LABELS, unknown_labels="skip")
    return list(into_blocks(rows, list_index=0, list_path="d/list.csv", rows_per_block=rows_per_block))


def make_embedder(tmp_path, engine=None, read=read_stand_in, max_ahead=4, on_rows_done=lambda rows: None):
    engine = engine or StandInEngine()
    return BlockEmbedder(
        loader=ImageLoader(read=read, decode=decode_stand_in, max_ahead=max_ahead),
        engine=engine,
        open_writer=lambda block: BlockWriter(
            block, storage=LocalStorage(), parts_dir=str(tmp_path), compression="none", engine=engine
        ),
        batch_size=3,
        on_rows_done=on_rows_done,
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


def test_the_same_block_gives_the_same_bytes(tmp_path):
    text = "".join(f"{i}.jpg,b\n" for i in range(1, 40))
    blocks = blocks_of(text, 16)
    first = complete_all(make_embedder(tmp_path), blocks)
    alone = [complete_all(make_embedder(tmp_path), [block])[0] for block in reversed(blocks)]
    assert [r.shard.sha256 for r in first] == [r.shard.sha256 for r in reversed(alone)]
