"""Maps that are kept are those that would be computed, and are kept for no other batch, weights or precision."""

import os
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from lgffem_core.base.errors import StudyError
from lgffem_core.config.params import Backbone as BackboneParams
from lgffem_core.model import features
from lgffem_core.model.backbone import Backbone
from lgffem_core.model.device import autocast


@pytest.fixture
def keeping(monkeypatch, tmp_path):
    """The process's store, with an empty folder: ``keeping(gib)``."""
    store = features.Features()
    monkeypatch.setattr("lgffem_core.model.backbone.FEATURES", store)
    return partial(store.keeping, tmp_path / "features")


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
    pairs = list(zip(one, other, strict=True))
    return all(torch.equal(a, b) and a.stride() == b.stride() for a, b in pairs)


def test_a_batch_that_comes_again_is_not_computed_and_has_the_same_bits(keeping, backbone, computed):
    plain = [backbone(batch(seed)) for seed in (1, 2)]
    with keeping(1):
        first = [backbone(batch(seed)) for seed in (1, 2)]
        again = [backbone(batch(seed)) for seed in (1, 2)]
    assert computed == [3] * 4
    assert all(same(a, b) and same(a, c) for a, b, c in zip(plain, first, again, strict=True))
    other = Backbone(BackboneParams(name="convnextv2_atto", pretrained=False), image_size=32)
    other.load_state_dict(backbone.state_dict())
    with keeping(1):  # for whoever embeds the same images next
        backbone(batch(1))
        other.maps = None  # a model of the same weights, as another stage has it, computes nothing either
        assert same(other(batch(1)), plain[0])
    assert len(computed) == 4


def test_outside_of_it_everything_is_computed(keeping, backbone, computed):
    with keeping(1):
        backbone(batch(1))
    backbone(batch(1))
    with keeping(0):
        backbone(batch(1))
    assert len(computed) == 3


def test_other_images_weights_and_precisions_have_maps_of_their_own(keeping, backbone, computed):
    nearly = batch(1)
    nearly[2, 2, 31, 31] += 1e-6
    with keeping(1):
        for images in (batch(1), nearly, batch(1)[:2], batch(1).flip(0)):
            backbone(images)
        with autocast("cpu", "bf16-mixed"):
            half = backbone(batch(1))
        whole = backbone(batch(1))
    assert computed == [3, 3, 2, 3, 3] and not same(half, whole)
    with torch.no_grad():
        next(backbone.parameters()).mul_(2)
    with keeping(1):
        changed = backbone(batch(1))
    assert len(computed) == 6 and not same(changed, whole) and same(changed, backbone(batch(1)))


def test_what_else_computes_has_maps_of_its_own(keeping, backbone, computed, monkeypatch):
    """Other code, packages or a processor, and another number of threads, might give other last bits."""
    for name, value in (("code_hash", "other"), ("lock_hash", "other"), ("machine", {"processor": "other"})):
        with keeping(1), monkeypatch.context() as patch:
            backbone(batch(1))
            patch.setattr(features, name, lambda *_, value=value: value)
            with keeping(1):
                backbone(batch(1))
    with keeping(1), monkeypatch.context() as patch:
        patch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
        with keeping(1):
            backbone(batch(1))
        backbone(batch(1))  # as before: what an inner one is made from ends with it
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        with keeping(1):
            backbone(batch(1))
    finally:
        torch.set_num_threads(threads)
    assert len(computed) == 1 + 3 + 1 + 1


def test_damaged_maps_are_named_and_computed_again(keeping, backbone, computed, tmp_path, capsys):
    with keeping(1):
        first = backbone(batch(1))
        (file,) = (tmp_path / "features").iterdir()
        whole = file.read_bytes()
        backbone(batch(2))
        (other,) = {*(tmp_path / "features").iterdir()} - {file}
        flipped = whole[:-300] + bytes([whole[-300] ^ 1]) + whole[-299:]
        for damaged in (b"", bytes(4), whole[: len(whole) // 2], flipped, other.read_bytes()):
            file.write_bytes(damaged)
            assert same(backbone(batch(1)), first)
            assert f"{file}: is damaged" in capsys.readouterr().out and file.read_bytes() == whole
        assert len(computed) == 2 + 5
        file.unlink()
        file.mkdir()
        with pytest.raises(StudyError, match="cannot be read"):
            backbone(batch(1))


def test_the_least_recently_used_make_room(keeping, backbone, computed, tmp_path):
    folder = tmp_path / "features"
    with keeping(1):
        backbone(batch(0))
    (file,) = folder.iterdir()
    size, room = file.stat().st_size, 8 * file.stat().st_size
    os.utime(file, ns=(0, 0))
    for seed in range(1, 9):
        with keeping(room / features.GIB):  # of a process each: it looks at what the others left
            backbone(batch(seed))
        assert sum(each.stat().st_size for each in folder.iterdir()) <= room
    assert len(computed) == 9 and not file.exists() and len(list(folder.iterdir())) == 8
    with keeping(size / 2 / features.GIB):  # less than one batch
        backbone(batch(9))
    assert not list(folder.iterdir())


def test_no_more_than_half_of_the_free_disk_is_taken(keeping, backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(features.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with keeping(1):
        backbone(batch(0))
    assert not list((tmp_path / "features").iterdir())
