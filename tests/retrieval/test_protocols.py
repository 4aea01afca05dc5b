"""The protocols against the authors' own loop's values, and against explicit loops on hard cases."""

import json
from pathlib import Path

import numpy as np
import pytest

from lgffem_core.retrieval.metrics import eta_scores
from lgffem_core.retrieval.protocols import (
    answerable,
    evaluate,
    leave_one_group_out,
    leave_one_out,
    released,
    test_to_train,
)

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "kimia_metrics.json"


def golden_cases():
    golden = json.loads(GOLDEN.read_text())
    labels = np.repeat(np.arange(24), golden["scan_counts"])
    for case in golden["cases"]:
        rng = np.random.default_rng(case["seed"])
        if case["sigma"] is None:
            embeddings = rng.standard_normal((1325, 64))
        else:
            centres = rng.standard_normal((24, 64))
            embeddings = centres[labels] + case["sigma"] * rng.standard_normal((1325, 64))
        yield case, embeddings.astype(np.float32), labels


def test_golden_values_of_released_and_leave_one_out():
    for case, embeddings, labels in golden_cases():
        for protocol, expected in ((released, "released"), (leave_one_out, "leave_one_out_top1")):
            scores = protocol(embeddings, labels).scores
            assert scores == pytest.approx(tuple(case[expected].values()), abs=1e-3), (case["seed"], expected)


def loop_order(gallery, query):
    """Gallery ids by (squared distance, id), one by one, in exact integer arithmetic."""

    def distance(i):
        return sum((int(a) - int(b)) ** 2 for a, b in zip(gallery[i], query, strict=True))

    return sorted(range(len(gallery)), key=lambda i: (distance(i), i))


def loop_leave_one_out(test, labels):
    hits = []
    for i, query in enumerate(test):
        nearest = next(j for j in loop_order(test, query) if j != i)
        hits.append(labels[nearest] == labels[i])
    return np.array(hits)


def loop_test_to_train(test, labels, train, train_labels):
    return np.array([train_labels[loop_order(train, q)[0]] == label for q, label in zip(test, labels, strict=True)])


def loop_released(test, labels):
    correct, cumulative, start = [], 0, 0
    for scan in sorted(set(labels)):
        count = list(labels).count(scan)
        cumulative += count
        nearest = loop_order(test, test[start])[:cumulative]
        correct.append(sum(labels[j] == scan for j in nearest))
        start += count
    return np.array(correct)


def hard_case(seed):
    """Small integer embeddings: many exact duplicates and ties, and scans of a single patch."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 9, size=rng.integers(2, 7))
    counts[rng.integers(len(counts))] = 1
    labels = np.repeat(np.arange(len(counts)), counts)
    levels = rng.integers(1, 4)  # 1: all embeddings are equal
    test = rng.integers(0, levels, size=(len(labels), 3)).astype(np.float32)
    train_labels = np.sort(rng.integers(0, len(counts), size=20))
    train = rng.integers(0, levels, size=(20, 3)).astype(np.float32)
    return test, labels, train, train_labels


@pytest.mark.parametrize("seed", range(40))
def test_duplicates_ties_and_single_patches_against_loops(seed):
    test, labels, train, train_labels = hard_case(seed)
    np.testing.assert_array_equal(leave_one_out(test, labels).hits, loop_leave_one_out(test, labels))
    np.testing.assert_array_equal(
        test_to_train(test, labels, train, train_labels).hits,
        loop_test_to_train(test, labels, train, train_labels),
    )
    np.testing.assert_array_equal(released(test, labels).correct, loop_released(test, labels))


def test_a_scan_with_one_patch_is_never_right_under_leave_one_out():
    outcome = leave_one_out(np.array([[0.0], [0.1], [5.0]], dtype=np.float32), np.array([0, 0, 1]))
    assert outcome.correct.tolist() == [2, 0]


def test_the_last_scan_of_released_is_always_right():
    rng = np.random.default_rng(0)
    outcome = released(rng.standard_normal((30, 4)).astype(np.float32), np.repeat([0, 1, 2], 10))
    assert outcome.correct[-1] == outcome.counts[-1]


def test_released_refuses_patches_out_of_scan_order():
    with pytest.raises(ValueError, match="ordered by scan"):
        released(np.eye(3, dtype=np.float32), np.array([1, 0, 1]))


def test_eta_is_recall_over_true_counts():
    scores = eta_scores([1, 3], [2, 3])
    assert scores == pytest.approx((80.0, 75.0, 60.0))


def test_evaluate_separates_test_from_train():
    embeddings = np.array([[0.0], [1.0], [0.1], [0.9]], dtype=np.float32)
    labels, test = np.array([0, 1, 0, 1]), np.array([False, False, True, True])
    assert evaluate("test_to_train", embeddings, labels, test).scores.eta_p == 100
    assert evaluate("leave_one_out", embeddings, labels, test).scores.eta_p == 0
    with pytest.raises(KeyError, match="recall"):
        evaluate("recall", embeddings, labels, test)


def test_leaving_groups_out_equals_an_explicit_loop():
    rng = np.random.default_rng(5)
    for _ in range(20):
        size = int(rng.integers(6, 30))
        values = rng.integers(0, 3, (size, 2)).astype(np.float32)  # few values: many ties
        labels, groups = rng.integers(0, 3, size), np.append([0, 1], rng.integers(0, 3, size - 2))
        hits, can = [], []
        for i in range(size):
            others = [j for j in range(size) if groups[j] != groups[i]]
            nearest = min(others, key=lambda j: (((values[i] - values[j]) ** 2).sum(), j))
            hits.append(labels[nearest] == labels[i])
            can.append(any(labels[j] == labels[i] for j in others))
        assert leave_one_group_out(values, labels, groups).hits.tolist() == hits
        assert answerable(labels, groups).tolist() == can
        assert not np.any(np.array(hits) & ~np.array(can))


def test_where_the_group_is_the_label_nothing_can_be_answered():
    labels = np.array([0, 0, 1, 1, 2])
    assert not answerable(labels, np.array(["s0", "s0", "s1", "s1", "s2"])).any()
    assert leave_one_group_out(np.eye(5, dtype=np.float32), labels, labels).scores.eta_p == 0
