from __future__ import annotations

import numpy as np
import pytest

from configs.errors import InputError
from insight.layout import positions
from insight.layout.components import principal_components
from insight.layout.earlier import aligned, starting_positions
from insight.layout.positions import place


def groups(number, *, size=16, seed=0):
    random = np.random.default_rng(seed)
    of = np.arange(number) % 3
    return (np.eye(3, size)[of] * 5 + random.normal(0, 0.3, (number, size))).astype(np.float32), of


@pytest.mark.parametrize("shape", [(40, 8), (8, 40)])
def test_principal_components_are_those_of_the_singular_values(shape):
    vectors = np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)
    centred = vectors - vectors.mean(axis=0)
    _, strengths, _ = np.linalg.svd(centred, full_matrices=False)
    found = principal_components(vectors, 3)
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), strengths[:3], rtol=1e-3)
    np.testing.assert_allclose(found.T @ found, np.diag(strengths[:3] ** 2), atol=1e-2)
    np.testing.assert_array_equal(found, principal_components(vectors, 3))


def test_one_photo_and_equal_photos_have_a_place():
    assert place(np.ones((1, 8), np.float32)).positions.shape == (1, 2)
    assert np.isfinite(place(np.ones((5, 8), np.float32)).positions).all()
    assert np.isfinite(place(np.zeros((5, 2), np.float32)).positions).all()


def test_without_the_library_components_are_drawn_and_the_reason_is_said(monkeypatch):
    monkeypatch.setattr(positions, "has_tsne", lambda: False)
    found = place(groups(30)[0])
    assert found.reducer == "pca"
    assert "is not installed" in found.why
    with pytest.raises(InputError, match="--reducer: tsne needs openTSNE"):
        place(groups(30)[0], reducer="tsne")


def test_the_whole_is_laid_over_the_earlier_map():
    random = np.random.default_rng(0)
    earlier = random.normal(0, 1, (20, 2)).astype(np.float32)
    angle = 2.1
    turned = earlier @ np.array([[np.cos(angle), np.sin(angle)], [np.sin(angle), -np.cos(angle)]]) + 7
    earlier[3] = np.nan
    found = aligned(turned.astype(np.float32), earlier)
    known = ~np.isnan(earlier[:, 0])
    np.testing.assert_allclose(found[known], earlier[known], atol=1e-4)
    assert np.isfinite(found).all()


def test_a_new_photo_begins_among_its_neighbours():
    earlier = np.array([[0, 0], [2, 0], [4, 0], [np.nan, np.nan], [np.nan, np.nan], [np.nan, np.nan]], np.float32)
    neighbours = np.array([[1, 2], [0, 2], [0, 1], [1, 2], [3, 5], [5, 5]])
    found = starting_positions(earlier, neighbours)
    assert found[:5].tolist() == [[0, 0], [2, 0], [4, 0], [3, 0], [3, 0]]
    assert found[5].tolist() == [2, 0]


@pytest.fixture
def tsne():
    pytest.importorskip("openTSNE", reason="openTSNE is not installed (the extra insight)")


def test_tsne_keeps_groups_apart_and_a_seed_gives_the_same_map(tsne):
    vectors, of = groups(90)
    found = place(vectors)
    assert found.reducer == "tsne"
    middles = np.stack([found.positions[of == group].mean(axis=0) for group in range(3)])
    apart = np.linalg.norm(found.positions[:, np.newaxis] - middles, axis=2)
    assert (apart.argmin(axis=1) == of).all()
    np.testing.assert_array_equal(found.positions, place(vectors).positions)


def test_photos_that_are_added_move_the_others_hardly(tsne):
    vectors, _ = groups(120)
    earlier = np.full((120, 2), np.nan, np.float32)
    earlier[:110] = place(vectors[:110]).positions
    found = place(vectors, earlier=earlier)
    assert found.mean_shift < 0.05
    # A map by components is much smaller, and is enlarged first.
    components = place(vectors, reducer="pca").positions
    assert place(vectors, earlier=components).mean_shift < 0.6
