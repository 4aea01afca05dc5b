"""The order of the core's layers, as docs/architecture.md states it; and what no generic layer may name."""

import ast
import re

import pytest

from lgffem_core.base.project import PROJECT
from lgffem_core.config.params import DATASETS, STRATEGIES

ROOT = PROJECT / "lgffem_core"
PAGE = (PROJECT / "docs" / "architecture.md").read_text(encoding="utf-8")
LAYERS = re.search(r"^base → .*$", PAGE, re.MULTILINE)[0].split(" → ")
MODULES = [path for path in sorted(ROOT.rglob("*.py")) if len(path.relative_to(ROOT).parts) > 1]
CLAIMS_NO_SET = ("data", "training", "retrieval", "report", "audit")


def dotted(path) -> str:
    """The name under which a module is imported."""
    return ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")


NAMES = {dotted(path): path for path in sorted(ROOT.rglob("*.py"))}


def imported(path) -> set[str]:
    """The modules of the core that a module imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & NAMES.keys()


def imported_on_loading(path) -> set[str]:
    """The same without what stands inside functions, which circles may go through; packages as their ``__init__``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & NAMES.keys()) or {node.module}
    return found & NAMES.keys()


def faults(path, names) -> list[str]:
    """Those of the imported ``names`` that a module may not import."""
    own = path.relative_to(ROOT).parts
    if own[-1] == "__main__.py":
        return []
    wrong = []
    for name in names:
        parts = name.split(".")[1:]
        if not parts or (own[0] == parts[0] == "systems" and len(parts) > 1 and parts[1] != own[1]):
            wrong += [name] if parts else []
        elif parts[0] not in LAYERS or LAYERS.index(parts[0]) > LAYERS.index(own[0]):
            wrong.append(name)
    return wrong


def test_every_folder_is_a_layer_of_the_page():
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and list(path.glob("*.py"))}
    assert folders == set(LAYERS) and len(LAYERS) == len(folders)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_imports_only_from_its_own_folder_and_those_left_of_it(path):
    assert faults(path, imported(path)) == []


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("base/files.py", "lgffem_core.config.params"),
        ("audit/floors.py", "lgffem_core.systems.lgffem.model"),
        ("systems/lgffem/neck.py", "lgffem_core.systems.baselines.networks"),
        ("systems/baselines/networks.py", "lgffem_core.run.stages"),
        ("report/style.py", "lgffem_core.__main__"),
    ],
)
def test_what_points_to_the_right_or_to_another_system_is_a_fault(module, name):
    assert faults(ROOT / module, {name}) == [name]


def test_commands_are_above_all_layers():
    """Nothing imports them, so that they close no circle."""
    commands = {name for name in NAMES if name.endswith("__main__")}
    assert len(commands) == 2
    assert [path for path in NAMES.values() if imported(path) & commands] == []


def test_there_is_no_circle_of_imports():
    graph = {name: imported_on_loading(path) - {name} for name, path in NAMES.items()}
    while free := {name for name, needed in graph.items() if not needed & graph.keys()}:
        graph = {name: needed for name, needed in graph.items() if name not in free}
    assert graph == {}


def strings(path) -> set[str]:
    """Every string of a module but its docstrings."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


@pytest.mark.parametrize("layer", CLAIMS_NO_SET)
def test_no_generic_layer_names_a_data_set_or_a_strategy(layer):
    """A set's own file may, and what draws synthetic images, where the name is part of a seed."""
    own, found = (ROOT / "data" / "sets", ROOT / "data" / "synthetic"), {}
    names = {*DATASETS, *STRATEGIES, *(name.upper() for name in STRATEGIES)}
    for path in (ROOT / layer).rglob("*.py"):
        if not any(path.is_relative_to(folder) for folder in own) and (named := strings(path) & names):
            found[path.relative_to(ROOT).as_posix()] = named
    assert found == {}
