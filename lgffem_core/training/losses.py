"""The training losses, from pytorch-metric-learning.

LGFFEM: Sub-center ArcFace (Deng et al., ECCV 2020). MA + MS-loss: multi-similarity (Wang et al., CVPR 2019).
"""

from collections.abc import Callable
from functools import wraps

import torch
from pytorch_metric_learning.losses import (
    MultiSimilarityLoss,
    SubCenterArcFaceLoss,
)
from pytorch_metric_learning.miners import MultiSimilarityMiner
from torch import Tensor, nn

from lgffem_core.config.params import Loss, Toggles
from lgffem_core.config.systems import MixedAttention


def in_float32(forward: Callable) -> Callable:
    """A loss's ``forward``, computed in float32 (in float64 on float64) whatever the model computes in.

    In half precision the cosine of up to 3.6° is 1, where arccos has no derivative; and the library casts the
    centers to the type of the embeddings, for good.
    """

    @wraps(forward)
    def computed(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(embeddings.device.type, enabled=False):
            return forward(self, embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)), labels)

    return computed


class SubCenterArcFace(SubCenterArcFaceLoss):
    """The library's loss in float32, with a gradient for an embedding that points exactly at a center: none."""

    @in_float32
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:  # (N, D), (N,) -> scalar
        return super().forward(embeddings, labels)

    def get_angles(self, cosine_of_target_classes: Tensor) -> Tensor:
        """Radians. Just inside ±1, arccos has a derivative; the library lets it be infinite, and the gradient NaN."""
        limit = 1 - torch.finfo(cosine_of_target_classes.dtype).eps
        return torch.acos(cosine_of_target_classes.clamp(-limit, limit))


def sub_center_arcface(loss: Loss, classes: int, embedding_size: int, variant: Toggles) -> SubCenterArcFace:
    """The loss over (N, embedding_size) embeddings and N labels in [0, classes).

    s·cos(θ + m) for the nearest of an own class's K centers, s·cos θ for the others, in a softmax
    cross-entropy; m in degrees. The released code passes the margin as the scale too (ledger row 2).
    """
    scale = {"s": loss.scale, "margin": loss.margin}[variant.loss_scale]
    return SubCenterArcFace(
        num_classes=classes,  # by name: the library looks these up among its keywords
        embedding_size=embedding_size,
        margin=loss.margin,
        scale=scale,
        sub_centers=loss.sub_centers,
    )


#: ``training.loss.name`` -> function of (training.loss, classes, size of an embedding, variant) that makes the loss.
LOSSES: dict[str, Callable[..., nn.Module]] = {
    "sub_center_arcface": sub_center_arcface,
}


class MultiSimilarity(nn.Module):
    """Multi-similarity loss over the pairs that its mining keeps, with the constants of ``baselines.ma_ms``.

    S is the cosine similarity. Mining keeps, for anchor i, the negatives with S_ik > min over positives S − ε, and the
    positives with S_ik < max over negatives S + ε. On those pairs P_i and N_i, as a mean over the batch's m anchors:

        1/m Σ_i { 1/α · log[1 + Σ_{k∈P_i} exp(−α(S_ik − λ))]  +  1/β · log[1 + Σ_{k∈N_i} exp(β(S_ik − λ))] }

    The library's own β is 50; the publication's is 5. A batch without any pair has loss 0.

    Attributes:
        loss, miner: the library's two halves.
    """

    def __init__(self, settings: MixedAttention):
        super().__init__()
        self.loss = MultiSimilarityLoss(alpha=settings.alpha, beta=settings.beta, base=settings.base)
        self.miner = MultiSimilarityMiner(epsilon=settings.epsilon)

    @in_float32
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:  # (N, D), (N,) -> scalar
        return self.loss(embeddings, labels, self.miner(embeddings, labels))
