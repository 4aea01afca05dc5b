"""From images to vectors: the one loop that embeds, for every system, data set and purpose."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lgffem_core.config.study import Study
from lgffem_core.data import channel_order, images_root
from lgffem_core.data.augment import Augment
from lgffem_core.data.loading import PatchDataset, evaluation_loader, normalise
from lgffem_core.data.pixels import kept_pixels
from lgffem_core.model.compiled import compile_for
from lgffem_core.model.device import autocast, precision_of, prepare_device
from lgffem_core.model.features import kept_features


@dataclass(frozen=True)
class Encoder:
    """What turns images into vectors.

    Args:
        label: its name in tables.
        identity: hash of what the vectors depend on, apart from the images and from how they are read.
        network: gives the module, images (N, 3, S, S) -> (N, D); called only where something must be computed. The
            module, or its ``backbone``, has ``mean`` and ``std``, the statistics of its inputs for images in [0, 1].
        transform: what an image goes through first.
    """

    label: str
    identity: str
    network: Callable[[], nn.Module]
    transform: Augment


def embed(
    network: nn.Module,
    batches: Iterable[Tensor],
    device: str | torch.device,
    precision: str = "32-true",
    features: Callable[[], AbstractContextManager] = nullcontext,
) -> np.ndarray:
    """The embeddings of normalised images, batch by batch, in eval mode: (N, D) float32.

    ``features()``: inside, a frozen backbone's maps are kept for whoever embeds the same images next.
    """
    with features():
        return torch.cat(list(embed_each(network, batches, device, precision))).cpu().numpy()


def embed_each(
    network: nn.Module, batches: Iterable[Tensor], device: str | torch.device, precision: str = "32-true"
) -> Iterator[Tensor]:
    """The same a batch at a time, (n, D) float32 on ``device``, for more images than fit into memory."""
    network = network.to(device).eval()
    for images in batches:
        with torch.no_grad(), autocast(device, precision):
            found = network(images.to(device, non_blocking=True)).float()
        yield found


def input_statistics(network: nn.Module) -> tuple[tuple, tuple]:
    """Mean and standard deviation of a network's inputs, its own or its backbone's."""
    owner = getattr(network, "backbone", network)
    return owner.mean, owner.std


def embed_table(study: Study, dataset: str, table: pd.DataFrame, encoder: Encoder) -> np.ndarray:
    """The embeddings of a PatchTable's rows, in its order: (N, D) float32.

    It runs on the GPU where there is one, in the precision of training (``precision_of``).
    """
    params, device, network = study.params, prepare_device(study.params.compute), encoder.network()
    table, pixels = table.reset_index(drop=True), kept_pixels(study, dataset, table, encoder.transform)
    root, order, statistics = images_root(study, dataset), channel_order(study, dataset), input_statistics(network)
    patches = PatchDataset(table, root, encoder.transform, *statistics, order, pixels=pixels)
    even = compile_for(params.compute, len(table), network)  # for one size of batch
    loader = evaluation_loader(patches, params.retrieval.batch_size, params.compute.workers, even)
    images = (images for images, _, _ in loader)
    return embed(network, images, device, precision_of(params.compute), partial(kept_features, study))[: len(table)]


def embed_images(
    encoder: Encoder,
    images: Sequence[np.ndarray],
    batch_size: int = 32,
    device: str = "cpu",
    precision: str = "32-true",
    features: Callable[[], AbstractContextManager] = nullcontext,
) -> np.ndarray:
    """The embeddings of images in memory, uint8 (H, W, 3) RGB: (N, D) float32."""
    network = encoder.network()
    mean, std = input_statistics(network)
    batches = (images[start : start + batch_size] for start in range(0, len(images), batch_size))
    tensors = (torch.stack([normalise(encoder.transform(i, 0), mean, std) for i in batch]) for batch in batches)
    return embed(network, tensors, device, precision, features)
