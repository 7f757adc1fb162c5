import gc

import numpy as np

from preprocess.jobs.recent_embeddings import BYTES_AROUND_ONE, RecentEmbeddings, recent_embeddings_of
from tests.support.stand_ins import StandInEngine


def digest(number):
    return number.to_bytes(32, "big")


def test_the_memory_is_bounded_and_what_was_not_asked_for_the_longest_goes():
    recent = RecentEmbeddings(max_bytes=10 * (4 * 3 + BYTES_AROUND_ONE))
    for number in range(1000):
        recent.keep(digest(number), np.full(3, number, np.float32))
        assert recent.find(digest(0)).embedding[0] == 0  # A picture that stands for missing ones stays.
    held = [number for number in range(1000) if recent.find(digest(number)) is not None]
    assert held == [0, *range(991, 1000)]


def test_an_embedding_is_a_copy_and_does_not_hold_its_batch():
    recent, batch = RecentEmbeddings(), np.ones((8, 3), np.float32)
    recent.keep(digest(1), batch[1])
    batch[:] = 2
    assert recent.find(digest(1)).embedding.tolist() == [1, 1, 1]
    assert recent.find(digest(1)).embedding.base is None


def test_records_without_a_digest_are_not_taken_for_one_image_and_what_has_no_room_is_not_held():
    recent = RecentEmbeddings(max_bytes=4 * 3 + BYTES_AROUND_ONE)
    recent.keep(b"", np.ones(3, np.float32))
    recent.keep(digest(1), np.ones((2, 3), np.float32))
    assert recent.find(b"") is None
    assert recent.find(digest(1)) is None


def test_threads_of_a_run_share_them_and_another_run_does_not():
    engine = StandInEngine()
    first, second = recent_embeddings_of("a", engine), recent_embeddings_of("a", engine)
    first.keep(digest(1), np.ones(3, np.float32))
    assert second.find(digest(1)) is not None
    for run_id, other in (("b", engine), ("a", StandInEngine())):
        assert recent_embeddings_of(run_id, other).find(digest(1)) is None
    del first, second
    gc.collect()
    assert recent_embeddings_of("a", engine).find(digest(1)) is None
