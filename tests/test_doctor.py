"""The doctor: every check on a machine that is made up, with both answers; and whole runs without a sound .venv."""

import ast
import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import doctor  # of tools/
import ipykernel_launcher
import pytest
import take_lock
from doctor import GIB, Finding
from hub import hub_state

from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import Study

LOCK = """\
torch==2.12.0 \\
    --hash=sha256:00
torchvision==0.27.0 \\
    --hash=sha256:00
numpy==2.4.6 ; python_full_version < '3.12' \\
    --hash=sha256:00
numpy==2.5.5 ; python_full_version >= '3.12' \\
    --hash=sha256:00
    # via torch
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:00
"""
PINS = doctor.locked_packages(LOCK)
SOUND = {"torch": "2.12.0", "torchvision": "0.27.0", "numpy": "2.4.6"}


def is_ok(finding: Finding) -> bool:
    """True for an ok; anything else must come with a remedy, and every sentence in one line."""
    assert finding.level == "ok" or (finding.level in ("warning", "FAULT") and finding.remedy)
    assert "\n" not in finding.sentence + finding.remedy
    return finding.level == "ok"


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def packages(**versions) -> dict[str, set[str]]:
    return {name.replace("_", "-"): {version} for name, version in versions.items()}


# -- the machine -----------------------------------------------------------------------------------------


def test_python_must_be_3_11_where_the_environment_is_still_to_be_made():
    assert is_ok(doctor.python((3, 11, 0), False)) and is_ok(doctor.python((3, 14, 1), False))
    assert doctor.python((3, 10, 13), False).level == "FAULT"
    assert doctor.python((3, 10, 13), True).level == "warning"


def test_disk_for_the_packages_or_for_a_run():
    assert is_ok(doctor.disk(3 * GIB, installed=True))
    finding = doctor.disk(3 * GIB, installed=False)
    assert finding.level == "FAULT" and "3.0 GiB" in finding.sentence and "10" in finding.sentence
    assert doctor.disk(1 * GIB, installed=True).level == "FAULT"


def test_memory_is_what_linux_says_or_less_in_a_container(tmp_path):
    meminfo, group = tmp_path / "meminfo", tmp_path / "group"
    assert doctor.available_memory(meminfo, group) is None and is_ok(doctor.memory(None))
    meminfo.write_text("MemTotal:       16384000 kB\nMemAvailable:    8388608 kB\n")
    assert doctor.available_memory(meminfo, group) == 8 * GIB
    group.mkdir()
    (group / "memory.current").write_text(f"{GIB}\n")
    (group / "memory.max").write_text("max\n")
    assert doctor.available_memory(meminfo, group) == 8 * GIB
    (group / "memory.max").write_text(f"{3 * GIB}\n")
    assert doctor.available_memory(meminfo, group) == 2 * GIB
    assert is_ok(doctor.memory(8 * GIB)) and doctor.memory(2 * GIB).level == "warning"


@pytest.mark.parametrize(("free", "level"), [(16 << 20, "warning"), (64 << 20, "warning"), (GIB, "ok")])
def test_shared_memory_of_a_container_is_small(tmp_path, monkeypatch, free, level):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    finding = doctor.shared_memory(tmp_path)
    assert is_ok(finding) == (level == "ok") and f"{free >> 20} MiB" in finding.sentence
    assert is_ok(doctor.shared_memory(tmp_path / "none"))


def test_one_processor_is_few():
    assert is_ok(doctor.processors(2)) and doctor.processors(1).level == "warning"


