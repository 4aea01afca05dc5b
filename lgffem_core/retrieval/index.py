"""Nearest neighbours with FAISS: exact, by squared Euclidean distance, ties broken by id.

FAISS computes distances in float32 and orders equal ones arbitrarily. Its candidates are therefore ordered
again by (distance in float64, id), and where a tie may reach beyond them, more candidates are asked for.
"""

import faiss
import numpy as np

SPARE = 8  # candidates beyond k, so that most ties are settled by the first search
GPU_LIMIT = 2048  # neighbours that FAISS's GPU indexes can return
TOLERANCE = 1e-4  # relative error that a float32 distance may have
SMALLEST, LARGEST = 1e-15, 1e15  # of the largest number: squares beyond would leave float32's range


def gpus() -> int:
    """How many GPUs FAISS may use: none where it was built for the CPU."""
    return getattr(faiss, "get_num_gpus", lambda: 0)()


def nearest_in_float32(gallery: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """FAISS's ``k`` nearest gallery rows of each query, (Q, k): on the GPUs where it has some and they reach so far.

    A processor searches the gallery where it lies; an index would copy it first.
    """
    gallery, queries = (np.ascontiguousarray(rows, dtype=np.float32) for rows in (gallery, queries))
    if gpus() == 0 or k > GPU_LIMIT:
        return faiss.knn(queries, gallery, k)[1]
    index = faiss.index_cpu_to_all_gpus(faiss.IndexFlatL2(gallery.shape[1]))
    index.add(gallery)
    return index.search(queries, k)[1]


def search(gallery: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` nearest gallery rows of each query.

    Args:
        gallery: (N, D), queries: (Q, D), finite, and their largest number between ``SMALLEST`` and ``LARGEST``.
        k: 1 … N.

    Returns:
        distances (Q, k) float64, squared Euclidean, ascending; ids (Q, k) int64, rows of the gallery, equal
        distances in ascending id.
    """
    size = len(gallery)
    if not 1 <= k <= size:
        raise ValueError(f"k is {k}; a gallery of {size} has 1 … {size} neighbours")
    # NaN where there is one; no mask as large as the gallery
    bounds = [float(bound(rows, initial=0)) for rows in (gallery, queries) for bound in (np.min, np.max)]
    if not np.isfinite(bounds).all():
        raise ValueError("embeddings contain NaN or infinity")
    if (largest := np.abs(bounds).max()) > LARGEST or 0 < largest < SMALLEST:
        raise ValueError(f"embeddings reach {largest:.1e}, of which float32 holds no squares; scale them")
    wanted = min(size, k + SPARE)
    while True:
        candidates = nearest_in_float32(gallery, queries, wanted)
        distances, ids = order_candidates(gallery, queries, candidates)
        if wanted == size or not ties_reach_end(distances, k, queries):
            return distances[:, :k], ids[:, :k]
        wanted = min(size, 4 * wanted)


def order_candidates(gallery: np.ndarray, queries: np.ndarray, candidates: np.ndarray):
    """Candidates (Q, W) ordered by (float64 squared distance, id), with the distances."""
    distances, ids = np.empty(candidates.shape), np.empty_like(candidates)
    for row, (query, found) in enumerate(zip(queries.astype(np.float64), candidates, strict=True)):
        exact = ((gallery[found].astype(np.float64) - query) ** 2).sum(axis=1)
        order = np.lexsort((found, exact))
        distances[row], ids[row] = exact[order], found[order]
    return distances, ids


def ties_reach_end(distances: np.ndarray, k: int, queries: np.ndarray) -> bool:
    """True where the k-th and the last candidate are so close that float32 may have cut between equals."""
    scale = distances[:, -1] + (queries.astype(np.float64) ** 2).sum(axis=1)
    return bool((distances[:, -1] - distances[:, k - 1] <= TOLERANCE * scale).any())
