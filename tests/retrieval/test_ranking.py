"""The ranked measures against loops over their definitions, scikit-learn and pytorch-metric-learning.

All on the same 1,000 cases: few points of a small grid, so that most distances are tied and many patches are
duplicates; classes of a single patch; and, where there is a gallery, classes that only one side has.
"""

from collections import Counter
from fractions import Fraction
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
import torch
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from sklearn import metrics

from lgffem_core.retrieval import ranking as ranked
from lgffem_core.retrieval.protocols import evaluate, leave_one_out
from lgffem_core.retrieval.ranking import Ranking, nearest_across, rank_others, ranking_scores

EXACT = {"rtol": 0, "atol": 1e-12}


class Case(NamedTuple):
    queries: np.ndarray
    labels: np.ndarray
    gallery: np.ndarray | None  # None: the other queries
    gallery_labels: np.ndarray
    ids: list  # [query][place] -> gallery row, by a loop
    ks: tuple

    @property
    def ranking(self):
        """The whole ranking, as the loop has it."""
        relevant = [sum(self.gallery_labels[i] == y for i in row) for row, y in zip(self.ids, self.labels, strict=True)]
        return Ranking(self.gallery_labels[np.array(self.ids)], self.labels, np.array(relevant))


def draw(rng, rows):
    """Rows on a small grid with labels of their own, one of them alone in its class."""
    embeddings = rng.integers(0, rng.integers(1, 4), size=(rows, 2)).astype(np.float32)
    labels = rng.integers(0, rng.integers(1, 6), size=rows)
    labels[rng.integers(rows)] = 7 + rng.integers(3)
    return embeddings, labels


@cache
def cases():
    found = []
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        queries, labels = draw(rng, rng.integers(2, 13))
        gallery, gallery_labels = draw(rng, rng.integers(1, 13)) if seed % 2 else (None, labels)
        ids = []
        for query, point in enumerate(queries.tolist()):
            rows = list(enumerate((queries if gallery is None else gallery).tolist()))
            order = sorted((sum((a - b) ** 2 for a, b in zip(row, point, strict=True)), i) for i, row in rows)
            ids.append([i for _, i in order if gallery is not None or i != query])
        depth = len(ids[0])
        ks = tuple(sorted({1, min(3, depth), int(rng.integers(1, depth + 1)), depth}))
        found.append(Case(queries, labels, gallery, gallery_labels, ids, ks))
    return found


@cache
def each():
    """(case, ranking, relevance by place as nested lists) of all cases."""
    found = []
    for case in cases():
        ranking, labels = case.ranking, case.labels.tolist()
        relevance = [[a == b for a in row] for row, b in zip(ranking.neighbours.tolist(), labels, strict=True)]
        found.append((case, ranking, relevance))
    return found


def test_the_cases_are_hard():
    votes, seen = 0, Counter()
    for case, ranking, _ in each():
        rows = case.queries if case.gallery is None else case.gallery
        seen["duplicates"] += len(np.unique(rows, axis=0)) < len(rows)
        seen["lone queries"] += (ranking.relevant == 0).any()
        seen["predicted, never asked for"] += not np.isin(ranking.neighbours[:, 0], case.labels).all()
        for row in ranking.neighbours[:, :5].tolist():
            most = Counter(row).most_common(2)
            votes += len(most) == 2 and most[0][1] == most[1][1]
    assert min(seen.values()) > 150 and len(seen) == 3 and votes > 500


def test_rankings_against_the_loop():
    for case, expected, _ in each():
        for k in case.ks if case.gallery is None else ():
            found = rank_others(case.queries, case.labels, k)
            np.testing.assert_array_equal(found.neighbours, expected.neighbours[:, :k])
            np.testing.assert_array_equal(found.relevant, expected.relevant)


def loop_average_precision(relevance, relevant, k):
    at_hits = [Fraction(sum(relevance[: i + 1]), i + 1) for i in range(k) if relevance[i]]
    return sum(at_hits) / min(k, relevant) if relevant else 0


def loop_vote(neighbours, k):
    """``Counter`` lists labels of equal counts in the order in which it met them."""
    return Counter(neighbours[:k]).most_common(1)[0][0]


def test_measures_of_queries_against_their_definitions():
    for case, ranking, relevance in each():
        rows = list(zip(relevance, ranking.relevant.tolist(), strict=True))
        for k in case.ks:
            hits = [sum(row[:k]) for row, _ in rows]
            votes = [loop_vote(row, k) for row in ranking.neighbours.tolist()]
            expected = {
                ranked.hit_rate: [h > 0 for h in hits],
                ranked.recall: [Fraction(int(h), r) if r else 0 for h, (_, r) in zip(hits, rows, strict=True)],
                ranked.precision: [Fraction(int(h), k) for h in hits],
                ranked.average_precision: [loop_average_precision(row, r, k) for row, r in rows],
                ranked.majority_vote: [a == b for a, b in zip(votes, case.labels, strict=True)],
            }
            for measure, values in expected.items():
                values = np.array([float(value) for value in values])
                np.testing.assert_allclose(measure(ranking, k), values, **EXACT, err_msg=measure.__name__)