def test_a_folder_is_tried_and_left_as_it_was(tmp_path):
    assert is_ok(doctor.writable(tmp_path / "artifacts" / "demo"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "results").write_text("a file")
    finding = doctor.writable(tmp_path / "results")
    assert finding.level == "FAULT" and str(tmp_path / "results") in finding.sentence


def test_a_run_that_is_under_way_is_seen(tmp_path):
    lock = tmp_path / "run.lock"
    assert is_ok(doctor.run_lock(lock, "demo")) and not lock.exists()
    with open(lock, "w") as handle:
        assert is_ok(doctor.run_lock(lock, "demo"))
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert doctor.run_lock(lock, "demo").level == "FAULT"
    assert is_ok(doctor.run_lock(lock, "demo"))


def test_the_commit_or_why_there_is_none(tmp_path, monkeypatch):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    assert doctor.git(tmp_path).level == "warning"
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "one"], check=True)
    assert is_ok(doctor.git(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "git is not installed" in doctor.git(tmp_path).sentence


def test_java_is_only_mentioned():
    assert is_ok(doctor.java(None)) and "/bin/javac" in doctor.java("/bin/javac").sentence


# -- the environment -------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path):
    """A checkout with two locks, and an environment that is complete but for its packages."""
    (tmp_path / "requirements.lock").write_text(LOCK)
    (tmp_path / "requirements-gpu.lock").write_text(LOCK + "faiss-gpu==1.15.1\n")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    program(tmp_path / ".venv" / "bin" / "python", "exit 0")
    (tmp_path / ".venv" / ".complete").write_text(shell_stamp(tmp_path, "requirements.lock"))
    return tmp_path


def shell_stamp(root: Path, lock: str) -> str:
    """The stamp as run_all.sh computes it."""
    line = next(line for line in (PROJECT / "run_all.sh").read_text().splitlines() if "stamp=$(" in line)
    script = f'here={root!s}; lock="$here/{lock}"; {line.strip()}; echo "$stamp"'
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout


def look(checkout, lock="requirements.lock"):
    return doctor.environment(checkout / ".venv", checkout, lock)


def test_a_complete_environment(checkout):
    assert is_ok(look(checkout))


def test_a_missing_environment_is_made_by_the_first_run(checkout):
    shutil.rmtree(checkout / ".venv")
    assert look(checkout).level == "warning"


@pytest.mark.parametrize("broken", ["gone", "fails"])
def test_a_broken_interpreter(checkout, broken):
    (checkout / ".venv" / "bin" / "python").unlink()
    if broken == "fails":
        program(checkout / ".venv" / "bin" / "python", "echo no module encodings >&2; exit 1")
    finding = look(checkout)
    assert finding.level == "FAULT" and "does not start" in finding.sentence
    assert broken == "gone" or "no module encodings" in finding.sentence


def test_an_installation_that_was_stopped(checkout):
    (checkout / ".venv" / ".complete").unlink()
    finding = look(checkout)
    assert finding.level == "warning" and "incomplete" in finding.sentence


def test_an_environment_of_another_lock(checkout):
    finding = look(checkout, "requirements-gpu.lock")
    assert finding.level == "warning" and "from requirements.lock" in finding.sentence
    (checkout / "requirements.lock").write_text(LOCK + "# another\n")
    assert look(checkout).level == "warning"
    assert look(checkout, "none.lock").level == "FAULT"


def test_the_stamp_of_this_checkout_is_that_of_the_shell():
    shell = shell_stamp(PROJECT, "requirements.lock").strip()
    assert doctor.checksum(PROJECT / "requirements.lock", PROJECT / "pyproject.toml") == shell


# -- packages --------------------------------------------------------------------------------------------


def install(site: Path, name: str, version: str) -> None:
    (folder := site / f"{name}-{version}.dist-info").mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_packages_are_read_from_their_metadata(tmp_path):
    for name, version in {"Torch": "2.12.0+cu130", "torch_vision": "1", "numpy": "1"}.items():
        install(tmp_path, name, version)
    install(tmp_path, "numpy", "2")  # a second version, of an installation that was stopped
    (tmp_path / "half-1.0.dist-info").mkdir()
    found = doctor.installed_packages(tmp_path)
    assert found == {"torch": {"2.12.0"}, "torch-vision": {"1"}, "numpy": {"1", "2"}}


def test_half_removed_packages_are_told(tmp_path):
    install(tmp_path, "numpy", "1")
    assert is_ok(doctor.half_removed(tmp_path))
    for name in ("half-1.0", "rest-2"):
        (tmp_path / f"{name}.dist-info").mkdir()
    finding = doctor.half_removed(tmp_path)
    assert finding.level == "FAULT" and finding.sentence.endswith(": half-1.0.dist-info, rest-2.dist-info")


def test_a_lock_is_read_with_its_conditions():
    assert PINS == {
        "torch": ({"2.12.0"}, True),
        "torchvision": ({"0.27.0"}, True),
        "numpy": ({"2.4.6", "2.5.5"}, False),
        "colorama": ({"0.4.6"}, False),
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"torch": "2.13.0"}, "torch 2.13.0 instead of 2.12.0"),
        ({"torch": None}, "torch missing instead of 2.12.0"),
        ({"numpy": "1.26.4"}, "numpy 1.26.4 instead of 2.4.6 or 2.5.5"),
        ({"colorama": "0.3"}, "colorama 0.3 instead of 0.4.6"),
    ],
)
def test_packages_that_differ_from_the_lock(change, said):
    changed = {name: version for name, version in {**SOUND, **change}.items() if version}
    finding = doctor.versions(packages(**changed), PINS)
    assert finding.level == "FAULT" and said in finding.sentence


