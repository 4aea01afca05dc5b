"""One strategy of one variant and seed: from the parameters to trained weights on disk."""

from functools import partial
from pathlib import Path

import pandas as pd
import torch
from lightning_fabric import Fabric

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.base.files import sha256_file, sha256_json, sha256_table
from lgffem_core.base.tensors import load_tensors
from lgffem_core.config.params import Params
from lgffem_core.config.study import CURRICULUM, Study
from lgffem_core.data import channel_order, check_unchanged, patch_table
from lgffem_core.data.loading import PatchDataset
from lgffem_core.model.features import kept_features
from lgffem_core.model.weights import start_hash
from lgffem_core.systems.lgffem.augmentation import training_augment
from lgffem_core.systems.lgffem.model import LGFFEM, build_model
from lgffem_core.systems.lgffem.released import load_released
from lgffem_core.training.fabric import make_fabric
from lgffem_core.training.finished import TrainedRun, read_finished, train_once
from lgffem_core.training.launch import asks_for_several, launch
from lgffem_core.training.loop import Recipe, Trainer, labelled_images
from lgffem_core.training.losses import LOSSES
from lgffem_core.training.patches import training_patches, training_set
from lgffem_core.training.schedule import learning_rate


def starts_from(study: Study, strategy: str) -> str | None:
    """The strategy whose neck and head this one starts from; None for A, and where weights are given."""
    given = getattr(study.params.training, strategy).checkpoint
    return None if given else study.parent(strategy)


def trained_here(study: Study, strategy: str) -> list[str]:
    """The strategies that this run trains for a model: from itself back to the first that is given as a file."""
    chain = []
    while strategy and getattr(study.params.training, strategy).checkpoint is None:
        chain.append(strategy)
        strategy = starts_from(study, strategy)
    return chain


def strategy_fingerprint(study: Study, strategy: str, variant: str, seed: int, before: str | None = None) -> str:
    """Hash of everything that the weights of a strategy depend on, the strategies before it included.

    ``before`` is the hash of the one that it starts from, where that is known already.
    """
    params = study.params
    dataset, parent = CURRICULUM[strategy][0], starts_from(study, strategy)
    training = params.training.model_dump(mode="json", exclude=set(CURRICULUM) - {strategy})
    checkpoint = study.resolve(training[strategy]["checkpoint"])
    return sha256_json(
        {
            "strategy": strategy,
            "seed": seed,
            "variant": vars(study.variant(variant)),
            "model": params.model.model_dump(mode="json", exclude={"backbone": {"weights"}, "toggles": True}),
            "backbone": start_hash(study, "model.backbone", params.model.backbone.name),
            "training": training,
            "released": checkpoint and sha256_file(checkpoint),
            "data": sha256_table(training_set(study, dataset)),
            "order": channel_order(study, dataset),
            **study.computed_by(__name__),
            "parent": parent and (before or strategy_fingerprint(study, parent, variant, seed)),
        }
    )


def train_or_load(study: Study, strategy: str, variant: str, seed: int) -> LGFFEM:
    """The model with a strategy's trained weights, training whatever is not trained yet."""
    return with_weights(study, variant, seed, train_strategy(study, strategy, variant, seed).weights)


def with_weights(study: Study, variant: str, seed: int, weights: Path) -> LGFFEM:
    """The model with the neck and head that a training left in a file, in eval mode."""
    model = build_model(study, variant, seed)
    model.load_trainable_state(load_tensors(weights)[0])
    return model.eval()


