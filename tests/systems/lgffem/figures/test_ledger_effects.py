"""The ledger's table from outcomes made by hand: no training, every number checked against its definition."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import Study
from lgffem_core.report.tables import write_table
from lgffem_core.retrieval.comparison import mcnemar_exact
from lgffem_core.retrieval.protocols import Outcome, from_hits
from lgffem_core.systems.lgffem.figures import ledger_effects as module
from lgffem_core.systems.lgffem.figures.ledger_effects import COLUMNS, LEDGER_NOTE, effect_chart, ledger_table
from lgffem_core.systems.lgffem.ledger import Effect

LABELS = np.repeat(np.arange(5), 20)
TEXT = np.arange(100) % 2 == 0  # η_p 50
GAINS = {2: 30, 3: 1, 4: 20, 5: 0, 7: 5, 8: 3, 12: 2, 15: 5, 20: 4}  # wrong answers that the code's side gets right
UNMEASURED = {6, 9, 10, 11, 13, 14, 16, 17, 18, 19, 21, 22, 23, 24, 25, 26}


def code_hits(row):
    hits = TEXT.copy()
    hits[np.flatnonzero(~TEXT)[: GAINS[row]]] = True
    return hits


def measured(study, row):
    text, filed = from_hits(TEXT, LABELS), Outcome(np.full(5, 15), np.full(5, 20), None)
    if row.row == 1:
        return [Effect(row, "leave_one_out", "released", text, filed)]
    code = from_hits(code_hits(row.row), LABELS)
    return [Effect(row, "leave_one_out", "leave_one_out", text, code)]


@pytest.fixture
def study(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "measure", measured)
    return Study.load(PROJECT / "params" / "demo.yaml", {"retrieval.bootstrap": 500}, root=tmp_path)


def test_every_row_has_its_line_in_order_and_says_why_it_has_no_numbers(study):
    table = ledger_table(study)
    assert list(table.columns) == COLUMNS and list(table["row"]) == list(range(1, 27))
    empty = table[table["delta"].isna()]
    assert set(empty["row"]) == UNMEASURED
    assert empty["note"].str.startswith("not measured: ").all() and (empty["protocol"] == "").all()
    assert empty[["eta_p_text", "eta_p_code", "delta_low", "delta_high", "p_holm"]].isna().all(axis=None)
    assert table.set_index("row")["note"][11].endswith("ledger.strategy_b=false leaves out")


def test_numbers_are_code_minus_text_under_the_protocol_that_is_named(study):
    table = ledger_table(study).set_index("row")
    for row, gain in GAINS.items():
        assert tuple(table.loc[row, ["protocol", "eta_p_text", "eta_p_code", "delta"]]) == (
            "leave_one_out", 50, 50 + gain, gain,
        )  # fmt: skip
        assert table.loc[row, "delta_low"] <= gain <= table.loc[row, "delta_high"]
    assert tuple(table.loc[1, ["protocol", "eta_p_code", "delta"]]) == ("leave_one_out -> released", 75, 25)


def test_p_is_adjusted_over_the_rows_of_a_protocol(study):
    table, largest = ledger_table(study).set_index("row"), 0
    plain = sorted((mcnemar_exact(TEXT, code_hits(row)), row) for row in GAINS)
    for rank, (p, row) in enumerate(plain):
        largest = max(largest, min(1, p * (len(plain) - rank)))
        assert table.loc[row, "p_holm"] == pytest.approx(largest)
    assert table.loc[1, "p_holm"] == pytest.approx(2 / 2**5, abs=0.01)  # alone under `released`: five scans, all better


def test_what_is_no_larger_than_another_seed_is_said_to_be(study):
    notes = ledger_table(study).set_index("row")["note"]
    assert {row for row in GAINS if notes[row] == "no further than another seed"} == {3, 5, 7, 8, 20}
    assert notes[15] == "the yardstick" and notes[1] == notes[12] == "one set of weights"
    assert notes[2] == notes[4] == "further than another seed"


def test_what_is_further_than_another_seed_but_may_be_nothing_is_said_to_be():
    """Six points beyond a seed's five: by chance where the interval includes 0, at its end too."""
    low, high = [1, -1, 0, -9, 2, -1, np.nan, 2], [9, 12, 12, 0, 9, 13, np.nan, 9]
    table = pd.DataFrame(
        {"row": [15, 2, 3, 4, 5, 12, 6, 7], "protocol": ["leave_one_out"] * 6 + ["", "leave_one_out"]}
        | {"delta": [5, 6, 6, -6, 6, 6, np.nan, 6], "delta_low": low, "delta_high": high}
        | {"p_holm": [1, 1, 1, 1, 0.05, 1, np.nan, 0.06]}
        | {"note": [""] * 5 + ["one set of weights", "not measured: why", ""]}
    )
    notes = module.with_yardstick(table).set_index("row")["note"]
    assert set(notes[[2, 3, 4]]) == {"further than another seed, but the interval includes 0"}
    assert notes[5] == "further than another seed" == notes[7].removesuffix(", but p_holm is above 0.05") != notes[7]
    assert (notes[12], notes[6]) == ("one set of weights", "not measured: why")