def test_packages_of_the_lock_and_others_beside_them():
    assert is_ok(doctor.versions(packages(**SOUND, more="1"), PINS))
    assert is_ok(doctor.versions(packages(**SOUND | {"numpy": "2.5.5"}), PINS))
    assert not is_ok(doctor.versions(packages(**SOUND) | {"torch": {"2.11.0", "2.12.0"}}, PINS))


@pytest.mark.parametrize(("vision", "level"), [("0.27.0", "ok"), ("0.26.0", "FAULT"), ("1.27.0", "FAULT")])
def test_torch_and_torchvision_are_one_release(vision, level):
    assert doctor.torch_pair(packages(torch="2.12.0", torchvision=vision)).level == level


def test_torch_without_torchvision_and_neither():
    assert not is_ok(doctor.torch_pair(packages(torch="2.12.0"))) and not is_ok(doctor.torch_pair({}))


@pytest.mark.parametrize(
    ("check", "one", "two"),
    [
        (doctor.one_opencv, "opencv-python-headless", "opencv-python"),
        (doctor.one_opencv, "opencv-python", "opencv-contrib-python"),
        (doctor.one_faiss, "faiss-cpu", "faiss-gpu"),
    ],
)
def test_one_package_a_module(check, one, two):
    assert is_ok(check({one: {"1"}, "torch": {"2"}}))
    finding = check({one: {"1"}, two: {"1"}})
    assert finding.level == "FAULT" and one in finding.sentence and two in finding.sentence
    assert check({}).level == "FAULT"


def test_two_cuda_versions_are_a_fault_unless_the_lock_has_both():
    both = packages(nvidia_cudnn_cu13="9", nvidia_cudnn_cu12="8")
    finding = doctor.one_cuda(both, {"nvidia-cudnn-cu13": ({"9"}, True)})
    assert finding.level == "FAULT" and "nvidia-cudnn-cu12" in finding.sentence
    assert is_ok(doctor.one_cuda(both, dict.fromkeys(both, ({"9"}, True))))
    assert is_ok(doctor.one_cuda(packages(nvidia_cudnn_cu13="9"), {}))


def test_the_notebooks_kernel(tmp_path):
    assert doctor.notebook_kernel(tmp_path).level == "FAULT"
    (tmp_path / "ipykernel_launcher.py").touch()
    assert is_ok(doctor.notebook_kernel(tmp_path))
    assert is_ok(doctor.notebook_kernel(Path(ipykernel_launcher.__file__).parent))


def test_a_copied_checkout_has_the_originals_environment(tmp_path):
    install(tmp_path, "lgffem_core", "0.1.0")
    link = tmp_path / "lgffem_core-0.1.0.dist-info" / "direct_url.json"
    assert doctor.own_code(tmp_path, tmp_path).level == "FAULT"
    link.write_text(json.dumps({"url": (tmp_path / "it's a copy").as_uri()}))
    assert is_ok(doctor.own_code(tmp_path, tmp_path / "it's a copy"))
    assert doctor.own_code(tmp_path, tmp_path).level == "FAULT"


# -- the GPU ---------------------------------------------------------------------------------------------


def smi(folder: Path, script: str, **options) -> Finding:
    return doctor.gpu(options.pop("cuda", "13.0"), str(program(folder / "nvidia-smi", script)), **options)


