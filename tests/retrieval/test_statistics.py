"""The interval of η_p: around the rate, as wide as theory says, and the same each time."""

import numpy as np
import pytest

from lgffem_core.retrieval.protocols import Outcome, from_hits
from lgffem_core.retrieval.statistics import eta_p_interval


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
