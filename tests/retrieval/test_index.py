"""The search against scikit-learn and an explicit loop, on random, duplicated and tied embeddings."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from lgffem_core.retrieval import index
from lgffem_core.retrieval.index import search


def random(seed, size, dimension=16):
    return np.random.default_rng(seed).standard_normal((size, dimension)).astype(np.float32)


def loop(gallery, queries, k):
    """(distances, ids) by comparing every pair, ties by id."""
    distances, ids = [], []
    for query in queries:
        pairs = []
        for number, row in enumerate(gallery):
            pairs.append((sum((float(a) - float(b)) ** 2 for a, b in zip(row, query, strict=True)), number))
        pairs.sort()
        distances.append([d for d, _ in pairs[:k]])
        ids.append([number for _, number in pairs[:k]])
    return np.array(distances), np.array(ids)


@pytest.mark.parametrize("k", [1, 5, 60])
def test_random_embeddings_against_scikit_learn(k):
    gallery, queries = random(0, 60), random(1, 25)
    distances, ids = search(gallery, queries, k)
    expected = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(gallery.astype(np.float64))
    theirs, their_ids = expected.kneighbors(queries.astype(np.float64))
    np.testing.assert_array_equal(ids, their_ids)
    np.testing.assert_allclose(distances, theirs**2, rtol=1e-9)
    assert distances.dtype == np.float64 and ids.dtype == np.int64


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("k", [1, 4, 30])
def test_duplicates_and_ties_against_a_loop(seed, k):
    """Small integers: distances are exact, most rows occur several times, and many distances are equal."""
    rng = np.random.default_rng(seed)
    gallery = rng.integers(0, 3, size=(30, 3)).astype(np.float32)
    queries = np.concatenate([gallery[:12], rng.integers(0, 3, size=(12, 3)).astype(np.float32)])
    for ours, theirs in zip(search(gallery, queries, k), loop(gallery, queries, k), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_hundred_copies_come_in_the_order_of_their_ids():
    """More ties than the first search asks for."""
    gallery = np.repeat(random(0, 2), 100, axis=0)
    _, ids = search(gallery, gallery[[0, 150]], 3)
    assert ids.tolist() == [[0, 1, 2], [100, 101, 102]]


def expanded_search(gallery, queries, k):
    """|a|² − 2ab + |b|² in float32, as FAISS computes on GPUs and with many queries."""
    squares = [(rows * rows).sum(axis=1) for rows in (queries, gallery)]
    distances = squares[0][:, None] - 2 * queries @ gallery.T + squares[1][None]
    return np.argsort(distances, axis=1)[:, :k]


@pytest.mark.parametrize("expanded", [False, True])
def test_neighbours_are_exact_far_from_the_origin(monkeypatch, expanded):
    """At a distance of 1000, float32 loses differences of 0.01: first candidates may then be anything."""
    rng = np.random.default_rng(0)
    gallery = (1000 + 0.01 * rng.standard_normal((120, 8))).astype(np.float32)
    expected, expected_ids = loop(gallery, gallery[:30], 3)
    if expanded:
        assert (expanded_search(gallery, gallery[:30], 3) != expected_ids).mean() > 0.5
        monkeypatch.setattr(index, "nearest_in_float32", expanded_search)
    distances, ids = search(gallery, gallery[:30], 3)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_allclose(distances, expected, rtol=1e-9)


def test_candidates_in_any_order_are_ordered_by_distance_and_id():
    gallery = np.array([[0.0], [1], [-1], [2], [1], [0]], dtype=np.float32)
    distances, ids = index.order_candidates(gallery, gallery[:1], np.array([[4, 3, 5, 2, 1, 0]]))
    assert ids.tolist() == [[0, 5, 1, 2, 4, 3]] and distances.tolist() == [[0, 0, 1, 1, 1, 4]]


def test_the_arguments_need_not_be_contiguous_or_single_precision():
    gallery = random(0, 40)
    plain = search(gallery, gallery[:6], 3)
    strided = search(np.asfortranarray(gallery), gallery[:12:1][:6].astype(np.float64), 3)
    np.testing.assert_array_equal(plain[1], strided[1])


@pytest.mark.parametrize("k", [0, -1, 11])
def test_k_outside_the_gallery_is_refused(k):
    with pytest.raises(ValueError, match=f"k is {k}; a gallery of 10"):
        search(random(0, 10), random(1, 2), k)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_on_either_side(value):
    good, bad = random(0, 10), random(0, 10)
    bad[3, 2] = value
    for gallery, queries in ((bad, good), (good, bad)):
        with pytest.raises(ValueError, match="NaN or infinity"):
            search(gallery, queries, 1)


@pytest.mark.parametrize("scale", [1e16, 1e19, 1e200, 1e-20, 1e-60])
def test_numbers_whose_squares_float32_cannot_hold_are_refused(scale):
    """FAISS gives any neighbours for them, without a word."""
    with pytest.raises(ValueError, match="of which float32 holds no squares"):
        search(random(0, 10).astype(np.float64) * scale, random(1, 3).astype(np.float64) * scale, 1)


@pytest.mark.parametrize("scale", [1e-14, 1e14])
def test_numbers_near_that_are_ranked_as_they_are(scale):
    gallery, queries = random(0, 50), random(1, 9)
    found = search(gallery.astype(np.float64) * scale, queries.astype(np.float64) * scale, 4)[1]
    np.testing.assert_array_equal(found, search(gallery, queries, 4)[1])


def test_gpus_are_used_where_faiss_has_some_and_k_is_in_their_reach(monkeypatch):
    moved = []
    monkeypatch.setattr(index.faiss, "get_num_gpus", lambda: 1, raising=False)
    monkeypatch.setattr(index.faiss, "index_cpu_to_all_gpus", lambda flat: (moved.append(flat), flat)[1], raising=False)
    gallery = random(0, 20)
    monkeypatch.setattr(index, "GPU_LIMIT", 12)
    on_gpu, beyond = index.nearest_in_float32(gallery, gallery, 12), index.nearest_in_float32(gallery, gallery, 13)
    assert [flat.ntotal for flat in moved] == [20]
    np.testing.assert_array_equal(on_gpu, beyond[:, :12])
