"""Folded norms against the network that timm gives, which has them apart."""

from copy import deepcopy

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from lgffem_core.config.params import Backbone as BackboneParams
from lgffem_core.model.backbone import Backbone, quicken
from lgffem_core.model.device import autocast
from lgffem_core.model.folding import Folded, TakenUpNorm, TakenUpNormAct, fold_norms

#: How many of a network's norms follow a convolution; in resnetv2 most come before theirs.
FOLLOW = {
    "test_resnet": 15,
    "test_efficientnet": 12,
    "mobilenetv2_035": 51,
    "tf_efficientnet_lite0": 48,
    "resnetv2_18": 8,
}


def moved(network: nn.Module) -> nn.Module:
    """With statistics, scales and shifts as after a training."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
            ):
                tensor.uniform_(low, high)
    return network.requires_grad_(False).eval()


def folded(network: nn.Module) -> int:
    return sum(isinstance(module, TakenUpNorm | TakenUpNormAct) for module in network.modules())


@pytest.mark.parametrize(("name", "count"), FOLLOW.items())
def test_folded_norms_change_no_map_and_no_name(name, count):
    plain = moved(timm.create_model(name, features_only=True))
    quick = deepcopy(plain)
    quicken(quick)
    fold_norms(quick, 64)
    assert folded(quick) == sum(isinstance(module, Folded) for module in quick.modules()) == count
    ours, theirs = quick.state_dict(), plain.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in theirs)
    images = torch.randn(2, 3, 64, 96)
    for ours, theirs in zip(quick(images), plain(images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


class Twice(nn.Module):
    """A convolution whose values are used beside its norm."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.conv(x)
        return [self.norm(x) + F.relu(x)]


def test_where_a_convolution_is_used_elsewhere_too_nothing_is_folded():
    network, images = moved(Twice()), torch.randn(2, 3, 8, 8)
    expected = network(images)[0]
    fold_norms(network, 8)
    assert not folded(network) and torch.equal(network(images)[0], expected)


def test_a_norm_of_the_batch_at_hand_is_not_folded():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    fold_norms(network, 8)
    assert not folded(network)


@pytest.mark.parametrize(
    ("name", "exact"), [("mobilenetv2_035", True), ("densenet121", True), ("test_convnext", False)]
)
def test_a_backbone_with_batch_normalisation_computes_in_float32_beside_half_precision(name, exact):
    torch.manual_seed(0)
    backbone = Backbone(BackboneParams(name=name, pretrained=False), None, 64)
    images = torch.randn(2, 3, 64, 64)
    plain = backbone(images)
    with autocast("cpu", "bf16-mixed"):
        half = backbone(images)
    assert backbone.exact is exact
    assert all(map(torch.equal, plain, half)) is exact
