"""The paired tests against SciPy, explicit sums and the enumeration of every sign pattern."""

from fractions import Fraction
from itertools import product
from math import comb

import numpy as np
import pytest
from scipy.stats import binomtest

from lgffem_core.retrieval.comparison import holm, mcnemar_exact, paired_permutation


def hits_with(only_a, only_b, both=20, neither=5, seed=0):
    """Two methods' hits with given numbers of discordant queries, in a random order."""
    a = np.repeat([True, False, True, False], [only_a, only_b, both, neither])
    b = np.repeat([False, True, True, False], [only_a, only_b, both, neither])
    order = np.random.default_rng(seed).permutation(len(a))
    return a[order], b[order]


PAIRS = [(0, 1), (3, 3), (1, 9), (12, 4), (30, 55), (0, 20), (7, 6)]


@pytest.mark.parametrize(("only_a", "only_b"), PAIRS)
def test_mcnemar_is_the_binomial_test(only_a, only_b):
    p = mcnemar_exact(*hits_with(only_a, only_b))
    assert p == pytest.approx(binomtest(only_a, only_a + only_b).pvalue, rel=1e-10)
    discordant = only_a + only_b
    tail = sum(Fraction(comb(discordant, i), 2**discordant) for i in range(min(only_a, only_b) + 1))
    assert p == pytest.approx(float(min(1, 2 * tail)), rel=1e-10)


def test_mcnemar_is_symmetric_and_one_without_discordant_queries():
    a, b = hits_with(2, 11)
    assert mcnemar_exact(a, b) == mcnemar_exact(b, a) < 0.05
    assert mcnemar_exact(a, a) == 1


def enumerated(difference):
    """p over all sign patterns of the differences that are not zero."""
    nonzero = [d for d in difference if d]
    observed = abs(sum(nonzero))
    sums = [
        abs(sum(s * d for s, d in zip(signs, nonzero, strict=True))) for signs in product((1, -1), repeat=len(nonzero))
    ]
    return sum(s >= observed - 1e-9 for s in sums) / len(sums)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 1), (3, 3), (1, 9), (2, 10), (0, 6), (7, 5)])
def test_permutation_is_the_enumeration(only_a, only_b):
    a, b = hits_with(only_a, only_b)
    expected = enumerated((a.astype(int) - b.astype(int)).tolist())
    assert paired_permutation(a, b, 40_000) == pytest.approx(expected, abs=0.012)


@pytest.mark.parametrize("seed", range(4))
def test_permutation_of_scan_rates_is_the_enumeration(seed):
    """Differences of many sizes, two of them equal, as rates of scans are."""
    rng = np.random.default_rng(seed)
    a = rng.random(10)
    b = a - np.round(rng.normal(0.05, 0.1, size=10), 2)
    assert paired_permutation(a, b, 40_000) == pytest.approx(enumerated(np.round(a - b, 12).tolist()), abs=0.012)


def test_the_observed_pattern_counts_so_that_p_is_never_zero():
    assert paired_permutation(*hits_with(0, 200), draws=999) == 1 / 1000
    a, _ = hits_with(3, 3)
    assert paired_permutation(a, a, draws=99) == 1


def test_permutation_averages_seeds_and_depends_on_its_seed_alone():
    a, b = hits_with(4, 9)
    first = paired_permutation(a, b, seed=1)
    np.random.seed(0)
    assert paired_permutation(a, b, seed=1) == first != paired_permutation(a, b, seed=2)
    assert paired_permutation(np.stack([a, a]), np.stack([b, b]), seed=1) == first


def test_under_the_null_p_is_small_as_often_as_it_says():
    rng, small = np.random.default_rng(0), 0
    for _ in range(500):
        a, b = rng.random((2, 200)) < 0.8
        small += paired_permutation(a, b, draws=499) <= 0.05
    assert 0.015 <= small / 500 <= 0.075  # at most 0.05, less what whole queries cost; three standard errors


def test_permutation_and_mcnemar_agree_on_hits():
    a, b = hits_with(10, 24)
    assert paired_permutation(a, b, 40_000) == pytest.approx(mcnemar_exact(a, b), abs=0.005)


@pytest.mark.parametrize("test", [mcnemar_exact, paired_permutation])
def test_other_queries_are_refused(test):
    with pytest.raises(ValueError, match="shapes"):
        test(np.ones(5, bool), np.ones(6, bool))


def loop_holm(p_values):
    """Holm's step-down by its definition: the largest of (K − j) · p over all that are no larger."""
    ordered = sorted(p_values)
    steps = [min(1, (len(p_values) - j) * p) for j, p in enumerate(ordered)]
    return [max(steps[: ordered.index(p) + 1 + (ordered.count(p) - 1)]) for p in p_values]


@pytest.mark.parametrize("seed", range(5))
def test_holm_against_its_definition(seed):
    p_values = np.random.default_rng(seed).random(7) ** 3
    np.testing.assert_allclose(holm(p_values), loop_holm(p_values.tolist()))


def test_holm_by_hand():
    """0.01·4, 0.02·3, 0.03·2 (not below its predecessor), 0.04·1 (neither); order is kept."""
    np.testing.assert_allclose(holm([0.03, 0.01, 0.04, 0.02]), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.5, 0.9]), [1, 1])
    np.testing.assert_allclose(holm([0.02, 0.02]), [0.04, 0.04])
    np.testing.assert_allclose(holm([0.03]), [0.03])
