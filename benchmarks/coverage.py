"""How often do the 95 % intervals hold the true rate?

    python benchmarks/coverage.py [--simulations 1000] [--resamples 2000]

Patches: N independent hits of one rate. Scans: the 24 scans of Kimia Path24C with their test counts, each
with a rate of its own from a beta distribution around the true one; ``correlation`` is that of two patches
of a scan, so that 0.1 at a rate of 0.9 is a deviation of 9.5 points from scan to scan.
"""

import argparse

import numpy as np

from lgffem_core.data.sets.facts import KIMIA_TEST_COUNTS
from lgffem_core.retrieval.statistics import LEVEL, TAILS, ends, generator, patch_interval, scan_interval

PATCHES = [(size, rate) for size in (175, 500, 1325) for rate in (0.5, 0.7, 0.9, 0.95)]
SCANS = [(rate, corr) for rate in (0.5, 0.7, 0.9, 0.95) for corr in (0.02, 0.1, 0.2)]


def draw_scans(rate: float, correlation: float, counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Correct patches of each scan (S,), beta-binomial."""
    strength = 1 / correlation - 1
    return rng.binomial(counts, rng.beta(rate * strength, (1 - rate) * strength, size=len(counts)))


def coverage(draw, interval, rate: float, simulations: int) -> tuple[float, float]:
    """(share of intervals that hold ``rate``, their mean width), both in percent."""
    pairs = np.array([interval(draw()) for _ in range(simulations)])
    held = (pairs[:, 0] <= 100 * rate + 1e-9) & (100 * rate - 1e-9 <= pairs[:, 1])
    return 100 * held.mean(), (pairs[:, 1] - pairs[:, 0]).mean()


def over_patches(hits: np.ndarray, resamples: int, method: str = "bca") -> tuple[float, float]:
    """``patch_interval``, or the percentiles of the same resampling of hits (N,) bool."""
    if method == "bca":
        return patch_interval(hits, resamples)
    return ends(np.percentile(generator().binomial(len(hits), np.mean(hits), resamples) / len(hits), LEVEL))


def over_scans(correct, counts, resamples: int = 2000, method: str = "studentised") -> tuple[float, float]:
    """``scan_interval``, or by "percentile", or "studentised" (bootstrap-t), of the same resampling.

    A studentised end is 0 or 100 where more than 2.5 % of the samples hold no scan that differs from the others.
    """
    if method == "bca":
        return scan_interval(correct, counts, resamples)
    correct, counts = np.asarray(correct, dtype=float), np.asarray(counts, dtype=float)
    scans, rate = len(correct), correct.sum() / counts.sum()
    drawn = generator().integers(scans, size=(resamples, scans))
    rates = correct[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    if method == "percentile":
        return ends(np.percentile(rates, LEVEL))
    errors = ratio_error(correct[drawn], counts[drawn])
    return ends(studentised(rates, errors, rate, ratio_error(correct, counts)))


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


def patch_coverage(size: int, rate: float, method: str, simulations: int, resamples: int) -> tuple[float, float]:
    rng = np.random.default_rng([size, round(1000 * rate)])
    draw, interval = lambda: rng.random(size) < rate, lambda hits: over_patches(hits, resamples, method)
    return coverage(draw, interval, rate, simulations)


def scan_coverage(rate: float, correlation: float, method: str, simulations: int, resamples: int):
    rng, counts = np.random.default_rng([round(1000 * rate), round(1000 * correlation)]), np.array(KIMIA_TEST_COUNTS)
    return coverage(
        lambda: draw_scans(rate, correlation, counts, rng),
        lambda correct: over_scans(correct, counts, resamples, method),
        rate,
        simulations,
    )


def text(found: tuple[float, float]) -> str:
    return f"{found[0]:.1f} ({found[1]:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=2000)
    options = parser.parse_args()
    settings = (options.simulations, options.resamples)
    print("patches: coverage % (width in points)")
    for size, rate in PATCHES:
        found = {m: text(patch_coverage(size, rate, m, *settings)) for m in ("percentile", "bca")}
        print(f"  N {size:4}  rate {rate:.2f} ", found, flush=True)
    print("scans: coverage % (width in points)")
    for rate, correlation in SCANS:
        methods = ("percentile", "bca", "studentised")
        found = {m: text(scan_coverage(rate, correlation, m, *settings)) for m in methods}
        print(f"  rate {rate:.2f}  correlation {correlation:.2f} ", found, flush=True)


if __name__ == "__main__":
    main()
