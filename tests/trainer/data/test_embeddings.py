from __future__ import annotations

import threading

import numpy as np
import pytest

from trainer.data.embeddings import MemoryEmbeddings, MemoryViews, StreamedEmbeddings, drawn_views
from trainer.data.prefetch import prefetched

ARRAY = np.arange(60, dtype=np.float32).reshape(20, 3)


def streamed(pool_rows: int) -> StreamedEmbeddings:
    parts = np.split(np.arange(20), [7, 8, 14])

    def read(order):
        for number in order:
            for rows in np.array_split(parts[number], 2):
                if len(rows):
                    yield rows, ARRAY[rows]

    statistics = MemoryEmbeddings(ARRAY).feature_statistics()
    return StreamedEmbeddings(read, num_parts=4, shape=ARRAY.shape, statistics=statistics, pool_rows=pool_rows)


def drawn(embeddings, sizes, *, seed=0) -> np.ndarray:
    shuffle = embeddings.shuffled(seed)
    rows = []
    for size in sizes:
        out = np.empty((size, 3), np.float32)
        rows.append(shuffle.fill(out))
        np.testing.assert_array_equal(out, ARRAY[rows[-1]])
    return np.concatenate(rows)


@pytest.mark.parametrize("embeddings", [MemoryEmbeddings(ARRAY), *map(streamed, (1, 5, 20, 100))])
def test_every_example_comes_once_before_any_comes_again(embeddings):
    rows = drawn(embeddings, [3, 8, 30, 1, 18])
    for epoch in np.split(rows, 3):
        assert sorted(epoch) == list(range(20))
    assert len({tuple(epoch) for epoch in np.split(rows, 3)}) == 3
    assert drawn(embeddings, [20, 40]).tolist() == drawn(embeddings, [20, 40]).tolist()
    assert drawn(embeddings, [20], seed=1).tolist() != rows[:20].tolist()
    np.testing.assert_array_equal(np.concatenate(list(embeddings.pieces())), ARRAY)
    np.testing.assert_allclose(embeddings.feature_statistics().mean, ARRAY.mean(axis=0))
    np.testing.assert_allclose(embeddings.feature_statistics().variance, ARRAY.var(axis=0))


@pytest.mark.parametrize("embeddings", [MemoryEmbeddings(ARRAY), *map(streamed, (1, 5, 20, 100))])
@pytest.mark.parametrize("skipped", [0, 1, 2, 3, 5, 7, 8])
def test_what_follows_skipped_batches_is_what_would_have_followed_them(embeddings, skipped):
    sizes = [7, 13, 5, 15, 3, 30, 4, 11, 6, 9]  # The second, the fourth, and no other ends an epoch.
    expected = drawn(embeddings, sizes)[sum(sizes[:skipped]) :]
    shuffle = embeddings.shuffled(0)
    shuffle.skip(sizes[:skipped])
    rows = [shuffle.fill(np.empty((size, 3), np.float32)) for size in sizes[skipped:]]
    assert np.concatenate(rows).tolist() == expected.tolist()


NUM_VIEWS = 4
# The number in front of the point is the row, the one behind it is the view.
VIEWS = (np.arange(20)[:, None, None] + np.arange(NUM_VIEWS)[None, :, None] / 10 + np.zeros(3)).astype(np.float32)


def streamed_views(pool_rows: int) -> StreamedEmbeddings:
    parts = np.split(np.arange(20), [7, 8, 14])

    def read(order, *, view=slice(None)):
        for number in order:
            yield parts[number], VIEWS[parts[number], view]

    return StreamedEmbeddings(
        lambda order: read(order, view=0),
        num_parts=4,
        shape=(20, 3),
        statistics=MemoryEmbeddings(VIEWS[:, 0]).feature_statistics(),
        pool_rows=pool_rows,
        num_views=NUM_VIEWS,
        read_views=read,
    )


IN_MEMORY = MemoryViews(np.ascontiguousarray(VIEWS.swapaxes(0, 1)))


def views_drawn(embeddings, sizes, *, seed=0, skipped=()) -> np.ndarray:
    """[m, 2]: the row and the view of each example."""
    shuffle = embeddings.shuffled(seed)
    shuffle.skip(skipped)
    found = []
    for size in sizes:
        out = np.empty((size, 3), np.float32)
        rows = shuffle.fill(out)
        views = np.round(10 * (out[:, 0] - rows)).astype(int)
        np.testing.assert_array_equal(out, VIEWS[rows, views])
        found.append(np.column_stack([rows, views]))
    return np.concatenate(found)


@pytest.mark.parametrize("embeddings", [IN_MEMORY, *map(streamed_views, (1, 5, 100))])
def test_an_epoch_has_each_example_once_in_the_view_that_seed_epoch_and_row_decide(embeddings):
    found = views_drawn(embeddings, [3, 8, 30, 1, 18], seed=5)
    for number, epoch in enumerate(np.split(found, 3)):
        views = drawn_views(5, number, num_rows=20, num_views=NUM_VIEWS)
        assert sorted(map(tuple, epoch)) == list(enumerate(views))
    # As for the order, it does not matter to later epochs which batches came before.
    sizes = [7, 13, 5, 15, 3, 30]
    for count in range(len(sizes)):
        rest = views_drawn(embeddings, sizes[count:], skipped=sizes[:count])
        np.testing.assert_array_equal(rest, views_drawn(embeddings, sizes)[sum(sizes[:count]) :])


def test_views_do_not_change_the_order_of_the_examples():
    one_view = drawn(MemoryEmbeddings(ARRAY), [50])
    np.testing.assert_array_equal(views_drawn(IN_MEMORY, [50])[:, 0], one_view)


def test_each_view_is_drawn_equally_often():
    views = np.concatenate([drawn_views(0, epoch, num_rows=1000, num_views=NUM_VIEWS) for epoch in range(20)])
    counts = np.bincount(views, minlength=NUM_VIEWS)
    assert len(counts) == NUM_VIEWS
    assert np.abs(counts - 5000).max() < 5 * (20_000 * 0.25 * 0.75) ** 0.5
    assert not (drawn_views(0, 1, num_rows=1000, num_views=4) == drawn_views(1, 0, num_rows=1000, num_views=4)).all()


def test_prefetched_items_come_in_order_then_the_error():
    def items():
        yield from range(5)
        raise KeyError("x")

    found = []
    with pytest.raises(KeyError):
        found.extend(prefetched(items(), depth=2))
    assert found in ([], list(range(5)))  # list.extend keeps what came before the error, or not.


def test_a_prefetch_that_is_left_early_ends_its_thread():
    closed = threading.Event()

    def items():
        try:
            while True:
                yield 1
        finally:
            closed.set()

    ahead = prefetched(items(), depth=1)
    assert next(ahead) == 1
    ahead.close()
    assert closed.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]
