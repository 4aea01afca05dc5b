"""The audit's tables, each number against a loop that does not use the code under test."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from lgffem_core.audit.chance import chance
from lgffem_core.audit.tables import (
    Answers,
    Domain,
    comparison_table,
    generality_table,
    leakage_table,
    protocol_table,
    ranking_table,
)
from lgffem_core.base.project import PROJECT
from lgffem_core.config.params import PROTOCOLS
from lgffem_core.config.study import Study
from lgffem_core.data.sets.facts import KIMIA_TEST_COUNTS
from lgffem_core.retrieval.comparison import holm, mcnemar_exact, paired_permutation
from lgffem_core.retrieval.embed import Embedded
from lgffem_core.retrieval.methods import evaluated
from lgffem_core.retrieval.protocols import from_hits

TEST, TRAIN = np.array([5, 4, 6]), np.array([4, 3, 5])
LABELS = np.concatenate([np.repeat(np.arange(3), TRAIN), np.repeat(np.arange(3), TEST)])
IS_TEST = np.arange(len(LABELS)) >= TRAIN.sum()
GOOD, BAD, LAST = ("LGFFEM C", "paper"), ("LGFFEM A", "paper"), ("DenseNet-121", "frozen")


@pytest.fixture
def study(tmp_path):
    overrides = {"seeds": [0, 1], "retrieval.bootstrap": 300}
    return Study.load(PROJECT / "params" / "demo.yaml", overrides, root=tmp_path)


def run(signal, seed):
    rng = np.random.default_rng(seed)
    values = signal * np.eye(3, 6)[LABELS] + rng.standard_normal((len(LABELS), 6))
    return Embedded(values.astype(np.float32), LABELS, IS_TEST, np.arange(len(LABELS)).astype(str))


EMBEDDED = {key: [run(signal, seed) for seed in (0, 1)] for key, signal in ((GOOD, 3), (BAD, 1), (LAST, 0))}


def nearest_others(values):
    """Labels of the other test patches behind each test patch, nearest first."""
    own, rows = LABELS[IS_TEST], []
    for i, query in enumerate(values[IS_TEST]):
        distances = [(float(((query - other) ** 2).sum()), j) for j, other in enumerate(values[IS_TEST]) if j != i]
        rows.append([own[j] for _, j in sorted(distances)])
    return np.array(rows)


def test_every_method_and_protocol_has_a_row_with_means_over_seeds(study):
    table = protocol_table(study, evaluated(EMBEDDED, PROTOCOLS), TRAIN)
    assert len(table) == 9 and not table.duplicated(["method", "variant", "protocol"]).any()
    for _, row in table[table["protocol"] == "leave_one_out"].iterrows():
        hits = [
            nearest_others(run.embeddings)[:, 0] == LABELS[IS_TEST] for run in EMBEDDED[row["method"], row["variant"]]
        ]
        assert row["eta_p"] == pytest.approx(100 * np.mean(hits), abs=0.0051)
        seeds = [100 * part.mean() for part in hits]
        assert row["seed_half_width"] == pytest.approx(12.706 * np.std(seeds, ddof=1) / 2**0.5, abs=0.011)
    assert (table["scan_low"] <= table["eta_p"] + 0.01).all() and (table["eta_p"] <= table["scan_high"] + 0.01).all()


def test_patches_have_an_interval_only_where_they_ask_for_themselves(study):
    table = protocol_table(study, evaluated(EMBEDDED, PROTOCOLS), TRAIN).set_index("protocol")
    assert table.loc["released", ["eta_p_low", "eta_p_high"]].isna().all(axis=None)
    assert table.loc["leave_one_out", ["eta_p_low", "eta_p_high"]].notna().all(axis=None)
    for protocol in study.params.retrieval.protocols:
        expected = chance(protocol, TEST, TRAIN)
        assert (table.loc[protocol, "chance_eta_p"] == round(expected.eta_p, 2)).all()


def test_ranked_measures_are_means_over_queries_and_seeds():
    table = ranking_table(EMBEDDED, ks=(1, 5, 99)).set_index("method")
    for (method, _), runs in EMBEDDED.items():
        ranked = [nearest_others(run.embeddings)[:, :5] == LABELS[IS_TEST][:, None] for run in runs]
        assert table.loc[method, "hit_rate@5"] == pytest.approx(
            100 * np.mean([r.any(axis=1) for r in ranked]), abs=0.01
        )
        assert table.loc[method, "precision@5"] == pytest.approx(100 * np.mean(ranked), abs=0.01)
    assert not any("99" in name for name in table.columns)  # deeper than the ranking


def test_comparisons_are_with_the_best_and_corrected_together(study):
    outcomes = evaluated(EMBEDDED, PROTOCOLS)
    table = comparison_table(outcomes, GOOD)
    assert table["against"].tolist() == ["LGFFEM A", "DenseNet-121"] and set(table["method"]) == {"LGFFEM C"}
    raw = {"p_patches": [], "p_scans": []}
    for row, key in zip(table.itertuples(), (BAD, LAST), strict=True):
        ours, theirs = outcomes[(*GOOD, "leave_one_out")], outcomes[(*key, "leave_one_out")]
        gain = np.mean([run.hits.mean() for run in ours]) - np.mean([run.hits.mean() for run in theirs])
        assert row.difference == pytest.approx(100 * gain, abs=0.0051)
        raw["p_patches"].append(mcnemar_exact(ours[0].hits, theirs[0].hits))
        right = [np.array([run.correct for run in runs]) for runs in (ours, theirs)]
        raw["p_scans"].append(paired_permutation(*right))
    for name, values in raw.items():
        assert table[name].tolist() == holm(values).tolist()


#: Scan -> how many patches more one method gets right than the other.
GAINS = {3: 12, 6: 8, 10: 7, 11: 7, 12: 7, 4: -9, 18: -4, 19: -4}
SIGNS = list(product((1, -1), repeat=len(GAINS)))


def test_difference_and_p_are_about_the_same_measure():
    """One method is better by eta_p and worse by eta_w; p is that of the former, by every pattern of signs."""
    counts, gains = np.array(KIMIA_TEST_COUNTS), np.array([GAINS.get(scan, 0) for scan in range(24)])
    labels = np.repeat(np.arange(24), counts)
    place = np.arange(len(labels)) - np.repeat(counts.cumsum() - counts, counts)  # of each patch in its scan
    ours, theirs = (from_hits(place < right[labels], labels) for right in (counts * 2 // 3 + gains, counts * 2 // 3))
    change = [one - other for one, other in zip(ours.scores, theirs.scores, strict=True)]
    assert change[:2] == pytest.approx([1.81, -1.44], abs=0.005)
    (row,) = comparison_table({(*GOOD, "leave_one_out"): [ours], (*BAD, "leave_one_out"): [theirs]}, GOOD).itertuples()

    def enumerated(differences):
        sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in SIGNS]
        return np.mean([total >= abs(sum(differences)) - 1e-9 for total in sums])

    by_count, by_rate = enumerated(list(GAINS.values())), enumerated([GAINS[s] / counts[s] for s in GAINS])
    assert row.difference == 1.81 and row.p_scans == pytest.approx(by_count, abs=0.015)
    assert abs(by_count - by_rate) > 0.05  # so that the test can tell the two


# -- leakage ---------------------------------------------------------------------------------------------

ROWS = np.flatnonzero(IS_TEST)
PAIRS = pd.DataFrame(
    [
        (0, ROWS[0], "exact", 0.0),  # the test patch goes
        (1, 2, "exact", 0.0),  # training patches stay
        (ROWS[6], ROWS[7], "perceptual", 0.2),  # the second goes
        (ROWS[7], ROWS[8], "overlap", 0.1),
    ],
    columns=["first", "second", "kind", "distance"],
)


def test_scores_without_leakage_are_those_of_the_patches_that_are_left(study):
    values = EMBEDDED[BAD][0][0]
    table = leakage_table(study, PAIRS, EMBEDDED[BAD][0]).set_index(["kind", "protocol"])
    gone = {"none": [], "exact": [0], "perceptual": [7], "overlap": [8], "any": [0, 7, 8]}
    for kind, rows in gone.items():
        kept = np.setdiff1d(np.arange(len(ROWS)), rows)
        points, own, right = values[ROWS[kept]], LABELS[ROWS[kept]], 0
        for i in range(len(points)):
            distance = ((points - points[i]) ** 2).sum(axis=1)
            distance[i] = np.inf
            right += own[distance.argmin()] == own[i]
        row = table.loc[kind, "leave_one_out"]
        assert row["removed"] == len(rows)
        assert row["eta_p"] == pytest.approx(100 * right / len(points), abs=0.0051)
    counted = table.xs("test_to_train", level="protocol")[["train", "across", "test"]]
    assert counted.loc["exact"].tolist() == [1, 1, 0] and counted.loc["any"].tolist() == [1, 1, 2]
    assert counted.loc["none"].tolist() == [0, 0, 0]


def test_where_leakage_leaves_no_test_set_there_is_no_score(study):
    pairs = pd.DataFrame([(0, row, "exact", 0.0) for row in ROWS], columns=PAIRS.columns)
    table = leakage_table(study, pairs, EMBEDDED[BAD][0]).set_index(["kind", "protocol"])
    assert table.loc[("any", "leave_one_out"), "removed"] == len(ROWS)
    assert np.isnan(table.loc[("any", "leave_one_out"), "eta_p"])


# -- what specialising costs elsewhere: scores of given embeddings against a loop -------------------------------

CLASSES = np.array([0, 0, 0, 1, 1, 1, 2, 2])


def share_right(values):
    """Leave-one-out by hand, in percent."""
    nearest = [min((abs(a - b), j) for j, b in enumerate(values) if j != i)[1] for i, a in enumerate(values)]
    return 100 * (CLASSES[nearest] == CLASSES).mean()


def test_scores_are_means_over_seeds_and_a_domain_with_one_class_has_none():
    tiles, nothing = (Domain(name, "x", pd.DataFrame({"label_id": ids})) for name, ids in (("a", CLASSES), ("b", [])))
    runs = [np.random.default_rng(seed).permutation(8).astype(np.float32)[:, None] for seed in (0, 1, 4)]
    models = [Answers("one", tiles, "no", runs), Answers("one", nothing, "no", [None] * 3)]
    scored, empty = generality_table(models, 300).to_dict("records")
    assert scored["eta_p"] == pytest.approx(np.mean([share_right(values[:, 0]) for values in runs]), abs=0.0051)
    assert scored["eta_p_low"] - 0.01 <= scored["eta_p"] <= scored["eta_p_high"] + 0.01
    assert scored["groups"] == 3 and scored["chance_eta_p"] == round(100 * (3 * 2 + 3 * 2 + 2 * 1) / 8 / 7, 2)
    assert empty["groups"] == empty["patches"] == 0 and np.isnan([empty["eta_p"], empty["chance_eta_p"]]).all()
