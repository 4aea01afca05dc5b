"""Embeddings that get worse by known steps: the ends are known, and the rest against a loop."""

import numpy as np
import pytest

from lgffem_core.audit.chance import chance
from lgffem_core.audit.degrade import degradation, degraded
from lgffem_core.base.seeds import derive_seed
from lgffem_core.retrieval.protocols import evaluate

COUNTS = np.array([4, 7, 3, 6])
LABELS = np.repeat(np.arange(4), COUNTS)


def test_perfect_embeddings_are_perfect_under_both_protocols():
    for scores in degradation(LABELS, steps=(0.0,), draws=2, dimension=8).values():
        assert (scores == 100).all()


def test_random_embeddings_score_what_chance_says():
    for protocol, scores in degradation(LABELS, steps=(1.0,), draws=400, dimension=8).items():
        values = scores[0, :, 0]
        error = values.std() / np.sqrt(len(values))
        assert abs(values.mean() - chance(protocol, COUNTS).eta_p) < 4 * error and error < 1


def test_between_the_ends_scores_fall_and_differ():
    scores = degradation(LABELS, steps=(0.2, 0.6, 1.0), draws=40, dimension=8)
    means = {protocol: values[..., 0].mean(axis=1) for protocol, values in scores.items()}
    assert all((np.diff(values) < -5).all() for values in means.values())
    assert means["released"][2] > means["leave_one_out"][2] + 20


def test_each_score_is_the_protocols_own_on_the_mixture():
    steps = (0.3, 0.7)
    scores = degradation(LABELS, steps, draws=3, seed=5, dimension=6)
    for draw in range(3):
        noise = np.random.default_rng(derive_seed("degradation", 5, draw)).standard_normal((len(LABELS), 6)) / 6**0.5
        for step, share in enumerate(steps):
            mixed = share * noise
            for row, scan in enumerate(LABELS):
                mixed[row, scan] += 1 - share
            for protocol, values in scores.items():
                wanted = evaluate(protocol, mixed.astype(np.float32), LABELS, np.ones(len(LABELS), dtype=bool)).scores
                assert tuple(values[step, draw]) == tuple(wanted)


@pytest.mark.parametrize(("share", "dimension"), [(0.5, 3), (1.2, 8), (-0.1, 8)])
def test_too_few_dimensions_and_impossible_shares_are_refused(share, dimension):
    with pytest.raises(ValueError, match="dimensions"):
        degraded(LABELS, share, np.random.default_rng(0), dimension)
