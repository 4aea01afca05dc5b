"""What each protocol scores for random embeddings: in closed form from the scan counts, and by simulation.

Where embeddings are independent of the scans, every order of the candidates behind a query is equally likely.
The expected number of correct patches of a scan follows from that alone, whatever the distribution of the
embeddings and their dimension. How far scores scatter does depend on both, because queries share their
gallery: ``chance_spread`` says what it would be if each query had a ranking of its own.

n_s: test patches of scan s; N: their sum; C_s = n_0 + … + n_s; M_s and M: the same of the training patches.
"""

from typing import NamedTuple

import numpy as np

from lgffem_core.base.seeds import derive_seed
from lgffem_core.retrieval.metrics import Scores, eta_scores
from lgffem_core.retrieval.protocols import evaluate


class Spread(NamedTuple):
    """In percentage points, for queries whose rankings are independent of one another."""

    eta_p: float  # standard deviation of η_p
    eta_w: float  # standard deviation of η_w
    eta_tot: float  # covariance of η_p and η_w: how much the mean of η_tot exceeds the product of their means


def chance(protocol: str, test_counts: np.ndarray, train_counts: np.ndarray | None = None) -> Scores:
    """Expected scores of random embeddings, in percent.

    η_p and η_w are exact. ``eta_tot`` is the product of those two expectations, not the expectation of the
    product, which differs by the covariance of η_p and η_w (``chance_spread`` approximates it).

    Args:
        protocol: "test_to_train", "leave_one_out" or "released".
        test_counts: (S,) test patches of each scan, in scan order, each at least 1.
        train_counts: (S,) training patches of the same scans; only "test_to_train" needs them.

    Raises ``ValueError`` for an unknown protocol or counts that it cannot be run with.
    """
    return eta_scores(chance_moments(protocol, test_counts, train_counts)[0], test_counts)


def chance_spread(protocol: str, test_counts: np.ndarray, train_counts: np.ndarray | None = None) -> Spread:
    """How far the scores of one random draw lie from ``chance``; arguments and errors as there.

    Approximate: under ``leave_one_out``, two patches that are each other's nearest are both right or both wrong.
    At Kimia's counts ``benchmarks/chance.py`` finds η_p and η_w scattering 28, 20 and 9 % more there in 2, 8
    and 64 dimensions, 8 % less under ``released``, and the same under ``test_to_train`` within 2 %.
    """
    counts = np.asarray(test_counts, dtype=np.float64)
    _, variance = chance_moments(protocol, test_counts, train_counts)
    total, scans = counts.sum(), len(counts)
    eta_p, eta_w = np.sqrt(variance.sum()) / total, np.sqrt((variance / counts**2).sum()) / scans
    return Spread(100 * eta_p, 100 * eta_w, 100 * (variance / counts).sum() / (total * scans))


def chance_moments(
    protocol: str, test_counts: np.ndarray, train_counts: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean (S,) and variance (S,) of each scan's number of correct patches; arguments and errors as ``chance``.

    - ``test_to_train``: each of n_s queries is right with probability M_s/M.
    - ``leave_one_out``: with (n_s − 1)/(N − 1), its own patch being no candidate.
    - ``released``: the query itself is always among its C_s neighbours; the others that are kept are C_s − 1
      of N − 1 without replacement, so that 1 + a hypergeometric number is right.

    Means are exact, and so is the variance under ``released``, one query a scan. The two binomial variances
    take the queries of a scan as independent.
    """
    counts = np.asarray(test_counts, dtype=np.float64)
    total = counts.sum()
    if not (counts >= 1).all():
        raise ValueError(f"each scan needs a test patch, the counts are {counts.tolist()}")
    if protocol == "test_to_train":
        rate = train_rates(train_counts, len(counts))
    elif protocol in ("leave_one_out", "released"):
        if total < 2:
            raise ValueError(f"the protocol {protocol!r} needs two test patches")
        rate = (counts - 1) / (total - 1)
    else:
        raise ValueError(f"unknown protocol {protocol!r}")
    if protocol != "released":
        return counts * rate, counts * rate * (1 - rate)
    kept = counts.cumsum() - 1
    left = (total - 1 - kept) / max(total - 2, 1)  # the correction for a finite population
    return 1 + kept * rate, kept * rate * (1 - rate) * left


def train_rates(train_counts: np.ndarray | None, scans: int) -> np.ndarray:
    """Each scan's share of the training patches (S,)."""
    if train_counts is None or len(train_counts) != scans or not np.sum(train_counts) > 0:
        raise ValueError(f"'test_to_train' needs the training patches of {scans} scans, not {train_counts}")
    return np.asarray(train_counts, dtype=np.float64) / np.sum(train_counts)


def simulate(
    protocol: str,
    test_counts: np.ndarray,
    train_counts: np.ndarray | None = None,
    draws: int = 2000,
    seed: int = 0,
    dimension: int = 8,
) -> np.ndarray:
    """Scores of the protocol itself on normally distributed embeddings: (draws, 3), columns as in ``Scores``.

    Each draw is new for test and training patches alike, so that rows are independent of one another.
    ``dimension`` changes how far they scatter, not their mean. Other arguments and errors as ``chance``.
    """
    chance_moments(protocol, test_counts, train_counts)  # for its errors
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
