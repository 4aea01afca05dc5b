"""Floors: descriptors that need no training, and conditions that take the stain away.

A score is worth what it adds to these. Descriptors take N images, uint8 RGB (H, W, 3), all of one size where
pixels are counted, and give (N, D) float32 for the same search as embeddings. Colours are counted in the
patches as they are: enlarging would add colours that no pixel has.

Conditions change one image at a time: ``without_colour``, ``macenko(reference)``, ``reinhard(reference)`` and
``stain_jitter``. A normaliser gives None for a patch that has no stain to estimate; ``under`` then keeps the
patch as it is and says so.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lgffem_core.base.files import sha256_json
from lgffem_core.config.code_version import code_hash
from lgffem_core.config.study import Study
from lgffem_core.data.augment import evaluation_resize
from lgffem_core.model.backbone import Backbone
from lgffem_core.model.weights import start_hash
from lgffem_core.retrieval.encoder import Encoder

#: Optical densities of haematoxylin, eosin and DAB in red, green and blue (Ruifrok & Johnston 2001).
DYES = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
TO_DENSITY = (DYES / np.linalg.norm(DYES, axis=1, keepdims=True)).astype(np.float32)
TO_DYES = np.linalg.inv(TO_DENSITY)

GLASS = 240  # grey level of empty glass, as Macenko's method takes it
FAINT = 0.15  # optical density below which a pixel is glass
LEAST_TISSUE = 0.01  # share of pixels that a stain can be estimated from
LEAST_SPREAD = 1e-4  # variance of their densities across the main direction; two dyes make a plane

Images = Sequence[np.ndarray]
Condition = Callable[[np.ndarray], np.ndarray | None]


class Conditioned(NamedTuple):
    images: list[np.ndarray]
    unchanged: np.ndarray  # (N,) bool: the condition could not be applied, and the patch is as it was


def mean_colour(images: Images) -> np.ndarray:
    """Mean red, green and blue: (N, 3)."""
    return np.stack([image.mean(axis=(0, 1)) for image in images]).astype(np.float32)


def rgb_histogram(images: Images, bins: int = 8, joint: bool = False) -> np.ndarray:
    """Pixels in each of ``bins`` steps of red, of green and of blue: (N, 3·bins) counts.

    ``joint`` counts the cells of the colour cube instead: (N, bins³). ``bins`` divides 256.
    """
    rows = []
    for image in images:
        step = image.reshape(-1, 3).astype(np.int64) // (256 // bins)
        cell = step @ [bins * bins, bins, 1] if joint else step + bins * np.arange(3)
        rows.append(np.bincount(cell.ravel(), minlength=bins**3 if joint else 3 * bins))
    return np.stack(rows).astype(np.float32)


def stain_histogram(images: Images, bins: int = 16, strongest: float = 1.6) -> np.ndarray:
    """Pixels by haematoxylin and eosin, ``bins`` steps each from 0 to ``strongest``: (N, bins²) counts.

    Concentrations outside count in the outermost step.
    """
    rows = []
    for image in images:
        step = np.clip(dyes(image)[..., :2] * (bins / strongest), 0, bins - 1).astype(np.int64)
        rows.append(np.bincount((step @ [bins, 1]).ravel(), minlength=bins * bins))
    return np.stack(rows).astype(np.float32)


def hellinger(histograms: np.ndarray) -> np.ndarray:
    """Square roots of the shares (N, D), whose Euclidean distance is that of Hellinger: large cells weigh less."""
    return np.sqrt(histograms / histograms.sum(axis=1, keepdims=True))


class PooledBackbone(nn.Module):
    """A frozen backbone as an embedding of its own: each stage average-pooled and L2-normalised, then joined."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:  # (N, 3, S, S) -> (N, ΣCᵢ)
        stages = self.backbone(images)  # (N, Cᵢ, Hᵢ, Wᵢ)
        return torch.cat([F.normalize(stage.mean(dim=(2, 3)), dim=1) for stage in stages], dim=1)


