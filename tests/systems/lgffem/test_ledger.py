"""The ledger's rows as data, the studies that switch one of them, and the paired difference; nothing is trained."""

from itertools import combinations, product

import numpy as np
import pytest
from pydantic import BaseModel
from scipy.stats import binomtest

from lgffem_core.base.errors import RequestError
from lgffem_core.base.project import PROJECT
from lgffem_core.config.keys import known_keys
from lgffem_core.config.params import PROTOCOLS, Params
from lgffem_core.config.study import CURRICULUM, VARIANTS, Study
from lgffem_core.retrieval.protocols import Outcome, from_hits
from lgffem_core.systems.lgffem.ledger import base_study, not_measured, paired_difference, read_ledger, readings

LEDGER = read_ledger()
SWITCHED = [row for row in LEDGER if row.switch]
by_row = pytest.mark.parametrize("row", SWITCHED, ids=lambda row: f"row{row.row}")


def study(profile="demo", **overrides):
    overrides = {key.replace("__", "."): value for key, value in overrides.items()}
    return Study.load(PROJECT / "params" / f"{profile}.yaml", overrides)


def value(params, key):
    for name in key.split("."):
        params = getattr(params, name)
    return list(params) if isinstance(params, tuple) else params


def leaves(params):
    return {key: value(params, key) for key in known_keys() if not isinstance(value(params, key), BaseModel)}


# -- the rows ----------------------------------------------------------------------------------------------


def test_all_rows_say_what_both_sides_say_and_what_would_settle_it():
    assert [row.row for row in LEDGER] == list(range(1, 27))
    for row in LEDGER:
        assert all((row.topic, row.text, row.code, row.source, row.settles)), row.row


def test_each_row_has_the_kind_that_a_second_reading_of_the_repository_gave_it():
    kinds = {row.row: row.kind for row in LEDGER}
    assert [n for n in kinds if kinds[n] == "disagreement"] == [1, 2, 3, 4, 7, 10, 14, 16, 18, 19, 22, 24]
    assert [n for n in kinds if kinds[n] == "silence"] == [9, 13, 15, 17, 20, 21, 23, 26]
    assert [n for n in kinds if kinds[n] == "ambiguous"] == [5, 11]
    assert [n for n in kinds if kinds[n] == "observation"] == [6, 8, 12, 25]
    for row in LEDGER:  # what the text says nothing of is not put into its mouth
        assert row.kind == "silence" or "(nothing" not in row.text, row.row


GOOD = "{row: 1, kind: silence, topic: t, text: a, code: b, source: s, settles: x, why_not: w}"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([GOOD.replace("silence", "quarrel")], "rows, entry 1, kind: Input should be 'disagreement', 'silence',"),
        ([GOOD, GOOD], "each number once; they are [1, 1]"),
        ([GOOD.replace("topic", "topics")], "rows, entry 1, topic: Field required"),
        ([GOOD.replace("why_not: w", "why_not: w, note: n")], "rows, entry 1, note: Extra inputs"),
        ([GOOD.replace(", why_not: w", "")], "entry 1: must have either trains or why_not"),
        ([GOOD.replace("why_not: w", "trains: [c]")], "entry 1: trains needs a switch"),
        ([GOOD.replace("why_not", "switch: {training.lrs: [1, 2]}, why_not")], "switches training.lrs, which is no"),
        ([GOOD.replace("why_not", "switch: {training.lr: [1]}, why_not")], "rows, entry 1, switch, training.lr"),
        ([], "a key with nothing behind it"),
        (None, "rows must be a list of entries"),
    ],
)
def test_a_row_that_is_not_as_it_should_be_is_named(tmp_path, rows, words):
    path = tmp_path / "ledger.yaml"
    path.write_text("rows: null\n" if rows is None else "rows:\n" + "".join(f"- {row}\n" for row in rows))
    with pytest.raises(RequestError) as caught:
        read_ledger(path)
    assert str(path) in str(caught.value) and words in str(caught.value)


def test_a_row_is_either_measured_or_says_why_not():
    for row in LEDGER:
        assert (row.trains is None) != (row.why_not is None), row.row
        assert row.switch or row.trains is None, row.row
    assert {row.row for row in LEDGER if row.why_not and row.switch} == {6, 19}


def test_the_five_toggles_are_switched_as_the_two_variants_have_them():
    toggled = {k.split(".")[-1]: v for row in SWITCHED for k, v in row.switch.items() if k.startswith("model.toggles.")}
    paper, released = (vars(VARIANTS[name]) for name in ("paper", "released"))
    ours = toggled.pop("normalize_embedding")
    assert toggled == {name: (paper[name], released[name]) for name in paper if name != "normalize_embedding"}
    assert ours == (False, True) and not paper["normalize_embedding"] and not released["normalize_embedding"]


def test_elsewhere_the_default_is_the_texts_and_where_that_is_silent_the_codes():
    published, free = Params(profile="published"), {"retrieval.protocols"}  # all of them are computed
    for row in SWITCHED:
        for key, (first, second) in row.switch.items():
            assert first != second
            if not key.startswith("model.toggles.") and key not in free:
                wanted = second if (row.sides or "").endswith("the code") else first
                assert value(published, key) == wanted, key


# -- the studies -------------------------------------------------------------------------------------------


@by_row
@pytest.mark.parametrize("profile", ["demo", "histology", "paper"])
def test_two_readings_differ_in_the_rows_parameters_alone(row, profile):
    text, code = (leaves(run.params) for run in readings(study(profile), row))
    assert {key for key in text if text[key] != code[key]} == set(row.switch)
    assert {key: (text[key], code[key]) for key in row.switch} == row.switch


