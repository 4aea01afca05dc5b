"""Procedural images in the layouts of the real data sets, for every data set that a user does not have.

Each image is a function of (seed, data set, class, index) alone, so more images of a class, or more
classes, leave the others as they were. What varies is what a pathologist knows to vary:

- stain between laboratories, architecture between organs. Kimia's 24 scans are of 19 organs and from four
  laboratories: scans of one laboratory share its stain, five organs were scanned in two laboratories each;
- within a scan the strength and hue of the dyes (thickness, batch, fading), how many cells there are and how
  large, and how well the scanner was in focus. Neighbouring patches share a region, and the regions of the
  test patches are not those of the training patches;
- a PanNuke tissue has an architecture, while its laboratory, and so its stain, changes from image to image.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from lgffem_core.base.errors import StudyError
from lgffem_core.base.seeds import derive_seed
from lgffem_core.config.params import Synthetic
from lgffem_core.data.synthetic.tissue import Architecture, Stain, Tissue, render, render_with_masks

JPEG_QUALITY = 90
REGION_PATCHES = 4  # neighbouring patches that share a region of their scan
STRAY = 0.03  # share of a scan's patches that show plain stroma: no method can tell all of those apart

STROMA = Architecture(nuclei=2.5, radius=2.4, elongation=2.4, fibres=0.5, fibre_width=7, eosin=0.5)

#: Architectures after the organs that PanNuke names.
ORGANS = {
    "Adrenal_gland": Architecture(nuclei=6, radius=2.8, fat=0.45, fat_radius=3.5, eosin=0.4, texture=0.25),
    "Bile-duct": Architecture(nuclei=3, elongation=2, fibres=0.45, glands=0.45, gland_radius=12, lumen=0.3),
    "Bladder": Architecture(nuclei=11, radius=3.1, elongation=1.5, vesicular=0.5, fibres=0.15, eosin=0.4),
    "Breast": Architecture(
        nuclei=3, radius=2.6, elongation=2.2, fibres=0.35, fat=0.4, fat_radius=15, glands=0.35, gland_radius=11
    ),
    "Cervix": Architecture(nuclei=14, radius=2.6, elongation=1.4, haze=0.15, clustering=0.15, eosin=0.35),
    "Colon": Architecture(
        nuclei=7, radius=2.3, clustering=0.3, glands=0.75, gland_radius=17, lumen=0.45, haze=0.1, eosin=0.38
    ),
    "Esophagus": Architecture(nuclei=3, radius=3.4, vesicular=0.6, eosin=0.6, texture=0.2, grain=11, haze=0.04),
    "HeadNeck": Architecture(nuclei=7, radius=3.9, vesicular=0.7, elongation=1.4, eosin=0.55, clustering=0.35),
    "Kidney": Architecture(nuclei=2, radius=2.4, glands=2.6, gland_radius=9.5, lumen=0.3, eosin=0.55, texture=0.2),
    "Liver": Architecture(nuclei=4, radius=3.6, vesicular=0.6, eosin=0.55, texture=0.32, grain=2.5, haze=0.12),
    "Lung": Architecture(nuclei=14, radius=2.3, fat=0.85, fat_radius=14, elongation=1.3, eosin=0.4),
    "Ovarian": Architecture(nuclei=11, radius=2.6, elongation=2.6, fibres=0.3, fibre_width=5, haze=0.12),
    "Pancreatic": Architecture(
        nuclei=2, radius=2.6, glands=2.4, gland_radius=10, lumen=0.05, haze=0.25, eosin=0.4, vesicular=0.5
    ),
    "Prostate": Architecture(
        nuclei=3, radius=2.6, elongation=2, fibres=0.35, glands=0.6, gland_radius=19, lumen=0.65, haze=0.05
    ),
    "Skin": Architecture(nuclei=1.6, radius=2.2, elongation=2.6, fibres=0.85, fibre_width=11, eosin=0.65, haze=0.02),
    "Stomach": Architecture(nuclei=5, radius=2.5, clustering=0.2, glands=1.6, gland_radius=12, lumen=0.15, haze=0.08),
    "Testis": Architecture(
        nuclei=4, radius=2.6, elongation=2, glands=0.4, gland_radius=24, lumen=0.5, colloid=0.2, haze=0.18
    ),
    "Thyroid": Architecture(
        nuclei=4, radius=2.4, glands=0.95, gland_radius=16, lumen=0.68, colloid=0.5, eosin=0.4, texture=0.1
    ),
    "Uterus": Architecture(nuclei=6, radius=2.5, elongation=3, fibres=0.5, fibre_width=8, eosin=0.6, haze=0.05),
}

#: Optical densities of (haematoxylin, eosin) for red, green, blue, as six laboratories might stain. Kimia's scans are
#: from the first four, PanNuke's images from all.
STAINS = (
    Stain((0.65, 0.70, 0.29), (0.10, 0.90, 0.35)),
    Stain((0.72, 0.62, 0.24), (0.12, 0.80, 0.25)),
    Stain((0.56, 0.76, 0.36), (0.05, 0.92, 0.45)),
    Stain((0.68, 0.66, 0.32), (0.20, 0.75, 0.22)),
    Stain((0.60, 0.68, 0.42), (0.05, 0.78, 0.60)),
    Stain((0.55, 0.80, 0.28), (0.22, 0.95, 0.28)),
)
#: What the scans of each laboratory (a row, in the order of ``STAINS``) are of; five organs stand in two rows.
SCANS = (
    ("Colon", "Liver", "Breast", "Cervix", "Prostate", "Esophagus"),
    ("Uterus", "Kidney", "Adrenal_gland", "Thyroid", "Lung", "Colon"),
    ("Skin", "Stomach", "Bladder", "Testis", "Liver", "Breast"),
    ("Ovarian", "HeadNeck", "Pancreatic", "Bile-duct", "Thyroid", "Uterus"),
)


def scan_tissue(scan: int) -> Tissue:
    """What scan ``scan`` is of: scans 4 apart share a stain and differ in their organ."""
    laboratory, number = scan % len(SCANS), scan // len(SCANS) % len(SCANS[0])
    return Tissue(STAINS[laboratory], ORGANS[SCANS[laboratory][number]])


@dataclass(frozen=True)
class Spread:
    """How far tissues of one kind differ: deviations of the logarithms of their properties, and of the focus."""

    dyes: float  # strength of each dye
    hue: float  # of each dye, in red, green and blue apart
    cells: float  # densities and basophilia; sizes half as much
    focus: float = 0.0  # pixels


def vary(tissue: Tissue, spread: Spread, rng: np.random.Generator) -> Tissue:
    """``tissue`` with its dyes, densities and sizes scaled at random, each on its own, and out of focus by chance."""
    arch = tissue.architecture
    strength = np.exp(spread.dyes * rng.standard_normal((2, 1)) + spread.hue * rng.standard_normal((2, 3)))
    haematoxylin, eosin = tissue.stain.matrix() * strength
    nuclei, glands, haze = np.exp(spread.cells * rng.standard_normal(3))
    radius, gland_radius, fat = np.exp(0.5 * spread.cells * rng.standard_normal(3))
    changed = replace(
        arch,
        nuclei=arch.nuclei * nuclei,
        radius=arch.radius * radius,
        glands=arch.glands * glands,
        gland_radius=arch.gland_radius * gland_radius,
        fat=min(arch.fat * fat, 0.9),
        haze=arch.haze * haze,
    )
    defocus = np.hypot(tissue.defocus, spread.focus * rng.standard_normal())
    return Tissue(Stain(tuple(haematoxylin), tuple(eosin)), changed, defocus)


BETWEEN_REGIONS = Spread(dyes=0.15, hue=0.04, cells=0.10)  # of a scan
BETWEEN_PATCHES = Spread(dyes=0.38, hue=0.07, cells=0.20, focus=0.6)  # of a region
BETWEEN_SLIDES = Spread(dyes=0.40, hue=0.08, cells=0.22, focus=0.6)  # of a tissue type


def kimia_patch(settings: Synthetic, scan: int, split: str, index: int) -> np.ndarray:
    """Patch ``index`` (from 0) of a scan's ``split``: RGB (S, S, 3) uint8."""
    region = generator(settings, "kimia", scan, split, "region", index // REGION_PATCHES)
    rng = generator(settings, "kimia", scan, split, index)
    tissue = vary(vary(scan_tissue(scan), BETWEEN_REGIONS, region), BETWEEN_PATCHES, rng)
    if rng.random() < STRAY:
        tissue = replace(tissue, architecture=STROMA)
    return render(tissue, settings.image_size, rng)


def pannuke_patch(settings: Synthetic, tissue: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Image ``index`` of a tissue type, RGB (S, S, 3) uint8, and its masks (6, S, S) float64."""
    rng = generator(settings, "pannuke", tissue, index)
    stain = STAINS[rng.integers(len(STAINS))]
    slide = vary(Tissue(stain, ORGANS[tissue]), BETWEEN_SLIDES, rng)
    return render_with_masks(slide, settings.image_size, rng)


def generator(settings: Synthetic, *parts) -> np.random.Generator:
    """The generator of one image, or of one region, named by ``parts``."""
    return np.random.default_rng(derive_seed("synthetic", settings.seed, *parts))


def save(path: Path, image_rgb: np.ndarray) -> None:
    """Write an RGB image in the format of ``path``'s suffix, its colours right for every reader."""
    options = [] if path.suffix == ".png" else [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    encoded, data = cv2.imencode(path.suffix, image_rgb[:, :, ::-1], options)
    if not encoded:
        raise StudyError(f"{path}: OpenCV cannot encode an image of shape {image_rgb.shape}.")
    path.write_bytes(data.tobytes())  # OpenCV's own writing does not say why it fails, as where the disk is full
