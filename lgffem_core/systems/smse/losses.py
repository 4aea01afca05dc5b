"""The losses of SMSE: two of distances between embeddings, three of one probability, and their sum.

N items of C classes; every loss is a mean over them. Of the classification, the functions take the probability ``p``
(N,) that an item's own class is given. Reinforced focal loss (RFL): the text gives no formula; this one is that of the
code thought to be its authors'.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lgffem_core.config.systems import SMSE
from lgffem_core.config.watched import Watched

SMALLEST = 1e-12  # of a squared distance: below, a distance has no gradient, which would be infinite at 0


def squared_distance(a: Tensor, b: Tensor) -> Tensor:  # (N, D), (N, D) -> (N,)
    """d², Euclidean."""
    return (a - b).square().sum(dim=1)


def pair_loss(a: Tensor, b: Tensor, same: Tensor, margin: float) -> Tensor:
    """½[t·d² + (1 − t)·max(0, m − d)²], with t = 1 where the two are of one class: ``same`` (N,) bool."""
    squared = squared_distance(a, b)
    apart = (margin - squared.clamp_min(SMALLEST).sqrt()).clamp_min(0).square()
    return torch.where(same, squared, apart).mean() / 2


def triplet_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """max(0, d²(anchor, positive) − d²(anchor, negative) + m), over all triplets, those without a loss included."""
    further = squared_distance(anchor, positive) - squared_distance(anchor, negative)
    return (further + margin).clamp_min(0).mean()


def cross_entropy(p: Tensor) -> Tensor:  # (N,) -> (N,)
    """−log p."""
    return -p.log()


def focal(p: Tensor, gamma: float) -> Tensor:
    """(1 − p)^γ · (−log p) (Lin et al., ICCV 2017), without its class weight."""
    return (1 - p).pow(gamma) * -p.log()


def reinforced_focal(p: Tensor, gamma: float, alpha: float, beta: Tensor | float = 1.0) -> Tensor:
    """β·α·(1 − p)^γ; β is the own class's weight, (N,)."""
    return beta * alpha * (1 - p).pow(gamma)


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """β (C,): 1 − the share of a class; of two classes, each has the other's share."""
    return 1 - torch.bincount(labels, minlength=classes) / len(labels)


def own_log_probability(logits: Tensor, labels: Tensor) -> Tensor:  # (N, C), (N,) -> (N,)
    """log p of each item's own class, by softmax."""
    return F.log_softmax(logits, dim=1).gather(1, labels[:, None])[:, 0]


class Classification(nn.Module):
    """The classification loss that is asked for, from logits (N, C) and labels (N,): a scalar.

    Args:
        name: "cross_entropy", "focal" or "reinforced_focal".
        settings: section ``smse``.
        beta: (C,) of ``class_weights``; the reinforced focal loss alone reads it.
        gamma: exponent of the reinforced focal loss.
    """

    def __init__(self, name: str, settings: SMSE | Watched, beta: Tensor, gamma: float):
        super().__init__()
        self.name, self.alpha, self.gamma = name, settings.alpha, gamma
        self.gamma_focal = settings.gamma_focal
        self.register_buffer("beta", beta, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_p = own_log_probability(logits.float(), labels)
        rest = -torch.expm1(log_p)  # 1 − p without the loss of digits near 1
        if self.name == "cross_entropy":
            return -log_p.mean()
        if self.name == "focal":
            return (rest.pow(self.gamma_focal) * -log_p).mean()
        return (self.beta[labels] * self.alpha * rest.pow(self.gamma)).mean()


def metric_loss(kind: str, embeddings: Tensor, labels: Tensor, margin: float) -> Tensor:
    """The metric loss of groups: embeddings (N, K, D) and labels (N, K), the anchor first; 0 where ``kind`` is none."""
    parts = embeddings.float().unbind(dim=1)
    if kind == "triplet":
        return triplet_loss(*parts, margin)
    if kind == "pair":
        return pair_loss(*parts, labels[:, 0] == labels[:, 1], margin)
    return embeddings.new_zeros(())
