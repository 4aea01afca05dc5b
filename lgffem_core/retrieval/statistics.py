"""The 95 % interval of η_p that Table 1 prints.

Percentile bootstrap. Under the two top-1 protocols the patches are resampled; under ``released``, which
asks one question a scan, the scans are. Seeds are averaged first: the interval is over the test material,
not over trainings.
"""

import numpy as np

from lgffem_core.retrieval.protocols import Outcome
from lgffem_core.seeds import derive_seed

LEVEL = (2.5, 97.5)  # percentiles


def eta_p_interval(outcomes: list[Outcome], resamples: int) -> tuple[float, float]:
    """Lower and upper end, in percent, of the 95 % interval of η_p over one outcome a seed."""
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
