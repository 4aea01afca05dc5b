"""An archive's indices against an explicit loop and scikit-learn: what they find, and what is said of them."""

import faiss
import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.retrieval import archive
from lgffem_core.retrieval.archive import build, make, measure, on_gpus, opened, rates, recall, resident, search, tune

#: One of each family, on 20 numbers a vector; what it should find of the ten nearest, in percent, at least.
INDICES = {
    "Flat": ("", 100),
    "IVF8,Flat": ("nprobe=8", 100),
    "HNSW16,Flat": ("efSearch=200", 95),
    "IVF8,PQ10x4fs,Refine(SQ8)": ("nprobe=8,k_factor_rf=20", 95),
    "PCA16,IVF8,RaBitQ4,RFlat": ("nprobe=8,k_factor_rf=20", 95),
}


def clustered(seed, size, dimension=20):
    rng = np.random.default_rng(seed)
    means = 3 * np.random.default_rng(7).standard_normal((8, dimension))
    return (means[rng.integers(8, size=size)] + rng.standard_normal((size, dimension))).astype(np.float32)


VECTORS, QUERIES = clustered(0, 1500), clustered(1, 30)


def nearest(vectors, queries, k):
    """Ids by comparing every pair in float64."""
    distances = np.array([[((row - query) ** 2).sum() for row in vectors.astype(float)] for query in queries])
    return np.argsort(distances, axis=1, kind="stable")[:, :k]


@pytest.fixture
def built(tmp_path):
    def build_one(factory, vectors=VECTORS, training=1000):
        build(tmp_path / "index", factory, vectors, training)
        return tmp_path / "index"

    return build_one


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("factory", INDICES)
def test_every_family_finds_what_a_loop_finds(built, factory, mapped):
    setting, least = INDICES[factory]
    tune(index := opened(built(factory), mapped), setting)
    found, expected = search(index, QUERIES, 10), nearest(VECTORS, QUERIES, 10)
    share = np.mean([np.isin(ids, true).mean() for ids, true in zip(found, expected, strict=True)])
    assert found.dtype == np.int64 and 100 * share >= least
    assert recall(VECTORS, QUERIES, found, expected) == pytest.approx(100 * share)


def test_the_exact_one_is_scikit_learns(built):
    expected = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(VECTORS.astype(float))
    found = search(opened(built("Flat")), QUERIES, 5)
    np.testing.assert_array_equal(found, expected.kneighbors(QUERIES.astype(float), return_distance=False))


def test_a_wider_search_finds_more(built):
    path, expected = built("IVF16,Flat"), nearest(VECTORS, QUERIES, 10)
    found = [measure(path, QUERIES, 10, f"nprobe={lists}", 5)[0] for lists in (1, 4, 16)]
    shares = [recall(VECTORS, QUERIES, ids, expected) for ids in found]
    assert shares == sorted(shares) and shares[0] < 100 == shares[-1]


def test_blocks_come_to_the_same_as_all_at_once(built, monkeypatch):
    whole = search(opened(built("IVF8,SQ8")), QUERIES, 10)
    monkeypatch.setattr(archive, "BLOCK", 97)
    np.testing.assert_array_equal(search(opened(built("IVF8,SQ8")), QUERIES, 10), whole)


def test_a_memory_mapped_archive_comes_to_the_same(built, tmp_path):
    np.save(tmp_path / "vectors.npy", VECTORS)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    one, other = (search(opened(built("HNSW8,Flat", each)), QUERIES, 3) for each in (VECTORS, mapped))
    np.testing.assert_array_equal(one, other)


# -- what is odd -----------------------------------------------------------------------------------------------


def test_one_query_and_none(built):
    index = opened(built("Flat"))
    np.testing.assert_array_equal(search(index, QUERIES[:1], 4), nearest(VECTORS, QUERIES[:1], 4))
    assert search(index, QUERIES[:0], 4).shape == (0, 4)


@pytest.mark.parametrize("k", [0, -1, 31])
def test_more_neighbours_than_there_are_are_refused(built, k):
    index = opened(built("Flat", VECTORS[:30]))
    assert np.sort(search(index, QUERIES[:1], 30)).tolist() == [[*range(30)]]
    with pytest.raises(ValueError, match=rf"^k is {k}; an archive of 30 has 1 … 30 neighbours$"):
        search(index, QUERIES, k)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_wherever_it_stands(built, bad):
    queries, vectors = QUERIES.copy(), VECTORS.copy()
    queries[3, 2] = vectors[1400, 0] = bad
    with pytest.raises(ValueError, match="NaN or infinity"):
        search(opened(built("Flat")), queries, 1)
    with pytest.raises(ValueError, match="NaN or infinity"):
        built("Flat", vectors)


