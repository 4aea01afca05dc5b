"""What is wrong with this machine for this study: ``./run_all.sh doctor [params/FILE.yaml [--set key.path=value …]]``.

Any Python 3.8 or newer runs this file by its path, also before anything is installed. So it uses the standard
library only, imports nothing of this package, and reads what .venv holds from the packages' metadata. A *FAULT*
keeps a run from starting or makes its numbers doubtful; with a *warning* a run works, but slowly or less well
documented. Nothing is changed.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parents[1]
GIB = 1 << 30
TO_INSTALL, TO_RUN, MEMORY = 10, 3, 4  # GiB: the packages and their download; a run's files; a run's processes
SHARED = 256 << 20  # bytes in which worker processes hand over their batches; containers have 64 MiB unless told
MINIMUM = (3, 11)
DRIVERS = {11: 450, 12: 525, 13: 580}  # CUDA version of torch -> oldest NVIDIA driver on Linux (CUDA release notes)
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+) *(;?)", re.MULTILINE)
ANEW = "remove .venv; the next ./run_all.sh makes it anew"


class Finding(NamedTuple):
    """One line of the answer."""

    level: str  # ok, warning or FAULT
    sentence: str
    remedy: str = ""


def ok(sentence: str) -> Finding:
    return Finding("ok", sentence)


def warning(sentence: str, remedy: str) -> Finding:
    return Finding("warning", sentence, remedy)


def fault(sentence: str, remedy: str) -> Finding:
    return Finding("FAULT", sentence, remedy)


def answer(*command: str, limit: float, **options) -> tuple[int, str]:
    """Exit code and output of a command; 127 where it is not there, 124 where it takes more than ``limit`` seconds."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False, **options)
    except subprocess.TimeoutExpired:
        return 124, f"no answer within {limit:g} s"
    except OSError as error:
        return 127, str(error)
    return done.returncode, (done.stdout if done.returncode == 0 else done.stderr or done.stdout).strip()


# -- the machine ------------------------------------------------------------------------------------------


def python(version: tuple[int, ...], installed: bool) -> Finding:
    """The Python that .venv would be made with; where .venv is ``installed``, it has its own."""
    name = f"Python {'.'.join(map(str, version[:3]))}"
    if version >= MINIMUM:
        return ok(name)
    remedy = "install one, or name it: PYTHON=/path/to/python"
    return (warning if installed else fault)(f"{name} is too old; .venv is made with 3.11 or newer", remedy)


def disk(free: int, installed: bool) -> Finding:
    """Free bytes on the disk of the packages where they are still to come, else on that of a run's files."""
    needed, purpose = (TO_RUN, "run") if installed else (TO_INSTALL, "install the packages")
    sentence = f"{free / GIB:.1f} GiB of disk are free; to {purpose} takes {needed}"
    return ok(sentence) if free >= needed * GIB else fault(sentence, "free space, or move to another disk")


def available_memory(meminfo: Path, control_group: Path) -> int | None:
    """Bytes that processes can still get: Linux's own estimate, or less where a container limits it."""
    amounts = []
    if meminfo.is_file():
        amounts = [int(kib) * 1024 for kib in re.findall(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.M)]
    limit, used = control_group / "memory.max", control_group / "memory.current"
    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
        amounts.append(int(limit.read_text()) - int(used.read_text()))
    return min(amounts, default=None)


def memory(available: int | None) -> Finding:
    """Memory for a run, in bytes."""
    if available is None:
        return ok("free memory is not known on this system")
    sentence = f"{available / GIB:.1f} GiB of memory are available; a run takes up to {MEMORY}"
    if available >= MEMORY * GIB:
        return ok(sentence)
    return warning(sentence, "close other programs, or let one stage run at a time: --cores 1")


def shared_memory(folder: Path) -> Finding:
    """Room for the batches of worker processes, which on Linux is ``folder`` (/dev/shm)."""
    if not folder.is_dir():
        return ok("shared memory is not a folder on this system")
    sentence = f"{shutil.disk_usage(folder).free / (1 << 20):.0f} MiB of shared memory are free in {folder}"
    if shutil.disk_usage(folder).free >= SHARED:
        return ok(sentence)
    remedy = "enlarge it (for a container --shm-size=1g), or read without workers: --set compute.workers=0"
    return warning(f"{sentence}: few for processes that read images", remedy)


def processors(count: int) -> Finding:
    """Processors that this process may use."""
    if count > 1:
        return ok(f"{count} processors")
    return warning("1 processor: no two stages run at once", "allow for twice the time")


