"""The training loop: one strategy, from its first step (or the last checkpoint's) to its last."""

import math

import torch
from lightning_fabric import Fabric

from lgffem_core.data.loading import PatchDataset, TrainingBatches, make_loader
from lgffem_core.errors import StudyError
from lgffem_core.model.lgffem import LGFFEM
from lgffem_core.params import Params
from lgffem_core.progress import EpochLines
from lgffem_core.seeds import derive_seed
from lgffem_core.training.checkpoint import (
    Checkpoint,
    flatten_optimizer,
    newest_checkpoint,
    restore_optimizer,
    save_checkpoint,
)
from lgffem_core.training.schedule import learning_rate


class Trainer:
    """Model, loss and their optimisers, with what is needed to stop after any epoch and go on.

    Args:
        fabric: device, precision and processes.
        params: of the study.
        strategy: "a", "b" or "c".
        model, loss: on any device; Fabric moves them.
        seed: of the run; dropout at one step is a function of (seed, strategy, step, process).
    """

    def __init__(self, fabric: Fabric, params: Params, strategy: str, model: LGFFEM, loss, seed: int):
        training = params.training
        self.fabric, self.params, self.strategy, self.seed = fabric, params, strategy, seed
        self.settings = getattr(training, strategy)
        decay = {"weight_decay": training.weight_decay, "amsgrad": training.amsgrad}
        trained = [p for p in model.parameters() if p.requires_grad]
        self.plain_model, self.plain_loss = model, loss
        if fabric.world_size > 1 and fabric.device.type == "cuda":
            model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.model, self.optimizer = fabric.setup(model, torch.optim.AdamW(trained, lr=training.lr, **decay))
        self.loss, self.loss_optimizer = fabric.setup(loss, torch.optim.AdamW(loss.parameters(), lr=training.loss.lr))

    def fit(self, dataset: PatchDataset, folder, fingerprint: str) -> list[dict]:
        """Train to the end and return the history: one dict an epoch with epoch, loss (mean) and lr (last).

        A checkpoint is written to ``folder`` after each epoch, and the newest one there with this
        ``fingerprint`` is where training goes on.
        """
        batch_size, epochs = self.params.training.batch_size, self.settings.epochs
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
        loader = self.fabric.setup_dataloaders(
            make_loader(dataset, batches, self.params.compute.workers), use_distributed_sampler=False
        )
        lines = EpochLines(self.strategy, epochs, checkpoint.step // batches.steps, quiet=self.fabric.global_rank > 0)
        return self.run_steps(loader, batches, checkpoint, folder, lines)

    def run_steps(self, loader, batches: TrainingBatches, checkpoint: Checkpoint, folder, lines) -> list[dict]:
        """Every step from the checkpoint's on; at each epoch's end, its history entry and a checkpoint."""
        history, losses, images = list(checkpoint.history), [], 0
        self.model.train()
        for step, (inputs, labels, _) in enumerate(loader, start=checkpoint.step):
            lr = self.step_rate(step, batches)
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

    def step_rate(self, step: int, batches: TrainingBatches) -> float:
        """The learning rate of a step, by the schedule of the parameters."""
        training = self.params.training
        high = self.settings.lr or training.lr
        total = self.settings.epochs * batches.steps
        return learning_rate(
            step,
            total,
            batches.steps,
            high,
            min(training.lr_min, high),
            training.schedule,
            training.restart_epochs,
        )

    def train_step(self, step: int, lr: float, inputs, labels) -> float:
        """One optimisation step; returns the loss of the batch, averaged over processes."""
        torch.manual_seed(derive_seed("dropout", self.seed, self.strategy, step, self.fabric.global_rank))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        loss = self.loss(self.model(inputs), labels)
        value = self.fabric.all_reduce(loss.detach(), reduce_op="mean").item()
        if not math.isfinite(value):
            raise StudyError(
                f"strategy {self.strategy.upper()}: the loss is {value} at step {step}; lower training.lr, "
                "or set compute.precision=32-true."
            )
        self.fabric.backward(loss)
        self.fabric.clip_gradients(
            self.model, self.optimizer, max_norm=self.params.training.clip_norm, error_if_nonfinite=False
        )
        for optimizer in (self.optimizer, self.loss_optimizer):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return value

    def snapshot(self, step: int, fingerprint: str, history: list[dict]) -> Checkpoint:
        """Everything that the steps to come depend on."""
        tensors = {f"model/{k}": v for k, v in self.plain_model.trainable_state().items()}
        tensors |= {f"loss/{k}": v for k, v in self.plain_loss.state_dict().items()}
        tensors |= flatten_optimizer("optimizer", self.optimizer)
        tensors |= flatten_optimizer("loss_optimizer", self.loss_optimizer)
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
        restore_optimizer("optimizer", self.optimizer, checkpoint.tensors)
        restore_optimizer("loss_optimizer", self.loss_optimizer, checkpoint.tensors)
