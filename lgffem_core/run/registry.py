"""The stages of the study: ``notebooks/stages.yaml``, read and checked.

Everything else that is known of a stage follows from its entry there: its place in the graph, what makes it run
again, what it leaves, its row in the README.
"""

import re
from functools import cache, cached_property
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from lgffem_core.base.errors import RequestError
from lgffem_core.base.project import PROJECT
from lgffem_core.config.keys import known_keys
from lgffem_core.config.parameter_files import checked_entry, read_yaml
from lgffem_core.config.params import DATASETS, System
from lgffem_core.config.section import Section
from lgffem_core.config.watched import REGISTRY

FORMATS = {"tables": ("csv", "md", "tex"), "figures": ("png", "svg")}


def one_of(names, what: str) -> AfterValidator:
    """Refuses a text that is none of ``names``."""

    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"{name} is no {what}")
        return name

    return AfterValidator(check)


Key = Annotated[str, one_of(known_keys(), "parameter")]
DataSet = Annotated[str, one_of(DATASETS, "data set")]


class Artefact(Section):
    """A table or figure of a run."""

    title: str  # as the paper names it; artefacts that are not in the paper have a title of their own
    file: Annotated[str, Field(pattern=r"^(tables|figures)/\w+$")]  # below results/<profile>, without a suffix
    caption: str
    notebook: str
    shows_patches: bool = False  # pictures of a user's own tissue stay on the user's machine
    measured: bool = False  # holds times, which no two runs share: it is not compared

    def files(self, results: Path) -> list[Path]:
        """Its files below ``results``, one a format."""
        return [results / f"{self.file}.{kind}" for kind in FORMATS[self.file.split("/")[0]]]

    @property
    def place(self) -> tuple:
        """Those of the paper come first, in its order."""
        found = re.fullmatch(r"(Table|Figure) (\d+)", self.title)
        return (0, found[1] == "Figure", int(found[2])) if found else (1,)


class Resources(Section):
    """What one run of a stage asks a cluster for, at the published schedule. Nothing that it computes depends on it."""

    memory: Annotated[int, Field(gt=0)] = 16000  # MB
    minutes: Annotated[int, Field(gt=0)] = 240  # after which a cluster ends it; the next run goes on from there
    gpu: bool = False


class Entry(Section):
    """One notebook of the study; ``notebooks/stages.yaml`` says at its head what each key means."""

    notebook: Annotated[str, Field(pattern=r"^\d\d_[a-z0-9_]+$")]
    teaches: str
    gives: str
    system: System | None = None
    after: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    each: Literal["once", "variant and seed", "first variant and seed"] = "once"
    params: tuple[Key, ...] = ()
    published: tuple[Key, ...] = ()
    data: tuple[DataSet, ...] | Literal["all"] = ()
    leaves: tuple[str, ...] = ()
    measures: bool = False
    resources: Resources = Resources()
    artefacts: tuple[Artefact, ...] = ()

    @property
    def repeated(self) -> bool:
        """True where it runs for each variant and seed."""
        return self.each == "variant and seed"

    def declares(self, key: str) -> bool:
        """True for a parameter that it reads, or of a section that it does; the paper's begin with ``published.``"""
        return not self.declared.isdisjoint(accumulate(key.split("."), "{}.{}".format))

    @cached_property
    def declared(self) -> frozenset[str]:
        """Parameters and sections, dotted."""
        return frozenset((*self.params, *(f"published.{name}" for name in self.published)))


@cache
def registry(path: Path = PROJECT / REGISTRY) -> dict[str, Entry]:
    """Notebook -> its entry, each after those that it reads from. ``RequestError`` names file, stage and key."""
    entries: dict[str, Entry] = {}
    for name, described in read_yaml(path).items():
        entries[name] = checked_entry(Entry, with_notebook(name, described), f"{path}: stage {name}")
        for earlier in entries[name].after:
            if earlier == name or earlier not in entries:
                raise RequestError(f"{path}: stage {name}, after: {earlier} is no stage that stands before it.")
            if entries[earlier].system not in (None, entries[name].system):
                raise RequestError(f"{path}: stage {name}, after: {earlier} is of another system.")
        for other in entries[name].beside:
            if other == name or other not in entries or entries[other].system in (None, entries[name].system):
                raise RequestError(f"{path}: stage {name}, beside: {other} is no earlier stage of another system.")
    return entries


def with_notebook(name: str, described) -> dict:
    """An entry as it stands in the file, with its notebook's name put to it and to its artefacts."""
    if not isinstance(described, dict):
        return {"notebook": name}
    known = described.get("artefacts", ())
    named = [{**artefact, "notebook": name} if isinstance(artefact, dict) else artefact for artefact in known]
    return {**described, "notebook": name, "artefacts": named}


def artefacts_of(entries) -> list[Artefact]:
    """The tables and figures of some stages: the paper's in its order, then ours in that of the stages."""
    return sorted((artefact for entry in entries for artefact in entry.artefacts), key=lambda artefact: artefact.place)
