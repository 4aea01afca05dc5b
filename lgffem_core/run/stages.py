"""The stages of a run: one notebook each, what it reads and writes, and where.

What a stage is stands in ``notebooks/stages.yaml`` (see ``registry``). Nothing here imports torch.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple, get_args

from lgffem_core.base.files import read_json, write_json
from lgffem_core.base.project import PROJECT
from lgffem_core.config.parameter_files import leaves
from lgffem_core.config.params import DATASETS, System
from lgffem_core.config.study import Study
from lgffem_core.config.watched import FREE, REGISTRY, covers
from lgffem_core.data.sets import get as get_set
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
    """The entries of the stages of the profile's systems; data are prepared where one of them reads some."""
    chosen = [entry for entry in known().values() if entry.system in (None, *study.params.systems)]
    return [entry for entry in chosen if entry.data != "all" or any(other.data for other in chosen if other != entry)]


def absent_systems(study: Study) -> set[str]:
    """The systems that a profile does not run."""
    return {*get_args(System)} - {*study.params.systems}


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


def synthetic_sets(study: Study) -> list[str]:
    """Those of them that are to be made, and are not there."""
    made = [name for name in study.params.data.synthetic.datasets if study.is_synthetic(name)]
    return [name for name in needed_sets(study) if name in made and not study.data_root(name).exists()]


def sets_of(study: Study, entry: Entry) -> tuple[str, ...]:
    """The data sets that a stage reads."""
    return needed_sets(study) if entry.data == "all" else entry.data


def unread(study: Study, overrides: dict) -> list[str]:
    """Dotted keys of what was set that no stage of the run reads: of a system or a data set that it is without, say.

    What a stage of all systems declares beside ``data``, as notebook 01 the size of the model's images, it shows in
    cells of a system that declares it too.
    """
    chosen = [entry for entry in entries(study) if entry.system]
    repeated = ("variants", "seeds") if any(entry.each != "once" for entry in chosen) else ()

    def is_read(key: str) -> bool:
        if covers("data", key):
            return is_read_of_data(study, key.removeprefix("data."))
        return key in FREE or key in repeated or any(entry.declares(key) for entry in chosen)

    return [key for key in leaves(overrides) if not is_read(key)]


def is_read_of_data(study: Study, key: str) -> bool:
    """True where a run's data depend on a key below ``data``: one of a data set that it has, of synthetic images only
    where it makes some, and only those of a set that it makes."""
    section, _, rest = key.partition(".")
    there = needed_sets(study)
    if section in DATASETS:
        return section in there
    if section != "synthetic":
        return bool(there)
    made = [name for name in there if study.is_synthetic(name)]
    if rest == "image_size":
        return any(get_set(name).pictures for name in made)
    of = [name for name in DATASETS if rest.startswith(f"{name}_")]
    return bool({*made} & {*(of or made)})


def runs_of(study: Study, entry: Entry) -> list[Stage]:
    """A stage's runs: one, or one for each variant and seed."""
    each = product(study.params.variants, study.params.seeds) if entry.repeated else [("", "")]
    return [Stage(entry.notebook, *run) for run in each]


def all_stages(study: Study) -> list[Stage]:
    """Every stage of a run, in an order in which they can run."""
    return [stage for entry in entries(study) for stage in runs_of(study, entry)]


def upstream(study: Study, stage: Stage) -> list[Stage]:
    """The stages whose outputs a stage reads: of repeated ones, a repeated stage its own, others all or the first.

    Those of other systems that it stands ``beside`` only where the profile runs them.
    """
    entry, found, here = known()[stage.notebook], [], {entry.notebook for entry in entries(study)}
    for earlier in map(known().get, [*entry.after, *(name for name in entry.beside if name in here)]):
        if earlier.repeated and entry.repeated:
            found.append(stage._replace(notebook=earlier.notebook))
        else:
            found += runs_of(study, earlier)[: 1 if entry.each.startswith("first") else None]
    return found


def processes(study: Study, entry: Entry) -> int:
    """How many train in a stage at a time: each has compute.threads threads, and a GPU where there are some."""
    return study.params.compute.devices if entry.repeated else 1


def resources(study: Study, entry: Entry) -> dict[str, int]:
    """What a run of a stage asks a cluster for, by Snakemake's names; no GPU where the profile computes without."""
    compute, asked = study.params.compute, entry.resources
    devices = processes(study, entry)
    return {
        "cpus_per_task": devices * (compute.threads + compute.workers),
        "mem_mb": asked.memory,
        "runtime": asked.minutes,
        "gpu": devices * int(asked.gpu and compute.device != "cpu"),
    }


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
