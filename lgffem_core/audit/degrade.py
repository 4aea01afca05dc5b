"""What a protocol says of embeddings that get worse by known steps, from perfect to random.

A protocol that measures how good embeddings are should fall with them, and use its whole scale for it. The
embedding of a patch is (1 − t)·e_s + t·z/√D: e_s is a unit vector of its own for each scan, z standard normal
in D dimensions, so that signal and noise are of about the same length at t = ½. At t = 0 all patches of a scan
coincide; at t = 1 nothing is left of the scan.
"""

import numpy as np

from lgffem_core.base.seeds import derive_seed
from lgffem_core.retrieval.protocols import AMONG_TEST

STEPS = (0.0, *np.linspace(0.4, 1, 25).round(3).tolist())  # below 0.4 every score is 100


def degraded(labels: np.ndarray, share: float, rng: np.random.Generator, dimension: int = 64) -> np.ndarray:
    """Embeddings (N, D) float32 of patches whose scans are known, with a ``share`` t of noise, 0 … 1.

    Raises ``ValueError`` where D has no room for a direction of its own for each scan.
    """
    scans = int(labels.max()) + 1
    if dimension < scans or not 0 <= share <= 1:
        raise ValueError(f"{scans} scans need as many dimensions, not {dimension}; a share of noise is 0 … 1: {share}")
    noise = rng.standard_normal((len(labels), dimension)) / np.sqrt(dimension)
    return ((1 - share) * np.eye(scans, dimension)[labels] + share * noise).astype(np.float32)


def degradation(
    labels: np.ndarray, steps: tuple[float, ...] = STEPS, draws: int = 10, seed: int = 0, dimension: int = 64
) -> dict[str, np.ndarray]:
    """Scores of ever worse embeddings: protocol -> (steps, draws, 3), in percent, columns as in ``Scores``.

    Both protocols see the same embeddings, and a draw has the same noise at each step.

    Args:
        labels: (N,) scans of the test patches, ascending.
        steps: shares of noise; draws: of the noise; dimension: D.
    """
    scores = {name: np.empty((len(steps), draws, 3)) for name in AMONG_TEST}
    for draw in range(draws):
        for step, share in enumerate(steps):
            rng = np.random.default_rng(derive_seed("degradation", seed, draw))
            embeddings = degraded(labels, share, rng, dimension)
            for name, protocol in AMONG_TEST.items():
                scores[name][step, draw] = protocol(embeddings, labels).scores
    return scores
