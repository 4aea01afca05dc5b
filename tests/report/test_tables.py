"""A data frame as files: they say which data it is from, and no text of a user's breaks them."""

import importlib
import re

import pandas as pd
import pytest

from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import Study
from lgffem_core.report.tables import markdown, readable, write_table
from lgffem_core.run.registry import artefacts_of, registry

#: What a note or caption may use once it has said what it is.
SPELLED = {
    "BCa": "bias-corrected and accelerated bootstrap",
    "RFL": "einforced focal loss",
    r"mAP": "ean average precision",
    "MV": "majority vote",
    "R@k?1?": "first k is right|first answer has",
    "k-NN": "nearest neighbours",
}
SCORES = {"eta_p": [100 / 3, 100], "paper_eta_p": [None, 72.08]}
TABLE = pd.DataFrame({"strategy": ["A", "B"], "variant": "paper", **SCORES})


@pytest.fixture
def study(tmp_path):
    return Study.load(PROJECT / "params" / "demo.yaml", {"profile": "my_own_profile"}, root=tmp_path)


def test_every_file_for_readers_says_which_data_it_is_from(study):
    path = write_table(study, TABLE, "table1", "Table 1", "Note.")
    assert path == study.results / "tables" / "table1.csv"
    for kind in (".md", ".tex"):
        text = path.with_suffix(kind).read_text()
        assert "DEMO, synthetic tissue, not comparable with the paper" in text and "* = synthetic" in text
    assert "| A        | paper   | 33.33  |             |" in path.with_suffix(".md").read_text()


def test_latex_is_escaped_and_balanced(study):
    text = write_table(study, TABLE, "table1", "50 % & more_of", "`eta_p`").with_suffix(".tex").read_text()
    body = text.replace(r"\label{tab:table1}", "")
    assert r"50 \% \& more\_of" in body and r"my\_own\_profile" in body
    assert not re.search(r"(?<!\\)[_%#$`]", body)
    assert body.count("{") == body.count("}")
    (columns,) = re.findall(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert columns == "llrr"
    for line in text[text.index(r"\toprule") : text.index(r"\bottomrule")].splitlines():
        if line.endswith(r"\\"):
            assert len(re.findall(r"(?<!\\)&", line)) == 3
    for environment in ("table", "tabular"):
        assert text.count(rf"\begin{{{environment}}}") == text.count(rf"\end{{{environment}}}") == 1


def test_a_file_name_with_any_character_breaks_no_table(study):
    """A variant names the weights' file, and a user may call it anything."""
    name = r"weights a|b_c#1 {50%} $x^2~\y&z.pth"
    path = write_table(study, TABLE.assign(variant=name), "table2", "Table 2", "")
    lines = [line for line in path.with_suffix(".md").read_text().splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {5}
    body = path.with_suffix(".tex").read_text()
    (line, *_) = [line for line in body.splitlines() if "weights a" in line]
    plain = line.replace(r"\textbackslash{}", "").replace(r"\textasciitilde{}", "").replace(r"\textasciicircum{}", "")
    assert not re.search(r"(?<!\\)[_%#${}^~]", plain) and len(re.findall(r"(?<!\\)&", plain)) == 3
    assert pd.read_csv(path)["variant"].isin([name]).sum() == 2


def test_a_bar_in_a_cell_opens_no_new_cell():
    assert markdown(pd.DataFrame({"a": ["x|y"], "b": ["z"]})).splitlines()[-1] == r"| x\|y | z |"


def test_a_notebook_shows_a_dash_where_a_value_does_not_apply_and_whole_sentences():
    table = pd.DataFrame({"method": ["one", None], "eta_p": [1 / 3, float("nan")], "why": ["a", "long " * 40]})
    page = readable(table).to_html()
    assert re.findall(r"<td[^>]*>(.*?)</td>", page) == ["one", "0.33", "a", "–", "–", "long " * 40]
    assert "row_heading" not in page
    assert "row_heading" in readable(table.set_index("method")).to_html()


def test_headings_stand_over_their_words_at_the_left():
    page = readable(pd.DataFrame({"method": ["one"], "eta_p": [0.5], "note": ["two"]})).to_html()
    left = re.findall(r"#T_\w+ \.(col\d) \{\s*text-align: left;", page)
    assert left == ["col0", "col2"] and all(page.count(f' {name}"') == 2 for name in left)  # a heading and a cell


def test_rows_of_one_name_are_shown_each():
    page = readable(pd.DataFrame({"row": [1, 1, 2], "note": ["a", "", "c"]}).set_index("row")).to_html()
    assert re.findall(r"<td[^>]*>(.*?)</td>", page) == ["a", "–", "c"]


def notes():
    """(where, text) of every note on a table that the code holds, and of every caption."""
    for path in sorted((PROJECT / "lgffem_core").rglob("*.py")):
        if re.search(r"^\w*NOTE = ", path.read_text(encoding="utf-8"), re.MULTILINE):
            name = ".".join(path.relative_to(PROJECT).with_suffix("").parts)
            found = vars(importlib.import_module(name)).items()
            yield from ((f"{name}.{key}", text) for key, text in found if key.endswith("NOTE"))
    yield from ((a.file, f"{a.title}: {a.caption}") for a in artefacts_of(registry().values()))


@pytest.mark.parametrize(("where", "text"), [pytest.param(*each, id=each[0]) for each in notes()])
def test_a_note_spells_out_what_it_shortens(where, text):
    for short, whole in SPELLED.items():
        assert not re.search(rf"(?<!\w){short}(?!\w)", text) or re.search(whole, text), (where, short)
