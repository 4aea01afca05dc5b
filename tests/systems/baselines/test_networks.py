"""The two baselines of Table 2: their shapes, where their weights come from, and each fault in one sentence."""

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import Study
from lgffem_core.config.systems import DenseNet
from lgffem_core.systems.baselines.networks import (
    MASK_BLOCKS,
    MixedAttentionNet,
    build_densenet,
    build_mixed_attention,
    weights_label,
)


@pytest.fixture
def study(tmp_path):
    def make(**overrides):
        overrides = {f"baselines.{key.replace('__', '.')}": value for key, value in overrides.items()}
        return Study.load(PROJECT / "params" / "smoke.yaml", overrides, root=tmp_path)

    return make


@pytest.fixture(scope="module")
def network():
    """A mixed-attention network whose BatchNorms have seen some images, so that none is the identity."""
    torch.manual_seed(0)
    model = MixedAttentionNet(timm.create_model("legacy_seresnet18", num_classes=0), 16).train()
    with torch.no_grad():
        for _ in range(5):
            model(torch.rand(8, 3, 64, 64))
    return model.eval()


def refusal(build, kind=RequestError):
    with pytest.raises(kind) as caught:
        build()
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".")
    return sentence


# -- DenseNet-121 ----------------------------------------------------------------------------------------


def test_densenet_gives_the_global_average_pool_of_its_last_feature_map(study):
    model, images = build_densenet(study(), 0), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        features, last = model(images), F.relu(model.features(images))
    assert features.shape == (2, 1024)
    torch.testing.assert_close(features, last.sum(dim=(2, 3)) / (last.shape[2] * last.shape[3]), rtol=1e-4, atol=1e-6)


