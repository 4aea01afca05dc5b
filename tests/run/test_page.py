"""The report: one page that holds what a run made, and nothing that lies outside it."""

import base64
import csv
import html
import re
import shlex
from html.parser import HTMLParser

import pytest

from lgffem_core.base.files import write_json, write_text
from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import Study
from lgffem_core.report import columns
from lgffem_core.run import page
from lgffem_core.run.stages import Request, artefacts, measuring

ARTEFACTS = artefacts(Study.load(PROJECT / "params" / "demo.yaml"))
CSV = """strategy,variant,seeds,eta_p,eta_p_low,eta_p_high,paper_eta_p,paper_eta_w,paper_eta_tot
A,paper <b>,0 1,51.2,48.0,54.4,,,
B,paper <b>,,,,,77.36,79.28,61.33
"""

VERDICTS = """published_in,row,variant,protocol,paper_eta_p,paper_eta_w,paper_eta_tot,eta_p,standard_eta_p,verdict,why
Table 1,C,paper,released,99.4,99.47,98.87,99.2,97.5,reproduced,
Table 1,C,released,released,99.4,99.47,98.87,91.0,90.5,differs,
Table 2,DenseNet-121,frozen,not known,95.92,95.51,91.62,,88.0,not comparable,
Table 2,LGFFEM,paper,released,99.4,99.47,98.87,99.2,97.5,reproduced,
Table 2,LGFFEM,released,released,99.4,99.47,98.87,91.0,90.5,differs,
"""
KEPT = sorted((PROJECT / "results" / "reference").glob("*/tables/*.csv"))


@pytest.fixture
def study(tmp_path):
    """A run whose files are there, each with contents of its own."""
    mine = Study.load(PROJECT / "params" / "demo.yaml", root=tmp_path)
    for artefact in ARTEFACTS:
        for path in artefact.files(mine.results):
            write_text(path, CSV if path.suffix == ".csv" else f"{artefact.title} as {path.suffix}\n")
    write_text(mine.results / "tables" / "verdicts.csv", VERDICTS)
    for notebook in measuring(mine):
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
        if artefact.file.startswith("figures/"):
            assert base64.b64encode(f"{artefact.title} as .png\n".encode()).decode() in text
    assert "DEMO" in text and "<td>notebook 09_projection</td>" in text


def test_cells_that_belong_together_stand_together(study):
    headings, rows = page.table_rows(study.results / "tables" / "table1.csv")
    assert headings[2:] == ["seed", "η_p, %", "interval of η_p, %", "published η_p / η_w / η_tot, %"]
    assert rows == [
        ["A", "paper <b>", "0 1", "51.20", "48.00 – 54.40", ""],
        ["B", "paper <b>", "", "", "", "77.36 / 79.28 / 61.33"],
    ]
    tables = [artefact for artefact in ARTEFACTS if artefact.file.startswith("tables/")]
    assert written(study).count("paper &lt;b&gt;") == 2 * (len(tables) - 1)


def test_what_holds_comes_first_with_one_line_for_each_published_result(study):
    text = written(study)
    assert text.index("<h2") == text.index('<h2 id="holds">')
    one, other = re.findall(r"<li><span.*?</li>", text, flags=re.DOTALL)
    words = [" ".join(re.sub("<[^>]*>", "", line).split()) for line in (one, other)]
    assert words[0] == (
        "reproduced differs Table 1: C, Table 2: LGFFEM, published: 99.40 (protocol released). "
        "Here: 99.20 (variant paper, top-1 97.50); 91.00 (variant released, top-1 90.50)."
    )
    assert words[1] == (
        "not comparable Table 2: DenseNet-121, published: 95.92 (protocol not known). "
        "Here: – (variant frozen, top-1 88.00)."
    )


def test_a_run_without_the_papers_system_judges_nothing_of_it(study, monkeypatch):
    monkeypatch.setattr(page, "artefacts", lambda study: [])
    monkeypatch.setattr(page, "measuring", lambda study: [])
    text = written(study)
    assert "What holds?" not in text and "Measures" not in text and "Grad-CAM" not in text


