"""One strategy of one variant and seed: from the parameters to trained weights on disk."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.base.files import sha256_file, sha256_json, write_text
from lgffem_core.base.progress import emit
from lgffem_core.base.tensors import load_tensors, read_header, save_tensors
from lgffem_core.config.code_version import code_hash, lock_hash
from lgffem_core.config.params import Params
from lgffem_core.config.study import CURRICULUM, Study
from lgffem_core.data import channel_order, check_unchanged, images_root, patch_table
from lgffem_core.data.augment import training_augment
from lgffem_core.data.loading import PatchDataset
from lgffem_core.model.device import prepare_device
from lgffem_core.model.weights import start_hash
from lgffem_core.systems.lgffem.model import LGFFEM, build_model
from lgffem_core.systems.lgffem.released import load_released
from lgffem_core.training.loop import Recipe, Trainer
from lgffem_core.training.losses import sub_center_arcface
from lgffem_core.training.schedule import learning_rate


@dataclass(frozen=True)
class TrainedStrategy:
    """What a training run left: its weights (of LGFFEM neck and head) and the loss curve."""

    weights: Path
    history: pd.DataFrame  # epoch, loss, lr
    fingerprint: str


def make_fabric(study: Study) -> Fabric:
    """Device, precision and, under torchrun, the processes of a run."""
    device, precision = prepare_device(study.params.compute), study.params.compute.precision
    if precision == "auto":
        fast = "bf16-mixed" if device == "cuda" and torch.cuda.is_bf16_supported() else "16-mixed"
        precision = fast if device == "cuda" else "32-true"
    here, everywhere = (int(os.environ.get(name, 1)) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))  # of torchrun
    fabric = Fabric(
        accelerator=device,
        devices=here,
        num_nodes=everywhere // here,
        strategy="ddp" if everywhere > 1 else "auto",
        plugins=MixedPrecision(precision, device) if precision != "32-true" else None,
    )
    fabric.launch()
    return fabric


def training_set(study: Study, dataset: str) -> pd.DataFrame:
    """The rows of a data set that a strategy trains on, with sample ids 0, 1, …"""
    table = patch_table(study, dataset)
    return table[table["split"] == "train"].reset_index(drop=True)


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


def strategy_fingerprint(study: Study, strategy: str, variant: str, seed: int) -> str:
    """Hash of everything that the weights of a strategy depend on, the strategies before it included."""
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
            "compute": {"precision": params.compute.precision, "threads": params.compute.threads},
            "data": sha256_json(training_set(study, dataset).to_dict("list")),
            "order": channel_order(study, dataset),
            "code": code_hash("import lgffem_core.systems.lgffem.strategies"),
            "lock": lock_hash(),
            "parent": parent and strategy_fingerprint(study, parent, variant, seed),
        }
    )


def train_or_load(study: Study, strategy: str, variant: str, seed: int) -> LGFFEM:
    """The model with a strategy's trained weights, training whatever is not trained yet."""
    trained = train_strategy(study, strategy, variant, seed)
    model = build_model(study, variant, seed)
    tensors, _ = load_tensors(trained.weights)
    model.load_trainable_state(tensors)
    return model.eval()


def train_strategy(
    study: Study, strategy: str, variant: str, seed: int, fabric: Fabric | None = None
) -> TrainedStrategy:
    """Train strategy "a", "b" or "c", after the ones it starts from; what is done is not done again.

    Weights go to ``model.safetensors`` and the loss curve to ``history.csv`` in
    ``study.checkpoints(strategy, variant, seed)``. An interrupted run goes on from its last checkpoint.
    """
    dataset, parent = CURRICULUM[strategy][0], starts_from(study, strategy)
    fabric = fabric or make_fabric(study)
    if fabric.global_rank == 0:
        patch_table(study, dataset)  # one process prepares the data, the others then read its table
    fabric.barrier()
    table = training_set(study, dataset)
    released = study.resolve(getattr(study.params.training, strategy).checkpoint)
    if not released:  # refused before those that it starts from are trained
        recipe = strategy_recipe(study.params, strategy)
        check_last_batch(recipe, len(table), fabric.world_size, study.variant(variant).head_norm)
    start = train_strategy(study, parent, variant, seed, fabric).weights if parent else None
    identity = strategy_fingerprint(study, strategy, variant, seed)
    folder = study.checkpoints(strategy, variant, seed)
    done = read_finished(folder, identity, writer=fabric.global_rank == 0)
    if done:
        return done
    model = build_model(study, variant, seed)
    if released:
        load_released(model, released)
        history = []
    else:
        if start:
            model.load_trainable_state(load_tensors(start)[0])
        history = fit(fabric, study, strategy, variant, seed, model, table, identity)
    if fabric.global_rank == 0:
        write_finished(folder, model, history, identity)
    fabric.barrier()
    return read_back(folder, identity)


def training_patches(study: Study, strategy: str, table: pd.DataFrame, model: LGFFEM, seed: int) -> PatchDataset:
    """The images of ``table`` as ``strategy`` trains on them: augmented, and normalised for the backbone."""
    dataset = CURRICULUM[strategy][0]
    return PatchDataset(
        table,
        images_root(study, dataset),
        training_augment(strategy, study.params.model.image_size),
        model.backbone.mean,
        model.backbone.std,
        channel_order(study, dataset),
        seed,
    )