def test_without_a_driver_the_cpu_is_used(tmp_path):
    assert is_ok(doctor.gpu("13.0", str(tmp_path / "nvidia-smi")))


@pytest.mark.parametrize(
    ("driver", "cuda", "level", "said"),
    [
        ("580.65.06", "13.0", "ok", "driver 580.65.06, torch for CUDA 13.0"),
        ("550.54.15", "12.6", "ok", "CUDA 12.6"),
        ("550.54.15", "13.0", "warning", "too old for torch's CUDA 13.0"),
        ("580.65.06", "", "warning", "a build for the CPU"),
        ("580.65.06", None, "ok", "driver 580.65.06"),
        ("999.1", "99.0", "ok", "CUDA 99.0"),
    ],
)
def test_driver_and_torch(tmp_path, driver, cuda, level, said):
    row = f"NVIDIA H200, {driver}"
    finding = smi(tmp_path, f"echo '{row}'; echo '{row}'", cuda=cuda)
    assert (finding.level, is_ok(finding)) == (level, level == "ok") and said in finding.sentence
    assert finding.sentence.startswith("NVIDIA H200")


def test_a_driver_that_fails_or_hangs(tmp_path):
    finding = smi(tmp_path, "echo could not talk to the driver; exit 9")
    assert finding.level == "warning" and "could not talk" in finding.sentence
    finding = smi(tmp_path, "exec sleep 30", limit=0.2)
    assert finding.level == "warning" and "no answer within 0.2 s" in finding.sentence
    assert smi(tmp_path, "echo No devices were found").level == "warning"


def test_torchs_cuda_version_is_read_and_not_imported(tmp_path):
    assert doctor.torch_cuda(tmp_path) is None
    (file := tmp_path / "torch" / "version.py").parent.mkdir()
    for line, version in (("cuda: Optional[str] = '12.6'", "12.6"), ("cuda = '13.0'", "13.0"), ("cuda = None", "")):
        file.write_text(f"from typing import Optional\n__version__ = '2.12.0'\n{line}\nhip: Optional[str] = None\n")
        assert doctor.torch_cuda(tmp_path) == version


# -- the profile -----------------------------------------------------------------------------------------


def test_data_and_weights_come_from_the_checklist():
    finding, other = doctor.needs(
        {"missing": ["data.kimia.root is not set. Ask for it.", "x is not a file."], "slow": []}, "p"
    )
    assert finding == Finding("FAULT", "data.kimia.root is not set", "Ask for it") and other.level == "FAULT"
    finding, slow = doctor.needs({"missing": [], "slow": ["compute.precision: no units. Set it to auto."]}, "p")
    assert is_ok(finding) and slow == Finding("warning", "compute.precision: no units", "Set it to auto")
    (finding,) = doctor.needs({"error": "unknown parameter x."}, "p")
    assert finding.level == "FAULT" and finding.sentence == "unknown parameter x"


@pytest.mark.parametrize(("answers", "offline", "level"), [(True, False, "ok"), (False, False, "warning")])
def test_the_hub_matters_where_weights_come_from_it(answers, offline, level):
    state = {"networks": ["resnet18"], "server": "https://hub", "offline": offline, "answers": answers, "cache": "/tmp"}
    finding = doctor.hub(state)
    assert finding.level == level and "resnet18" in finding.sentence and "https://hub" in finding.sentence
    assert is_ok(doctor.hub(None))
    assert "HF_HUB_OFFLINE" in doctor.hub({**state, "offline": True}).sentence
    finding = doctor.hub({**state, "cache": "/proc/0/hub"})  # of a home that cannot be written
    assert finding.level == "warning" and "/proc/0/hub" in finding.sentence and "HF_HOME" in finding.remedy


