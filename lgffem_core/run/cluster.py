"""A run on a cluster: the folder of a Snakemake profile, whose executor hands each stage to the cluster as a job."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

from lgffem_core.base.errors import RequestError
from lgffem_core.config.parameter_files import read_yaml

SUBMITS = {"slurm": "sbatch"}  # the program by which an executor hands over jobs; cluster-generic is told its own


def cluster_profile(folder: str) -> Path:
    """The folder behind ``--cluster``; programs in it are found by name from now on.

    ``RequestError`` where it is no Snakemake profile, or its executor cannot work here.
    """
    path = Path(folder).resolve()
    if not (path / "config.yaml").is_file():
        raise RequestError(f"--cluster {folder}: holds no config.yaml; profiles/slurm and profiles/kubernetes do.")
    settings = read_yaml(path / "config.yaml")
    executor = settings.get("executor")
    if not isinstance(executor, str):
        raise RequestError(f"{path / 'config.yaml'}: says no executor, as in executor: slurm.")
    if find_spec(f"snakemake_executor_plugin_{executor.replace('-', '_')}") is None:
        raise RequestError(
            f"{path / 'config.yaml'}: Snakemake's plugin for the executor {executor} is missing; install it: "
            f".venv/bin/python -m pip install --no-deps -r {os.path.relpath(path / 'requirements.txt')}"
        )
    os.environ["PATH"] = os.pathsep.join([str(path), os.environ.get("PATH", os.defpath)])
    submits = SUBMITS.get(executor) or str(settings.get(f"{executor}-submit-cmd", "")).partition(" ")[0]
    if submits and shutil.which(submits) is None:
        raise RequestError(f"--cluster {folder}: {submits} is not found; start the run where jobs can be submitted.")
    return path