def test_measures_of_classes_against_their_definitions():
    for case, ranking, _ in each():
        labels, predicted = case.labels.tolist(), ranking.neighbours[:, 0].tolist()
        pairs = Counter(zip(labels, predicted, strict=True))
        f1 = [Fraction(2 * pairs[c, c], labels.count(c) + predicted.count(c)) for c in set(labels)]
        np.testing.assert_allclose(ranked.macro_f1(ranking), float(sum(f1) / len(f1)), **EXACT)
        for k in case.ks:
            votes = [loop_vote(row, k) for row in ranking.neighbours.tolist()]
            right = Counter(a for a, b in zip(labels, votes, strict=True) if a == b)
            shares = [Fraction(right[c], labels.count(c)) for c in set(labels)]
            np.testing.assert_allclose(ranked.mean_majority_vote(ranking, k), float(sum(shares) / len(shares)), **EXACT)


def deep_enough(k):
    """(ranking, relevance by place, padded to 12 places) of all cases with k neighbours or more."""
    for _, ranking, relevance in each():
        if ranking.neighbours.shape[1] >= k:
            truth = np.array(relevance).astype(int)
            yield ranking, np.pad(truth, ((0, 0), (0, 12 - truth.shape[1])))


@pytest.mark.parametrize("k", [1, 2, 3, 5, 8])
def test_precision_and_recall_against_scikit_learn(k):
    """Each query is one column, and so one label, of a single problem."""
    rankings, truths = zip(*deep_enough(k), strict=True)
    truth = np.concatenate(truths).T
    retrieved = np.tile(np.arange(12)[:, None] < k, truth.shape[1]).astype(int)
    for measure, theirs in ((ranked.precision, metrics.precision_score), (ranked.recall, metrics.recall_score)):
        expected = theirs(truth, retrieved, average=None, zero_division=0)
        np.testing.assert_allclose(np.concatenate([measure(r, k) for r in rankings]), expected, **EXACT)


def test_average_precision_against_scikit_learn():
    for ranking, truth in deep_enough(1):
        asked = truth.any(axis=1)  # scikit-learn's value of the others is 1
        if asked.any():
            whole = ranked.average_precision(ranking, ranking.neighbours.shape[1])[asked].mean()
            scores = np.tile(-np.arange(12), (asked.sum(), 1))
            expected = metrics.label_ranking_average_precision_score(truth[asked], scores)
            np.testing.assert_allclose(whole, expected, **EXACT)


