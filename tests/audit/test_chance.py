"""Chance: against all rankings that there are, one by one, and against the protocols on random embeddings."""

import runpy
from itertools import permutations, product

import numpy as np
import pytest

from lgffem_core.audit.chance import chance, expected_correct
from lgffem_core.base.project import PROJECT
from lgffem_core.data.sets.facts import KIMIA_TEST_COUNTS
from lgffem_core.retrieval.metrics import eta_scores

BENCHMARK = runpy.run_path(str(PROJECT / "benchmarks" / "chance.py"))
chance_variance, chance_spread, simulate = (BENCHMARK[n] for n in ("chance_variance", "chance_spread", "simulate"))

PROTOCOLS = ("test_to_train", "leave_one_out", "released")
TEST, TRAIN = (7, 1, 12, 5, 3), (20, 3, 9, 0, 30)


def equally_likely(protocol, counts, train):
    """For each query in turn, (its scan, the number of correct patches that each of its rankings gives)."""
    labels = np.repeat(range(len(counts)), counts).tolist()
    for query, scan in enumerate(labels):
        others = labels[:query] + labels[query + 1 :]
        if protocol == "test_to_train":
            yield scan, [int(found == scan) for found in np.repeat(range(len(train)), train)]
        elif protocol == "leave_one_out":
            yield scan, [int(found == scan) for found in others]
        elif query == labels.index(scan):
            kept = sum(counts[: scan + 1])
            yield scan, [[scan, *ranking][:kept].count(scan) for ranking in permutations(others)]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("counts", "train"), [((2, 1, 3), (1, 4, 2)), ((1, 4, 2), (3, 0, 1)), ((1, 1), (1, 1)), ((5,), (3,))]
)
def test_moments_against_all_rankings(protocol, counts, train):
    mean, variance = np.zeros(len(counts)), np.zeros(len(counts))
    for scan, numbers in equally_likely(protocol, counts, train):
        mean[scan] += np.mean(numbers)
        variance[scan] += np.var(numbers)
    np.testing.assert_allclose(expected_correct(protocol, counts, train), mean, atol=1e-12)
    np.testing.assert_allclose(chance_variance(protocol, counts, train), variance, atol=1e-12)
    assert chance(protocol, counts, train) == pytest.approx(eta_scores(mean, counts), abs=1e-10)


@pytest.mark.parametrize(
    ("protocol", "counts"), [("test_to_train", (2, 3)), ("leave_one_out", (1, 3)), ("released", (1, 2, 1))]
)
def test_spread_against_all_combinations_of_rankings(protocol, counts):
    """η_p, η_w and η_tot of everything that independent queries can do together."""
    queries = list(equally_likely(protocol, counts, (3, 1)))
    scores = []
    for outcome in product(*(numbers for _, numbers in queries)):
        correct = np.zeros(len(counts))
        np.add.at(correct, [scan for scan, _ in queries], outcome)
        scores.append(eta_scores(correct, counts))
    expected, spread = chance(protocol, counts, (3, 1)), chance_spread(protocol, counts, (3, 1))
    means, deviations = np.mean(scores, axis=0), np.std(scores, axis=0)
    assert (expected.eta_p, expected.eta_w) == pytest.approx(tuple(means[:2]), abs=1e-10)
    assert (spread.eta_p, spread.eta_w) == pytest.approx(tuple(deviations[:2]), abs=1e-10)
    assert expected.eta_tot + spread.eta_tot == pytest.approx(means[2], abs=1e-10)
    assert spread.eta_tot > 0.1


def standard_errors(scores, expected):
    """Distance of the mean of (draws, 3) scores from the expected η_p and η_w, in standard errors."""
    errors = scores.std(axis=0, ddof=1) / np.sqrt(len(scores))
    return ((scores.mean(axis=0) - expected) / errors)[:2]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dimension", [2, 8])
def test_random_embeddings_agree_with_the_closed_form(protocol, dimension):
    scores = simulate(protocol, TEST, TRAIN, 1000, 1, dimension)
    assert scores.shape == (1000, 3)
    assert np.abs(standard_errors(scores, chance(protocol, TEST, TRAIN))).max() < 3


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_agreement_with_the_counts_of_kimia(protocol):
    train = 2 * np.array(KIMIA_TEST_COUNTS[::-1])
    scores = simulate(protocol, KIMIA_TEST_COUNTS, train, 40)
    assert np.abs(standard_errors(scores, chance(protocol, KIMIA_TEST_COUNTS, train))).max() < 3


def test_the_simulation_tells_near_misses_apart():
    """Itself counted as a candidate of its own, or not counted as kept: both are further off than 3 errors."""
    counts = np.array(TEST)
    with_self = eta_scores(counts**2 / counts.sum(), counts)
    assert np.abs(standard_errors(simulate("leave_one_out", TEST, None, 1000), with_self)).max() > 10
    without_self = eta_scores(counts * counts.cumsum() / counts.sum(), counts)
    assert np.abs(standard_errors(simulate("released", TEST, None, 1000), without_self)).max() > 10


def test_kimia_by_hand():
    """Σ n(n − 1) = 78,400 of 1325 · 1324 ordered pairs; one scan of 24; and 53 and 54 under `released`."""
    train = np.arange(1, 25)
    assert chance("leave_one_out", KIMIA_TEST_COUNTS).eta_p == pytest.approx(100 * 78400 / (1325 * 1324))
    assert chance("test_to_train", KIMIA_TEST_COUNTS, train).eta_w == pytest.approx(100 / 24)
    assert chance("released", KIMIA_TEST_COUNTS) == pytest.approx((53.1, 54.3, 28.8), abs=0.05)


def test_the_last_scan_of_released_does_not_vary():
    mean, variance = (f("released", KIMIA_TEST_COUNTS) for f in (expected_correct, chance_variance))
    assert mean[-1] == KIMIA_TEST_COUNTS[-1] and variance[-1] == 0 and (variance[:-1] > 0).all()


def test_simulations_are_a_function_of_their_seed():
    first = simulate("leave_one_out", TEST, None, 5, seed=3)
    np.random.seed(0)
    np.testing.assert_array_equal(first, simulate("leave_one_out", TEST, None, 5, seed=3))
    assert (first != simulate("leave_one_out", TEST, None, 5, seed=4)).any()


@pytest.mark.parametrize("function", [chance, chance_spread, simulate])
def test_errors(function):
    with pytest.raises(ValueError, match="unknown protocol"):
        function("recall", TEST)
    with pytest.raises(ValueError, match="each scan needs a test patch"):
        function("released", (3, 0, 2))
    with pytest.raises(ValueError, match="two test patches"):
        function("leave_one_out", (1,))
    for train in (None, (1, 2), (0, 0, 0, 0, 0)):
        with pytest.raises(ValueError, match="training patches of 5 scans"):
            function("test_to_train", TEST, train)
