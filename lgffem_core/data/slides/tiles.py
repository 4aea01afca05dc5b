"""The tiles of a whole slide: those of a grid at a stated number of µm a pixel that hold enough tissue."""

from typing import NamedTuple

import numpy as np

from lgffem_core.base.errors import StudyError
from lgffem_core.data.slides.reading import ROUNDED, WholeSlide
from lgffem_core.data.slides.tissue import tissue_mask

SIDE = 16  # pixels of the overview along a tile: so its pixels and the tiles' edges coincide
BLOCK = 4096  # pixels of a level along what is read at a time; a slide without a pyramid may have a million


class Overview(NamedTuple):
    """A slide, small, and what was found on it."""

    image: np.ndarray  # uint8 (H, W, 3)
    mask: np.ndarray  # bool (H, W): tissue
    chosen: np.ndarray  # bool (rows, columns): tiles with enough of it; a tile is SIDE pixels along each side


class SlideTiles:
    """A sequence of tiles, uint8 (pixels, pixels, 3) RGB, each read when it is asked for.

    Args:
        slide: the slide.
        mpp: µm a pixel of the tiles.
        pixels: of a tile along each side.
        least: share of a tile that must be tissue.

    Attributes:
        positions: (N, 2) float32, row and column in the grid, row by row.
        overview: what was found, to be looked at.
        why_empty: what to say where there is no tile.

    ``StudyError`` where the slide is coarser than ``mpp``, or smaller than a tile.
    """

    def __init__(self, slide: WholeSlide, mpp: float, pixels: int, least: float):
        self.slide, self.mpp, self.pixels = slide, mpp, pixels
        if slide.mpp > ROUNDED * mpp:
            raise StudyError(
                f"{slide.path}: has {slide.mpp:.4g} µm a pixel at its finest, and tiles of {mpp:.4g} are asked for; "
                f"set slides.mpp={slide.mpp:.3g} or more."
            )
        columns, rows = (int(length * slide.mpp / (mpp * pixels)) for length in slide.size)
        if not rows or not columns:
            side = f"{mpp * pixels:.4g} µm"
            raise StudyError(
                f"{slide.path}: is smaller than a tile of {side}; leave it out, or set slides.pixels lower."
            )
        image = overview_of(slide, mpp * pixels / SIDE, columns * SIDE, rows * SIDE)
        mask = tissue_mask(image, least=SIDE * SIDE // 4)
        share = mask.reshape(rows, SIDE, columns, SIDE).mean(axis=(1, 3))
        self.overview = Overview(image, mask, share >= max(least, 1 / SIDE**2))
        self.positions = np.argwhere(self.overview.chosen).astype(np.float32)
        self.why_empty = (
            f"{slide.path}: has no tissue: of its {rows * columns:,} tiles the fullest is {share.max():.0%} tissue, "
            f"{least:.0%} are asked for; leave it out, or set slides.tissue lower."
        )

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, number: int) -> np.ndarray:
        row, column = (int(place) * self.pixels for place in self.positions[number])
        return self.slide.read(column, row, self.pixels, self.pixels, self.mpp)


def overview_of(slide: WholeSlide, mpp: float, width: int, height: int) -> np.ndarray:
    """A slide from its upper left corner on at ``mpp``, read block by block: uint8 (height, width, 3)."""
    step = max(SIDE, int(BLOCK / slide.downsample(mpp)[1]))
    image = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, step):
        for left in range(0, width, step):
            bottom, right = min(top + step, height), min(left + step, width)
            image[top:bottom, left:right] = slide.read(left, top, right - left, bottom - top, mpp)
    return image
