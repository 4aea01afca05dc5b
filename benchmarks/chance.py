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

import numpy as np

from lgffem_core.audit.chance import chance, chance_spread, simulate
from lgffem_core.data.sets.facts import KIMIA_TEST_COUNTS, KIMIA_TEST_TOTAL, KIMIA_TRAIN_TOTAL

PROTOCOLS = ("test_to_train", "leave_one_out", "released")


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
