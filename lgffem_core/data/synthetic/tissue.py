"""Procedural H&E: one patch from a description of its stain and of its architecture.

A patch is built as two maps of dye concentration, haematoxylin and eosin, and then seen through the
microscope by the Beer–Lambert law. Lengths are in pixels of the patch, so a larger patch shows more tissue,
not larger cells. Every function is pure: what it draws comes from the generator it is given.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from lgffem_core.data.synthetic.nuclei import (
    CONNECTIVE,
    EPITHELIAL,
    INFLAMMATORY,
    NEOPLASTIC,
    NUCLEUS,
    instance_masks,
    make_nuclei,
    paint_nuclei,
)


@dataclass(frozen=True)
class Stain:
    """The optical density, per unit of concentration, that each dye adds to red, green and blue."""

    haematoxylin: tuple[float, float, float] = (0.65, 0.70, 0.29)
    eosin: tuple[float, float, float] = (0.07, 0.99, 0.11)

    def matrix(self) -> np.ndarray:
        """(2, 3) float32, rows haematoxylin and eosin."""
        return np.array([self.haematoxylin, self.eosin], np.float32)


@dataclass(frozen=True)
class Architecture:
    """What the tissue is built of. Lengths in pixels, densities per 1000 square pixels, shares in [0, 1]."""

    nuclei: float = 4.0  # scattered nuclei per 1000 px²
    radius: float = 3.0  # of a nucleus
    elongation: float = 1.2  # long over short axis of a scattered nucleus; 1 = round
    clustering: float = 0.0  # share of the area that scattered nuclei avoid
    vesicular: float = 0.3  # pallor of a nucleus' middle and coarseness of its chromatin
    glands: float = 0.0  # per 1000 px²
    gland_radius: float = 14.0
    lumen: float = 0.4  # radius of the lumen over that of the gland
    colloid: float = 0.0  # eosin in the lumen; 0 = white
    fibres: float = 0.0  # how much of the eosin is gathered in bands
    fibre_width: float = 6.0  # from band to band
    fat: float = 0.0  # share of the area taken by vacuoles
    fat_radius: float = 10.0
    eosin: float = 0.45  # concentration of the ground
    haze: float = 0.08  # haematoxylin of the ground (basophilic cytoplasm)
    texture: float = 0.15  # relative amplitude of the ground's texture
    grain: float = 4.0  # its scale


@dataclass(frozen=True)
class Tissue:
    stain: Stain = Stain()
    architecture: Architecture = Architecture()
    defocus: float = 0.0  # pixels: deviation of the blur by a scanner that is out of focus


def absorb(concentrations: np.ndarray, stain: Stain) -> np.ndarray:
    """Beer–Lambert: concentrations (H, W, 2) -> RGB (H, W, 3) uint8, I = 255·exp(−c @ stain)."""
    density = concentrations.astype(np.float32) @ stain.matrix()
    return np.rint(255 * np.exp(-np.maximum(density, 0))).astype(np.uint8)


def smooth_noise(rng: np.random.Generator, side: int, grain: float) -> np.ndarray:
    """(side, side) float32, mean about 0, deviation about 1, correlated over ``grain`` pixels."""
    if grain <= 1:
        return rng.standard_normal((side, side), np.float32)
    nodes = int(np.ceil(side / grain)) + 4
    coarse = rng.standard_normal((nodes, nodes), np.float32)
    fine = cv2.resize(coarse, None, fx=grain, fy=grain, interpolation=cv2.INTER_CUBIC)
    start = int(grain * rng.uniform(1, 2))
    return 1.3 * fine[start : start + side, start : start + side]


def lattice(rng: np.random.Generator, side: int, density: float, jitter: float) -> np.ndarray:
    """Points (N, 2) of a turned, jittered hexagonal lattice that covers the patch and one spacing around it.

    ``density`` is in points per square pixel, ``jitter`` the deviation in units of the spacing.
    """
    spacing = 1 / np.sqrt(density)
    steps = np.arange(-np.ceil(0.75 * side / spacing) - 2, np.ceil(0.75 * side / spacing) + 3)
    rows, columns = np.meshgrid(steps * np.sqrt(0.75), steps, indexing="ij")
    columns = columns + 0.5 * (np.arange(len(steps)) % 2)[:, None]
    points = np.stack([rows.ravel(), columns.ravel()], axis=1) / 0.75**0.25
    points += rng.uniform(-0.5, 0.5, 2) + jitter * rng.standard_normal(points.shape)
    turn = rng.uniform(0, np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = spacing * points @ rotation + side / 2
    return points[np.all((points > -spacing) & (points < side + spacing), axis=1)]


def territories(points: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Index of the nearest point for each pixel (side, side), and the distance to the next territory."""
    margin = int(np.ceil(max(-points.min(), points.max() - side, 0))) + 2
    seeds = np.rint(points).astype(int) + margin
    canvas = np.ones((side + 2 * margin, side + 2 * margin), np.uint8)
    canvas[seeds[:, 0], seeds[:, 1]] = 0
    _, labels = cv2.distanceTransformWithLabels(canvas, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL)
    owner = np.zeros(labels.max() + 1, int)
    owner[labels[seeds[:, 0], seeds[:, 1]]] = np.arange(len(points))
    inside = np.ones_like(canvas)
    inside[:-1][labels[:-1] != labels[1:]] = 0
    inside[:, :-1][labels[:, :-1] != labels[:, 1:]] = 0
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_5)
    window = slice(margin, margin + side)
    return owner[labels[window, window]], distance[window, window]