def train_strategy(study: Study, strategy: str, variant: str, seed: int, fabric: Fabric | None = None) -> TrainedRun:
    """Train strategy "a", "b" or "c", after the ones it starts from; what is done is not done again.

    It is kept in ``study.checkpoints(strategy, variant, seed)``; an interrupted run goes on from its last checkpoint.
    """
    dataset, parent = CURRICULUM[strategy][0], starts_from(study, strategy)
    if fabric is None and type(study) is Study and asks_for_several(study):  # the ledger's short ones take one process
        train_in_processes(study, strategy, variant, seed)
    fabric = fabric or make_fabric(study)
    if fabric.global_rank == 0:
        patch_table(study, dataset)  # one process prepares the data, the others then read its table
    fabric.barrier()
    table, recipe = training_set(study, dataset), strategy_recipe(study.params, strategy, study.title(strategy))
    released, settings = study.resolve(getattr(study.params.training, strategy).checkpoint), study.variant(variant)
    if not released:  # refused before those that it starts from are trained
        check_last_batch(recipe, len(table), fabric.world_size, settings.head_norm)
    start = train_strategy(study, parent, variant, seed, fabric) if parent else None
    identity = strategy_fingerprint(study, strategy, variant, seed, start and start.fingerprint)
    folder = study.checkpoints(strategy, variant, seed)

    def train() -> tuple[dict, list[dict]]:
        model = build_model(study, variant, seed)
        if released:
            load_released(model, released)
            return model.trainable_state(), []
        if start:
            model.load_trainable_state(load_tensors(start.weights)[0])
        check_unchanged(study, dataset)
        if fabric.world_size > 1 and settings.head_norm and fabric.device.type == "cpu":
            raise RequestError("toggles.head_norm: BatchNorm cannot be shared between CPU processes; use one process.")
        torch.manual_seed(seed)  # of the class centers' first values
        size, loss = 4 * study.params.model.neck.channels, study.params.training.loss
        parts = {"model": model, "loss": LOSSES[loss.name](loss, table["label_id"].max() + 1, size, settings)}
        patches = strategy_patches(study, strategy, variant, seed, model, table)
        trainer = Trainer(fabric, recipe, parts, labelled_images, seed)
        with kept_features(study):  # another variant, or row of the ledger, trains on the same batches
            history = trainer.fit(patches, folder, identity, study.params.compute)
        return model.trainable_state(), history

    return train_once(fabric, folder, identity, train)


def train_in_processes(study: Study, strategy: str, variant: str, seed: int) -> None:
    """Have several processes train what of a strategy and those before it is not trained yet; ``StudyError`` if not."""
    if not trained_here(study, strategy):
        return
    folder, identity = study.checkpoints(strategy, variant, seed), strategy_fingerprint(study, strategy, variant, seed)
    if read_finished(folder, identity) is None:
        words = ["--strategy", strategy, "--variant", variant, "--seed", str(seed)]
        title, log = study.title(strategy), folder / "torchrun.log"
        launch(study, "lgffem_core.systems.lgffem", words, title, log)
        if read_finished(folder, identity) is None:
            raise StudyError(f"{folder}: the weights that {title}'s processes left are of other parameters or data.")


def strategy_patches(
    study: Study, strategy: str, variant: str, seed: int, model: LGFFEM | None = None, table: pd.DataFrame | None = None
) -> PatchDataset:
    """The images that a strategy trains on, augmented, and normalised for the backbone; all, or those of ``table``."""
    dataset, augment = CURRICULUM[strategy][0], training_augment(strategy, study.params.model.image_size)
    backbone = (model or build_model(study, variant, seed)).backbone
    table = training_set(study, dataset) if table is None else table
    return training_patches(study, dataset, table, augment, backbone, seed)


def check_last_batch(recipe: Recipe, images: int, processes: int, head_norm: bool) -> None:
    """``RequestError`` where an epoch's incomplete last batch is too small: for the processes, or for BatchNorm."""
    last = 0 if recipe.drop_last or images < recipe.batch_size else images % recipe.batch_size
    if 0 < last < max(processes, 2 if head_norm else 1):
        raise RequestError(
            f"training.{recipe.name}: the last batch of an epoch has {last} of {recipe.batch_size} images, too few for "
            f"{'BatchNorm' if processes == 1 else f'{processes} processes'}; set training.{recipe.name}.drop_last=true."
        )


def strategy_recipe(params: Params, strategy: str, title: str = "") -> Recipe:
    """How strategy "a", "b" or "c" is trained (paper, section 4.1.3): AdamW, at a fixed rate for the class centers.

    ``title`` is what lines of progress and errors call it.
    """
    training, settings = params.training, getattr(params.training, strategy)
    high = settings.lr or training.lr
    decay = {"weight_decay": training.weight_decay, "amsgrad": settings.amsgrad}

    def rate(step: int, steps: int) -> float:
        low, total = min(training.lr_min, high), settings.epochs * steps
        return learning_rate(step, total, steps, high, low, training.schedule, training.restart_epochs)

    return Recipe(
        name=strategy,
        title=title,
        lr_key="training.lr",
        epochs=settings.epochs,
        batch_size=training.batch_size,
        drop_last=settings.drop_last,
        rate=rate,
        optimizer=partial(torch.optim.AdamW, lr=training.lr, **decay),
        settings={"loss": {"lr": training.loss.lr, "weight_decay": 1e-2, "amsgrad": False}},  # AdamW's own
        clip_norm=training.clip_norm,
    )
