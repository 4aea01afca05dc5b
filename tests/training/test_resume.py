"""Going on after a stop at any step, from whole checkpoints only; and final files that were damaged."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from lgffem_core.base.errors import StudyError
from lgffem_core.base.files import sha256_file
from lgffem_core.base.tensors import load_tensors, save_tensors
from lgffem_core.data.loading import PatchDataset
from lgffem_core.systems.baselines import ma_ms as baselines
from lgffem_core.systems.baselines.ma_ms import train_mixed_attention
from lgffem_core.systems.lgffem.strategies import train_strategy
from lgffem_core.training import finished, loop
from lgffem_core.training.checkpoint import load_checkpoint, newest_checkpoint


def train_a(study):
    return train_strategy(study, "a", "released", 0)  # released: with dropout and BatchNorm; 6 steps in 2 epochs


def contents(folder):
    """name -> SHA-256 of everything that a run leaves: weights, loss curve, checkpoints with the optimisers' state."""
    return {path.name: sha256_file(path) for path in sorted(folder.iterdir())}


class StopHereError(Exception):
    """Stands in for a kill."""


def stop_after_saving(patch):
    original = loop.save_checkpoint

    def save_and_die(*arguments):
        original(*arguments)
        raise StopHereError

    patch.setattr(loop, "save_checkpoint", save_and_die)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_a_run_stopped_at_every_step_comes_to_the_same_bits(tiny_study, monkeypatch, precision):
    settings = {"compute__checkpoint_steps": 1, "compute__precision": precision}
    whole, stopped = (tiny_study(name, **settings) for name in ("whole", "stopped"))
    expected = train_a(whole)
    steps, original = [], loop.Trainer.train_step
    monkeypatch.setattr(loop.Trainer, "train_step", lambda self, n, *r: steps.append(n) or original(self, n, *r))
    for _ in range(6):
        with monkeypatch.context() as patch, pytest.raises(StopHereError):
            stop_after_saving(patch)
            train_a(stopped)
    trained = train_a(stopped)
    assert steps == [0, 1, 2, 3, 4, 5]
    assert contents(trained.weights.parent) == contents(expected.weights.parent)


def test_how_often_checkpoints_are_written_changes_no_result(tiny_study, monkeypatch):
    saved, original = [], loop.save_checkpoint
    monkeypatch.setattr(loop, "save_checkpoint", lambda f, c: saved.append(c.step) or original(f, c))
    first, second = train_a(tiny_study("never")), train_a(tiny_study("often", compute__checkpoint_steps=2))
    assert saved == [3, 6] + [2, 3, 4, 6]  # 3 steps an epoch
    assert first.fingerprint == second.fingerprint
    assert sha256_file(first.weights) == sha256_file(second.weights)


def scramble_generators(monkeypatch):
    """From here on, other states of torch's, numpy's and Python's generators before every step and every image."""
    entropy, step, served = np.random.default_rng(), loop.Trainer.train_step, PatchDataset.__getitem__

    def scramble():
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(int(entropy.integers(2**31)))

    monkeypatch.setattr(loop.Trainer, "train_step", lambda *a: (scramble(), step(*a))[1])
    monkeypatch.setattr(PatchDataset, "__getitem__", lambda *a: (scramble(), served(*a))[1])


def test_nothing_is_drawn_from_global_generators(tiny_study, monkeypatch):
    before = random.getstate(), np.random.get_state()[1].tolist()
    expected = train_a(tiny_study("calm"))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    scramble_generators(monkeypatch)
    trained = train_a(tiny_study("wild"))
    assert contents(trained.weights.parent) == contents(expected.weights.parent)


def test_weights_that_do_not_read_back_are_an_error(tiny_study, monkeypatch):
    original = finished.save_tensors
    monkeypatch.setattr(finished, "save_tensors", lambda path, *rest: (original(path, *rest), flip_last_bit(path)))
    with pytest.raises(StudyError, match="strategy_a: the weights that were just written cannot be read back"):
        train_a(tiny_study())


# -- what a checkpoint must hold ---------------------------------------------------------------------------


