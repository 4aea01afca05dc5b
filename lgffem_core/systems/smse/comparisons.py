"""Questions to SMSE's trainings, each answered by a difference on the same images with an interval over patients.

A patient's images are drawn together, so that what one patient's images share counts once. The claims of the text, in
``params/reference/smse.yaml``, name the questions that bear on them.
"""

from typing import NamedTuple

import pandas as pd

from lgffem_core.config.study import Study
from lgffem_core.report.tables import DECIMALS
from lgffem_core.retrieval.statistics import BCA
from lgffem_core.systems.smse.evaluation import difference
from lgffem_core.systems.smse.runs import Run, seen_words
from lgffem_core.systems.smse.splits import DATASET

COMPARISON_NOTE = (
    "question: what is asked of a and b. `held_out`, `held_out_of_others` and `unseen`: on magnifications that b did "
    "not see; `seen`: on the one that it saw; `similarity`, `similarity_triplet`: does the metric loss help; "
    "`rfl_cross_entropy`, `rfl_focal`: is the reinforced focal loss (RFL) better than that other one; `features`: is "
    "the embedding better than the frozen backbone's. difference: a minus b, in points, on the same images; "
    f"difference_low, difference_high: its 95 % interval over patients ({BCA}), whose images are drawn together; "
    "shown: the side that it lies on, empty where it holds 0. right: the class is predicted; balanced: the same with "
    "both classes counted alike; top1: the nearest image of another patient has the class. Beside pairs RFL has "
    "another exponent than without a metric loss (ledger row 10). Each line is one training a side, where another seed "
    "would give another difference, and its interval is by itself, not corrected for how many lines there are."
)


class Question(NamedTuple):
    """Is ``a`` better than ``b``?"""

    key: str  # by which a claim names it
    a: str  # of the answers
    b: str
    measure: str  # "right", "balanced" or "top1"
    on: str  # "all", "40×", "unseen" (by b), or "benign"


def questions(study: Study) -> list[Question]:
    """All that can be asked of a study's trainings."""
    held, single = study.params.smse.held_out, study.params.smse.single
    return [
        Question("held_out", "others", "one", "right", f"{held}×"),
        Question("held_out", "others", "one", "balanced", f"{held}×"),
        Question("held_out_of_others", "pair", "others", "right", f"{held}×"),
        Question("held_out_of_others", "pair", "others", "balanced", f"{held}×"),
        Question("unseen", "pair", "one", "right", "unseen"),
        Question("unseen", "pair", "one", "balanced", "unseen"),
        Question("seen", "pair", "one", "right", f"{single}×"),
        Question("similarity", "pair", "plain", "right", "all"),
        Question("similarity", "pair", "plain", "top1", "all"),
        Question("similarity_triplet", "triplet", "plain", "right", "all"),
        Question("similarity_triplet", "triplet", "plain", "top1", "all"),
        Question("rfl_cross_entropy", "pair", "cross_entropy", "right", "all"),
        Question("rfl_cross_entropy", "pair", "cross_entropy", "balanced", "all"),
        Question("rfl_cross_entropy", "pair", "cross_entropy", "right", "benign"),
        Question("rfl_focal", "pair", "focal", "right", "all"),
        Question("rfl_focal", "pair", "focal", "balanced", "all"),
        Question("rfl_focal", "pair", "focal", "right", "benign"),
        Question("features", "pair", "backbone", "top1", "all"),
    ]


def asked_of(found: pd.DataFrame, on: str, seen: tuple[int, ...]) -> pd.Series:
    """Which images a question is about."""
    if on == "unseen":
        return ~found["magnification"].isin(seen)
    if on == "all":
        return found["label"].notna()
    return found["magnification"] == int(on.rstrip("×")) if on.endswith("×") else found["label"] == on


def comparisons(study: Study, runs: dict[str, Run], found: dict[str, pd.DataFrame], backbone: str) -> pd.DataFrame:
    """A row for each question whose two sides are in ``found``: name -> answers; ``backbone`` is the label of that."""
    every, rows = study.params.data.breakhis.magnifications, []

    def words(name: str) -> str:
        run = runs.get(name)
        return f"{run.losses}, {seen_words(run.magnifications, every)}" if run else backbone

    for question in (each for each in questions(study) if each.a in found and each.b in found):
        mask = asked_of(found[question.b], question.on, runs[question.b].magnifications if question.b in runs else ())
        if not mask.any():
            continue
        a, b = found[question.a][mask], found[question.b][mask]
        balanced = question.measure == "balanced"
        column = "right" if balanced else question.measure
        change, low, high = difference(a, b, column, study.params.retrieval.bootstrap, balanced)
        ends = {"a_percent": mean_of(a, column, balanced), "b_percent": mean_of(b, column, balanced)}
        row = {"question": question.key, "a": words(question.a), "b": words(question.b)}
        row |= {"measure": question.measure, "tested_on": question.on, **ends}
        row |= {"difference": change, "difference_low": low, "difference_high": high}
        row |= {"patients": a["group"].nunique()}
        rows.append(row | {"shown": shown(low, high)})
    return pd.DataFrame(rows).round(DECIMALS)


def mean_of(found: pd.DataFrame, column: str, balanced: bool) -> float:
    """The mean over images, or over the classes' means, in percent."""
    return 100 * float(found.groupby("label")[column].mean().mean() if balanced else found[column].mean())


def shown(low: float, high: float) -> str:
    """Which side an interval of a difference is on: "a", "b", or "" where it holds 0 or has no width."""
    if low == high:
        return ""
    return "a" if low > 0 else "b" if high < 0 else ""


def verdict(study: Study, keys: tuple[str, ...], table: pd.DataFrame) -> tuple[str, str]:
    """What this run says of a claim that a is better in all questions of ``keys``, and why.

    ``not run here`` for synthetic data or a question that was not asked; else ``holds`` where every interval lies on
    a's side, ``contradicted`` where one lies on b's, ``not shown`` otherwise.
    """
    rows = table[table["question"].isin(keys)] if len(table) else table
    if not len(rows):
        return "not run here", "the trainings that it needs are not in this run"
    said = "; ".join(told(*asked) for asked in rows.groupby(["a", "b"], sort=False))
    if study.is_synthetic(DATASET):
        return "not run here", f"synthetic {DATASET}; there {said}"
    sides = set(rows["shown"])
    return ("contradicted" if "b" in sides else "holds" if sides == {"a"} else "not shown"), said


def told(sides: tuple[str, str], rows: pd.DataFrame) -> str:
    """What was found of two sides, in one line."""
    each = "{0.measure} on {0.tested_on} {0.difference:+.1f} ({0.difference_low:.1f} to {0.difference_high:.1f})"
    return f"[{sides[0]}] − [{sides[1]}]: " + ", ".join(map(each.format, rows.itertuples()))