def test_the_hub_is_that_of_the_environment_and_is_asked_only_where_it_is_needed(monkeypatch):
    from huggingface_hub import constants

    asked = []
    monkeypatch.setattr("hub.server_answers", lambda server: bool(asked.append(server)))
    monkeypatch.setattr(constants, "ENDPOINT", "https://mirror.example")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    study = Study.load(PROJECT / "params" / "demo.yaml")
    assert hub_state(study) is None and asked == []
    study = Study.load(PROJECT / "params" / "demo.yaml", {"model.backbone.name": "convnextv2_atto"})
    assert hub_state(study) == {
        "networks": ["convnextv2_atto"], "server": "https://mirror.example", "offline": False, "answers": False,
        "cache": constants.HF_HUB_CACHE,
    }  # fmt: skip
    assert asked == ["https://mirror.example"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub_state(study)["offline"] and len(asked) == 1


def test_the_profiles_name_is_found_without_a_yaml_reader(tmp_path):
    (file := tmp_path / "p.yaml").write_text("# profile: no\nprofile: 'mine'  # mine\nseeds: [0]\n")
    assert doctor.profile_name(file, []) == "mine"
    assert doctor.profile_name(file, ["seeds=[1]", "profile=other"]) == "other"
    file.write_text("{profile: mine}")
    assert doctor.profile_name(file, []) is None


# -- whole runs ------------------------------------------------------------------------------------------


@pytest.fixture
def fresh(tmp_path):
    """A fresh copy of what the doctor needs of the project, in a folder with an awkward name."""
    (root := tmp_path / "it's $(touch pwned)").mkdir()
    for name in ("run_all.sh", "requirements.lock", "pyproject.toml"):
        shutil.copy(PROJECT / name, root)
    (root / "tools").mkdir()
    shutil.copy(PROJECT / "tools" / "doctor.py", root / "tools")
    (root / "params").mkdir()
    shutil.copy(PROJECT / "params" / "demo.yaml", root / "params")
    return root


def call(root: Path, *words, **surroundings):
    kept = {key: value for key, value in os.environ.items() if key not in ("LGFFEM_LOCK", "PYTHON")}
    return subprocess.run(
        [root / "run_all.sh", "doctor", *words],
        capture_output=True, text=True, cwd=root, timeout=60, env={**kept, **surroundings},
    )  # fmt: skip


def test_a_fresh_checkout_is_told_that_the_first_run_installs(fresh):
    before = sorted(fresh.rglob("*"))
    done = call(fresh)
    lines = done.stdout.splitlines()
    assert "warning  .venv is not there yet" in lines
    assert lines[lines.index("warning  .venv is not there yet") + 1].startswith("         -> the first ./run_all.sh")
    assert done.stderr == "" and sorted(fresh.rglob("*")) == before
    faults = sum(line.startswith("FAULT") for line in lines)
    assert lines[-1].startswith(f"{faults} FAULT") and done.returncode == min(faults, 1)


def test_a_broken_environment_is_a_fault_and_not_a_traceback(fresh):
    (fresh / ".venv" / "bin").mkdir(parents=True)
    (fresh / ".venv" / "bin" / "python").symlink_to("/nowhere/python3")
    done = call(fresh, "params/demo.yaml")
    assert done.returncode == 1 and done.stderr == ""
    assert "FAULT    .venv: its Python does not start" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none.yaml"], "error: none.yaml: no such parameter file; the profiles are in params/.\n"),
        (["params"], "error: params: is a folder; the profiles are in params/.\n"),
        (["--set", "seeds"], "error: --set seeds: write it as key.path=value.\n"),
        (["--sets"], "unrecognized arguments: --sets"),
    ],
)
def test_arguments_that_make_no_sense_end_with_2(fresh, words, said):
    done = call(fresh, *words)
    assert done.returncode == 2 and done.stdout == "" and said in done.stderr


def test_a_python_that_is_none_is_named(fresh):
    done = call(fresh, PYTHON="/nowhere/python")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: PYTHON=/nowhere/python is no Python 3.11 or newer; name another, or unset PYTHON.\n"


