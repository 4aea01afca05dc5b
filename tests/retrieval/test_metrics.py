"""The measures against explicit loops and by hand."""

import numpy as np
import pytest

from lgffem_core.retrieval.metrics import Scores, count_by_scan, eta_scores, separation


def loop_scores(hits, labels):
    """η_p, η_w, η_tot in percent, from the hits of single patches."""
    by_scan = {}
    for hit, label in zip(hits, labels, strict=True):
        by_scan.setdefault(label, []).append(hit)
    eta_p = sum(map(sum, by_scan.values())) / len(hits)
    eta_w = sum(sum(scan) / len(scan) for scan in by_scan.values()) / len(by_scan)
    return 100 * eta_p, 100 * eta_w, 100 * eta_p * eta_w


@pytest.mark.parametrize("seed", range(5))
def test_scores_against_a_loop(seed):
    rng = np.random.default_rng(seed)
    labels = np.sort(rng.integers(0, 6, size=80))
    hits = rng.random(80) < 0.7
    correct, counts = count_by_scan(hits, labels), count_by_scan(np.ones(80, dtype=int), labels)
    assert eta_scores(correct, counts) == pytest.approx(loop_scores(hits.tolist(), labels.tolist()))


def test_the_published_counts_of_ma_ms_loss():
    """1297 of 1325 patches are the 97.89 of Table 2."""
    assert eta_scores([1297], [1325]).eta_p == pytest.approx(97.89, abs=0.005)


def test_scans_weigh_equally_in_eta_w_and_by_size_in_eta_p():
    assert eta_scores([90, 0], [90, 10]) == pytest.approx((90, 50, 45))
    assert eta_scores([10, 10], [10, 10]) == Scores(100, 100, 100)
    assert eta_scores([0, 0], [3, 4]) == Scores(0, 0, 0)


def test_counts_need_not_come_scan_by_scan():
    values, labels = np.array([1, 2, 3, 4, 5]), np.array([7, 2, 7, 2, 9])
    assert count_by_scan(values, labels).tolist() == [6, 4, 5]


@pytest.mark.parametrize("seed", range(3))
def test_separation_against_a_loop(seed):
    rng = np.random.default_rng(seed)
    embeddings, labels = rng.standard_normal((12, 5)) + 0.5, rng.integers(0, 3, size=12)
    within, across = [], []
    for i in range(12):
        for j in range(i):
            a, b = embeddings[i], embeddings[j]
            cosine = a @ b / np.sqrt((a @ a) * (b @ b))
            (within if labels[i] == labels[j] else across).append(cosine)
    assert separation(embeddings, labels) == pytest.approx(np.mean(within) - np.mean(across))


def test_separation_of_opposite_classes_is_two_and_lengths_do_not_matter():
    embeddings = np.array([[1.0, 0], [5, 0], [-1, 0], [-0.1, 0]])
    assert separation(embeddings, np.array([0, 0, 1, 1])) == pytest.approx(2)
    assert separation(embeddings, np.array([0, 1, 0, 1])) == pytest.approx(-1)
