"""Blocks that several backbones embed from one loader; images of four bytes, engines of three floats."""

import numpy as np
import pytest

from preprocess.images.loader import FoundEmbedding, ImageLoader
from preprocess.images.pixel_layout import PixelLayout
from preprocess.jobs.block_embedder import BlockEmbedder
from preprocess.jobs.block_writer import BlockWriter
from preprocess.jobs.joint_embedder import JointEmbedder
from preprocess.jobs.resume import NOTHING_KNOWN, ResumedBlock
from preprocess.lists.outcomes import RowFailure
from preprocess.machine.machine_faults import MachineFault
from preprocess.records.example import DecodedExample, decode_example
from preprocess.records.tfrecord import whole_records
from preprocess.storage.base import LocalStorage
from preprocess.storage.retry import RetryPolicy
from tests.preprocess.jobs.test_block_embedder import blocks_of
from tests.support.stand_ins import StandInEngine, decode_stand_in, read_stand_in

LAYOUT = PixelLayout(sizes=(2, 4))
SIZES = (2, 4, 2)


def decode_to_squares(data):
    """Each square has the number that the bytes spell; the larger one 100 more."""
    value = decode_stand_in(data)[0, 0, 0]
    return np.concatenate([np.full(12, value, np.uint8), np.full(48, value + 100, np.uint8)])


class Loader(ImageLoader):
    """Counts the images that were handed over."""

    handed_over = 0

    def next(self):
        self.handed_over += 1
        return super().next()


class Joint:
    """A joint embedder of stand-ins, and what it was made of."""

    def __init__(self, tmp_path, *, batch_sizes=(3, 2, 4), read=read_stand_in, decode=None, **loading):
        self.engines = [StandInEngine(max_pending=2) for _ in batch_sizes]
        self.batch_sizes = batch_sizes
        self.loader = Loader(read=read, decode=decode or decode_to_squares, max_ahead=4, **loading)
        self.folders = [tmp_path / str(number) for number in range(len(batch_sizes))]
        self.parts = []
        self.embedder = JointEmbedder(
            loader=self.loader, layout=LAYOUT, sizes=SIZES[: len(batch_sizes)], make_embedder=self.make
        )

    def make(self, number, loader):
        self.parts.append(loader)
        engine = self.engines[number]
        return BlockEmbedder(
            loader=loader,
            engine=engine,
            open_writer=lambda block: BlockWriter(
                block,
                storage=LocalStorage(),
                parts_dir=str(self.folders[number]),
                compression="none",
                engine=engine,
            ),
            batch_size=self.batch_sizes[number],
            on_rows_done=lambda rows: None,
        )

    def complete(self, blocks, earlier=None):
        for block in blocks:
            self.embedder.submit(block, earlier or [NOTHING_KNOWN] * len(self.engines))
        return [self.embedder.complete_next() for _ in blocks]

    def values(self, number, result):
        """The first float of each record of a backbone, by URI."""
        data = (self.folders[number] / result.shard.name.rpartition("/")[2]).read_bytes()
        examples = map(decode_example, whole_records(data))
        return {example.image_uri: example.embedding[0] for example in examples}


