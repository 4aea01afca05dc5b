"""Whether Grad-CAM++ maps may be believed: two checks that a map can fail.

The first asks whether a map depends on what was learned: maps of a randomised model must differ (Adebayo et al.,
"Sanity Checks for Saliency Maps", 2018). The second asks whether it finds what it should: on patches with one
planted structure the hottest point must fall on it more often than chance.
"""

import copy
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import binomtest, spearmanr

from lgffem_core.base.seeds import derive_seed
from lgffem_core.config.study import Study
from lgffem_core.data.synthetic.make import STROMA
from lgffem_core.data.synthetic.tissue import Architecture, Stain, absorb, section
from lgffem_core.systems.lgffem.model import LGFFEM, assemble

GRID = 4  # pixels a side over which maps are averaged before they are compared: the stride of P1
STRUCTURE = Architecture(nuclei=16, radius=3.0, elongation=1.3, haze=0.15, eosin=0.35)  # crowded dark nuclei
RADIUS = 0.22  # of a planted disk, in sides of the patch
BLEND = 0.04  # width of its soft rim, which lies inside the disk


def randomised(model: LGFFEM, study: Study, variant: str, draw: int) -> LGFFEM:
    """The same backbone under a freshly drawn neck and head; draws 0, 1, … differ from each other."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("randomised", draw))
        fresh = assemble(model.backbone, study.params.model, study.variant(variant))
    return fresh.to(next(model.neck.parameters()).device).eval()


def cascade(model: LGFFEM, fresh: LGFFEM):
    """Yield (name, model) with more and more parts from ``fresh``: head, last layer … first, lateral.

    The cascading randomisation of Adebayo et al. 2018, from the output inwards. One model is changed from
    step to step, so use each before asking for the next.
    """
    mixed = copy.deepcopy(model)
    layers = reversed(list(zip(mixed.neck.layers, fresh.neck.layers, strict=True)))
    parts = [("head", mixed.head, fresh.head)]
    parts += [(f"layer {len(mixed.neck.layers) - i}", *pair) for i, pair in enumerate(layers)]
    for name, part, new in [*parts, ("lateral", mixed.neck.lateral, fresh.neck.lateral)]:
        part.load_state_dict(new.state_dict())
        yield name, mixed


def rank_correlation(maps: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Spearman's ρ of each image's two maps (N, S, S), averaged over squares of 4 x 4 pixels; (N,) float64.

    NaN where one of the two is constant: it has no ranks.
    """
    pairs = zip(cells(maps), cells(others), strict=True)
    return np.array([spearmanr(*pair).statistic if min(map(np.ptp, pair)) > 0 else np.nan for pair in pairs])


def cells(maps: np.ndarray) -> np.ndarray:
    """(N, S, S) -> (N, (S/4)²) float64, the means over squares of 4 x 4 pixels."""
    count, side = len(maps), maps.shape[-1] // GRID
    return maps.reshape(count, side, GRID, side, GRID).mean(axis=(2, 4), dtype=np.float64).reshape(count, -1)


def describe(correlations: np.ndarray) -> dict:
    """Mean and 95 % range over the images whose correlation is defined, and how many those are."""
    defined = correlations[np.isfinite(correlations)]
    if not len(defined):
        return {"mean": None, "low": None, "high": None, "images": 0}
    low, high = np.quantile(defined, [0.025, 0.975])
    return {"mean": float(defined.mean()), "low": float(low), "high": float(high), "images": len(defined)}


class Planted(NamedTuple):
    """Patches of plain stroma, each with one disk of another tissue. Images are uint8 (…, S, S, 3) RGB."""

    images: np.ndarray  # (N, S, S, 3)
    masks: np.ndarray  # (N, S, S) bool, the disks
    plain: np.ndarray  # (N, S, S, 3), the same patches without it
    structure: np.ndarray  # (S, S, 3), full of the disks' tissue
    stroma: np.ndarray  # (S, S, 3), a further plain patch


def planted_patches(side: int, count: int, seed: int) -> Planted:
    """``count`` patches of side S with one disk each, at a place of uniform distribution.

    A disk that leaves the patch enters again at the opposite side. So every pixel is equally likely to be
    covered, and a map that does not look at the image hits with a chance of exactly the disk's area, whatever
    its habits. Outside of the mask an image equals its plain patch.
    """
    rng = np.random.default_rng(derive_seed("planted", seed))

    def tissue(architecture):
        return section(architecture, side, rng)[0]

    distance = np.hypot(*(np.indices((side, side)) - side // 2))
    centred = np.clip((RADIUS * side - distance) / (BLEND * side), 0, 1)
    images, masks, plain = [], [], []
    for _ in range(count):
        disk = np.roll(centred, rng.integers(side, size=2), axis=(0, 1))[:, :, None]
        ground = tissue(STROMA)
        images.append(ground + disk * (tissue(STRUCTURE) - ground))
        masks.append(disk[:, :, 0] > 0)
        plain.append(ground)
    seen = [absorb(np.stack(maps), Stain()) for maps in (images, plain)]
    ends = [absorb(tissue(architecture), Stain()) for architecture in (STRUCTURE, STROMA)]
    return Planted(seen[0], np.stack(masks), seen[1], *ends)


class Hits(NamedTuple):
    """How often the hottest point lay on the structure, and how likely that is by chance."""

    found: int
    patches: int
    chance: float  # mean share of a patch that is covered
    p_value: float  # one-sided, exact binomial


def hottest_points(maps: np.ndarray) -> np.ndarray:
    """(N, S, S) -> (N, 2) int, row and column: the middle of the pixels that share the maximum.

    A coarse node's maximum is a plateau after resizing where it touches the border.
    """
    return np.array([np.rint(np.argwhere(values == values.max()).mean(axis=0)) for values in maps]).astype(int)


def hits(maps: np.ndarray, masks: np.ndarray) -> Hits:
    """Count the maps (N, S, S) whose hottest point lies in their mask; a map without any heat misses."""
    rows, columns = hottest_points(maps).T
    is_hit = masks[np.arange(len(masks)), rows, columns] & (np.ptp(maps, axis=(1, 2)) > 0)
    chance = float(masks.mean())
    test = binomtest(int(is_hit.sum()), len(masks), chance, alternative="greater")
    return Hits(int(is_hit.sum()), len(masks), chance, float(test.pvalue))