@pytest.mark.parametrize("run", ["demo", "histology"])
def test_the_kept_runs_answer_in_five_lines(run):
    """Three strategies, two baselines; LGFFEM of Table 2 is strategy C of Table 1."""
    lines = page.what_holds(PROJECT / "results" / "reference" / run / "tables" / "verdicts.csv")
    assert [line["published"] for line in lines] == ["72.08", "77.36", "99.40", "95.92", "97.89"]


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_no_value_is_lost_and_no_name_of_a_column_left_as_it_is(path):
    headings, rows = page.table_rows(path)
    names, *values = csv.reader(path.read_text(encoding="utf-8").splitlines())
    assert len(rows) == len(values) and all(len(row) == len(headings) for row in rows)
    for row, exact in zip(rows, values, strict=True):
        shown = [part for cell in row for part in re.split(" – | / ", cell) if part]
        wanted = [part for cell in exact for part in re.split(" – | / ", cell) if part]
        assert sorted(map(as_number, shown)) == sorted(map(as_number, wanted))
    raw = [word for heading in headings for word in re.findall(r"\w+_\w+", re.sub(r"η_\w+", "", heading))]
    assert set(raw) <= {"leave_one_out"}, "the name of a protocol, which is one"
    note = columns.in_words(path.with_suffix(".md").read_text(encoding="utf-8").splitlines()[0])
    assert not [name for name in names if "_" in name and re.search(rf"(?<![\w`]){name}(?![\w`])", note)]


def as_number(cell):
    """Cells of one value are equal, whatever zeros follow it."""
    try:
        return str(float(cell))
    except ValueError:
        return cell


def test_what_is_looked_for_comes_first():
    """The file keeps its order, which programs go by."""
    tables = PROJECT / "results" / "reference" / "demo" / "tables"
    headings, rows = page.table_rows(tables / "verdicts.csv")
    assert headings[:3] == ["published", "verdict", "why"] and rows[0][:2] == ["Table 1 / A", "not run here"]
    headings, _ = page.table_rows(tables / "audit_ledger.csv")
    assert headings[:3] == ["row", "topic", "protocol"] and headings.index("code − text, points") < headings.index(
        "text"
    )


def test_a_long_text_stands_once_for_neighbours_of_one_row():
    long, other = "x" * 41, "y" * 41
    rows = [["1", "p", long], ["1", "q", long], ["1", "q", other], ["2", "p", other], ["2", "q", other]]
    counts = [[count for _, count in row] for row in page.spans(rows)]
    assert counts == [[1, 1, 2], [1, 1, 0], [1, 1, 1], [1, 1, 2], [1, 1, 0]]


def test_what_shares_a_cell_in_one_row_of_a_column_shares_it_in_every_row():
    """Of Table 2 one variant is long (that of MA + MS-loss); a number never shares a cell."""
    headings, rows = page.table_rows(PROJECT / "results" / "reference" / "demo" / "tables" / "table2.csv")
    counts = {(row[0][0], row[1][0]): [count for _, count in row] for row in reversed(page.spans(rows))}
    assert headings[:2] == ["method", "variant"] and len(counts) == 6
    for (method, variant), (first, shared, *others) in counts.items():
        alike = [row for row in rows if row[:2] == [method, variant]]
        assert shared == len(alike) and first == 1 and set(others) == {1}


def test_texts_of_a_wide_table_stand_once_below_the_rows_that_they_are_of(study):
    kept = PROJECT / "results" / "reference" / "demo" / "tables" / "audit_ledger.csv"
    write_text(study.results / "tables" / "audit_ledger.csv", kept.read_text(encoding="utf-8"))
    with open(kept, encoding="utf-8", newline="") as file:
        texts = [row["code"] for row in csv.DictReader(file) if len(row["code"]) > page.LONG]
    part = re.search(r'<h2 id="audit_ledger">.*?</table>', written(study), flags=re.DOTALL)[0]
    lines = re.findall(r"<tr.*?</tr>", part.replace("<wbr>", ""), flags=re.DOTALL)
    assert max(map(texts.count, texts)) == 3, "one line for each protocol"
    for text in texts:
        (at,) = (i for i, line in enumerate(lines) if text.replace("->", "→") in html.unescape(line))
        assert 'class="told"' in lines[at] and "<b>code:</b>" in lines[at] and 'class="told"' not in lines[at - 1]