def existing(folder: Path) -> Path:
    """``folder``, or where it would be made."""
    while not os.path.lexists(folder):  # not Path.exists, which raises where a folder above may not be searched
        folder = folder.parent
    return folder


def writable(folder: Path) -> Finding:
    """Try a temporary file in ``folder``, or where it would be made."""
    place = existing(folder)
    try:
        with tempfile.TemporaryFile(dir=place):
            return ok(f"{folder}: can be written")
    except OSError as error:
        return fault(f"{folder}: cannot be written ({error.strerror})", f"make {place} a folder of yours")


def held(file: Path) -> bool:
    """Whether another process has locked ``file``."""
    if file.is_file():
        with open(file) as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return False


def run_lock(file: Path, profile: str) -> Finding:
    """Whether a run holds its profile's lock."""
    if held(file):
        return fault(f"a run of profile {profile} is under way", "wait for it, or stop it with Ctrl-C")
    return ok(f"no other run of profile {profile} is under way")


def git(root: Path) -> Finding:
    """The commit of the checkout, for the manifest."""
    code, text = answer("git", "-C", str(root), "rev-parse", "--short", "HEAD", limit=2)
    if code == 0:
        return ok(f"commit {text}")
    why = "git is not installed" if code == 127 else text.partition("\n")[0] or "git does not work"
    return warning(f"the manifest will not name the commit: {why}", "install git, and clone the repository with it")


def java(javac: str | None) -> Finding:
    """For PathML alone, whose environment is another."""
    return ok(f"javac: {javac or 'not there'} (only ./run_all.sh test-pathml needs it)")


# -- what is installed ------------------------------------------------------------------------------------


def checksum(lock: Path, project: Path) -> str:
    """What run_all.sh writes into .venv/.complete after it has installed ``lock``."""
    both = lock.read_bytes() + project.read_bytes()
    return subprocess.run(["cksum"], input=both, capture_output=True, check=True).stdout.decode().strip()


def environment(folder: Path, root: Path, lock: str) -> Finding:
    """Whether ``folder`` (.venv) is there, works, is complete, and was made from ``lock``."""
    if not (root / lock).is_file():
        return fault(f"{lock} is not in {root}", "set LGFFEM_LOCK to one of the requirements*.lock files, or unset it")
    if held(lock_file := root / f"{folder.name}.lock"):  # by run_all.sh (tools/take_lock.py)
        process = lock_file.read_text().strip() or "unknown"
        return warning(f"{folder.name} is being installed by process {process}", "wait for it; other calls do so, too")
    if not folder.is_dir():
        return warning(f"{folder.name} is not there yet", "the first ./run_all.sh makes it; the download is about 3 GB")
    code, text = answer(str(folder / "bin" / "python"), "-I", "-c", "", limit=5)
    if code:
        reason = (text.splitlines() or ["it says nothing"])[-1]
        return fault(f"{folder.name}: its Python does not start ({reason})", "the next ./run_all.sh makes it anew")
    stamp = folder / ".complete"
    made = stamp.read_text().strip() if stamp.is_file() else None
    if made is None:
        return warning(f"{folder.name} is incomplete: its installation was stopped", "the next ./run_all.sh repeats it")
    if made == checksum(root / lock, root / "pyproject.toml"):
        return ok(f"{folder.name} is complete, from {lock}")
    others = [p.name for p in root.glob("requirements*.lock") if made == checksum(p, root / "pyproject.toml")]
    if others:
        remedy = f"the next ./run_all.sh makes it anew; to keep it: LGFFEM_LOCK={others[0]} ./run_all.sh …"
        return warning(f"{folder.name} was made from {others[0]}, not from {lock}", remedy)
    return warning(f"{folder.name} was made from another {lock} or pyproject.toml", "the next ./run_all.sh repeats it")


