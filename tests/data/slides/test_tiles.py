"""The grid of tiles, beside a loop over all of its places."""

import numpy as np
import pytest

from lgffem_core.base.errors import StudyError
from lgffem_core.data.slides import tiles
from lgffem_core.data.slides.reading import WholeSlide
from lgffem_core.data.slides.tiles import SlideTiles, overview_of


@pytest.fixture
def cut(tmp_path, slide_file):
    """Tiles of an image, written as a slide of 0.5 µm a pixel."""

    def make(image, mpp=0.5, pixels=32, least=0.5, **options):
        return SlideTiles(WholeSlide(slide_file(tmp_path / "a.tif", image, **options)), mpp, pixels, least)

    return make


def test_tiles_are_those_of_the_grid_that_hold_tissue(cut, dyed):
    """A box with its edges on the grid, and one that covers 62 % of the tiles at its own."""
    image = dyed(330, 400, (32, 64, 160, 192), (192, 224, 276, 340))
    found = cut(image)
    wanted = []
    for row in range(330 // 32):
        for column in range(400 // 32):
            inside = np.zeros((330, 400), bool)
            inside[32:160, 64:192] = inside[192:276, 224:340] = True
            share = inside[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32].mean()
            if share > 0.5:
                wanted.append((row, column))
    assert found.positions.tolist() == [list(map(float, place)) for place in wanted]
    assert found.positions.dtype == np.float32 and len(found) == len(wanted)


def test_a_tile_is_the_part_of_the_slide_at_its_place(cut, dyed):
    image = dyed(160, 200, (32, 32, 128, 160))
    found = cut(image)
    for number, (row, column) in enumerate(found.positions.astype(int)):
        assert np.array_equal(found[number], image[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32])
    with pytest.raises(IndexError):
        found[len(found)]


def test_tiles_of_a_coarser_resolution_cover_more(cut, dyed):
    image = dyed(256, 256, (0, 0, 256, 256))
    found = cut(image, mpp=1.0)
    assert found.positions.tolist() == [[row, column] for row in range(4) for column in range(4)]
    halves = image[64:128, 128:192].reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(found[4 + 2] - halves).max() <= 1


def test_scanners_twenty_times_is_half_a_micrometre(cut, dyed):
    image = dyed(200, 200, (0, 0, 200, 200))
    found = cut(image, mpp=0.46)
    assert len(found) == (int(200 * 0.5 / (0.46 * 32))) ** 2 and found[0].shape == (32, 32, 3)


def test_a_slide_that_is_too_coarse_or_too_small_says_what_to_set(cut, dyed):
    image = dyed(100, 100, (0, 0, 100, 100))
    with pytest.raises(StudyError, match=r"0\.5 µm a pixel at its finest, .* set slides\.mpp=0\.5 or more"):
        cut(image, mpp=0.25)
    with pytest.raises(StudyError, match=r"smaller than a tile of 80 µm; leave it out, or set slides\.pixels lower"):
        cut(image, pixels=160)


def test_an_empty_slide_has_no_tiles_and_says_why(cut, dyed):
    found = cut(dyed(100, 100))
    assert len(found) == 0 and found.positions.shape == (0, 2) and found.overview.image.shape == (48, 48, 3)
    assert "has no tissue: of its 9 tiles the fullest is 0% tissue, 50% are asked for; leave it out" in found.why_empty
    assert len(cut(dyed(100, 100), least=0.0)) == 0


def test_a_slide_is_read_in_blocks_that_fit_together(tmp_path, slide_file, monkeypatch):
    image = np.random.default_rng(0).integers(0, 256, (320, 480, 3), np.uint8)
    slide = WholeSlide(slide_file(tmp_path / "a.tif", image, levels=1))
    whole, read, asked = overview_of(slide, 2.0, 120, 80), slide.read, []
    monkeypatch.setattr(tiles, "BLOCK", 128)
    monkeypatch.setattr(slide, "read", lambda *where: asked.append(where) or read(*where))
    assert np.array_equal(overview_of(slide, 2.0, 120, 80), whole) and len(asked) == 3 * 4
    assert max(max(width, height) for _, _, width, height, _ in asked) * 4 <= 128