def test_a_seed_that_happens_to_score_alike_is_no_yardstick_of_no_length():
    """One patch of 331 is no effect, though both seeds score the same: each is right on patches of its own."""
    table = pd.DataFrame(
        {"row": [15, 20, 4, 15], "protocol": ["test_to_train"] * 3 + ["released"], "note": [""] * 4}
        | {
            "delta": [0.0, 0.3, 8, 3],
            "delta_low": [-6.9, 0.1, 2, 1],
            "delta_high": [7, 1.8, 14, 4],
            "p_holm": [0.01] * 4,
        }
    )
    assert module.seed_reach(table).to_dict() == {"test_to_train": pytest.approx(6.95), "released": 3}
    notes = module.with_yardstick(table)["note"].tolist()
    assert notes[1:3] == ["no further than another seed", "further than another seed"]
    (band,) = effect_chart(table.assign(topic=""), "test_to_train", "label").axes[0].patches
    assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx((-6.95, 6.95))


def test_switches_are_written_as_in_a_profile(study):
    switch = ledger_table(study).set_index("row")["switch"]
    assert switch[8] == "training.loss.margin: 17.2 -> 17.5"
    assert switch[11] == "data.pannuke.split: null -> 1"
    assert switch[4] == "model.toggles.head_norm: false -> true"
    assert switch[1] == "retrieval.protocols: [leave_one_out] -> [released]"
    assert switch[12] == "model.toggles.normalize_embedding: false -> true (text and code -> ours)"
    assert switch[20] == "training.c.amsgrad: false -> true (AdamW without it -> the code)"
    assert switch[9] == ""


def test_it_can_be_written_and_read_back(study):
    table = ledger_table(study)
    path = write_table(study, table, "audit_ledger", "Text against code", LEDGER_NOTE)
    read = pd.read_csv(path, keep_default_na=False, na_values={name: [""] for name in COLUMNS[7:13]})
    pd.testing.assert_frame_equal(read, table)
    lines = path.with_suffix(".md").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2 + 2 + 26 and "nan" not in " ".join(lines[2:])


# -- the picture: a point for each measured row of one protocol, and the yardstick's band ------------------------------

TABLE = pd.DataFrame(
    {
        "row": [2, 3, 5, 15, 2],
        "topic": ["scale", "GRN", "fusion", "seeds", "scale"],
        "protocol": ["leave_one_out"] * 4 + ["released"],
        "delta": [6.0, -1.0, np.nan, -4.5, 9.0],
        "delta_low": [2.0, -3.0, np.nan, -6.0, 8.0],
        "delta_high": [9.0, 2.0, np.nan, -1.0, 9.5],
    }
)


def test_measured_rows_of_the_protocol_stand_in_order_with_their_intervals():
    figure = effect_chart(TABLE, "leave_one_out", "label")
    (ax,) = figure.axes
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["2  scale", "3  GRN", "15  seeds"]
    (points,) = [line for line in ax.lines if line.get_marker() == "o"]
    assert points.get_xdata().tolist() == [6, -1, -4.5] and points.get_ydata().tolist() == [0, 1, 2]
    segments = [segment[:, 0].tolist() for line in ax.collections for segment in line.get_segments()]
    assert segments == [[2, 9], [-3, 2], [-6, -1]]
    assert "label" in [text.get_text() for text in figure.texts] and plt.get_fignums() == []


def test_the_band_is_as_wide_as_the_effect_of_another_seed():
    (band,) = effect_chart(TABLE, "leave_one_out", "label").axes[0].patches
    assert (band.get_x(), band.get_x() + band.get_width()) == (-4.5, 4.5)
    assert not effect_chart(TABLE, "released", "label").axes[0].patches
