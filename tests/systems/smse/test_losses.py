"""SMSE's losses against loops, libraries and finite differences; what the reinforced focal loss keeps of its word."""

import math

import numpy as np
import pytest
import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.reducers import MeanReducer
from torchvision.ops import sigmoid_focal_loss

from lgffem_core.config.systems import SMSE
from lgffem_core.systems.smse.losses import (
    Classification,
    class_weights,
    cross_entropy,
    focal,
    metric_loss,
    pair_loss,
    reinforced_focal,
    triplet_loss,
)

NAMES = ("cross_entropy", "focal", "reinforced_focal")


def drawn(seed, count=7, size=5, parts=3):
    """Embeddings (parts, count, size) of a scale at which margins count."""
    scale = (0.05, 0.3, 1.0)[seed % 3]
    return scale * torch.randn(parts, count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def distance(a, b):
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a.tolist(), b.tolist(), strict=True)))


def classification(name, classes=2, gamma=1.2, beta=None, **changes):
    settings = SMSE(**changes)
    beta = torch.full((classes,), 0.5) if beta is None else beta
    return Classification(name, settings, beta.double(), gamma).double()


# -- equal to a loop ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(60))
def test_pair_loss_is_the_loop(seed):
    a, b, _ = drawn(seed)
    same = torch.rand(len(a), generator=torch.Generator().manual_seed(seed)) < 0.5
    margin = (0.5, 1.0, 2.0)[seed % 3]
    terms = []
    for x, y, alike in zip(a, b, same.tolist(), strict=True):
        d = distance(x, y)
        terms.append(0.5 * d * d if alike else 0.5 * max(0.0, margin - d) ** 2)
    assert float(pair_loss(a, b, same, margin)) == pytest.approx(sum(terms) / len(terms), abs=1e-6)


@pytest.mark.parametrize("seed", range(60))
def test_triplet_loss_is_the_loop_and_pytorch_metric_learnings(seed):
    a, p, n = drawn(seed)
    loop = [max(0.0, distance(x, y) ** 2 - distance(x, z) ** 2 + 1.0) for x, y, z in zip(a, p, n, strict=True)]
    ours = float(triplet_loss(a, p, n, 1.0))
    assert ours == pytest.approx(sum(loop) / len(loop), abs=1e-6)
    distance_of = LpDistance(normalize_embeddings=False, power=2)
    library = TripletMarginLoss(1.0, distance=distance_of, reducer=MeanReducer())
    rows = torch.arange(len(a))
    everything, labels = torch.cat([a, p, n]), torch.arange(3 * len(a))
    theirs = library(everything, labels, (rows, rows + len(a), rows + 2 * len(a)))
    assert ours == pytest.approx(float(theirs), abs=1e-6)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("name", NAMES)
def test_classification_losses_are_the_loop(name, seed):
    generator = torch.Generator().manual_seed(seed)
    classes, gamma = 2 + seed % 3, (1.2, 1.5, 2.0)[seed % 3]
    logits = (1 + 4 * (seed % 2)) * torch.randn(9, classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (9,), generator=generator)
    beta = torch.rand(classes, generator=generator, dtype=torch.float64)
    terms = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        p = math.exp(row[label]) / sum(math.exp(value) for value in row)
        terms.append(
            {
                "cross_entropy": -math.log(p),
                "focal": (1 - p) ** 2 * -math.log(p),
                "reinforced_focal": float(beta[label]) * 2 * (1 - p) ** gamma,
            }[name]
        )
    loss = Classification(name, SMSE(), beta, gamma)
    assert float(loss(logits, labels)) == pytest.approx(sum(terms) / len(terms), abs=1e-5)
    p = torch.softmax(logits, 1).gather(1, labels[:, None])[:, 0]
    drawn_from = {"cross_entropy": cross_entropy, "focal": lambda q: focal(q, 2.0)}
    ours = drawn_from.get(name, lambda q: reinforced_focal(q, gamma, 2.0, beta[labels]))(p)
    assert float(ours.mean()) == pytest.approx(sum(terms) / len(terms), abs=1e-6)


