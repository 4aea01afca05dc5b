"""Grad-CAM++ at the neck's fused nodes (figures 4-6), and the checks that say whether to believe it.

A map answers: which places of this image would have to weigh more for its embedding to become more similar
to a reference? Maps come from the package ``grad-cam``; what is changed there is told in ``NodeCAM``.
"""

import copy
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_grad_cam import GradCAMPlusPlus
from scipy.stats import binomtest, spearmanr
from torch import Tensor, nn

from lgffem_core.data.synthetic import STROMA
from lgffem_core.data.tissue import Architecture, Stain, absorb, section
from lgffem_core.model.lgffem import LGFFEM, assemble
from lgffem_core.model.neck import OUTPUTS
from lgffem_core.seeds import derive_seed
from lgffem_core.study import Study

Node = tuple[int, str]  # (neck layer from 1, name): (1, "P1_2")
PARALLEL = 1e-6  # 1 - cosine below which two embeddings have one direction, so that no gradient is left
GRID = 4  # pixels a side over which maps are averaged before they are compared: the stride of P1
STRUCTURE = Architecture(nuclei=16, radius=3.0, elongation=1.3, haze=0.15, eosin=0.35)  # crowded dark nuclei
RADIUS = 0.22  # of a planted disk, in sides of the patch
BLEND = 0.04  # width of its soft rim, which lies inside the disk


# -- maps ------------------------------------------------------------------------------------------------


class SimilarityTo:
    """Grad-CAM target: the cosine between an image's embedding and a reference (D,).

    Also where the model does not normalise its embedding: the training loss is angular in every variant, while
    a dot product also grows with the embedding's length, and its unit would enter Grad-CAM++'s weights.
    """

    def __init__(self, reference: Tensor):
        self.reference = reference

    def __call__(self, embedding: Tensor) -> Tensor:  # (D,) -> scalar
        if not embedding.requires_grad:
            raise ValueError("no gradient reaches the nodes; the neck's parameters must require one")
        return F.cosine_similarity(embedding, self.reference.to(embedding), dim=0)


class NodeCAM(GradCAMPlusPlus):
    """Grad-CAM++ (Chattopadhay et al. 2018, equations 5, 7 and 19), one map a node instead of their mean.

    The package adds 1e-6 to the denominator of equation 19. Here g is about 1e-5 and g² far below that, so
    its weights would follow the third power of the gradient; they are therefore computed without it, in
    float64. Each image's weights are then divided by the largest, which the min-max scaling of a map undoes,
    so that the package's other constant, 1e-7 in that scaling, is small against every map.
    """

    def get_cam_weights(self, input_tensor, target_layers, targets, activations, grads):  # -> (N, C)
        weights = plus_plus_weights(activations, grads)
        largest = np.abs(weights).max(axis=1, keepdims=True)
        return np.divide(weights, largest, out=np.zeros_like(weights), where=largest > 0)

    def aggregate_multi_layers(self, cam_per_target_layer):  # -> (N, nodes, S, S)
        return np.concatenate(cam_per_target_layer, axis=1)


def plus_plus_weights(activations: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Σ α·relu(g) over positions, α = g² / (2g² + ΣA·g³) = 1 / (2 + ΣA·g); (N, C, H, W) twice -> (N, C).

    Positions with g <= 0 weigh nothing. The formula was made for maps A after a ReLU. The fused nodes have
    none, so ΣA may be negative; where 2 + ΣA·g is not positive, α has no meaning and counts as 0.
    """
    A, g = activations.astype(np.float64), gradients.astype(np.float64)
    denominator = 2 + A.sum(axis=(2, 3), keepdims=True) * g
    alpha = np.divide(1, denominator, out=np.zeros_like(g), where=denominator > 0)
    return (alpha * np.maximum(g, 0)).sum(axis=(2, 3))


def fused_nodes(model: nn.Module) -> dict[Node, nn.Module]:
    """The modules P1_2 … P4_2 of every neck layer, in the order in which they are computed."""
    return {(i, name): layer.nodes[name] for i, layer in enumerate(model.neck.layers, 1) for name in OUTPUTS}


def similarity_maps(
    model: nn.Module, images: Tensor, references: Tensor, batch_size: int = 8
) -> dict[Node, np.ndarray]:
    """Where each image would have to weigh more to become more similar to its reference.

    Args:
        model: gives embeddings (N, D); its mode, gradients and flags are left as they were.
        images: (N, 3, S, S), normalised.
        references: (N, D), embeddings of other images, or (D,), one for all. The difference of two embeddings
            asks what makes an image more similar to the first than to the second.

    Returns:
        (layer, node) -> (N, S, S) float32. The package clips a map below at 0, scales it to [0, 1] by its own
        minimum and maximum, and resizes it bilinearly from the node's resolution. A map is all zeros where
        nothing speaks for the similarity, and where embedding and reference have one direction: the cosine
        is then at its maximum and its gradient 0, so a patch cannot be explained by itself.

    Raises ``ValueError`` where the numbers of images and references differ, or no gradient reaches the nodes.
    """
    nodes = fused_nodes(model)
    if references.ndim == 2 and len(references) != len(images):
        raise ValueError(f"{len(images)} images and {len(references)} references; one each, or one (D,) for all")
    references = references.expand(len(images), -1)
    with untouched(model), torch.enable_grad():
        cam = NodeCAM(model, list(nodes.values()))
        try:  # no `with`: the package's context manager swallows IndexErrors
            pairs = zip(images.split(batch_size), references.split(batch_size), strict=True)
            stacked = np.concatenate([maps_of_batch(cam, *pair) for pair in pairs])
        finally:
            cam.activations_and_grads.release()
    return {node: stacked[:, i] for i, node in enumerate(nodes)}


def maps_of_batch(cam: NodeCAM, images: Tensor, references: Tensor) -> np.ndarray:
    """(N, nodes, S, S); zeros for an image whose embedding is parallel to its reference."""
    maps = cam(images, [SimilarityTo(reference) for reference in references])
    cosine = F.cosine_similarity(cam.outputs.detach().cpu().double(), references.cpu().double())
    maps[(1 - cosine < PARALLEL).numpy()] = 0  # what is left of the gradient there is rounding
    return maps


@contextmanager
def untouched(model: nn.Module):
    """Put back every module's mode and every parameter's gradient, which the package changes."""
    modes = {module: module.training for module in model.modules()}
    gradients = {parameter: parameter.grad for parameter in model.parameters()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, gradient in gradients.items():
            parameter.grad = gradient


def collapse(maps: dict[Node, np.ndarray]) -> dict[int, np.ndarray]:
    """Layer -> the mean of its four nodes' maps, so 1 only where all four are at their hottest.

    The released code averages over ten aggregators of a layer instead (ledger 14).
    """
    return {i: np.mean([maps[i, name] for name in OUTPUTS], axis=0) for i in sorted({i for i, _ in maps})}


def embed(model: LGFFEM, images: Tensor, batch_size: int = 32) -> Tensor:
    """Embeddings (N, D) of normalised images (N, 3, S, S), on the CPU."""
    device = next(model.neck.parameters()).device
    with torch.no_grad():
        return torch.cat([model(batch.to(device)).cpu() for batch in images.split(batch_size)])


# -- check 1: does the map depend on what was learned? ------------------------------------------------------


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


# -- check 2: does the map find what it should? ---------------------------------------------------------------


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
