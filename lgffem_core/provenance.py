"""manifest.json: what made each result, from which inputs, where and how long it took."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from lgffem_core.files import read_json, sha256_file, write_json
from lgffem_core.params import DATASETS
from lgffem_core.report.page import PRODUCER, report_path
from lgffem_core.stages import MEASURING, all_stages, stage_name
from lgffem_core.study import Study

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "pytorch-metric-learning",
    "faiss-cpu",
    "faiss-gpu",
    "albumentations",
    "numpy",
    "pandas",
    "scikit-learn",
    "umap-learn",
    "numba",
    "grad-cam",
    "torchstain",
    "matplotlib",
    "lightning-fabric",
)


def installed_versions() -> dict[str, str]:
    """Versions of the packages that numbers depend on, as far as they are installed."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def commit(root: Path) -> dict:
    """The commit that the checkout is at, and whether files differ from it; null outside a checkout."""

    def git(*arguments):
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    changed = git("status", "--porcelain", "--untracked-files=no")
    return {"id": git("rev-parse", "HEAD"), "changed_files": None if changed is None else bool(changed)}


def device() -> str:
    """The processor that computed, in words."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    model = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), "CPU")
    return f"{model} ({platform.machine()}, {os.cpu_count()} cores)"


def write_manifest(study: Study) -> Path:
    """Put the stages' notes together as ``results/<profile>/manifest.json``, the report included."""
    artefacts, stages = {}, {}
    for notebook, variant, seed in all_stages(study):
        name = stage_name(notebook, variant, seed)
        note = read_json(study.artifacts / "stages" / f"{name}.json")
        stages[name] = {k: note[k] for k in ("producer", "seed", "seconds", "peak_memory_mib")}
        artefacts |= {
            path: {"producer": note["producer"], "stage": name, "sha256": digest}
            for path, digest in note["outputs"].items()
        }
    report = report_path(study)
    artefacts[os.path.relpath(report, study.root)] = {
        "producer": PRODUCER,
        "stage": None,
        "sha256": sha256_file(report),
    }
    locks = {path.name: sha256_file(path) for path in sorted(study.root.glob("requirements*.lock"))}
    return write_json(
        study.results / "manifest.json",
        {
            "label": study.label,
            "profile": study.params.profile,
            "parameters": study.params.model_dump(mode="json"),
            "inputs": {
                dataset: {
                    "synthetic": study.is_synthetic(dataset),
                    "index_sha256": sha256_file(study.index(dataset)),
                }
                for dataset in DATASETS
            },
            "commit": commit(study.root),
            "locks": locks,
            "python": platform.python_version(),
            "packages": installed_versions(),
            "device": device(),
            "stages": stages,
            "measures": {notebook: read_json(study.measures(notebook)) for notebook in MEASURING},
            "artefacts": artefacts,
        },
    )


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
