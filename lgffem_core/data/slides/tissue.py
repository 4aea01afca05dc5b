"""Where on a slide there is tissue.

Dyed tissue takes more of one colour than of another; glass, dust, pencil and the black of a scanner's frame take all
alike. So what is measured is the difference between the optical densities of a pixel's darkest and lightest channel,
and a threshold divides it: Otsu's, within bounds. Without the lower one the noise of an empty slide would be divided
into tissue and glass, without the upper one dense nuclei would be tissue and pale stroma glass.

A coloured pen is not told from a dye.
"""

import cv2
import numpy as np

FAINTEST, STRONGEST = 0.04, 0.055  # bounds of the threshold; pale stroma is about 0.06, yellowish glass 0.03
STEPS = 256  # of the histogram that Otsu's threshold is taken from, over densities from 0 to
HIGHEST = 0.5
DARK = 16  # grey levels put to both channels: of black, a ratio would be noise


def colour_density(image: np.ndarray) -> np.ndarray:
    """Optical density of the darkest channel less that of the lightest: uint8 (H, W, 3) -> float32 (H, W)."""
    most, least = image.max(axis=2).astype(np.float32), image.min(axis=2).astype(np.float32)
    return np.log10((most + DARK) / (least + DARK))


def otsu(values: np.ndarray) -> float:
    """Otsu's threshold of ``values``, those beyond 0 … ``HIGHEST`` counted at its ends."""
    steps = np.clip(values * ((STEPS - 1) / HIGHEST), 0, STEPS - 1).astype(np.uint8)
    level, _ = cv2.threshold(steps.reshape(1, -1), 0, STEPS - 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return (level + 0.5) * HIGHEST / (STEPS - 1)


def tissue_mask(image: np.ndarray, least: int) -> np.ndarray:
    """True where there is tissue: uint8 (H, W, 3) RGB -> bool (H, W).

    Args:
        image: the slide, some µm a pixel.
        least: pixels of the smallest piece of tissue, and of the largest hole that is not one.
    """
    density = colour_density(cv2.medianBlur(image, 5))  # first, since noise in one channel looks like colour
    mask = density > np.clip(otsu(density), FAINTEST, STRONGEST)
    mask = without_specks(mask, least)
    return ~without_specks(~mask, least)


def without_specks(mask: np.ndarray, least: int) -> np.ndarray:
    """``mask`` without connected pieces of fewer than ``least`` pixels."""
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    large = statistics[:, cv2.CC_STAT_AREA] >= least
    large[0] = False  # what is not in the mask
    return large[labels]
