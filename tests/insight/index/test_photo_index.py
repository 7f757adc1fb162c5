from __future__ import annotations

import concurrent.futures
import json
import os
import threading

import numpy as np
import pytest

from configs.errors import InputError
from insight.index import cells, photo_index
from insight.index.photo_index import INDEX_NAME, open_index
from insight.index.through_shards import ThroughShards
from insight.neighbours.exact import nearest, unit_vectors
from insight.neighbours.graph import neighbour_graph
from insight.neighbours.streamed import BestSoFar
from tests.support.written_sets import write_record_set
from trainer.data.record_sets import find_record_sets


def vectors(number, size=3, seed=0):
    return np.random.default_rng(seed).normal(0, 1, (number, size)).astype(np.float32)


def sets_of(*prefixes):
    return find_record_sets([f"{prefix}*" for prefix in prefixes], flag="data_paths")


def found(index, queries, count=5):
    return [
        [(near.uri, round(near.similarity, 2), near.labels) for near in row] for row in index.nearest(queries, count)
    ]


@pytest.fixture
def prefix(tmp_path):
    return write_record_set(str(tmp_path / "out" / "a"), vectors(40), [[row % 3] for row in range(40)], num_shards=3)


def test_candidates_in_pieces_give_what_all_at_once_give():
    queries, candidates = unit_vectors(vectors(7, 8)), unit_vectors(vectors(200, 8, seed=1).repeat(2, axis=0))
    best = BestSoFar(queries, 9)
    for start in range(0, 400, 37):
        best.offer(candidates[start : start + 37], first_row=start)
    rows, similarities = nearest(queries, candidates, 9)
    np.testing.assert_allclose(best.similarities, similarities, atol=1e-6)
    np.testing.assert_array_equal(best.rows // 2, rows // 2)


def test_an_index_finds_what_the_shards_hold(prefix, tmp_path):
    sets = sets_of(prefix)
    index, done = open_index(str(tmp_path / "index"), sets)
    assert done == "made"
    queries = vectors(6, seed=1)
    assert found(index, queries) == found(ThroughShards(sets), queries)
    again, done = open_index(str(tmp_path / "index"), sets)
    assert done == "read"
    assert found(again, queries) == found(index, queries)
    np.testing.assert_allclose(again.embedding_of("a/7.jpg"), unit_vectors(vectors(40))[7], atol=1e-3)


def test_an_index_that_is_extended_finds_what_one_made_anew_finds(prefix, tmp_path):
    open_index(str(tmp_path / "index"), sets_of(prefix))
    more = write_record_set(str(tmp_path / "out" / "A"), vectors(10, seed=2), [[0], []] * 5)
    extended, done = open_index(str(tmp_path / "index"), sets_of(prefix, more))
    assert done == "extended"
    made, _ = open_index(str(tmp_path / "other"), sets_of(prefix, more))
    queries = vectors(6, seed=1)
    assert found(extended, queries) == found(made, queries)
    assert {near.set_number for near in extended.nearest(queries, 50)[0]} == {0, 1}
    assert len(os.listdir(tmp_path / "index")) == 3


@pytest.mark.parametrize("damage", ["index", "vectors", "photos", "version", "kind", "gone"])
def test_a_damaged_index_is_made_anew(prefix, tmp_path, damage):
    sets = sets_of(prefix)
    folder = tmp_path / "index"
    open_index(str(folder), sets)
    if damage in ("index", "version", "kind"):
        text = (folder / INDEX_NAME).read_text()
        changed = text.replace(
            *('"format": 1', '"format": 2') if damage == "version" else ('"records": 40', '"records": "x"')
        )
        (folder / INDEX_NAME).write_text(text[:-40] if damage == "index" else changed)
    else:
        (path,) = folder.glob("vectors-*" if damage != "photos" else "photos-*")
        path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes()[:100])
    index, done = open_index(str(folder), sets)
    assert done == "made"
    assert found(index, vectors(2, seed=1)) == found(ThroughShards(sets), vectors(2, seed=1))


def test_two_programs_that_start_together_make_one_index(prefix, tmp_path, monkeypatch):
    sets, folder = sets_of(prefix), str(tmp_path / "index")
    build, opened = photo_index.build, photo_index._opened
    builds, second_looked = threading.Event(), threading.Event()

    def slow_build(*arguments, **options):
        builds.set()
        assert second_looked.wait(30)
        return build(*arguments, **options)

    def noted(*arguments):
        if builds.is_set():
            second_looked.set()
        return opened(*arguments)

    monkeypatch.setattr(photo_index, "build", slow_build)
    monkeypatch.setattr(photo_index, "_opened", noted)
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        first = threads.submit(open_index, folder, sets)
        assert builds.wait(30)
        second = threads.submit(open_index, folder, sets)
        assert (first.result()[1], second.result()[1]) == ("made", "read")
    assert len(os.listdir(folder)) == 3


def test_no_photo_is_more_similar_than_the_same_one(prefix, tmp_path):
    sets = sets_of(prefix)
    for index in (ThroughShards(sets), open_index(str(tmp_path / "index"), sets)[0]):
        best = [near[0].similarity for near in index.nearest(vectors(40), 1)]
        assert max(best) == 1 and min(best) > 0.999


def test_names_in_an_index_lead_nowhere_else(prefix, tmp_path):
    folder = tmp_path / "index"
    open_index(str(folder), sets_of(prefix))
    data = json.loads((folder / INDEX_NAME).read_text())
    data["files"]["vectors"] = "../secret"
    (folder / INDEX_NAME).write_text(json.dumps(data))
    assert open_index(str(folder), sets_of(prefix))[1] == "made"


