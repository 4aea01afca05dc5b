"""Which images a group is made of, and that it depends on seed, epoch and anchor alone."""

import numpy as np
import pytest
import torch

from lgffem_core.systems.smse.runs import Run
from lgffem_core.systems.smse.sampling import GROUPS
from lgffem_core.systems.smse.splits import training_rows
from lgffem_core.systems.smse.training import groups, networks

EVERY = (40, 100, 200, 400)


def sampled(study, kind, magnifications=EVERY, seed=0):
    run = Run(kind, "reinforced_focal", magnifications)
    rows = training_rows(study, run, 1)
    return groups(study, run, rows, networks(study, 0)[0], seed), rows


@pytest.mark.parametrize("kind", GROUPS)
def test_an_item_is_an_anchor_and_its_partners(smse, kind):
    patches, rows = sampled(smse(), kind)
    images, labels, places = patches[0, 5]
    assert images.shape == (GROUPS[kind], 3, 16, 24) and images.dtype == torch.float32
    assert places[0] == 5 and labels.tolist() == rows["label_id"].iloc[places.tolist()].tolist()


def test_a_triplet_has_one_of_each_class_and_a_pair_half_of_each(smse):
    study = smse()
    triplets, rows = sampled(study, "triplet")
    labels = rows["label_id"].to_numpy()
    drawn = np.array([triplets.rows(epoch, anchor) for epoch in range(20) for anchor in range(len(rows))])
    assert (labels[drawn[:, 1]] == labels[drawn[:, 0]]).all() and (labels[drawn[:, 2]] != labels[drawn[:, 0]]).all()
    assert (drawn[:, 1] != drawn[:, 0]).all()
    pairs, _ = sampled(study, "pair")
    drawn = np.array([pairs.rows(epoch, anchor) for epoch in range(40) for anchor in range(len(rows))])
    same = (labels[drawn[:, 1]] == labels[drawn[:, 0]]).mean()
    assert abs(same - 0.5) < 4 * 0.5 / len(drawn) ** 0.5


def test_partners_are_of_all_magnifications_and_patients_alike(smse):
    patches, rows = sampled(smse(), "triplet")
    zooms, own = rows["magnification"].to_numpy(), rows["group"].to_numpy()
    drawn = np.array([patches.rows(epoch, anchor) for epoch in range(40) for anchor in range(len(rows))])
    for place in (1, 2):
        shares = [(zooms[drawn[:, place]] == zoom).mean() for zoom in EVERY]
        np.testing.assert_allclose(shares, 0.25, atol=0.03)
        assert {*own[drawn[:, place]]} == {*own}


def test_a_run_on_one_magnification_sees_no_other(smse):
    patches, rows = sampled(smse(), "triplet", (40,))
    assert set(rows["magnification"]) == {40} and len(patches) == len(rows)


def test_the_draw_is_a_function_of_seed_epoch_and_anchor(smse):
    study = smse()
    first, again, other = (sampled(study, "triplet", seed=seed)[0] for seed in (0, 0, 1))
    for left, right in zip(first[3, 4], again[3, 4], strict=True):
        assert torch.equal(left, right)
    rows = [
        [patches.rows(epoch, anchor) for anchor in range(12)] for patches, epoch in ((first, 3), (first, 4), (other, 3))
    ]
    assert rows[0] != rows[1] and rows[0] != rows[2]


def test_each_image_of_a_group_is_augmented_by_itself(smse):
    patches, _ = sampled(smse(smse__jitter=0.0), "triplet")
    same = [patches.view(epoch, 0, 0, 0) for epoch in range(12)]
    assert len({tuple(view.flatten().tolist()) for view in same}) == 4  # two flips
    apart = [torch.equal(patches.view(epoch, 0, 0, 0), patches.view(epoch, 0, 1, 0)) for epoch in range(24)]
    assert 0 < sum(apart) < 24


def test_runs_that_share_what_was_shown_see_what_they_see_alone(smse, monkeypatch):
    study, shown = smse(), {}
    alone, _ = sampled(study, "pair")
    items = [alone[epoch, row] for epoch in (0, 1) for row in (3, 5)]
    for _ in range(2):
        shared, _ = sampled(study, "pair")
        shared.of_kind("pair", shown)
        for key, item in zip([(0, 3), (0, 5), (1, 3), (1, 5)], items, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(shared[key], item, strict=True))
        assert len(shown) == 8
        monkeypatch.setattr(shared, "transform", None)  # what was shown is not made again
        shared[0, 3]


def test_no_more_is_kept_than_there_is_room_for(smse, monkeypatch):
    patches, _ = sampled(smse(), "triplet")
    monkeypatch.setattr("lgffem_core.systems.smse.sampling.ROOM", 4 * 16 * 24 * 3)
    patches.of_kind("triplet", shown := {})
    for row in range(4):
        assert patches[0, row][0].shape == (3, 3, 16, 24)
    assert len(shown) == 4


def test_of_a_class_with_one_image_the_anchor_is_its_own_positive(smse):
    patches, _ = sampled(smse(), "triplet")
    patches.labels = [0] + [1] * (len(patches) - 1)
    patches.of_kind("triplet")
    assert patches.rows(0, 0)[:2] == [0, 0]
