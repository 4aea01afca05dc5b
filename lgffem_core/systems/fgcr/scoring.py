"""The four tasks scored: slides and reports as queries, slides and reports as what is searched.

*Class level*: an answer is right if its slide has the query's label; the query's own slide is left out, also where the
query is its report. *Instance level*, between slides and reports: the own report, or slide, is what is looked for, and
others with the identical text count as hits.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from lgffem_core.base.seeds import derive_seed
from lgffem_core.retrieval.index import search
from lgffem_core.retrieval.ranking import Ranking, average_precision, hit_rate, majority_vote, relevant_counts
from lgffem_core.retrieval.statistics import ends, ratio_ends

#: Task -> (what asks, what is searched): 0 slides, 1 reports.
TASKS = {
    "slide to slide": (0, 0),
    "slide to report": (0, 1),
    "report to slide": (1, 0),
    "report to report": (1, 1),
}
CLASS, INSTANCE = "class", "instance"
DEPTHS, VOTES = (1, 3, 5), (3, 5)
DRAWS = 100  # random orders of the gallery that chance is the mean of

Pair = tuple[np.ndarray, np.ndarray]  # vectors of slides and of reports, (N, d) each, a row a slide in both
Values = dict[str, np.ndarray]  # measure -> (N,) values of the queries, 0 … 1


class Gallery(NamedTuple):
    """What the slides that are searched are, and so which answers are right."""

    labels: np.ndarray  # (N,)
    texts: np.ndarray  # (N,): slides with one number have the identical report
    k: int  # of AP@k

    @classmethod
    def of(cls, labels: np.ndarray, reports: list[str], k: int) -> "Gallery":
        return cls(np.asarray(labels), pd.factorize(np.array(reports))[0], min(k, len(labels) - 1))


def ranked(order: np.ndarray, values: np.ndarray, leave_out_own: bool) -> Ranking:
    """The ranking that ``order`` is, (N, N) ids, nearest first: as ``values``, without each query's own or with it."""
    others = order != np.arange(len(order))[:, None]
    relevant = relevant_counts(values, values)
    if leave_out_own:
        return Ranking(values[order[others].reshape(len(order), -1)], values, relevant - 1)
    return Ranking(values[order], values, relevant)


def measures(ranking: Ranking, k: int, votes: bool) -> Values:
    """Every measure, a value a query. R@k is 1 where one of the first k is right."""
    found = {f"R@{depth}": hit_rate(ranking, depth) for depth in DEPTHS}
    found |= {f"MV@{depth}": majority_vote(ranking, depth) for depth in VOTES} if votes else {}
    return found | {f"mAP@{k}": average_precision(ranking, k)}


def levels(order: np.ndarray, gallery: Gallery, between: bool) -> dict[str, Values]:
    """Level -> measures of one order; at instance level only ``between`` slides and reports."""
    found = {CLASS: measures(ranked(order, gallery.labels, True), gallery.k, votes=True)}
    if between:
        found[INSTANCE] = measures(ranked(order, gallery.texts, False), gallery.k, votes=False)
    return found


def scored(pairs: dict[str, Pair], gallery: Gallery) -> dict[tuple[str, str], Values]:
    """(task, level) -> measures, of vectors by task: slides and reports need not be the same in all tasks."""
    found = {}
    for task, (asks, searched) in TASKS.items():
        order = search(pairs[task][searched], pairs[task][asks], len(gallery.labels))[1]
        found |= {(task, level): values for level, values in levels(order, gallery, asks != searched).items()}
    return found


def chance(gallery: Gallery) -> dict[tuple[str, str], dict[str, float]]:
    """(task, level) -> what random orders are expected to score: means over queries and ``DRAWS``."""
    rng, size, sums = np.random.default_rng(derive_seed("fgcr chance")), len(gallery.labels), {}
    for _ in range(DRAWS):
        order = rng.permuted(np.tile(np.arange(size), (size, 1)), axis=1)
        for level, values in levels(order, gallery, between=True).items():
            for name, value in values.items():
                sums[level, name] = sums.get((level, name), 0.0) + value.mean() / DRAWS
    by_level = {level: {name: v for (own, name), v in sums.items() if own == level} for level in (CLASS, INSTANCE)}
    both = {(task, level): by_level[level] for task in TASKS for level in (CLASS, INSTANCE)}
    return {key: v for key, v in both.items() if key[1] == CLASS or TASKS[key[0]][0] != TASKS[key[0]][1]}


def interval(values: np.ndarray, resamples: int, weights: np.ndarray | None = None) -> tuple[float, float]:
    """95 % interval (BCa) of Σ values / Σ weights in percent, slides resampled; weights are 1 where none are given."""
    wholes = np.ones(len(values)) if weights is None else weights
    return ends(ratio_ends(values, wholes, resamples))


def gain(
    values: np.ndarray, other: np.ndarray, resamples: int, weights: np.ndarray | None = None
) -> tuple[float, float, float]:
    """How much the first scores above the second on the same slides, in points, with its 95 % interval (BCa)."""
    wholes = np.ones(len(values)) if weights is None else weights
    low, high = 100 * ratio_ends(values - other, wholes, resamples)
    return float(100 * (values - other).sum() / wholes.sum()), float(low), float(high)


def mean_over_seeds(runs: list[dict[tuple[str, str], Values]]) -> dict[tuple[str, str], Values]:
    """The same with each query's values averaged over trainings."""
    return {
        key: {name: np.mean([run[key][name] for run in runs], axis=0) for name in values}
        for key, values in runs[0].items()
    }


def summary(method: str, found: dict, floor: dict | None, resamples: int) -> list[dict]:
    """Rows of the table: means in percent, the interval of R@1, and where there is a floor, the gain over it."""
    rows = []
    for (task, level), values in found.items():
        row = {"task": task, "level": level, "method": method}
        row |= {name: 100 * float(np.mean(value)) for name, value in values.items()}
        if isinstance(values["R@1"], np.ndarray):
            row["R@1_low"], row["R@1_high"] = interval(values["R@1"], resamples)
        if floor:
            names = ("gain", "gain_low", "gain_high")
            row |= dict(zip(names, gain(values["R@1"], floor[task, level]["R@1"], resamples), strict=True))
        rows.append(row)
    return rows


def same_for_all(pair: Pair) -> dict[str, Pair]:
    """One pair of vectors for every task, as a model has them."""
    return dict.fromkeys(TASKS, pair)
