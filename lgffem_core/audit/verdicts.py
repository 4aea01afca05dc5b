"""Each published number beside ours, and what may be said of it: the rule is ``verdict``.

A verdict is about a number and not about its authors. ``departures`` lists what keeps a run from being the
published experiment; while there is any, no verdict is given. A setting that text and released code have in two ways
keeps none from it, whichever it takes: nobody knows which of the two made the published numbers.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from pydantic import BaseModel

from lgffem_core.config.study import Study
from lgffem_core.config.watched import Watched
from lgffem_core.report.tables import DECIMALS, NOT_KNOWN
from lgffem_core.retrieval.methods import Outcomes, mean_scores
from lgffem_core.retrieval.metrics import STANDARD, Scores
from lgffem_core.retrieval.protocols import Outcome
from lgffem_core.retrieval.statistics import BCA, scan_interval

ENDS = ("eta_p_low", "eta_p_high")
ROUNDING = 0.005  # a published value stands for everything that rounds to it
VERDICT_NOTE = (
    "Table 1 was computed under `released`: the authors' repository keeps its nine values as that computation's output "
    "(commit 51b33ed). Percent; paper_*: as published, under `protocol`; eta_*: ours under the same one, with the 95 % "
    f"interval of eta_p over scans ({BCA}); difference_*: ours minus published; standard_*: ours under "
    "`leave_one_out`. Verdicts: `not run here` where the run departs from the published experiment (`why`); else `not "
    "comparable` where its protocol is not known or our scans are all equally good; else `reproduced` where the "
    "published value lies in the 95 % interval of ours over scans; else `differs`. other_reading: settings that text "
    "and released code have in two ways, where this run does not take the variant's; nobody knows which of them was "
    "published."
)


class Published(NamedTuple):
    """A row of a published table."""

    table: str  # "Table 1"
    row: str  # as the table names it
    protocol: str | None  # None where it is not known
    scores: Scores


class Paper(NamedTuple):
    """What is published."""

    rows: list[Published]
    test_counts: tuple[int, ...]  # (S,) test patches of each scan
    readings: dict[str, list]  # dotted key -> the values that text and released code have for it


class Ours(NamedTuple):
    """Our method behind a published row, and what its numbers depend on."""

    method: str  # its name in the outcomes
    settings: dict  # of ``changed``: those of this run that are not the published ones
    datasets: set[str]
    otherwise: tuple[str, ...] = ()  # what else keeps any run from being the published experiment, in words


def verdict(number: float, protocol: str | None, interval: tuple[float, float] | None, departures: list[str]) -> str:
    """What may be said of one published number. The first that holds:

    1. ``not run here``: the run departs from the published experiment, or does not compute its protocol;
    2. ``not comparable``: the number's protocol is not known; or our scans are all equally good, so
       that resampling them gives no interval to compare with;
    3. ``reproduced``: it lies in the 95 % interval of our value, resampled over scans under the same protocol;
    4. ``differs``.

    Args:
        number: the published one in percent, printed with two decimals.
        protocol: that it was computed under; None where that is not known.
        interval: lower and upper end of ours under that protocol; None where it was not run.
        departures: what differs from the published experiment.
    """
    if departures or (protocol is not None and interval is None):
        return "not run here"
    if protocol is None or interval[0] == interval[1]:
        return "not comparable"
    low, high = interval
    return "reproduced" if low - ROUNDING <= number <= high + ROUNDING else "differs"


def intervals(runs: list[Outcome], resamples: int) -> Scores:
    """95 % intervals over scans (BCa), (low, high) in percent each.

    Where few scans have any error, a studentised interval reaches down to 0 and every number would lie in it.
    BCa stays finite there, and holds the true rate in 89 to 95 of 100 cases (see ``statistics``).

    η_tot = η_p·η_w has the products of their ends: the two rise and fall together, as both are sums over the
    same scans.
    """
    correct, counts = np.array([run.correct for run in runs]), runs[0].counts
    eta_p = scan_interval(correct, counts, resamples)
    eta_w = scan_interval(correct / counts, np.ones(len(counts)), resamples)
    return Scores(eta_p, eta_w, tuple(p * w / 100 for p, w in zip(eta_p, eta_w, strict=True)))


def scan_ends(runs: list[Outcome], resamples: int) -> dict[str, float]:
    """The 95 % interval of η_p over scans (BCa) as cells of a row, one outcome a seed."""
    correct = np.array([run.correct for run in runs])
    return dict(zip(ENDS, scan_interval(correct, runs[0].counts, resamples), strict=True))


Settings = BaseModel | Watched  # a section of the parameters


def changed(settings: Settings, published: Settings, name: str, skip: tuple[str, ...] = ()) -> dict:
    """Dotted key -> value, where it is not the published one; keys in ``skip`` are left out."""
    keys = {}
    for (key, mine), (_, theirs) in zip(settings, published, strict=True):
        path = f"{name}.{key}"
        if path in skip:
            continue
        if isinstance(mine, Settings):
            keys |= changed(mine, theirs, path, skip)
        elif mine != theirs:
            keys[path] = mine
    return keys


def other_readings(paper: Paper, ours: Ours) -> list[str]:
    """Those settings whose value is the other one that text or released code has for them."""
    return [key for key, value in ours.settings.items() if value in paper.readings.get(key, ())]


def departures(study: Study, paper: Paper, ours: Ours, counts: np.ndarray) -> list[str]:
    """How a run differs from the published experiment, in words; empty where it is the same.

    Args:
        counts: (S,) test patches of the run's scans.

    A local file with a network's weights is taken for what it says it is, and does not count.
    """
    checked, readings = study.params.data.check_counts, other_readings(paper, ours)
    keys = [key for key in ours.settings if key not in readings]
    made = [name for name in sorted(ours.datasets) if study.is_synthetic(name)]
    found = [f"synthetic {', '.join(made)}"] if made else []
    found += ours.otherwise
    if tuple(counts) != paper.test_counts:
        found.append("other test patches")
    elif not checked:
        found.append("numbers of images not checked")
    return found + ([f"{len(keys)} other setting{'s' * (len(keys) > 1)}, e.g. {keys[0]}"] if keys else [])


def verdict_table(study: Study, paper: Paper, ours: dict[str, Ours], outcomes: Outcomes) -> pd.DataFrame:
    """A row for each published row and each variant of ours: numbers, differences, verdicts and why.

    Args:
        ours: by the row's name; a published row without any is left out.
        outcomes: (method, variant, protocol) -> one outcome a seed.
    """
    rows = []
    for known in (row for row in paper.rows if row.row in ours):
        mine = ours[known.row]
        for variant in dict.fromkeys(v for m, v, _ in outcomes if m == mine.method):
            runs, standard = (outcomes.get((mine.method, variant, p)) for p in (known.protocol, STANDARD))
            counts = (runs or standard or next(iter(outcomes.values())))[0].counts
            rows.append(
                {"published_in": known.table, "row": known.row, "variant": variant}
                | {"protocol": known.protocol or NOT_KNOWN}
                | judged(study, known, runs, departures(study, paper, mine, counts))
                | {"other_reading": ", ".join(other_readings(paper, mine))}
                | {f"standard_{name}": value for name, value in means(standard).items()}
            )
    numbers = [f"{part}{name}" for part in ("paper_", "", "difference_", "standard_") for name in Scores._fields]
    order = ["published_in", "row", "variant", "protocol", *numbers, *ENDS, "verdict", "why", "other_reading"]
    return pd.DataFrame(rows, columns=order).round(DECIMALS)


def judged(study: Study, known: Published, runs: list[Outcome] | None, why: list[str]) -> dict:
    """The cells of a row: published and measured values, their differences, and one verdict for each."""
    ends = intervals(runs, study.params.retrieval.bootstrap) if runs else None
    found, cells = means(runs), {}
    if known.protocol is not None and runs is None:
        why = [*why, f"{known.protocol} not in the profile"]
    words = []
    for i, (name, number) in enumerate(known.scores._asdict().items()):
        cells |= {f"paper_{name}": number, name: found[name], f"difference_{name}": found[name] - number}
        words.append(verdict(number, known.protocol, ends[i] if ends else None, why))
    low_high = dict(zip(ENDS, ends.eta_p if ends else (np.nan, np.nan), strict=True))
    same = len(set(words)) == 1
    text = words[0] if same else ", ".join(f"{n}: {w}" for n, w in zip(Scores._fields, words, strict=True))
    return cells | low_high | {"verdict": text, "why": "; ".join(why)}


def means(runs: list[Outcome] | None) -> dict[str, float]:
    """Scores over seeds by name; NaN where nothing was run."""
    return mean_scores(runs) if runs else dict.fromkeys(Scores._fields, np.nan)
