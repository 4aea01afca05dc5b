"""Binarised features, "barcodes": one bit a step from feature to feature, compared by Hamming distance.

DenseNet-121's features were binarised so by their publication (arXiv:2102.07611).
"""

import numpy as np

from lgffem_core.retrieval.index import search


def barcode(features: np.ndarray) -> np.ndarray:
    """The signs of successive differences: (N, D) -> (N, D − 1) float32, 1 where the next feature is greater."""
    return (features[:, 1:] > features[:, :-1]).astype(np.float32)


def hamming_search(gallery: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` nearest barcodes of each query, ties broken by id: distances (Q, k) int64 and ids (Q, k) int64.

    Between vectors of zeros and ones, the squared Euclidean distance *is* the number of bits that differ; the
    protocols can therefore search barcodes as they search any embedding.

    Args:
        gallery: (N, B), queries: (Q, B), of 0 and 1.
    """
    distances, ids = search(gallery, queries, k)
    return distances.astype(np.int64), ids
