"""The stages of a run: one notebook each, what it writes, and what its result depends on.

The Snakefile turns this list into a graph. A stage runs again when its ``stamp`` changes: parameters, the
notebook's code cells, the modules its layer may depend on, or the data on disk. Nothing here imports torch.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from lgffem_core.artefacts import ARTEFACTS
from lgffem_core.code_version import code_hash
from lgffem_core.files import read_json, sha256_file, sha256_json, write_json
from lgffem_core.params import DATASETS
from lgffem_core.study import PROJECT, Study

#: Notebook -> the layer of code that its outputs depend on.
NOTEBOOKS = {
    "01_data_preparation": "data",
    "02_model_definition": "model",
    "03_strategy_a_imagenet": "training",
    "04_strategy_b_pannuke": "training",
    "05_strategy_c_kimia": "training",
    "06_baselines": "report",
    "07_faiss_evaluation": "report",
    "08_grad_cam": "report",
    "09_projection": "report",
    "10_protocol_audit": "report",
    "11_ledger": "report",
}
#: Parameters that a notebook of the last layer does not read, so that they do not make it run again.
UNREAD = {
    "06_baselines": ("training", "variants", "explain", "projection", "ledger"),
    "07_faiss_evaluation": ("explain", "projection", "ledger"),
    "08_grad_cam": ("baselines", "retrieval", "projection", "ledger"),
    "09_projection": ("baselines", "retrieval", "explain", "ledger"),
    "10_protocol_audit": ("explain", "projection", "ledger"),
    "11_ledger": ("baselines", "explain", "projection"),
}
STRATEGY_OF = {"03_strategy_a_imagenet": "a", "04_strategy_b_pannuke": "b", "05_strategy_c_kimia": "c"}
MEASURING = ("08_grad_cam", "09_projection")  # leave numbers for the manifest


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


def stage_name(notebook: str, variant: str = "", seed: str | int = "") -> str:
    """``03_strategy_a_imagenet`` of variant paper and seed 0 -> ``03_strategy_a_imagenet_paper_seed0``."""
    return f"{notebook}_{variant}_seed{seed}" if variant else notebook


def executed_notebook(study: Study, notebook: str, variant: str = "", seed: str | int = "") -> Path:
    """Where a stage's executed notebook goes."""
    return study.results / "notebooks" / f"{stage_name(notebook, variant, seed)}.ipynb"


def stage_outputs(study: Study, notebook: str, variant: str = "", seed: str | int = "") -> list[Path]:
    """Every file that a stage leaves, its executed notebook included."""
    executed = executed_notebook(study, notebook, variant, seed)
    files = [executed, executed.with_suffix(".html")]
    if notebook == "01_data_preparation":
        files += [study.index(dataset) for dataset in DATASETS]
    elif notebook in STRATEGY_OF:
        folder = study.checkpoints(STRATEGY_OF[notebook], variant, seed)
        files += [folder / "model.safetensors", folder / "history.csv"]
    elif notebook == "06_baselines":
        for seed in study.params.seeds:
            folders = {name: study.baseline(name, seed) for name in ("densenet121", "ma_ms")}
            files += [folder / "embeddings.safetensors" for folder in folders.values()]
            files += [folders["ma_ms"] / "model.safetensors", folders["ma_ms"] / "history.csv"]
    if notebook in MEASURING:
        files.append(study.measures(notebook))
    for artefact in ARTEFACTS:
        if artefact.notebook == notebook:
            files += artefact.files(study.results)
    return files


def all_stages(study: Study) -> list[tuple[str, str, str | int]]:
    """Every (notebook, variant, seed) of a run, in an order in which they can run."""
    runs = [(v, s) for v in study.params.variants for s in study.params.seeds]
    stages = [("01_data_preparation", "", ""), ("02_model_definition", "", "")]
    stages += [(notebook, v, s) for v, s in runs for notebook in STRATEGY_OF]
    return stages + [(notebook, "", "") for notebook in NOTEBOOKS if notebook > "06"]


def code_cells(notebook: str) -> list[str]:
    """Source of a notebook's code cells: its prose may change without consequences."""
    cells = read_json(PROJECT / "notebooks" / f"{notebook}.ipynb")["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def data_state(study: Study) -> dict:
    """Names, sizes and times of the user's data files, for noticing that they changed.

    ImageNet has over a million of them; there the class folders' times stand for their contents.
    """
    state = {}
    for dataset in DATASETS:
        if not study.is_synthetic(dataset):
            root = study.data_root(dataset)
            pattern = "train/*" if dataset == "imagenet" else "**/*"
            state[dataset] = [
                [p.as_posix(), p.stat().st_size, p.stat().st_mtime_ns] for p in sorted(root.glob(pattern))
            ]
    return state


def stamp(study: Study, notebook: str) -> str:
    """Hash of all that a stage's outputs depend on, but for the outputs of earlier stages."""
    params = study.params.model_dump(mode="json")
    layer = NOTEBOOKS[notebook]
    if notebook in STRATEGY_OF:  # neither later strategies nor the search matter to this one's weights
        later = [s for s in STRATEGY_OF.values() if s > STRATEGY_OF[notebook]]
        training = {key: value for key, value in params["training"].items() if key not in later}
        params = {"data": params["data"], "model": params["model"], "compute": params["compute"], "training": training}
    if layer == "data":
        depends = {"data": params["data"], "state": data_state(study)}
    elif layer == "model":
        depends = {"model": params["model"], "variants": params["variants"], "seeds": params["seeds"]}
    else:
        depends = {key: value for key, value in params.items() if key not in UNREAD.get(notebook, ())}
    if layer == "report":  # the published values and the ledger of disagreements
        depends = depends | {
            "reference": {p.name: sha256_file(p) for p in (PROJECT / "params" / "reference").iterdir()}
        }
    return sha256_json([depends, json.dumps(code_cells(notebook)), code_hash(layer)])