def test_a_reading_that_is_the_base_has_its_name_and_no_two_share_a_folder():
    runs = {run.folder: run.params for row in SWITCHED if row.trains for run in readings(study(), row)}
    for (folder, params), (other, others) in combinations(runs.items(), 2):
        assert folder != other and params != others
    titles = [run.title("c") for run in readings(study(), next(row for row in LEDGER if row.row == 2))]
    assert titles == ["strategy C, base_c", "strategy C, row02_code"]  # in lines of progress
    folders = {folder.name for folder in runs}
    assert {"base_c", "base_b_c", "row02_code", "row15_code", "row20_text"} <= folders
    assert not {"row02_text", "row20_code"} & folders


def test_the_base_keeps_the_toggles_of_the_profile_and_gives_up_its_length():
    mine = study("histology", training__c__checkpoint="theirs.pth", seeds=[3, 4])
    base = base_study(mine)
    assert base.params.model.toggles.head_norm is True and base.params.model.toggles.grn == "channels"
    assert base.params.training.c.epochs == mine.params.ledger.epochs and base.params.training.c.checkpoint is None
    assert base.params.seeds == (3,) and base.params.variants == ("paper",)
    text, code = readings(mine, next(row for row in LEDGER if row.row == 4))
    assert code.name == base.name and text.name == "row04_text"


def test_the_rows_are_measured_under_every_protocol_whatever_the_tables_show():
    mine = study(retrieval__protocols=["released"])
    for row in SWITCHED:
        if "retrieval.protocols" not in row.switch:
            assert all(run.params.retrieval.protocols == PROTOCOLS for run in readings(mine, row))


def test_runs_touch_nothing_of_the_profile_but_its_data():
    mine = study()
    runs = list(product(CURRICULUM, mine.params.variants, mine.params.seeds))
    main = {mine.checkpoints(*run) for run in runs} | {mine.index("pannuke")}
    main |= {mine.embeddings(*run) for run in runs}
    for row in SWITCHED:
        for run in readings(mine, row):
            own = {run.checkpoints("c", "paper", 0), run.embeddings("c", "paper", 0), run.index("pannuke")}
            assert not own & main and all(path.is_relative_to(mine.artifacts / "ledger") for path in own)
            assert run.data_root("kimia") == mine.data_root("kimia") and run.index("kimia") == mine.index("kimia")


def test_strategy_c_starts_from_nothing_unless_the_row_is_about_b():
    for row in SWITCHED:
        for run in readings(study(), row):
            assert run.parent("b") is None
            assert run.parent("c") == ("b" if row.row in (11, 13) else None)


def test_rows_about_pannuke_are_left_out_where_the_profile_says_so():
    for wanted, rows in ((True, set()), (False, {11, 13})):
        mine = study(ledger__strategy_b=wanted)
        left_out = {row.row for row in LEDGER if not_measured(mine, row) and not row.why_not}
        assert left_out == rows


# -- the difference ----------------------------------------------------------------------------------------

LABELS = np.repeat(np.arange(8), 50)


def hits(rate, seed):
    return np.random.default_rng(seed).random(len(LABELS)) < rate


def test_over_patches_it_is_the_paired_difference_with_mcnemars_p():
    text, code = hits(0.6, 0), hits(0.7, 1)
    found = paired_difference(from_hits(text, LABELS), from_hits(code, LABELS), 4000)
    change = code.astype(float) - text
    error = 100 * change.std() / np.sqrt(len(change))
    assert found.delta == pytest.approx(100 * change.mean())
    assert found.delta_low == pytest.approx(found.delta - 1.96 * error, abs=0.15 * error)
    assert found.delta_high == pytest.approx(found.delta + 1.96 * error, abs=0.15 * error)
    only = int((change > 0).sum()), int((change != 0).sum())
    assert found.p == pytest.approx(binomtest(*only).pvalue)


def test_pairing_narrows_the_interval():
    text = hits(0.6, 0)
    near = np.where(np.arange(len(text)) < 390, text, ~text)  # ten answers differ
    found = [paired_difference(from_hits(text, LABELS), from_hits(c, LABELS), 2000) for c in (near, hits(0.6, 5))]
    assert found[0].delta_high - found[0].delta_low < (found[1].delta_high - found[1].delta_low) / 3


def test_the_sides_are_text_and_code_in_this_order():
    better, worse = (from_hits(hits(rate, 3), LABELS) for rate in (0.9, 0.5))
    there, back = paired_difference(worse, better, 500), paired_difference(better, worse, 500)
    assert there.delta > 30 and 0 < there.delta_low < there.delta < there.delta_high
    assert back.delta == -there.delta and back.p == there.p


def test_where_one_side_asks_once_a_scan_scans_are_the_units():
    text = Outcome(np.array([9, 4, 7, 5, 8, 6]), np.full(6, 10), np.zeros(60, dtype=bool))
    code = Outcome(np.array([10, 8, 9, 10, 9, 10]), np.full(6, 10), None)
    found = paired_difference(text, code, 2000)
    change = code.correct - text.correct
    flips = [abs(np.dot(signs, change)) >= abs(change.sum()) for signs in product((-1, 1), repeat=6)]
    assert found.delta == pytest.approx(100 * change.sum() / 60)
    assert found.p == pytest.approx(np.mean(flips), abs=0.01)
    assert 10 * change.min() <= found.delta_low < found.delta < found.delta_high <= 10 * change.max()


def test_the_same_answers_have_no_difference():
    same = from_hits(hits(0.6, 0), LABELS)
    assert paired_difference(same, same, 100) == (0, 0, 0, 1)
