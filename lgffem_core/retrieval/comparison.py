"""Is one method better than another? Paired tests on the same queries, and Holm's correction for several.

``mcnemar_exact`` and ``paired_permutation`` on patches treat patches as independent. Patches of a scan are
not; ``paired_permutation`` on the scans' numbers of right patches is the cautious test of η_p. (On the scans'
rates it would be one of η_w.)
"""

import numpy as np
from scipy.stats import binom

from lgffem_core.base.seeds import derive_seed


def mcnemar_exact(hits_a: np.ndarray, hits_b: np.ndarray) -> float:
    """Two-sided exact p-value of McNemar's test: both methods are right equally often.

    Args:
        hits_a, hits_b: (N,) bool of the same queries in the same order.

    Of the queries that exactly one method gets right, each does with probability 1/2. Without any, p = 1.
    """
    hits_a, hits_b = np.asarray(hits_a, dtype=bool), np.asarray(hits_b, dtype=bool)
    only_a, only_b = int((hits_a & ~hits_b).sum()), int((hits_b & ~hits_a).sum())
    return float(min(1.0, 2 * binom.cdf(min(only_a, only_b), only_a + only_b, 0.5)))


def paired_permutation(values_a: np.ndarray, values_b: np.ndarray, draws: int = 9999, seed: int = 0) -> float:
    """Two-sided p-value of equal sums, by flipping the signs of the paired differences at random.

    Args:
        values_a, values_b: (N,) hits of the same queries, or right patches of the same scans; (seeds, N) are averaged.
        draws: random sign patterns. The observed one counts as another (Phipson & Smyth 2010), so that p is
            at least 1 / (draws + 1).
        seed: of the draws.
    """
    difference = np.atleast_2d(values_a).mean(axis=0, dtype=float) - np.atleast_2d(values_b).mean(axis=0, dtype=float)
    sizes, counts = np.unique(np.round(np.abs(difference), 12), return_counts=True)
    rng = np.random.default_rng(derive_seed("permutation", seed))
    # Among equal differences only the number of kept signs matters, and that is binomial.
    flipped = (2 * rng.binomial(counts, 0.5, size=(draws, len(counts))) - counts) @ sizes
    as_extreme = np.abs(flipped) >= abs(difference.sum()) - 1e-9
    return float((1 + as_extreme.sum()) / (1 + draws))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's (1979) adjusted p-values (K,), in the order given: compare them with 0.05 as they are.

    The smallest is multiplied by K, the next by K − 1, …; none is smaller than one that comes before it.
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    return np.minimum(adjusted, 1)
