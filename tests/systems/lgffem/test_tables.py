"""Tables 1 and 2: their columns, what stands beside the paper's values, and three files that agree."""

import csv
import re

import numpy as np
import pandas as pd
import pytest

from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import Study
from lgffem_core.report.tables import write_table
from lgffem_core.retrieval.protocols import Outcome, from_hits
from lgffem_core.systems.lgffem import tables
from lgffem_core.systems.lgffem.tables import INTERVAL_NOTE, chance_note, published, table1, table2

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
        return Study.load(PROJECT / "params" / "demo.yaml", {"retrieval.bootstrap": 200, **overrides}, root=tmp_path)

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


# -- Table 2 ---------------------------------------------------------------------------------------------

COLUMNS2 = ["method", *COLUMNS[2:]]
BASELINES = {
    "DenseNet-121": "frozen, random weights",
    "DenseNet-121 barcode": "frozen, random weights",
    "MA + MS-loss": "legacy_seresnet18, random start, 4 epochs",
}


@pytest.fixture
def baselines():
    """Every baseline and protocol, with two seeds."""
    rng, labels = np.random.default_rng(1), np.repeat([0, 1, 2], [4, 7, 9])
    return {
        (method, variant, protocol): [from_hits(rng.random(20) < 0.6, labels) for _ in range(2)]
        for method, variant in BASELINES.items()
        for protocol in PROTOCOLS
    }


def test_table_2_has_every_method_and_protocol_and_lgffem_from_strategy_c_alone(study, baselines, outcomes):
    table = table2(study(seeds=[0, 7]), baselines, outcomes)
    scored = table.dropna(subset="eta_p")
    assert list(table.columns) == COLUMNS2 and len(scored) == 3 * 3 + 2 * 3
    assert scored.groupby("method", sort=False)["protocol"].count().to_dict() == dict.fromkeys(BASELINES, 3) | {
        "LGFFEM": 6
    }
    lgffem = scored[scored["method"] == "LGFFEM"]
    assert lgffem["variant"].tolist() == ["paper"] * 3 + ["released"] * 3
    for _, row in scored.iterrows():
        key = ("c" if row["method"] == "LGFFEM" else row["method"], row["variant"], row["protocol"])
        runs = (baselines | outcomes)[key]
        assert row["eta_w"] == pytest.approx(sum(run.scores.eta_w for run in runs) / 2, abs=0.0051)
        assert row["eta_p_low"] <= row["eta_p"] <= row["eta_p_high"] and row["seeds"] == "0 7"


def test_each_published_value_stands_beside_its_own_method_and_protocol(study, baselines, outcomes):
    table = table2(study(), baselines, outcomes)
    found = table.dropna(subset=PAPER, how="all")
    assert [(row["method"], row["variant"], row["protocol"], *row[PAPER]) for _, row in found.iterrows()] == [
        ("DenseNet-121", "as published", "not known", 95.92, 95.51, 91.62),
        ("MA + MS-loss", BASELINES["MA + MS-loss"], "leave_one_out", 97.89, 97.00, 94.95),
        ("LGFFEM", "paper", "released", 99.40, 99.47, 98.87),
        ("LGFFEM", "released", "released", 99.40, 99.47, 98.87),
    ]
    (own,) = table.index[table["protocol"] == "not known"]
    assert table.loc[own, "eta_p":"eta_p_high"].isna().all() and table.loc[own, "seeds"] == ""
    assert table.loc[own - 1, "method"] == "DenseNet-121" and table.loc[own + 1, "method"] == "DenseNet-121 barcode"


def test_a_published_protocol_that_the_profile_leaves_out_is_not_shown(study, baselines, outcomes):
    chosen = [{k: runs for k, runs in part.items() if k[2] == "test_to_train"} for part in (baselines, outcomes)]
    table = table2(study(retrieval__protocols=["test_to_train"]), *chosen)
    assert len(table) == 3 + 2 + 1
    assert table.dropna(subset=PAPER, how="all")["protocol"].tolist() == ["not known"]


def test_table_2_can_be_made_of_the_baselines_alone(study, baselines):
    table = table2(study(), baselines, {})
    assert list(table["method"].unique()) == list(BASELINES) and len(table) == 10


def test_published_rows_of_table_2_multiply_to_eta_tot():
    rows = published("table2")["rows"]
    assert set(rows) == {"DenseNet-121", "MA + MS-loss", "LGFFEM"}
    for row in rows.values():
        assert row["eta_p"] * row["eta_w"] / 100 == pytest.approx(row["eta_tot"], abs=0.02)


def test_the_three_files_of_table_2_agree(study, baselines, outcomes):
    mine = study()
    path = write_table(mine, table2(mine, baselines, outcomes), "table2", "Table 2", INTERVAL_NOTE)
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    shown, latex = cells_of_markdown(path.with_suffix(".md").read_text()), path.with_suffix(".tex").read_text()
    assert rows[0] == shown[0] == COLUMNS2 and shown == cells_of_latex(latex) and len(shown) == 17
    for exact, cells in zip(rows[1:], shown[1:], strict=True):
        assert cells == exact[:4] + [f"{float(value):.2f}" if value else "" for value in exact[4:]]
    assert not re.search("nan", "".join(map("".join, shown)))


def test_the_note_on_chance_says_what_random_embeddings_score_at_this_runs_counts(study, monkeypatch):
    """Two scans of one and three test patches, and of one and one training patches, counted by hand."""
    labels, splits = [0, 1, 1, 1, 0, 1], ["test"] * 4 + ["train"] * 2
    patches = pd.DataFrame({"label_id": labels, "split": splits})
    monkeypatch.setattr(tables, "patch_table", lambda study, dataset: patches)
    # test_to_train: a half. leave_one_out: 0 of 1 and 2/3 of each of 3. released: C = 1 and 4, so 1 of 1 and 3 of 3.
    assert chance_note(study(), PROTOCOLS) == (
        "Random embeddings are expected to score (eta_p / eta_w / eta_tot): `test_to_train` 50.0 / 50.0 / 25.0, "
        "`leave_one_out` 50.0 / 33.3 / 16.7, `released` 100.0 / 100.0 / 100.0."
    )
    assert "`leave_one_out`" not in chance_note(study(), ["released"])
