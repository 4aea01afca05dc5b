"""The whole model: its size, what is frozen, what a seed determines, and how its weights travel."""

import pytest
import torch
from torch import nn

from lgffem_core.base.errors import RequestError
from lgffem_core.base.project import PROJECT
from lgffem_core.config.params import Backbone as BackboneParams
from lgffem_core.config.params import Model, Neck
from lgffem_core.config.study import VARIANTS, Study
from lgffem_core.model.backbone import Backbone
from lgffem_core.systems.lgffem.model import LGFFEM, assemble, build_model

SMALL = {
    "model.backbone.name": "test_convnext", "model.backbone.pretrained": False, "model.backbone.weights": None,
    "model.neck.channels": 8, "model.neck.layers": 1, "model.image_size": 64,
}  # fmt: skip


def build(variant="paper", seed=0, **overrides):
    overrides = {key.replace("__", "."): value for key, value in overrides.items()}
    return build_model(Study.load(PROJECT / "params" / "demo.yaml", SMALL | overrides), variant, seed)


def images(count=2):
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one) and one.keys() == other.keys()


# -- size ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base():
    """ConvNeXt V2 base with random weights: what the paper's neck stands on."""
    return Backbone(BackboneParams(name="convnextv2_base", pretrained=False))


@pytest.mark.parametrize(("variant", "count"), [("released", 14_557_656), ("paper", 14_553_560)])
def test_trainable_parameters_on_convnextv2_base(base, variant, count):
    assert base.channels == [128, 256, 512, 1024]
    model = assemble(base, Model(), VARIANTS[variant])
    assert model.trainable_parameters() == count
    assert sum(p.numel() for p in model.neck.parameters()) == 12_452_308
    assert sum(p.numel() for p in model.head.parameters()) == count - 12_452_308


def test_the_embedding_has_four_times_the_necks_channels():
    assert build()(images()).shape == (2, 4 * 8)


# -- frozen backbone -------------------------------------------------------------------------------------


def test_the_backbone_is_frozen_and_always_in_eval_mode():
    """Also one with BatchNorm, whose statistics would move in training mode."""
    model = build(model__backbone__name="test_resnet").train()
    assert model.neck.training and model.head.training
    assert not any(module.training for module in model.backbone.modules())
    norms = [m for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    before = {k: v.clone() for k, v in model.backbone.state_dict().items()}
    model(images()).square().sum().backward()
    assert norms and equal(before, model.backbone.state_dict())
    assert all(p.grad is None and not p.requires_grad for p in model.backbone.parameters())
    assert any(p.grad is not None for p in model.neck.parameters())


def test_an_optimiser_of_all_parameters_does_not_move_the_backbone():
    model = build("released").train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    (model(images()) * torch.randn(2, 32)).sum().backward()
    optimiser.step()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved and not any(name.startswith("backbone.") for name in moved)
    assert {name.split(".")[0] for name in moved} == {"neck", "head"}


# -- seeds and variants ----------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    assert equal(build(seed=3).state_dict(), build(seed=3).state_dict())
    one, other = build(seed=3).state_dict(), build(seed=4).state_dict()
    assert not torch.equal(one["head.mini_heads.0.fc_in.weight"], other["head.mini_heads.0.fc_in.weight"])
    name = next(n for n in one if n.startswith("backbone.") and n.endswith("weight") and one[n].ndim == 4)
    assert not torch.equal(one[name], other[name])


def test_the_necks_draw_does_not_depend_on_how_the_backbone_was_made():
    one, other = build(), build(model__backbone__name="test_efficientnet")
    assert one.backbone.channels == other.backbone.channels  # so that the necks are of one shape
    assert equal(one.trainable_state(), other.trainable_state())


def test_both_variants_start_from_the_same_neck():
    paper, released = build("paper").neck.state_dict(), build("released").neck.state_dict()
    assert paper.keys() == released.keys() and equal(paper, released)


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_the_embedding_has_unit_length_iff_the_toggle_says_so(variant):
    """Neither text nor code normalises it (ledger 12)."""
    with torch.no_grad():
        plain, unit = (
            build(variant, **toggle).eval()(images()).norm(dim=1)
            for toggle in ({}, {"model__toggles__normalize_embedding": True})
        )
    torch.testing.assert_close(unit, torch.ones(2))
    assert not torch.allclose(plain, torch.ones(2), atol=1e-3)


@pytest.mark.parametrize(
    ("toggle", "value", "changed"),
    [
        ("grn", "width", lambda m: type(m.neck.layers[0].nodes["P3_1"].aggregators[0].global_operator[4]).__name__),
        ("fusion_relu", False, lambda m: m.neck.layers[0].nodes["P3_1"].relu),
        ("head_norm", True, lambda m: type(m.head.mini_heads[0].norm).__name__),
    ],
)  # fmt: skip
def test_a_toggle_reaches_its_module_alone(toggle, value, changed):
    plain, toggled = build(), build(**{f"model__toggles__{toggle}": value})
    assert changed(plain) != changed(toggled) == changed(build("released"))


def test_neck_parameters_reach_the_model():
    model = build(model__neck__layers=2, model__neck__epsilon=0.5, model__head__gem_p=3.0)
    assert len(model.neck.layers) == 2
    assert {node.epsilon for layer in model.neck.layers for node in layer.nodes.values()} == {0.5}
    assert [head.gem.p.item() for head in model.head.mini_heads] == [3.0] * 4


# -- bad sizes, weights that travel ----------------------------------------------------------------------


@pytest.mark.parametrize("size", [100, 225, 31])
def test_an_image_size_that_32_does_not_divide_is_refused(size):
    with pytest.raises(RequestError, match=f"^model.image_size is {size}; it must be a multiple of 32.$"):
        build(model__image_size=size)


def test_the_trainable_state_is_neck_and_head_and_loads_into_another_model():
    model, other = build("released", seed=1), build("released", seed=2)
    state = model.trainable_state()
    assert {name.split(".")[0] for name in state} == {"neck", "head"}
    assert any("running_mean" in name for name in state)
    other.load_trainable_state(state)
    assert equal(other.trainable_state(), state)


@pytest.mark.parametrize("fault", ["missing", "unknown"])
def test_a_state_that_does_not_fit_is_refused(fault):
    state = build().trainable_state()
    name = "neck.layers.0.nodes.P3_1.weights"
    state.pop(name)
    if fault == "unknown":
        state = build().trainable_state() | {"neck.more": torch.zeros(1)}
        name = "neck.more"
    with pytest.raises(RequestError, match=name.replace(".", r"\.")):
        build().load_trainable_state(state)


def test_assemble_takes_any_module_with_four_feature_maps():
    class Stages(nn.Module):
        channels = [4, 6, 8, 10]

        def forward(self, x):
            return [torch.ones(len(x), c, 16 >> i, 16 >> i) for i, c in enumerate(self.channels)]

    model = assemble(Stages(), Model(neck=Neck(channels=4, layers=1), image_size=64), VARIANTS["paper"])
    assert isinstance(model, LGFFEM) and model(images(3)).shape == (3, 16)
