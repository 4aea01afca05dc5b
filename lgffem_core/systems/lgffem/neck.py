"""The Local–Global Feature Fusion Neck (paper, section 3.3.2, equation 6).

``NODES`` is equation 6 as data: each node with its terms, in the order in which they are computed. The
forward pass and the drawing of the architecture both read it, so that they cannot disagree.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lgffem_core.model.device import own_precision
from lgffem_core.model.layers import ChannelNorm
from lgffem_core.systems.lgffem.aggregators import GlobalAggregator, LocalAggregator


class Term(NamedTuple):
    """One summand of a node: ``aggregator(resize(source))``."""

    source: str
    aggregator: str  # "GA" or "LA"
    resize: str = ""  # "", "up" (inside LA only) or "down" (inside GA only)


NODES: dict[str, tuple[Term, ...]] = {
    "P3_1": (Term("P3_0", "GA"), Term("P4_0", "LA", "up")),
    "P2_1": (Term("P2_0", "GA"), Term("P3_1", "LA", "up")),
    "P1_2": (Term("P1_0", "GA"), Term("P2_1", "LA", "up")),
    "P2_2": (Term("P2_0", "LA"), Term("P2_1", "LA"), Term("P1_2", "GA", "down")),
    "P3_2": (Term("P3_0", "LA"), Term("P3_1", "LA"), Term("P2_2", "GA", "down")),
    "P4_2": (Term("P4_0", "LA"), Term("P3_2", "GA", "down")),
}
INPUTS = ("P1_0", "P2_0", "P3_0", "P4_0")  # strides 4, 8, 16, 32
OUTPUTS = ("P1_2", "P2_2", "P3_2", "P4_2")


def normalised_weights(weights: Tensor, epsilon: float, relu: bool) -> Tensor:
    """wᵢ / (Σ wᵢ + ε), the share of each term in a node (equation 6).

    Args:
        weights: (terms,) the learned weights.
        relu: clip them at zero first, as EfficientDet does; equation 6 as printed and the code do not (ledger 5).
    """
    if relu:
        weights = torch.relu(weights)
    return weights / (weights.sum() + epsilon)


def fast_normalised_fusion(terms: list[Tensor], weights: Tensor, epsilon: float, relu: bool) -> Tensor:
    """Σ wᵢ·Tᵢ / (Σ wᵢ + ε) (EfficientDet, section 3.3; equation 6); ``terms`` are tensors of one shape."""
    with own_precision(terms[0]):
        weights = normalised_weights(weights, epsilon, relu)
        total = weights[0] * terms[0]
        for weight, term in zip(weights[1:], terms[1:], strict=True):
            total = torch.addcmul(total, weight, term)
        return total


class LateralProjection(nn.Sequential):
    """A backbone stage brought to the neck's channels: PW C→C/2, LayerNorm, GELU, PW C/2→512 (code only)."""

    def __init__(self, in_channels: int, channels: int):
        hidden = in_channels // 2
        super().__init__(
            nn.Conv2d(in_channels, hidden, 1, bias=False),
            ChannelNorm(hidden),
            nn.GELU(),
            nn.Conv2d(hidden, channels, 1),
        )


class FusionNode(nn.Module):
    """One node of equation 6: its aggregators, and the weights that fuse them."""

    def __init__(self, terms: tuple[Term, ...], channels: int, reduction: int, epsilon: float, grn: str, relu: bool):
        super().__init__()
        self.terms, self.epsilon, self.relu = terms, epsilon, relu
        self.weights = nn.Parameter(torch.ones(len(terms)))
        self.aggregators = nn.ModuleList(
            LocalAggregator(channels, reduction, term.resize == "up")
            if term.aggregator == "LA"
            else GlobalAggregator(channels, reduction, term.resize == "down", grn)
            for term in terms
        )

    def forward(self, features: dict[str, Tensor]) -> Tensor:  # -> (N, C, H, W) at this node's stride
        summands = [
            aggregate(features[term.source]) for aggregate, term in zip(self.aggregators, self.terms, strict=True)
        ]
        return fast_normalised_fusion(summands, self.weights, self.epsilon, self.relu)


class NeckLayer(nn.Module):
    """One LGFFN layer: four feature maps in, four of the same shapes out."""

    def __init__(
        self, channels: int, reduction: int = 2, epsilon: float = 1e-4, grn: str = "channels", fusion_relu: bool = True
    ):
        super().__init__()
        self.nodes = nn.ModuleDict(
            {name: FusionNode(terms, channels, reduction, epsilon, grn, fusion_relu) for name, terms in NODES.items()}
        )

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:  # 4 × (N, C, Hᵢ, Wᵢ), strides 4 … 32
        features = dict(zip(INPUTS, inputs, strict=True))
        for name, node in self.nodes.items():
            features[name] = node(features)
        return [features[name] for name in OUTPUTS]


class Neck(nn.Module):
    """Lateral projections, then ``layers`` LGFFN layers.

    Args:
        in_channels: channels of the four backbone stages.
        channels: C of the neck (512 in the paper).
        layers: number of LGFFN layers (3 in the paper).
        options: of each ``NeckLayer``; see the ledger's rows 3 and 5.
    """

    def __init__(self, in_channels: list[int], channels: int = 512, layers: int = 3, **options):
        super().__init__()
        self.lateral = nn.ModuleList(LateralProjection(c, channels) for c in in_channels)
        self.layers = nn.ModuleList(NeckLayer(channels, **options) for _ in range(layers))

    def forward(self, stages: list[Tensor]) -> list[Tensor]:  # 4 × (N, Cᵢ, Hᵢ, Wᵢ) -> 4 × (N, C, Hᵢ, Wᵢ)
        return self.all_layers(stages)[-1]

    def all_layers(self, stages: list[Tensor]) -> list[list[Tensor]]:
        """The outputs P1_2 … P4_2 of every layer, first layer first (figures 4–6 look at each)."""
        features = [project(stage) for project, stage in zip(self.lateral, stages, strict=True)]
        outputs = []
        for layer in self.layers:
            features = layer(features)
            outputs.append(features)
        return outputs
