"""The perceptual hashes of records: every way in which a row gets its embedding gives its record the hash."""

from __future__ import annotations

import io

import numpy as np
import pytest

from preprocess.images.loader import ImageLoader
from preprocess.images.perceptual_hash import perceptual_hashes
from preprocess.jobs.block_embedder import BlockEmbedder
from preprocess.jobs.block_writer import BlockWriter
from preprocess.jobs.embedding_cache import EmbeddingCache
from preprocess.jobs.resume import ResumedBlock
from preprocess.lists.blocks import into_blocks
from preprocess.lists.labels import LabelDict
from preprocess.lists.rows import parse_rows
from preprocess.records.example import decode_example
from preprocess.records.tfrecord import whole_records
from preprocess.records.views import Views
from preprocess.storage.base import LocalStorage
from tests.support.stand_ins import IDENTITY, INFO, StandInEngine, read_stand_in

LIST = "".join(f"{number}.jpg,a\n" for number in (1, 2, 3, 2, 4))
VIEWS = Views(count=2, flip_left_right=True)


def noise(data):
    return np.random.default_rng(int(data)).integers(0, 250, (40, 40, 3), np.uint8)


def noise_in_views(data, digest):
    return np.stack([noise(data), 255 - noise(data)])


class _Engine(StandInEngine):
    """One whose numbers do not depend on the batch."""

    def embed(self, pixels):
        return super().embed(pixels) * np.array([1, 1, 0], np.float32)


class _Folder:
    def __init__(self, path):
        self.path = path
        self.runs = 0
        self.decoded: list[bytes] = []

    def embed(self, *, views=None, earlier=None, cache=None, image_hashes=True):
        """The records of a run, by name, and the bytes of its shard."""
        self.runs += 1
        self.decoded = []
        engine = _Engine()
        parts = self.path / f"parts{self.runs}"

        def decode(data, *digest):
            self.decoded.append(data)
            return (noise_in_views if views else noise)(data, *digest)

        embedder = BlockEmbedder(
            loader=ImageLoader(
                read=read_stand_in,
                decode=decode,
                decodes_views=views is not None,
                max_ahead=4,
                find_embeddings=cache and (lambda digest: (cache.find(digest),)),
                wants_hashes=image_hashes,
            ),
            engine=engine,
            open_writer=lambda block: BlockWriter(
                block, storage=LocalStorage(), parts_dir=str(parts), compression="none", engine=engine
            ),
            batch_size=3,
            on_rows_done=lambda rows: None,
            image_hashes=image_hashes,
            views=views,
            **({"keep_embedding": cache.keep} if cache else {}),
        )
        rows = parse_rows(io.BytesIO(LIST.encode()), list_path="l", labels=LabelDict(("a",)), unknown_labels="skip")
        (block,) = into_blocks(rows, list_index=0, list_path="l", rows_per_block=10)
        embedder.submit(block, *((ResumedBlock(records=earlier),) if earlier else ()))
        embedder.complete_next()
        if cache:
            cache.flush()
        (shard,) = parts.glob("*.tfrecord")
        data = shard.read_bytes()
        return {found.image_uri: found for found in map(decode_example, whole_records(data))}, data

    def cache(self, views=None):
        return EmbeddingCache(
            str(self.path / "cache"), storage=LocalStorage(), identity=IDENTITY, engine=INFO, views=views
        )


@pytest.fixture
def folder(tmp_path):
    return _Folder(tmp_path)


def require_hashes(records):
    assert len(records) == 4
    for name, record in records.items():
        pixels = noise(name.partition(".")[0])
        assert record.image_hash == perceptual_hashes(pixels[np.newaxis]).tobytes()


@pytest.mark.parametrize("views", [None, VIEWS])
def test_computed_resumed_and_cached_records_have_the_same_bytes(folder, views):
    records, data = folder.embed(views=views, cache=folder.cache(views))
    require_hashes(records)
    some = {name: record for name, record in records.items() if name != "3.jpg"}
    assert folder.embed(views=views, earlier=some)[1] == data
    assert folder.decoded == [b"3"]
    assert folder.embed(views=views, cache=folder.cache(views))[1] == data
    assert folder.decoded == []


@pytest.mark.parametrize("views", [None, VIEWS])
def test_a_cache_of_an_earlier_version_gives_embeddings_and_gets_the_hashes(folder, views):
    before, data = folder.embed(views=views, cache=folder.cache(views), image_hashes=False)
    assert {record.image_hash for record in before.values()} == {b""}
    cache = folder.cache(views)
    records, _ = folder.embed(views=views, cache=cache)
    require_hashes(records)
    assert cache.counts().hits == 5
    for name, record in records.items():
        np.testing.assert_array_equal(record.embeddings, before[name].embeddings)
    require_hashes(folder.embed(views=views, cache=folder.cache(views))[0])
    assert folder.decoded == []
    # A job that an earlier version began goes on without hashes, whatever the cache has.
    assert folder.embed(views=views, cache=folder.cache(views), image_hashes=False)[1] == data
