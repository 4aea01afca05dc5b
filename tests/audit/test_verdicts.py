"""The rule of the verdicts, row by row, and the intervals that it goes by."""

import numpy as np
import pytest

from lgffem_core.audit import verdicts
from lgffem_core.audit.verdicts import verdict
from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import Study
from lgffem_core.data.sets.facts import KIMIA_TEST_COUNTS
from lgffem_core.retrieval.metrics import Scores
from lgffem_core.retrieval.protocols import Outcome

COUNTS = np.array(KIMIA_TEST_COUNTS)
VERDICTS = ("reproduced", "differs", "not comparable", "not run here")
STUDY = Study.load(PROJECT / "params" / "paper.yaml")


def outcome(wrong):
    """Outcome with that many wrong patches in the first scans, one each."""
    return Outcome(COUNTS - (np.arange(24) < wrong), COUNTS, None)


@pytest.mark.parametrize(
    ("number", "protocol", "interval", "why", "word"),
    [
        (99.40, "released", (98.9, 99.9), [], "reproduced"),
        (98.90, "released", (98.9, 99.9), [], "reproduced"),  # the ends belong to the interval
        (98.90, "released", (98.9049, 99.9), [], "reproduced"),  # 98.904 prints as 98.90
        (98.90, "released", (98.9151, 99.9), [], "differs"),
        (99.40, "released", (99.5, 99.9), [], "differs"),
        (99.40, "released", (90.0, 95.0), [], "differs"),
        (99.40, "released", (98.9, 99.9), ["synthetic kimia"], "not run here"),
        (99.40, "released", (90.0, 95.0), ["synthetic kimia"], "not run here"),
        (99.40, "released", None, [], "not run here"),  # the profile leaves the protocol out
        (99.40, "released", (100.0, 100.0), [], "not comparable"),  # no scan differs from another
        (95.92, None, None, [], "not comparable"),
        (95.92, None, None, ["synthetic kimia"], "not run here"),
    ],
)
def test_the_rule_row_by_row(number, protocol, interval, why, word):
    assert verdict(number, protocol, interval, why) == word and word in VERDICTS


def test_docstring_and_note_name_every_verdict():
    for word in VERDICTS:
        assert f"``{word}``" in verdict.__doc__ and f"`{word}`" in verdicts.VERDICT_NOTE


def test_numbers_of_one_row_may_be_judged_differently():
    known = verdicts.Published("Table 1", "C", "released", Scores(99.40, 50.0, 98.87))
    cells = verdicts.judged(STUDY, known, [outcome(8)], [])
    assert cells["verdict"] == "eta_p: reproduced, eta_w: differs, eta_tot: reproduced"


def test_a_model_with_few_errors_does_not_reproduce_every_number():
    """With one bad scan a studentised interval would begin at 0."""
    counts = COUNTS.astype(float)
    one_bad = Outcome(np.where(np.arange(24) == 3, COUNTS - 20, COUNTS), COUNTS, None)
    low, high = verdicts.intervals([one_bad], 2000).eta_p
    assert 90 < low < 100 * (1 - 20 / counts.sum()) < high <= 100
    assert verdict(72.08, "released", (low, high), []) == "differs"


def test_the_interval_of_eta_tot_lies_about_the_product():
    found = verdicts.intervals([outcome(8)], 500)
    for p, w, both in zip(*found, strict=True):
        assert both == pytest.approx(p * w / 100)
    assert found.eta_tot[0] < outcome(8).scores.eta_tot < found.eta_tot[1]
