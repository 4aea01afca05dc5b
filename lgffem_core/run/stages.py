"""The stages of a run: one notebook each, what it reads and writes, and whether it is finished.

What a stage is stands in ``notebooks/stages.yaml`` (see ``registry``). It is finished when its note says that it ran
from what is there now: the same parameters, the same code, the same packages, inputs and outputs of the same content.
Neither times of files nor what a notebook says of itself count. Nothing here imports torch.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

from lgffem_core.base.errors import StudyError
from lgffem_core.base.files import read_json, sha256_file, sha256_json, write_json
from lgffem_core.base.project import PROJECT
from lgffem_core.config.code_version import code_hash, lock_hash, syntax_hash
from lgffem_core.config.machine import COMPUTING, SHOWING
from lgffem_core.config.parameter_files import leaves, one_line
from lgffem_core.config.params import DATASETS
from lgffem_core.config.study import Study
from lgffem_core.config.watched import REGISTRY
from lgffem_core.data.census import census
from lgffem_core.data.census import data_state as state_of
from lgffem_core.run.registry import Artefact, Entry, artefacts_of, registry


@dataclass(frozen=True)
class Request:
    """What a user asked for: a profile and the values set on the command line."""

    params: str  # path of the profile, relative to the project where it lies inside
    overrides: dict

    @property
    def study(self) -> Study:
        return Study.load(PROJECT / self.params, self.overrides)

    def write(self, path: Path) -> Path:
        return write_json(path, {"params": self.params, "overrides": self.overrides})

    @classmethod
    def read(cls, path: Path) -> "Request":
        return cls(**read_json(path))


class Stage(NamedTuple):
    """One notebook of a run; those that train strategies run once for each variant and seed."""

    notebook: str
    variant: str = ""
    seed: str | int = ""

    @property
    def name(self) -> str:
        """``03_strategy_a_imagenet_paper_seed0``, or the notebook's name."""
        return f"{self.notebook}_{self.variant}_seed{self.seed}" if self.variant else self.notebook


def known() -> dict[str, Entry]:
    """Notebook -> its entry, of every stage that the study knows."""
    return registry(PROJECT / REGISTRY)


def entries(study: Study) -> list[Entry]:
    """The entries of the stages of the profile's systems."""
    return [entry for entry in known().values() if entry.system in (None, *study.params.systems)]


def artefacts(study: Study) -> list[Artefact]:
    """The tables and figures of a run, in the order in which they are shown."""
    return artefacts_of(entries(study))


def measuring(study: Study) -> list[str]:
    """The notebooks of a run that leave numbers for the manifest."""
    return [entry.notebook for entry in entries(study) if entry.measures]


def needed_sets(study: Study) -> tuple[str, ...]:
    """The data sets that a run needs: those of its stages."""
    used = {name for entry in entries(study) if entry.data != "all" for name in entry.data}
    return tuple(name for name in DATASETS if name in used)


def sets_of(study: Study, entry: Entry) -> tuple[str, ...]:
    """The data sets that a stage reads."""
    return needed_sets(study) if entry.data == "all" else entry.data


def runs_of(study: Study, entry: Entry) -> list[Stage]:
    """A stage's runs: one, or one for each variant and seed."""
    each = product(study.params.variants, study.params.seeds) if entry.repeated else [("", "")]
    return [Stage(entry.notebook, *run) for run in each]


def all_stages(study: Study) -> list[Stage]:
    """Every stage of a run, in an order in which they can run."""
    return [stage for entry in entries(study) for stage in runs_of(study, entry)]


def upstream(study: Study, stage: Stage) -> list[Stage]:
    """The stages whose outputs a stage reads: of repeated ones, a repeated stage its own, others all or the first."""
    entry, found = known()[stage.notebook], []
    for earlier in map(known().get, entry.after):
        if earlier.repeated and entry.repeated:
            found.append(stage._replace(notebook=earlier.notebook))
        else:
            found += runs_of(study, earlier)[: 1 if entry.each.startswith("first") else None]
    return found


