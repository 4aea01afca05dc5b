"""The record of a run, ``manifest.json``: its one definition, by which it is written, verified, compared and kept."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from lgffem_core.base.errors import RequestError, one_line
from lgffem_core.base.files import read_json, sha256_json, write_json

MANIFEST = "manifest.json"


class Part(BaseModel):
    """A part of a manifest: fields of exactly these names and types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Asked(Part):
    """What the user asked for: a parameter file, and what was set on the command line."""

    params: str
    overrides: dict[str, Any]
    sha256: str  # of the file's bytes
    withheld: list[str] = []  # keys whose values, paths of some machine, a kept reference does not tell


class Weights(Part):
    """What a network or strategy starts from."""

    source: Literal["random", "hub", "package", "file"]
    package: str | None = None  # with its version, where they lie in an installed one
    version: str | None = None
    sha256: str | None = None  # of none that are random


class Data(Part):
    """A data set."""

    synthetic: bool
    files: int | None = None  # of which the index was made; runs of older versions do not tell
    files_sha256: str
    index_sha256: str  # the index holds the hash of every image


class Commit(Part):
    """The checkout; all null outside one."""

    id: str | None
    changed_files: bool | None
    changes_sha256: str | None


class Lock(Part):
    """What the environment was made from."""

    name: str
    sha256: str


class Machine(Part):
    """What computed."""

    processor: str
    architecture: str
    gpu: str | None
    driver: str | None


class StageRun(Part):
    """One executed notebook."""

    producer: str
    seed: int | None
    seconds: float
    peak_memory_mib: int
    key: str  # hash of all that its outputs depend on
    inputs: dict[str, str]  # path -> SHA-256 of what earlier stages left for it
    machine: Machine


class KnownFile(Part):
    """One file that the run left."""

    producer: str
    stage: str | None
    sha256: str
    key: str | None = None  # of the report: hash of what it was made from


class Manifest(Part):
    """The record of a run. What has a default is not told by runs of older versions, or by kept references alone."""

    label: str
    profile: str
    request: Asked
    parameters: dict[str, Any]
    weights: dict[str, Weights] | None = None
    inputs: dict[str, Data]
    commit: Commit
    code_sha256: str
    lock: Lock
    locks: dict[str, str]
    python: str
    packages: dict[str, str]
    machine: Machine
    stages: dict[str, StageRun]
    measures: dict[str, Any]
    artefacts: dict[str, KnownFile]
    left_out: list[str] = []  # artefacts of the run that a kept reference does not hold
    sha256: str = ""  # the seal: of everything else

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """The manifest of a folder of results.

        Raises ``RequestError`` where there is none, and ``ValueError``, in a few words, where it is none of these.
        """
        path = Path(folder) / MANIFEST
        if not path.is_file():
            raise RequestError(f"{folder}: no {MANIFEST} there; name the folder of a finished run, e.g. results/demo.")
        try:
            return cls.model_validate(read_json(path))
        except (OSError, ValueError, RecursionError) as error:  # JSON, UTF-8 and pydantic raise kinds of ValueError
            raise ValueError(reason(error)) from None

    def write(self, folder: Path) -> Path:
        """Seal it and put it into a folder of results; what was not told stays untold."""
        sealed = self.model_copy(update={"sha256": self.seal()})
        return write_json(folder / MANIFEST, sealed.model_dump(exclude_unset=True))

    def seal(self) -> str:
        """SHA-256 of everything but the seal."""
        return sha256_json(self.model_dump(exclude={"sha256"}, exclude_unset=True))

    @property
    def is_edited(self) -> bool:
        """Whether its contents are others than its seal says."""
        return self.sha256 != self.seal()


def reason(error: Exception) -> str:
    """Why a manifest cannot be read, in a few words: the field that is wrong, where it is one."""
    if not isinstance(error, ValidationError):
        return one_line(error)
    fault = error.errors()[0]
    field = one_line(".".join(map(str, fault["loc"])))
    if fault["type"] == "missing":
        return f"it has no {field}, as those of older versions"
    return f"{field or 'all of it'}: {fault['msg']}"