@pytest.mark.parametrize("seed", range(10))
def test_cross_entropy_is_torchs_and_focal_loss_torchvisions(seed):
    generator = torch.Generator().manual_seed(seed)
    logits, labels = 3 * torch.randn(20, 2, generator=generator), torch.randint(2, (20,), generator=generator)
    ours = float(classification("cross_entropy")(logits, labels))
    assert ours == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), abs=1e-6)
    margin = logits[:, 1] - logits[:, 0]  # of two classes, softmax is the sigmoid of the difference
    theirs = sigmoid_focal_loss(margin, labels.float(), alpha=-1, gamma=2.0, reduction="mean")
    assert float(classification("focal")(logits, labels)) == pytest.approx(float(theirs), abs=1e-6)


# -- gradients ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pair", "triplet"])
@pytest.mark.parametrize("seed", range(6))
def test_gradients_of_metric_losses_are_finite_differences(kind, seed):
    parts = {"pair": 2, "triplet": 3}[kind]
    embeddings = drawn(seed, parts=parts).transpose(0, 1).contiguous().requires_grad_()
    labels = torch.tensor([[0, i % 2, 1][:parts] for i in range(len(embeddings))])
    plain = {"pair": lambda x: pair_loss(x[:, 0], x[:, 1], labels[:, 0] == labels[:, 1], 1.0)}
    plain["triplet"] = lambda x: triplet_loss(*x.unbind(1), 1.0)
    assert torch.autograd.gradcheck(plain[kind], embeddings, eps=1e-6, atol=1e-5)
    with torch.no_grad():
        assert float(metric_loss(kind, embeddings, labels, 1.0)) == pytest.approx(
            float(plain[kind](embeddings)), abs=1e-6
        )


