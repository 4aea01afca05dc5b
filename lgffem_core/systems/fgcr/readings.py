"""FGCR in two readings, and the ledger of where they differ.

``paper`` is what the published text says or, where it says nothing, what the field would do; ``released`` is the code
(github.com/hudingyi/FGCR at d9f8cd2). The ledger, ``params/reference/fgcr_ledger.yaml``, gives each toggle a row.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from lgffem_core.base.project import PROJECT
from lgffem_core.config.parameter_files import read_rows
from lgffem_core.config.section import Section
from lgffem_core.config.study import Study
from lgffem_core.config.systems import FgcrToggles

READINGS = {
    "paper": FgcrToggles(
        mask="within", residual="plain", shared=True, aligned="class_token", prompt_probability="sigmoid",
        hidden_by="token", scored_words="hidden", word_scores="plain", schedule="once",
    ),
    "released": FgcrToggles(
        mask="after", residual="normalised", shared=True, aligned="prompt_logits", prompt_probability="softmax",
        hidden_by="padding", scored_words="all", word_scores="sigmoid", schedule="rising_again",
    ),
}  # fmt: skip


class Row(Section):
    """One row. Where it names no toggle, ``why_not`` says why it is not measured."""

    row: int
    kind: Literal["disagreement", "silence", "observation"]
    topic: str
    text: str  # what the paper says, or the field would do
    code: str  # what the released code does
    toggle: str | None = None
    values: tuple[Any, Any] | None = None  # the text's, the code's
    why_not: str | None = None

    @model_validator(mode="after")
    def measured_or_said_why_not(self):
        if (self.toggle is None) == (self.why_not is None) or (self.toggle is None) != (self.values is None):
            raise ValueError("must have either toggle and values, or why_not")
        if self.toggle and self.toggle not in FgcrToggles.model_fields:
            raise ValueError(f"{self.toggle} is no toggle")
        return self


def read_ledger(path: Path = PROJECT / "params" / "reference" / "fgcr_ledger.yaml") -> list[Row]:
    """The rows in their order. ``RequestError`` names a row that is not as ``Row`` has it, or stands there twice."""
    return read_rows(path, Row)


def toggles(study: Study, reading: str) -> FgcrToggles:
    """The toggles of a reading, with those that the parameters set one by one."""
    chosen = {name: value for name, value in study.params.fgcr.toggles.model_dump().items() if value is not None}
    return READINGS[reading].model_copy(update=chosen)
