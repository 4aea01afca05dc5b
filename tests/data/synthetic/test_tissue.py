"""Procedural H&E: the Beer–Lambert law, the structures, the masks."""

import math
from dataclasses import replace

import numpy as np
import pytest

from lgffem_core.data.synthetic.make import ORGANS
from lgffem_core.data.synthetic.nuclei import BACKGROUND, EPITHELIAL
from lgffem_core.data.synthetic.tissue import (
    Architecture,
    Stain,
    Tissue,
    absorb,
    fat_cover,
    render,
    render_with_masks,
    section,
    territories,
)


def draw(architecture, seed=0, side=96):
    """Concentrations, labels and nuclei of one section."""
    return section(architecture, side, np.random.default_rng(seed))


def test_absorb_is_beer_lambert_for_every_pixel():
    concentrations = np.random.default_rng(0).uniform(0, 2, (5, 7, 2))
    stain = Stain((0.65, 0.70, 0.29), (0.10, 0.90, 0.35))
    image = absorb(concentrations, stain)
    for row in range(5):
        for column in range(7):
            haematoxylin, eosin = concentrations[row, column]
            for channel in range(3):
                density = haematoxylin * stain.haematoxylin[channel] + eosin * stain.eosin[channel]
                assert abs(image[row, column, channel] - 255 * math.exp(-density)) <= 0.5 + 1e-3


def test_no_dye_is_white():
    assert (absorb(np.zeros((2, 2, 2)), Stain()) == 255).all()


@pytest.mark.parametrize("organ", ORGANS)
@pytest.mark.parametrize("side", [32, 65, 96])
def test_every_organ_renders_at_any_size(organ, side):
    image = render(Tissue(architecture=ORGANS[organ]), side, np.random.default_rng(1))
    assert image.shape == (side, side, 3) and image.dtype == np.uint8
    red, green, blue = image.reshape(-1, 3).mean(axis=0)
    assert green < red and green < blue  # pink to purple


def test_rendering_depends_on_the_generator_alone():
    tissue = Tissue(architecture=ORGANS["Colon"])
    first, again, other = (render(tissue, 64, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert (first == again).all() and (first != other).any()


def test_out_of_focus_the_tissue_has_the_same_colour_and_fewer_details():
    sharp = Tissue(architecture=ORGANS["Liver"])
    images = [
        render(tissue, 96, np.random.default_rng(3)).astype(float) for tissue in (sharp, replace(sharp, defocus=1.5))
    ]
    assert np.allclose(*(image.mean(axis=(0, 1)) for image in images), atol=1)
    steps = [np.abs(np.diff(image, axis=0)).mean() for image in images]
    assert steps[1] < 0.6 * steps[0]


def test_nuclei_have_the_density_that_was_asked_for():
    counts = [len(draw(Architecture(nuclei=6, elongation=1.2), seed, 128)[2]) for seed in range(8)]
    with_margin = 6e-3 * (128 + 2 / math.sqrt(6e-3)) ** 2  # one spacing around the patch belongs to it
    assert abs(np.mean(counts) - with_margin) < 0.1 * with_margin


def test_no_nuclei_leave_only_the_ground():
    _, labels, nuclei = draw(Architecture(nuclei=0))
    assert len(nuclei) == 0 and not labels.any()


def test_glands_have_epithelium_round_a_pale_lumen():
    concentrations, _, nuclei = draw(Architecture(nuclei=0, glands=0.9, gland_radius=15, lumen=0.5, radius=2))
    assert (nuclei["kind"] == EPITHELIAL).mean() > 0.9
    pale = concentrations.sum(axis=-1) < 0.1
    assert 0.05 < pale.mean() < 0.4


def test_fat_covers_about_its_share():
    sparse, dense = (
        np.mean([fat_cover(Architecture(fat=share), 96, np.random.default_rng(i)) for i in range(6)])
        for share in (0.2, 0.8)
    )
    assert 0.1 < sparse < 0.25 and 0.5 < dense < 0.8


def test_fibres_have_a_direction():
    def coherence(architecture):
        eosin = draw(replace(architecture, nuclei=0))[0][:, :, 1]
        down, right = np.gradient(eosin)
        return np.hypot((down**2 - right**2).mean(), 2 * (down * right).mean()) / (down**2 + right**2).mean()

    assert coherence(Architecture(fibres=0.6)) > 2 * coherence(Architecture(fibres=0))


def test_territories_agree_with_all_distances():
    points = np.random.default_rng(0).uniform(-5, 45, (12, 2))
    owner, _ = territories(points, 40)
    pixels = np.stack(np.indices((40, 40)), axis=-1)
    distances = np.linalg.norm(pixels[:, :, None] - np.rint(points), axis=-1)
    chosen = np.take_along_axis(distances, owner[:, :, None], axis=-1)[:, :, 0]
    assert (chosen - distances.min(axis=-1)).max() < 0.7  # OpenCV's 5x5 distance is an approximation


def test_masks_follow_pannukes_conventions():
    tissue = Tissue(architecture=ORGANS["Colon"])
    image, masks = render_with_masks(tissue, 96, np.random.default_rng(0))
    assert (image == render(tissue, 96, np.random.default_rng(0))).all()
    assert masks.shape == (6, 96, 96) and masks.dtype == np.float64
    is_nucleus = masks[:BACKGROUND] > 0
    assert (is_nucleus.sum(axis=0) + masks[BACKGROUND] == 1).all()  # one type, or background
    ids = [set(np.unique(channel)) - {0} for channel in masks[:BACKGROUND]]
    assert sum(map(len, ids)) == len(set().union(*ids)) > 10  # an id names one nucleus
    green = image[:, :, 1].astype(float)
    red = image[:, :, 0].astype(float)
    assert red[masks[BACKGROUND] == 0].mean() < red[masks[BACKGROUND] == 1].mean() - 40
    assert green[masks[BACKGROUND] == 0].mean() < green[masks[BACKGROUND] == 1].mean()
