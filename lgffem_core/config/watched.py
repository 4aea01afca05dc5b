"""What a stage reads of its study: noted, and refused by name where ``notebooks/stages.yaml`` does not say so.

Whoever starts a stage's kernel names in ``LGFFEM_DECLARED`` a file that holds what the stage declares. In that kernel
each parameter that is read, each data set and each file of an earlier stage is held against it and noted beside it.
Elsewhere, as in JupyterLab, nothing is watched.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from lgffem_core.base.errors import StudyError
from lgffem_core.base.files import read_json, write_json
from lgffem_core.config.params import DATASETS, Params

VARIABLE = "LGFFEM_DECLARED"
REGISTRY = "notebooks/stages.yaml"
#: What any stage may read without declaring it, and why its results do not depend on it.
FREE = {
    "profile": "names folders; it is in the label, on which every stage depends",
    "systems": "says which stages there are",
    "data.faulty_files": "is in the label; which files are left, the index says",
    "data.accept_changed_files": "the files that are used count by their contents",
    "compute.workers": "how fast images come, not which",
    "compute.cache": "whether pixels are decoded anew or kept; they are the same",
    "compute.devices": "how many share a batch, which holds the same samples: as torchrun's number of processes",
    "compute.features": "whether a backbone's maps are computed anew or kept; they are the same",
    "compute.checkpoint_steps": "what an interrupted training goes on from; it comes to the same bits",
    **{f"data.{name}.root": "what lies there counts, not where it lies" for name in DATASETS},
}


def covers(declared: str, name: str, separator: str = ".") -> bool:
    """True where ``name`` is what is declared, or lies below it."""
    return name == declared or name.startswith(declared + separator)


@dataclass
class Declared:
    """What a stage declares, and what it has read so far: ``noted``, (kind, name).

    ``left`` has the files below ``artifacts/<profile>`` that stages leave, with their notebooks; ``allowed`` are
    those of the stage itself and of the stages that it comes after.
    """

    notebook: str
    params: list[str]  # dotted; those of the paper's own profile begin with "published."
    data: list[str]
    left: dict[str, str]
    allowed: list[str]
    note: Callable[[str], None] = field(default=lambda line: None)
    noted: set[tuple[str, str]] = field(default_factory=set)

    def read_param(self, key: str) -> None:
        """Note a parameter; ``StudyError`` names one that is neither declared nor free."""
        if any(covers(known, key) for known in self.params):
            self.keep("params", key)
        elif key not in FREE:
            place = "published" if covers("published", key) else "params"
            raise self.refusal(f"reads {key}, which {REGISTRY} does not name for it; add it to its {place}")

    def read_data(self, name: str) -> None:
        """Note a data set; ``StudyError`` names one that is not declared."""
        if name not in self.data:
            raise self.refusal(f"reads data set {name}, which {REGISTRY} does not name for it; add it to its data")
        self.keep("data", name)

    def read_path(self, path: str) -> None:
        """Note whose a file or folder below ``artifacts/<profile>`` is; ``StudyError`` unless it comes before.

        And where it is nobody's: what no stage leaves, neither manifest nor rerun would know of.
        """
        owners = {name: owner for name, owner in self.left.items() if covers(path, name, "/")}
        allowed = owners.keys() & set(self.allowed)
        if not owners:
            raise self.refusal(f"keeps {path}, which by {REGISTRY} no stage of the run leaves; add it to its leaves")
        if not allowed:
            owner = next(iter(owners.values()))
            raise self.refusal(f"reads {path} of stage {owner}, after which it does not come; add {owner} to its after")
        for owner in {owners[name] for name in allowed} - {self.notebook}:
            self.keep("after", owner)

    def keep(self, kind: str, name: str) -> None:
        if (kind, name) not in self.noted:
            self.noted.add((kind, name))
            self.note(f"{kind} {name}\n")

    def refusal(self, what: str) -> StudyError:
        return StudyError(f"notebook {self.notebook} {what} there.")


class Watched:
    """A section of the parameters that tells ``read`` the dotted key of each value that is taken from it."""

    def __init__(self, section: BaseModel, read: Callable[[str], None], prefix: str = ""):
        self._section, self._read, self._prefix = section, read, prefix

    def __getattr__(self, name: str):
        if name.startswith("_") or name not in type(self._section).model_fields:
            raise AttributeError(f"{self._prefix or 'the parameters'}: no {name} here")
        value, key = getattr(self._section, name), self._prefix + name
        if isinstance(value, BaseModel):
            return Watched(value, self._read, f"{key}.")
        self._read(key)
        return value

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return ((name, getattr(self, name)) for name in type(self._section).model_fields)

    def model_dump(self, **options) -> dict:
        """As pydantic's; what the dump holds is read."""
        tree = self._section.model_dump(**options)
        self._take(tree)
        return tree

    def model_copy(self, **options) -> BaseModel:
        """As pydantic's; all that is copied is read."""
        self.model_dump()
        return self._section.model_copy(**options)

    def _take(self, tree: dict) -> None:
        for name, part in tree.items():
            value = getattr(self, name)
            if isinstance(value, Watched):
                value._take(part)


def plain(params: Params | Watched) -> Params:
    """The parameters themselves, for what is no reading: where files lie, and making a study of others from them."""
    return params._section if isinstance(params, Watched) else params


def watched(params: Params | Watched, prefix: str = "") -> Params | Watched:
    """In a stage's kernel ``params`` under watch, elsewhere as they are."""
    declared = current()
    return params if declared is None or isinstance(params, Watched) else Watched(params, declared.read_param, prefix)


def current() -> Declared | None:
    """What the stage that this process works for declares; None where it works for none."""
    file = os.environ.get(VARIABLE)
    return declared_in(Path(file)) if file else None


@cache
def declared_in(file: Path) -> Declared:
    """What ``watching`` wrote, with a line in ``….reads`` for each thing that is read, once."""

    def note(line: str) -> None:
        with open(file.with_suffix(".reads"), "a", encoding="utf-8") as handle:
            handle.write(line)

    return Declared(**read_json(file), note=note)


@contextmanager
def watching(declared: dict, file: Path) -> Iterator[Callable[[], dict[str, list[str]]]]:
    """Watch the processes that are started inside; gives a function that tells what they have read, by kind."""
    reads = file.with_suffix(".reads")
    reads.unlink(missing_ok=True)
    os.environ[VARIABLE] = str(write_json(file, declared))

    def noted() -> dict[str, list[str]]:
        lines = reads.read_text(encoding="utf-8").splitlines() if reads.is_file() else []
        pairs = sorted(line.split(" ", 1) for line in set(lines))
        return {kind: [name for k, name in pairs if k == kind] for kind in ("after", "data", "params")}

    try:
        yield noted
    finally:
        del os.environ[VARIABLE]
        for used in (file, reads):
            used.unlink(missing_ok=True)
