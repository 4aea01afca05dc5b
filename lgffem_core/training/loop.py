"""The training loop: one run, from its first step (or the last checkpoint's) to its last."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric

from lgffem_core.data.loading import PatchDataset, TrainingBatches, make_loader
from lgffem_core.errors import StudyError
from lgffem_core.progress import EpochLines
from lgffem_core.seeds import derive_seed
from lgffem_core.training.checkpoint import (
    Checkpoint,
    flatten_optimizer,
    newest_checkpoint,
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
    optimizer: Callable[[list], torch.optim.Optimizer]  # of the model's trained parameters
    loss_optimizer: Callable[[list], torch.optim.Optimizer] | None = None  # null = the loss has no parameters
    clip_norm: float | None = None  # of the model's gradient


class Trainer:
    """Model, loss and their optimisers, with what is needed to stop after any epoch and go on.

    Args:
        fabric: device, precision and processes.
        recipe: optimisers, schedule, batch size and epochs.
        model, loss: on any device; Fabric moves them. The model has ``trainable_state`` and its counterpart.
        seed: of the run; dropout at one step is a function of (seed, recipe's name, step, process).
    """

    def __init__(self, fabric: Fabric, recipe: Recipe, model: torch.nn.Module, loss: torch.nn.Module, seed: int):
        self.fabric, self.recipe, self.seed = fabric, recipe, seed
        trained = [p for p in model.parameters() if p.requires_grad]
        self.plain_model, self.plain_loss = model, loss
        if fabric.world_size > 1 and fabric.device.type == "cuda":
            model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.model, optimizer = fabric.setup(model, recipe.optimizer(trained))
        self.loss, self.optimizers = fabric.to_device(loss), {"optimizer": optimizer}
        if recipe.loss_optimizer:
            self.loss, centers = fabric.setup(loss, recipe.loss_optimizer(list(loss.parameters())))
            self.optimizers["loss_optimizer"] = centers

    def fit(self, dataset: PatchDataset, folder, fingerprint: str, workers: int) -> list[dict]:
        """Train to the end and return the history: one dict an epoch with epoch, loss (mean) and lr (last).

        A checkpoint is written to ``folder`` after each epoch, and the newest one there with this
        ``fingerprint`` is where training goes on.
        """
        batch_size, epochs = self.recipe.batch_size, self.recipe.epochs
        checkpoint = newest_checkpoint(folder, fingerprint) or Checkpoint(0, fingerprint)
        if checkpoint.step:
            self.restore(checkpoint)
        batches = TrainingBatches(
            len(dataset),
            batch_size,
            epochs,
            self.seed,
            checkpoint.step,
            self.fabric.global_rank,
            self.fabric.world_size,
        )
        loader = self.fabric.setup_dataloaders(make_loader(dataset, batches, workers), use_distributed_sampler=False)
        lines = EpochLines(
            self.recipe.title, epochs, checkpoint.step // batches.steps, quiet=self.fabric.global_rank > 0
        )
        return self.run_steps(loader, batches, checkpoint, folder, lines)

    def run_steps(self, loader, batches: TrainingBatches, checkpoint: Checkpoint, folder, lines) -> list[dict]:
        """Every step from the checkpoint's on; at each epoch's end, its history entry and a checkpoint."""
        history, losses, images = list(checkpoint.history), [], 0
        self.model.train()
        for step, (inputs, labels, _) in enumerate(loader, start=checkpoint.step):
            lr = self.recipe.rate(step, batches.steps)
            losses.append(self.train_step(step, lr, inputs, labels))
            images += len(labels) * self.fabric.world_size
            if (step + 1) % batches.steps:
                continue
            epoch = step // batches.steps
            mean = sum(losses) / len(losses)
            history.append({"epoch": epoch + 1, "loss": mean, "lr": lr})
            losses = []
            if self.fabric.global_rank == 0:
                save_checkpoint(folder, self.snapshot(step + 1, checkpoint.fingerprint, history))
            lines.epoch_done(epoch, images, mean, lr)
        return history

    def train_step(self, step: int, lr: float, inputs, labels) -> float:
        """One optimisation step; returns the loss of the batch, averaged over processes."""
        torch.manual_seed(derive_seed("dropout", self.seed, self.recipe.name, step, self.fabric.global_rank))
        optimizer = self.optimizers["optimizer"]  # the loss's own keeps its rate
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss = self.loss(self.model(inputs), labels)
        value = self.fabric.all_reduce(loss.detach(), reduce_op="mean").item()
        if not math.isfinite(value):
            raise StudyError(
                f"{self.recipe.title}: the loss is {value} at step {step}; lower {self.recipe.lr_key}, "
                "or set compute.precision=32-true."
            )
        self.fabric.backward(loss)
        if self.recipe.clip_norm:
            self.fabric.clip_gradients(self.model, optimizer, max_norm=self.recipe.clip_norm, error_if_nonfinite=False)
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return value

    def snapshot(self, step: int, fingerprint: str, history: list[dict]) -> Checkpoint:
        """Everything that the steps to come depend on."""
        tensors = {f"model/{k}": v for k, v in self.plain_model.trainable_state().items()}
        tensors |= {f"loss/{k}": v for k, v in self.plain_loss.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            tensors |= flatten_optimizer(name, optimizer)
        return Checkpoint(step, fingerprint, history, tensors)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Put a snapshot back; whatever is missing in it is an error."""
        parts = {"model": {}, "loss": {}}
        for key, tensor in checkpoint.tensors.items():
            owner, _, name = key.partition("/")
            if owner in parts:
                parts[owner][name] = tensor
        self.plain_model.load_trainable_state(parts["model"])
        self.plain_loss.load_state_dict(parts["loss"])
        for name, optimizer in self.optimizers.items():
            restore_optimizer(name, optimizer, checkpoint.tensors)
