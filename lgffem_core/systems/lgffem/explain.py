"""Grad-CAM++ at the neck's fused nodes (figures 4-6); ``sanity`` says whether to believe the maps.

A map answers: which places of this image would have to weigh more for its embedding to become more similar
to a reference? Maps come from the package ``grad-cam``; what is changed there is told in ``NodeCAM``.
"""

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_grad_cam import GradCAMPlusPlus
from torch import Tensor, nn

from lgffem_core.retrieval import encoder
from lgffem_core.systems.lgffem.model import LGFFEM, untouched
from lgffem_core.systems.lgffem.neck import OUTPUTS

Node = tuple[int, str]  # (neck layer from 1, name): (1, "P1_2")
PARALLEL = 1e-6  # 1 - cosine below which two embeddings have one direction, so that no gradient is left


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
    nodes = {(i, name): layer.nodes[name] for i, layer in enumerate(model.neck.layers, 1) for name in OUTPUTS}
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


def collapse(maps: dict[Node, np.ndarray]) -> dict[int, np.ndarray]:
    """Layer -> the mean of its four nodes' maps, so 1 only where all four are at their hottest.

    One commit of the released code averages over ten aggregators of a layer instead (ledger 14).
    """
    return {i: np.mean([maps[i, name] for name in OUTPUTS], axis=0) for i in sorted({i for i, _ in maps})}


def embed(model: LGFFEM, images: Tensor, batch_size: int = 32) -> Tensor:
    """Embeddings (N, D) of normalised images (N, 3, S, S), on the CPU."""
    device = next(model.neck.parameters()).device
    return torch.from_numpy(encoder.embed(model, images.split(batch_size), device))
