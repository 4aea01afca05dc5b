"""How far a measured rate can be trusted: 95 % intervals over patches, over scans and over seeds.

The material is resampled with replacement and the rate computed again (Efron & Tibshirani 1993, chapters 12
to 14). Patches of one scan resemble one another, so an interval over scans is the more honest one: it says
what other slides would give; one over patches says what other patches of these slides would.
Seeds are averaged first: ``seed_half_width`` is the only one that is over trainings.

The intervals are BCa. ``benchmarks/coverage.py`` finds that over patches they hold the true rate 93 to 97 times in 100
(percentile: 92.5 at 175 patches and a rate of 95 %), over 24 scans 89 to 95 times (percentile: 85 to 94; studentised:
93 to 97, but an end is 0 or 100 where few scans have an error). Of 175 patches fewer than two or three errors are too
few for any bootstrap.
"""

import numpy as np
from scipy.stats import norm, t

from lgffem_core.base.seeds import derive_seed
from lgffem_core.retrieval.protocols import Outcome

LEVEL = (2.5, 97.5)  # percentiles
TAILS = np.array(LEVEL) / 100
BCA = "BCa, bias-corrected and accelerated bootstrap"  # as a note spells it out
WIDTHLESS = "Two equal ends are no certainty: what was resampled is all alike there, which gives no interval."


def eta_p_interval(outcomes: list[Outcome], resamples: int) -> tuple[float, float]:
    """The percentile interval that Table 1 prints: lower and upper end, in percent, over one outcome a seed.

    Under the two top-1 protocols the patches are resampled; under ``released``, which asks one question a
    scan, the scans are.
    """
    if outcomes[0].hits is not None:
        correct = np.mean([outcome.hits for outcome in outcomes], axis=0)
        counts = np.ones_like(correct)
    else:
        correct = np.mean([outcome.correct for outcome in outcomes], axis=0)
        counts = outcomes[0].counts
    drawn = generator().integers(len(correct), size=(resamples, len(correct)))
    rates = 100 * correct[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(rates, LEVEL)
    return float(low), float(high)


def chance_reach(change: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """How far a change that means nothing, such as another seed's, shows that a score moves by chance, in its unit.

    ``low`` and ``high`` are the ends of the interval of ``change``. One pair of trainings may happen to score alike, so
    that half of the width of the interval counts where it is more than the change itself.
    """
    return np.maximum(np.abs(change), (high - low) / 2)


def patch_interval(hits: np.ndarray, resamples: int) -> tuple[float, float]:
    """95 % interval of η_p over patches (BCa), in percent.

    Args:
        hits: (N,) bool, or (seeds, N), which are averaged patch by patch.
        resamples: bootstrap samples, 1000 or more.

    Hits that are all right or all wrong give no width: a bootstrap knows no error that it has not met. (At
    most 3/N of the patches are then wrong, at 95 %.)
    """
    values, frequencies = np.unique(np.atleast_2d(hits).mean(axis=0), return_counts=True)
    size = frequencies.sum()
    # How often each value is drawn is all that a rate depends on, and much quicker than drawing patches.
    drawn = generator().multinomial(size, frequencies / size, size=resamples)
    rates, rate = np.round(drawn @ values / size, 12), np.round(frequencies @ values / size, 12)
    return ends(bca(rates, rate, np.repeat(values - rate, frequencies)))


def scan_interval(correct: np.ndarray, counts: np.ndarray, resamples: int = 2000) -> tuple[float, float]:
    """95 % interval (BCa) of η_p = Σ correct / Σ counts, in percent, with scans as the unit that is resampled.

    Args:
        correct: (S,) correct patches of each scan, or (seeds, S), which are averaged.
        counts: (S,) patches of each scan. ``scan_interval(correct / counts, np.ones(S))`` is that of η_w.
        resamples: bootstrap samples, 1000 or more.

    Scans that are all equally good give no width.
    """
    return ends(ratio_ends(np.atleast_2d(correct).mean(axis=0), np.asarray(counts, dtype=np.float64), resamples))


def seed_half_width(values: np.ndarray) -> float:
    """Half the width of the 95 % interval of the mean of one value a seed (R,), by Student's t with R − 1 degrees.

    One seed says nothing about the spread: NaN.
    """
    if len(values) < 2:
        return float("nan")
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return float(t.ppf(TAILS[1], len(values) - 1) * error)


def ratio_ends(parts: np.ndarray, wholes: np.ndarray, resamples: int) -> np.ndarray:
    """95 % interval (BCa) of Σ parts / Σ wholes, (N,) float64 each, with their pairs as the unit that is resampled."""
    drawn = generator().integers(len(parts), size=(resamples, len(parts)))
    rates = parts[drawn].sum(axis=1) / wholes[drawn].sum(axis=1)
    without = (parts.sum() - parts) / (wholes.sum() - wholes)
    return bca(rates, parts.sum() / wholes.sum(), without.mean() - without)


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


def generator() -> np.random.Generator:
    """The same draws at each call, so that an interval is a function of its data."""
    return np.random.default_rng(derive_seed("bootstrap"))


def ends(rates: np.ndarray) -> tuple[float, float]:
    """A pair of rates as percentages within 0 … 100."""
    low, high = np.clip(100 * np.asarray(rates), 0, 100)
    return float(low), float(high)
