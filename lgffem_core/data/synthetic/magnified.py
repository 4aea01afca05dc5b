"""Breast tissue under a microscope that zooms: the same place at 40, 100, 200 and 400×.

A place is drawn once, at 200×, as wide as the field of 40×. A view is the middle of it, so much smaller as the
magnification is higher, reduced or enlarged to the size of an image: what is a gland at 40× is a wall of nuclei at
400×. Whether a tumour is benign lies in how it is built; how it is stained, and how strongly, is each patient's own
and has no part in it.
"""

from dataclasses import replace

import cv2
import numpy as np

from lgffem_core.data.synthetic.make import STAINS, Spread, vary
from lgffem_core.data.synthetic.tissue import Architecture, Tissue, absorb, section

WIDTH_TO_HEIGHT = 3 / 2  # of a field; BreakHis has 700 × 460 px
#: Magnification -> pixels of what is drawn to a pixel of the view, in both directions.
SCALES = {40: 5.0, 100: 2.0, 200: 1.0, 400: 0.5}
BETWEEN_PATIENTS = Spread(dyes=0.1, hue=0.04, cells=0.1)
LABORATORIES = 3  # whose stains there are
CONCENTRATIONS = (0.30, 0.50)  # mean haematoxylin and eosin of a place, whatever it is of

#: Architectures at 200× by the type's sign: benign ones keep glands with a lumen and small nuclei; of the malignant
#: ones each has lost some of that.
PATTERNS = {
    "A": Architecture(nuclei=0.5, radius=4.0, glands=0.5, gland_radius=19, lumen=0.45, fibres=0.25, fibre_width=14),
    "F": Architecture(
        nuclei=0.8, radius=3.8, elongation=2.2, fibres=0.5, fibre_width=15, glands=0.24, gland_radius=22, lumen=0.4
    ),
    "PT": Architecture(
        nuclei=1.2, radius=4.0, elongation=2.4, fibres=0.35, fibre_width=12, glands=0.2, gland_radius=26, lumen=0.45
    ),
    "TA": Architecture(nuclei=0.4, radius=4.0, glands=0.75, gland_radius=17, lumen=0.4, eosin=0.5),
    "DC": Architecture(nuclei=2.6, radius=7.0, vesicular=0.8, clustering=0.35, haze=0.12, fibres=0.2, fibre_width=14),
    "LC": Architecture(nuclei=1.9, radius=6.0, vesicular=0.7, elongation=1.3, fibres=0.45, fibre_width=13),
    "MC": Architecture(nuclei=2.0, radius=6.4, vesicular=0.7, clustering=0.3, fat=0.3, fat_radius=26),
    "PC": Architecture(nuclei=1.2, radius=6.6, vesicular=0.7, glands=0.3, gland_radius=27, lumen=0.05, haze=0.2),
}


def patient_tissue(pattern: Architecture, rng: np.random.Generator) -> Tissue:
    """A patient's tissue: the pattern of its type, varied, in the stain of some laboratory."""
    return vary(Tissue(STAINS[rng.integers(LABORATORIES)], pattern), BETWEEN_PATIENTS, rng)


def views(tissue: Tissue, width: int, rng: np.random.Generator) -> dict[int, np.ndarray]:
    """Magnification -> one place of ``tissue`` as it is seen then, RGB (H, ``width``, 3) uint8 with W/H = 3/2."""
    height, side = round(width / WIDTH_TO_HEIGHT), round(SCALES[40] * width)
    architecture = vary(tissue, replace(BETWEEN_PATIENTS, cells=0.1), rng).architecture
    drawn = section(architecture, side, rng)[0]
    drawn *= (CONCENTRATIONS * np.exp(0.1 * rng.standard_normal(2)) / drawn.mean(axis=(0, 1))).astype(np.float32)
    image, found = absorb(drawn, tissue.stain), {}
    for magnification, scale in SCALES.items():
        rows, columns = (round(scale * length) for length in (height, width))
        top, left = (side - rows) // 2, (side - columns) // 2
        seen = image[top : top + rows, left : left + columns]
        how = cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC
        found[magnification] = cv2.resize(seen, (width, height), interpolation=how)
    return found
