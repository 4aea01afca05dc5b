"""How much the protocol ``released`` depends on the order of the files, with the same embeddings.

Two things that follow from file names alone enter it: the order of the scans, because scan s is asked for its
first C_s = n_0 + … + n_s neighbours, and which patch of a scan lies first, because that one asks.
"""

from typing import NamedTuple

import numpy as np

from lgffem_core.base.seeds import derive_seed
from lgffem_core.retrieval.index import search


class Orders(NamedTuple):
    """η_p of one model under ``released``, in percent, with the files in other orders."""

    filed: float  # the order as filed
    rotations: np.ndarray  # (S,) every rotation of the scans, first patches as filed
    first: np.ndarray  # (draws,) other first patches, scans as filed
    extremes: tuple[float, float]  # over all rotations and all first patches


def eta_p_by_order(test: np.ndarray, labels: np.ndarray, draws: int = 2000, seed: int = 0) -> Orders:
    """How η_p depends on the order of the files; test (N, D) and labels (N,) as in ``correct_counts``."""
    correct = correct_counts(test, labels, rotations(int(labels.max()) + 1))
    rotated = order_scores(correct, as_filed(labels))[:, 0]
    first = order_scores(correct[:1], drawn_first(labels, draws, seed))[0]
    return Orders(float(rotated[0]), rotated, first, extremes(correct, labels))


def rotations(scans: int) -> np.ndarray:
    """Every rotation of the scans' order (S, S): row r is r, r + 1, …, S − 1, 0, …, r − 1; row 0 is as filed."""
    return (np.arange(scans) + np.arange(scans)[:, None]) % scans


def correct_counts(test: np.ndarray, labels: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """c_s of the scan of each patch, if that patch lay first in its scan, under each order of the scans: (R, N).

    Neighbours are searched once. Another order moves the depth C_s, and ids, which break ties of distance.

    Args:
        test: (N, D); labels: (N,) scans 0 … S − 1, ascending, each with a patch.
        orders: (R, S), each row a permutation of the scans.
    """
    counts = np.bincount(labels)
    distances, ids = search(test, test, len(test))
    tied = bool((np.diff(distances, axis=1) == 0).any())
    within = np.arange(len(labels)) - (counts.cumsum() - counts)[labels]  # a patch's place in its scan
    correct = np.empty((len(orders), len(labels)), dtype=np.int64)
    for row, order in enumerate(orders):
        ends = np.empty_like(counts)
        ends[order] = counts[order].cumsum()  # C_s by scan
        if tied:  # a patch's id is its place in this order of files
            places = (ends - counts)[labels] + within
            ids = np.take_along_axis(ids, np.lexsort((places[ids], distances)), axis=1)
        same = (labels[ids] == labels[:, None]).cumsum(axis=1)  # (N, N)
        correct[row] = same[np.arange(len(labels)), ends[labels] - 1]
    return correct


def order_scores(correct: np.ndarray, first: np.ndarray) -> np.ndarray:
    """η_p under ``released`` for every order and every choice of first patches: (R, F), in percent.

    Args:
        correct: (R, N), of ``correct_counts``.
        first: (F, S) the patch of each scan that asks, as rows.
    """
    return 100 * (correct[:, first].sum(axis=-1) / correct.shape[1])


def as_filed(labels: np.ndarray) -> np.ndarray:
    """The patch of each scan that comes first: (1, S)."""
    return np.unique(labels, return_index=True)[1][None]


def drawn_first(labels: np.ndarray, draws: int, seed: int = 0) -> np.ndarray:
    """Any patch of a scan may come first, all equally likely: (draws, S)."""
    counts = np.bincount(labels)
    rng = np.random.default_rng(derive_seed("first patch", seed))
    return counts.cumsum() - counts + rng.integers(counts, size=(draws, len(counts)))


def extremes(correct: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """The least and the greatest η_p that any order in ``correct`` and any choice of first patches can give."""
    starts = as_filed(labels)[0]
    least = np.minimum.reduceat(correct, starts, axis=1).sum(axis=1).min()
    most = np.maximum.reduceat(correct, starts, axis=1).sum(axis=1).max()
    return 100 * least / len(labels), 100 * most / len(labels)
