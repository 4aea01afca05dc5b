"""What specialising costs elsewhere: scores of given embeddings against a loop."""

import numpy as np
import pandas as pd
import pytest

from lgffem_core.audit.tables import Answers, Domain, generality_table

LABELS = np.array([0, 0, 0, 1, 1, 1, 2, 2])


def share_right(values):
    """Leave-one-out by hand, in percent."""
    nearest = [min((abs(a - b), j) for j, b in enumerate(values) if j != i)[1] for i, a in enumerate(values)]
    return 100 * (LABELS[nearest] == LABELS).mean()


def test_scores_are_means_over_seeds_and_a_domain_with_one_class_has_none():
    tiles, nothing = (Domain(name, "x", pd.DataFrame({"label_id": ids})) for name, ids in (("a", LABELS), ("b", [])))
    runs = [np.random.default_rng(seed).permutation(8).astype(np.float32)[:, None] for seed in (0, 1, 4)]
    models = [Answers("one", tiles, "no", runs), Answers("one", nothing, "no", [None] * 3)]
    scored, empty = generality_table(models, 300).to_dict("records")
    assert scored["eta_p"] == pytest.approx(np.mean([share_right(values[:, 0]) for values in runs]), abs=0.0051)
    assert scored["eta_p_low"] - 0.01 <= scored["eta_p"] <= scored["eta_p_high"] + 0.01
    assert scored["groups"] == 3 and scored["chance_eta_p"] == round(100 * (3 * 2 + 3 * 2 + 2 * 1) / 8 / 7, 2)
    assert empty["groups"] == empty["patches"] == 0 and np.isnan([empty["eta_p"], empty["chance_eta_p"]]).all()
