"""Learning rates against closed forms and torch's own scheduler."""

import pytest
import torch

from lgffem_core.training.schedule import learning_rate


def cosine(*where):
    return learning_rate(*where, 5e-3, 8e-5, "cosine", restart_epochs=3)


def test_cosine_equals_torch_over_the_whole_run():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=5e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=99, eta_min=8e-5)
    for step in range(100):
        assert cosine(step, 100, 10) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.step()
        scheduler.step()


def test_warm_restarts_equal_torch():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=3, eta_min=1e-4)
    for step in range(90):
        ours = learning_rate(step, 90, 10, 1e-2, 1e-4, "warm_restarts", restart_epochs=3)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.step()
        scheduler.step((step + 1) / 10)


def test_ends_and_the_one_step_run():
    assert cosine(0, 50, 10) == 5e-3
    assert cosine(49, 50, 10) == pytest.approx(8e-5)
    assert cosine(0, 1, 1) == 5e-3
