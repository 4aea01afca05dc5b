"""Sub-center ArcFace and multi-similarity against their formulas, written out sample by sample."""

import math
from typing import get_args

import pytest
import torch

from lgffem_core.config.params import Loss
from lgffem_core.config.study import VARIANTS
from lgffem_core.config.systems import MixedAttention
from lgffem_core.training.losses import LOSSES, MultiSimilarity, sub_center_arcface


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


def test_each_loss_can_be_named_and_each_name_has_its_loss():
    """``training.loss.name`` in config/params.py, and ``LOSSES``."""
    assert set(LOSSES) == set(get_args(Loss.model_fields["name"].annotation))


# -- in half precision -----------------------------------------------------------------------------------

HALVES = [torch.bfloat16, torch.float16]


def arcface():
    torch.manual_seed(0)
    return sub_center_arcface(Loss(sub_centers=2), 4, 32, VARIANTS["paper"])


def near(center, degrees):
    """A vector that makes this angle with ``center``."""
    across = torch.randn_like(center)
    across = torch.nn.functional.normalize(across - across @ center / (center @ center) * center, dim=0)
    angle = math.radians(degrees)
    return math.cos(angle) * torch.nn.functional.normalize(center, dim=0) + math.sin(angle) * across


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("make", [arcface, lambda: MultiSimilarity(MixedAttention())])
def test_losses_are_computed_in_float32_under_autocast_and_on_half_precision(make, half):
    loss, labels = make(), torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
    before = {name: tensor.clone() for name, tensor in loss.state_dict().items()}
    rounded = torch.randn(8, 32).to(half)
    expected = loss(rounded.float(), labels)
    with torch.autocast("cpu", half):
        for embeddings in (rounded, rounded.float()):
            found = loss(embeddings, labels)
            assert found.dtype == torch.float32 and torch.equal(found, expected) and found > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in loss.state_dict().items())
    assert {tensor.dtype for tensor in loss.state_dict().values()} <= {torch.float32}


@pytest.mark.parametrize("half", [None, *HALVES], ids=str)
@pytest.mark.parametrize("degrees", [0, 0.005, 1, 3, 180])
def test_gradients_are_numbers_however_near_a_center_an_embedding_is(half, degrees):
    """In bf16 the cosine of 3.6° is 1, in float32 that of 0.01°; arccos has no derivative there."""
    loss = arcface()
    embedding = near(loss.W.detach()[:, 0], degrees)[None].requires_grad_()
    with torch.autocast("cpu", half or torch.bfloat16, enabled=half is not None):
        loss(embedding, torch.tensor([0])).backward()
    assert embedding.grad.isfinite().all() and loss.W.grad.isfinite().all()


@pytest.mark.parametrize("degrees", [0.1, 3, 20])
def test_the_gradient_near_a_center_is_that_of_the_formula(degrees):
    """Against differences of the formula itself, in float64."""
    loss = arcface()
    embedding, label = near(loss.W.detach()[:, 0], degrees)[None].requires_grad_(), torch.tensor([0])
    with torch.autocast("cpu", torch.bfloat16):
        loss(embedding, label).backward()
    centers, direction = loss.W.detach().double(), torch.randn(32, dtype=torch.float64)
    at = [
        loss_by_hand(embedding.detach().double() + sign * 1e-6 * direction, [0], centers, 4, 2, 17.2, 64.0)
        for sign in (1, -1)
    ]
    assert (embedding.grad[0].double() @ direction).item() == pytest.approx((at[0] - at[1]) / 2e-6, rel=2e-2)


# -- multi-similarity ------------------------------------------------------------------------------------


def mined_pairs_by_hand(similarity, labels, epsilon):
    """{(i, k)} of positives and of negatives that are kept: harder than the hardest of the other kind, less ε."""
    kept_positive, kept_negative, everyone = set(), set(), range(len(labels))
    for i in everyone:
        positives = [k for k in everyone if k != i and labels[k] == labels[i]]
        negatives = [k for k in everyone if labels[k] != labels[i]]
        if positives and negatives:
            least, most = min(similarity[i][k] for k in positives), max(similarity[i][k] for k in negatives)
            kept_positive |= {(i, k) for k in positives if similarity[i][k] < most + epsilon}
            kept_negative |= {(i, k) for k in negatives if similarity[i][k] > least - epsilon}
    return kept_positive, kept_negative


def multi_similarity_by_hand(similarity, labels, alpha, beta, base, epsilon):
    """The formula of Wang et al. (2019), one anchor after another."""
    positive, negative = mined_pairs_by_hand(similarity, labels, epsilon)
    total = 0.0
    for i in range(len(labels)):
        pull = sum(math.exp(-alpha * (similarity[i][k] - base)) for j, k in positive if j == i)
        push = sum(math.exp(beta * (similarity[i][k] - base)) for j, k in negative if j == i)
        total += math.log(1 + pull) / alpha + math.log(1 + push) / beta
    return total / len(labels)


def cosines(embeddings):
    return [[torch.cosine_similarity(a, b, dim=0).item() for b in embeddings] for a in embeddings]


CONSTANTS = [MixedAttention(), MixedAttention(alpha=1.5, beta=20, base=0.3, epsilon=0.05)]


@pytest.mark.parametrize("settings", CONSTANTS, ids=["published", "others"])
@pytest.mark.parametrize("seed", range(5))
def test_multi_similarity_equals_the_formula(settings, seed):
    torch.manual_seed(seed)
    labels = torch.randint(0, 4, (14,))
    embeddings = torch.randn(14, 6, dtype=torch.float64) + torch.randn(4, 6, dtype=torch.float64)[labels] / 2
    constants = (settings.alpha, settings.beta, settings.base, settings.epsilon)
    expected = multi_similarity_by_hand(cosines(embeddings), labels.tolist(), *constants)
    assert expected > 0.05
    assert MultiSimilarity(settings)(embeddings, labels).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_mining_keeps_the_pairs_of_its_definition(seed):
    torch.manual_seed(seed)
    labels, embeddings = torch.randint(0, 4, (14,)), torch.randn(14, 6, dtype=torch.float64)
    anchors, positives, others, negatives = (
        t.tolist() for t in MultiSimilarity(CONSTANTS[1]).miner(embeddings, labels)
    )
    by_hand = mined_pairs_by_hand(cosines(embeddings), labels.tolist(), CONSTANTS[1].epsilon)
    pairs = set(zip(anchors, positives, strict=True)), set(zip(others, negatives, strict=True))
    assert pairs == by_hand
    assert 0 < len(pairs[0]) and len(pairs[1]) < sum(a != b for a in labels for b in labels)


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [5, 5, 5, 5]], ids=["no positive", "no negative"])
def test_a_batch_without_pairs_has_loss_0_and_moves_nothing(labels):
    embeddings = torch.randn(4, 6, requires_grad=True)
    value = MultiSimilarity(MixedAttention())(embeddings, torch.tensor(labels))
    value.backward()
    assert value.item() == 0 and torch.equal(embeddings.grad, torch.zeros(4, 6))


def test_the_published_constants_are_the_defaults():
    loss = MultiSimilarity(MixedAttention())
    assert (loss.loss.alpha, loss.loss.beta, loss.loss.base, loss.miner.epsilon) == (2, 5, 0.5, 0.2)
    assert list(loss.parameters()) == []
