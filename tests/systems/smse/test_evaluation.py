"""Answers image by image, measures over patients, and what is concluded: against loops and closed cases."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from lgffem_core.systems.smse.comparisons import Question, asked_of, comparisons, questions, shown, verdict
from lgffem_core.systems.smse.evaluation import (
    answered,
    answers,
    by_encoder,
    by_run,
    difference,
    patient_score,
    rate,
    scores,
    table_of,
)
from lgffem_core.systems.smse.runs import Run, runs, seen_words
from lgffem_core.systems.smse.splits import fold_split

EVERY = (40, 100, 200, 400)


def rows(patients=8, each=3, seed=0):
    """A table of tested images: a patient has one class, and images of each magnification."""
    found = []
    for patient in range(patients):
        for zoom in EVERY:
            for number in range(each):
                label = int(patient % 3 > 0)
                path = f"{patient}_{zoom}_{number}.png"
                found.append((path, ("benign", "malignant")[label], label, f"p{patient}", zoom))
    return pd.DataFrame(found, columns=["path", "label", "label_id", "group", "magnification"])


def embedded(table, seed=0, size=4):
    return np.random.default_rng(seed).standard_normal((len(table), size)).astype(np.float32)


def test_retrieval_is_the_loop_over_other_patients():
    table, vectors = rows(), embedded(rows())
    found = answered(table, vectors, None)
    for i in range(len(table)):
        others = [j for j in range(len(table)) if table["group"][j] != table["group"][i]]
        near = sorted(others, key=lambda j: (((vectors[i].astype(float) - vectors[j]) ** 2).sum(), j))
        labels = [table["label_id"][j] for j in near]
        assert found["top1"][i] == (labels[0] == table["label_id"][i])
        for k in (3, 5):
            assert found[f"MV@{k}"][i] == ((sum(labels[:k]) > k / 2) == table["label_id"][i])
        same = [table["magnification"][j] == table["magnification"][i] for j in near]
        assert found["same_magnification"][i] == same[0]
        assert found["by_chance"][i] == pytest.approx(sum(same) / len(same))
    assert found["right"].isna().all()


def test_the_same_magnification_rate_tells_tissue_from_objectives():
    table = rows(each=6)
    zoom = table["magnification"].to_numpy(dtype=np.float32)[:, None]
    noise = embedded(table, 1, 1)
    by_zoom = answered(table, np.hstack([100 * zoom, noise]), None)
    by_class = answered(table, np.hstack([table["label_id"].to_numpy(np.float32)[:, None] * 100, noise]), None)
    assert by_zoom["same_magnification"].mean() == 1 and by_zoom["by_chance"].mean() == pytest.approx(0.25)
    assert abs(by_class["same_magnification"].mean() - 0.25) < 0.12 and by_class["top1"].mean() == 1


def predicted(table, share, seed=0):
    """Answers of a classifier that is right about each image with a chance that its patient has."""
    rng = np.random.default_rng(seed)
    skill = {patient: np.clip(share + 0.2 * rng.standard_normal(), 0, 1) for patient in table["group"].unique()}
    right = rng.random(len(table)) < table["group"].map(skill).to_numpy()
    labels = table["label_id"].to_numpy()
    return answered(table, embedded(table), np.where(right, labels, 1 - labels))


def test_measures_are_the_explicit_means():
    table = rows()
    found = predicted(table, 0.7)
    cells = scores(found, 400)
    right = (found["predicted"] == found["label_id"]).to_numpy()
    assert cells["accuracy"] == pytest.approx(100 * right.mean())
    assert cells["balanced"] == pytest.approx((cells["recall_benign"] + cells["recall_malignant"]) / 2)
    by_patient = [right[(table["group"] == p).to_numpy()].mean() for p in table["group"].unique()]
    assert cells["patient_score"] == pytest.approx(100 * np.mean(by_patient)) == pytest.approx(patient_score(found))
    assert cells["macro_f1"] == pytest.approx(100 * f1_score(table["label_id"], found["predicted"], average="macro"))
    assert cells["recall_benign"] == pytest.approx(100 * right[table["label_id"] == 0].mean())
    assert cells["accuracy_low"] < cells["accuracy"] < cells["accuracy_high"]


def test_the_interval_is_over_patients_and_not_over_images():
    """More images of the same patients, all answered alike, leave it as it is."""
    table = rows(patients=20, each=1)
    found = answered(table, embedded(table), np.ones(len(table), dtype=int))
    found["right"] = found["group"].isin(["p1", "p4", "p7", "p9", "p12"]).astype(float)
    _, low, high = rate(found, "right", 2000)
    _, again_low, again_high = rate(pd.concat([found] * 5), "right", 2000)
    assert (low, high) == pytest.approx((again_low, again_high))
    assert low < 100 * 5 / 20 < high and high - low > 25


def test_a_difference_is_paired_and_turns_its_sign():
    table = rows(patients=30)
    good, bad = predicted(table, 0.9, 1), predicted(table, 0.55, 2)
    change, low, high = difference(good, bad, "right", 2000)
    assert change == pytest.approx(100 * (good["right"] - bad["right"]).mean()) and 0 < low < change < high
    back = difference(bad, good, "right", 2000)
    assert back[0] == pytest.approx(-change) and back[1] == pytest.approx(-high, abs=1.5)
    assert shown(low, high) == "a" and shown(*back[1:]) == "b" and shown(-1, 1) == shown(0, 0) == shown(3, 3) == ""
    with pytest.raises(ValueError, match="other images"):
        difference(good.iloc[1:], bad.iloc[:-1], "right", 200)


def test_under_no_difference_the_interval_holds_zero_about_as_often_as_it_says():
    table, held = rows(patients=24, each=1), 0
    for seed in range(60):
        _, low, high = difference(predicted(table, 0.7, seed), predicted(table, 0.7, 1000 + seed), "right", 400)
        held += low <= 0 <= high
    assert 50 <= held <= 60


@pytest.mark.parametrize(
    ("seen", "words"),
    [(EVERY, "all"), ((40,), "40×"), ((40, 100, 400), "all but 200×"), ((), "–"), ((40, 100), "40×, 100×")],
)
def test_what_was_seen_in_words(seen, words):
    assert seen_words(seen, EVERY) == words


# -- a study -----------------------------------------------------------------------------------------------


def test_each_fold_is_answered_by_its_own_network_for_its_own_patients(smse):
    study = smse(smse__folds=[1, 2])
    run = runs(study)["plain"]
    found = answers(study, by_run(study, run, 0))
    table, inside = fold_split(study, 1)
    assert sorted(found["path"]) == sorted(table["path"]) and set(found["fold"]) == {1, 2}
    assert set(found.loc[found["fold"] == 1, "path"]) == set(table["path"][inside])
    again = answers(study, by_run(study, run, 0))
    pd.testing.assert_frame_equal(found, again)
    scored = table_of(study, {(run.losses, run.magnifications): found})
    assert scored["tested_on"].tolist() == ["all", "40×", "100×", "200×", "400×"]
    assert scored["images"].tolist()[0] == len(table) == scored["images"].iloc[1:].sum()


def test_an_encoder_without_classes_is_searched_alone(smse):
    from lgffem_core.systems.smse.evaluation import encoder

    study = smse()
    run = runs(study)["plain"]
    found = answers(study, by_encoder(study, encoder(study, run, 1, 0)))
    assert found["right"].isna().all() and found["top1"].between(0, 1).all()
    cells = scores(found, 200)
    assert np.isnan(cells["accuracy"]) and np.isnan(cells["recall_benign"]) and 0 <= cells["top1"] <= 100


def test_questions_compare_on_what_they_say(smse):
    study, table = smse(), rows(patients=12)
    every = runs(study)
    found = {name: predicted(table, 0.9 if name == "pair" else 0.5, number) for number, name in enumerate(every)}
    compared = comparisons(study, every, found, "frozen backbone")
    assert set(compared["question"]) == {each.key for each in questions(study)} - {"features"}
    line = compared[compared["question"] == "unseen"].iloc[0]
    mask = table["magnification"] != 40
    assert line["difference"] == pytest.approx(
        100 * (found["pair"]["right"] - found["one"]["right"])[mask].mean(), abs=0.005
    )
    assert compared["patients"].tolist()[0] == 12
    even = compared[(compared["question"] == "unseen") & (compared["measure"] == "balanced")].iloc[0]
    sides = [found[name][mask].groupby("label")["right"].mean().mean() for name in ("pair", "one")]
    assert even["difference"] == pytest.approx(100 * (sides[0] - sides[1]), abs=0.005)
    assert even["a_percent"] == pytest.approx(100 * sides[0], abs=0.005)
    assert even["difference_low"] < even["difference"] < even["difference_high"]
    benign = compared[compared["tested_on"] == "benign"]
    assert (benign["patients"] == 4).all() and len(benign) == 2


@pytest.mark.parametrize(("on", "count"), [("all", 96), ("40×", 24), ("unseen", 72), ("benign", 36)])
def test_which_images_a_question_is_about(on, count):
    assert asked_of(rows(), on, (40,)).sum() == count


def compared(*sides):
    return pd.DataFrame(
        [{"question": "q", "a": "x", "b": "y", "measure": "right", "tested_on": "all", "difference": 1.0,
          "difference_low": 0.0,
          "difference_high": 2.0, "shown": side} for side in sides]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("sides", "given", "said"),
    [
        (("a", "a"), True, "holds"),
        (("a", ""), True, "not shown"),
        (("a", "b"), True, "contradicted"),
        (("a", "a"), False, "not run here"),
        ((), True, "not run here"),
    ],
)
def test_a_verdict_is_by_the_rule(smse, sides, given, said):
    study = smse() if given else smse(data__breakhis__root=None)
    assert verdict(study, ("q",), compared(*sides))[0] == said


def test_a_verdict_names_two_sides_once(smse):
    table = compared("a", "a", "a").assign(a=["x", "x", "z"], tested_on=["all", "40×", "all"])
    one = "right on all +1.0 (0.0 to 2.0)"
    assert verdict(smse(), ("q",), table)[1] == f"[x] − [y]: {one}, {one.replace('all', '40×')}; [z] − [y]: {one}"


def test_a_question_names_sides_that_there_are(smse):
    names = {*runs(smse()), "backbone"}
    assert {side for each in questions(smse()) for side in (each.a, each.b)} <= names
    assert isinstance(questions(smse())[0], Question) and Run("pair", "focal", (40,)).losses == "pair + focal loss"


def test_a_magnification_that_no_tested_patient_has_gets_no_row(smse):
    table = rows()
    found = answered(table, embedded(table), table["label_id"].to_numpy())
    found = found[found["magnification"] != 400]
    assert np.isnan(rate(found[found["magnification"] == 400], "right", 200)).all()
    assert table_of(smse(), {("a", EVERY): found})["tested_on"].tolist() == ["all", "40×", "100×", "200×"]
