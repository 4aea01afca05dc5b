"""environment.yml, pyproject.toml and the three locks say the same thing. Nothing here needs a network."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
LOCKS = {
    "requirements.lock": ("cpu", "dev"),
    "requirements-gpu.lock": ("gpu", "dev"),
    "requirements-pathml.lock": ("cpu", "dev", "pathml"),
}
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def lock_lines(name: str) -> list[str]:
    """The lines of a lock that are not comments."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def locked(name: str) -> dict[str, list[Version]]:
    """Package -> its versions; more than one where they differ between Python versions."""
    versions: dict[str, list[Version]] = {}
    for line in lock_lines(name):
        if not line.startswith(" "):
            entry = Requirement(line.rstrip("\\ "))
            (pin,) = entry.specifier
            assert pin.operator == "==", line
            versions.setdefault(canonicalize_name(entry.name), []).append(Version(pin.version))
    return versions


def wanted(extras) -> list[Requirement]:
    """The direct dependencies of this package with some extras, and what builds it."""
    lines = PROJECT["project"]["dependencies"] + PROJECT["build-system"]["requires"]
    return [Requirement(line) for line in lines + [line for extra in extras for line in EXTRAS[extra]]]


@pytest.fixture(scope="module")
def environment() -> dict:
    return yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", LOCKS)
def test_lock_holds_every_dependency_inside_its_range(name):
    versions = locked(name)
    for requirement in wanted(LOCKS[name]):
        found = versions.get(canonicalize_name(requirement.name), [])
        assert found, f"{name} lacks {requirement.name}: run tools/lock.sh"
        for version in found:
            assert version in requirement.specifier, f"{name}: {version} is not {requirement}"


@pytest.mark.parametrize("name", LOCKS)
def test_lock_entries_have_hashes(name):
    entries = re.split(r"\n(?=\S)", "\n".join(lock_lines(name)))
    assert len(entries) > 100
    assert [entry.split()[0] for entry in entries if not HASH.search(entry)] == []


@pytest.mark.parametrize("name", LOCKS)
def test_lock_names_no_index_and_no_local_path(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "tools/lock.sh" in text.splitlines()[0]
    assert "://" not in text and "/tmp" not in text and str(ROOT) not in text
    options = [line for line in lock_lines(name) if line.startswith("-") or " @ " in line]
    assert options == []


@pytest.mark.parametrize("name", LOCKS)
def test_torch_and_torchvision_are_one_release(name):
    (torch,), (vision,) = locked(name)["torch"], locked(name)["torchvision"]
    assert (torch.major, vision.major, vision.minor) == (2, 0, torch.minor + 15)
    assert torch.micro == vision.micro
    assert torch != Version("2.13.0")  # its torchvision does not match: `import timm` fails


@pytest.mark.parametrize("name", LOCKS)
def test_lock_has_one_faiss_and_one_opencv(name):
    packages = locked(name)
    faiss = "faiss-gpu" if "gpu" in LOCKS[name] else "faiss-cpu"
    assert [package for package in packages if package.startswith("faiss")] == [faiss]
    assert len([package for package in packages if package.startswith("opencv")]) == 1


def test_only_the_pathml_lock_holds_pathml_and_its_generation_of_numpy():
    assert all(("pathml" in locked(name)) == ("pathml" in extras) for name, extras in LOCKS.items())
    old, new = locked("requirements-pathml.lock"), locked("requirements.lock")
    assert all(version < Version("2") for version in old["numpy"])
    assert all(version <= Version("2.1.4") for version in old["pandas"])
    assert all(version >= Version("2") for version in new["numpy"])


def test_environment_file_installs_this_package(environment):
    (pip_part,) = [part["pip"] for part in environment["dependencies"] if isinstance(part, dict)]
    (line,) = pip_part
    extras = re.fullmatch(r"-e \.\[([a-z,]+)\]", line)
    assert extras, line
    names = set(extras.group(1).split(","))
    assert {"gpu", "pathml"} <= names <= set(EXTRAS)
    assert "cpu" not in names


def test_environment_file_has_what_pathml_needs_and_a_python_that_fits(environment):
    assert environment["channels"][0] == "conda-forge"
    conda = dict(part.partition(" ")[::2] for part in environment["dependencies"] if isinstance(part, str))
    assert {"python", "pip", "openjdk", "openslide"} <= conda.keys()
    assert Version(conda["python"].lstrip("=")) in SpecifierSet(PROJECT["project"]["requires-python"])


def test_package_version_is_the_projects():
    source = (ROOT / "lgffem_core" / "__init__.py").read_text(encoding="utf-8")
    assert f'__version__ = "{PROJECT["project"]["version"]}"' in source


def test_core_never_imports_pathml():
    """PathML is GPL-2.0 and this package is MIT: they meet in files, never in one process of the core."""
    for path in (ROOT / "lgffem_core").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(module.split(".")[0] == "pathml" for module in modules), path
