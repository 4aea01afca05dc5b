"""Methods side by side: what each of them makes of the same patches, and what the protocols say of it."""

from collections.abc import Iterable

import numpy as np

from lgffem_core.retrieval.embed import Embedded
from lgffem_core.retrieval.metrics import Scores
from lgffem_core.retrieval.protocols import Outcome, evaluate

#: (name, variant) -> one entry a seed, in the order that tables have.
Methods = dict[tuple[str, str], list[Embedded]]
#: (name, variant, protocol) -> one outcome a seed.
Outcomes = dict[tuple[str, str, str], list[Outcome]]


def evaluated(methods: Methods, protocols: Iterable[str]) -> Outcomes:
    """What each protocol says of each method."""
    return {
        (*key, protocol): [evaluate(protocol, run.embeddings, run.labels, run.test) for run in runs]
        for key, runs in methods.items()
        for protocol in protocols
    }


def mean_scores(runs: list[Outcome]) -> dict[str, float]:
    """Scores by name, in percent: means over seeds."""
    return Scores(*np.mean([run.scores for run in runs], axis=0))._asdict()
