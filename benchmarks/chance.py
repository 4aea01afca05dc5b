"""Does the closed form of chance hold for random embeddings with the counts of Kimia Path24C?

    python benchmarks/chance.py [--draws 2000] [--dimension 8] [--seed 0] [--protocols released ...]

For each protocol: the closed form, the mean of the simulated scores, their distance in standard errors of that
mean (3 is the limit for η_p and η_w), and the simulated standard deviation beside that of independent rankings.
For η_tot the closed form is given with and without the covariance of η_p and η_w.

The number of training patches of each scan is not published, only their sum. They are taken in proportion to
the test patches; η_w at chance does not depend on them, and η_p only little.
"""

import argparse
import time
from typing import NamedTuple

import numpy as np

from lgffem_core.audit.chance import chance, expected_correct
from lgffem_core.base.seeds import derive_seed
from lgffem_core.config.params import PROTOCOLS
from lgffem_core.data.sets.facts import KIMIA_TEST_COUNTS, KIMIA_TEST_TOTAL, KIMIA_TRAIN_TOTAL
from lgffem_core.retrieval.protocols import evaluate


class Spread(NamedTuple):
    """In percentage points, for queries whose rankings are independent of one another."""

    eta_p: float  # standard deviation of η_p
    eta_w: float  # standard deviation of η_w
    eta_tot: float  # covariance of η_p and η_w: how much the mean of η_tot exceeds the product of their means


def chance_variance(protocol: str, test_counts, train_counts=None) -> np.ndarray:
    """Variance of each scan's number of correct patches (S,); arguments and errors as ``chance``.

    It is exact under ``released``, one query a scan; the binomial ones take the queries of a scan as independent.
    """
    mean, counts = expected_correct(protocol, test_counts, train_counts), np.asarray(test_counts, dtype=np.float64)
    if protocol != "released":
        return mean * (1 - mean / counts)
    total, kept = counts.sum(), counts.cumsum() - 1
    rate = (counts - 1) / (total - 1)
    left = (total - 1 - kept) / max(total - 2, 1)  # the correction for a finite population
    return kept * rate * (1 - rate) * left


def chance_spread(protocol: str, test_counts, train_counts=None) -> Spread:
    """How far the scores of one random draw lie from ``chance``; arguments and errors as there.

    Approximate: under ``leave_one_out``, two patches that are each other's nearest are both right or both wrong.
    At Kimia's counts η_p and η_w scatter 28, 20 and 9 % more there in 2, 8 and 64 dimensions, 8 % less under
    ``released``, and the same under ``test_to_train`` within 2 %.
    """
    counts = np.asarray(test_counts, dtype=np.float64)
    variance = chance_variance(protocol, test_counts, train_counts)
    total, scans = counts.sum(), len(counts)
    eta_p, eta_w = np.sqrt(variance.sum()) / total, np.sqrt((variance / counts**2).sum()) / scans
    return Spread(100 * eta_p, 100 * eta_w, 100 * (variance / counts).sum() / (total * scans))


def simulate(protocol: str, test_counts, train_counts=None, draws=2000, seed=0, dimension=8) -> np.ndarray:
    """Scores of the protocol itself on normally distributed embeddings: (draws, 3), columns as in ``Scores``.

    Each draw is new for test and training patches alike, so that rows are independent of one another.
    ``dimension`` changes how far they scatter, not their mean. Other arguments and errors as ``chance``.
    """
    expected_correct(protocol, test_counts, train_counts)  # for its errors
    groups = [test_counts] if train_counts is None else [test_counts, train_counts]
    labels = np.concatenate([np.repeat(np.arange(len(counts)), counts) for counts in groups])
    test = np.arange(len(labels)) < np.sum(test_counts)
    rng = np.random.default_rng(derive_seed("chance", protocol, seed))
    return np.array(
        [
            evaluate(protocol, rng.standard_normal((len(labels), dimension), dtype=np.float32), labels, test).scores
            for _ in range(draws)
        ]
    )


def train_counts() -> np.ndarray:
    """KIMIA_TRAIN_TOTAL patches over the scans, in proportion to their test patches: (24,)."""
    ends = np.round(np.cumsum(KIMIA_TEST_COUNTS) * KIMIA_TRAIN_TOTAL / KIMIA_TEST_TOTAL).astype(int)
    return np.diff(ends, prepend=0)


def compare(protocol: str, draws: int, seed: int, dimension: int) -> None:
    """Simulate one protocol and print what was found."""
    counts = (KIMIA_TEST_COUNTS, train_counts() if protocol == "test_to_train" else None)
    start = time.perf_counter()
    scores = simulate(protocol, *counts, draws, seed, dimension)
    seconds = time.perf_counter() - start
    expected, spread = chance(protocol, *counts), chance_spread(protocol, *counts)
    means, deviations = scores.mean(axis=0), scores.std(axis=0, ddof=1)
    errors = deviations / np.sqrt(draws)
    print(f"{protocol}: {draws} draws of dimension {dimension} in {seconds:.0f} s", flush=True)
    for column, name in enumerate(("eta_p", "eta_w")):
        print(
            f"  {name}    closed form {expected[column]:8.4f}  simulated {means[column]:8.4f}"
            f"  {(means[column] - expected[column]) / errors[column]:+.2f} standard errors"
            f"  deviation {deviations[column]:.3f} (independent rankings {spread[column]:.3f})"
        )
    print(
        f"  eta_tot  product {expected.eta_tot:.4f}, with covariance {expected.eta_tot + spread.eta_tot:.4f}"
        f"  simulated {means[2]:.4f} ± {errors[2]:.4f}  deviation {deviations[2]:.3f}",
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--dimension", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--protocols", nargs="+", choices=PROTOCOLS, default=PROTOCOLS)
    options = parser.parse_args()
    for protocol in options.protocols:
        compare(protocol, options.draws, options.seed, options.dimension)
