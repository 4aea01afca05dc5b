"""Columns as a reader sees them: each in one cell, in the order of the file."""

import pytest

from lgffem_core.report.columns import HEADINGS, PREFIXES, cells, in_reading_order, in_words
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
