"""What specialising costs elsewhere (paper, section 4.2.1): several models on several domains."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from lgffem_core.audit.chance import chance
from lgffem_core.audit.verdicts import ENDS, scan_ends
from lgffem_core.report.tables import DECIMALS
from lgffem_core.retrieval.protocols import leave_one_out

PROTOCOL = "leave_one_out"


class Domain(NamedTuple):
    """Images that a domain is measured on, by the name that the table shows."""

    name: str
    dataset: str
    patches: pd.DataFrame


class Answers(NamedTuple):
    """A model on a domain."""

    model: str  # as the table names it
    domain: Domain
    trained_on: str  # whether it was trained on these very images
    runs: list[np.ndarray | None]  # embeddings (N, D), one a seed; None for a domain without images


def generality_table(answers: Iterable[Answers], resamples: int) -> pd.DataFrame:
    """A row for each model and domain."""
    rows = [
        {"strategy": each.model, "domain": each.domain.name, "protocol": PROTOCOL, "trained_on": each.trained_on}
        | scored(each, resamples)
        for each in answers
    ]
    return pd.DataFrame(rows).round(DECIMALS)


def scored(answers: Answers, resamples: int) -> dict:
    """The numbers of a row; NaN where there are fewer than two groups."""
    labels = answers.domain.patches["label_id"].to_numpy()
    row = {"patches": len(labels), "groups": len(np.unique(labels))}
    if row["groups"] < 2:
        return row | dict.fromkeys(("eta_p", *ENDS, "chance_eta_p"), np.nan)
    runs = [leave_one_out(values, labels) for values in answers.runs]
    row |= {"eta_p": np.mean([run.scores.eta_p for run in runs]), **scan_ends(runs, resamples)}
    return row | {"chance_eta_p": chance(PROTOCOL, runs[0].counts).eta_p}
