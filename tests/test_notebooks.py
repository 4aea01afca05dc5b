"""What every notebook in git must be: a lesson, runnable on its defaults, with no output stored in it."""

import ast
from pathlib import Path

import nbformat
import pytest

from lgffem_core.base.project import PROJECT
from lgffem_core.run.registry import registry

FILES = sorted((PROJECT / "notebooks").glob("*.ipynb"))
DEFAULTS = {"params": "../params/demo.yaml", "overrides": {}, "variant": "paper", "seed": 0}
LONGEST_CELL = 25  # lines
LONGEST_FUNCTION = 10  # lines; a longer one belongs into the core


def read(path: Path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def sources(path: Path, kind: str) -> list[str]:
    return [cell.source for cell in read(path).cells if cell.cell_type == kind]


def words(texts: list[str]) -> int:
    return sum(len(text.split()) for text in texts)


every_notebook = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def test_the_stages_name_every_notebook_and_no_other():
    assert [path.stem for path in FILES] == list(registry())


@every_notebook
def test_nothing_that_a_run_leaves_is_stored(path):
    code = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in code] == [[]] * len(code)
    assert [cell.execution_count for cell in code] == [None] * len(code)


@every_notebook
def test_the_kernel_is_the_one_that_every_installation_has(path):
    assert read(path).metadata.kernelspec.name == "python3"


@every_notebook
def test_the_first_code_cell_alone_holds_the_parameters(path):
    code = [cell for cell in read(path).cells if cell.cell_type == "code"]
    tagged = ["parameters" in cell.metadata.get("tags", []) for cell in code]
    assert tagged == [True] + [False] * (len(code) - 1)
    assignments = ast.parse(code[0].source).body
    assert {node.targets[0].id: ast.literal_eval(node.value) for node in assignments} == DEFAULTS


@every_notebook
def test_cells_are_short(path):
    for source in sources(path, "code"):
        assert 0 < len(source.splitlines()) <= LONGEST_CELL, source


@every_notebook
def test_no_long_function_or_class_is_defined(path):
    for source in sources(path, "code"):
        for node in ast.walk(ast.parse(source)):
            assert not isinstance(node, ast.ClassDef), source
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno - node.lineno + 1 <= LONGEST_FUNCTION, source


@every_notebook
def test_there_is_at_least_as_much_prose_as_code(path):
    assert words(sources(path, "markdown")) >= words(sources(path, "code"))


@every_notebook
def test_it_opens_with_its_purpose_and_place_and_closes_with_what_was_learned(path):
    cells = read(path).cells
    first, last = cells[0], cells[-1]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    assert "**Purpose.**" in first.source
    assert any(word in first.source for word in ("section", "Section", "Table", "Figure"))
    assert last.cell_type == "markdown" and "What was learned" in last.source.splitlines()[0]