def test_run_all_does_not_trust_an_environment_whose_checkout_was_moved_away(fresh):
    """It sets about making it anew, for which it is given no Python here."""
    python = program(fresh / ".venv" / "bin" / "python", 'case "$*" in *lgffem_core*) exit 1; esac')
    stamp = doctor.checksum(fresh / "requirements.lock", fresh / "pyproject.toml")
    (fresh / ".venv" / ".complete").write_text(stamp)
    environment = {key: value for key, value in os.environ.items() if key != "LGFFEM_LOCK"}
    done = subprocess.run(
        [fresh / "run_all.sh"], capture_output=True, text=True, env={**environment, "PYTHON": "/nowhere/python"}
    )
    assert done.returncode == 2 and done.stderr.startswith("error: PYTHON=/nowhere/python is no Python 3.11")
    program(python, "echo ran")
    done = subprocess.run([fresh / "run_all.sh"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "ran"


def test_a_slip_in_the_package_is_no_reason_to_install_anew(fresh, tmp_path):
    """Python finds the package there, and what is wrong in it is for the command itself to say."""
    package = tmp_path / "source" / "lgffem_core"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("x = (")
    asks = f'*find_spec*) cd {package.parent}; PYTHONSAFEPATH= exec {sys.executable} -S "$@" ;;'
    program(fresh / ".venv" / "bin" / "python", f'case "$*" in {asks} *) echo ran ;; esac')
    (fresh / ".venv" / ".complete").write_text(doctor.checksum(fresh / "requirements.lock", fresh / "pyproject.toml"))
    environment = {key: value for key, value in os.environ.items() if key != "LGFFEM_LOCK"}
    for there, said in ((True, "ran\n"), (False, "")):
        done = subprocess.run(
            [fresh / "run_all.sh"], capture_output=True, text=True, env={**environment, "PYTHON": "/nowhere/python"}
        )
        assert done.stdout == said and (done.returncode == 0) == there
        shutil.rmtree(package, ignore_errors=True)


INSTALLER = r"""
# A Python that makes an environment of itself, and a uv that installs when {go} is there.
case "$0 $*" in
  *version_info*) echo 11 ;;
  *take_lock*) exec {real} "$@" ;;
  */python*"-m venv"*) mkdir -p "${{3:?}}/bin" && cp "$0" "$3/bin/python" ;;
  */uv*) echo "$@" >>{log}; while [ ! -e {go} ]; do sleep 0.05; done ;;
  */bin/python*find_spec*) [ -e "${{0%/bin/python}}/.complete" ] ;;
  */bin/python*"-m lgffem_core"* | */bin/python*"-m pytest"*) echo ran ;;
esac"""


@pytest.fixture
def installer(fresh, tmp_path, monkeypatch):
    """Starts ./run_all.sh with stand-ins for the programs that install; ``uv.log`` is what uv was asked."""
    shutil.copy(PROJECT / "tools" / "take_lock.py", fresh / "tools")
    shutil.copy(PROJECT / "requirements-pathml.lock", fresh)
    script = INSTALLER.format(go=tmp_path / "go", log=tmp_path / "uv.log", real=sys.executable)
    for name in ("python", "uv", "javac"):
        program(tmp_path / "programs" / name, script)
    monkeypatch.setenv("PATH", str(tmp_path / "programs"), prepend=os.pathsep)
    monkeypatch.setenv("PYTHON", str(tmp_path / "programs" / "python"))
    monkeypatch.delenv("LGFFEM_LOCK", raising=False)
    started = []

    def start(*words: str) -> subprocess.Popen:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen([fresh / "run_all.sh", *words], start_new_session=True, **pipes))
        return started[-1]

    yield start
    (tmp_path / "go").touch()
    for process in started:
        process.communicate(timeout=60)


def until(there: Path) -> None:
    """Wait for a file."""
    end = time.monotonic() + 60
    while not there.exists():
        assert time.monotonic() < end, f"no {there}"
        time.sleep(0.02)


@pytest.mark.parametrize(("word", "environment"), [("verify", ".venv"), ("test-pathml", ".venv-pathml")])
def test_a_second_call_waits_for_the_one_that_installs(fresh, installer, tmp_path, word, environment):
    first = installer(word)
    until(tmp_path / "uv.log")
    second = installer(word)
    waits = f"another call (process {first.pid}) is setting up {environment}; waiting for it\n"
    assert second.stderr.readline() == waits
    if environment == ".venv":
        said = call(fresh, PYTHON=sys.executable).stdout
        assert f"warning  .venv is being installed by process {first.pid}" in said and "was stopped" not in said
    (tmp_path / "go").touch()
    for process, said in ((first, f"setting up {environment} from "), (second, "")):
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, "ran\n") and err.startswith(said) and err.count("\n") == bool(said)
    assert len((tmp_path / "uv.log").read_text().splitlines()) == 2, "packages, and the study's own: once"


