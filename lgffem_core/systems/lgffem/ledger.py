"""The ledger of text against code, measured: each row switched alone (notebook 11).

``params/reference/ledger.yaml`` holds the rows: disagreements, silences of the text, what can be read both ways, and
observations. A row that can be switched is read twice, as the text has it and as the released code has it; the two
runs differ in that row's parameters and in nothing else. They train strategy C for a few epochs from a freshly drawn
neck and head, so that an effect is not hidden under earlier strategies.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import model_validator

from lgffem_core.base.files import sha256_json
from lgffem_core.base.project import PROJECT
from lgffem_core.config.keys import known_keys
from lgffem_core.config.parameter_files import apply_overrides, read_rows, validate
from lgffem_core.config.params import PROTOCOLS, Params
from lgffem_core.config.section import Section
from lgffem_core.config.study import SEARCHED, Study
from lgffem_core.config.watched import plain
from lgffem_core.data import patch_table
from lgffem_core.retrieval.comparison import mcnemar_exact, paired_permutation
from lgffem_core.retrieval.embed import Embedded
from lgffem_core.retrieval.encoder import embed_table
from lgffem_core.retrieval.protocols import Outcome, evaluate
from lgffem_core.retrieval.statistics import ratio_ends
from lgffem_core.systems.lgffem.evaluation import strategy_encoder, train_and_embed
from lgffem_core.systems.lgffem.strategies import train_strategy, with_weights

VARIANT = "paper"  # what the rows are switched from
ALONE = ("c",)  # the strategies that a run trains, unless the row is about another one's data


class Row(Section):
    """One row. Either ``trains`` says how it is measured, or ``why_not`` says why it is not."""

    row: int
    kind: Literal["disagreement", "silence", "ambiguous", "observation"]
    topic: str
    text: str  # what the paper says
    code: str  # what the released code does
    source: str
    settles: str  # what would decide which of the two made the published numbers
    switch: dict[str, tuple[Any, Any]] | None = None  # dotted parameter -> (text's value, code's value)
    sides: str | None = None  # whose the two values are, where not the text's and the code's
    trains: tuple[str, ...] | None = None  # strategies that its runs train; () = evaluated with the base's weights
    why_not: str | None = None

    @model_validator(mode="after")
    def measured_or_said_why_not(self):
        if (self.trains is None) == (self.why_not is None):
            raise ValueError("must have either trains or why_not")
        if self.trains is not None and not self.switch:
            raise ValueError("trains needs a switch")
        unknown = set(self.switch or ()) - set(known_keys())
        if unknown:
            raise ValueError(f"switches {min(unknown)}, which is no parameter")
        return self


@dataclass(frozen=True)
class RowStudy(Study):
    """A study with one row switched; its weights and PanNuke's table lie apart from those of the profile."""

    name: str = "base"
    strategies: tuple[str, ...] = ALONE

    @property
    def folder(self) -> Path:
        """Where this run keeps what it makes."""
        return self.artifacts / "ledger" / self.name

    def checkpoints(self, strategy: str, variant: str, seed: int) -> Path:
        return self.folder / f"strategy_{strategy}"

    def title(self, strategy: str) -> str:
        return f"{super().title(strategy)}, {self.name}"

    def embeddings(self, strategy: str, variant: str, seed: int) -> Path:
        return self.folder / f"strategy_{strategy}.safetensors"

    def index(self, dataset: str) -> Path:  # a row switches which tiles are trained on
        return self.folder / "pannuke.csv" if dataset == "pannuke" else super().index(dataset)

    def parent(self, strategy: str) -> str | None:
        before = super().parent(strategy)
        return before if before in self.strategies else None


class Effect(NamedTuple):
    """A row under one protocol, or under two where the row is about the protocol."""

    row: Row
    text_protocol: str
    code_protocol: str
    text: Outcome
    code: Outcome


class Difference(NamedTuple):
    """η_p of the second outcome minus that of the first, in points, with a 95 % interval and a p-value."""

    delta: float
    delta_low: float
    delta_high: float
    p: float


def read_ledger(path: Path = PROJECT / "params" / "reference" / "ledger.yaml") -> list[Row]:
    """The rows in their order. ``RequestError`` names a row that is not as ``Row`` has it, or stands there twice."""
    return read_rows(path, Row)


