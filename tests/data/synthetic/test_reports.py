"""Synthetic slides with reports: deterministic, and a task that neither mean nor bag of words solves."""

import re
from collections import Counter

import numpy as np
import pytest

from lgffem_core.config.params import Synthetic
from lgffem_core.data import sets
from lgffem_core.data.records import read_record
from lgffem_core.data.synthetic.reports import LABELS, LYMPHOCYTES, OTHERS, PATTERNS, SENTENCES, slide

SMALL = Synthetic(reports_slides=24, reports_patches=60, reports_features=16)


@pytest.fixture(scope="module")
def slides():
    return [slide(SMALL, number) for number in range(60)]


def test_the_same_settings_give_the_same_files_and_more_slides_leave_the_others(tmp_path):
    for name, count in {"a": 12, "b": 12, "more": 13}.items():
        sets.get("reports").make_synthetic(SMALL.model_copy(update={"reports_slides": count}), tmp_path / name)
    files = {n: {p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("a", "b", "more")}
    assert files["a"] == files["b"] and len(files["more"]) == 13
    assert {name: files["more"][name] for name in files["a"]} == files["a"]
    assert read_record(tmp_path / "a" / "slide003.safetensors").slide == "slide003"
    assert slide(SMALL.model_copy(update={"seed": 1}), 0).report != slide(SMALL, 0).report


def test_diseases_take_turns_and_the_report_says_which(slides):
    assert Counter(record.label for record in slides) == dict.fromkeys(LABELS, 10)
    for record in slides:
        said = record.report.lower()
        pattern, arrangement = record.label.split(", ")
        assert {pattern, arrangement, LYMPHOCYTES} <= set(record.prompts)
        assert any(sentence in said for sentence in SENTENCES[pattern])
        assert any(sentence in said for sentence in SENTENCES[arrangement])
        for finding in OTHERS:
            told = [m[1] is None for s in SENTENCES[finding] for m in re.finditer(rf"(no )?\b{s}", said)]
            assert told in (([True],) if finding in record.prompts else ([], [False])), (finding, record.report)


def test_both_arrangements_have_the_same_tissues_and_differ_in_where(slides):
    """Of a lymphocyte's neighbours, how many are tumour? The shares of the tissues say nothing."""
    shares, neighbours = {}, {}
    for record in slides:
        pattern, arrangement = record.label.split(", ")
        tumour = record.findings == record.prompts.index(pattern)
        lymphocytes = record.findings == record.prompts.index(LYMPHOCYTES)
        near = np.linalg.norm(record.positions[:, None] - record.positions[None], axis=2) == 1
        shares.setdefault(arrangement, []).append((tumour.mean(), lymphocytes.mean()))
        neighbours.setdefault(arrangement, []).append((near[lymphocytes] & tumour).sum() / near[lymphocytes].sum())
    np.testing.assert_allclose(np.mean(shares["infiltrated"], 0), np.mean(shares["apart"], 0), atol=0.01)
    assert np.mean(neighbours["infiltrated"]) > 0.4 > 0.1 > np.mean(neighbours["apart"])


def test_findings_are_where_the_record_says_and_features_are_around_their_means(slides):
    for record in slides:
        shown = {record.prompts[row] for row in record.findings if row >= 0}
        assert shown == set(record.prompts) - set(record.label.split(", ")[1:])
        assert record.features.dtype == np.float16 and record.features.shape == (len(record), 16)
    means = {}
    for record in slides:
        stroma = record.features[record.findings < 0].astype(float).mean(axis=0)  # holds the slide's shift, too
        for pattern in PATTERNS:
            if pattern in record.prompts:
                own = record.findings == record.prompts.index(pattern)
                means.setdefault(pattern, []).append(record.features[own].astype(float).mean(axis=0) - stroma)
    for pattern, own in means.items():
        spread = np.linalg.norm(np.std(own, axis=0))
        others = [np.mean(means[other], axis=0) for other in PATTERNS if other != pattern]
        assert min(np.linalg.norm(np.mean(own, axis=0) - other) for other in others) > 2 * spread