# -- where things are ------------------------------------------------------------------------------------------


def executed_notebook(study: Study, notebook: str, variant: str = "", seed: str | int = "") -> Path:
    """Where a stage's executed notebook goes."""
    return study.results / "notebooks" / f"{Stage(notebook, variant, seed).name}.ipynb"


def failed_notebook(study: Study, stage: Stage) -> Path:
    """Where the copy of one that failed goes."""
    return executed_notebook(study, *stage).with_suffix(".failed.ipynb")


def note_file(study: Study, stage: Stage) -> Path:
    """Where a stage that finished notes what it ran from and what it left."""
    return study.artifacts / "stages" / f"{stage.name}.json"


def flag_file(study: Study, notebook: str, variant: str = "", seed: str | int = "") -> Path:
    """What Snakemake sees of a stage: a file that is there if the stage need not run."""
    return study.artifacts / "stages" / f"{Stage(notebook, variant, seed).name}.done"


def kept_files(study: Study, stage: Stage) -> list[Path]:
    """What a stage leaves below ``artifacts/<profile>``."""
    entry, found = known()[stage.notebook], []
    variants = [stage.variant] if stage.variant else study.params.variants
    seeds = [stage.seed] if stage.variant else study.params.seeds
    values = {"variant": variants, "seed": seeds, "data": sets_of(study, entry)}
    for pattern in entry.leaves:
        used = {name: some for name, some in values.items() if f"{{{name}}}" in pattern}
        found += [pattern.format(**dict(zip(used, chosen, strict=True))) for chosen in product(*used.values())]
    measures = [study.measures(stage.notebook)] if entry.measures else []
    return [*(study.artifacts / name for name in found), *measures]


def stage_outputs(study: Study, notebook: str, variant: str = "", seed: str | int = "") -> list[Path]:
    """Every file that a stage leaves, its executed notebook included."""
    executed = executed_notebook(study, notebook, variant, seed)
    shown = [path for artefact in known()[notebook].artefacts for path in artefact.files(study.results)]
    return [executed, executed.with_suffix(".html"), *kept_files(study, Stage(notebook, variant, seed)), *shown]


def declared(study: Study, stage: Stage) -> dict:
    """What a stage may read, as its kernel is told (see ``config.watched``)."""
    entry = known()[stage.notebook]

    def left(some: Stage) -> list[str]:
        return [path.relative_to(study.artifacts).as_posix() for path in kept_files(study, some)]

    return {
        "notebook": stage.notebook,
        "params": [*entry.params, *(f"published.{name}" for name in entry.published)],
        "data": list(sets_of(study, entry)),
        "left": {name: some.notebook for some in all_stages(study) for name in left(some)},
        "allowed": [name for some in (stage, *upstream(study, stage)) for name in left(some)],
    }


# -- what a stage depends on -----------------------------------------------------------------------------------


def code_cells(notebook: str) -> str:
    """Source of a notebook's code cells: its prose may change without consequences."""
    path = PROJECT / "notebooks" / f"{notebook}.ipynb"
    try:
        cells = read_json(path)["cells"]
    except (ValueError, KeyError, TypeError):
        raise StudyError(f"{path}: is no notebook, or a damaged one; restore it.") from None
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def code_state(notebook: str) -> list[str]:
    """A hash of a notebook's code cells, and one of the code that they use."""
    cells = code_cells(notebook)
    try:
        return [syntax_hash(cells), code_hash(cells)]
    except SyntaxError as error:
        raise StudyError(
            f"notebook {notebook}, or a module that it uses, is not Python ({error.msg}, at "
            f"{one_line(error.text or '')!r}); mend it; lines for IPython alone, with % or !, are not understood."
        ) from None