@pytest.fixture
def stopped(tiny_study, monkeypatch):
    """(study, trainer, its checkpoint's file) of a run that was stopped after step 2 of 3."""
    study, seen = tiny_study(compute__checkpoint_steps=2), {}
    with monkeypatch.context() as patch:
        original = loop.Trainer.fit
        patch.setattr(loop.Trainer, "fit", lambda *a: seen.update(trainer=a[0], folder=a[2]) or original(*a))
        stop_after_saving(patch)
        with pytest.raises(StopHereError):
            train_a(study)
    (path,) = seen["folder"].glob("step_*.safetensors")
    return study, seen["trainer"], path


def one_of_each_kind(names):
    """kind -> a tensor's name: neck, head and its BatchNorm, the loss's centers, each moment and step count."""
    return {(n.split("/")[0], n.split(".")[0].split("/")[-1], n.split(".")[-1].split("/")[-1]): n for n in names}


def test_every_tensor_must_be_there_in_its_shape_and_no_other(stopped):
    _, trainer, path = stopped
    whole = load_checkpoint(path)
    trainer.restore(whole, 3, "here")
    kinds = one_of_each_kind(whole.tensors)
    assert {"model", "loss", "optimizer"} == {kind[0] for kind in kinds}
    assert {"neck", "head", "W", "running_mean", "exp_avg", "exp_avg_sq", "step"} <= {k for kind in kinds for k in kind}
    for name in kinds.values():
        rest, tensor = {k: v for k, v in whole.tensors.items() if k != name}, whole.tensors[name]
        for fault, tensors in (
            ("missing", rest),
            ("of another shape or type", {**rest, name: tensor[None]}),
            ("of another shape or type", {**rest, name: tensor.to(torch.float16)}),
            ("superfluous", {**whole.tensors, f"{name}0": tensor}),
        ):
            with pytest.raises(StudyError, match=rf"^here: .*\(1 {fault}, e.g. {name}0?\); delete it"):
                trainer.restore(replace(whole, tensors=tensors), 3, "here")


def test_an_incomplete_checkpoint_stops_the_run_and_is_named(stopped):
    study, _, path = stopped
    tensors, header = load_tensors(path)
    del tensors["optimizer/0/exp_avg"]
    save_tensors(path, tensors, header)
    with pytest.raises(StudyError, match=f"{path.name}: .*1 missing, e.g. optimizer/0/exp_avg"):
        train_a(study)


def test_the_losses_must_be_one_a_step(stopped):
    _, trainer, path = stopped
    for losses, history in (([], []), ([1.0], []), ([1.0] * 3, []), ([], [{}]), ([1.0] * 2, [{}])):
        with pytest.raises(StudyError, match="which are not 2 steps of 3 an epoch"):
            trainer.restore(replace(load_checkpoint(path), losses=losses, history=history), 3, "here")


def test_the_loss_scale_of_fp16_and_a_skipped_first_step_are_kept(stopped, monkeypatch):
    """fp16 leaves out steps whose gradients overflow, at first too: the optimiser then has no state yet."""
    _, trainer, path = stopped
    whole = load_checkpoint(path)
    assert (whole.precision, whole.arithmetic, whole.untouched) == ({}, "cpu 32-true", False)
    with pytest.raises(StudyError, match="here: was made with cuda bf16-mixed, this run computes with cpu 32-true"):
        trainer.restore(replace(whole, arithmetic="cuda bf16-mixed"), 3, "here")
    compiled = replace(whole, arithmetic="cpu 32-true compiled")  # by a compiler that is gone since
    with pytest.raises(StudyError, match="have a compiler where it was compiled, or delete it"):
        trainer.restore(compiled, 3, "here")
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**7)
    monkeypatch.setattr(trainer.fabric.strategy.precision, "state_dict", scaler.state_dict, raising=False)
    monkeypatch.setattr(trainer.fabric.strategy.precision, "load_state_dict", scaler.load_state_dict, raising=False)
    trainer.optimizer.state.clear()
    kept = trainer.snapshot(2, "f", [], [1.0, 1.0])
    assert (kept.precision["scale"], kept.untouched) == (2.0**7, True)
    kept.precision["scale"] = 2.0**5
    trainer.restore(kept, 3, "here")
    assert scaler.get_scale() == 2.0**5
    with pytest.raises(StudyError, match="missing, e.g. optimizer/0/exp_avg"):
        trainer.restore(replace(kept, untouched=False), 3, "here")
    with pytest.raises(StudyError, match="here: was made with another precision"):
        trainer.restore(replace(kept, precision={}), 3, "here")