def test_each_backbone_gets_its_square_of_each_image_in_batches_of_its_own(tmp_path):
    joint = Joint(tmp_path)
    text = "".join(f"{number}.jpg,a\n" for number in range(1, 12)) + "missing.jpg,a\n\ntext.jpg,b\n"
    (results,) = joint.complete(blocks_of(text, 100))
    assert joint.loader.handed_over == 13
    for number, (result, engine, batch_size) in enumerate(zip(results, joint.engines, joint.batch_sizes, strict=True)):
        assert joint.values(number, result) == {
            f"{i}.jpg": i + (100 if SIZES[number] == 4 else 0) for i in range(1, 12)
        }
        assert result.failed == {"not_found": 1, "not_an_image": 1}
        assert sorted(engine.batches, reverse=True) == [batch_size] * (11 // batch_size) + [11 % batch_size]
        assert result.read_bytes > 0


def test_no_backbone_gets_far_ahead_of_another(tmp_path):
    joint = Joint(tmp_path, batch_sizes=(1, 30))
    waiting = []
    take = joint.loader.next

    def next_image():
        waiting.append(sum(slot.outcome is not None for part in joint.parts for slot in part.slots))
        return take()

    joint.loader.next = next_image
    results = joint.complete(blocks_of("".join(f"{number}.jpg,a\n" for number in range(150)), 75))
    assert [[result.embedded for result in block] for block in results] == [[75, 75]] * 2
    # Both take a batch at least; more than a few batches would be images without bound in memory.
    assert max(waiting) <= 2 * 30 + 4


def known(*numbers):
    return ResumedBlock(
        records={
            f"{number}.jpg": DecodedExample(
                image_uri=f"{number}.jpg",
                embedding=np.full(3, 7, np.float32),
                image_sha256=bytes(32),
            )
            for number in numbers
        }
    )


def test_an_image_is_loaded_only_if_one_of_the_backbones_needs_it(tmp_path):
    joint = Joint(tmp_path)
    text = "".join(f"{number}.jpg,a\n" for number in range(1, 7))
    (results,) = joint.complete(blocks_of(text, 100), [known(1, 2, 3), known(2, 3, 5), known(1, 2, 3, 4, 5, 6)])
    assert joint.loader.handed_over == 4  # 1, 4, 5 and 6
    assert [result.sources for result in results] == [
        {"computed": 3, "earlier_run": 3},
        {"computed": 3, "earlier_run": 3},
        {"earlier_run": 6},
    ]
    assert joint.values(0, results[0])["4.jpg"] == 4 and joint.values(1, results[1])["4.jpg"] == 104


def test_an_image_that_stands_twice_and_is_known_to_one_backbone_only_once(tmp_path):
    joint = Joint(tmp_path, batch_sizes=(2, 2))
    # Of the first, the line that failed before is not tried again, so it wants only the second of two equal rows.
    text = "9.jpg,a\n5.jpg,a\n9.jpg,b\n6.jpg,b\n"
    (block,) = blocks_of(text, 100)
    failed = joint.complete([block])[0][0]
    assert failed.embedded == 4
    left = ResumedBlock(failures={1: RowFailure("read", "not_found", "then")})
    (results,) = Joint(tmp_path / "again", batch_sizes=(2, 2)).complete([block], [left, NOTHING_KNOWN])
    assert [(result.embedded, dict(result.failed)) for result in results] == [(3, {"not_found": 1}), (4, {})]


def test_a_block_that_is_finished_for_one_backbone_is_embedded_by_the_others(tmp_path):
    blocks = blocks_of("".join(f"{number}.jpg,a\n" for number in range(1, 9)), 4)
    first = Joint(tmp_path / "first", batch_sizes=(3, 2))
    done = first.complete(blocks)[0][0]
    joint = Joint(tmp_path / "again", batch_sizes=(3, 2))
    joint.embedder.submit(blocks[0], [ResumedBlock(result=done), NOTHING_KNOWN])
    joint.embedder.submit(blocks[1], [NOTHING_KNOWN, NOTHING_KNOWN])
    results = [joint.embedder.complete_next() for _ in blocks]
    assert results[0][0] is done
    assert [[result.embedded for result in block] for block in results] == [[4, 4], [4, 4]]
    assert joint.engines[0].batches == [3, 1]


def test_a_fault_of_the_machine_abandons_the_blocks_of_all(tmp_path):
    def read(location):
        if location.endswith("/5.jpg"):
            raise OSError(5, "Input/output error")
        return read_stand_in(location)

    joint = Joint(tmp_path, read=read, try_again=RetryPolicy(limit_sec=0))
    with pytest.raises(MachineFault):
        joint.complete(blocks_of("".join(f"{number}.jpg,a\n" for number in range(1, 8)), 100))
    assert not list(tmp_path.glob("*/*.result.json"))


def test_embeddings_that_are_known_for_some_backbones_are_taken_and_the_others_computed(tmp_path):
    def find(digest):
        return FoundEmbedding(np.full(3, 42, np.float32)), None, FoundEmbedding(np.full(3, 43, np.float32))

    joint = Joint(tmp_path, find_embeddings=find)
    (results,) = joint.complete(blocks_of("1.jpg,a\n2.jpg,a\n", 100))
    assert [result.sources for result in results] == [{"cache": 2}, {"computed": 2}, {"cache": 2}]
    assert set(joint.values(0, results[0]).values()) == {42}
    assert set(joint.values(2, results[2]).values()) == {43}


def test_a_backbone_alone_has_the_loader_to_itself(tmp_path):
    joint = Joint(tmp_path, batch_sizes=(3,), decode=decode_stand_in)
    assert joint.parts == [joint.loader]
    (results,) = joint.complete(blocks_of("1.jpg,a\n", 100))
    assert [result.embedded for result in results] == [1]
