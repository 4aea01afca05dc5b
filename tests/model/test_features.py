"""Maps that are kept are those that would be computed, and are kept for no other batch, weights or precision."""

import pytest
import torch

from lgffem_core.config.params import Backbone as BackboneParams
from lgffem_core.model import features
from lgffem_core.model.backbone import Backbone
from lgffem_core.model.device import autocast


@pytest.fixture
def kept(monkeypatch):
    """The process's store, empty."""
    store = features.Features()
    monkeypatch.setattr("lgffem_core.model.backbone.FEATURES", store)
    return store


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return Backbone(BackboneParams(name="convnextv2_atto", pretrained=False), image_size=32)


@pytest.fixture
def computed(backbone, monkeypatch):
    """How often the network was asked."""
    calls, maps = [], backbone.maps
    monkeypatch.setattr(backbone, "maps", lambda images: calls.append(len(images)) or maps(images))
    return calls


def batch(seed: int, count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def same(one: list, other: list) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_batch_that_comes_again_is_not_computed_and_has_the_same_bits(kept, backbone, computed):
    plain = [backbone(batch(seed)) for seed in (1, 2)]
    with kept.keeping(1):
        first = [backbone(batch(seed)) for seed in (1, 2)]
        again = [backbone(batch(seed)) for seed in (1, 2)]
    assert computed == [3] * 4
    assert all(same(a, b) and same(a, c) for a, b, c in zip(plain, first, again, strict=True))
    with kept.keeping(1):  # for whoever embeds the same images next
        backbone(batch(1))
    assert len(computed) == 4


def test_outside_of_it_everything_is_computed(kept, backbone, computed):
    with kept.keeping(1):
        backbone(batch(1))
    backbone(batch(1))
    with kept.keeping(0):
        backbone(batch(1))
    assert len(computed) == 3


def test_other_images_weights_and_precisions_have_maps_of_their_own(kept, backbone, computed):
    nearly = batch(1)
    nearly[2, 2, 31, 31] += 1e-6
    with kept.keeping(1):
        for images in (batch(1), nearly, batch(1)[:2], batch(1).flip(0)):
            backbone(images)
        with autocast("cpu", "bf16-mixed"):
            half = backbone(batch(1))
        whole = backbone(batch(1))
    assert computed == [3, 3, 2, 3, 3] and not same(half, whole)
    with torch.no_grad():
        next(backbone.parameters()).mul_(2)
    with kept.keeping(1):
        changed = backbone(batch(1))
    assert len(computed) == 6 and not same(changed, whole) and same(changed, backbone(batch(1)))


def test_the_least_recently_used_make_room(kept, backbone, computed):
    size = features.size_of(backbone(batch(0)))
    with kept.keeping(2.5 * size / features.GIB):
        for seed in (1, 2, 1, 3, 1, 2):  # 3 takes the place of 2, and 2 then that of 3
            backbone(batch(seed))
            assert kept.size == sum(map(features.size_of, kept.maps.values())) <= kept.room
    assert len(computed) == 1 + 4
    with kept.keeping(size / 2 / features.GIB):  # less than one batch
        backbone(batch(4))
    assert not kept.maps and kept.size == 0
