"""The four tasks against loops over every query, chance against its closed form, floors and regions."""

from dataclasses import replace
from math import comb

import numpy as np
import pandas as pd
import pytest

from lgffem_core.systems.fgcr.regions import by_slide, pointed, shown_by_anchors
from lgffem_core.systems.fgcr.scoring import (
    CLASS,
    INSTANCE,
    TASKS,
    Gallery,
    chance,
    gain,
    interval,
    same_for_all,
    scored,
)

LABELS = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 2])
TEXTS = list("abcdbefgah")  # slides 0 and 8, 1 and 4 have the same report


def unit(seed, d=3):
    drawn = np.random.default_rng(seed).standard_normal((len(LABELS), d)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def looped(asks, searched, between, k):
    """(level, measure) -> values, by sorting all distances of each query."""
    found = {}
    for q, query in enumerate(asks):
        order = sorted(range(len(searched)), key=lambda g: (((query - searched[g]).astype(float) ** 2).sum(), g))
        others = [g for g in order if g != q]
        rights = {CLASS: [LABELS[g] == LABELS[q] for g in others]}
        if between:
            rights[INSTANCE] = [TEXTS[g] == TEXTS[q] for g in order]
        for level, right in rights.items():
            for depth in (1, 3, 5):
                found.setdefault((level, f"R@{depth}"), []).append(float(any(right[:depth])))
            precisions = [sum(right[: i + 1]) / (i + 1) for i in range(k) if right[i]]
            found.setdefault((level, f"mAP@{k}"), []).append(sum(precisions) / min(k, max(1, sum(right))))
        for depth in (3, 5):
            first = [LABELS[g] for g in others[:depth]]
            most = max(first.count(label) for label in first)
            vote = next(label for label in first if first.count(label) == most)
            found.setdefault((CLASS, f"MV@{depth}"), []).append(float(vote == LABELS[q]))
    return found


def test_every_task_and_measure_is_its_loop():
    pair, gallery = (unit(0), unit(1)), Gallery.of(LABELS, TEXTS, k=4)
    found = scored(same_for_all(pair), gallery)
    assert len(found) == 6
    for task, (asks, searched) in TASKS.items():
        for (level, name), values in looped(pair[asks], pair[searched], asks != searched, 4).items():
            assert found[task, level][name].tolist() == pytest.approx(values), (task, level, name)


def test_a_report_that_finds_its_own_slide_is_right_as_an_instance_and_not_counted_as_a_class():
    """With the same vectors on both sides the own one comes first everywhere."""
    found = scored(same_for_all((unit(0), unit(0))), Gallery.of(LABELS, TEXTS, k=4))
    assert found["report to slide", INSTANCE]["R@1"].all()
    for task in TASKS:
        np.testing.assert_array_equal(found[task, CLASS]["R@1"], found["slide to slide", CLASS]["R@1"])
    assert found["slide to slide", CLASS]["R@1"].mean() < 1


def test_chance_is_that_of_its_closed_form():
    gallery = Gallery.of(LABELS, TEXTS, k=4)
    found = chance(gallery)
    same = {CLASS: [(LABELS == own).sum() - 1 for own in LABELS], INSTANCE: [TEXTS.count(own) for own in TEXTS]}
    for (_, level), values in found.items():
        size = len(LABELS) - (level == CLASS)
        for k in (1, 3, 5):
            expected = np.mean([1 - comb(size - n, k) / comb(size, k) for n in same[level]])
            assert values[f"R@{k}"] == pytest.approx(expected, abs=0.03), (level, k)
    assert set(found) == set(scored(same_for_all((unit(0), unit(1))), gallery))


def test_gains_and_intervals_are_of_paired_slides():
    better, worse = np.array([1.0] * 60 + [0.0] * 40), np.array([1.0] * 40 + [0.0] * 60)
    mean, low, high = gain(better, worse, 2000)
    assert mean == pytest.approx(20) and 10 < low < 20 < high < 30
    assert gain(better, better, 2000) == (0, 0, 0)
    low, high = interval(better, 2000)
    assert 48 < low < 60 < high < 71
    weighted = gain(np.array([2.0, 1] * 50), np.array([1.0, 1] * 50), 2000, np.array([2.0, 2] * 50))
    assert weighted[0] == pytest.approx(25)


class Pointed:
    """An archive of one slide, whose first anchor lies on what is asked for."""

    def __init__(self, slide, prompts):
        self.slide, self.tokenizer = slide, type("Known", (), {"prompts": prompts})

    def of(self, split):
        return [self.slide]


def test_pointing_asks_for_what_some_anchors_show_and_some_do_not(small):
    slide = small.record(40, prompts=("glands", "necrosis", "lymphocytes"))
    own = np.concatenate(slide.anchors)
    findings = np.full(40, 1)
    findings[own[0]] = 0  # one patch of glands, necrosis all around, lymphocytes nowhere
    slide = replace(slide, findings=findings)
    shows = shown_by_anchors(slide)
    assert shows["glands"].sum() == (own == own[0]).sum() and not shows["lymphocytes"].any()
    scores = np.zeros((len(own), 3))
    scores[0, 0], scores[0, 2] = 1, 1  # by the tokenizer's order: glands, lymphocytes, necrosis
    table = pointed(Pointed(slide, ("glands", "lymphocytes", "necrosis")), [scores])
    assert table[["finding", "hit"]].values.tolist() == [["glands", 1.0], ["necrosis", 0.0]]
    assert table["share"].tolist() == [shows["glands"].mean(), shows["necrosis"].mean()]
    assert pointed(Pointed(replace(slide, findings=None), ("glands",)), [scores]).empty


def test_findings_of_one_slide_are_added_up():
    table = pd.DataFrame({"slide": [0, 0, 2], "hit": [1.0, 0.0, 1.0]})
    assert by_slide(table, "hit", 4).tolist() == [1, 0, 1, 0]
