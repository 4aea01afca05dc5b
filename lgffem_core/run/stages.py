"""The stages of a run: one notebook each, what it reads and writes, and whether it is finished.

A stage is finished when its note says that it ran from what is there now: the same parameters, the same code, the
same packages, inputs and outputs of the same content. Neither times of files nor what a notebook says of itself count.
Nothing here imports torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lgffem_core.base.errors import StudyError
from lgffem_core.base.files import read_json, sha256_file, sha256_json, write_json
from lgffem_core.base.project import PROJECT
from lgffem_core.config.code_version import code_hash, lock_hash, syntax_hash
from lgffem_core.config.machine import COMPUTING, SHOWING
from lgffem_core.config.parameter_files import one_line
from lgffem_core.config.params import DATASETS
from lgffem_core.config.study import CURRICULUM, Study
from lgffem_core.data.census import census
from lgffem_core.data.census import data_state as state_of
from lgffem_core.run.artefacts import ARTEFACTS

STRATEGY_OF = {"03_strategy_a_imagenet": "a", "04_strategy_b_pannuke": "b", "05_strategy_c_kimia": "c"}
MEASURING = ("08_grad_cam", "09_projection")  # leave numbers for the manifest

#: Notebook -> the data sets whose index it reads. Weights of strategies stand for what those were trained on.
NOTEBOOKS = {
    "01_data_preparation": (),
    "02_model_definition": ("kimia",),
    "03_strategy_a_imagenet": ("imagenet",),
    "04_strategy_b_pannuke": ("pannuke",),
    "05_strategy_c_kimia": ("kimia",),
    "06_baselines": ("kimia",),
    "07_faiss_evaluation": ("kimia",),
    "08_grad_cam": ("kimia",),
    "09_projection": ("kimia",),
    "10_protocol_audit": ("kimia", "pannuke", "imagenet"),
    "11_ledger": ("kimia", "pannuke"),
}
#: Sections of the parameters that a notebook reads, besides its data sets' and ``compute``.
EVALUATED = ("model", "training", "variants", "seeds", "retrieval")
SECTIONS = {
    "01_data_preparation": (),
    "02_model_definition": ("model", "variants", "seeds"),
    "03_strategy_a_imagenet": ("model", "training"),
    "04_strategy_b_pannuke": ("model", "training"),
    "05_strategy_c_kimia": ("model", "training"),
    "06_baselines": ("model", "seeds", "retrieval", "baselines"),
    "07_faiss_evaluation": (*EVALUATED, "baselines"),
    "08_grad_cam": ("model", "training", "variants", "seeds", "explain"),
    "09_projection": ("model", "training", "variants", "seeds", "projection"),
    "10_protocol_audit": (*EVALUATED, "baselines"),
    "11_ledger": (*EVALUATED, "ledger"),
}
#: Sections of params/paper.yaml, which says what the defaults say, that a notebook shows or compares with.
PUBLISHED = {
    "02_model_definition": ("model",),
    "03_strategy_a_imagenet": ("training",),
    "10_protocol_audit": ("data", "model", "training", "baselines"),
}
COMPUTE = ("device", "precision", "threads")  # the rest of that section changes no number
#: Of ``data``, what a later stage reads itself; everything else has gone into the index.
DATA_READ = {"pannuke": ("split", "tissues", "channel_order"), "kimia": ("scans",), "imagenet": ()}


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


def all_stages(study: Study) -> list[Stage]:
    """Every stage of a run, in an order in which they can run."""
    runs = [(v, s) for v in study.params.variants for s in study.params.seeds]
    strategies = [Stage(notebook, v, s) for v, s in runs for notebook in STRATEGY_OF]
    first, last = list(NOTEBOOKS)[:2], list(NOTEBOOKS)[2 + len(STRATEGY_OF) :]
    return [*map(Stage, first), *strategies, *map(Stage, last)]


def upstream(study: Study, stage: Stage) -> list[Stage]:
    """The stages whose outputs a stage reads."""
    data, trained = Stage("01_data_preparation"), [s for s in all_stages(study) if s.notebook in STRATEGY_OF]
    first = [s for s in trained if (s.variant, s.seed) == (study.params.variants[0], study.params.seeds[0])]
    baselines, evaluation = Stage("06_baselines"), Stage("07_faiss_evaluation")
    return {
        "01_data_preparation": [],
        "04_strategy_b_pannuke": [data, stage._replace(notebook="03_strategy_a_imagenet")],
        "05_strategy_c_kimia": [data, stage._replace(notebook="04_strategy_b_pannuke")],
        "07_faiss_evaluation": [data, *trained, baselines],
        "08_grad_cam": [data, *first],
        "09_projection": [data, *trained, evaluation],
        "10_protocol_audit": [data, *trained, baselines, evaluation],
    }.get(stage.notebook, [data])


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


def stage_outputs(study: Study, notebook: str, variant: str = "", seed: str | int = "") -> list[Path]:
    """Every file that a stage leaves, its executed notebook included."""
    executed = executed_notebook(study, notebook, variant, seed)
    files = [executed, executed.with_suffix(".html")]
    if notebook == "01_data_preparation":
        files += [study.index(dataset).with_suffix(end) for dataset in DATASETS for end in (".csv", ".json")]
    elif notebook in STRATEGY_OF:
        folder = study.checkpoints(STRATEGY_OF[notebook], variant, seed)
        files += [folder / "model.safetensors", folder / "history.csv"]
    elif notebook == "06_baselines":
        for seed in study.params.seeds:
            folders = {name: study.baseline(name, seed) for name in ("densenet121", "ma_ms")}
            files += [folder / "embeddings.safetensors" for folder in folders.values()]
            files += [folders["ma_ms"] / "model.safetensors", folders["ma_ms"] / "history.csv"]
    elif notebook == "07_faiss_evaluation":
        files += [study.embeddings(*run) for run in study.runs()]
    if notebook in MEASURING:
        files.append(study.measures(notebook))
    for artefact in ARTEFACTS:
        if artefact.notebook == notebook:
            files += artefact.files(study.results)
    return files


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
    """The parameters that a stage's outputs depend on, with the content of files that they name."""
    tree = study.params.model_dump(mode="json")
    if notebook == "01_data_preparation":
        return {"data": tree["data"], "image_size": tree["model"]["image_size"]}  # of the augmented images it shows
    chosen = {section: tree[section] for section in SECTIONS[notebook]}
    chosen["compute"] = {key: tree["compute"][key] for key in COMPUTE}
    chosen["data"] = {d: {key: tree["data"][d][key] for key in DATA_READ[d]} for d in NOTEBOOKS[notebook]}
    if notebook in STRATEGY_OF:  # the other strategies count through the weights that this one starts from
        others = set(CURRICULUM) - {STRATEGY_OF[notebook]}
        chosen["training"] = {key: value for key, value in tree["training"].items() if key not in others}
    if notebook not in ("02_model_definition", "03_strategy_a_imagenet"):  # embeds; other sums have other last bits
        chosen["embedded_at_once"] = tree["retrieval"]["batch_size"]
    if notebook in PUBLISHED:
        paper = Study.load(PROJECT / "params" / "paper.yaml").params.model_dump(mode="json")
        chosen["published"] = {section: paper[section] for section in PUBLISHED[notebook]}
    if notebook == "10_protocol_audit":  # the verdicts say whether numbers of images were checked
        chosen["check_counts"] = tree["data"]["check_counts"]
    return {**with_content(study, chosen), "label": study.label}


