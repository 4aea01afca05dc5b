"""SMSE's networks: shapes, the published number of parameters, and images that are too small."""

import pytest
import torch

from lgffem_core.base.errors import RequestError
from lgffem_core.config.systems import SMSE
from lgffem_core.systems.smse.network import build_classifier, build_network


def numbers(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def test_at_the_published_size_there_are_602_035_parameters():
    settings = SMSE()
    network, classifier = build_network(settings, 0), build_classifier(settings, 2, 0)
    convolutions = sum(3 * 5 * a * b + b for a, b in ((3, 4), (4, 4), (4, 8), (8, 16), (16, 32), (32, 64)))
    full = 30 * 64 * 256 + 256 + 256 * 256 + 256 + 256 * 12 + 12
    slopes = 6 + 2 + 1
    assert numbers(network, classifier) == convolutions + full + 12 * 2 + 2 + slopes == 602_035
    with torch.no_grad():
        embedding = network(torch.rand(1, 3, 460, 700))
    assert embedding.shape == (1, 12) and classifier(embedding).shape == (1, 2)


def test_its_inputs_are_0_to_255_as_published():
    network = build_network(SMSE(), 0)
    assert network.mean == (0, 0, 0) and network.std == (1 / 255,) * 3


@pytest.mark.parametrize("name", ["six_convolutions", "resnet18"])
def test_both_networks_train(name):
    settings = SMSE(network=name, image_size=(48, 72), pools=4, padded=True)
    network = build_network(settings, 0)
    embedding = network(torch.rand(4, 3, 48, 72))
    assert embedding.shape == (4, 12)
    embedding.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize("initial", ["torch", "he"])
def test_a_seed_draws_the_same_weights_and_another_others(initial):
    settings = SMSE(image_size=(48, 72), pools=4, padded=True, initial=initial)
    first, again, other = (torch.cat([p.flatten() for p in build_network(settings, s).parameters()]) for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_he_keeps_the_size_of_what_passes_where_torchs_own_lets_it_fade():
    spread = {}
    for initial in ("torch", "he"):
        network = build_network(SMSE(image_size=(48, 72), pools=4, padded=True, initial=initial), 0)
        with torch.no_grad():
            spread[initial] = float(network(torch.randn(32, 3, 48, 72)).std(dim=0).mean())
    assert spread["he"] > 3 * spread["torch"]


@pytest.mark.parametrize(("size", "fits"), [((190, 379), True), ((189, 379), False), ((190, 378), False)])
def test_images_that_leave_nothing_are_refused(size, fits):
    settings = SMSE(image_size=size)
    if fits:
        assert build_network(settings, 0)
    else:
        with pytest.raises(RequestError, match=f"smse.image_size: .* nothing of {size[0]} × {size[1]} pixels"):
            build_network(settings, 0)