def canonical(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_packages(site: Path) -> dict[str, set[str]]:
    """Package -> its versions in a site-packages folder; two where an installation was stopped half-way."""
    found: dict[str, set[str]] = {}
    for package in distributions(path=[str(site)]):
        if not package.read_text("METADATA"):  # half removed; importlib_metadata and later Pythons raise at .metadata
            continue
        name, version = (package.metadata.get(key) for key in ("Name", "Version"))
        if name and version:
            found.setdefault(canonical(name), set()).add(version.partition("+")[0])
    return found


def locked_packages(lock: str) -> dict[str, tuple[set[str], bool]]:
    """Package -> (its versions in a lock's text, whether every machine gets one)."""
    pins: dict[str, tuple[set[str], bool]] = {}
    for name, version, condition in PIN.findall(lock):
        versions, always = pins.get(canonical(name), (set(), False))
        pins[canonical(name)] = (versions | {version}, always or not condition)
    return pins


def versions(packages: dict[str, set[str]], pins: dict[str, tuple[set[str], bool]]) -> Finding:
    """Installed packages against the lock."""
    wrong = []
    for name, (pinned, always) in pins.items():
        found = packages.get(name, set())
        if (always and not found) or not found <= pinned or len(found) > 1:
            wrong.append(f"{name} {' and '.join(sorted(found)) or 'missing'} instead of {' or '.join(sorted(pinned))}")
    if not wrong:
        return ok(f"{len(pins.keys() & packages.keys())} packages have the versions of the lock")
    more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return fault(f"packages differ from the lock: {', '.join(wrong[:3])}{more}", ANEW)


def half_removed(site: Path) -> Finding:
    """Folders of packages that tell neither name nor version, as a removal that was stopped leaves them."""
    found = sorted(folder.name for folder in site.glob("*.dist-info") if not (folder / "METADATA").is_file())
    if not found:
        return ok("no package is half removed")
    return fault(f"half removed, without METADATA: {', '.join(found[:3])}{', …' if len(found) > 3 else ''}", ANEW)


def torch_pair(packages: dict[str, set[str]]) -> Finding:
    """torch 2.N goes with torchvision 0.(N+15); another pair fails on ``import timm``."""
    torch, vision = (max(packages.get(name, {"missing"})) for name in ("torch", "torchvision"))
    both = f"torch {torch} and torchvision {vision}"
    numbers = [[int(n) for n in re.findall(r"\d+", version)[:2]] for version in (torch, vision)]
    if numbers[0] and numbers[1] == [0, numbers[0][1] + 15]:
        return ok(f"{both} are of one release")
    return fault(f"{both} are not of one release", ANEW)


def one_opencv(packages: dict[str, set[str]]) -> Finding:
    """Every package called opencv-… writes the module cv2."""
    found = sorted(name for name in packages if name.startswith("opencv-"))
    if len(found) == 1:
        return ok(f"one OpenCV: {found[0]}")
    return fault(f"{len(found)} packages write the module cv2: {', '.join(found) or 'none'}; one must", ANEW)


def one_faiss(packages: dict[str, set[str]]) -> Finding:
    """faiss-cpu and faiss-gpu both write the module faiss."""
    found = sorted(packages.keys() & {"faiss-cpu", "faiss-gpu"})
    if len(found) == 1:
        return ok(f"one FAISS: {found[0]}")
    return fault(f"{len(found)} packages write the module faiss: {', '.join(found) or 'none'}; one must", ANEW)


def one_cuda(packages: dict[str, set[str]], pins: dict[str, tuple[set[str], bool]]) -> Finding:
    """NVIDIA's libraries of two CUDA versions; requirements-gpu.lock has both by intention, for torch and for FAISS."""
    beside = sorted(packages.keys() - pins.keys())
    for new, old in (("-cu13", "-cu12"), ("-cu12", "-cu13")):
        strangers = [name for name in beside if name.startswith("nvidia-") and name.endswith(new)]
        if strangers and any(name.startswith("nvidia-") and name.endswith(old) for name in packages):
            return fault(
                f"libraries of two CUDA versions: {strangers[0]} is not of the lock, which has {old[1:]}", ANEW
            )
    return ok("no CUDA libraries beside those of the lock")


def notebook_kernel(site: Path) -> Finding:
    """The Jupyter kernel that executes the notebooks: that of .venv, whatever kernels there are elsewhere."""
    if (site / "ipykernel_launcher.py").is_file():
        return ok("the Jupyter kernel of .venv is there")
    return fault("ipykernel is not in .venv: no notebook can run", ANEW)


def own_code(site: Path, root: Path) -> Finding:
    """.venv holds a link to the checkout that it was made for: a copy of the folder would run the original's code."""
    for link in site.glob("lgffem_core-*.dist-info/direct_url.json"):
        address = json.loads(link.read_text(encoding="utf-8"))["url"]
        if address == root.as_uri():
            return ok("lgffem_core is that of this checkout")
        return fault(f"the lgffem_core of .venv is that of {address[7:]}, not of this checkout", ANEW)
    return fault("lgffem_core is not in .venv", ANEW)


# -- the GPU ----------------------------------------------------------------------------------------------


def torch_cuda(site: Path) -> str | None:
    """CUDA version of the installed torch ("13.0"), "" for a build for the CPU, None where there is no torch."""
    file = site / "torch" / "version.py"
    if not file.is_file():
        return None
    version = re.search(r"^cuda\b.*= *['\"]([\d.]+)['\"]", file.read_text(encoding="utf-8"), re.MULTILINE)
    return version.group(1) if version else ""


def gpu(cuda: str | None, program: str = "nvidia-smi", limit: float = 3) -> Finding:
    """The NVIDIA GPU and its driver against the installed torch; ``cuda`` as ``torch_cuda`` gives it."""
    query = ("--query-gpu=name,driver_version", "--format=csv,noheader")
    code, text = answer(program, *query, limit=limit)
    if code == 127:
        return ok("no NVIDIA driver here; training uses the CPU")
    name, _, driver = (text.splitlines() or [""])[0].rpartition(", ")
    if code or not re.match(r"\d+\.", driver):
        reason = (text.splitlines() or ["no GPU"])[0]
        return warning(f"nvidia-smi does not work ({reason})", "restart the machine or install the driver again")
    if cuda == "":
        remedy = f"{ANEW}; on Linux the locks hold torch for CUDA"
        return warning(f"{name}: cannot be used, torch in .venv is a build for the CPU", remedy)
    needed = DRIVERS.get(int(cuda.split(".")[0])) if cuda else None
    if needed and int(driver.split(".")[0]) < needed:
        sentence = f"{name}: driver {driver} is too old for torch's CUDA {cuda}; training would use the CPU"
        return warning(sentence, f"install NVIDIA's driver {needed} or newer")
    return ok(f"{name}, driver {driver}" + (f", torch for CUDA {cuda}" if cuda else ""))


# -- the profile ------------------------------------------------------------------------------------------

ASK = """
import json, os, sys
try:
    from hub import hub_state  # beside this file
    from lgffem_core.run.checklist import checklist, told_slow
    from lgffem_core.run.request import check_profile, make_request
    from lgffem_core.base.errors import StudyError
    from lgffem_core.base.surroundings import PINNED, foreign
    request = make_request(sys.argv[1], sys.argv[2:])
    check_profile(request)
    study = request.study
    unset = set(os.environ.get("LGFFEM_UNHEEDED", "").split()) - {"PYTHON", *PINNED}  # by run_all.sh
    ignored = sorted(unset.union(foreign(os.environ)))
    told = {"missing": checklist(study), "slow": told_slow(study)}
    print(json.dumps({**told, "hub": hub_state(study), "ignored": ignored}))
except SyntaxError as error:
    print(json.dumps({"error": f"{error.filename}, line {error.lineno}: is not Python ({error.msg})"}))
except (StudyError, OSError) as error:
    print(json.dumps({"error": str(error)}))
"""


def ask_study(folder: Path, root: Path, params: str, pairs: list[str]) -> dict:
    """What the study says of a profile: ``missing`` items, what is ``slow``, the ``hub``, ``ignored``; or an ``error``."""
    ask = f"import sys; sys.path[:0] = [{str(root)!r}, {str(root / 'tools')!r}]" + ASK
    code, text = answer(str(folder / "bin" / "python"), "-I", "-c", ask, params, *pairs, limit=180)
    if code:
        return {"error": f"lgffem_core does not start in .venv ({(text.splitlines() or ['no word'])[-1]})"}
    return json.loads(text.splitlines()[-1])


def needs(said: dict, params: str) -> list[Finding]:
    """Data, weights and precision of a profile, from what ``ask_study`` gave."""
    if "error" in said:
        return [fault(said["error"].rstrip("."), "see params/paper.yaml for every parameter, and the lines above")]
    items = [item.partition(". ") for item in said["missing"]]
    found = [fault(sentence.rstrip("."), remedy.rstrip(".") or "give another path") for sentence, _, remedy in items]
    slow = [item.partition(". ") for item in said["slow"]]
    found = found or [ok(f"{params}: data and weights are here, or can be had")]
    return found + [warning(sentence, remedy.rstrip(".")) for sentence, _, remedy in slow]


def ignored(names: list[str]) -> Finding:
    """Environment variables that a run does not heed: they are meant for other programs, or would change numbers."""
    return ok(f"a run does not heed {', '.join(names) or 'any environment variable of other programs'}")


def hub(state: dict | None) -> Finding:
    """The model hub, where a profile takes weights from it; ``state`` as ``hub.hub_state`` gives it."""
    if not state:
        return ok("no weights come from the model hub")
    names, cache = ", ".join(state["networks"]), Path(state["cache"])
    if writable(cache).level != "ok":
        remedy = "set HF_HOME to a folder of yours, or give local files as model.backbone.weights=FILE"
        return warning(f"downloaded weights of {names} cannot be kept: {cache} cannot be written", remedy)
    if state["answers"] and not state["offline"]:
        return ok(f"the model hub {state['server']} answers ({names})")
    why = "HF_HUB_OFFLINE is set" if state["offline"] else f"{state['server']} does not answer"
    remedy = "connect, name another hub in HF_ENDPOINT, or give local files as model.backbone.weights=FILE"
    return warning(f"weights of {names} can only come from this machine's cache: {why}", remedy)


def profile_name(params: Path, pairs: list[str]) -> str | None:
    """The profile's name without a YAML reader; None where it is not written in the plain way."""
    text = params.read_text(encoding="utf-8", errors="replace") + "".join(f"\n{p.replace('=', ': ', 1)}" for p in pairs)
    names = re.findall(r"^profile: *['\"]?([A-Za-z0-9][A-Za-z0-9_-]*)['\"]? *(?:#.*)?$", text, re.MULTILINE)
    return names[-1] if names else None


# -- all together -----------------------------------------------------------------------------------------


def packages_findings(folder: Path, root: Path, lock: str) -> list[Finding]:
    """Everything about the packages in an environment that is complete."""
    site = next(folder.glob("lib/python3.*/site-packages"), folder)
    packages, pins = installed_packages(site), locked_packages((root / lock).read_text(encoding="utf-8"))
    return [
        versions(packages, pins),
        half_removed(site),
        torch_pair(packages),
        one_opencv(packages),
        one_faiss(packages),
        one_cuda(packages, pins),
        notebook_kernel(site),
        own_code(site, root),
        gpu(torch_cuda(site)),
    ]


def examine(root: Path, params: Path, pairs: list[str]) -> list[Finding]:
    """Every finding about this machine, the checkout in ``root`` and one profile."""
    output = Path(os.path.abspath(os.environ.get("LGFFEM_OUTPUT") or root))  # as lgffem_core.config.study has it
    folder, lock = root / ".venv", os.environ.get("LGFFEM_LOCK", "requirements.lock")
    state = environment(folder, root, lock)
    sound, profile = state.level == "ok", profile_name(params, pairs)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = [python(sys.version_info[:3], sound), state]
    if not sound and find_spec("ensurepip") is None:
        found.append(fault("Python's venv module does not work here", "on Debian install python3-venv"))
    found += packages_findings(folder, root, lock) if sound else [gpu(None)]
    found += [
        disk(shutil.disk_usage(existing(output) if sound else root).free, sound),
        memory(available_memory(Path("/proc/meminfo"), Path("/sys/fs/cgroup"))),
        shared_memory(Path("/dev/shm")),
        processors(cpus),
        *(writable(place) for place in (*([] if sound else [root]), output / "artifacts", output / "results")),
        git(root),
        java(shutil.which("javac")),
    ]
    if profile:
        found.append(run_lock(output / "artifacts" / profile / "run.lock", profile))
    if sound:
        said = ask_study(folder, root, str(params), pairs)
        found += [*needs(said, str(params))]
        found += [] if "error" in said else [hub(said["hub"]), ignored(said["ignored"])]
    return found


def main(arguments: list[str]) -> int:
    """Print every finding; 0 without faults, 1 with, 2 for arguments that make no sense."""
    parser = argparse.ArgumentParser(prog="./run_all.sh doctor", description=__doc__.partition("\n")[0])
    parser.add_argument("params", nargs="?", default=str(PROJECT / "params" / "demo.yaml"), help="a profile")
    parser.add_argument("--set", nargs="+", action="extend", default=[], dest="pairs", metavar="key.path=value")
    options = parser.parse_args(arguments)
    wrong = next((pair for pair in options.pairs if not pair.partition("=")[0] or "=" not in pair), None)
    if not Path(options.params).is_file() or wrong is not None:
        what = (
            f"--set {wrong}: write it as key.path=value"
            if wrong is not None
            else f"{options.params}: {'is a folder' if Path(options.params).is_dir() else 'no such parameter file'}; "
            "the profiles are in params/"
        )
        print(f"error: {what}.", file=sys.stderr)
        return 2
    found = examine(PROJECT, Path(options.params), options.pairs)
    for level, sentence, remedy in found:
        print(f"{level:<9}{sentence}" + (f"\n{'':<9}-> {remedy}" if remedy else ""))
    counts = {level: sum(finding.level == level for finding in found) for level in ("FAULT", "warning")}
    print("\n" + ", ".join(f"{n} {level}{'s' * (n != 1)}" for level, n in counts.items()))
    return 1 if counts["FAULT"] else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill is like Ctrl-C
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("stopped; nothing was changed.", file=sys.stderr)
        sys.exit(130)
