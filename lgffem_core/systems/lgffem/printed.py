"""What can be known of the published numbers without running anything: who printed them, and what they can be made of.

The authors' repository keeps outputs of its evaluation loop, the protocol `released`; ``params/reference/
table1_runs.yaml`` lists them. And a percentage with two decimals of 1325 patches is one whole number of patches.
"""

from datetime import date
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from scipy.optimize import Bounds, LinearConstraint, milp

from lgffem_core.base.project import PROJECT
from lgffem_core.config.parameter_files import read_reference
from lgffem_core.config.section import Section
from lgffem_core.data.sets.facts import KIMIA_TEST_COUNTS
from lgffem_core.retrieval.metrics import Scores
from lgffem_core.systems.lgffem.tables import published

NOTEBOOK = "ntbk_02_extract-features-kimia.ipynb"  # of the authors, which printed them
HALF = 0.005  # percent: a number printed with two decimals stands for all that round to it
SLACK = 1e-9  # of floating-point sums


class PrintedRun(Section):
    """One line that the authors' evaluation loop printed, in percent."""

    commit: str
    date: date
    cell: int  # of ``NOTEBOOK``, 0-based
    row: Literal["a", "b", "c"] | None  # of Table 1, if it has these values
    checkpoint: str
    eta_tot: float
    eta_p: float
    eta_w: float


def printed_runs(path: Path = PROJECT / "params" / "reference" / "table1_runs.yaml") -> list[PrintedRun]:
    """Every output of that loop in the authors' repository, latest first."""
    return read_reference(path, "runs", PrintedRun)


def printed_table() -> pd.DataFrame:
    """A line for each printed run; ``table1`` names the row of the published table that has the same three values."""
    rows = published("table1")["rows"]
    same = {tuple(values[name] for name in Scores._fields): name.upper() for name, values in rows.items()}
    table = pd.DataFrame([run.model_dump(exclude={"row"}) for run in printed_runs()])
    return table.assign(table1=[same.get(key, "") for key in zip(*(table[n] for n in Scores._fields), strict=True)])


def fitting(percent: float, total: int) -> list[int]:
    """Every whole number of ``total`` patches whose share is printed as ``percent``."""
    shares = 100 * np.arange(total + 1) / total
    return np.flatnonzero(np.abs(shares - percent) <= HALF + SLACK).tolist()


def fewest(protocol: str, counts: np.ndarray) -> np.ndarray:
    """(S,) the fewest right patches of a scan: under ``released`` its query, and what its list is too long to miss."""
    if protocol != "released":
        return np.zeros_like(counts)
    missed = counts.sum() - np.cumsum(counts)  # patches beyond the C_s neighbours that are kept
    return np.maximum(1, counts - missed)


def example(scores: Scores, protocol: str, counts=KIMIA_TEST_COUNTS) -> np.ndarray | None:
    """Right patches by scan, (S,), from which exactly these printed scores would come; None where there are none.

    An integer programme: whole numbers c_s between the fewest and n_s, with Σ c_s as η_p has it, whose η_w and
    product η_p·η_w, before any rounding, are printed as η_w and η_tot.
    """
    counts = np.asarray(counts)
    for right in fitting(scores.eta_p, counts.sum()):
        rates, ends = 100 / counts / len(counts), np.array([-HALF - SLACK, HALF + SLACK])  # eta_w = rates @ c
        sums = [
            LinearConstraint(np.ones(len(counts)), right, right),
            LinearConstraint(rates, *(scores.eta_w + ends)),
            LinearConstraint(rates * right / counts.sum(), *(scores.eta_tot + ends)),
        ]
        bounds = Bounds(fewest(protocol, counts), counts)
        found = milp(np.zeros(len(counts)), constraints=sums, integrality=np.ones(len(counts)), bounds=bounds)
        if found.success:
            return found.x.round().astype(int)
    return None


def arithmetic_table() -> pd.DataFrame:
    """A line for each published row: the patches that η_p stands for, and the protocols that could have given it."""
    lines = []
    for table in ("table1", "table2"):
        for name, values in published(table)["rows"].items():
            scores = Scores(*(values[field] for field in Scores._fields))
            fits = fitting(scores.eta_p, sum(KIMIA_TEST_COUNTS))
            line = {"table": table, "row": name.upper() if table == "table1" else name, **scores._asdict()}
            line |= {"right": " or ".join(map(str, fits)), "patches": sum(KIMIA_TEST_COUNTS)}
            for protocol in ("leave_one_out", "released"):
                line[protocol] = "possible" if example(scores, protocol) is not None else "impossible"
            lines.append(line)
    return pd.DataFrame(lines)
