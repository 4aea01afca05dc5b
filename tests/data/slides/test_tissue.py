"""Tissue on drawn slides whose truth is known; Otsu's threshold beside a loop over all of them."""

import cv2
import numpy as np
import pytest

from lgffem_core.data.slides import tissue
from lgffem_core.data.slides.tissue import colour_density, otsu, tissue_mask, without_specks


@pytest.fixture
def drawn():
    """A slide with two pieces, pale stroma among them, and what is no tissue; and where the pieces are."""
    rng = np.random.default_rng(0)
    image = np.full((300, 400, 3), (243.0, 242, 244))
    truth = np.zeros((300, 400), np.uint8)
    for centre, size, colour in (((100, 150), (60, 70), (235, 195, 220)), ((300, 180), (50, 80), (120, 60, 140))):
        mask = cv2.ellipse(np.zeros_like(truth), centre, size, 0, 0, 360, 1, -1)
        image[mask > 0] = colour
        truth |= mask
    image[:12] = 3  # the scanner's frame
    image[255:260, 20:380] = 90  # pencil
    image += rng.normal(0, 2, image.shape)
    for y, x in rng.integers(20, 280, (40, 2)):
        image[y : y + 2, x : x + 2] = (150, 145, 150)  # dust
    return np.clip(image, 0, 255).astype(np.uint8), truth > 0


def test_tissue_is_found_and_nothing_else(drawn):
    image, truth = drawn
    found = tissue_mask(image, least=60)
    assert (found & truth).sum() / (found | truth).sum() > 0.95
    assert not found[:14].any() and not found[268:].any()


def test_pale_stroma_counts_beside_dense_nuclei_by_the_upper_bound(drawn, monkeypatch):
    image, truth = drawn
    assert tissue_mask(image, least=60)[180 - 20 : 180 + 20, 100].all()
    image[truth & (np.arange(400) > 220)] = (60, 20, 90)
    monkeypatch.setattr(tissue, "STRONGEST", 1.0)
    assert not tissue_mask(image, least=60)[150, 100]


def test_an_empty_slide_has_no_tissue_by_the_lower_bound(monkeypatch):
    rng = np.random.default_rng(1)
    image = np.clip(np.full((200, 200, 3), 243) + rng.normal(0, 3, (200, 200, 3)), 0, 255).astype(np.uint8)
    assert not tissue_mask(image, least=20).any()
    monkeypatch.setattr(tissue, "FAINTEST", 0.0)
    assert tissue_mask(image, least=20).any()
    assert not tissue_mask(np.full((50, 50, 3), 255, np.uint8), least=20).any()


def test_grey_of_any_darkness_has_no_colour_density():
    grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)[None]
    assert (colour_density(grey) == 0).all()
    assert colour_density(np.array([[[239, 84, 184]]], np.uint8)).item() == pytest.approx(np.log10(255 / 100), abs=1e-6)


def test_otsu_is_the_threshold_of_the_largest_variance_between():
    rng = np.random.default_rng(2)
    values = np.concatenate([rng.normal(0.02, 0.01, 3000), rng.normal(0.2, 0.05, 1000)]).clip(0).astype(np.float32)
    between = {}
    for threshold in np.arange(0.5, 255) * tissue.HIGHEST / 255:
        low, high = values[values <= threshold], values[values > threshold]
        if len(low) and len(high):
            between[threshold] = len(low) * len(high) * (low.mean() - high.mean()) ** 2
    assert otsu(values) == pytest.approx(max(between, key=between.get), abs=2.1 * tissue.HIGHEST / 255)


def test_specks_and_holes_below_the_least_size_go():
    mask = np.zeros((20, 20), bool)
    mask[2:4, 2:4] = mask[10:16, 10:16] = True
    assert without_specks(mask, 5).sum() == 36 and without_specks(mask, 4).sum() == 40
    assert not without_specks(np.zeros((5, 5), bool), 1).any() and without_specks(np.ones((5, 5), bool), 25).all()