def test_an_installation_that_was_killed_blocks_no_other(fresh, installer, tmp_path):
    first = installer("verify")
    until(tmp_path / "uv.log")
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate(timeout=60)
    said = call(fresh, PYTHON=sys.executable).stdout
    assert "warning  .venv is incomplete: its installation was stopped" in said
    (tmp_path / "go").touch()
    second = installer("verify")
    out, err = second.communicate(timeout=60)
    assert (second.returncode, out) == (0, "ran\n") and err.startswith("setting up .venv from ")


def test_a_disk_that_knows_no_locks_is_said_to_and_the_installation_goes_on(tmp_path, capsys, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(take_lock.fcntl, "flock", refuse)
    with open(tmp_path / ".venv.lock", "w") as file:
        take_lock.take(file.fileno(), "7", ".venv")
    assert capsys.readouterr().err == "no lock (No locks available): start no other call until .venv is set up\n"


def test_a_checkout_in_which_nothing_can_be_written_is_named(fresh, installer):
    (fresh / ".venv.lock").mkdir()
    said = f"error: {fresh} cannot be written, where .venv belongs; clone the study into a folder of yours.\n"
    assert installer("verify").communicate(timeout=60)[1] == said


def test_an_installation_that_fails_ends_its_call_and_the_next_tries_again(installer, tmp_path):
    (tmp_path / "go").touch()
    working = program(tmp_path / "programs" / "uv", "echo no connection >&2; exit 1")
    failed = installer("verify")
    out, err = failed.communicate(timeout=60)
    assert (failed.returncode, out) == (1, "") and err.splitlines()[1:] == ["no connection"]
    program(working, "exit 0")
    again = installer("verify")
    assert again.communicate(timeout=60)[0] == "ran\n" and again.returncode == 0


def theirs(folder: Path) -> Path:
    """A folder whose modules have the names of others."""
    for name in ("yaml", "copy", "json"):
        (folder / f"{name}.py").write_text("raise RuntimeError('theirs')")
    return folder


def test_the_output_is_looked_at_where_a_run_would_put_it(fresh, tmp_path):
    """Its lock, its folders and its disk, and not those of the checkout."""
    output = tmp_path / "out"
    (output / "artifacts" / "demo").mkdir(parents=True)
    with open(output / "artifacts" / "demo" / "run.lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert "FAULT    a run of profile demo is under way" not in call(fresh).stdout
        for given in (str(output), "../out"):
            said = call(fresh, LGFFEM_OUTPUT=given).stdout
            assert "FAULT    a run of profile demo is under way" in said
            assert f"ok       {output}/results: can be written" in said and f"{fresh}/results" not in said


def test_this_checkout_with_its_own_environment(tmp_path, monkeypatch):
    """What the tests run in is sound, apart from where it stands; the doctor asks it about the demo."""
    if not (PROJECT / ".venv" / ".complete").is_file():
        pytest.skip("the tests do not run in .venv of this checkout")
    monkeypatch.setenv("PYTHONPATH", str(theirs(tmp_path)))
    monkeypatch.chdir(theirs(tmp_path))
    said = doctor.ask_study(PROJECT / ".venv", PROJECT, str(PROJECT / "params" / "demo.yaml"), [])
    assert "PYTHONPATH" in said["ignored"] and said["missing"] == said["slow"] == [] and said["hub"] is None
    assert is_ok(doctor.ignored(said["ignored"])) and "PYTHONPATH" in doctor.ignored(said["ignored"]).sentence
    said = doctor.ask_study(PROJECT / ".venv", PROJECT, "params/none.yaml", [])
    assert "no such parameter file" in said["error"]


def test_an_old_python_can_read_it_and_nothing_but_the_standard_library_is_imported():
    tree = ast.parse(Path(doctor.__file__).read_text(encoding="utf-8"), feature_version=(3, 8))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {a.name for n in imports if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module for n in imports if isinstance(n, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= set(sys.stdlib_module_names)
