"""Embeddings in two dimensions (Figure 7), and how far such a map may be trusted.

Every method starts from the first two principal components, which keeps the coarse layout comparable between
seeds (Kobak and Linderman, Nature Biotechnology 2021), and runs on one thread: with more of them the order of
floating-point sums, and with it the map, would change from machine to machine.
"""

from functools import cache

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, trustworthiness
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits
from umap import UMAP, layouts, umap_, utils

from lgffem_core.base.errors import StudyError
from lgffem_core.config.params import Projection

NAMES = {"umap": "UMAP", "tsne": "t-SNE", "pca": "PCA"}
FEWEST = 5  # points that a map can be made of


def fitting_neighbours(size: int, wanted: int) -> int:
    """How many neighbours to look at among ``size`` points: ``wanted``, or what fits below half of the points.

    Trustworthiness is defined only below half, and the maps of a small test set keep to the same number.
    Raises ``StudyError`` for fewer than five points.
    """
    if size < FEWEST:
        raise StudyError(
            f"a projection needs at least {FEWEST} test patches and projection.neighbours of at least 2; "
            f"here are {size} patches and {wanted} neighbours."
        )
    return min(wanted, (size - 1) // 2)


@cache
def keep_compiled() -> None:
    """Have numba keep what it compiles of UMAP, which takes ten seconds, for other processes; the code is the same.

    It lies beside the package or, where that cannot be written, in the user's cache; without either, nothing is kept.
    """
    for function in (value for module in (umap_, layouts, utils) for value in vars(module).values()):
        if hasattr(function, "enable_caching"):
            try:
                function.enable_caching()
            except RuntimeError:  # numba found no such folder
                return


def project(embeddings: np.ndarray, params: Projection) -> np.ndarray:
    """Points in the plane, (N, 2) float64, for embeddings (N, D); the same input gives the same bytes.

    Distances are Euclidean, as in the search. UMAP looks at ``fitting_neighbours``; t-SNE's perplexity is twice
    that number, as far as a third of the points allows. PCA has no parameters.

    Raises ``StudyError`` where there are too few points or all are equal, ``ValueError`` for NaN or infinity.
    """
    neighbours = fitting_neighbours(len(embeddings), params.neighbours)
    if (embeddings == embeddings[0]).all():  # t-SNE would end the whole process
        raise StudyError(
            "all test patches have the same embedding; there is nothing to project, the model has collapsed."
        )
    keep_compiled()
    perplexity = min(2 * neighbours, (len(embeddings) - 1) / 3)
    reducer = {
        "umap": lambda: UMAP(n_neighbors=neighbours, init="pca", random_state=params.seed, n_jobs=1),
        "tsne": lambda: TSNE(perplexity=perplexity, init="pca", random_state=params.seed),
        "pca": lambda: PCA(2, svd_solver="full"),
    }[params.method]()
    with threadpool_limits(1):
        return reducer.fit_transform(np.asarray(embeddings, dtype=np.float64)).astype(np.float64)


def nearest(points: np.ndarray, k: int) -> np.ndarray:
    """Row numbers of each point's ``k`` nearest other points: (N, k)."""
    return NearestNeighbors(n_neighbors=k, algorithm="brute").fit(points).kneighbors(return_distance=False)


def faithfulness(embeddings: np.ndarray, points: np.ndarray, k: int) -> dict[str, float]:
    """How well a map keeps neighbourhoods of ``k`` points; each measure lies in 0 … 1.

    Args:
        embeddings: (N, D); points: (N, 2), their map.
        k: neighbours, below N/2.

    Returns:
        ``trustworthiness`` (Venna and Kaski, ICANN 2001): 1 where no neighbour on the map is a stranger in
        the embedding space, less the further away the strangers are.
        ``knn_overlap``: mean share of a point's k nearest neighbours that the map keeps among its k nearest.
        ``chance_overlap``: k/(N−1), the overlap of a map that knows nothing.
    """
    with threadpool_limits(1):
        trusted = trustworthiness(embeddings, points, n_neighbors=k)
        before, after = nearest(embeddings, k), nearest(points, k)
    kept = [len(np.intersect1d(a, b)) for a, b in zip(before, after, strict=True)]
    return {
        "trustworthiness": float(trusted),
        "knn_overlap": float(np.mean(kept) / k),
        "chance_overlap": k / (len(points) - 1),
    }
