"""Projection: maps that repeat, and measures of them that equal their definitions."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from umap import layouts

from lgffem_core.base.errors import StudyError
from lgffem_core.config.params import Projection
from lgffem_core.retrieval.projection import (
    NAMES,
    faithfulness,
    fitting_neighbours,
    keep_compiled,
    nearest,
    project,
)

every_method = pytest.mark.parametrize("method", NAMES)


def blobs(per_blob=12, dimensions=8, seed=0):
    """Three groups, far apart, and which group each row is of."""
    rng = np.random.default_rng(seed)
    centres = 20 * np.eye(3, dimensions)
    points = np.concatenate([centre + rng.standard_normal((per_blob, dimensions)) for centre in centres])
    return points.astype(np.float32), np.repeat(np.arange(3), per_blob)


def ranked(points, i):
    """The other rows, nearest to row ``i`` first."""
    distances = [float(((points[i].astype(float) - other.astype(float)) ** 2).sum()) for other in points]
    return sorted((j for j in range(len(points)) if j != i), key=lambda j: distances[j])


# -- maps -----------------------------------------------------------------------------------------------


@every_method
def test_the_same_seed_gives_the_same_bytes_and_no_warning(method):
    embeddings, _ = blobs()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        maps = [project(embeddings, Projection(method=method, neighbours=5)) for _ in range(2)]
    assert maps[0].shape == (36, 2) and maps[0].dtype == np.float64
    assert maps[0].tobytes() == maps[1].tobytes()


def test_what_is_compiled_of_umap_is_kept_for_other_processes(monkeypatch):
    """numba says of each function where it keeps it, and whether it found it there; else it is compiled in each."""
    project(blobs()[0], Projection(neighbours=5))
    optimiser = layouts._nb_optimize_layout_euclidean_single_epoch
    asked = optimiser.stats.cache_hits | optimiser.stats.cache_misses
    assert asked and list(Path(optimiser.stats.cache_path).glob("layouts.*optimize_layout_euclidean*.nbc"))
    refused = []
    monkeypatch.setattr(type(optimiser), "enable_caching", lambda self: refused.append(self) or missing_folder())
    keep_compiled.__wrapped__()
    assert len(refused) == 1


def missing_folder():
    raise RuntimeError("no locator available")  # numba's word where no folder can be written


@pytest.mark.parametrize("method", ["umap"])  # t-SNE from principal components is fixed by them on a small set
def test_another_seed_gives_another_map(method):
    embeddings, _ = blobs()
    one, two = (project(embeddings, Projection(method=method, neighbours=5, seed=seed)) for seed in (0, 1))
    assert np.abs(one - two).max() > 0.1


@every_method
def test_groups_that_lie_apart_stay_apart(method):
    embeddings, groups = blobs()
    points = project(embeddings, Projection(method=method, neighbours=5))
    assert all(groups[ranked(points, i)[0]] == groups[i] for i in range(len(points)))


def test_pca_is_the_projection_on_the_first_two_singular_vectors():
    embeddings = np.random.default_rng(1).standard_normal((30, 7)) * np.arange(1, 8)
    centred = embeddings - embeddings.mean(axis=0)
    _, _, axes = np.linalg.svd(centred)
    expected, points = centred @ axes[:2].T, project(embeddings, Projection(method="pca"))
    signs = np.sign((expected * points).sum(axis=0))
    np.testing.assert_allclose(points * signs, expected, atol=1e-10)


def test_umap_and_tsne_look_at_the_neighbours_they_are_given():
    embeddings, _ = blobs()
    for method in ("umap", "tsne"):
        few, many = (project(embeddings, Projection(method=method, neighbours=n)) for n in (2, 10))
        assert np.abs(few - many).max() > 0.1


# -- small and broken input -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "wanted", "expected"), [(5, 15, 2), (6, 15, 2), (7, 3, 3), (31, 15, 15), (30, 15, 14)]
)
def test_neighbours_stay_below_half_of_the_points(size, wanted, expected):
    assert fitting_neighbours(size, wanted) == expected


@every_method
def test_five_points_are_enough(method):
    embeddings, _ = blobs(per_blob=2)
    points = project(embeddings[:5], Projection(method=method))
    assert points.shape == (5, 2) and np.isfinite(points).all()


@every_method
def test_too_few_points_are_refused_in_one_sentence(method):
    embeddings, _ = blobs()
    with pytest.raises(StudyError, match="at least 5 test patches"):
        project(embeddings[:4], Projection(method=method))


@every_method
def test_a_collapsed_model_is_named(method):
    with pytest.raises(StudyError, match="collapsed"):
        project(np.ones((20, 4), dtype=np.float32), Projection(method=method))


def test_nan_is_refused():
    embeddings, _ = blobs()
    embeddings[3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        project(embeddings, Projection(method="pca"))


# -- measures -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 4, 9])
def test_measures_equal_explicit_loops(k):
    rng = np.random.default_rng(2)
    embeddings, points = rng.standard_normal((20, 6)).astype(np.float32), rng.standard_normal((20, 2))
    kept, penalty, size = 0, 0, len(points)
    for i in range(size):
        before, after = ranked(embeddings, i), ranked(points, i)[:k]
        kept += len(set(before[:k]) & set(after))
        penalty += sum(before.index(j) + 1 - k for j in after if j not in before[:k])
    found = faithfulness(embeddings, points, k)
    assert found["knn_overlap"] == pytest.approx(kept / (k * size))
    assert found["trustworthiness"] == pytest.approx(1 - 2 / (size * k * (2 * size - 3 * k - 1)) * penalty)


def test_a_map_that_loses_nothing_scores_one():
    flat = np.random.default_rng(3).standard_normal((40, 2))
    found = faithfulness(np.pad(flat, ((0, 0), (0, 5))), 3 * flat, k=7)
    assert found == {"trustworthiness": 1.0, "knn_overlap": 1.0, "chance_overlap": 7 / 39}


def test_a_map_that_knows_nothing_is_near_chance():
    rng = np.random.default_rng(4)
    embeddings, points = rng.standard_normal((400, 16)), rng.standard_normal((400, 2))
    found = faithfulness(embeddings, points, k=20)
    assert found["knn_overlap"] == pytest.approx(found["chance_overlap"], abs=0.01)
    assert found["trustworthiness"] == pytest.approx(0.5, abs=0.03)


def test_a_point_is_never_its_own_neighbour_even_among_duplicates():
    found = nearest(np.zeros((6, 2)), 5)
    assert [sorted(row) for row in found.tolist()] == [[j for j in range(6) if j != i] for i in range(6)]