def at(field: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Values of ``field`` (side, side) at the pixels nearest to ``points`` (N, 2) -> (N,)."""
    pixels = np.clip(np.rint(points).astype(int), 0, len(field) - 1)
    return field[pixels[:, 0], pixels[:, 1]]


def fat_cover(arch: Architecture, side: int, rng: np.random.Generator) -> np.ndarray:
    """(side, side) in [0, 1]: 1 inside a vacuole, 0 in a septum or away from fat."""
    if arch.fat <= 0:
        return np.zeros((side, side), np.float32)
    points = lattice(rng, side, 0.28 / arch.fat_radius**2, jitter=0.15)
    owner, border = territories(points, side)
    site = at(smooth_noise(rng, side, 3 * arch.fat_radius), points) + 0.5 * rng.standard_normal(len(points))
    filled = site <= np.quantile(site, min(arch.fat, 1.0))
    offset = np.indices((side, side), np.float32) - points.T[:, owner]
    roundness = 1.15 * arch.fat_radius - np.hypot(offset[0], offset[1])  # cuts the polygon's corners
    return np.clip(np.minimum(border - 1.0, roundness), 0, 1).astype(np.float32) * filled[owner]


def gland_depth(arch: Architecture, side: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Glands: depth below their outline (side, side), the same over the radius, their nuclei (N,).

    Depth is negative outside of glands. An outline is a circle with two harmonics; where neighbours meet,
    each keeps to its own territory.
    """
    points = lattice(rng, side, arch.glands / 1000, jitter=0.12)
    owner, border = territories(points, side)
    size = arch.gland_radius * np.exp(0.12 * rng.standard_normal(len(points)))
    waves = 0.12 * rng.standard_normal((2, len(points)))
    phases = rng.uniform(0, 2 * np.pi, (2, len(points)))

    def outline(gland, theta):
        second = waves[0, gland] * np.cos(2 * theta + phases[0, gland])
        third = 0.6 * waves[1, gland] * np.cos(3 * theta + phases[1, gland])
        return size[gland] * (1 + second + third)

    offset = np.indices((side, side), np.float32) - points.T[:, owner]
    theta = np.arctan2(offset[0], offset[1])
    depth = np.minimum(outline(owner, theta) - np.hypot(offset[0], offset[1]), border - 0.8)

    per_gland = np.maximum(4, (2 * np.pi * size / (2.3 * arch.radius)).astype(int))
    gland = np.repeat(np.arange(len(points)), per_gland)
    turn = np.concatenate([np.arange(count) / count for count in per_gland])
    angle = 2 * np.pi * turn + phases[0, gland] + 0.08 * rng.standard_normal(len(gland))
    reach = outline(gland, angle) - arch.radius * rng.uniform(1.2, 1.9, len(gland))
    centre = points[gland] + reach[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    seen = at(depth, centre) > 0.4 * arch.radius
    ring = make_nuclei(centre[seen], arch.radius, 1.3, angle[seen], EPITHELIAL, rng)
    return depth, depth / size[owner], ring


def scattered_nuclei(arch: Architecture, side: int, flow: float, rng: np.random.Generator) -> np.ndarray:
    """Nuclei (N,) between the structures; elongated ones follow ``flow``, the angle of the fibres."""
    if arch.nuclei <= 0:
        return np.zeros(0, NUCLEUS)
    share = 1 - min(arch.clustering, 0.9)
    points = lattice(rng, side, arch.nuclei / 1000 / share, jitter=0.22)
    crowd = at(smooth_noise(rng, side, 14), points)
    points = points[crowd >= np.quantile(crowd, 1 - share)]
    is_spindle = arch.elongation > 1.6
    angle = flow + (0.25 if is_spindle else np.pi) * rng.standard_normal(len(points))
    kind = CONNECTIVE if is_spindle else INFLAMMATORY if arch.clustering > 0.4 else NEOPLASTIC
    return make_nuclei(points, arch.radius, arch.elongation, angle, kind, rng)


def ground(arch: Architecture, side: int, flow: float, rng: np.random.Generator) -> np.ndarray:
    """Eosin of the stroma (side, side): texture, and wavy bands along ``flow``."""
    eosin = 1 + arch.texture * smooth_noise(rng, side, arch.grain)
    if arch.fibres > 0:
        rows, columns = np.indices((side, side), np.float32)
        across = rows * np.cos(flow) - columns * np.sin(flow)
        across += 0.8 * arch.fibre_width * smooth_noise(rng, side, 22)
        bands = np.sin(2 * np.pi * across / arch.fibre_width + 0.6 * smooth_noise(rng, side, 5))
        eosin *= 1 + arch.fibres * (0.85 * bands - 0.1)
    return arch.eosin * np.clip(eosin, 0.05, None)


def section(arch: Architecture, side: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """A section through the tissue: concentrations (side, side, 2), labels (side, side) and nuclei (N,).

    A label is 0, or 1 + the index of the nucleus that covers the pixel.
    """
    flow = rng.uniform(0, np.pi)
    eosin = ground(arch, side, flow, rng)
    haze = arch.haze * (1 + 0.3 * smooth_noise(rng, side, 9))
    nuclei = scattered_nuclei(arch, side, flow, rng)
    if arch.glands > 0:
        depth, relative, ring = gland_depth(arch, side, rng)
        epithelium = np.clip(depth + 0.5, 0, 1)
        lumen = np.clip((relative - (1 - arch.lumen)) * arch.gland_radius + 0.5, 0, 1)
        cytoplasm = arch.eosin * (0.75 + arch.texture * smooth_noise(rng, side, 2.5))
        eosin += epithelium * (cytoplasm - eosin)
        eosin += lumen * (arch.colloid - eosin)
        haze = haze * (1 + 0.8 * epithelium) * (1 - 0.95 * lumen)
        nuclei = np.concatenate([nuclei[at(depth, nuclei["centre"]) < -0.5 * arch.radius], ring])
    vacuole = fat_cover(arch, side, rng)
    nuclei = nuclei[at(vacuole, nuclei["centre"]) < 0.5]
    painted, labels = paint_nuclei(nuclei, arch.vesicular, side, rng)
    chromatin = 1 + (0.08 + 0.3 * arch.vesicular) * smooth_noise(rng, side, 1.6)
    tissue = 1 - 0.97 * vacuole
    around = 1 - np.minimum(painted, 1)
    haematoxylin = haze * tissue * around + 1.25 * painted * np.clip(chromatin, 0.2, None)
    eosin = eosin * tissue * (0.55 + 0.45 * around)
    maps = np.stack([haematoxylin, eosin], axis=-1).astype(np.float32)
    return np.maximum(cv2.GaussianBlur(maps, (3, 3), 0.6), 0), labels, nuclei


def photograph(concentrations: np.ndarray, tissue: Tissue) -> np.ndarray:
    """A section's concentrations (side, side, 2) as a scanner sees them: RGB (side, side, 3) uint8."""
    image = absorb(concentrations, tissue.stain)
    return cv2.GaussianBlur(image, (0, 0), tissue.defocus) if tissue.defocus > 0 else image


def render(tissue: Tissue, side: int, rng: np.random.Generator) -> np.ndarray:
    """One patch of ``tissue``: RGB (side, side, 3) uint8.

    >>> render(Tissue(), 96, np.random.default_rng(0)).shape
    (96, 96, 3)
    """
    return photograph(section(tissue.architecture, side, rng)[0], tissue)


def render_with_masks(tissue: Tissue, side: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """``render``'s patch, and its instance masks (6, side, side) float64 as PanNuke has them."""
    concentrations, labels, nuclei = section(tissue.architecture, side, rng)
    return photograph(concentrations, tissue), instance_masks(labels, nuclei)
