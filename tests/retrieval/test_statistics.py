"""Intervals: around the rate, as wide as theory and SciPy say, and the same each time."""

import runpy

import numpy as np
import pytest
from scipy.stats import bootstrap

from lgffem_core.base.project import PROJECT
from lgffem_core.data.sets.facts import KIMIA_TEST_COUNTS
from lgffem_core.retrieval.protocols import Outcome, from_hits
from lgffem_core.retrieval.statistics import (
    chance_reach,
    eta_p_interval,
    patch_interval,
    scan_interval,
    seed_half_width,
)
from lgffem_core.systems.lgffem.ledger import paired_difference

BENCHMARK = runpy.run_path(str(PROJECT / "benchmarks" / "coverage.py"))
over_patches, over_scans = BENCHMARK["over_patches"], BENCHMARK["over_scans"]  # by other methods too


def patches(right, total, seed=0):
    """An outcome of ``total`` queries over four scans, ``right`` of them right."""
    hits = np.random.default_rng(seed).permutation(np.arange(total) < right)
    return from_hits(hits, np.sort(np.arange(total) % 4))


@pytest.mark.parametrize(("right", "total"), [(90, 100), (500, 1000), (970, 1000), (1, 40)])
def test_the_interval_holds_the_rate(right, total):
    low, high = eta_p_interval([patches(right, total)], 1000)
    assert 0 <= low < 100 * right / total < high <= 100


@pytest.mark.parametrize(("right", "total"), [(500, 1000), (900, 1000), (300, 400)])
def test_its_width_is_that_of_the_binomial(right, total):
    rate = right / total
    low, high = eta_p_interval([patches(right, total)], 4000)
    expected = 100 * 1.96 * np.sqrt(rate * (1 - rate) / total)
    assert high - 100 * rate == pytest.approx(expected, rel=0.12)
    assert 100 * rate - low == pytest.approx(expected, rel=0.12)


def test_all_right_and_all_wrong_have_no_width():
    assert eta_p_interval([patches(50, 50)], 100) == (100, 100)
    assert eta_p_interval([patches(0, 50)], 100) == (0, 0)


def test_it_is_the_same_each_time():
    np.random.seed(1)
    first = eta_p_interval([patches(70, 100)], 500)
    np.random.seed(2)
    assert eta_p_interval([patches(70, 100)], 500) == first


def test_seeds_are_averaged_first():
    """Two trainings that err on different patches: the mean of a patch varies less than one training's hit."""
    one = patches(50, 100, seed=1)
    other = from_hits(~one.hits, np.sort(np.arange(100) % 4))
    assert eta_p_interval([one, other], 500) == (50, 50)
    assert eta_p_interval([one, one], 500) == eta_p_interval([one], 500)


def test_under_released_the_scans_are_resampled():
    """Of 27 draws of three scans, one has only the scan at 50 % (3.7 %, more than 2.5 %), eight only the perfect
    ones. Single patches would give about 78 … 92."""
    outcome = Outcome(np.array([10, 15, 60]), np.array([10, 30, 60]), None)
    assert eta_p_interval([outcome], 4000) == (50, 100)


def test_perfect_scans_have_no_width_either():
    assert eta_p_interval([Outcome(np.array([3, 4]), np.array([3, 4]), None)], 100) == (100, 100)


@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize(("right", "total"), [(90, 100), (164, 175), (700, 1325)])
def test_patch_intervals_are_scipys(method, right, total):
    """Over single patches drawn one by one; an end may lie half a patch off, since rates are whole patches."""
    hits = patches(right, total).hits.astype(float)
    theirs = bootstrap((hits,), np.mean, method=method, n_resamples=9999, rng=0).confidence_interval
    ours = over_patches(hits, 9999, method)
    np.testing.assert_allclose(ours, [100 * theirs.low, 100 * theirs.high], atol=100 / total + 0.2)


def test_patch_intervals_of_several_seeds_are_scipys_of_their_means():
    hits = np.random.default_rng(3).random((3, 400)) < 0.8
    theirs = bootstrap((hits.mean(axis=0),), np.mean, method="bca", n_resamples=9999, rng=0).confidence_interval
    np.testing.assert_allclose(patch_interval(hits, 9999), 100 * np.array(theirs), atol=0.35)


