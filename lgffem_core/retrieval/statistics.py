"""How far a measured rate can be trusted: 95 % intervals over patches, over scans and over seeds.

The material is resampled with replacement and the rate computed again (Efron & Tibshirani 1993, chapters 12
to 14). Patches of one scan resemble one another, so an interval over scans is the wider and the more honest
one: it says what other slides would give; one over patches says what other patches of these slides would.
Seeds are averaged first: ``seed_interval`` is the only one that is over trainings.

Defaults are what ``benchmarks/coverage.py`` found to hold the true rate 93 to 97 times in 100: BCa over
patches (percentile: 92.5 at 175 patches and a rate of 95 %), studentised over 24 scans (percentile: 85 to 94,
BCa: 89 to 95). Of 175 patches fewer than two or three errors are too few for any bootstrap.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import norm, t

from lgffem_core.base.seeds import derive_seed
from lgffem_core.retrieval.protocols import Outcome

LEVEL = (2.5, 97.5)  # percentiles
TAILS = np.array(LEVEL) / 100
WIDTHLESS = "Two equal ends are no certainty: what was resampled is all alike there, which gives no interval."


class SeedInterval(NamedTuple):
    """Mean over seeds, and half the width of its 95 % interval: NaN for a single seed."""

    mean: float
    half_width: float


def eta_p_interval(outcomes: list[Outcome], resamples: int) -> tuple[float, float]:
    """The percentile interval that Table 1 prints: lower and upper end, in percent, over one outcome a seed.

    Under the two top-1 protocols the patches are resampled; under ``released``, which asks one question a
    scan, the scans are.
    """
    rng = np.random.default_rng(derive_seed("bootstrap"))
    if outcomes[0].hits is not None:
        correct = np.mean([outcome.hits for outcome in outcomes], axis=0)
        counts = np.ones_like(correct)
    else:
        correct = np.mean([outcome.correct for outcome in outcomes], axis=0)
        counts = outcomes[0].counts
    drawn = rng.integers(len(correct), size=(resamples, len(correct)))
    rates = 100 * correct[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(rates, LEVEL)
    return float(low), float(high)


def patch_interval(hits: np.ndarray, resamples: int, method: str = "bca") -> tuple[float, float]:
    """95 % interval of η_p over patches, in percent.

    Args:
        hits: (N,) bool, or (seeds, N), which are averaged patch by patch.
        resamples: bootstrap samples, 1000 or more.
        method: "percentile" or "bca" (bias-corrected and accelerated).

    Hits that are all right or all wrong give no width: a bootstrap knows no error that it has not met. (At
    most 3/N of the patches are then wrong, at 95 %.)
    """
    values, frequencies = np.unique(np.atleast_2d(hits).mean(axis=0), return_counts=True)
    size = frequencies.sum()
    # How often each value is drawn is all that a rate depends on, and much quicker than drawing patches.
    drawn = generator().multinomial(size, frequencies / size, size=resamples)
    rates, rate = np.round(drawn @ values / size, 12), np.round(frequencies @ values / size, 12)
    if method == "percentile":
        return ends(np.percentile(rates, LEVEL))
    if method == "bca":
        return ends(bca(rates, rate, np.repeat(values - rate, frequencies)))
    raise ValueError(f"unknown method {method!r}; over patches there are 'percentile' and 'bca'")


def scan_interval(
    correct: np.ndarray, counts: np.ndarray, resamples: int = 2000, method: str = "studentised"
) -> tuple[float, float]:
    """95 % interval of η_p = Σ correct / Σ counts, in percent, with scans as the unit that is resampled.

    Args:
        correct: (S,) correct patches of each scan, or (seeds, S), which are averaged.
        counts: (S,) patches of each scan. ``scan_interval(correct / counts, np.ones(S))`` is that of η_w.
        resamples: bootstrap samples, 1000 or more.
        method: "percentile", "bca" or "studentised" (bootstrap-t). A studentised end is 0 or 100 where more
            than 2.5 % of the bootstrap samples hold no scan that differs from the others.

    Scans that are all equally good give no width.
    """
    correct, counts = np.atleast_2d(correct).mean(axis=0), np.asarray(counts, dtype=np.float64)
    scans, rate = len(correct), correct.sum() / counts.sum()
    drawn = generator().integers(scans, size=(resamples, scans))
    rates = correct[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    if method == "percentile":
        return ends(np.percentile(rates, LEVEL))
    if method == "bca":
        without = (correct.sum() - correct) / (counts.sum() - counts)
        return ends(bca(rates, rate, without.mean() - without))
    if method == "studentised":
        errors = ratio_error(correct[drawn], counts[drawn])
        return ends(studentised(rates, errors, rate, ratio_error(correct, counts)))
    raise ValueError(f"unknown method {method!r}; over scans there are 'percentile', 'bca' and 'studentised'")


def seed_interval(values: np.ndarray) -> SeedInterval:
    """Mean of one value a seed (R,) and its 95 % half-width by Student's t with R − 1 degrees of freedom.

    One seed says nothing about the spread: its half-width is NaN.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        return SeedInterval(float(values.mean()), float("nan"))
    error = values.std(ddof=1) / np.sqrt(len(values))
    return SeedInterval(float(values.mean()), float(t.ppf(TAILS[1], len(values) - 1) * error))


def bca(rates: np.ndarray, rate: float, influence: np.ndarray) -> np.ndarray:
    """Efron's bias-corrected and accelerated ends from resampled ``rates`` (B,).

    ``influence`` (N,) says how far each unit moves the rate, up to a factor; its skewness is the acceleration.
    Where no resampled rate lies below ``rate``, or none above it, half of one is taken to.
    """
    spread = (influence**2).sum()
    if spread == 0:
        return np.array([rate, rate])
    acceleration = (influence**3).sum() / (6 * spread**1.5)
    below, least = ((rates < rate).mean() + (rates <= rate).mean()) / 2, 0.5 / len(rates)
    bias = norm.ppf(np.clip(below, least, 1 - least))
    shifted = bias + norm.ppf(TAILS)
    return np.quantile(rates, norm.cdf(bias + shifted / (1 - acceleration * shifted)))


def studentised(rates: np.ndarray, errors: np.ndarray, rate: float, error: float) -> np.ndarray:
    """Bootstrap-t ends: quantiles of (rates − rate)/errors, in units of the standard error of ``rate``."""
    if error == 0:
        return np.array([rate, rate])
    with np.errstate(divide="ignore", invalid="ignore"):
        pivots = np.where(rates == rate, 0, (rates - rate) / errors)  # ±inf where a sample has no spread
    low, high = np.quantile(pivots, TAILS, method="inverted_cdf")
    return np.array([rate - high * error, rate - low * error])  # the high pivot gives the lower end


def ratio_error(correct: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Standard error of Σ correct / Σ counts over the last axis (…, S), by linearisation (Cochran 1977, 6.4)."""
    scans, total = correct.shape[-1], counts.sum(axis=-1)
    residual = correct - (correct.sum(axis=-1) / total)[..., None] * counts
    return np.sqrt(scans / (scans - 1) * (residual**2).sum(axis=-1)) / total


def generator() -> np.random.Generator:
    """The same draws at each call, so that an interval is a function of its data."""
    return np.random.default_rng(derive_seed("bootstrap"))


def ends(rates: np.ndarray) -> tuple[float, float]:
    """A pair of rates as percentages within 0 … 100."""
    low, high = np.clip(100 * np.asarray(rates), 0, 100)
    return float(low), float(high)
