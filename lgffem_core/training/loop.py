"""The training loop: one run, from its first step (or the last checkpoint's) to its last.

What is drawn at a step is a function of the seed and the step alone: the order of samples and their
augmentation (``data.loading``), dropout (``train_step``), and the learning rate follows from the step too. So
no generator's state is kept in a checkpoint, and a run that goes on from any step gives the same bits.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import Dataset

from lgffem_core.base.errors import StudyError
from lgffem_core.base.files import remove_leftovers
from lgffem_core.base.progress import LINES, EpochLines
from lgffem_core.base.seeds import derive_seed
from lgffem_core.config.params import Compute
from lgffem_core.data.loading import TrainingBatches, collate, make_loader
from lgffem_core.model.compiled import compile_for
from lgffem_core.training.checkpoint import (
    Checkpoint,
    check_layout,
    checkpoint_path,
    flatten_optimizer,
    layout_of,
    newest_checkpoint,
    optimizer_layout,
    restore_optimizer,
    save_checkpoint,
)

LOOK = 50  # steps after which the losses are looked at: to look, a GPU must be waited for


@dataclass(frozen=True)
class Recipe:
    """What one kind of training run does differently from another."""

    name: str  # dropout depends on it
    title: str  # of error messages
    lr_key: str  # the parameter that they advise to lower
    epochs: int
    batch_size: int
    rate: Callable[[int, int], float]  # (step, steps of an epoch) -> learning rate
    optimizer: Callable[..., torch.optim.Optimizer]  # of groups of parameters, one a part that has any, and ``fused``
    settings: dict[str, dict] = field(default_factory=dict)  # part -> those of its group; its own "lr" stays as it is
    clip_norm: float | None = None  # of the gradient of the part ``clipped``
    clipped: str = "model"
    float32: tuple[str, ...] = ("loss",)  # parts that compute in it, outside of Fabric's precision
    drop_last: bool = True  # leave an epoch's incomplete last batch out
    sampler: Callable[..., TrainingBatches] = TrainingBatches  # called as it is, for what has its methods
    collate: Callable = collate  # a list of the data set's items -> batch
    unit: str = "images"  # what an item is, for lines of progress
    lines: int = LINES  # of them, beside the last


def labelled_images(batch: tuple, model: nn.Module, loss: nn.Module) -> Tensor:
    """The step of one network that embeds labelled images, as ``PatchDataset`` serves them."""
    images, labels, _ = batch
    return loss(model(images), labels)


class Trainer:
    """Networks, losses and their optimiser, with what is needed to stop after any step and go on.

    Args:
        fabric: device, precision and processes.
        recipe: optimiser, schedule, batch size and epochs.
        parts: name -> module that is trained, on any device; Fabric moves them. Checkpoints hold what
            ``trainable_state`` gives, where a module has it and its counterpart, or else ``state_dict``.
        step: ``step(batch, **parts)`` is the loss, a scalar: the mean over the batch's own samples. A batch is what
            the loader collates, on the device; the parts are as Fabric wraps them.
        seed: of the run; dropout at one step is a function of (seed, recipe's name, step, process).
    """

    def __init__(self, fabric: Fabric, recipe: Recipe, parts: dict[str, nn.Module], step: Callable, seed: int):
        self.fabric, self.recipe, self.parts, self.step, self.seed = fabric, recipe, parts, step, seed
        self.compiled = False
        self.wrapped = {name: self.wrap(name, module) for name, module in parts.items()}
        trained = {name: [p for p in module.parameters() if p.requires_grad] for name, module in parts.items()}
        groups = [{"params": own, **recipe.settings.get(name, {})} for name, own in trained.items() if own]
        self.scheduled = [i for i, group in enumerate(groups) if "lr" not in group]
        # One optimiser for all: fp16 has one loss scale, and a gradient that overflows anywhere skips the whole step.
        # Fused, a processor passes over weights and moments once, in a fraction of the time. Not with fp16, whose
        # gradients are scaled and here clipped; on a GPU torch chooses.
        fused = fabric.device.type == "cpu" and fabric.strategy.precision.precision != "16-mixed"
        self.optimizer = fabric.setup_optimizers(recipe.optimizer(groups, fused=fused or None))

    def wrap(self, name: str, module: nn.Module) -> nn.Module:
        """A part on its device, as the step calls it: in the run's precision, gradients shared by all processes."""
        if name in self.recipe.float32:
            module = self.fabric.to_device(module)
            return self.fabric.strategy.setup_module(module) if next(module.parameters(), None) is not None else module
        if self.fabric.world_size > 1 and self.fabric.device.type == "cuda":
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return self.fabric.setup_module(module)

    def fit(self, dataset: Dataset, folder, fingerprint: str, compute: Compute) -> list[dict]:
        """Train to the end and return the history: one dict an epoch with epoch, loss (mean) and lr (last).

        The data set is asked for (epoch, row), as ``PatchDataset`` is. A checkpoint is written to ``folder`` after each
        epoch, and within it every ``compute.checkpoint_steps`` steps; the newest valid one there with this
        ``fingerprint`` is where training goes on.
        """
        recipe, rank, world = self.recipe, self.fabric.global_rank, self.fabric.world_size
        self.compiled = compile_for(compute, recipe.epochs * len(dataset), *self.parts.values())
        if rank == 0:
            remove_leftovers(folder)
        checkpoint = newest_checkpoint(folder, fingerprint) or Checkpoint(0, fingerprint)
        batches = recipe.sampler(
            len(dataset), recipe.batch_size, recipe.epochs, self.seed, checkpoint.step, rank, world, recipe.drop_last
        )
        if checkpoint.step:
            self.restore(checkpoint, batches.steps, str(checkpoint_path(folder, checkpoint.step)))
        loader = make_loader(dataset, batches, compute.workers, recipe.collate)
        loader = self.fabric.setup_dataloaders(loader, use_distributed_sampler=False)
        told = {"quiet": rank > 0, "lines": recipe.lines, "unit": recipe.unit}
        lines = EpochLines(recipe.title, recipe.epochs, checkpoint.step // batches.steps, **told)
        return self.run_steps(loader, batches, checkpoint, folder, lines, compute.checkpoint_steps)

    def run_steps(self, loader, batches, checkpoint: Checkpoint, folder, lines, every: int | None) -> list[dict]:
        """Every step from the checkpoint's on, with a history entry an epoch, and the checkpoints.

        The losses of an epoch under way stand in its checkpoints, so that its mean is that of all its steps.
        """
        history, losses, images, unseen = list(checkpoint.history), list(checkpoint.losses), 0, []
        for part in self.wrapped.values():
            part.train()
        for step, batch in enumerate(loader, start=checkpoint.step):
            lr = self.recipe.rate(step, batches.steps)
            unseen.append(self.train_step(step, lr, batch, batches.share_at(step)))
            images += batches.images_at(step)
            epoch, ended = step // batches.steps, (step + 1) % batches.steps == 0
            keep = ended or (every and (step + 1) % every == 0)
            if keep or len(unseen) == LOOK:
                losses += self.mean_losses(step + 1 - len(unseen), unseen)
                unseen = []
            if ended:
                history.append({"epoch": epoch + 1, "loss": sum(losses) / len(losses), "lr": lr})
                losses = []
            if keep and self.fabric.global_rank == 0:
                save_checkpoint(folder, self.snapshot(step + 1, checkpoint.fingerprint, history, losses))
            if ended:
                lines.epoch_done(epoch, images, history[-1]["loss"], lr)
        return history

    def train_step(self, step: int, lr: float, batch, share: float) -> Tensor:
        """One optimisation step; returns the loss of the batch here, times ``share``, on the device.

        ``share``: of the batch's samples, those here, relative to an equal share. Processes average their gradients.
        """
        torch.manual_seed(derive_seed("dropout", self.seed, self.recipe.name, step, self.fabric.global_rank))
        for i in self.scheduled:
            self.optimizer.param_groups[i]["lr"] = lr
        loss = self.step(batch, **self.wrapped) * share
        self.fabric.backward(loss)
        if self.recipe.clip_norm:  # of one part alone: Fabric's own clipping takes all that the optimiser holds
            self.fabric.strategy.precision.unscale_gradients(self.optimizer.optimizer)
            torch.nn.utils.clip_grad_norm_(self.parts[self.recipe.clipped].parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def mean_losses(self, first: int, here: list[Tensor]) -> list[float]:
        """The losses of the steps from ``first`` on, over all processes; ``StudyError`` where one is not finite."""
        values = self.fabric.all_reduce(torch.stack(here), reduce_op="mean").tolist()
        for step, value in enumerate(values, first):
            if not math.isfinite(value):
                raise StudyError(
                    f"{self.recipe.title}: the loss is {value} at step {step}; lower {self.recipe.lr_key}, "
                    "or set compute.precision=32-true."
                )
        return values

    def snapshot(self, step: int, fingerprint: str, history: list[dict], losses: list[float]) -> Checkpoint:
        """Everything that the steps to come depend on; ``losses`` are those since the last epoch's end."""
        moments, precision = flatten_optimizer("optimizer", self.optimizer), self.fabric.strategy.precision.state_dict()
        tensors = self.state() | moments
        return Checkpoint(step, fingerprint, history, tensors, losses, precision, self.arithmetic, not moments)

    @property
    def arithmetic(self) -> str:
        """Kind of processor and precision of this run, and whether its networks are compiled."""
        words = [self.fabric.device.type, self.fabric.strategy.precision.precision, *["compiled"] * self.compiled]
        return " ".join(words)

    def state(self) -> dict[str, Tensor]:
        """What is trained: the parts' tensors, under their names in a checkpoint."""
        states = {part: getattr(module, "trainable_state", module.state_dict)() for part, module in self.parts.items()}
        return {f"{part}/{name}": tensor for part, state in states.items() for name, tensor in state.items()}

    def restore(self, checkpoint: Checkpoint, steps: int, where: str) -> None:
        """Put a snapshot back; ``steps`` are those of an epoch, ``where`` names the file.

        ``StudyError`` where a tensor is missing, superfluous or of another shape, the losses are not one a step,
        the loss scale of fp16 is missing or too much, or another kind of processor or precision made it.
        """
        expected = layout_of(self.state())
        expected |= {} if checkpoint.untouched else optimizer_layout("optimizer", self.optimizer)
        check_layout(checkpoint.tensors, expected, where)
        if (len(checkpoint.history), len(checkpoint.losses)) != divmod(checkpoint.step, steps):
            raise StudyError(
                f"{where}: holds {len(checkpoint.history)} epochs and {len(checkpoint.losses)} losses, which are not "
                f"{checkpoint.step} steps of {steps} an epoch; delete it and start again."
            )
        if checkpoint.arithmetic != self.arithmetic:
            raise StudyError(
                f"{where}: was made with {checkpoint.arithmetic}, this run computes with {self.arithmetic}; set "
                "compute.device and compute.precision to those, have a compiler where it was compiled, or delete it "
                "and start again."
            )
        precision = self.fabric.strategy.precision
        if checkpoint.precision.keys() != precision.state_dict().keys():
            raise StudyError(
                f"{where}: was made with another precision than this run's; set compute.precision to that one, "
                "or delete it and start again."
            )
        for part, module in self.parts.items():
            start = f"{part}/"
            state = {k.removeprefix(start): v for k, v in checkpoint.tensors.items() if k.startswith(start)}
            getattr(module, "load_trainable_state", module.load_state_dict)(state)
        if not checkpoint.untouched:
            restore_optimizer("optimizer", self.optimizer, checkpoint.tensors)
        precision.load_state_dict(checkpoint.precision)