# -- final files -------------------------------------------------------------------------------------------


def flip_last_bit(path):
    contents = path.read_bytes()
    path.write_bytes(contents[:-1] + bytes([contents[-1] ^ 1]))


def check_repairs(train, study, monkeypatch, capsys):
    """Damaged weights, and a loss curve that is missing, edited or empty, are named and made again, untrained."""
    trained = train(study)
    folder, csv = trained.weights.parent, trained.weights.with_name("history.csv")
    expected, text = contents(folder), csv.read_bytes()
    monkeypatch.setattr(loop.Trainer, "train_step", lambda *a: pytest.fail("trained again"))
    capsys.readouterr()
    train(study)
    assert capsys.readouterr().out == ""
    for path, harm in (
        (trained.weights, lambda: flip_last_bit(trained.weights)),
        (csv, csv.unlink),
        (csv, lambda: csv.write_bytes(text.replace(b"1,", b"2,", 1))),
        (csv, lambda: csv.write_bytes(b"")),
    ):
        harm()
        assert train(study).history.equals(trained.history)
        assert contents(folder) == expected and str(path) in capsys.readouterr().out


def test_final_files_are_repaired(tiny_study, monkeypatch, capsys):
    check_repairs(train_a, tiny_study(), monkeypatch, capsys)


def test_final_weights_are_trained_again_where_no_checkpoint_is_left(tiny_study):
    trained = train_a(tiny_study())
    expected = contents(trained.weights.parent)
    for path in trained.weights.parent.iterdir():
        path.write_bytes(b"")
    assert contents(train_a(tiny_study()).weights.parent) == expected


class SmallNet(torch.nn.Sequential):
    """In place of the mixed-attention network, whose checkpoints of 200 MB would take the test's time."""

    trainable_state, load_trainable_state = torch.nn.Module.state_dict, torch.nn.Module.load_state_dict

    def __init__(self, study, seed):
        torch.manual_seed(seed)
        super().__init__(torch.nn.Conv2d(3, 8, 8, 8), torch.nn.BatchNorm2d(8), torch.nn.Flatten())


def test_the_baseline_shares_all_this(tiny_study, monkeypatch, capsys):
    """MA + MS-loss: stopped within an epoch, other generators when it goes on, and its final files repaired."""
    monkeypatch.setattr(baselines, "build_mixed_attention", SmallNet)
    settings = {"epochs": 2, "batch_size": 8, "image_size": 32}
    changes = {f"baselines__ma_ms__{key}": value for key, value in settings.items()} | {"compute__checkpoint_steps": 2}
    whole, stopped = (tiny_study(name, **changes) for name in ("whole", "stopped"))
    expected = train_mixed_attention(whole, 0)
    with monkeypatch.context() as patch, pytest.raises(StopHereError):
        stop_after_saving(patch)
        train_mixed_attention(stopped, 0)
    with monkeypatch.context() as patch:
        scramble_generators(patch)
        trained = train_mixed_attention(stopped, 0)
    assert contents(trained.weights.parent) == contents(expected.weights.parent)
    check_repairs(lambda study: train_mixed_attention(study, 0), stopped, monkeypatch, capsys)


def test_the_mean_of_an_epoch_is_that_of_all_its_steps(stopped, monkeypatch):
    """Against a sum written down here, over a stop within the epoch."""
    study, _, path = stopped
    losses, original = list(load_checkpoint(path).losses), loop.Trainer.train_step

    def note(self, *arguments):
        loss = original(self, *arguments)
        losses.append(float(loss))
        return loss

    monkeypatch.setattr(loop.Trainer, "train_step", note)
    history = train_a(study).history
    assert len(losses) == 6 and history["loss"].tolist() == [sum(losses[:3]) / 3, sum(losses[3:]) / 3]
    last = newest_checkpoint(path.parent, train_a(study).fingerprint)
    assert last.losses == [] and [entry["loss"] for entry in last.history] == history["loss"].tolist()
