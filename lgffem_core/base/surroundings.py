"""The environment variables that the processes of a run see: one place for all that the command starts.

What describes the machine stays as it is: paths, libraries, GPUs, the scheduler, threads, proxies, language, the
folders of downloaded weights. Such names are without end, so those that must stay are not listed; listed are those by
which a user sets the programs that the study is made of, which would make another study of it.
"""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from lgffem_core.base.errors import StudyError

#: Names, or how they begin, of what stays outside.
FOREIGN = re.compile(
    r"(PYTHON|IPYTHON|IPYKERNEL|JUPYTER|NBCLIENT|PAPERMILL|SNAKEMAKE|MPL|MATPLOTLIB)"  # where and how programs start
    r"|(LT|NUMBA|NPY|NUMPY|PANDAS|SCIPY|SKLEARN|TIMM)_"  # precision and algorithms; LT is Lightning Fabric
    r"|(NVIDIA_TF32_OVERRIDE|TORCH_ALLOW_TF32_CUBLAS_OVERRIDE)$"  # float32 would be something else
    r"|(BASH_ENV|ENV)$"  # what a shell runs first, and might set the others
    r"|GIT_(DIR|WORK_TREE|INDEX_FILE|COMMON_DIR|OBJECT_DIRECTORY|EXTERNAL_DIFF)$"  # the commit of another checkout
)
#: As run_all.sh has it. Python: nothing from the current folder or the user's packages; UTF-8 whatever the language is.
#: glibc: memory that a step gives back is kept for the next; to ask the system anew took a fifth of a training's time.
PINNED = {
    "PYTHONSAFEPATH": "1",
    "PYTHONNOUSERSITE": "1",
    "PYTHONUTF8": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),  # bytes: blocks below it come from the heap
    "MALLOC_TRIM_THRESHOLD_": str(1 << 32),  # bytes: so much of it is kept when free
}
PRIVATE = "lgffem_run_"  # folders of temporary files, by the process that made them: the next run knows whose are left
PREFIX = "LGFFEM_PREFIX"  # the environment whose Python a run's processes must be


def foreign(environment: Mapping[str, str]) -> list[str]:
    """The names in ``environment`` that stay outside."""
    return sorted(n for n, value in environment.items() if FOREIGN.match(n) and PINNED.get(n) != value)


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    """``environment`` without what stays outside, and with what is fixed."""
    return {name: value for name, value in environment.items() if not FOREIGN.match(name)} | PINNED


def of_run(root: Path, private: Path) -> dict[str, str]:
    """What everything that a run starts gets: settings and caches of its own, so that no home need be writable.

    Args:
        root: folder of the study's ``artifacts/``, where caches are kept.
        private: a folder that only this user can read, for the addresses of kernels.
    """
    own = root / "artifacts" / ".settings"  # no profile's name begins with a dot
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    downloads = {"HF_HOME": cache / "huggingface", "TORCH_HOME": cache / "torch"}  # shared with other projects
    places = {
        "XDG_CACHE_HOME": own / "cache",
        "MPLCONFIGDIR": own / "matplotlib",
        "IPYTHONDIR": own / "ipython",
        "JUPYTER_CONFIG_DIR": own / "jupyter",
        "JUPYTER_DATA_DIR": own / "jupyter",
        "JUPYTER_RUNTIME_DIR": private,
    }
    named = {name: str(path) for name, path in (downloads | places).items()}
    for name in downloads.keys() & os.environ.keys():
        named[name] = os.environ[name]
    return clean(os.environ) | named | {PREFIX: sys.prefix}


def check_python() -> None:
    """``StudyError`` in a process of a run that is not of the run's own Python environment."""
    if os.environ.get(PREFIX, sys.prefix) != sys.prefix:
        raise StudyError(
            f"this process runs {sys.executable} and not the Python of {os.environ[PREFIX]}, which the run was started "
            "with; see ./run_all.sh doctor."
        )