def least_width(text, long):
    """Pixels that the longest part of a cell or heading takes that may not be broken, by what a letter takes."""
    if any(sign in text for sign in "0123456789") and " / " not in text and len(text) < 20 and not text[0].isalpha():
        return len(text)
    parts = re.split("[ -]|<wbr>", html.unescape(str(page.breakable(text))))
    return max([19 if long else 0, *(len(part) for part in parts)])


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_a_table_fits_a_window_of_1200_pixels(path):
    """As measured in a browser; there a letter of a wide table takes 7 pixels, of another 8."""
    headings, groups = page.told(*page.table_rows(path))
    rows = [row for group, _ in groups for row in group]
    letter, air = (7, 8) if len(headings) > page.WIDE else (8.2, 19)
    widths = [
        max(least_width(text, long=any(len(cell) > page.LONG for cell in cells)) for text in (heading, *cells))
        for heading, *cells in zip(headings, *rows, strict=True)
    ]
    assert letter * sum(widths) + air * len(widths) < 1200 - 32


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("leave_one_out", "leave_one_out"),
        ("test_to_train", "test_to_train"),
        ("retrieval.protocols", "retrieval.<wbr>protocols"),
        ("a_name_that_is_long", "a_<wbr>name_<wbr>that_<wbr>is_<wbr>long"),
        ("leave_one_out, or <b>", "leave_<wbr>one_<wbr>out, or &lt;b&gt;"),
        ("", ""),
    ],
)
def test_a_protocol_is_in_one_line_and_longer_names_may_break(cell, shown):
    assert str(page.breakable(cell)) == shown


def test_nothing_of_a_table_is_lost_where_its_texts_stand_below():
    path = PROJECT / "results" / "reference" / "demo" / "tables" / "audit_ledger.csv"
    headings, rows = page.table_rows(path)
    columns, groups = page.told(headings, rows)
    assert set(headings) - set(columns) == {"text", "code", "switch", "settles"}
    for shown, texts in groups:
        for row in shown:
            whole = dict(zip(columns, row, strict=True)) | dict(texts)
            assert [whole.get(heading, "") for heading in headings] in rows
    assert sum(len(shown) for shown, _ in groups) == len(rows)


def test_of_a_long_table_one_protocol_is_shown_and_the_others_are_folded(study):
    kept = PROJECT / "results" / "reference" / "demo" / "tables" / "audit_floors.csv"
    write_text(study.results / "tables" / "audit_floors.csv", kept.read_text(encoding="utf-8"))
    text = written(study)
    assert "<td>leave_one_out</td>" in text and "<td>0<wbr>" not in text
    part = re.search(r'<h2 id="audit_floors">.*?</details>', text.replace("<wbr>", ""), flags=re.DOTALL)[0]
    shown, rest = (re.findall(r"<td>(released|leave_one_out|test_to_train)</td>", p) for p in part.split("<details>"))
    with open(kept, encoding="utf-8", newline="") as file:
        names = [row["protocol"] for row in csv.DictReader(file)]
    assert shown == [name for name in names if name == "leave_one_out"] != []
    assert rest == [name for name in names if name != "leave_one_out"]
    assert f"The other {len(rest)} rows" in part


def test_a_small_p_does_not_become_zero(study):
    path = study.results / "tables" / "audit_comparisons.csv"
    write_text(path, "method,difference,p_patches,p_scans\nLGFFEM C,3.1,1.4e-06,0.0008\n")
    assert page.table_rows(path)[1] == [["LGFFEM C", "3.10", "1.4e-06", "0.0008"]]


def test_every_table_scrolls_in_a_box_of_its_own_that_a_keyboard_reaches_and_every_picture_says_what_it_is(study):
    text = written(study)
    boxes = re.findall(r'<div class="scroll" role="region" aria-label="[^"]+" tabindex="0"><table[ >]', text)
    assert len(boxes) == text.count("<table") > 0
    alts = re.findall(r'<img src="data:image/png[^>]* alt="([^"]+)">', text)
    assert len(set(alts)) == text.count("<img") > 0 and not [alt for alt in alts if "`" in alt]
    assert re.search(r"\.scroll \{[^}]*overflow: auto", text)


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
    from lgffem_core.config.parameter_files import parse_pairs

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
