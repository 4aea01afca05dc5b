"""Training in half precision: one loss scale for model and loss, and runs that go on to the same bits."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision

from lgffem_core.base.files import sha256_file
from lgffem_core.config.study import VARIANTS
from lgffem_core.systems.baselines.ma_ms import mixed_attention_patches, mixed_attention_recipe
from lgffem_core.systems.lgffem.strategies import strategy_recipe
from lgffem_core.training import loop
from lgffem_core.training.checkpoint import load_checkpoint
from lgffem_core.training.fabric import make_fabric
from lgffem_core.training.loop import Recipe, Trainer, labelled_images
from lgffem_core.training.losses import MultiSimilarity, sub_center_arcface

SIZE = 32  # of an embedding


class Line(torch.nn.Module):
    """A parameter whose true gradient is ``slope``."""

    trainable_state, load_trainable_state = torch.nn.Module.state_dict, torch.nn.Module.load_state_dict

    def __init__(self):
        super().__init__()
        self.at, self.slope = torch.nn.Parameter(torch.zeros(1)), 1.0

    def forward(self, *inputs):  # the model's output, to which the loss adds its own
        return self.at * self.slope + (inputs[0] if len(inputs) == 2 else 0)


BATCH = (torch.zeros(1), torch.zeros(1), None)


def lines_trainer(fabric, model, loss, clip_norm):
    settings = {"loss": {"lr": 1.0}}
    recipe = Recipe("line", "", "", 1, 1, None, partial(torch.optim.SGD, lr=1), settings, clip_norm)
    return Trainer(fabric, recipe, {"model": model, "loss": loss}, labelled_images, 0)


@pytest.mark.parametrize("clip_norm", [None, 4.0], ids=["as it is", "clipped at more than it has"])
def test_fp16_steps_are_exact_when_the_scale_grows_and_after_an_overflow(clip_norm):
    """With true gradients of 1 a step is 1; where one of the two overflows, neither moves, and the scale halves."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    fabric = Fabric(accelerator="cpu", devices=1, plugins=MixedPrecision("16-mixed", "cpu", scaler))
    model, loss = Line(), Line()
    trainer, seen = lines_trainer(fabric, model, loss, clip_norm), []
    for step, steep in enumerate([None, None, None, loss, None, model, None, None]):
        for line in (model, loss):
            line.slope = 2.0**120 if line is steep else 1.0
        trainer.train_step(step, 1.0, BATCH, 1.0)
        seen.append((model.at.item(), loss.at.item(), scaler.get_scale() / 2**10))
    positions, scales = [-1, -2, -3, -3, -4, -4, -5, -6], [1, 2, 2, 1, 1, 0.5, 0.5, 1]
    assert seen == list(zip(positions, positions, scales, strict=True))


@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])
def test_clipping_is_of_the_models_gradient_alone(precision):
    """Against the definition: the model's gradient of 6 is cut to the norm of 2, the loss's of 3 stays."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    plugins = {"plugins": MixedPrecision(precision, "cpu", scaler)} if precision == "16-mixed" else {}
    fabric = Fabric(accelerator="cpu", devices=1, **plugins)
    model, loss = Line(), Line()
    model.slope, loss.slope = 6.0, 3.0
    lines_trainer(fabric, model, loss, 2.0).train_step(0, 1.0, BATCH, 1.0)
    assert model.at.item() == pytest.approx(-2, rel=1e-5) and loss.at.item() == pytest.approx(-3, rel=1e-3)


class SmallNet(torch.nn.Sequential):
    """In place of a network, so that 200 steps take seconds: convolution, BatchNorm, pooling, a linear embedding."""

    trainable_state, load_trainable_state = torch.nn.Module.state_dict, torch.nn.Module.load_state_dict

    def __init__(self):
        torch.manual_seed(0)
        pooling = (torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
        super().__init__(torch.nn.Conv2d(3, 8, 8, 8), torch.nn.BatchNorm2d(8), *pooling, torch.nn.Linear(32, SIZE))


def lgffem_parts(params):
    torch.manual_seed(0)
    return strategy_recipe(params, "c"), sub_center_arcface(params.training.loss, 4, SIZE, VARIANTS["paper"])


def ma_ms_parts(params):
    return mixed_attention_recipe(params.baselines.ma_ms), MultiSimilarity(params.baselines.ma_ms)


class StopHereError(Exception):
    """Stands in for a kill."""


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("make", [lgffem_parts, ma_ms_parts])
def test_200_steps_with_a_stop_in_the_middle_come_to_the_same_bits(tiny_study, tmp_path, monkeypatch, make, precision):
    """Weights, centers, moments and loss scale, which overflows and grows on the way; and the loss falls."""
    every_pair = {"baselines__ma_ms__epsilon": 2.0}  # mined pairs only: none are left, the colours are too easy
    study = tiny_study(compute__precision=precision, compute__checkpoint_steps=3, **every_pair)
    patches, original = mixed_attention_patches(study, 0), loop.save_checkpoint

    def train(name):  # 24 patches: 4 steps an epoch
        recipe, loss = make(study.params)
        fabric = make_fabric(study)
        assert fabric.strategy.precision.precision == precision
        if precision == "16-mixed":
            fabric.strategy.precision.scaler.set_growth_interval(40)
        parts = {"model": SmallNet(), "loss": loss}
        trainer = Trainer(fabric, replace(recipe, epochs=50, batch_size=6), parts, labelled_images, 0)
        return trainer.fit(patches, tmp_path / name, "f", study.params.compute)

    def save_and_die(folder, checkpoint):
        original(folder, checkpoint)
        if checkpoint.step == 99:  # within an epoch
            raise StopHereError

    history = train("whole")
    with monkeypatch.context() as patch, pytest.raises(StopHereError):
        patch.setattr(loop, "save_checkpoint", save_and_die)
        train("stopped")
    assert train("stopped") == history
    whole, stopped = (sorted((tmp_path / name).iterdir()) for name in ("whole", "stopped"))
    assert [sha256_file(path) for path in whole] == [sha256_file(path) for path in stopped]
    last = load_checkpoint(whole[-1])
    tensors = [tensor for tensor in last.tensors.values() if tensor.is_floating_point()]
    assert last.step == 200 and {tensor.dtype for tensor in tensors} == {torch.float32}
    assert history[-1]["loss"] < 0.9 * history[0]["loss"]