def by_case(theirs, truths, predictions):
    """A measure's mean over the classes of each case, from one problem with labels that differ by case."""
    truth, predicted = (
        np.concatenate([100 * case + np.asarray(labels) for case, labels in enumerate(parts)])
        for parts in (truths, predictions)
    )
    classes = np.unique(truth)
    values = theirs(truth, predicted, labels=classes, average=None, zero_division=0)
    return [values[classes // 100 == case].mean() for case in range(len(truths))]


def test_macro_f1_against_scikit_learn():
    rankings = [ranking for _, ranking, _ in each()]
    expected = by_case(metrics.f1_score, [r.labels for r in rankings], [r.neighbours[:, 0] for r in rankings])
    np.testing.assert_allclose([ranked.macro_f1(r) for r in rankings], expected, **EXACT)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_mean_majority_vote_against_scikit_learn(k):
    rankings = [ranking for ranking, _ in deep_enough(k)]
    votes = [[loop_vote(row, k) for row in r.neighbours.tolist()] for r in rankings]
    expected = by_case(metrics.recall_score, [r.labels for r in rankings], votes)
    np.testing.assert_allclose([ranked.mean_majority_vote(r, k) for r in rankings], expected, **EXACT)


def their_accuracy(case, k):
    """pytorch-metric-learning on the loop's order, since its own search leaves ties as they come."""

    def loop_search(query, depth, reference, ref_includes_query):
        return None, torch.tensor(case.ids)[:, :depth]

    calculator = AccuracyCalculator(
        include=("precision_at_1", "mean_average_precision", "r_precision"),
        k=k,
        device=torch.device("cpu"),
        knn_func=loop_search,
        kmeans_func=lambda *_: None,
    )
    gallery = () if case.gallery is None else (case.gallery, case.gallery_labels)
    return calculator.get_accuracy(case.queries, case.labels, *gallery)


def test_against_pytorch_metric_learning():
    """It leaves queries without a relevant item out, and divides AP by all relevant items at each k."""
    for case, ranking, _ in each():
        asked, depth = ranking.relevant > 0, ranking.neighbours.shape[1]
        if not asked.any():
            continue
        relevant = ranking.relevant[asked]
        theirs = their_accuracy(case, None)
        at_r = [ranked.precision(ranking, r)[row] for row, r in enumerate(ranking.relevant) if r]
        np.testing.assert_allclose(np.mean(at_r), theirs["r_precision"], **EXACT)
        for name in ("hit_rate", "precision", "majority_vote"):
            first = getattr(ranked, name)(ranking, 1)
            np.testing.assert_allclose(first.sum() / asked.sum(), theirs["precision_at_1"], **EXACT)
        whole = ranked.average_precision(ranking, depth)
        np.testing.assert_allclose(whole.sum() / asked.sum(), theirs["mean_average_precision"], **EXACT)
        k = case.ks[len(case.ks) // 2]
        mine = ranked.average_precision(ranking, k)[asked] * np.minimum(relevant, k) / relevant
        np.testing.assert_allclose(mine.mean(), their_accuracy(case, k)["mean_average_precision"], **EXACT)


def test_the_first_neighbour_is_that_of_the_protocols():
    """Hit rate, precision and MV at 1 are η_p; mMV@1 is η_w."""
    for case, ranking, _ in each():
        if case.gallery is None:
            outcome = leave_one_out(case.queries, case.labels)
        else:
            arrays = [
                np.concatenate(pair) for pair in ((case.queries, case.gallery), (case.labels, case.gallery_labels))
            ]
            outcome = evaluate("test_to_train", *arrays, np.arange(len(arrays[1])) < len(case.labels))
        scores = ranking_scores(ranking, (1,), (1,))
        for name in ("hit_rate@1", "precision@1", "mAP@1", "MV@1"):
            np.testing.assert_allclose(scores[name], outcome.scores.eta_p, rtol=1e-12)
        np.testing.assert_allclose(scores["mMV@1"], outcome.scores.eta_w, rtol=1e-12)


def ranking_of(neighbours, label, relevant):
    return Ranking(np.array([neighbours]), np.array([label]), np.array([relevant]))


def test_by_hand():
    ranking = ranking_of([2, 1, 1, 2, 1], 1, 4)
    assert ranked.hit_rate(ranking, 1) == 0 and ranked.hit_rate(ranking, 2) == 1
    assert ranked.recall(ranking, 3) == 2 / 4 and ranked.precision(ranking, 3) == 2 / 3
    assert ranked.average_precision(ranking, 3) == pytest.approx((1 / 2 + 2 / 3) / 3)
    assert [ranked.voted(ranking, k).item() for k in (1, 2, 3, 4, 5)] == [2, 2, 1, 2, 1]


def test_a_query_without_relevant_items_counts_as_zero():
    ranking = Ranking(np.array([[1, 1, 1], [1, 1, 1]]), np.array([5, 1]), np.array([0, 3]))
    scores = ranking_scores(ranking, (3,), (3,))
    assert scores["recall@3"] == scores["precision@3"] == scores["mAP@3"] == scores["MV@3"] == scores["mMV@3"] == 50
    assert scores["macro_f1"] == pytest.approx(100 / 3)  # classes 5: 0, 1: 2·1/(2 + 1)


def test_names_of_the_table():
    scores = ranking_scores(ranking_of([1] * 10, 1, 12))
    at = [f"{name}@{k}" for name in ("hit_rate", "recall", "precision", "mAP") for k in (1, 3, 5, 10)]
    assert list(scores) == [*at, "MV@3", "MV@5", "mMV@3", "mMV@5", "macro_f1"]
    assert scores["recall@10"] == pytest.approx(100 * 10 / 12) and scores["mAP@10"] == 100


def test_errors():
    with pytest.raises(ValueError, match="a gallery of 2"):
        rank_others(np.eye(2, dtype=np.float32), np.array([0, 0]), 2)


@pytest.mark.parametrize("seed", range(5))
def test_nearest_across_is_the_loop_over_other_groups(seed):
    rng = np.random.default_rng(seed)
    vectors, groups = rng.integers(0, 3, (30, 2)).astype(np.float32), rng.integers(0, 4, 30)  # with ties
    found = nearest_across(vectors, groups, 5)
    for i in range(30):
        others = [j for j in range(30) if groups[j] != groups[i]]
        assert found[i].tolist() == sorted(others, key=lambda j: (((vectors[i] - vectors[j]) ** 2).sum(), j))[:5]
