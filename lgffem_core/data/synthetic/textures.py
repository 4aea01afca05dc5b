"""Procedural pictures that are not tissue: the stand-in for ImageNet's classes.

A class is a family of pattern with its own pair of colours, scale and direction; an image of it varies
all of these a little, so that generic features of colour, frequency and shape can be learned from them.
"""

import cv2
import numpy as np

from lgffem_core.base.seeds import derive_seed
from lgffem_core.data.synthetic.tissue import lattice, smooth_noise, territories


def stripes(side: int, scale: float, angle: float, rng: np.random.Generator) -> np.ndarray:
    """Straight bands (side, side) in [0, 1], ``scale`` pixels from one to the next, normal at ``angle``."""
    return np.clip(0.5 + 2 * np.sin(phase(side, scale, angle, rng)), 0, 1)


def waves(side: int, scale: float, angle: float, rng: np.random.Generator) -> np.ndarray:
    """Bent soft bands."""
    bend = 1.5 * smooth_noise(rng, side, 2 * scale)
    return 0.5 + 0.5 * np.sin(phase(side, scale, angle, rng) + bend)


def checks(side: int, scale: float, angle: float, rng: np.random.Generator) -> np.ndarray:
    """A chessboard."""
    across = np.sin(phase(side, scale, angle, rng))
    along = np.sin(phase(side, scale, angle + np.pi / 2, rng))
    return np.clip(0.5 + 4 * across * along, 0, 1)


def blobs(side: int, scale: float, angle: float, rng: np.random.Generator) -> np.ndarray:
    """Discs of many sizes on an irregular lattice."""
    points = lattice(rng, side, 1 / scale**2, jitter=0.2)
    owner, _ = territories(points, side)
    offset = np.indices((side, side), np.float32) - points.T[:, owner]
    size = scale * rng.uniform(0.2, 0.5, len(points))
    return np.clip(size[owner] - np.hypot(offset[0], offset[1]) + 0.5, 0, 1)


def polygons(side: int, scale: float, angle: float, rng: np.random.Generator) -> np.ndarray:
    """Flat polygons of random grey with dark outlines."""
    points = lattice(rng, side, 1 / scale**2, jitter=0.3)
    owner, border = territories(points, side)
    return rng.uniform(0.25, 1, len(points))[owner] * np.clip(border, 0, 1)


def clouds(side: int, scale: float, angle: float, rng: np.random.Generator) -> np.ndarray:
    """Noise whose amplitude falls with its frequency."""
    octaves = [smooth_noise(rng, side, scale / 2**k) / 2**k for k in range(3)]
    return np.clip(0.5 + 0.3 * sum(octaves), 0, 1)


FAMILIES = (stripes, waves, checks, blobs, polygons, clouds)


def phase(side: int, scale: float, angle: float, rng: np.random.Generator) -> np.ndarray:
    """Phase (side, side) in radians of a plane wave of period ``scale`` pixels, its start random."""
    rows, columns = np.indices((side, side), np.float32)
    return 2 * np.pi * ((rows * np.sin(angle) + columns * np.cos(angle)) / scale + rng.random())


def texture(number: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """One picture of class ``number``: RGB (side, side, 3) uint8.

    Colours, scale and direction of the class follow from its number alone, what varies from ``rng``.
    """
    style = np.random.default_rng(derive_seed("texture", number))
    colours = style.uniform(20, 235, (2, 3)) + rng.normal(0, 18, (2, 3))
    scale = style.uniform(7, 24) * np.exp(rng.normal(0, 0.15))
    angle = style.uniform(0, np.pi) + rng.normal(0, 0.2)
    pattern = FAMILIES[number % len(FAMILIES)](side, scale, angle, rng)[:, :, None]
    shade = 1 + 0.12 * smooth_noise(rng, side, side / 2)[:, :, None]  # uneven light
    image = (colours[0] + pattern * (colours[1] - colours[0])) * shade + rng.normal(0, 4, (side, side, 1))
    return np.rint(np.clip(cv2.GaussianBlur(image, (3, 3), 0.5), 0, 255)).astype(np.uint8)
