"""SMSE's own ledger (what its text says, what code that is probably its authors' does, what was chosen) and claims."""

from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import model_validator

from lgffem_core.base.project import PROJECT
from lgffem_core.config.keys import known_keys
from lgffem_core.config.parameter_files import leaves, read_reference, read_rows
from lgffem_core.config.section import Section
from lgffem_core.config.study import Study
from lgffem_core.systems.smse.comparisons import verdict
from lgffem_core.systems.smse.runs import RFL

REFERENCE = PROJECT / "params" / "reference" / "smse.yaml"
LEDGER_NOTE = (
    "text: the abstract, which is all that was read of the paper; code: public code that is probably its authors', "
    "which is not proven; chosen: what this study does, by the parameter; here: its value in this run."
)
CLAIM_NOTE = (
    f"{RFL} not comparable: without a number or its protocol to hold ours against; not run here: "
    "synthetic data, or a training that this run lacks; else holds, not shown or contradicted, as the 95 % intervals "
    "over patients of the differences named lie on the claim's side, over 0, or on the other."
)


class Row(Section):
    """One row of the ledger."""

    row: int
    topic: str
    text: str
    code: str
    chosen: str
    parameter: str | None = None  # dotted, that holds the choice

    @model_validator(mode="after")
    def known_parameter(self):
        if self.parameter is not None and self.parameter not in known_keys():
            raise ValueError(f"{self.parameter} is no parameter")
        return self


class Claim(Section):
    """Something that the text says: ``questions`` bear on it, or ``why_not`` says why a run settles nothing."""

    claim: str
    questions: tuple[str, ...] = ()  # of ``comparisons``
    settled: Literal["holds in part"] | None = None  # by the formula of the loss alone, as notebook 12 draws it
    why_not: str | None = None


def read_ledger(path: Path = REFERENCE) -> list[Row]:
    """The rows in their order. ``RequestError`` names a row that is not as ``Row`` has it, or stands there twice."""
    return read_rows(path, Row)


def read_claims(path: Path = REFERENCE) -> list[Claim]:
    """The claims in their order; ``RequestError`` names one that is not as ``Claim`` has it."""
    return read_reference(path, "claims", Claim)


def ledger_table(study: Study) -> pd.DataFrame:
    """The ledger, with the values of this run."""
    values = leaves({"smse": study.params.smse.model_dump(mode="json")})
    rows = [row.model_dump() for row in read_ledger()]
    return pd.DataFrame([{**row, "here": value_of(values, row.pop("parameter"))} for row in rows])


def value_of(values: dict, parameter: str | None) -> str:
    """A parameter of section ``smse`` with its value, as a cell."""
    return "" if parameter is None else f"{parameter}={values[parameter]}"


def verdicts(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """A row for each claim; ``table`` are the ``comparisons``."""
    rows = []
    for claim in read_claims():
        if claim.why_not:
            said = (claim.settled or "not comparable", claim.why_not)
        else:
            said = verdict(study, claim.questions, table)
        rows.append({"claim": claim.claim, "verdict": said[0], "why": said[1]})
    return pd.DataFrame(rows)
