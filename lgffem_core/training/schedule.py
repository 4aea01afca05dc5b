"""Learning rates as pure functions of the step (paper, section 4.1.3; ledger row 7)."""

import math


def cosine(fraction: float, high: float, low: float) -> float:
    """Half a cosine from ``high`` at fraction 0 to ``low`` at fraction 1."""
    return low + (high - low) * (1 + math.cos(math.pi * fraction)) / 2


def learning_rate(
    step: int, total_steps: int, steps_per_epoch: int, high: float, low: float, schedule: str, restart_epochs: int
) -> float:
    """The rate of optimisation step ``step`` (0-based).

    Args:
        schedule: "cosine" falls once over all ``total_steps``, the last step running at ``low``;
            "warm_restarts" falls anew every ``restart_epochs`` epochs, as the released scripts can.
    """
    if schedule == "cosine":
        return cosine(step / max(total_steps - 1, 1), high, low)
    period = restart_epochs * steps_per_epoch
    return cosine((step % period) / period, high, low)


def step_decay(epoch: int, high: float, every: int) -> float:
    """StepLR's rate in ``epoch`` (0-based): a tenth of what it was, each ``every`` epochs (MA + MS-loss)."""
    return high * 0.1 ** (epoch // every)
