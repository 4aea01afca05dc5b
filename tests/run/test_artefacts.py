"""The artefact map: what the paper shows has one producer here, and docs/artefacts.md says which."""

import ast
import csv
import json
import re
import runpy

import pytest

from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import Study
from lgffem_core.run.registry import artefacts_of, registry
from lgffem_core.run.stages import all_stages, artefacts, stage_outputs

NOTEBOOKS = registry()
ARTEFACTS = artefacts_of(NOTEBOOKS.values())
PAPER = {"Table 1", "Table 2", *(f"Figure {number}" for number in range(1, 8))}
AS_THEY_ARE = {"condition": "as they are"}
STEMS = {artefact.file.split("/")[1]: artefact for artefact in ARTEFACTS}


def literals(notebook: str) -> list[str]:
    """Every string that stands in a notebook's code."""
    cells = json.loads((PROJECT / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    trees = [ast.parse("".join(cell["source"])) for cell in cells if cell["cell_type"] == "code"]
    return [
        n.value for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)
    ]


def test_each_artefact_of_the_paper_has_one_entry():
    titles = [artefact.title for artefact in ARTEFACTS]
    assert set(titles) >= PAPER and len(titles) == len(set(titles)) == len(STEMS)


def test_each_artefact_has_one_producer_and_no_notebook_names_one_that_is_not_its_own():
    for notebook in NOTEBOOKS:
        named = [text for text in literals(notebook) if text in STEMS]
        own = [stem for stem, artefact in STEMS.items() if artefact.notebook == notebook]
        assert sorted(set(named)) == sorted(own), notebook


def test_nothing_is_saved_under_a_name_that_the_map_lacks():
    """A table's or figure's file name is a literal of the map; loops over names go through a literal too."""
    saving = re.compile(r"""(?:"figures"\s*/\s*|write_table\(\s*study\s*,\s*\w+\s*,\s*)f?["']([^"']+)["']""")
    for notebook in NOTEBOOKS:
        cells = json.loads((PROJECT / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
        code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        for name in saving.findall(code):
            assert name in STEMS, (notebook, name)


def test_the_stages_leave_every_file_of_the_map_once():
    study = Study.load(PROJECT / "params" / "demo.yaml")
    left = [path for stage in all_stages(study) for path in stage_outputs(study, *stage)]
    for artefact in artefacts(study):
        assert len(artefact.files(study.results)) in (2, 3)
        assert all(left.count(path) == 1 for path in artefact.files(study.results))


@pytest.mark.parametrize("page", ["README.md", "docs/artefacts.md"])
def test_a_page_holds_what_is_made_for_it(page):
    tool = runpy.run_path(str(PROJECT / "tools" / "readme.py"))
    text = (PROJECT / page).read_text(encoding="utf-8")
    assert tool["with_blocks"](page, text) == text, "run tools/readme.py"


@pytest.mark.parametrize(
    ("line", "table", "row"),
    [
        ("| C: + Kimia | ", "table1", {"strategy": "C"}),
        ("| DenseNet-121 | ", "table2", {"method": "DenseNet-121"}),
        ("| floor: colours together (joint histogram) | ", "audit_floors", {"descriptor": "colours together", **AS_THEY_ARE}),
        ("| floor: frozen backbone | ", "audit_floors", {"descriptor": "frozen backbone", **AS_THEY_ARE}),
    ],
)
def test_the_readme_shows_the_kept_numbers_as_they_are(line, table, row):
    """With the floors beside the models, and rounded once: 305 right of 331 are 92.15 %, and not 92.2."""
    (shown,) = (text for text in (PROJECT / "README.md").read_text(encoding="utf-8").splitlines() if line in text)
    cells = [cell.strip().split(" / ") for cell in shown.split("|")[3:-1]]
    for i, run in enumerate(("histology", "demo")):
        with open(PROJECT / f"results/reference/{run}/tables/{table}.csv", encoding="utf-8", newline="") as file:
            kept = [known for known in csv.DictReader(file) if known["eta_p"]]
        for cell, protocol in zip(cells, ("released", "leave_one_out", "test_to_train"), strict=True):
            first = next(k for k in kept if k["protocol"] == protocol and row.items() <= k.items())
            assert float(cell[i]) == float(first["eta_p"])


def test_the_map_names_every_artefact_once():
    text = (PROJECT / "docs" / "artefacts.md").read_text(encoding="utf-8")
    for artefact in ARTEFACTS:
        assert text.count(f"| {artefact.title} | [{artefact.notebook}](../notebooks/{artefact.notebook}.ipynb) | ") == 1