def strategy_patches(study: Study, strategy: str, variant: str, seed: int) -> PatchDataset:
    """The training images of a strategy, for looking at them."""
    model = build_model(study, variant, seed)
    return training_patches(study, strategy, training_set(study, CURRICULUM[strategy][0]), model, seed)


def fit(
    fabric: Fabric,
    study: Study,
    strategy: str,
    variant: str,
    seed: int,
    model: LGFFEM,
    table: pd.DataFrame,
    identity: str,
) -> list[dict]:
    """Train ``model`` in place on ``table``; returns the history of epochs."""
    check_unchanged(study, CURRICULUM[strategy][0])
    settings = study.variant(variant)
    if fabric.world_size > 1 and settings.head_norm and fabric.device.type == "cpu":
        raise RequestError("toggles.head_norm: BatchNorm cannot be shared between CPU processes; use one process.")
    recipe = strategy_recipe(study.params, strategy)
    torch.manual_seed(seed)  # of the class centers' first values
    loss = sub_center_arcface(
        study.params.training.loss,
        table["label_id"].max() + 1,
        4 * study.params.model.neck.channels,
        settings,
    )
    patches = training_patches(study, strategy, table, model, seed)
    trainer = Trainer(fabric, recipe, model, loss, seed)
    return run_trainer(trainer, patches, study.checkpoints(strategy, variant, seed), identity, study.params)


def check_last_batch(recipe: Recipe, images: int, processes: int, head_norm: bool) -> None:
    """``RequestError`` where an epoch's incomplete last batch is too small: for the processes, or for BatchNorm."""
    last = 0 if recipe.drop_last or images < recipe.batch_size else images % recipe.batch_size
    if 0 < last < max(processes, 2 if head_norm else 1):
        raise RequestError(
            f"training.{recipe.name}: the last batch of an epoch has {last} of {recipe.batch_size} images, too few for "
            f"{'BatchNorm' if processes == 1 else f'{processes} processes'}; set training.{recipe.name}.drop_last=true."
        )


def strategy_recipe(params: Params, strategy: str) -> Recipe:
    """How strategy "a", "b" or "c" is trained (paper, section 4.1.3): AdamW, at a fixed rate for the class centers."""
    training, settings = params.training, getattr(params.training, strategy)
    high = settings.lr or training.lr
    decay = {"weight_decay": training.weight_decay, "amsgrad": settings.amsgrad}

    def rate(step: int, steps: int) -> float:
        low, total = min(training.lr_min, high), settings.epochs * steps
        return learning_rate(step, total, steps, high, low, training.schedule, training.restart_epochs)

    return Recipe(
        name=strategy,
        title=f"strategy {strategy.upper()}",
        lr_key="training.lr",
        epochs=settings.epochs,
        batch_size=training.batch_size,
        drop_last=settings.drop_last,
        rate=rate,
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=training.lr, **decay),
        loss_settings={"lr": training.loss.lr, "weight_decay": 1e-2, "amsgrad": False},  # AdamW's own
        clip_norm=training.clip_norm,
    )


def run_trainer(trainer: Trainer, patches: PatchDataset, folder: Path, identity: str, params: Params) -> list[dict]:
    """Train to the end, telling whoever listens when it begins and ends; returns the history of epochs."""
    name, began = trainer.recipe.name, time.monotonic()
    emit("training", strategy=name, images=len(patches), classes=max(patches.labels) + 1)
    history = trainer.fit(patches, folder, identity, params.compute)
    emit("trained", strategy=name, seconds=time.monotonic() - began)
    return history


def write_finished(folder: Path, model: torch.nn.Module, history: list[dict], identity: str) -> None:
    """Write the loss curve, then the weights, whose presence says that the run is finished.

    The weights' header holds the curve too: ``history.csv`` is a copy for readers.
    """
    write_text(folder / "history.csv", history_csv(history))
    save_tensors(folder / "model.safetensors", model.trainable_state(), {"fingerprint": identity, "history": history})


def history_table(history: list[dict]) -> pd.DataFrame:
    """The loss curve as a table: epoch, loss, lr."""
    return pd.DataFrame(history, columns=["epoch", "loss", "lr"])


def history_csv(history: list[dict]) -> str:
    """The text of ``history.csv``; its numbers read back to the last bit."""
    return history_table(history).to_csv(index=False)


def read_finished(folder: Path, identity: str, writer: bool = True) -> TrainedStrategy | None:
    """The finished run in ``folder`` if it is the one that ``identity`` names, or None.

    Damaged weights are named and count as not finished; the last checkpoint, or training, makes them again.
    A ``history.csv`` that is not what the weights' header says is named and written again by one of
    the processes, the ``writer``.
    """
    weights, csv = folder / "model.safetensors", folder / "history.csv"
    header = read_header(weights, "Making it again from the last checkpoint.")
    if header is None or header.get("fingerprint") != identity:
        return None
    text = history_csv(header["history"])
    if writer and not (csv.is_file() and csv.read_bytes() == text.encode()):
        print(f"{csv}: is missing or was changed; written again from {weights.name}.")
        write_text(csv, text)
    return TrainedStrategy(weights, history_table(header["history"]), identity)


def read_back(folder: Path, identity: str) -> TrainedStrategy:
    """The finished run that was written just now; ``StudyError`` where the disk gives back something else."""
    finished = read_finished(folder, identity, writer=False)
    if finished is None:
        raise StudyError(f"{folder}: the weights that were just written cannot be read back; check the disk.")
    return finished
