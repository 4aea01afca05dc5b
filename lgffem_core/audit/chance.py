"""What each protocol scores for random embeddings, in closed form from the scan counts.

Where embeddings are independent of the scans, every order of the candidates behind a query is equally likely.
The expected number of correct patches of a scan follows from that alone, whatever the distribution of the
embeddings and their dimension. How far scores scatter does depend on both, because queries share their
gallery: ``benchmarks/chance.py`` simulates it.

n_s: test patches of scan s; N: their sum; C_s = n_0 + … + n_s; M_s and M: the same of the training patches.
"""

import numpy as np

from lgffem_core.retrieval.metrics import Scores, eta_scores


def chance(protocol: str, test_counts: np.ndarray, train_counts: np.ndarray | None = None) -> Scores:
    """Expected scores of random embeddings, in percent.

    η_p and η_w are exact. ``eta_tot`` is the product of those two expectations, not the expectation of the
    product, which differs by the covariance of η_p and η_w.

    Args:
        protocol: "test_to_train", "leave_one_out" or "released".
        test_counts: (S,) test patches of each scan, in scan order, each at least 1.
        train_counts: (S,) training patches of the same scans; only "test_to_train" needs them.

    Raises ``ValueError`` for an unknown protocol or counts that it cannot be run with.
    """
    return eta_scores(expected_correct(protocol, test_counts, train_counts), test_counts)


def expected_correct(protocol: str, test_counts: np.ndarray, train_counts: np.ndarray | None = None) -> np.ndarray:
    """Expected number of correct patches of each scan (S,), exact; arguments and errors as ``chance``.

    - ``test_to_train``: each of n_s queries is right with probability M_s/M.
    - ``leave_one_out``: with (n_s − 1)/(N − 1), its own patch being no candidate.
    - ``released``: the query itself is always among its C_s neighbours; the others that are kept are C_s − 1
      of N − 1 without replacement, so that 1 + a hypergeometric number is right.
    """
    counts = np.asarray(test_counts, dtype=np.float64)
    total = counts.sum()
    if not (counts >= 1).all():
        raise ValueError(f"each scan needs a test patch, the counts are {counts.tolist()}")
    if protocol == "test_to_train":
        if train_counts is None or len(train_counts) != len(counts) or not np.sum(train_counts) > 0:
            raise ValueError(f"{protocol!r} needs the training patches of {len(counts)} scans, not {train_counts}")
        rate = np.asarray(train_counts, dtype=np.float64) / np.sum(train_counts)
    elif protocol in ("leave_one_out", "released"):
        if total < 2:
            raise ValueError(f"the protocol {protocol!r} needs two test patches")
        rate = (counts - 1) / (total - 1)
    else:
        raise ValueError(f"unknown protocol {protocol!r}")
    return 1 + (counts.cumsum() - 1) * rate if protocol == "released" else counts * rate
