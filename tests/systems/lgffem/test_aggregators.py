"""Aggregators against the equations of the paper (section 3.3.1) in plain numpy, position by position."""

import math

import numpy as np
import pytest
import torch

from lgffem_core.systems.lgffem.aggregators import (
    GlobalAggregator,
    LocalAggregator,
    WidthResponseNorm,
    attend,
    response_norm,
)

ERF = np.vectorize(math.erf)
EPS = 1e-6  # of the layer norms and of the response norm


@pytest.fixture(autouse=True)
def random_weights():
    torch.manual_seed(0)


def randomised(module):
    """``module`` with every parameter drawn anew: zeros and ones would hide mistakes."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.7 + 0.1)
    return module.double()


def weights(module):
    return {name: tensor.detach().numpy() for name, tensor in module.named_parameters()}


# -- the operators, longhand ----------------------------------------------------------------------------


def layer_norm(x, weight, bias):
    """Over the channels of each position; x is (C, H, W)."""
    out = np.empty_like(x)
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            v = x[:, i, j]
            out[:, i, j] = (v - v.mean()) / np.sqrt(((v - v.mean()) ** 2).mean() + EPS) * weight + bias
    return out


def point_wise(x, weight, bias):
    out = np.empty((len(weight), *x.shape[1:]))
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            out[:, i, j] = weight[:, :, 0, 0] @ x[:, i, j] + bias
    return out


def depth_wise(x, weight, stride=1):
    """3×3, padding 1, no bias."""
    channels, height, width = x.shape
    out = np.zeros((channels, (height + stride - 1) // stride, (width + stride - 1) // stride))
    for c in range(channels):
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                for di in range(3):
                    for dj in range(3):
                        y, z = i * stride + di - 1, j * stride + dj - 1
                        if 0 <= y < height and 0 <= z < width:
                            out[c, i, j] += weight[c, 0, di, dj] * x[c, y, z]
    return out


def transposed(x, weight, bias):
    """Depth-wise 2×2 transposed convolution of stride 2: each position becomes a 2×2 block."""
    out = np.empty((x.shape[0], 2 * x.shape[1], 2 * x.shape[2]))
    for c in range(x.shape[0]):
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                out[c, i, j] = x[c, i // 2, j // 2] * weight[c, 0, i % 2, j % 2] + bias[c]
    return out


def gelu(x):
    return x * 0.5 * (1 + ERF(x / math.sqrt(2)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def grn(x, kind, gamma, beta):
    """``channels``: ConvNeXt V2's equations 1–3; ``width``: each channel's norm over its own."""
    norm = np.array([math.sqrt((channel**2).sum()) for channel in x])
    mean = np.full_like(norm, norm.mean()) if kind == "channels" else norm
    ratio = norm / (mean + EPS)
    return gamma[:, None, None] * (x * ratio[:, None, None]) + beta[:, None, None] + x


def gate(x, logits, alpha):
    return alpha * x + (1 - alpha) * x * sigmoid(logits)


def local_aggregate(x, w, upsample):
    if upsample:
        x = layer_norm(x, w["resize.0.weight"], w["resize.0.bias"])
        x = transposed(x, w["resize.1.weight"], w["resize.1.bias"])
    hidden = layer_norm(x, w["local_operator.0.weight"], w["local_operator.0.bias"])
    hidden = gelu(point_wise(hidden, w["local_operator.1.weight"], w["local_operator.1.bias"]))
    return gate(x, point_wise(hidden, w["local_operator.3.weight"], w["local_operator.3.bias"]), w["alpha"])


def global_aggregate(x, w, downsample, kind):
    if downsample:
        x = depth_wise(x, w["resize.0.weight"], stride=2)
        x = layer_norm(x, w["resize.1.weight"], w["resize.1.bias"])
    hidden = depth_wise(x, w["global_operator.0.weight"])
    hidden = layer_norm(hidden, w["global_operator.1.weight"], w["global_operator.1.bias"])
    hidden = gelu(point_wise(hidden, w["global_operator.2.weight"], w["global_operator.2.bias"]))
    hidden = grn(hidden, kind, w["global_operator.4.weight"], w["global_operator.4.bias"])
    return gate(x, point_wise(hidden, w["global_operator.5.weight"], w["global_operator.5.bias"]), w["alpha"])


def assert_image_by_image(module, x, longhand):
    with torch.no_grad():
        ours = module(x).numpy()
    for image, result in zip(x.numpy(), ours, strict=True):
        np.testing.assert_allclose(result, longhand(image), rtol=1e-9, atol=1e-9)


# -- the tests -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("upsample", [False, True])
@pytest.mark.parametrize("reduction", [1, 2])
def test_local_aggregator_is_equations_4_and_5(upsample, reduction):
    module = randomised(LocalAggregator(4, reduction, upsample))
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    assert_image_by_image(module, x, lambda image: local_aggregate(image, weights(module), upsample))


@pytest.mark.parametrize("kind", ["channels", "width"])
@pytest.mark.parametrize("downsample", [False, True])
def test_global_aggregator_is_equations_2_and_3(kind, downsample):
    module = randomised(GlobalAggregator(4, 2, downsample, kind))
    x = torch.randn(2, 4, 4, 6, dtype=torch.float64)
    assert_image_by_image(module, x, lambda image: global_aggregate(image, weights(module), downsample, kind))


@pytest.mark.parametrize("kind", ["channels", "width"])
def test_response_norm(kind):
    module = randomised(response_norm(kind, 5))
    x = torch.randn(3, 5, 4, 2, dtype=torch.float64)
    w = weights(module)
    assert_image_by_image(module, x, lambda image: grn(image, kind, w["weight"], w["bias"]))


def test_channels_compete_only_in_the_paper_variant():
    """Ledger row 3: a louder neighbour damps a channel under ``channels`` and not under ``width``."""
    quiet = torch.ones(1, 2, 2, 2, dtype=torch.float64)
    loud = quiet.clone()
    loud[:, 1] *= 10
    for kind, competes in (("channels", True), ("width", False)):
        module = randomised(response_norm(kind, 2))
        assert torch.allclose(module(quiet)[:, 0], module(loud)[:, 0], rtol=1e-4) != competes


def test_width_response_norm_is_an_affine_map_of_each_channel():
    module = randomised(WidthResponseNorm(3))
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    affine = x * (1 + module.weight[:, None, None]) + module.bias[:, None, None]
    torch.testing.assert_close(module(x), affine, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0, -0.5])
def test_the_gate(alpha):
    x, logits = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    for i in range(2):
        for j in range(3):
            value = x[i, j].item()
            expected = alpha * value + (1 - alpha) * value / (1 + math.exp(-logits[i, j].item()))
            assert attend(x, logits, torch.tensor([alpha]))[i, j].item() == pytest.approx(expected)


@pytest.mark.parametrize("make", [LocalAggregator, GlobalAggregator])
def test_alpha_starts_at_zero_and_is_trained(make):
    module = make(4)
    assert module.alpha.item() == 0
    module(torch.randn(1, 4, 4, 4)).square().sum().backward()
    assert module.alpha.grad.abs().item() > 0
    with torch.no_grad():
        module.alpha.fill_(1)
    x = torch.randn(1, 4, 4, 4)
    torch.testing.assert_close(module(x), x)  # at one, the input passes


def test_shapes():
    x = torch.randn(2, 8, 6, 10)
    assert LocalAggregator(8)(x).shape == GlobalAggregator(8)(x).shape == x.shape
    assert LocalAggregator(8, upsample=True)(x).shape == (2, 8, 12, 20)
    assert GlobalAggregator(8, downsample=True)(x).shape == (2, 8, 3, 5)


def test_depth_wise_convolutions_have_no_bias():
    module = GlobalAggregator(4, downsample=True)
    assert module.resize[0].bias is None and module.global_operator[0].bias is None