def test_records_of_other_labels_or_another_network_are_another_index(prefix, tmp_path):
    open_index(str(tmp_path / "index"), sets_of(prefix))
    other = write_record_set(str(tmp_path / "out2" / "a"), vectors(40), [[0]] * 40, labels=("x", "y", "z"))
    index, done = open_index(str(tmp_path / "index"), sets_of(other))
    assert done == "made"
    assert index.nearest(vectors(1), 1)[0][0].labels == ("x",)


def test_few_vectors_are_held_in_memory_and_many_stay_in_their_file(prefix, tmp_path, monkeypatch):
    found = []
    for held_bytes in (1 << 20, 0):
        monkeypatch.setattr(photo_index, "_HELD_BYTES", held_bytes)
        index, _ = open_index(str(tmp_path / "index"), sets_of(prefix))
        found.append(index.nearest(vectors(5, seed=3), 7))
        assert (index._held is not None) == bool(held_bytes)
    assert found[0] == found[1] == index.nearest(vectors(5, seed=3), 7, shows_progress=False)


def test_files_of_runs_that_were_killed_are_removed_a_day_later(prefix, tmp_path):
    folder = tmp_path / "index"
    folder.mkdir()
    for name in ("vectors-dead.f16", "cells-dead.faiss", "vectors-new.f16"):
        (folder / name).write_bytes(b"half")
        if "dead" in name:
            os.utime(folder / name, (0, 0))
    assert open_index(str(folder), sets_of(prefix))[1] == "made"
    kept = {path.name for path in folder.iterdir()}
    assert "vectors-new.f16" in kept and not any("dead" in name for name in kept)


def test_a_folder_of_something_else_is_left_alone(prefix, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"--index: the folder .* holds mine\.jpg and no index"):
        open_index(str(tmp_path / "photos"), sets_of(prefix))
    with pytest.raises(InputError, match=r"--index: .* is a file"):
        open_index(str(tmp_path / "photos" / "mine.jpg"), sets_of(prefix))


def test_a_shard_of_two_sets_is_in_it_once(prefix, tmp_path):
    same = write_record_set(str(tmp_path / "copy" / "a"), vectors(40), [[row % 3] for row in range(40)], num_shards=3)
    sets = find_record_sets([f"{prefix}*"], flag="d")
    copies = find_record_sets([f"{prefix}*", f"{same}*"], flag="d")
    assert [shard.sha256 for shard in copies[0].manifest.shards] != [] and len(copies) == 2
    index, _ = open_index(str(tmp_path / "index"), copies)
    if [s.sha256 for s in copies[0].manifest.shards] == [s.sha256 for s in copies[1].manifest.shards]:
        assert index.records == 40
    assert (
        found(ThroughShards(copies), vectors(2, seed=1))[0][0] == found(ThroughShards(sets), vectors(2, seed=1))[0][0]
    )


@pytest.fixture
def faiss():
    return pytest.importorskip("faiss", reason="faiss is not installed (the extra insight)")


def test_cells_find_nearly_all_and_grow_with_the_set(faiss, tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "FEWEST_RECORDS", 1000)
    number = 3000
    random = np.random.default_rng(0)
    centres = random.normal(0, 1, (30, 24))
    made = (centres[np.arange(number) % 30] + random.normal(0, 0.4, (number, 24))).astype(np.float32)
    identity = photo_index.BackboneIdentity(
        architecture="a", weights="random", seed=0, weights_digest="sha256:0", embedding_size=24, image_definition="i"
    )
    first = write_record_set(str(tmp_path / "out" / "a"), made, [[0]] * number, identity=identity)
    index, _ = open_index(str(tmp_path / "index"), sets_of(first))
    assert index.effort.recall >= 0.95
    queries = made[:20] + random.normal(0, 0.1, (20, 24)).astype(np.float32)
    exact = found(ThroughShards(sets_of(first)), queries, 10)
    near = found(index, queries, 10)
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, near, strict=True)]) >= 0.9
    more = write_record_set(str(tmp_path / "out" / "b"), made[:50] + 0.01, [[1]] * 50, identity=identity)
    extended, done = open_index(str(tmp_path / "index"), sets_of(first, more))
    assert done == "extended"
    assert any(uri.startswith("b/") for uri, _, _ in found(extended, made[:1] + 0.01, 2)[0])
    # More than the cells give at once are compared.
    assert len(extended.nearest(queries[:1], 1500)[0]) == 1500
    # What was made with faiss answers without it.
    monkeypatch.setattr(photo_index, "has_faiss", lambda: False)
    monkeypatch.setattr(photo_index, "usable", lambda records: False)
    without, done = open_index(str(tmp_path / "index"), sets_of(first, more))
    assert (done, without.effort) == ("read", None)
    assert found(without, queries[:3]) == found(ThroughShards(sets_of(first, more)), queries[:3])


def test_the_graph_of_neighbours_is_the_exact_one(faiss, monkeypatch):
    unit = unit_vectors(np.concatenate([vectors(50, 6), vectors(3, 6), vectors(3, 6)]))
    rows, similarities = neighbour_graph(unit, 5)
    monkeypatch.setattr("insight.neighbours.graph.has_faiss", lambda: False)
    _, exact = neighbour_graph(unit, 5)
    np.testing.assert_allclose(similarities, exact, atol=1e-5)
    assert (rows != np.arange(len(unit))[:, np.newaxis]).all()
