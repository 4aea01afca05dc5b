"""The report: one page that holds what a run made, and nothing that lies outside it."""

import base64
import re
import shlex
from html.parser import HTMLParser

import pytest

from lgffem_core.artefacts import ARTEFACTS
from lgffem_core.files import write_json, write_text
from lgffem_core.report import page
from lgffem_core.stages import MEASURING, Request
from lgffem_core.study import PROJECT, Study

CSV = """strategy,variant,seeds,eta_p,eta_p_low,eta_p_high,paper_eta_p,paper_eta_w,paper_eta_tot
A,paper <b>,0 1,51.2,48.0,54.4,,,
B,paper <b>,,,,,77.36,79.28,61.33
"""


@pytest.fixture
def study(tmp_path):
    """A run whose files are there, each with contents of its own."""
    mine = Study.load(PROJECT / "params" / "demo.yaml", root=tmp_path)
    for artefact in ARTEFACTS:
        for path in artefact.files(mine.results):
            write_text(path, CSV if path.suffix == ".csv" else f"{artefact.title} as {path.suffix}\n")
    for notebook in MEASURING:
        write_json(mine.measures(notebook), {"of": f"notebook {notebook}"})
    return mine


class Links(HTMLParser):
    """Collects every address that a page refers to, and the ids that it has."""

    def __init__(self, text):
        super().__init__()
        self.targets, self.ids = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "src"):
                self.targets.append(value)
            elif name == "id":
                self.ids.append(value)


def written(study, overrides=None):
    return page.write_report(study, Request("params/demo.yaml", overrides or {})).read_text(encoding="utf-8")


def test_every_table_and_figure_is_on_the_page(study):
    text = written(study)
    for artefact in ARTEFACTS:
        assert f">{artefact.title}</h2>" in text and f"notebook {artefact.notebook}<" in text
        if artefact.path.startswith("figures/"):
            assert base64.b64encode(f"{artefact.title} as .png\n".encode()).decode() in text
    assert "DEMO" in text and "<td>notebook 09_projection</td>" in text


def test_cells_that_belong_together_stand_together(study):
    headings, rows = page.table_rows(study.results / "tables" / "table1.csv")
    assert headings[2:] == ["seeds", "η_p", "95 % interval of η_p", "paper: η_p / η_w / η_tot"]
    assert rows == [
        ["A", "paper <b>", "0 1", "51.20", "48.00 – 54.40", ""],
        ["B", "paper <b>", "", "", "", "77.36 / 79.28 / 61.33"],
    ]
    tables = [artefact for artefact in ARTEFACTS if artefact.path.startswith("tables/")]
    assert written(study).count("paper &lt;b&gt;") == 2 * len(tables)


def test_measures_of_any_depth_become_tables():
    found = {"k": 15, "a": {"x": 1.0, "y": 2.5}, "b": {"x": 3.0, "y": None}, "hits": [{"found": 46}, {"found": 8}]}
    tables = [(t["title"], t["headings"], t["rows"]) for t in page.measure_tables({"of": found})]
    assert tables == [
        ("of", ["k"], [["15"]]),
        ("of hits", ["found"], [["46"], ["8"]]),
        ("of", ["", "x", "y"], [["a", "1", "2.5"], ["b", "3", ""]]),
    ]


def test_the_page_needs_no_other_place(study):
    links = Links(written(study))
    outside = [
        t for t in links.targets if not t.startswith(("data:image/png", "#", "tables/", "figures/", "notebooks/"))
    ]
    assert outside == ["manifest.json"]
    assert all(target[1:] in links.ids for target in links.targets if target.startswith("#"))
    pages = [target for target in links.targets if target.startswith("notebooks/")]
    assert "notebooks/05_strategy_c_kimia_released_seed0.html" in pages and "notebooks/09_projection.html" in pages


def test_the_command_on_the_page_gives_the_same_request():
    overrides = {"data.kimia.root": "../my slides", "training.c.epochs": 2, "model.backbone.options": {"a": "same"}}
    words = shlex.split(page.run_command(Request("params/demo.yaml", overrides)))
    assert words[:3] == ["./run_all.sh", "params/demo.yaml", "--set"]
    from lgffem_core.parameter_files import parse_pairs

    assert parse_pairs(words[3:]) == overrides
    assert page.run_command(Request("params/demo.yaml", {})) == "./run_all.sh params/demo.yaml"


def test_real_tissue_is_not_called_a_demo(study, tmp_path):
    given = Study.load(PROJECT / "params" / "demo.yaml", {"data.kimia.root": str(tmp_path)}, root=tmp_path)
    text = written(given)
    assert "procedural" not in text and "same protocol" in text and "given data" in text
    assert not re.search(r'class="from demo"', text)


def test_the_same_run_gives_the_same_page(study):
    assert written(study) == written(study)


def test_a_figure_that_is_missing_is_an_error(study):
    (study.results / "figures" / "figure3.png").unlink()
    with pytest.raises(FileNotFoundError, match="figure3"):
        written(study)
