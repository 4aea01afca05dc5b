"""Training of MA + MS-loss: what it writes, that it resumes to the same bits, and what its images are."""

from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.base.files import sha256_file
from lgffem_core.systems.baselines import ma_ms as baselines
from lgffem_core.systems.baselines.ma_ms import (
    ma_ms_transform,
    mixed_attention_patches,
    mixed_attention_recipe,
    train_mixed_attention,
    train_or_load_mixed_attention,
)
from lgffem_core.systems.baselines.networks import build_mixed_attention
from lgffem_core.training import loop
from lgffem_core.training.schedule import step_decay

SMALL = {"epochs": 3, "batch_size": 8, "image_size": 32, "embedding": 8, "step_epochs": 2, "lr": 0.02}


@pytest.fixture
def study(tiny_study):
    def make(folder="run", **changes):
        return tiny_study(folder, **{f"baselines__ma_ms__{k}": v for k, v in {**SMALL, **changes}.items()})

    return make


class StopHereError(Exception):
    """Stands in for a kill."""


def test_a_stopped_run_goes_on_to_the_same_bits(study, monkeypatch):
    whole, stopped = study("whole"), study("stopped")
    expected = train_mixed_attention(whole, 0)
    original = loop.save_checkpoint

    def save_and_die(*arguments):
        original(*arguments)
        raise StopHereError

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", save_and_die)
        with pytest.raises(StopHereError):
            train_mixed_attention(stopped, 0)
    steps, step = [], loop.Trainer.train_step
    monkeypatch.setattr(loop.Trainer, "train_step", lambda self, n, *r: steps.append(n) or step(self, n, *r))
    trained = train_mixed_attention(stopped, 0)
    assert steps == [3, 4, 5, 6, 7, 8]  # 24 patches in batches of 8: the first epoch is not repeated
    assert sha256_file(trained.weights) == sha256_file(expected.weights)
    pd.testing.assert_frame_equal(trained.history, expected.history)


def test_what_is_done_is_not_done_again_unless_a_parameter_changes(study, monkeypatch):
    trained = train_mixed_attention(study(), 0)
    folder = study().baseline("ma_ms", 0)
    assert (trained.weights, list(trained.history)) == (folder / "model.safetensors", ["epoch", "loss", "lr"])
    assert trained.history["lr"].tolist() == pytest.approx([0.02, 0.02, 0.002])
    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "fit", lambda *a: pytest.fail("trained again"))
        assert train_mixed_attention(study(), 0).fingerprint == trained.fingerprint
    others = [{"beta": 50.0}, {"epochs": 4}, {"image_size": 48}, {"network": "legacy_seresnet34"}]
    assert (
        len({baselines.mixed_attention_fingerprint(study(**other), 0) for other in others} | {trained.fingerprint}) == 5
    )
    assert baselines.mixed_attention_fingerprint(study(), 1) != trained.fingerprint


def test_the_rate_falls_to_a_tenth_as_step_lr_does(study):
    rate = mixed_attention_recipe(study().params.baselines.ma_ms).rate
    assert [rate(step, 3) for step in (0, 5, 6, 8)] == pytest.approx([0.02, 0.02, 0.002, 0.002])
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    theirs = torch.optim.lr_scheduler.StepLR(optimizer, step_size=50)
    for epoch in range(120):
        assert step_decay(epoch, 1e-3, 50) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


def test_training_moves_every_part_and_lowers_the_loss(study):
    mine = study(epochs=6, step_epochs=6)
    before = build_mixed_attention(mine, 0).state_dict()
    history, after = train_mixed_attention(mine, 0).history, train_or_load_mixed_attention(mine, 0)
    assert not after.training
    for name in ("network.layer0.conv1.weight", "mask_branch.0.conv1.weight", "embed.weight"):
        assert not torch.equal(before[name], after.state_dict()[name])
    assert history["loss"].tail(2).mean() < 0.8 * history["loss"].iloc[0]
    stored = load_file(mine.baseline("ma_ms", 0) / "model.safetensors")
    assert all(torch.equal(tensor, stored[name]) for name, tensor in after.state_dict().items())


def test_the_optimiser_is_the_published_one(study):
    recipe = mixed_attention_recipe(study().params.baselines.ma_ms)
    (group,) = recipe.optimizer([torch.nn.Parameter(torch.zeros(1))]).param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"], group["nesterov"]) == (0.02, 0.9, 0, False)
    assert recipe.clip_norm is None and recipe.settings == {}


def test_it_trains_on_strategy_cs_patches_as_they_are_in_0_1(study):
    patches = mixed_attention_patches(study(), 0)
    assert len(patches) == 24 and all("train" in path for path in patches.paths)
    image, label, row = patches[0, 5]
    assert image.shape == (3, 32, 32) and (label, row) == (patches.labels[5], 5)
    assert 0 <= image.min() and image.max() <= 1
    assert torch.equal(image, patches[0, 5][0]) and not torch.equal(image, patches[1, 5][0])


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_parameter(study, monkeypatch):
    monkeypatch.setattr(baselines, "MultiSimilarity", lambda settings: Broken())
    with pytest.raises(StudyError, match=r"MA \+ MS-loss: the loss is nan at step 0; lower baselines.ma_ms.lr"):
        train_mixed_attention(study(), 0)


class Broken(torch.nn.Module):
    def forward(self, embeddings, labels):
        return embeddings.sum() * float("nan")


def test_several_processes_are_refused(study):
    with pytest.raises(RequestError, match="baselines.ma_ms: pairs are mined within a batch"):
        train_mixed_attention(study(), 0, SimpleNamespace(world_size=2))


# -- images ----------------------------------------------------------------------------------------------


def texture(side):
    rng = np.random.default_rng(0)
    coarse = cv2.resize(rng.integers(0, 256, (side // 4, side // 4, 3)).astype(np.uint8), (side, side))
    return np.clip(coarse + rng.normal(0, 12, coarse.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("side", [500, 1000])
def test_evaluation_is_near_to_pillows_bicubic_resize_to_300_and_its_centre(side):
    """Pillow averages when it shrinks, as the published pipeline does; unfiltered bicubic is further away."""
    image = texture(side)
    theirs = Image.fromarray(image).resize((300, 300), Image.Resampling.BICUBIC).crop((38, 38, 262, 262))
    unfiltered = cv2.resize(image, (300, 300), interpolation=cv2.INTER_CUBIC)[38:262, 38:262]
    ours, theirs = ma_ms_transform(224, training=False)(image, 0).astype(float), np.asarray(theirs).astype(float)
    assert abs(ours - theirs).mean() < min(4, 0.9 * abs(unfiltered - theirs).mean())


def test_training_crops_wander_and_flip():
    ramp = np.broadcast_to(np.arange(240, dtype=np.uint8)[:, None, None], (240, 240, 3)).copy()
    crops = [ma_ms_transform(112, training=True)(ramp, seed) for seed in range(40)]
    assert {crop.shape for crop in crops} == {(112, 112, 3)}
    rising = [crop[-1, 0, 0] > crop[0, 0, 0] for crop in crops]
    assert 8 < sum(rising) < 32  # a vertical flip in about half
    tops = {int(min(crop[0, 0, 0], crop[-1, 0, 0])) for crop in crops}
    assert len(tops) > 10 and max(tops) > 60 > 20 > min(tops)