@pytest.mark.parametrize("loss", [cross_entropy, lambda p: focal(p, 2.0), lambda p: reinforced_focal(p, 1.2, 2.0, 0.3)])
def test_gradients_in_the_probability_are_finite_differences(loss):
    p = torch.linspace(0.02, 0.98, 25, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: loss(x).sum(), p, eps=1e-7, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_in_the_logits_are_finite_differences(name):
    logits = torch.linspace(-4, 4, 24).reshape(12, 2)
    labels, step, loss = torch.arange(12) % 2, 1e-2, classification(name)
    leaf = logits.clone().requires_grad_()
    loss(leaf, labels).backward()
    for place in range(24):
        moved = [logits.clone(), logits.clone()]
        moved[0].view(-1)[place] += step
        moved[1].view(-1)[place] -= step
        slope = (float(loss(moved[0], labels)) - float(loss(moved[1], labels))) / (2 * step)
        assert float(leaf.grad.view(-1)[place]) == pytest.approx(slope, abs=2e-4)


def test_two_images_at_one_place_have_a_finite_gradient():
    a = torch.zeros(2, 4, requires_grad=True)
    pair_loss(a, torch.zeros(2, 4), torch.tensor([True, False]), 1.0).backward()
    assert torch.isfinite(a.grad).all()


@pytest.mark.parametrize("name", NAMES)
def test_logits_far_apart_give_finite_losses_and_gradients(name):
    logits = torch.tensor([[80.0, -80.0], [-80.0, 80.0], [0.0, 0.0]], requires_grad=True)
    loss = classification(name)(logits, torch.tensor([0, 0, 1]))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()


# -- the two promises, and the space in which each holds ---------------------------------------------------


def pull(loss, at, logit):
    """Size of the gradient at each place: in p, or in z with p = σ(z)."""
    place = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    loss(place.sigmoid() if logit else place).sum().backward()
    return place.grad.abs().numpy()


GAMMAS = (1.2, 1.5)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_in_the_probability_the_harder_sample_is_punished_more_and_the_easy_one_suppressed(gamma):
    p = np.linspace(0.001, 0.999, 400)
    found = pull(lambda q: reinforced_focal(q, gamma, 2.0, 0.7), p, logit=False)
    assert (np.diff(found) < 0).all()
    np.testing.assert_allclose(found, 2 * 0.7 * gamma * (1 - p) ** (gamma - 1), rtol=1e-9)
    assert found[0] == pytest.approx(2 * 0.7 * gamma, rel=1e-3) and found[-1] < 0.3 * found[0]


@pytest.mark.parametrize("gamma", GAMMAS)
def test_in_the_logit_the_hardest_samples_are_not_punished(gamma):
    z = np.linspace(-12, 12, 4801)
    p = 1 / (1 + np.exp(-z))
    found = pull(lambda q: reinforced_focal(q, gamma, 2.0, 0.7), z, logit=True)
    np.testing.assert_allclose(found, 2 * 0.7 * gamma * p * (1 - p) ** gamma, atol=1e-9)
    assert p[found.argmax()] == pytest.approx(1 / (1 + gamma), abs=2e-3)
    hard = p < 1 / (1 + gamma)
    assert (np.diff(found[hard]) > 0).all()  # the harder, the weaker: the promise is turned round
    assert found[0] < 1e-4 * found.max()


def test_in_the_logit_easy_samples_are_suppressed_still():
    """Against cross-entropy with the same weight, from the middle on."""
    z = np.linspace(2, 12, 200)
    reinforced = pull(lambda q: reinforced_focal(q, 1.2, 1.0), z, logit=True)
    plain = pull(cross_entropy, z, logit=True)
    ratio = reinforced / plain
    assert (np.diff(ratio) < 0).all() and ratio[-1] < 0.2


@pytest.mark.parametrize("loss", [cross_entropy, lambda q: focal(q, 2.0)])
def test_losses_with_a_logarithm_punish_the_hardest_in_the_logit_too(loss):
    found = pull(loss, [-12.0, 0.0, 12.0], logit=True)
    assert found[0] > 0.99 and found[0] > found[1] > found[2]


def test_the_training_loss_itself_gives_up_what_is_confidently_wrong():
    """The same through logits of two classes, as a network has them."""

    def pulled(name, margin):
        logits = torch.tensor([[margin / 2, -margin / 2]], requires_grad=True)
        classification(name)(logits, torch.tensor([0])).backward()
        return float(logits.grad.abs().sum())

    assert pulled("reinforced_focal", -10.0) < 0.01 * pulled("reinforced_focal", -0.2)
    assert pulled("cross_entropy", -10.0) > 1.5 * pulled("cross_entropy", 0.0)


# -- class imbalance ---------------------------------------------------------------------------------------


def test_class_weights_even_the_pull_of_uneven_classes_and_without_them_it_is_uneven():
    labels = torch.tensor([0] * 31 + [1] * 69)
    beta = class_weights(labels, 2)
    torch.testing.assert_close(beta, torch.tensor([0.69, 0.31]))

    def pulls(weights):
        logits = torch.zeros(100, 2, requires_grad=True)
        Classification("reinforced_focal", SMSE(), weights, 1.2)(logits, labels).backward()
        size = logits.grad.abs().sum(dim=1)
        return float(size[labels == 0].sum()), float(size[labels == 1].sum())

    rare, common = pulls(beta)
    assert rare == pytest.approx(common, rel=1e-5)
    rare, common = pulls(torch.tensor([0.5, 0.5]))
    assert common / rare == pytest.approx(69 / 31, rel=1e-5)


def test_without_a_metric_loss_nothing_is_added():
    embeddings = torch.randn(4, 1, 3, requires_grad=True)
    assert float(metric_loss("none", embeddings, torch.zeros(4, 1, dtype=torch.int64), 1.0)) == 0
