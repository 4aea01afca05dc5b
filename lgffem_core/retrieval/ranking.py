"""Beyond the first neighbour: what the ranked list behind each query holds.

A ``Ranking`` is the common input, from ``rank_others`` (leave-one-out). Neighbours are ordered by (distance, id),
as everywhere in this package, and that settles all ties of distance. Functions of single queries give (Q,) values of
0 … 1, to be averaged or resampled; those of classes give one number.

A query without any relevant gallery item cannot be right. It counts as 0 in every measure, and is not left
out; pytorch-metric-learning leaves such queries out, and scikit-learn sets other values.
"""

from dataclasses import dataclass

import numpy as np

from lgffem_core.retrieval.index import search
from lgffem_core.retrieval.metrics import count_by_scan


@dataclass(frozen=True)
class Ranking:
    """The first K neighbours of Q queries, as labels."""

    neighbours: np.ndarray  # (Q, K) labels, nearest first, without the query itself
    labels: np.ndarray  # (Q,) labels of the queries
    relevant: np.ndarray  # (Q,) gallery items with the query's label, without the query itself

    def first(self, k: int) -> np.ndarray:
        """Labels of the first k neighbours, at most K: (Q, k)."""
        return self.neighbours[:, :k]

    def matches(self, k: int) -> np.ndarray:
        """Which of the first k neighbours have the query's label: (Q, k) bool."""
        return self.first(k) == self.labels[:, None]


def rank_others(embeddings: np.ndarray, labels: np.ndarray, k: int) -> Ranking:
    """Each row's k nearest other rows; itself is left out by its id, wherever among duplicates it stands.

    Args:
        embeddings: (N, D), finite; labels: (N,); k: 1 … N − 1.
    """
    _, ids = search(embeddings, embeddings, k + 1)
    others = ids != np.arange(len(ids))[:, None]
    others[others.all(axis=1), -1] = False  # k + 1 duplicates with smaller ids: the last is one too many
    return Ranking(labels[ids[others].reshape(-1, k)], labels, relevant_counts(labels, labels) - 1)


def nearest_across(embeddings: np.ndarray, groups: np.ndarray, k: int) -> np.ndarray:
    """Rows of each row's k nearest rows of another group (slide, patient, fold), nearest first: (N, k).

    Args:
        embeddings: (N, D), finite; groups: (N,); k: at least 1, and at most the rows outside of the largest group.
    """
    nearest = np.empty((len(groups), k), dtype=np.int64)
    for group in np.unique(groups):
        own = groups == group
        _, ids = search(embeddings[~own], embeddings[own], k)
        nearest[own] = np.flatnonzero(~own)[ids]
    return nearest


def relevant_counts(labels: np.ndarray, gallery_labels: np.ndarray) -> np.ndarray:
    """Gallery items that have each query's label: (Q,)."""
    ordered = np.sort(gallery_labels)
    return np.searchsorted(ordered, labels, side="right") - np.searchsorted(ordered, labels, side="left")


def hit_rate(ranking: Ranking, k: int) -> np.ndarray:
    """1 where at least one of the first k has the query's label: what metric learning calls recall@k. (Q,)"""
    return ranking.matches(k).any(axis=1).astype(np.float64)


def recall(ranking: Ranking, k: int) -> np.ndarray:
    """Relevant items among the first k / all relevant items: recall@k of information retrieval. (Q,)

    With fewer places than relevant items it cannot reach 1.
    """
    return ranking.matches(k).sum(axis=1) / np.maximum(ranking.relevant, 1)


def precision(ranking: Ranking, k: int) -> np.ndarray:
    """Relevant items among the first k / k. With fewer relevant items than places it cannot reach 1. (Q,)"""
    return ranking.matches(k).mean(axis=1)


def average_precision(ranking: Ranking, k: int) -> np.ndarray:
    """AP@k: the precisions at the places of relevant items among the first k, summed / min(k, relevant). (Q,)

    A perfect list has 1 at each k. With k the whole gallery this is scikit-learn's average precision. Others
    divide by all relevant items at each k (pytorch-metric-learning) or by those found (too kind to a list
    that finds few).
    """
    found = ranking.matches(k)
    precisions = found.cumsum(axis=1) / np.arange(1, k + 1)
    return (precisions * found).sum(axis=1) / np.clip(ranking.relevant, 1, k)


def voted(ranking: Ranking, k: int) -> np.ndarray:
    """The label that most of the first k have; of labels with as many votes, that of the nearest item. (Q,)"""
    first = ranking.first(k)
    votes = (first[:, :, None] == first[:, None, :]).sum(axis=2)  # (Q, k): votes for the label in each place
    return first[np.arange(len(first)), votes.argmax(axis=1)]


def majority_vote(ranking: Ranking, k: int) -> np.ndarray:
    """MV@k: 1 where the voted label is the query's. Each item has one vote; k = 1 is top-1. (Q,)"""
    return (voted(ranking, k) == ranking.labels).astype(np.float64)


def mean_majority_vote(ranking: Ranking, k: int) -> float:
    """mMV@k: the mean over the queries' classes of the mean MV@k in a class, as η_w is of top-1 hits.

    Where a text writes mMV@k for the mean over queries, that is the mean of ``majority_vote`` here.
    """
    right = count_by_scan(majority_vote(ranking, k), ranking.labels)
    return float((right / count_by_scan(np.ones(len(ranking.labels)), ranking.labels)).mean())


def macro_f1(ranking: Ranking) -> float:
    """F1 of the first neighbour's label as a prediction: the mean over the queries' classes, equally weighted.

    F1 of a class = 2·(rightly predicted) / (predicted + queries of the class). A label that no query has is
    no class, but to predict it is an error for the class that was asked for.
    """
    predicted, labels = ranking.first(1)[:, 0], ranking.labels
    classes, queries = np.unique(labels, return_counts=True)
    right = count_by_scan(predicted == labels, labels)
    return float((2 * right / (relevant_counts(classes, predicted) + queries)).mean())


def ranking_scores(ranking: Ranking, ks: tuple[int, ...] = (1, 3, 5, 10), vote_ks: tuple[int, ...] = (3, 5)) -> dict:
    """All measures by name, in percent: means over queries, but for mMV@k and macro-F1, which are over classes.

    Args:
        ks: for the hit rate, recall, precision and AP; vote_ks: for the majority votes. None beyond the ranking.
    """
    scores = {}
    for name, measure, depths in (
        ("hit_rate", hit_rate, ks),
        ("recall", recall, ks),
        ("precision", precision, ks),
        ("mAP", average_precision, ks),
        ("MV", majority_vote, vote_ks),
        ("mMV", mean_majority_vote, vote_ks),
    ):
        scores |= {f"{name}@{k}": 100 * float(np.mean(measure(ranking, k))) for k in depths}
    return scores | {"macro_f1": 100 * macro_f1(ranking)}
