"""Floors: every descriptor under every condition, against explicit loops."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lgffem_core.audit import floor_tables, floors
from lgffem_core.audit.floor_tables import conditions, floor_table, lost_without_stain
from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import Study


@pytest.fixture
def study():
    """Tables of one protocol: the floors are under every one all the same."""
    chosen = {"retrieval.protocols": ["released"], "retrieval.bootstrap": 200}
    return Study.load(PROJECT / "params" / "demo.yaml", chosen)


def tissue(scan, seed):
    """A patch of two colours in random places; a scan has its own shade of them, of one luminance."""
    rng = np.random.default_rng(seed)
    pink, violet = np.array([225 - 14 * scan, 150, 190 + 14 * scan]), np.array([110 - 9 * scan, 70, 150 + 9 * scan])
    mask = rng.random((24, 24, 1)) < 0.5
    return (np.where(mask, pink, violet) + rng.integers(-6, 7, (24, 24, 3))).astype(np.uint8)


def test_every_descriptor_is_scored_under_every_condition(study):
    scans = np.repeat(np.arange(3), 4)
    images = [tissue(scan, seed) for seed, scan in enumerate(scans)]
    described = {"mean colour": floors.mean_colour, "place": lambda images: np.arange(24, dtype=np.float32)[:, None]}
    test = np.arange(24) < 12  # the test patches are searched among themselves, whatever the training patches are
    table, changed = floor_table(study, described, images * 2, np.tile(scans, 2), test), conditions(images * 2)
    assert len(table) == 2 * len(changed) * 3
    found = table[table["protocol"] == "leave_one_out"].set_index(["descriptor", "condition"])["eta_p"]
    for condition, what in changed.items():
        colours, right = [image.mean(axis=(0, 1)) for image in what.images[:12]], 0
        for i, colour in enumerate(colours):
            others = [(((colour - other) ** 2).sum(), j) for j, other in enumerate(colours) if j != i]
            right += scans[min(others)[1]] == scans[i]
        assert found["mean colour", condition] == pytest.approx(100 * right / 12, abs=0.0051)
        # neighbours on a line, of two as near the smaller id: 4 and 8, each the first of its scan, are wrong
        assert found["place", condition] == pytest.approx(100 * 10 / 12, abs=0.0051)
    assert found["mean colour", "as they are"] == 100


def test_patches_without_stain_are_kept_and_counted():
    images = [tissue(0, seed) for seed in range(3)] + [np.full((24, 24, 3), 250, np.uint8)]
    found = conditions(images)
    assert list(found) == ["as they are", "grey", "Macenko", "Reinhard", "stain jitter 0.2"]
    for name in ("Macenko", "Reinhard"):
        assert found[name].unchanged.tolist() == [False, False, False, True]
        assert (found[name].images[3] == images[3]).all()
    assert all((a == b).all() for a, b in zip(found["as they are"].images, images, strict=True))
    shifted = [
        changed.astype(int) - image for changed, image in zip(found["stain jitter 0.2"].images, images, strict=True)
    ]
    assert len({part.tobytes() for part in shifted}) == 4  # a draw for each patch
    with pytest.raises(ValueError, match="tissue"):
        conditions(images[3:])


def test_large_patches_are_reduced_and_small_ones_left(study, monkeypatch, tmp_path):
    for name, side in (("small.png", 40), ("large.png", 300)):
        Image.fromarray(np.full((side, side, 3), 90, np.uint8)).save(tmp_path / name)
    rows = pd.DataFrame({"path": ["small.png", "large.png"], "label_id": [0, 1], "split": ["train", "test"]})
    monkeypatch.setattr(floor_tables, "patch_table", lambda study, dataset: {"own": rows}[dataset])
    monkeypatch.setattr(floor_tables, "images_root", lambda study, dataset: tmp_path)
    images, scans, test = floor_tables.dataset_images(study, "own")
    assert [image.shape for image in images] == [(40, 40, 3), (96, 96, 3)]
    assert scans.tolist() == [0, 1] and test.tolist() == [False, True]


def test_training_patches_are_searched_under_the_same_condition():
    study = Study.load(PROJECT / "params" / "demo.yaml", {"retrieval.bootstrap": 200})
    scans, test = np.tile(np.repeat(np.arange(3), 2), 2), np.repeat([False, True], 6)
    images = [tissue(scan, seed) for seed, scan in enumerate(scans)]
    table = floor_table(study, {"mean colour": floors.mean_colour}, images, scans, test)
    found = table[table["protocol"] == "test_to_train"].set_index("condition")["eta_p"]
    for condition, what in conditions(images).items():
        colours = np.array([image.mean(axis=(0, 1)) for image in what.images], dtype=np.float32).astype(float)
        right = 0
        for i in np.flatnonzero(test):
            nearest = min(np.flatnonzero(~test), key=lambda j: (((colours[i] - colours[j]) ** 2).sum(), j))
            right += scans[nearest] == scans[i]
        assert found[condition] == pytest.approx(100 * right / 6, abs=0.0051)


def test_what_is_lost_without_stain_is_said_whether_it_flatters_the_model_or_not():
    columns = {"as they are": [50.0, 90, 95], "grey": [45, 91.5, 70], "Macenko": [10, 70.26, 75.25]}  # 19.74 is 19.75
    scores = pd.DataFrame(columns, index=["histogram", "backbone", "net"])
    lost, sentences = lost_without_stain(scores, "net")
    assert lost.to_dict("list") == {"grey": [5, -1.5, 25], "Macenko": [40, 19.74, 19.75]}
    assert sentences == [
        "grey: net loses 25.00 points, to 70.00. Of the others lose less: histogram, backbone; score higher: backbone.",
        "Macenko: net loses 19.75 points, to 75.25. Of the others lose less: none; score higher: none.",
    ]
