"""Sub-center ArcFace against the formula, written out sample by sample."""

import math

import pytest
import torch

from lgffem_core.params import Loss
from lgffem_core.study import VARIANTS
from lgffem_core.training.losses import sub_center_arcface


def loss_by_hand(embeddings, labels, centers, classes, k, margin, scale):
    """Mean over samples of the softmax cross-entropy over s·cos(θ + m) (own class) and s·cos θ (others)."""
    total = 0.0
    for f, y in zip(embeddings, labels, strict=True):
        logits = []
        for c in range(classes):
            cosines = [torch.cosine_similarity(f, centers[:, c * k + i], dim=0).item() for i in range(k)]
            theta = math.acos(max(cosines))
            logits.append(scale * math.cos(theta + math.radians(margin) * (c == y)))
        total += math.log(sum(math.exp(v - logits[y]) for v in logits))
    return total / len(labels)


@pytest.mark.parametrize("variant, scale", [("paper", 64.0), ("released", 17.2)])
def test_loss_equals_the_formula(variant, scale):
    torch.manual_seed(0)
    loss = sub_center_arcface(Loss(sub_centers=3), classes=5, embedding_size=12, variant=VARIANTS[variant]).double()
    embeddings, labels = torch.randn(7, 12, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 4, 0, 1])
    by_hand = loss_by_hand(embeddings, labels.tolist(), loss.W.detach(), 5, 3, 17.2, scale)
    assert loss(embeddings, labels).item() == pytest.approx(by_hand, rel=1e-6)


def test_the_length_of_an_embedding_does_not_matter():
    torch.manual_seed(0)
    loss = sub_center_arcface(Loss(), 5, 12, VARIANTS["paper"])
    embeddings, labels = torch.randn(7, 12), torch.tensor([0, 1, 2, 3, 4, 0, 1])
    assert loss(embeddings, labels).item() == pytest.approx(loss(7 * embeddings, labels).item(), rel=1e-5)
