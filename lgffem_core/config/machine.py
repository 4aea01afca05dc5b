"""What a run computes on: the processor, the GPU with its driver, and the versions that numbers depend on.

Nothing here imports torch: a run in which nothing is to be done should not wait for it.
"""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from lgffem_core.base.project import PROJECT

#: What draws synthetic images, and slides in record form.
DRAWING = (
    "numpy",
    "scipy",
    "opencv-python-headless",
    "opencv-python",  # the same module in other builds, which PathML or a user's environment may bring
    "opencv-contrib-python-headless",
    "opencv-contrib-python",
)
#: What can change a weight or an embedding, by reading images, ordering them, or computing. What is not here or below,
#: like readers of parameters, notebooks' pages and the order of stages, changes no number; a CUDA library and llvmlite
#: come with exactly one version of torch and of numba.
COMPUTING = (
    *DRAWING,
    "torch",
    "torchvision",
    "timm",
    "lightning-fabric",
    "pytorch-metric-learning",
    "albumentations",
    "albucore",
    "simsimd",
    "stringzilla",
    "pillow",
    "simplejpeg",
    "natsort",
    "pandas",
)
#: What can change a score, a projection or a figure: by another version stages run again, and nothing is trained again.
SHOWING = (
    "faiss-cpu",
    "faiss-gpu",
    "scikit-learn",
    "umap-learn",
    "pynndescent",
    "numba",
    "threadpoolctl",
    "grad-cam",
    "torchstain",
    "matplotlib",
    "contourpy",
    "kiwisolver",
    "seaborn",
)
#: Instruction sets by which libraries choose how to sum, the widest first, as Linux names those of x86 and of ARM.
WIDEST = ("amx_tile", "avx512_bf16", "avx512f", "avx2", "avx", "sve2", "sve", "asimd")
PATIENCE = 5  # seconds for the driver to answer


def machine(device: str) -> dict[str, str | None]:
    """Processor and architecture; GPU and driver unless ``device`` (``compute.device``) is "cpu": then null."""
    gpu, driver = (None, None) if device == "cpu" else graphics()
    return {"processor": processor(), "architecture": platform.machine(), "gpu": gpu, "driver": driver}


def processor(told: Path = Path("/proc/cpuinfo")) -> str:
    """The processor in words, with the widest instruction set that Linux tells of, and the number of cores.

    The name alone is not enough: virtual machines give processors of several generations, whose last bits differ, one.
    """
    lines = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    model = facts.get("model name") or platform.processor() or "unknown processor"
    sets = facts.get("flags", facts.get("Features", "")).split()
    return ", ".join([model, *[name for name in WIDEST if name in sets][:1], f"{os.cpu_count()} cores"])


@cache
def graphics() -> tuple[str | None, str | None]:
    """Name and driver version of the first NVIDIA GPU; (None, None) where there is none that answers."""
    if shutil.which("nvidia-smi") is None:
        return None, None
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout
        name, driver = answer.splitlines()[0].split(",")
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return None, None
    return name.strip(), driver.strip()


def installed_versions(packages: tuple[str, ...] = COMPUTING + SHOWING) -> dict[str, str]:
    """Versions of the packages that numbers and figures depend on, as far as they are installed."""
    versions = {}
    for name in packages:
        try:
            version = importlib.metadata.version(name)
        except (importlib.metadata.PackageNotFoundError, FileNotFoundError):  # the latter: half removed
            continue
        if version:  # of a half removed one Python 3.11 gives None
            versions[name] = version
    return versions


def lock_file() -> Path:
    """What this environment was made from: the lock that ``run_all.sh`` noted, or conda's ``environment.yml``."""
    note = Path(sys.prefix) / ".made-from"  # and not ".lock", which uv keeps for itself, empty
    name = note.read_text(encoding="utf-8").strip() if note.is_file() else ""
    conda = sys.prefix == os.environ.get("CONDA_PREFIX")
    return PROJECT / (name or os.environ.get("LGFFEM_LOCK") or ("environment.yml" if conda else "requirements.lock"))
