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

from lgffem_core.base.errors import StudyError
from lgffem_core.base.files import remove_leftovers
from lgffem_core.base.progress import EpochLines
from lgffem_core.base.seeds import derive_seed
from lgffem_core.config.params import Compute
from lgffem_core.data.loading import PatchDataset, TrainingBatches, make_loader
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


@dataclass(frozen=True)
class Recipe:
    """What one kind of training run does differently from another."""

    name: str  # "a", "b", "c" or "ma_ms"; dropout depends on it
    title: str  # of error messages
    lr_key: str  # the parameter that they advise to lower
    epochs: int
    batch_size: int
    rate: Callable[[int, int], float]  # (step, steps of an epoch) -> learning rate
    optimizer: Callable[[list], torch.optim.Optimizer]  # of what is trained: the model's, then the loss's parameters
    loss_settings: dict = field(default_factory=dict)  # of the optimiser, where the loss has parameters
    clip_norm: float | None = None  # of the model's gradient
    drop_last: bool = True  # leave an epoch's incomplete last batch out


class Trainer:
    """Model, loss and their optimiser, with what is needed to stop after any step and go on.

    Args:
        fabric: device, precision and processes.
        recipe: optimiser, schedule, batch size and epochs.
        model, loss: on any device; Fabric moves them. The model has ``trainable_state`` and its counterpart.
            The loss computes in float32, outside of Fabric's precision, as a mean over the batch.
        seed: of the run; dropout at one step is a function of (seed, recipe's name, step, process).
    """

    def __init__(self, fabric: Fabric, recipe: Recipe, model: torch.nn.Module, loss: torch.nn.Module, seed: int):
        self.fabric, self.recipe, self.seed = fabric, recipe, seed
        groups, centers = [{"params": [p for p in model.parameters() if p.requires_grad]}], list(loss.parameters())
        if centers:
            groups.append({"params": centers, **recipe.loss_settings})
        self.plain_model, self.plain_loss = model, loss
        if fabric.world_size > 1 and fabric.device.type == "cuda":
            model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
        # One optimiser for both: fp16 has one loss scale, and a gradient that overflows anywhere skips the whole step.
        self.model, self.optimizer = fabric.setup(model, recipe.optimizer(groups))
        self.loss = fabric.strategy.setup_module(fabric.to_device(loss))

    def fit(self, dataset: PatchDataset, folder, fingerprint: str, compute: Compute) -> list[dict]:
        """Train to the end and return the history: one dict an epoch with epoch, loss (mean) and lr (last).

        A checkpoint is written to ``folder`` after each epoch, and within it every ``compute.checkpoint_steps``
        steps; the newest valid one there with this ``fingerprint`` is where training goes on.
        """
        batch_size, epochs = self.recipe.batch_size, self.recipe.epochs
        if self.fabric.global_rank == 0:
            remove_leftovers(folder)
        checkpoint = newest_checkpoint(folder, fingerprint) or Checkpoint(0, fingerprint)
        batches = TrainingBatches(
            len(dataset),
            batch_size,
            epochs,
            self.seed,
            checkpoint.step,
            self.fabric.global_rank,
            self.fabric.world_size,
            self.recipe.drop_last,
        )
        if checkpoint.step:
            self.restore(checkpoint, batches.steps, str(checkpoint_path(folder, checkpoint.step)))
        loader = make_loader(dataset, batches, compute.workers)
        loader = self.fabric.setup_dataloaders(loader, use_distributed_sampler=False)
        lines = EpochLines(
            self.recipe.title, epochs, checkpoint.step // batches.steps, quiet=self.fabric.global_rank > 0
        )
        return self.run_steps(loader, batches, checkpoint, folder, lines, compute.checkpoint_steps)

    def run_steps(
        self, loader, batches: TrainingBatches, checkpoint: Checkpoint, folder, lines, every: int | None
    ) -> list[dict]:
        """Every step from the checkpoint's on, with a history entry an epoch, and the checkpoints.

        The losses of an epoch under way stand in its checkpoints, so that its mean is that of all its steps.
        """
        history, losses, images = list(checkpoint.history), list(checkpoint.losses), 0
        self.model.train()
        for step, (inputs, labels, _) in enumerate(loader, start=checkpoint.step):
            lr = self.recipe.rate(step, batches.steps)
            together = batches.images_at(step)
            share = len(labels) * self.fabric.world_size / together
            losses.append(self.train_step(step, lr, inputs, labels, share))
            images += together
            epoch, ended = step // batches.steps, (step + 1) % batches.steps == 0
            if ended:
                history.append({"epoch": epoch + 1, "loss": sum(losses) / len(losses), "lr": lr})
                losses = []
            if self.fabric.global_rank == 0 and (ended or (every and (step + 1) % every == 0)):
                save_checkpoint(folder, self.snapshot(step + 1, checkpoint.fingerprint, history, losses))
            if ended:
                lines.epoch_done(epoch, images, history[-1]["loss"], lr)
        return history

    def train_step(self, step: int, lr: float, inputs, labels, share: float) -> float:
        """One optimisation step; returns the mean loss of the batch over all processes.

        ``share``: of the batch's images, those here, relative to an equal share. Processes average their gradients.
        """
        torch.manual_seed(derive_seed("dropout", self.seed, self.recipe.name, step, self.fabric.global_rank))
        self.optimizer.param_groups[0]["lr"] = lr  # the loss's parameters keep their rate
        loss = self.loss(self.model(inputs), labels) * share
        value = self.fabric.all_reduce(loss.detach(), reduce_op="mean").item()
        if not math.isfinite(value):
            raise StudyError(
                f"{self.recipe.title}: the loss is {value} at step {step}; lower {self.recipe.lr_key}, "
                "or set compute.precision=32-true."
            )
        self.fabric.backward(loss)
        if self.recipe.clip_norm:  # the model's alone: Fabric's own clipping takes all that the optimiser holds
            self.fabric.strategy.precision.unscale_gradients(self.optimizer.optimizer)
            torch.nn.utils.clip_grad_norm_(self.plain_model.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return value

    def snapshot(self, step: int, fingerprint: str, history: list[dict], losses: list[float]) -> Checkpoint:
        """Everything that the steps to come depend on; ``losses`` are those since the last epoch's end."""
        moments, precision = flatten_optimizer("optimizer", self.optimizer), self.fabric.strategy.precision.state_dict()
        tensors = self.state() | moments
        return Checkpoint(step, fingerprint, history, tensors, losses, precision, self.arithmetic, not moments)

    @property
    def arithmetic(self) -> str:
        """Kind of processor and precision of this run."""
        return f"{self.fabric.device.type} {self.fabric.strategy.precision.precision}"

    def state(self) -> dict[str, torch.Tensor]:
        """What is trained: the tensors of model and loss, under their names in a checkpoint."""
        tensors = {f"model/{name}": tensor for name, tensor in self.plain_model.trainable_state().items()}
        return tensors | {f"loss/{name}": tensor for name, tensor in self.plain_loss.state_dict().items()}

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
                "compute.device and compute.precision to those, or delete it and start again."
            )
        precision = self.fabric.strategy.precision
        if checkpoint.precision.keys() != precision.state_dict().keys():
            raise StudyError(
                f"{where}: was made with another precision than this run's; set compute.precision to that one, "
                "or delete it and start again."
            )
        parts = {"model": {}, "loss": {}}
        for key, tensor in checkpoint.tensors.items():
            owner, _, name = key.partition("/")
            if owner in parts:
                parts[owner][name] = tensor
        self.plain_model.load_trainable_state(parts["model"])
        self.plain_loss.load_state_dict(parts["loss"])
        if not checkpoint.untouched:
            restore_optimizer("optimizer", self.optimizer, checkpoint.tensors)
        precision.load_state_dict(checkpoint.precision)
