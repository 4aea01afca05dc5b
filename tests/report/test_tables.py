"""Table 1: its columns, what stands beside the paper's values, and three files that agree."""

import csv
import re

import numpy as np
import pandas as pd
import pytest

from lgffem_core.report.tables import INTERVAL_NOTE, published, table1, write_table
from lgffem_core.retrieval.protocols import Outcome, from_hits
from lgffem_core.study import PROJECT, Study

COLUMNS = (  # the results schema of the study's architecture
    "strategy, pretraining_data, variant, protocol, seeds, eta_p, eta_w, eta_tot, eta_p_low, eta_p_high, "
    "paper_eta_p, paper_eta_w, paper_eta_tot"
).split(", ")
PAPER = ["paper_eta_p", "paper_eta_w", "paper_eta_tot"]
PUBLISHED = {"A": (72.08, 74.37, 53.60), "B": (77.36, 79.28, 61.33), "C": (99.40, 99.47, 98.87)}
PROTOCOLS = ("test_to_train", "leave_one_out", "released")


@pytest.fixture
def study(tmp_path):
    def make(**overrides):
        overrides = {key.replace("__", "."): value for key, value in overrides.items()}
        return Study.load(PROJECT / "params" / "demo.yaml", {"retrieval.bootstrap": 50, **overrides}, root=tmp_path)

    return make


@pytest.fixture
def outcomes():
    """Every strategy, variant and protocol, with two seeds."""
    rng, labels = np.random.default_rng(0), np.repeat([0, 1, 2], [4, 7, 9])
    found = {}
    for strategy in "abc":
        for variant in ("paper", "released"):
            for protocol in PROTOCOLS:
                runs = [from_hits(rng.random(20) < 0.7, labels) for _ in range(2)]
                if protocol == "released":
                    runs = [Outcome(run.correct, run.counts, None) for run in runs]
                found[strategy, variant, protocol] = runs
    return found


def test_columns_and_rows_are_those_of_the_schema(study, outcomes):
    table = table1(study(), outcomes)
    assert list(table.columns) == COLUMNS
    assert len(table) == 3 * 2 * 3
    assert not table.duplicated(["strategy", "variant", "protocol"]).any()


def test_the_papers_values_stand_beside_its_own_protocol_only(study, outcomes):
    table = table1(study(), outcomes)
    released = table[table["protocol"] == "released"]
    assert table[table["protocol"] != "released"][PAPER].isna().all(axis=None)
    assert len(released) == 6
    for _, row in released.iterrows():
        assert tuple(row[PAPER]) == PUBLISHED[row["strategy"]]


def test_published_values_multiply_to_eta_tot():
    for eta_p, eta_w, eta_tot in PUBLISHED.values():
        assert eta_p * eta_w / 100 == pytest.approx(eta_tot, abs=0.02)
    assert published("table1")["protocol"] == "released"


def test_scores_are_means_over_seeds_to_two_decimals(study, outcomes):
    table = table1(study(seeds=[0, 7]), outcomes)
    for _, row in table.iterrows():
        runs = outcomes[row["strategy"].lower(), row["variant"], row["protocol"]]
        for name in ("eta_p", "eta_w", "eta_tot"):
            mean = sum(getattr(run.scores, name) for run in runs) / 2
            assert row[name] == pytest.approx(mean, abs=0.0051) and row[name] == round(row[name], 2)
        assert row["eta_p_low"] <= row["eta_p"] <= row["eta_p_high"]
    assert set(table["seeds"]) == {"0 7"}


def test_synthetic_sets_carry_a_star(study, outcomes):
    some = study(data__pannuke__root="/tiles")
    named = table1(some, outcomes).groupby("strategy")["pretraining_data"].unique().map(list).to_dict()
    assert named == {"A": ["IN-1K*"], "B": ["IN-1K* + PanNuke"], "C": ["IN-1K* + PanNuke + Kimia*"]}


# -- files -----------------------------------------------------------------------------------------------


def cells_of_markdown(text):
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows if not set("".join(row)) <= {"-"}]


def cells_of_latex(text):
    inside = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    rows = [line.strip().removesuffix(r"\\").split(" & ") for line in inside.splitlines() if line.endswith(r"\\")]
    return [[re.sub(r"\\([_%&])", r"\1", cell).strip() for cell in row] for row in rows]


def test_the_three_files_agree(study, outcomes):
    mine = study()
    path = write_table(mine, table1(mine, outcomes), "table1", "Table 1", INTERVAL_NOTE)
    assert path == mine.results / "tables" / "table1.csv"
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    markdown = cells_of_markdown(path.with_suffix(".md").read_text())
    latex = cells_of_latex(path.with_suffix(".tex").read_text())
    assert rows[0] == markdown[0] == latex[0] == COLUMNS
    assert markdown == latex and len(markdown) == len(rows) == 19
    for exact, shown in zip(rows[1:], markdown[1:], strict=True):
        assert shown[:5] == exact[:5]
        assert shown[5:] == [f"{float(value):.2f}" if value else "" for value in exact[5:]]


def test_csv_reads_back_as_written(study, outcomes):
    table = table1(study(), outcomes)
    again = pd.read_csv(write_table(study(), table, "table1", "T", ""), dtype={"seeds": str})
    pd.testing.assert_frame_equal(again, table)


def test_every_file_for_readers_says_which_data_it_is_from(study, outcomes):
    demo = study()
    write_table(demo, table1(demo, outcomes), "table1", "Table 1", "Note.")
    for kind in ("md", "tex"):
        text = (demo.results / "tables" / f"table1.{kind}").read_text()
        assert "DEMO, synthetic tissue, not comparable with the paper" in text and "* = synthetic" in text


def test_latex_is_escaped_and_balanced(study, outcomes):
    mine = study(profile="my_own_profile")
    write_table(mine, table1(mine, outcomes), "table1", "50 % & more_of", INTERVAL_NOTE)
    text = (mine.results / "tables" / "table1.tex").read_text()
    body = text.replace(r"\label{tab:table1}", "")
    assert r"50 \% \& more\_of" in body and r"my\_own\_profile" in body
    assert not re.search(r"(?<!\\)[_%#$`]", body)
    assert body.count("{") == body.count("}")
    (columns,) = re.findall(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert columns == "l" * 5 + "r" * 8
    for line in text[text.index(r"\toprule") : text.index(r"\bottomrule")].splitlines():
        if line.endswith(r"\\"):
            assert len(re.findall(r"(?<!\\)&", line)) == 12
    for environment in ("table", "tabular"):
        assert text.count(rf"\begin{{{environment}}}") == text.count(rf"\end{{{environment}}}") == 1
