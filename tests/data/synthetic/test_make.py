"""Synthetic data sets: the real layouts, the same bytes each time, and a task that colour does not solve."""

import os
from collections import Counter
from itertools import pairwise

import cv2
import numpy as np
import pytest

from lgffem_core.base.errors import StudyError
from lgffem_core.config.params import Synthetic
from lgffem_core.data import sets
from lgffem_core.data.sets.facts import (
    KIMIA_TEST_COUNTS,
    KIMIA_TEST_TOTAL,
    PANNUKE_FOLD_SIZES,
    PANNUKE_TISSUES,
)
from lgffem_core.data.synthetic import make as synthetic

SMALL = Synthetic(
    image_size=48,
    imagenet_classes=7,
    imagenet_per_class=2,
    imagenet_val_per_class=1,
    pannuke_per_tissue=4,
    kimia_train_per_scan=2,
    kimia_test_fraction=0.05,
)
DATASETS = ("imagenet", "pannuke", "kimia")


def contents(root):
    """Relative path -> bytes of every file below ``root``."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The three data sets with few images."""
    folder = tmp_path_factory.mktemp("made")
    return {name: sets.get(name).make_synthetic(SMALL, folder / name) for name in DATASETS}


def test_facts_agree_with_their_totals():
    assert sum(KIMIA_TEST_COUNTS) == KIMIA_TEST_TOTAL and len(KIMIA_TEST_COUNTS) == 24
    assert len(PANNUKE_TISSUES) == 19 and sum(PANNUKE_FOLD_SIZES) == 7901


@pytest.mark.parametrize("dataset", DATASETS)
def test_same_settings_give_the_same_bytes(dataset, made, tmp_path):
    again = sets.get(dataset).make_synthetic(SMALL, tmp_path / dataset)
    assert contents(again) == contents(made[dataset])


@pytest.mark.parametrize("dataset", DATASETS)
def test_another_seed_gives_other_images(dataset, made, tmp_path):
    settings = SMALL.model_copy(update={"seed": 1})
    other = contents(sets.get(dataset).make_synthetic(settings, tmp_path / dataset))
    first = contents(made[dataset])
    assert other.keys() == first.keys() and all(other[name] != first[name] for name in first)


@pytest.mark.parametrize(
    "dataset, more",
    [
        ("imagenet", {"imagenet_classes": 8, "imagenet_per_class": 3, "imagenet_val_per_class": 2}),
        ("pannuke", {"pannuke_per_tissue": 5}),
        ("kimia", {"kimia_train_per_scan": 3, "kimia_test_fraction": 0.08}),
    ],
)
def test_more_images_leave_the_others_as_they_were(dataset, more, made, tmp_path):
    first = contents(made[dataset])
    grown = contents(sets.get(dataset).make_synthetic(SMALL.model_copy(update=more), tmp_path / dataset))
    assert len(grown) > len(first)
    assert all(grown[name] == data for name, data in first.items())


def test_imagenet_layout(made):
    names = [f"train/n9{c:07d}/n9{c:07d}_{i}.JPEG" for c in range(7) for i in range(2)]
    names += [f"val/n9{c:07d}/n9{c:07d}_0.JPEG" for c in range(7)]
    assert sorted(contents(made["imagenet"])) == sorted(names)
    assert len(set(contents(made["imagenet"]).values())) == 7 * 3  # what is held out is no copy of what is trained on


def test_kimia_layout(made):
    names = []
    for scan, published in enumerate(KIMIA_TEST_COUNTS):
        names += [f"train/s{scan}/{i}.jpg" for i in (1, 2)]
        names += [f"test/s{scan}/s{scan}_{i}.jpg" for i in range(1, 1 + max(2, round(0.05 * published)))]
    assert sorted(contents(made["kimia"])) == sorted(names)


def test_pannuke_layout_and_numbering(made):
    images = sorted(p.stem for p in (made["pannuke"] / "images").iterdir())
    assert images == sorted(p.stem for p in (made["pannuke"] / "masks").iterdir())
    parts = [stem.split("_") for stem in images]
    assert {tissue for _, _, tissue in parts} == {name.replace("_", "-") for name in PANNUKE_TISSUES}
    for fold, expected in (("fold1", 38), ("fold2", 19), ("fold3", 19)):
        numbers = sorted(int(number) for name, number, _ in parts if name == fold)
        assert numbers == list(range(expected))  # a running index, as in the archives


def test_pannuke_files_have_red_and_blue_swapped(made):
    image, masks = synthetic.pannuke_patch(SMALL, "Adrenal_gland", 0)
    as_array = cv2.imread(str(made["pannuke"] / "images" / "fold1_0_Adrenal-gland.png"))
    assert (as_array == image).all()  # OpenCV swaps once more, so PathML itself sees RGB
    assert (np.load(made["pannuke"] / "masks" / "fold1_0_Adrenal-gland.npy") == masks).all()


