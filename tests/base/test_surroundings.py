"""What a run's processes see of the user's environment: what describes the machine, and no other program's settings."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lgffem_core.base import surroundings
from lgffem_core.base.errors import StudyError
from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import Study

SETTINGS = (
    "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONOPTIMIZE", "PYTHONWARNINGS", "PYTHONHASHSEED", "IPYTHONDIR",
    "JUPYTER_PATH", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_PLATFORM_DIRS", "MPLBACKEND", "MPLCONFIGDIR",
    "MATPLOTLIBRC", "SNAKEMAKE_PROFILE", "NUMBA_DISABLE_JIT", "LT_PRECISION", "LT_DEVICES", "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "TIMM_FUSED_ATTN", "SCIPY_ARRAY_API", "BASH_ENV", "ENV", "GIT_DIR",
)  # fmt: skip
MACHINE = (
    "PATH", "HOME", "LD_LIBRARY_PATH", "LD_PRELOAD", "TMPDIR", "CONDA_PREFIX", "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG", "PYTORCH_CUDA_ALLOC_CONF", "NCCL_SOCKET_IFNAME",
    "SLURM_JOB_ID", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "HTTPS_PROXY", "SSL_CERT_FILE", "HF_HOME", "HF_ENDPOINT",
    "HF_HUB_OFFLINE", "TORCH_HOME", "LANG", "LC_ALL", "TZ", "TERM", "LGFFEM_OUTPUT", "LGFFEM_LOCK", "RANK",
    "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "TORCHELASTIC_RUN_ID", "GIT_CONFIG_GLOBAL", "GIT_SSH_COMMAND",
    "COV_CORE_SOURCE", "ENVIRONMENT_NAME",
)  # fmt: skip


def test_settings_of_other_programs_stay_outside_and_the_machine_stays_as_it_is():
    given = dict.fromkeys((*SETTINGS, *MACHINE), "theirs")
    assert surroundings.foreign(given) == sorted(SETTINGS)
    assert surroundings.clean(given) == dict.fromkeys(MACHINE, "theirs") | surroundings.PINNED
    assert surroundings.foreign(surroundings.clean(given)) == []


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A folder, the current one, with modules that have the names of others; variables that name it; no home."""
    for name in ("yaml", "copy", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('theirs')")
    (matplotlibrc := tmp_path / "theirs.rc").write_text("axes.facecolor: yellow")  # the current folder's: test_style
    monkeypatch.setenv("MATPLOTLIBRC", str(matplotlibrc))
    for name in ("PYTHONPATH", "IPYTHONDIR", "PYTHONHOME"):
        monkeypatch.setenv(name, str(tmp_path))
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "/proc/0")
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


PROBE = """
import copy, os, sys, yaml
import matplotlib, matplotlib.font_manager
from IPython.paths import get_ipython_dir
from jupyter_core.paths import jupyter_runtime_dir
assert __debug__
assert matplotlib.rcParams["axes.facecolor"] == "white"
for folder in (matplotlib.get_cachedir(), matplotlib.get_configdir(), get_ipython_dir(), jupyter_runtime_dir()):
    assert folder.startswith(sys.argv[1]), folder
print("η")
"""


def test_a_process_of_a_run_works_in_hostile_surroundings(hostile):
    environment = surroundings.of_run(hostile / "out", hostile / "out" / "private")
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(hostile / "out")], env=environment, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout.decode(), done.stderr.decode()) == (0, "η\n", "")


@pytest.mark.parametrize("given", [{}, {"XDG_CACHE_HOME": "cache"}, {"HF_HOME": "hf", "TORCH_HOME": "torch"}])
def test_downloaded_weights_are_looked_for_where_they_were(tmp_path, monkeypatch, given):
    """Where torch and the hub's client say so themselves."""
    for name in ("XDG_CACHE_HOME", "HF_HOME", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, folder in given.items():
        monkeypatch.setenv(name, str(tmp_path / folder))
    ask = "from huggingface_hub import constants; print(constants.HF_HUB_CACHE, constants.HF_TOKEN_PATH)"
    ours = surroundings.of_run(tmp_path, tmp_path)
    hub = [subprocess.check_output([sys.executable, "-c", ask], env=env) for env in (os.environ, ours)]
    assert hub[0] == hub[1]
    folder = torch.hub.get_dir()
    monkeypatch.setenv("TORCH_HOME", ours["TORCH_HOME"])
    monkeypatch.setenv("XDG_CACHE_HOME", ours["XDG_CACHE_HOME"])
    assert torch.hub.get_dir() == folder


def test_a_process_of_another_python_stops_before_it_does_anything(monkeypatch):
    monkeypatch.setenv(surroundings.PREFIX, sys.prefix)
    Study.load(PROJECT / "params" / "smoke.yaml")
    monkeypatch.setenv(surroundings.PREFIX, "/another")
    with pytest.raises(StudyError, match="not the Python of /another"):
        Study.load(PROJECT / "params" / "smoke.yaml")


@pytest.mark.parametrize("words", [["params/none.yaml"], ["test", "--version"], ["torchrun", "--help"]])
def test_the_command_starts_in_hostile_surroundings(hostile, words):
    if not (PROJECT / ".venv" / ".complete").is_file():
        pytest.skip("the tests do not run in .venv of this checkout")
    done = subprocess.run([PROJECT / "run_all.sh", *words], capture_output=True, text=True, check=False)
    assert "theirs" not in done.stderr and "Traceback" not in done.stderr
    said = f"error: {hostile}/params/none.yaml: no such parameter file; the profiles are in params/.\n"
    assert (done.returncode, done.stderr) == (2, said) if words[0] == "params/none.yaml" else done.returncode == 0


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_the_command_says_how_it_is_used_and_sets_nothing_up(tmp_path, word):
    shutil.copy(PROJECT / "run_all.sh", tmp_path)
    done = subprocess.run([tmp_path / "run_all.sh", word], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "") and [*tmp_path.iterdir()] == [tmp_path / "run_all.sh"]
    assert "\n  ./run_all.sh test [pytest options] " in done.stdout and "#" not in done.stdout
    assert done.stdout.splitlines()[-1].endswith("everything else comes with the lock.")


def test_the_command_fixes_what_a_run_fixes():
    (line,) = re.findall("^export (.*)$", (PROJECT / "run_all.sh").read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(word.split("=") for word in line.split()) == surroundings.PINNED


def test_the_command_finds_its_folder_whatever_cd_does(hostile, monkeypatch):
    """With CDPATH set, ``cd`` looks elsewhere first, and prints where it went."""
    monkeypatch.setenv("CDPATH", str(PROJECT.parent))
    command = ["bash", f"{PROJECT.name}/run_all.sh", "params/none.yaml"]
    (hostile / PROJECT.name).mkdir()
    (hostile / PROJECT.name / "run_all.sh").write_bytes((PROJECT / "run_all.sh").read_bytes())
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"is not in {Path(hostile, PROJECT.name)};" in done.stderr  # there is no lock beside the copy
