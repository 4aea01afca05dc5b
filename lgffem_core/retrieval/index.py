"""Nearest neighbours with FAISS: exact, by squared Euclidean distance, ties broken by id.

FAISS computes distances in float32 and orders equal ones arbitrarily. Its candidates are therefore ordered
again by (distance in float64, id), and where a tie may reach beyond them, more candidates are asked for.
"""

import faiss
import numpy as np

SPARE = 8  # candidates beyond k, so that most ties are settled by the first search
GPU_LIMIT = 2048  # neighbours that FAISS's GPU indexes can return
TOLERANCE = 1e-4  # relative error that a float32 distance may have


def gpus() -> int:
    """How many GPUs FAISS may use: none where it was built for the CPU."""
    return getattr(faiss, "get_num_gpus", lambda: 0)()


def flat_index(gallery: np.ndarray, k: int):
    """A FlatL2 index over the gallery, on the GPUs where FAISS has some and ``k`` is in their reach."""
    index = faiss.IndexFlatL2(gallery.shape[1])
    if gpus() > 0 and k <= GPU_LIMIT:
        index = faiss.index_cpu_to_all_gpus(index)
    index.add(np.ascontiguousarray(gallery, dtype=np.float32))
    return index


def search(gallery: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` nearest gallery rows of each query.

    Args:
        gallery: (N, D), queries: (Q, D), finite.
        k: 1 … N.

    Returns:
        distances (Q, k) float64, squared Euclidean, ascending; ids (Q, k) int64, rows of the gallery, equal
        distances in ascending id.
    """
    size = len(gallery)
    if not 1 <= k <= size:
        raise ValueError(f"k is {k}; a gallery of {size} has 1 … {size} neighbours")
    if not (np.isfinite(gallery).all() and np.isfinite(queries).all()):
        raise ValueError("embeddings contain NaN or infinity")
    wanted = min(size, k + SPARE)
    while True:
        _, candidates = flat_index(gallery, wanted).search(np.ascontiguousarray(queries, dtype=np.float32), wanted)
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