def test_an_interrupted_make_leaves_nothing(tmp_path, monkeypatch):
    drawn = []

    def interrupted(*arguments):
        drawn.append(arguments)
        if len(drawn) == 5:
            raise KeyboardInterrupt
        return np.zeros((48, 48, 3), np.uint8)

    monkeypatch.setattr(synthetic, "kimia_patch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sets.get("kimia").make_synthetic(SMALL, tmp_path / "kimia")
    assert os.listdir(tmp_path) == []


def test_scans_share_stains_and_organs_but_never_both():
    scans = [synthetic.scan_tissue(scan) for scan in range(24)]
    organs, stains = Counter(t.architecture for t in scans), Counter(t.stain for t in scans)
    assert set(organs) == set(synthetic.ORGANS.values()) and sorted(organs.values()) == [1] * 14 + [2] * 5
    assert set(stains) == set(synthetic.STAINS[:4]) and set(stains.values()) == {6}
    assert len(set(scans)) == 24


def leave_one_out(features, labels):
    """Share of patches whose nearest other patch has the same label."""
    distances = ((features[:, None] - features[None]) ** 2).sum(axis=-1)
    np.fill_diagonal(distances, np.inf)
    return (labels[distances.argmin(axis=1)] == labels).mean()


@pytest.fixture(scope="module")
def scans():
    """Six test patches of each scan (144, 96, 96, 3), and their scans."""
    settings, labels = Synthetic(image_size=96), np.repeat(np.arange(24), 6)
    return np.array([synthetic.kimia_patch(settings, s, "test", i) for s in range(24) for i in range(6)]), labels


def test_colour_alone_does_not_solve_the_scans(scans):
    """Until laboratories and organs were told apart, the joint histogram found 93 % of such patches."""
    patches, labels = scans
    cells = [np.histogramdd(p.reshape(-1, 3), bins=8, range=[(0, 256)] * 3)[0].ravel() for p in patches]
    by_colour, by_histogram = leave_one_out(patches.mean(axis=(1, 2)), labels), leave_one_out(np.sqrt(cells), labels)
    assert 2 / 24 < by_colour < 0.4  # above chance, which is 1 in 24
    assert by_colour < by_histogram < 0.6


def test_architecture_alone_tells_scans_of_one_laboratory_apart(scans):
    """In grey, and however dark: by how much there is of structures of each size."""
    patches, labels = scans
    grey = patches.astype(float).mean(axis=-1)
    scale = np.hypot(*np.meshgrid(np.fft.fftfreq(96), np.fft.fftfreq(96)))
    rings = [(scale >= low) & (scale < high) for low, high in pairwise(np.geomspace(0.01, 0.5, 9))]
    power = np.abs(np.fft.fft2(grey)) ** 2
    spectrum = np.log(np.stack([power[:, ring].mean(axis=1) for ring in rings], axis=1))
    spectrum -= spectrum.mean(axis=1, keepdims=True)
    of_laboratory = [labels % 4 == number for number in range(4)]
    rates = [leave_one_out(spectrum[own], labels[own]) for own in of_laboratory]
    assert np.mean(rates) > 0.45  # chance is 1 in 6


def test_strength_and_focus_vary_within_a_scan_but_not_its_hue_nor_what_it_is_of():
    tissue, rng = synthetic.scan_tissue(7), np.random.default_rng(0)
    varied = [synthetic.vary(tissue, synthetic.BETWEEN_PATCHES, rng) for _ in range(200)]
    logs = np.log([each.stain.matrix() / tissue.stain.matrix() for each in varied])
    strength, hue = logs.mean(axis=-1), logs - logs.mean(axis=-1, keepdims=True)
    spread = synthetic.BETWEEN_PATCHES
    assert strength.std() == pytest.approx(np.hypot(spread.dyes, spread.hue / np.sqrt(3)), rel=0.1)
    assert hue.std() == pytest.approx(spread.hue * np.sqrt(2 / 3), rel=0.1) and hue.std() < strength.std() / 4
    blur = np.array([each.defocus for each in varied])
    assert np.sqrt((blur**2).mean()) == pytest.approx(spread.focus, rel=0.1)
    assert {each.architecture.fibre_width for each in varied} == {tissue.architecture.fibre_width}


@pytest.mark.parametrize("name", ["imagenet", "pannuke", "kimia"])
def test_images_that_do_not_fit_onto_the_disk_are_told_in_a_sentence_and_none_stays(tmp_path, small_files, name):
    with small_files(500), pytest.raises(StudyError, match=f"{tmp_path}/{name}: cannot be written .*; raise the limit"):
        sets.get(name).make_synthetic(SMALL, tmp_path / name)
    assert list(tmp_path.iterdir()) == []