def not_measured(study: Study, row: Row) -> str | None:
    """Why this profile does not measure a row; None where it does."""
    if row.trains and "b" in row.trains and not study.params.ledger.strategy_b:
        return "it trains strategy B, which ledger.strategy_b=false leaves out"
    return row.why_not


def base_study(study: Study, strategies: tuple[str, ...] = ALONE) -> RowStudy:
    """What every row is switched from: variant ``paper`` with the profile's toggles, one seed, short training.

    It is evaluated under every protocol, whatever the profile's tables show: row 1 compares them.
    """
    overrides = {f"model.toggles.{name}": value for name, value in study.variant(VARIANT)}
    overrides |= {"variants": [VARIANT], "seeds": study.params.seeds[:1], "retrieval.protocols": PROTOCOLS}
    for strategy in strategies:
        overrides |= {f"training.{strategy}.epochs": study.params.ledger.epochs}
        overrides |= {f"training.{strategy}.checkpoint": None}
    name = "_".join(["base", *strategies])
    return RowStudy(changed(plain(study.params), overrides), study.root, name, strategies)


def changed(params: Params, overrides: dict) -> Params:
    """``params`` with each dotted key of ``overrides`` set, checked as a profile is."""
    return validate(apply_overrides(params.model_dump(), overrides), f"profile {params.profile}, ledger")


def readings(study: Study, row: Row) -> tuple[RowStudy, RowStudy]:
    """The study as the text has ``row``, and as the code has it. One that is the base shares its weights."""
    base = base_study(study, row.trains or ALONE)
    known, found = plain(base.params), []
    for i, reading in enumerate(("text", "code")):
        params = changed(known, {key: values[i] for key, values in row.switch.items()})
        name = base.name if params == known else f"row{row.row:02d}_{reading}"
        found.append(replace(base, params=params, name=name))
    return tuple(found)


def measure(study: Study, row: Row) -> list[Effect]:
    """Train (or find) both readings of a row and evaluate them: one effect a protocol."""
    base, sides = base_study(study, row.trains or ALONE), []
    for run in readings(study, row):
        embeddings, labels, test, _ = row_embeddings(run, run if row.trains else base)
        protocols = run.params.retrieval.protocols
        sides.append([(protocol, evaluate(protocol, embeddings, labels, test)) for protocol in protocols])
    pairs = zip(*sides, strict=True)
    return [Effect(row, before, after, text, code) for (before, text), (after, code) in pairs]


def row_embeddings(run: RowStudy, trained: RowStudy) -> Embedded:
    """Kimia's patches as the model of ``run`` with the weights of ``trained`` embeds them."""
    seed = trained.params.seeds[0]
    embedded = train_and_embed(trained, "c", VARIANT, seed)
    settings = run.variant(VARIANT)
    if settings == trained.variant(VARIANT):
        return embedded
    network = partial(with_weights, run, VARIANT, seed, train_strategy(trained, "c", VARIANT, seed).weights)
    encoder = strategy_encoder(trained, "c", VARIANT, seed)
    switched = replace(encoder, identity=sha256_json([encoder.identity, vars(settings)]), network=network)
    return embedded._replace(embeddings=embed_table(run, SEARCHED, patch_table(run, SEARCHED), switched))


def paired_difference(text: Outcome, code: Outcome, resamples: int) -> Difference:
    """How far η_p moves from ``text`` to ``code``, on the same test patches.

    Where both ask with each patch, patches are resampled (BCa) and p is McNemar's; under ``released``, which asks
    once a scan, scans are resampled and p is from flipping whole scans. Both speak of these two trainings: what
    another training would give is not in them.
    """
    if text.hits is not None and code.hits is not None:
        change, counts = code.hits.astype(float) - text.hits, np.ones(len(text.hits))
        p = mcnemar_exact(text.hits, code.hits)
    else:
        change, counts = (code.correct - text.correct).astype(float), text.counts.astype(float)
        p = paired_permutation(text.correct, code.correct)
    low, high = ratio_ends(change, counts, resamples)
    return Difference(100 * float(change.sum() / counts.sum()), 100 * float(low), 100 * float(high), p)