def test_of_duplicates_any_is_as_right_as_another():
    vectors = np.repeat(VECTORS[:3], 4, axis=0)  # ids 0 … 3 are one vector
    queries, exact = VECTORS[:1], np.array([[0, 1]])
    assert recall(vectors, queries, np.array([[2, 3]]), exact) == 100
    assert recall(vectors, queries, np.array([[2, 2]]), exact) == 50  # found twice counts once
    assert recall(vectors, queries, np.array([[2, -1]]), exact) == 50
    assert recall(vectors, queries, np.array([[4, 8]]), exact) == 0


def test_an_archive_of_duplicates_alone(built):
    vectors = np.repeat(VECTORS[:1], 500, axis=0)
    found = search(opened(built("HNSW8,Flat", vectors)), QUERIES[:2], 5)
    assert recall(vectors, QUERIES[:2], found, np.tile(np.arange(5), (2, 1))) == 100


@pytest.mark.parametrize(
    ("factory", "settings", "says"),
    [
        ("IVF16,RaBitQ44", (), "could not parse code description RaBitQ44"),
        ("IVF,Flat", (), "could not parse index string"),
        ("PQ7", (), "should be a multiple of the number of subquantizers"),
        ("HNSW16,Flat", ("efSearch=4", "nprobe=3"), "with 'nprobe=3': .*could not set parameter nprobe"),
        ("IVF16,Flat", ("nprobe=",), "could not interpret parameters nprobe="),
        ("IVF26,Flat", (), "26 lists take 1014 training vectors or more, and there are 1000; choose fewer"),
        ("PCA8,IVF26,PQ4,RFlat", (), "26 lists take 1014"),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_sentence(factory, settings, says):
    with pytest.raises(RequestError, match=says) as caught:
        make(factory, 20, settings, 1000)
    assert str(caught.value).startswith(f"index '{factory}'") and ".cpp" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_faiss_finds_out_late_is_one_sentence_too(built):
    with pytest.raises(StudyError, match=r"^index 'PCA64,Flat': FAISS cannot build or write it \(.*\)\.$"):
        built("PCA64,Flat")


# -- what it costs ---------------------------------------------------------------------------------------------


def test_rates_are_the_median_the_slowest_and_the_fastest_of_the_repeats(monkeypatch):
    ends = iter([0, 2, 10, 11, 20, 24, 30, 38, 40, 41])  # 2, 1, 4, 8 and 1 seconds
    monkeypatch.setattr(archive.time, "perf_counter", lambda: next(ends))
    assert rates(lambda: None, 8, 5) == (4, 1, 8)


def test_a_process_grows_by_the_index_that_it_reads(tmp_path):
    vectors = np.random.default_rng(0).standard_normal((100_000, 64), dtype=np.float32)
    build(path := tmp_path / "index", "Flat", vectors, 1)
    assert path.stat().st_size == pytest.approx(vectors.nbytes, rel=1e-4)
    for mapped in (False, True):
        assert resident(path, vectors[:2], 3, mapped=mapped) == pytest.approx(vectors.nbytes, rel=0.2)


def test_gpus_are_used_where_faiss_has_some_and_knows_the_index_there(monkeypatch):
    def moved(index):
        if isinstance(index, faiss.IndexHNSWFlat):
            raise RuntimeError("This index type is not implemented on GPU.")
        return "moved"

    flat, graph = faiss.IndexFlatL2(4), faiss.IndexHNSWFlat(4, 8)
    monkeypatch.setattr(archive.faiss, "get_num_gpus", lambda: 0, raising=False)
    assert on_gpus(flat) == (flat, "CPU")
    monkeypatch.setattr(archive.faiss, "get_num_gpus", lambda: 2, raising=False)
    monkeypatch.setattr(archive.faiss, "index_cpu_to_all_gpus", moved, raising=False)
    assert on_gpus(flat) == ("moved", "2 GPU") and on_gpus(graph) == (graph, "CPU")
