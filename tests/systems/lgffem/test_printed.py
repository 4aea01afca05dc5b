"""The printed numbers by themselves: the outputs that the authors' repository keeps, and their arithmetic."""

from itertools import product

import numpy as np
import pytest

from lgffem_core.base.errors import RequestError
from lgffem_core.data.sets.facts import KIMIA_TEST_COUNTS
from lgffem_core.retrieval.metrics import Scores, eta_scores
from lgffem_core.retrieval.protocols import leave_one_out, released
from lgffem_core.systems.lgffem.printed import arithmetic_table, example, fewest, fitting, printed_runs, printed_table
from lgffem_core.systems.lgffem.tables import published

COUNTS = np.array(KIMIA_TEST_COUNTS)


def rounded(correct, counts=COUNTS):
    return Scores(*(round(float(value), 2) for value in eta_scores(np.asarray(correct), np.asarray(counts))))


# -- who printed Table 1 -----------------------------------------------------------------------------------------


def test_the_kept_outputs_of_one_commit_are_the_nine_values_of_table_1():
    """The claim of notebook 10, README and ledger row 1."""
    printed = {run.row: run for run in printed_runs() if run.commit == "51b33ed" and run.row}
    table = published("table1")
    assert printed.keys() == table["rows"].keys() == set("abc") and table["protocol"] == "released"
    for name, values in table["rows"].items():
        assert {field: getattr(printed[name], field) for field in Scores._fields} == values, name


def test_every_run_is_listed_and_matches_the_row_that_it_is_said_to_be():
    table, said = printed_table(), [(run.row or "").upper() for run in printed_runs()]
    assert table["commit"].unique().tolist() == ["51b33ed", "db91e5e", "48a387c", "7f80161", "1f78c1a"]
    assert table["table1"].tolist() == said == ["", "B", "", "A", "C", "C", "C", "", ""]


def test_table_2_repeats_the_value_of_strategy_c():
    own = {name: published("table2")["rows"]["LGFFEM"][name] for name in (*Scores._fields, "protocol")}
    assert own == published("table1")["rows"]["c"] | {"protocol": "released"}


def test_each_printed_line_is_consistent_in_itself():
    """A misread digit in the reference file would hardly give whole numbers of patches."""
    for run in printed_runs():
        scores = Scores(*(round(getattr(run, name), 2) for name in Scores._fields))
        assert len(fitting(scores.eta_p, 1325)) == 1 and example(scores, "released") is not None, run


def test_a_run_that_is_not_as_it_should_be_is_named(tmp_path):
    (path := tmp_path / "runs.yaml").write_text("runs:\n- {commit: abc, date: 2024-02-22, cell: 1, row: d}\n")
    with pytest.raises(RequestError, match="runs, entry 1, row: Input should be 'a', 'b' or 'c'"):
        printed_runs(path)


# -- what they can be made of ------------------------------------------------------------------------------------


def test_each_share_of_the_paper_is_one_whole_number_of_patches():
    """The numbers by hand: 955/1325 = 72.0755 %, …"""
    known = {72.08: 955, 77.36: 1025, 99.40: 1317, 95.92: 1271, 97.89: 1297}
    assert {percent: fitting(percent, 1325) for percent in known} == {p: [k] for p, k in known.items()}


def test_a_share_that_no_or_several_numbers_have():
    assert fitting(50.0, 7) == [] and fitting(0.01, 30000) == [2, 3, 4]  # 0.0067, 0.01 and 0.0133 %


@pytest.mark.parametrize("protocol", ["leave_one_out", "released"])
@pytest.mark.parametrize("name", ["a", "b", "c", "DenseNet-121", "MA + MS-loss"])
def test_every_published_row_is_possible_under_both_protocols(protocol, name):
    values = published("table1" if len(name) == 1 else "table2")["rows"][name]
    scores = Scores(*(values[field] for field in Scores._fields))
    found = example(scores, protocol)
    assert rounded(found) == scores
    assert (found >= fewest(protocol, COUNTS)).all() and (found <= COUNTS).all()


@pytest.mark.parametrize("protocol", ["leave_one_out", "released"])
def test_possible_is_what_enumeration_says(protocol):
    counts = np.array([2, 4, 3])
    low = {"leave_one_out": (0, 0, 0), "released": (1, 1, 3)}[protocol]
    reached = {rounded(c, counts) for c in product(*(range(a, n + 1) for a, n in zip(low, counts, strict=True)))}
    for c in product(*(range(n + 1) for n in counts)):
        scores = rounded(c, counts)
        assert (example(scores, protocol, counts) is not None) == (scores in reached), c


def test_scores_that_cannot_go_together_are_impossible():
    assert example(Scores(99.40, 90.00, 89.46), "leave_one_out") is None  # eight wrong patches cannot cost ten points
    assert example(Scores(99.40, 99.47, 98.80), "leave_one_out") is None  # no product of the two
    assert example(Scores(99.42, 99.47, 98.89), "leave_one_out") is None  # no whole number of patches


def test_the_fewest_are_reached_by_embeddings_and_never_missed():
    """Random embeddings of few patches reach the bound in 300 draws, and none falls below it."""
    counts = np.array([2, 4, 3])
    labels, fewest_right = np.repeat(np.arange(3), counts), fewest("released", counts)
    assert fewest_right.tolist() == [1, 1, 3]
    seen = [released(np.random.default_rng(seed).standard_normal((9, 3)), labels).correct for seed in range(300)]
    assert np.min(seen, axis=0).tolist() == fewest_right.tolist()
    assert leave_one_out(np.array([[0.0], [9], [1], [8], [7], [6], [2], [3], [20]]), labels).correct.min() == 0


def test_the_table_has_a_line_for_each_published_row():
    table = arithmetic_table()
    assert table["row"].tolist() == ["A", "B", "C", "DenseNet-121", "MA + MS-loss", "LGFFEM"]
    assert table["right"].tolist() == ["955", "1025", "1317", "1271", "1297", "1317"]
    assert set(table["leave_one_out"]) == set(table["released"]) == {"possible"}
