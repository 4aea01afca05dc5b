"""The patches of a data set that a run trains on."""

import pandas as pd

from lgffem_core.config.study import Study
from lgffem_core.data import channel_order, images_root, patch_table
from lgffem_core.data.augment import Augment
from lgffem_core.data.loading import PatchDataset
from lgffem_core.data.pixels import kept_pixels


def training_set(study: Study, dataset: str) -> pd.DataFrame:
    """The rows of a data set that are trained on, with sample ids 0, 1, …"""
    table = patch_table(study, dataset)
    return table[table["split"] == "train"].reset_index(drop=True)


def training_patches(
    study: Study, dataset: str, table: pd.DataFrame, transform: Augment, network, seed: int, kind=PatchDataset
) -> PatchDataset:
    """The images of ``table``'s rows, transformed, and normalised by ``mean`` and ``std`` of the network.

    ``kind``: a subclass, which serves them otherwise.
    """
    root, order = images_root(study, dataset), channel_order(study, dataset)
    pixels = kept_pixels(study, dataset, table, transform)
    return kind(table, root, transform, network.mean, network.std, order, seed, pixels)
