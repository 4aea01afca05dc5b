"""Each published number beside ours, and what may be said of it: the rule is ``verdict``.

A verdict is about a number and not about its authors. ``departures`` lists what keeps a run from being the
published experiment; while there is any, no verdict is given. A setting that text and released code have in two ways
keeps none from it, whichever it takes: nobody knows which of the two made the published numbers.
"""

import numpy as np
import pandas as pd
from pydantic import BaseModel

from lgffem_core.config.study import CURRICULUM, Study
from lgffem_core.config.watched import Watched
from lgffem_core.data.sets.facts import KIMIA_TEST_COUNTS
from lgffem_core.report.tables import DECIMALS, NOT_KNOWN, published
from lgffem_core.retrieval.metrics import Scores
from lgffem_core.retrieval.protocols import Outcome
from lgffem_core.retrieval.statistics import scan_interval
from lgffem_core.systems.baselines.evaluation import DENSENET, MA_MS
from lgffem_core.systems.lgffem.ledger import read_ledger
from lgffem_core.systems.lgffem.strategies import trained_here

VERDICTS = ("reproduced", "differs", "not comparable", "not run here")
STANDARD = "leave_one_out"  # the protocol that any two methods can be compared under
OVER_SCANS = "bca"  # a studentised end is 0 or 100 where few scans have an error
ROUNDING = 0.005  # a published value stands for everything that rounds to it
VERDICT_NOTE = (
    "Table 1 was computed under `released`: the authors' repository keeps its nine values as that computation's output "
    "(commit 51b33ed). Percent; paper_*: as published, under `protocol`; eta_*: ours under the same one, with the 95 % "
    "interval of eta_p over scans (BCa); difference_*: ours minus published; standard_*: ours under `leave_one_out`. "
    "Verdicts: `not run here` where the run departs from the published experiment (`why`); else `not comparable` where "
    "its protocol is not known or our scans are all equally good; else `reproduced` where the published value lies "
    "in the 95 % interval of ours over scans; else `differs`. other_reading: settings that text and released code have "
    "in two ways, where this run does not take the variant's; nobody knows which of them was published."
)


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
    eta_p = scan_interval(correct, counts, resamples, OVER_SCANS)
    eta_w = scan_interval(correct / counts, np.ones(len(counts)), resamples, OVER_SCANS)
    return Scores(eta_p, eta_w, tuple(p * w / 100 for p, w in zip(eta_p, eta_w, strict=True)))


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


def other_readings(settings: dict) -> list[str]:
    """Those keys of ``changed`` whose value is the other one that a row of the ledger has for them."""
    known = {key: values for row in read_ledger() for key, values in (row.switch or {}).items()}
    return [key for key, value in settings.items() if value in known.get(key, ())]


def own_settings(study: Study, row: str) -> tuple[dict, set[str]]:
    """What a published row depends on: the settings of this run that are not the paper's, and the data sets.

    Args:
        row: strategy "a", "b" or "c", or a method of Table 2.

    A local file with the backbone's weights is taken for what it says it is; toggles are part of a row's
    variant, which the table names; neither counts.
    """
    params, paper, needed, keys = study.params, Study.published().params, {"kimia"}, {}
    mine, theirs = params.baselines, paper.baselines
    if row == DENSENET:
        keys = changed(
            params.baselines.densenet121, paper.baselines.densenet121, "densenet121", ("densenet121.weights",)
        )
    elif row == MA_MS:
        keys = changed(mine.ma_ms, theirs.ma_ms, "ma_ms", ("ma_ms.weights",))
    else:
        chain = trained_here(study, "c" if row == "LGFFEM" else row)
        needed |= {CURRICULUM[strategy][0] for strategy in chain}
        keys = changed(params.model, paper.model, "model", ("model.backbone.weights", "model.toggles"))
        if chain:
            others = tuple(f"training.{s}" for s in CURRICULUM if s not in chain)
            keys |= changed(params.training, paper.training, "training", others)
        if "pannuke" in needed:
            keys |= changed(params.data.pannuke, paper.data.pannuke, "data.pannuke", ("data.pannuke.root",))
    if row in (DENSENET, MA_MS) and params.model.image_size != paper.model.image_size:
        keys["model.image_size"] = params.model.image_size
    return keys, needed


