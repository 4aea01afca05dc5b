"""Columns as a reader sees them: each in one cell, in the order of the file."""

import pandas as pd
import pytest

from lgffem_core.report.columns import HEADINGS, PREFIXES, cells, gathered, in_reading_order, in_words
from lgffem_core.systems.lgffem.tables import TABLE1_COLUMNS


def test_every_column_is_in_one_cell_and_the_order_is_the_files():
    found = [name for cell in cells(TABLE1_COLUMNS) for name in cell.columns]
    assert found == TABLE1_COLUMNS


def test_a_pair_shares_a_cell_only_where_both_are_there():
    assert [cell.title for cell in cells(["scan_low", "scan_high"])] == ["interval over scans, %"]
    assert [cell.title for cell in cells(["scan_low"])] == ["scan low"]


def test_depths_share_a_cell_whatever_a_profile_s_depths_are():
    (cell,) = cells(["mAP@1", "mAP@3"])
    assert (cell.title, cell.sign, cell.columns) == ("mAP at 1 / 3, %", " / ", ("mAP@1", "mAP@3"))


@pytest.mark.parametrize("name", [", ".join(group) for group in HEADINGS] + [f"{prefix}_*" for prefix in PREFIXES])
def test_a_note_names_columns_as_their_headings_do(name):
    assert "_low" not in in_words(name) and "*" not in in_words(f"({name})")


def test_a_note_s_other_words_stay():
    assert in_words("a delta_wing, my_eta_p, eta_p_lower") == "a delta_wing, my_eta_p, eta_p_lower"
    assert in_words("Means over seeds, a delta of change. seeds: 0.") == "Means over seeds, a delta of change. Seed: 0."


@pytest.mark.parametrize(
    ("note", "shown"),
    [
        ("Percent. eta_p_low, eta_p_high: both ends.", "Percent. Interval of η_p: both ends."),
        ("Percent. eta_p: mean. groups: classes, e.g. scans.", "Percent. η_p: mean. Groups: classes, e.g. scans."),
    ],
)
def test_each_sentence_begins_with_a_capital(note, shown):
    assert in_words(note) == shown


def test_columns_in_reading_order_are_the_same_columns():
    ledger = ["row", "kind", "topic", "text", "protocol", "eta_p_text", "eta_p_code", "delta", "p_holm", "note"]
    names = [*ledger, "delta_low", "delta_high", "settles"]
    assert sorted(in_reading_order(names)) == sorted(names) and in_reading_order(TABLE1_COLUMNS) == TABLE1_COLUMNS
    assert in_reading_order(names)[-3:] == ["kind", "text", "settles"]


def test_gathered_columns_hold_every_value_once():
    table = pd.DataFrame(
        {
            "method": ["a", "b"], "eta_p": [1 / 3, 50], "eta_p_low": [0.0, None], "eta_p_high": [1.005, None],
            "paper_eta_p": [None, 72.08], "paper_eta_w": [None, 74.37], "paper_eta_tot": [None, 53.6],
        },
        index=[4, 7],
    )  # fmt: skip
    shown = gathered(table)
    assert list(shown) == ["method", "η_p, %", "interval of η_p, %", "published η_p / η_w / η_tot, %"]
    assert shown["η_p, %"].tolist() == [1 / 3, 50] and list(shown.index) == [4, 7]
    assert shown.iloc[:, 2:].to_numpy().tolist() == [["0.00 – 1.00", ""], ["", "72.08 / 74.37 / 53.60"]]


def test_a_table_without_rows_keeps_its_headings():
    table = pd.DataFrame(columns=["eta_p", "eta_p_low", "eta_p_high"])
    assert list(gathered(table)) == ["η_p, %", "interval of η_p, %"]


def test_a_table_without_columns_stays_as_it_is():
    assert gathered(pd.DataFrame([])).empty and gathered(pd.DataFrame(index=[1])).index.tolist() == [1]


def test_columns_of_one_table_have_headings_of_their_own():
    names = [f"{name}{end}" for name in ("change", "region_change") for end in ("", "_low", "_high")]
    assert len(set(gathered(pd.DataFrame(columns=names)))) == 4
