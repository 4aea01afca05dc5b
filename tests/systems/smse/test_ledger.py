"""SMSE's ledger and claims: complete, checked on reading, and with this run's values."""

import re

import pytest

from lgffem_core.base.errors import RequestError
from lgffem_core.config.systems import SMSE
from lgffem_core.systems.smse.comparisons import COMPARISON_NOTE, questions
from lgffem_core.systems.smse.ledger import REFERENCE, ledger_table, read_claims, read_ledger, verdicts


def test_rows_are_numbered_and_name_parameters_once():
    found = read_ledger()
    assert [row.row for row in found] == list(range(1, len(found) + 1))
    named = [row.parameter for row in found if row.parameter]
    assert len(named) == len(set(named)) and all(name.startswith("smse.") for name in named)


def test_the_note_says_of_every_question_what_is_asked(smse):
    assert {each.key for each in questions(smse())} == set(re.findall("`(\\w+)`", COMPARISON_NOTE))


def test_claims_ask_questions_that_there_are_or_say_why_not(smse):
    keys = {each.key for each in questions(smse())}
    for claim in read_claims():
        assert set(claim.questions) <= keys and bool(claim.questions) != bool(claim.why_not)


def test_the_improvement_is_not_comparable_and_synthetic_images_judge_no_claim(smse):
    import pandas as pd

    table = verdicts(smse(data__breakhis__root=None), pd.DataFrame())
    assert table["verdict"].tolist()[0] == "not comparable"
    assert set(table["verdict"]) == {"not comparable", "not run here", "holds in part"}


def test_the_table_has_the_values_of_the_run(smse):
    table = ledger_table(smse(smse__margin=3.0))
    assert "smse.margin=3.0" in set(table["here"]) and list(table.columns)[-1] == "here"
    assert table["chosen"].str.len().min() > 0


def test_what_the_ledger_calls_the_codes_is_what_the_defaults_are():
    settings = SMSE()
    assert (settings.margin, settings.metric_weight, settings.alpha) == (1, 1, 2)
    assert (settings.gamma_triplet, settings.gamma_pair) == (1.2, 1.5)
    assert (settings.epochs, settings.batch_size, settings.lr, settings.step_epochs) == (40, 50, 1e-3, 8)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("parameter: smse.network", "parameter: smse.netwrok", "rows, entry 1: smse.netwrok is no parameter"),
        ("  topic: network\n", "", "rows, entry 1, topic: Field required"),
        ("claims:\n", "claim:\n", "claims must be a list of entries"),
    ],
)
def test_a_fault_names_the_entry(tmp_path, before, after, said):
    text = REFERENCE.read_text(encoding="utf-8")
    (path := tmp_path / "smse.yaml").write_text(text.replace(before, after, 1), encoding="utf-8")
    with pytest.raises(RequestError, match=said):
        read_ledger(path)
        read_claims(path)