def departures(study: Study, row: str, counts: np.ndarray) -> list[str]:
    """How a run differs from the published experiment, in words; empty where it is the same.

    Args:
        row: as for ``own_settings``.
        counts: (S,) test patches of the run's scans.
    """
    settings, needed = own_settings(study, row)
    checked, readings = study.params.data.check_counts, other_readings(settings)
    keys = [key for key in settings if key not in readings]
    made = [name for name in sorted(needed) if study.is_synthetic(name)]
    found = [f"synthetic {', '.join(made)}"] if made else []
    if row == MA_MS:
        found.append("published on Kimia Path24 RGB (ledger 22)")
    if tuple(counts) != KIMIA_TEST_COUNTS:
        found.append("other test patches")
    elif not checked:
        found.append("numbers of images not checked")
    return found + ([f"{len(keys)} other setting{'s' * (len(keys) > 1)}, e.g. {keys[0]}"] if keys else [])


def verdict_table(study: Study, outcomes: dict[tuple[str, str, str], list[Outcome]]) -> pd.DataFrame:
    """A row for each published row and each variant of ours: numbers, differences, verdicts and why.

    Args:
        outcomes: (method, variant, protocol) -> one outcome a seed; methods are "LGFFEM A", "LGFFEM B",
            "LGFFEM C" and the baselines of Table 2.
    """
    rows = []
    for table, row, protocol, known in published_rows():
        method = "LGFFEM C" if row == "LGFFEM" else f"LGFFEM {row.upper()}" if row in CURRICULUM else row
        for variant in dict.fromkeys(v for m, v, _ in outcomes if m == method):
            ours, standard = (outcomes.get((method, variant, p)) for p in (protocol, STANDARD))
            counts = (ours or standard or next(iter(outcomes.values())))[0].counts
            readings = other_readings(own_settings(study, row)[0])
            rows.append(
                {"published_in": table, "row": row.upper() if row in CURRICULUM else row, "variant": variant}
                | {"protocol": protocol or NOT_KNOWN}
                | judged(study, protocol, known, ours, departures(study, row, counts))
                | {"other_reading": ", ".join(readings)}
                | {f"standard_{name}": value for name, value in means(standard).items()}
            )
    numbers = [f"{part}{name}" for part in ("paper_", "", "difference_", "standard_") for name in Scores._fields]
    order = ["published_in", "row", "variant", "protocol", *numbers, "eta_p_low", "eta_p_high", "verdict", "why"]
    order.append("other_reading")
    return pd.DataFrame(rows, columns=order).round(DECIMALS)


def judged(study: Study, protocol: str | None, known: Scores, ours: list[Outcome] | None, why: list[str]) -> dict:
    """The cells of a row: published and measured values, their differences, and one verdict for each."""
    ends = intervals(ours, study.params.retrieval.bootstrap) if ours else None
    found, cells = means(ours), {}
    if protocol is not None and ours is None:
        why = [*why, f"{protocol} not in the profile"]
    words = []
    for i, name in enumerate(Scores._fields):
        cells |= {f"paper_{name}": known[i], name: found[name], f"difference_{name}": found[name] - known[i]}
        words.append(verdict(known[i], protocol, ends[i] if ends else None, why))
    low, high = ends.eta_p if ends else (np.nan, np.nan)
    same = len(set(words)) == 1
    text = words[0] if same else ", ".join(f"{n}: {w}" for n, w in zip(Scores._fields, words, strict=True))
    return cells | {"eta_p_low": low, "eta_p_high": high, "verdict": text, "why": "; ".join(why)}


def means(runs: list[Outcome] | None) -> dict[str, float]:
    """Scores over seeds by name; NaN where nothing was run."""
    values = np.mean([run.scores for run in runs], axis=0) if runs else [np.nan] * 3
    return dict(zip(Scores._fields, map(float, values), strict=True))


def published_rows() -> list[tuple[str, str, str | None, Scores]]:
    """(table, row, protocol or None, scores) of every published row."""
    one, two = published("table1"), published("table2")
    rows = [("Table 1", name, one["protocol"], values) for name, values in one["rows"].items()]
    rows += [("Table 2", name, values["protocol"], values) for name, values in two["rows"].items()]
    return [(table, name, protocol, Scores(*(v[f] for f in Scores._fields))) for table, name, protocol, v in rows]