def backbone_encoder(study: Study, seed: int, untrained: bool = False) -> Encoder:
    """The study's backbone, pooled: "frozen backbone", or "untrained backbone" where its weights are drawn by ``seed``.

    Args:
        untrained: draw them also where the parameters name weights.
    """
    settings, size = study.params.model.backbone, study.params.model.image_size
    if untrained:
        settings = settings.model_copy(update={"pretrained": False, "weights": None})
    known = settings.pretrained or settings.weights
    start = start_hash(study, "model.backbone", settings.name) if known else seed

    def network() -> nn.Module:
        torch.manual_seed(seed)
        return PooledBackbone(Backbone(settings, study.resolve(settings.weights), size))

    code = code_hash("import lgffem_core.audit.floors")
    identity = sha256_json([settings.model_dump(mode="json", exclude={"weights"}), start, size, code])
    return Encoder(f"{'frozen' if known else 'untrained'} backbone", identity, cache(network), evaluation_resize(size))


def under(condition: Condition, images: Images) -> Conditioned:
    """Every image under a condition, and which of them it could not change."""
    changed = [condition(image) for image in images]
    kept = np.array([after is None for after in changed])
    return Conditioned([b if a is None else a for a, b in zip(changed, images, strict=True)], kept)


def without_colour(image: np.ndarray) -> np.ndarray:
    """Luminance in all three channels."""
    return np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)


def macenko(reference: np.ndarray) -> Condition:
    """Give patches the two dyes, and their strengths, of a reference patch (Macenko et al. 2009; torchstain)."""
    from torchstain.numpy.normalizers import NumpyMacenkoNormalizer

    normaliser = NumpyMacenkoNormalizer()
    return stain_normaliser(normaliser, reference, lambda image: normaliser.normalize(image, stains=False)[0])


def reinhard(reference: np.ndarray) -> Condition:
    """Give patches the mean and deviation of a reference patch in Lab (Reinhard et al. 2001; torchstain)."""
    from torchstain.numpy.normalizers import NumpyReinhardNormalizer

    normaliser = NumpyReinhardNormalizer()
    return stain_normaliser(normaliser, reference, normaliser.normalize)


def stain_normaliser(normaliser, reference: np.ndarray, normalise: Condition) -> Condition:
    """Fit to the reference, and refuse (None) what would come out as numerical noise, which torchstain does not.

    Raises ``ValueError`` for a reference that has no stain.
    """
    if not has_stain(reference):
        raise ValueError("the reference patch holds too little tissue to estimate a stain")
    normaliser.fit(reference)

    def apply(image: np.ndarray) -> np.ndarray | None:
        if not has_stain(image):
            return None
        try:
            with np.errstate(divide="raise", invalid="raise"):
                return normalise(image)
        except (FloatingPointError, np.linalg.LinAlgError):
            return None

    return apply


def has_stain(image: np.ndarray) -> bool:
    """Whether enough pixels are tissue, and their colours differ in more than strength."""
    density = -np.log((image.reshape(-1, 3).astype(np.float64) + 1) / GLASS)
    tissue = density[(density >= FAINT).all(axis=1)]
    if len(tissue) < max(3, LEAST_TISSUE * len(density)):
        return False
    return bool(np.linalg.eigvalsh(np.cov(tissue.T))[1] >= LEAST_SPREAD)


def stain_jitter(image: np.ndarray, seed: int, strength: float = 0.05) -> np.ndarray:
    """The patch with every dye c turned into a·c + b, a in 1 ± strength and b in ± strength (Tellez et al. 2018,
    whose light and strong augmentations have strengths of 0.05 and 0.2).
    """
    rng = np.random.default_rng(seed)
    scale = rng.uniform(1 - strength, 1 + strength, size=3)
    shift = rng.uniform(-strength, strength, size=3)
    density = (dyes(image) * scale + shift) @ TO_DENSITY
    return np.rint(np.clip(256 * np.exp(-density) - 1, 0, 255)).astype(np.uint8)


def dyes(image: np.ndarray) -> np.ndarray:
    """Concentrations of haematoxylin, eosin and the rest: (H, W, 3), by Beer–Lambert, I + 1 = 256·exp(−density)."""
    return -np.log((image.astype(np.float32) + 1) / 256) @ TO_DYES
