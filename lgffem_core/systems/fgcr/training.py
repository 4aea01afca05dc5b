"""Training of FGCR by the study's trainer, and what a trained model says of slides and reports."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from lgffem_core.base.errors import RequestError
from lgffem_core.base.files import sha256_json, sha256_table
from lgffem_core.base.seeds import derive_seed
from lgffem_core.base.tensors import load_tensors
from lgffem_core.config.study import Study
from lgffem_core.config.systems import Fgcr, FgcrToggles
from lgffem_core.data import check_unchanged
from lgffem_core.model.device import prepare_device
from lgffem_core.systems.fgcr.archive import Archive
from lgffem_core.systems.fgcr.batches import Batch, Slides, collate
from lgffem_core.systems.fgcr.losses import terms, weighted
from lgffem_core.systems.fgcr.model import FGCRModel, Output
from lgffem_core.training.fabric import make_fabric
from lgffem_core.training.finished import TrainedRun, train_once
from lgffem_core.training.loop import Recipe, Trainer
from lgffem_core.training.schedule import cosine


@dataclass(frozen=True)
class Run:
    """One training: its settings, where it is kept, and what it is called in messages."""

    name: str
    folder: Path
    settings: Fgcr  # with the epochs and terms of this run
    toggles: FgcrToggles
    seed: int
    lines: int = 5  # of progress


def build_model(archive: Archive, run: Run) -> FGCRModel:
    """The model with weights drawn from the run's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("fgcr", run.seed))
        return FGCRModel(archive.features, archive.tokenizer, run.settings, run.toggles)


def hidden_words(batch: Batch, share: float) -> Tensor:
    """A draw of the words that are hidden, (B, T) bool: each with probability ``share``, of torch's generator."""
    return batch.words & (torch.rand(batch.words.shape, device=batch.words.device) < share)


def make_step(settings: Fgcr, toggles: FgcrToggles) -> Callable[[Batch, nn.Module], Tensor]:
    """The trainer's step: the weighted loss of a batch."""

    def step(batch: Batch, model: nn.Module) -> Tensor:
        hide = hidden_words(batch, settings.hide)
        output = model(batch, hide if settings.loss.masked.used else None)
        return weighted(terms(output, batch, hide, settings, toggles), settings)

    return step


def learning_rate(step: int, steps: int, settings: Fgcr, schedule: str) -> float:
    """The rate of a step, of ``steps`` an epoch: a cosine that falls once, or by epochs, down and up again.

    "rising_again" is torch's CosineAnnealingLR as the released code steps it: its T_max is ``fall`` of the epochs, and
    it goes on after that, so that the rate is back at its start after twice as many.
    """
    high, low = settings.lr, settings.lr_min
    if schedule == "once":
        return cosine(step / max(settings.epochs * steps - 1, 1), high, low)
    return cosine(step // steps / max(int(settings.fall * settings.epochs), 1), high, low)


def recipe(run: Run) -> Recipe:
    """Adam, as in the released code, in float32 or the run's precision; gradients are not clipped."""
    return Recipe(
        name="fgcr",
        title=f"FGCR {run.name}",
        lr_key="fgcr.lr",
        epochs=run.settings.epochs,
        batch_size=run.settings.batch_size,
        rate=partial(learning_rate, settings=run.settings, schedule=run.toggles.schedule),
        optimizer=partial(torch.optim.Adam, lr=run.settings.lr),
        float32=(),
        collate=collate,
        unit="slides",
        lines=run.lines,
    )


def fingerprint(study: Study, archive: Archive, run: Run) -> str:
    """Hash of everything that a run's weights depend on."""
    return sha256_json(
        {
            "system": "fgcr",
            "seed": run.seed,
            "settings": run.settings.model_dump(mode="json", exclude={"toggles", "compared_epochs", "k"}),
            "toggles": run.toggles.model_dump(mode="json"),
            "data": sha256_table(archive.table),
            **study.computed_by(__name__),
        }
    )


def freeze_unreached(model: FGCRModel, batch: Batch, step: Callable) -> None:
    """Leave weights out of training that the loss does not reach: those of a term that is off, say.

    The optimiser would hold no state for them, and a checkpoint could not tell that from a damaged one.
    """
    with torch.random.fork_rng(devices=[]):
        step(batch, model).backward()
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.grad is not None)
    model.zero_grad(set_to_none=True)


def train(study: Study, archive: Archive, run: Run, fabric: Fabric | None = None) -> TrainedRun:
    """Train a run, kept in its folder; what is done is not done again.

    Slides are contrasted within a batch: ``RequestError`` where several processes would share one.
    """
    fabric = fabric or make_fabric(study)
    if fabric.world_size > 1:
        raise RequestError("fgcr: slides are compared within a batch; train it in one process.")
    identity = fingerprint(study, archive, run)

    def compute() -> tuple[dict, list[dict]]:
        check_unchanged(study, "reports")
        model, items, step = build_model(archive, run), archive.items("train"), make_step(run.settings, run.toggles)
        freeze_unreached(model, collate(items[: run.settings.batch_size]), step)
        trainer = Trainer(fabric, recipe(run), {"model": model}, step, run.seed)
        history = trainer.fit(Slides(items), run.folder, identity, study.params.compute)
        return model.state_dict(), history

    return train_once(fabric, run.folder, identity, compute)


def trained_model(study: Study, archive: Archive, run: Run) -> FGCRModel:
    """The model with its trained weights, in eval mode; it is trained if that has not been done yet."""
    weights = train(study, archive, run).weights
    model = build_model(archive, run)
    model.load_state_dict(load_tensors(weights)[0])
    return model.eval()


@torch.no_grad()
def outputs(study: Study, model: FGCRModel, items: list[Batch], batch_size: int = 32) -> list[Output]:
    """What a trained model says of each item, without the padding of its batch: an ``Output`` each, without B."""
    device, found = prepare_device(study.params.compute), []
    model = model.to(device).eval()
    for start in range(0, len(items), batch_size):
        some = items[start : start + batch_size]
        output = model(Batch(*(tensor.to(device) for tensor in collate(some))))
        found += [alone(output, row, one) for row, one in enumerate(some)]
    return found


def alone(output: Output, row: int, item: Batch) -> Output:
    """One slide's part of a batch's output, on the CPU."""
    anchors, patches = len(item.anchors), len(item.patches)
    whole = {
        name: None if value is None else (value if name == "prompts" else value[row]).float().cpu()
        for name, value in output._asdict().items()
    }
    sizes = dict.fromkeys(("anchors", "words_of_anchors"), anchors)
    sizes |= dict.fromkeys(("words", "anchors_of_words"), len(item.words))
    whole |= {name: whole[name][:size] for name, size in sizes.items()}
    return Output(**whole | {"attention": whole["attention"][:, :anchors, :patches]})


def vectors(model: FGCRModel, found: list[Output]) -> tuple[np.ndarray, np.ndarray]:
    """The vectors of slides and of reports that are searched, of length 1: (N, d) float32 each."""
    pairs = [model.searched(output) for output in found]
    both = (torch.stack(side) for side in zip(*pairs, strict=True))
    return tuple(torch.nn.functional.normalize(side, dim=1).numpy() for side in both)