def stage_params(study: Study, notebook: str) -> dict:
    """Dotted key -> value of all that a stage reads, with the contents of weights that are named; and the label."""
    entry = known()[notebook]
    paper = leaves(Study.published().params.model_dump(), "published.") if entry.published else {}
    values = leaves(study.params.model_dump()) | paper
    chosen = {key: value for key, value in values.items() if entry.declares(key)}
    for key, value in chosen.items():
        if key.endswith((".weights", ".checkpoint")) and value and not key.startswith("published."):
            chosen[key] = file_content(study, value)
    return {**chosen, "label": study.label}


def file_content(study: Study, name: str) -> str | None:
    """SHA-256 of a file that the parameters name, read again only where it changed; None where there is none."""
    path = study.resolve(Path(name))
    if not path.is_file():
        return None
    cache = study.artifacts / "index" / f"{sha256_json(str(path))[:12]}.files.csv"
    return census(path.parent, [path], cache)[path.name]


def inputs(study: Study, stage: Stage) -> dict[str, str] | None:
    """Path -> SHA-256 of what earlier stages left for this one, as they noted it; None where one has not run."""
    found = {}
    indices = {study.index(dataset) for dataset in sets_of(study, known()[stage.notebook])}
    for earlier in upstream(study, stage):
        note = read_note(study, earlier)
        if note is None:
            return None
        wanted = indices if known()[earlier.notebook].data == "all" else kept_files(study, earlier)
        names = {path.relative_to(study.root).as_posix() for path in wanted}
        found |= {name: digest for name, digest in note["outputs"].items() if name in names}
    return found


def key(study: Study, stage: Stage) -> str:
    """Hash of all that a stage's outputs depend on: parameters, cells, code, packages, and what earlier stages left."""
    code = [*code_state(stage.notebook), lock_hash(COMPUTING + SHOWING)]
    return sha256_json([stage_params(study, stage.notebook), code, inputs(study, stage)])


def data_state(study: Study, stage: Stage) -> dict[str, str]:
    """Data set -> what its folder holds, for the stage that reads it all."""
    return {name: state_of(study, name) for name in needed_sets(study) if known()[stage.notebook].data == "all"}


# -- what is finished ------------------------------------------------------------------------------------------


def read_note(study: Study, stage: Stage) -> dict | None:
    """A stage's note; None where there is none that can be read, or it says nothing of outputs."""
    try:
        note = read_json(note_file(study, stage))
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) and isinstance(note.get("outputs"), dict) else None


def is_finished(study: Study, stage: Stage) -> bool:
    """True where a stage ran from what is there now, and all that it left is there as it left it."""
    note = read_note(study, stage)
    if note is None or note.get("key") != key(study, stage) or note.get("data") != data_state(study, stage):
        return False
    expected = {path.relative_to(study.root).as_posix() for path in stage_outputs(study, *stage)}
    return expected == set(note["outputs"]) and all(
        (study.root / name).is_file() and sha256_file(study.root / name) == digest
        for name, digest in note["outputs"].items()
    )


def due(study: Study) -> list[Stage]:
    """The stages that are not finished, and those that read what they leave, in an order in which they can run.

    Of the latter, one whose inputs come out as they were is found finished when its turn comes.
    """
    waiting: list[Stage] = []
    for stage in all_stages(study):
        if not set(waiting).isdisjoint(upstream(study, stage)) or not is_finished(study, stage):
            waiting.append(stage)
    return waiting


def raise_flags(study: Study) -> list[Stage]:
    """Tell Snakemake what is finished, by a flag file each; returns what is ``due``."""
    waiting = due(study)
    for stage in all_stages(study):
        flag = flag_file(study, *stage)
        flag.parent.mkdir(parents=True, exist_ok=True)
        if stage in waiting:
            flag.unlink(missing_ok=True)
        else:
            flag.touch()
            failed_notebook(study, stage).unlink(missing_ok=True)  # of a request that was given up since
    return waiting