def with_content(study: Study, value):
    """A tree of parameters in which the SHA-256 of a file stands where its path stood."""
    if not isinstance(value, dict):
        return value
    return {
        key: file_content(study, leaf) if key in ("weights", "checkpoint") and leaf else with_content(study, leaf)
        for key, leaf in value.items()
    }


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
    indices = {study.index(dataset) for dataset in NOTEBOOKS[stage.notebook]}
    for earlier in upstream(study, stage):
        note = read_note(study, earlier)
        if note is None:
            return None
        wanted = stage_outputs(study, *earlier) if earlier.notebook != "01_data_preparation" else indices
        names = {path.relative_to(study.root).as_posix() for path in wanted if path.is_relative_to(study.artifacts)}
        found |= {name: digest for name, digest in note["outputs"].items() if name in names}
    return found


def key(study: Study, stage: Stage) -> str:
    """Hash of all that a stage's outputs depend on: parameters, cells, code, packages, and what earlier stages left."""
    code = [*code_state(stage.notebook), lock_hash(COMPUTING + SHOWING)]
    return sha256_json([stage_params(study, stage.notebook), code, inputs(study, stage)])


def data_state(study: Study, stage: Stage) -> dict[str, str]:
    """Data set -> what its folder holds, for the stage that reads it all."""
    return {name: state_of(study, name) for name in DATASETS if stage.notebook == "01_data_preparation"}


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
