"""The trainings of SMSE: metric loss, classification loss and magnifications vary, everything else is one recipe.

A training is known by its ``Run`` and its fold. Of each fold the patients that are not tested are trained on, and the
network and its classifier are kept together.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from lgffem_core.base.files import sha256_file, sha256_json, sha256_table, write_json
from lgffem_core.base.tensors import load_tensors
from lgffem_core.config.study import Study
from lgffem_core.data import channel_order, check_unchanged, patch_table
from lgffem_core.data.augment import flips_and_colours
from lgffem_core.model.device import prepare_device
from lgffem_core.systems.smse.losses import Classification, class_weights, metric_loss
from lgffem_core.systems.smse.network import EmbeddingNet, build_classifier, build_network
from lgffem_core.systems.smse.runs import Run, seen_words
from lgffem_core.systems.smse.sampling import Groups
from lgffem_core.systems.smse.splits import DATASET, check_last_batch, training_rows
from lgffem_core.training.fabric import make_fabric
from lgffem_core.training.finished import TrainedRun, train_once
from lgffem_core.training.loop import Recipe, Trainer
from lgffem_core.training.patches import training_patches
from lgffem_core.training.schedule import step_decay


def groups(study: Study, run: Run, rows: pd.DataFrame, network: EmbeddingNet, seed: int, shown=None) -> Groups:
    """The pairs or triplets that a run is trained on; ``shown``: see ``Groups``."""
    settings = study.params.smse
    transform = flips_and_colours(*settings.image_size, settings.jitter)
    return training_patches(study, DATASET, rows, transform, network, seed, Groups).of_kind(run.metric, shown)


class JointLoss(nn.Module):
    """Metric loss of groups plus the classification of their anchors: ``metric_weight`` to 1."""

    def __init__(self, study: Study, run: Run, labels: Tensor):
        super().__init__()
        settings = study.params.smse
        classes = int(labels.max()) + 1
        self.kind, self.margin, self.weight = run.metric, settings.margin, settings.metric_weight
        self.classification = Classification(
            run.classification, settings, class_weights(labels, classes), run.gamma(settings)
        )

    def forward(self, embeddings: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """Embeddings (N, K, D), logits (N, C) of the anchors, labels (N, K)."""
        return self.weight * metric_loss(self.kind, embeddings, labels, self.margin) + self.classification(
            logits, labels[:, 0]
        )


def step(batch: tuple, model: nn.Module, classifier: nn.Module, loss: nn.Module) -> Tensor:
    """The step of a batch of groups: all their images are embedded, the anchors are classified."""
    images, labels, _ = batch  # (N, K, 3, H, W), (N, K)
    embeddings = model(images.flatten(0, 1)).unflatten(0, images.shape[:2])
    return loss(embeddings, classifier(embeddings[:, 0]), labels)


def recipe(study: Study, run: Run, images: int, of_all: int) -> Recipe:
    """Adam and StepLR. A run on fewer ``images`` than ``of_all`` goes through them more often: as many steps for each.

    So what differs between runs is what they see, and not how long they are trained.
    """
    settings, every = study.params.smse, study.params.data.breakhis.magnifications
    epochs = max(1, round(settings.epochs * of_all / images))

    def rate(step: int, steps: int) -> float:
        passed = step * settings.epochs // (epochs * steps)  # as epochs of the run on all
        return step_decay(passed, settings.lr, settings.step_epochs)

    return Recipe(
        name=run.folder,
        title=f"SMSE, {run.losses}, trained on {seen_words(run.magnifications, every)}",
        lr_key="smse.lr",
        epochs=epochs,
        batch_size=settings.batch_size,
        rate=rate,
        optimizer=partial(torch.optim.Adam, lr=settings.lr),
        drop_last=False,
        unit="anchors",
        lines=2,
    )


def folder_of(study: Study, run: Run, fold: int, seed: int) -> Path:
    """Where a run is kept."""
    return study.artifacts / "smse" / f"seed{seed}" / run.folder / f"fold{fold}"


def fingerprint(study: Study, run: Run, rows: pd.DataFrame, plan: Recipe, seed: int) -> str:
    """Hash of everything that the trained weights depend on."""
    settings = study.params.smse.model_dump(mode="json", exclude={"single", "held_out", "folds"})
    return sha256_json(
        {
            "run": run,
            "seed": seed,
            "settings": {**settings, "epochs": [settings["epochs"], plan.epochs]},
            "data": sha256_table(rows),
            "order": channel_order(study, DATASET),
            **study.computed_by(__name__),
        }
    )


def train(study: Study, run: Run, fold: int, seed: int, shown=None) -> TrainedRun:
    """Train one run on one fold, or find it finished; an interrupted one goes on from its last checkpoint.

    ``shown``: augmented images that trainings share, of which those that differ in their losses see the same.
    """
    fabric, rows = make_fabric(study), training_rows(study, run, fold)
    check_last_batch(study, run, len(rows))
    every = run._replace(magnifications=tuple(study.params.data.breakhis.magnifications))
    plan = recipe(study, run, len(rows), len(training_rows(study, every, fold)))
    plan = replace(plan, title=f"{plan.title}, fold {fold}")
    identity, folder = fingerprint(study, run, rows, plan, seed), folder_of(study, run, fold, seed)

    def fitted() -> tuple[dict, list[dict]]:
        check_unchanged(study, DATASET)
        model, classifier = networks(study, seed)
        loss = JointLoss(study, run, torch.tensor(rows["label_id"].to_numpy()))
        parts = {"model": model, "classifier": classifier, "loss": loss}
        patches = groups(study, run, rows, model, seed, shown)
        trainer = Trainer(fabric, plan, parts, step, seed)
        history = trainer.fit(patches, folder, identity, study.params.compute)
        return trainer.state(), history

    return train_once(fabric, folder, identity, fitted)


def train_all(study: Study, chosen: dict[str, Run], seed: int) -> pd.DataFrame:
    """Train every run on every fold of ``smse.folds``, and note what was trained: a row for each.

    The note, ``smse/runs.json``, holds the SHA-256 of each file of weights, so that a changed one is found.
    """
    rows, noted, shown = [], {}, {}
    for name, run in chosen.items():
        for fold in study.params.smse.folds:
            done = train(study, run, fold, seed, shown=shown)
            noted[done.weights.relative_to(study.artifacts).as_posix()] = sha256_file(done.weights)
            count, last = len(training_rows(study, run, fold)), done.history.iloc[-1]
            row = {"run": name, "losses": run.losses, "magnifications": ", ".join(map(str, run.magnifications))}
            rows.append(row | {"fold": fold, "images": count, "epochs": int(last["epoch"]), "last loss": last["loss"]})
    write_json(study.kept("smse", "runs.json"), noted)
    return pd.DataFrame(rows)


def networks(study: Study, seed: int) -> tuple[EmbeddingNet, nn.Module]:
    """Network and classifier with the weights that a training starts from."""
    prepare_device(study.params.compute)
    settings = study.params.smse
    classes = patch_table(study, DATASET)["label_id"].nunique()
    return build_network(settings, seed), build_classifier(settings, classes, seed)


def trained(study: Study, run: Run, fold: int, seed: int) -> tuple[EmbeddingNet, nn.Module]:
    """Network and classifier with their trained weights, in eval mode, trained first where that is not done."""
    state = load_tensors(train(study, run, fold, seed).weights)[0]
    parts = dict(zip(("model", "classifier"), networks(study, seed), strict=True))
    for part, module in parts.items():
        start = f"{part}/"
        module.load_state_dict({k.removeprefix(start): v for k, v in state.items() if k.startswith(start)})
        module.eval()
    return parts["model"], parts["classifier"]