def scans(seed, mean=0.85, number=24):
    """(correct, counts) of scans that differ in their rates and sizes."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(15, 76, size=number)
    return rng.binomial(counts, rng.beta(8 * mean, 8 * (1 - mean), size=number)), counts


@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize("seed", range(3))
def test_scan_intervals_are_scipys(method, seed):
    correct, counts = scans(seed)

    def ratio(rows):
        return correct[rows].sum(axis=-1) / counts[rows].sum(axis=-1)

    theirs = bootstrap((np.arange(24),), ratio, method=method, n_resamples=9999, rng=0).confidence_interval
    np.testing.assert_allclose(over_scans(correct, counts, 9999, method), 100 * np.array(theirs), atol=0.4)


@pytest.mark.parametrize("seed", range(3))
def test_studentised_scans_against_a_loop(seed):
    """Written from the textbook: pivots with an error of their own, their quantiles turned round."""
    correct, counts = (values.tolist() for values in scans(seed))

    def estimate(rows):
        total = sum(counts[i] for i in rows)
        rate = sum(correct[i] for i in rows) / total
        squares = sum((correct[i] - rate * counts[i]) ** 2 for i in rows)
        return rate, (24 / 23 * squares) ** 0.5 / total

    rng, pivots, (rate, error) = np.random.default_rng(seed), [], estimate(range(24))
    for _ in range(4000):
        resampled, its_error = estimate(rng.integers(24, size=24).tolist())
        pivots.append((resampled - rate) / its_error)
    pivots.sort()
    expected = 100 * (rate - pivots[3899] * error), 100 * (rate - pivots[99] * error)
    np.testing.assert_allclose(over_scans(correct, counts, 9999), expected, atol=0.8)


def test_scans_that_vary_have_a_wider_interval_over_scans_than_over_patches():
    counts = np.full(24, 50)
    correct = np.where(np.arange(24) % 2 == 0, 50, 30)
    hits = np.concatenate([np.arange(50) < c for c in correct])
    scanwise, patchwise = scan_interval(correct, counts), patch_interval(hits, 2000)
    assert scanwise[1] - scanwise[0] > 2 * (patchwise[1] - patchwise[0])


def test_eta_w_is_the_interval_of_the_scans_rates():
    correct, counts = scans(5)
    low, high = scan_interval(correct / counts, np.ones(24), 9999)
    theirs = bootstrap((correct / counts,), np.mean, method="bca", n_resamples=9999, rng=0).confidence_interval
    np.testing.assert_allclose((low, high), 100 * np.array(theirs), atol=0.4)


def test_seeds_of_scans_are_averaged():
    correct, counts = scans(1)
    shifted = np.stack([correct - 1, correct, correct + 1])
    assert scan_interval(shifted, counts) == pytest.approx(scan_interval(correct, counts))


@pytest.mark.parametrize("method", ["percentile", "bca", "studentised"])
def test_equally_good_scans_have_no_width(method):
    assert over_scans([5, 10], [10, 20], method=method) == (50, 50)
    assert over_scans([10, 20], [10, 20], method=method) == (100, 100)


def test_a_single_bad_scan_leaves_the_lower_end_open():
    """A third of the samples miss it and have no spread: nothing bounds the rate from below."""
    low, high = over_scans([50] * 23 + [20], [50] * 24)
    assert low == 0 and high == pytest.approx(100, abs=1)


def test_all_right_and_all_wrong_patches_have_no_width():
    for method in ("percentile", "bca"):
        assert over_patches(np.ones(50, bool), 100, method) == (100, 100)
        assert over_patches(np.zeros(50, bool), 100, method) == (0, 0)


@pytest.mark.parametrize("resamples", [1, 2, 5])
@pytest.mark.parametrize("right", [1, 25, 49])
def test_bca_ends_lie_among_the_resampled_rates_however_few(resamples, right):
    """Of so few, none may lie below the rate, or none above it."""
    hits = np.arange(50) < right
    for low, high in (
        patch_interval(hits, resamples),
        scan_interval(np.add.reduceat(hits, [0, 20, 30, 40]), [20, 10, 10, 10], resamples),
        paired_difference(from_hits(hits, np.zeros(50, int)), from_hits(hits[::-1], np.zeros(50, int)), resamples)[1:3],
    ):
        assert -100 <= low <= high <= 100


@pytest.mark.parametrize("rate", [0.7, 0.95])
def test_coverage_over_patches(rate):
    """The short form of benchmarks/coverage.py: 400 simulations have a standard error of 1.1 points."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        low, high = patch_interval(rng.random(175) < rate, 1000)
        held += low - 1e-9 <= 100 * rate <= high + 1e-9
    assert 0.92 <= held / 400 <= 0.98


@pytest.mark.parametrize("rate", [0.7, 0.95])
def test_coverage_over_scans(rate):
    rng, counts, held = np.random.default_rng(0), np.array(KIMIA_TEST_COUNTS), 0
    for _ in range(400):
        rates = rng.beta(9 * rate, 9 * (1 - rate), size=24)
        low, high = over_scans(rng.binomial(counts, rates), counts, 1000)
        held += low <= 100 * rate <= high
    assert 0.92 <= held / 400 <= 0.98


def test_seed_half_width_by_hand():
    """Values 90, 92, 94: deviation 2, error 2/√3, and t(0.975; 2) = 4.3027 from the printed table."""
    assert seed_half_width([90, 92, 94]) == pytest.approx(4.3027 * 2 / 3**0.5, rel=1e-4)


def test_one_seed_has_no_interval():
    assert np.isnan(seed_half_width([93.7]))


def test_the_reach_of_chance_is_no_smaller_than_what_a_pair_resolves():
    reach = chance_reach(np.array([0.0, -6.0, 2.0]), np.array([-6.95, -13.0, 1.5]), np.array([6.95, 1.0, 2.5]))
    assert reach.tolist() == [6.95, 7, 2]
