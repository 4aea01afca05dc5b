"""The neck: equation 6 written out, and the fusion with and without ReLU."""

import pytest
import torch
from torch.nn import functional as F

from lgffem_core.systems.lgffem.neck import NODES, LateralProjection, Neck, NeckLayer, fast_normalised_fusion

EPS = 1e-4


@pytest.fixture(autouse=True)
def random_weights():
    torch.manual_seed(0)


def randomised(module):
    """Every parameter drawn anew, fusion weights of either sign among them."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.6 + (0.4 if name.endswith("weights") else 0.1))
    return module.double()


def maps(channels=4, images=2, size=8, dtype=torch.float64):
    """Feature maps at strides 4, 8, 16, 32 of an image of 32·size/8 pixels."""
    return [torch.randn(images, channels, size >> i, size >> i, dtype=dtype) for i in range(4)]


def fuse(weights, terms, relu):
    total = 0.0
    kept = [max(float(w), 0.0) if relu else float(w) for w in weights]
    for w, term in zip(kept, terms, strict=True):
        total = total + w * term
    return total / (sum(kept) + EPS)


@pytest.mark.parametrize("grn", ["channels", "width"])
@pytest.mark.parametrize("relu", [True, False])
def test_a_layer_is_equation_6(relu, grn):
    layer = randomised(NeckLayer(4, grn=grn, fusion_relu=relu))
    P1_0, P2_0, P3_0, P4_0 = inputs = maps()

    def w(node):
        return layer.nodes[node].weights

    def agg(node, position, kind):
        module = layer.nodes[node].aggregators[position]
        assert module.kind == kind
        return module

    def GA(node, position):
        module = agg(node, position, "GA")
        assert isinstance(module.resize, torch.nn.Identity)
        return module

    def LA(node, position):
        module = agg(node, position, "LA")
        assert isinstance(module.resize, torch.nn.Identity)
        return module

    def LA_up(node, position):
        module = agg(node, position, "LA")
        assert isinstance(module.resize[1], torch.nn.ConvTranspose2d)
        return module

    def GA_down(node, position):
        module = agg(node, position, "GA")
        assert module.resize[0].stride == (2, 2)
        return module

    with torch.no_grad():
        P3_1 = fuse(w("P3_1"), [GA("P3_1", 0)(P3_0), LA_up("P3_1", 1)(P4_0)], relu)
        P2_1 = fuse(w("P2_1"), [GA("P2_1", 0)(P2_0), LA_up("P2_1", 1)(P3_1)], relu)
        P1_2 = fuse(w("P1_2"), [GA("P1_2", 0)(P1_0), LA_up("P1_2", 1)(P2_1)], relu)
        P2_2 = fuse(w("P2_2"), [LA("P2_2", 0)(P2_0), LA("P2_2", 1)(P2_1), GA_down("P2_2", 2)(P1_2)], relu)
        P3_2 = fuse(w("P3_2"), [LA("P3_2", 0)(P3_0), LA("P3_2", 1)(P3_1), GA_down("P3_2", 2)(P2_2)], relu)
        P4_2 = fuse(w("P4_2"), [LA("P4_2", 0)(P4_0), GA_down("P4_2", 1)(P3_2)], relu)
        ours = layer(inputs)
    for result, expected in zip(ours, [P1_2, P2_2, P3_2, P4_2], strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-10)


def test_fusion_by_hand():
    terms = [torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0]), torch.tensor([100.0, 200.0])]
    weights = torch.tensor([1.0, 3.0, -2.0])
    clipped = fast_normalised_fusion(terms, weights, EPS, relu=True)
    raw = fast_normalised_fusion(terms, weights, EPS, relu=False)
    torch.testing.assert_close(clipped, torch.tensor([31.0, 62.0]) / (4 + EPS))
    torch.testing.assert_close(raw, torch.tensor([-169.0, -338.0]) / (2 + EPS))


@pytest.mark.parametrize("relu", [True, False])
def test_positive_weights_do_not_feel_the_relu_and_equal_ones_average(relu):
    terms = maps()[:1] * 2
    fused = fast_normalised_fusion(terms, torch.ones(2, dtype=torch.float64), EPS, relu)
    torch.testing.assert_close(fused, terms[0] * 2 / (2 + EPS))


def test_weights_that_are_all_negative_give_zero_with_relu():
    fused = fast_normalised_fusion([torch.ones(3)], torch.tensor([-1.0]), EPS, relu=True)
    assert fused.tolist() == [0, 0, 0]


def test_fusion_weights_start_at_one():
    layer = NeckLayer(4)
    assert {name: node.weights.tolist() for name, node in layer.nodes.items()} == {
        name: [1.0] * len(terms) for name, terms in NODES.items()
    }


def test_the_lateral_projection_by_hand():
    project = randomised(LateralProjection(6, 4))
    x = torch.randn(2, 6, 3, 3, dtype=torch.float64)
    w = dict(project.named_parameters())
    assert set(w) == {"0.weight", "1.weight", "1.bias", "3.weight", "3.bias"}  # the first convolution has no bias
    for image in range(2):
        for i in range(3):
            for j in range(3):
                hidden = w["0.weight"][:, :, 0, 0] @ x[image, :, i, j]
                hidden = (hidden - hidden.mean()) / torch.sqrt(hidden.var(unbiased=False) + 1e-6)
                hidden = F.gelu(hidden * w["1.weight"] + w["1.bias"])
                expected = w["3.weight"][:, :, 0, 0] @ hidden + w["3.bias"]
                torch.testing.assert_close(project(x)[image, :, i, j], expected)


def test_the_neck_chains_its_layers_and_projects_once():
    neck = randomised(Neck([6, 8, 10, 12], channels=4, layers=3))
    stages = [torch.randn(1, c, 8 >> i, 8 >> i, dtype=torch.float64) for i, c in enumerate([6, 8, 10, 12])]
    with torch.no_grad():
        features = [neck.lateral[i](stage) for i, stage in enumerate(stages)]
        for number, outputs in enumerate(neck.all_layers(stages)):
            features = neck.layers[number](features)
            assert all(torch.equal(a, b) for a, b in zip(outputs, features, strict=True))
        assert number == 2
        assert all(torch.equal(a, b) for a, b in zip(neck(stages), features, strict=True))


def test_shapes_are_kept():
    outputs = NeckLayer(8)(maps(channels=8, images=3, size=16, dtype=torch.float32))
    assert [tuple(each.shape) for each in outputs] == [(3, 8, 16, 16), (3, 8, 8, 8), (3, 8, 4, 4), (3, 8, 2, 2)]


def test_every_weight_of_the_neck_is_trained():
    neck = Neck([6, 8, 10, 12], channels=4, layers=2)
    with torch.no_grad():
        for parameter in neck.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    stages = [torch.randn(2, c, 8 >> i, 8 >> i) for i, c in enumerate([6, 8, 10, 12])]
    sum((output * torch.randn_like(output)).sum() for output in neck(stages)).backward()
    assert [name for name, p in neck.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_every_source_is_computed_before_it_is_used():
    known = {"P1_0", "P2_0", "P3_0", "P4_0"}
    for node, terms in NODES.items():
        assert {term.source for term in terms} <= known
        known.add(node)