def test_densenet_is_frozen_and_expects_imagenet_statistics(study):
    model = build_densenet(study(), 0)
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert (model.mean, model.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_random_densenets_differ_by_seed_only(study):
    first, again, other = (build_densenet(study(), seed).state_dict() for seed in (0, 0, 1))
    name = "features.conv0.weight"
    assert torch.equal(first[name], again[name]) and not torch.equal(first[name], other[name])


def test_densenet_takes_a_local_file_and_leaves_its_classifier_out(study, tmp_path):
    torch.manual_seed(5)
    full = timm.create_model("densenet121", pretrained=False).state_dict()
    save_file(full, tmp_path / "dense.safetensors")
    loaded = build_densenet(study(densenet121__weights=str(tmp_path / "dense.safetensors")), 0).state_dict()
    assert "classifier.weight" in full and "classifier.weight" not in loaded
    assert all(torch.equal(full[name], tensor) for name, tensor in loaded.items())


def test_a_file_without_one_of_the_weights_is_refused(study, tmp_path):
    full = timm.create_model("densenet121", pretrained=False).state_dict()
    del full["features.norm5.running_var"]
    save_file(full, tmp_path / "dense.safetensors")
    sentence = refusal(lambda: build_densenet(study(densenet121__weights=str(tmp_path / "dense.safetensors")), 0))
    assert sentence == (
        "baselines.densenet121.weights: in dense.safetensors, features.norm5.running_var is missing; "
        "these are not the weights of this densenet121, or not under timm's names (the file's first is "
        f"{next(iter(load_file(tmp_path / 'dense.safetensors')))})."
    )


@pytest.mark.parametrize(
    ("key", "build"), [("densenet121", build_densenet), ("ma_ms", build_mixed_attention)], ids=["densenet", "ma_ms"]
)
def test_weights_that_cannot_be_downloaded_are_asked_for(study, monkeypatch, key, build):
    monkeypatch.setattr(timm, "create_model", lambda *a, pretrained, **k: (_ for _ in ()).throw(OSError("offline")))
    sentence = refusal(lambda: build(study(**{f"{key}__pretrained": True}), 0), StudyError)
    assert "cannot be downloaded (OSError)" in sentence and f"--set baselines.{key}.weights=FILE" in sentence


@pytest.mark.parametrize(
    ("settings", "label"),
    [
        ({}, "ImageNet weights"),
        ({"pretrained": False}, "random weights"),
        ({"weights": "/somewhere/dense.pth"}, "weights dense.pth"),
    ],
)
def test_the_label_says_where_weights_are_from(settings, label):
    assert weights_label(DenseNet(**settings)) == label


# -- mixed attention -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "channels"), [("legacy_seresnet18", 256), ("legacy_seresnet50", 1024)])
@pytest.mark.parametrize("size", [64, 96])
def test_the_mask_has_a_value_in_0_1_for_each_channel_and_place(name, channels, size):
    torch.manual_seed(0)
    model = MixedAttentionNet(timm.create_model(name, num_classes=0)).eval()
    with torch.no_grad():
        features, mask = model.attention(torch.rand(2, 3, size, size))
    assert mask.shape == features.shape == (2, channels, size // 16, size // 16)
    assert (mask > 0).all() and (mask < 1).all()


def test_the_mask_differs_between_places_and_between_channels(network):
    with torch.no_grad():
        _, mask = network.attention(torch.rand(1, 3, 96, 96))
    assert mask.std(dim=1).min() > 1e-3 and mask.flatten(2).std(dim=2).max() > 1e-3


def test_the_mask_branch_is_layer_4_without_its_stride(network):
    """SE-ResNet-50's layer 4 has as many blocks as the branch: its weights fit there, name by name."""
    model = MixedAttentionNet(timm.create_model("legacy_seresnet50", num_classes=0))
    *blocks, convolution, norm, sigmoid = model.mask_branch
    theirs, ours = model.network.layer4.state_dict(), torch.nn.Sequential(*blocks).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    assert len(blocks) == MASK_BLOCKS == 3 and {block.stride for block in blocks} == {1}
    assert convolution.weight.shape == (1024, 2048, 1, 1)
    assert norm.num_features == 1024 and isinstance(sigmoid, torch.nn.Sigmoid)


def test_the_embedding_is_layer_4_of_the_masked_features(network):
    images = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        stages = network.network.forward_intermediates(images, intermediates_only=True)
        masked = stages[3] * torch.sigmoid(network.mask_branch[:-1](stages[3]))
        pooled = network.network.layer4(masked).flatten(2).mean(dim=2)
        expected = pooled @ network.embed.weight.T + network.embed.bias
        ours = network(images)
    torch.testing.assert_close(ours, expected / expected.norm(dim=1, keepdim=True))
    assert ours.shape == (3, 16)


def test_with_an_open_mask_the_network_is_the_plain_one(network):
    """A bias of +100 before the sigmoid opens the mask everywhere."""
    images, norm = torch.rand(2, 3, 64, 64), network.mask_branch[-2]
    bias = norm.bias.detach().clone()
    with torch.no_grad():
        norm.bias.fill_(100)
        ours = network(images)
        plain = F.normalize(network.embed(network.network.forward_features(images).mean(dim=(2, 3))), dim=1)
        norm.bias.copy_(bias)
    torch.testing.assert_close(ours, plain)


def test_everything_is_trained_and_reached_by_the_gradient():
    torch.manual_seed(0)
    model = MixedAttentionNet(timm.create_model("legacy_seresnet18", num_classes=0), 8).train()
    (model(torch.rand(4, 3, 64, 64)) ** 3).sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in silent if not name.endswith(("bias", "fc1.weight", "fc2.weight"))] == []


def test_random_starts_differ_by_seed_only(study):
    first, again, other = (build_mixed_attention(study(), seed).state_dict() for seed in (0, 0, 1))
    for name in ("network.layer0.conv1.weight", "mask_branch.0.conv1.weight", "embed.weight"):
        assert torch.equal(first[name], again[name]) and not torch.equal(first[name], other[name])


def test_a_local_file_fills_the_network_and_not_the_branch(study, tmp_path):
    torch.manual_seed(9)
    full = timm.create_model("legacy_seresnet18", pretrained=False).state_dict()
    save_file(full, tmp_path / "se.safetensors")
    given = {"ma_ms__weights": str(tmp_path / "se.safetensors")}
    random, loaded = (build_mixed_attention(study(**o), 0) for o in ({}, given))
    assert all(torch.equal(full[name], tensor) for name, tensor in loaded.network.state_dict().items())
    for part in ("mask_branch", "embed"):
        for mine, theirs in zip(getattr(loaded, part).parameters(), getattr(random, part).parameters(), strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("name", "words"),
    [("legacy_seresnet19", "timm has no model 'legacy_seresnet19'"), ("resnet18", "no squeeze-and-excitation")],
)
def test_another_kind_of_network_is_refused(study, name, words):
    sentence = refusal(lambda: build_mixed_attention(study(ma_ms__network=name), 0))
    assert sentence.startswith("baselines.ma_ms.network: ") and words in sentence
