"""From patches to embeddings, and their file."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from lgffem_core.base.tensors import load_tensors, save_tensors
from lgffem_core.config.study import Study
from lgffem_core.data import channel_order, images_root
from lgffem_core.data.augment import Augment, evaluation_resize
from lgffem_core.data.loading import PatchDataset, evaluation_loader
from lgffem_core.model.device import prepare_device


class Inputs(NamedTuple):
    """How a network wants its images."""

    transform: Augment
    mean: tuple[float, float, float]  # of images in [0, 1]
    std: tuple[float, float, float]


def resized_inputs(study: Study, model: torch.nn.Module) -> Inputs:
    """Images of model.image_size, with the statistics of the model's backbone, or of the model that is one."""
    owner = getattr(model, "backbone", model)
    return Inputs(evaluation_resize(study.params.model.image_size), owner.mean, owner.std)


@torch.no_grad()
def embed_table(
    study: Study, dataset: str, table: pd.DataFrame, model: torch.nn.Module, inputs: Inputs | None = None
) -> np.ndarray:
    """The embeddings of a PatchTable's rows, in its order: (N, D) float32.

    ``model`` maps images (N, 3, S, S) to (N, D). Without ``inputs`` they are resized to model.image_size and
    normalised by ``backbone.mean`` and ``.std`` of the model. It runs on the GPU where there is one, in
    float32 and not TF32: what is measured does not depend on the training precision.
    """
    params, device = study.params, prepare_device(study.params.compute)
    model = model.to(device).eval()
    patches = PatchDataset(
        table.reset_index(drop=True),
        images_root(study, dataset),
        *(inputs or resized_inputs(study, model)),
        channel_order(study, dataset),
    )
    loader = evaluation_loader(patches, params.retrieval.batch_size, params.compute.workers)
    batches = [model(images.to(device)).float().cpu().numpy() for images, _, _ in loader]
    return np.concatenate(batches)


def save_embeddings(path: Path, table: pd.DataFrame, embeddings: np.ndarray, header: dict) -> None:
    """Write embeddings with the labels of their patches; the header says what made them."""
    labels = torch.tensor(table["label_id"].tolist(), dtype=torch.int64)
    test = torch.tensor((table["split"] == "test").tolist())
    save_tensors(path, {"embeddings": torch.from_numpy(embeddings), "labels": labels, "test": test}, header)


def load_embeddings(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(embeddings (N, D) float32, labels (N,) int64, test (N,) bool) from ``save_embeddings``' file."""
    tensors, _ = load_tensors(path)
    return tuple(tensors[name].numpy() for name in ("embeddings", "labels", "test"))
