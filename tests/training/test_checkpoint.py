"""Checkpoints: round trip, retention, damage, and optimisers put back whole."""

import pytest
import torch

from lgffem_core.errors import StudyError
from lgffem_core.training.checkpoint import (
    Checkpoint,
    checkpoint_files,
    flatten_optimizer,
    load_checkpoint,
    newest_checkpoint,
    restore_optimizer,
    save_checkpoint,
)


def a_checkpoint(step, fingerprint="f"):
    return Checkpoint(
        step,
        fingerprint,
        [{"epoch": 1, "loss": 0.1 + 0.2, "lr": 5e-3}],
        {"model/w": torch.full((3,), step / 3)},
    )


def test_round_trip_is_exact(tmp_path):
    loaded = load_checkpoint(save_checkpoint(tmp_path, a_checkpoint(7)))
    assert (loaded.step, loaded.fingerprint) == (7, "f")
    assert loaded.history == [{"epoch": 1, "loss": 0.1 + 0.2, "lr": 5e-3}]
    assert torch.equal(loaded.tensors["model/w"], torch.full((3,), 7 / 3))


def test_the_last_two_are_kept(tmp_path):
    for step in (5, 10, 15, 20):
        save_checkpoint(tmp_path, a_checkpoint(step))
    assert [load_checkpoint(path).step for path in checkpoint_files(tmp_path)] == [20, 15]


def test_a_damaged_newest_is_named_and_the_one_before_is_used(tmp_path, capsys):
    save_checkpoint(tmp_path, a_checkpoint(5))
    damaged = save_checkpoint(tmp_path, a_checkpoint(10))
    damaged.write_bytes(damaged.read_bytes()[:40])
    assert newest_checkpoint(tmp_path, "f").step == 5
    assert damaged.name in capsys.readouterr().out


def test_another_run_s_checkpoint_is_not_used_and_it_is_said(tmp_path, capsys):
    save_checkpoint(tmp_path, a_checkpoint(5, "other"))
    assert newest_checkpoint(tmp_path, "f") is None
    assert "other parameters" in capsys.readouterr().out


def test_a_foreign_file_is_an_error_that_names_it(tmp_path):
    (tmp_path / "step_1.safetensors").write_text("not weights")
    with pytest.raises(StudyError, match="step_1.safetensors"):
        load_checkpoint(tmp_path / "step_1.safetensors")


def steps(model, optimizer, n):
    for i in range(n):
        optimizer.zero_grad()
        model(torch.full((2, 3), float(i))).square().sum().backward()
        optimizer.step()


def test_a_restored_optimizer_goes_on_as_if_nothing_had_happened():
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, amsgrad=True)
    steps(model, optimizer, 3)
    twin = torch.nn.Linear(3, 2)
    twin.load_state_dict(model.state_dict())
    other = torch.optim.AdamW(twin.parameters(), lr=0.1, amsgrad=True)
    restore_optimizer("o", other, {k: v.clone() for k, v in flatten_optimizer("o", optimizer).items()})
    for m, o in ((model, optimizer), (twin, other)):
        steps(m, o, 3)
    assert torch.equal(model.weight, twin.weight) and torch.equal(model.bias, twin.bias)


def test_a_missing_moment_is_an_error():
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    steps(model, optimizer, 1)
    tensors = {k: v for k, v in flatten_optimizer("o", optimizer).items() if not k.startswith("o/1/")}
    with pytest.raises(StudyError, match="1 of 2"):
        restore_optimizer("o", optimizer, tensors)
