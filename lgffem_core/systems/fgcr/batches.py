"""From records to batches: what a slide and its report are to the networks, padded to the longest of a batch."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lgffem_core.base.seeds import derive_seed
from lgffem_core.data.records import Record, distances
from lgffem_core.systems.fgcr.tokenizer import PADDING, Tokenizer


class Batch(NamedTuple):
    """B slides with at most N patches, A anchors and T words; an item of the data set is one slide, without B."""

    features: Tensor  # (B, N, D) float32, 0 where padded; of an item in the record's type
    exponent: Tensor  # (B, A, N) float32: −rd²/(2·npk), the logarithm of the soft mask; 0 where padded
    patches: Tensor  # (B, N) bool: true where there is one
    anchors: Tensor  # (B, A) bool
    tokens: Tensor  # (B, T) int64
    words: Tensor  # (B, T) bool
    prompts: Tensor  # (B, P) float32: 1 for findings that hold


def mask_exponent(record: Record) -> np.ndarray:
    """−rd²/(2·npk) of each anchor and patch, (A, N) float32; its exponential is the soft mask.

    rd is the distance in patches, npk the number of patches that an anchor of its level stands for: so the mask is a
    Gaussian whose standard deviation is the side of a square of npk patches.
    """
    levels = zip(record.levels, record.anchors, strict=True)
    return np.concatenate([-(distances(record.positions, rows) ** 2) / (2 * npk) for npk, rows in levels])


def thinned(record: Record, most: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of at most ``most`` patches, ascending, and the mask's exponents of these: all anchors are kept."""
    exponent, size = mask_exponent(record), len(record)
    if size <= most:
        return np.arange(size), exponent
    kept = np.unique(np.concatenate(record.anchors))
    others = np.setdiff1d(np.arange(size), kept)
    drawn = np.random.default_rng(derive_seed("patches", seed, record.slide)).permutation(others)
    chosen = np.sort(np.concatenate([kept, drawn[: max(0, most - len(kept))]]))
    return chosen, exponent[:, chosen]


def item(record: Record, tokenizer: Tokenizer, most: int) -> Batch:
    """One slide as the networks take it. ``StudyError`` for what the tokenizer does not know."""
    where = f"slide {record.slide}"
    chosen, exponent = thinned(record, most)
    tokens = torch.tensor(tokenizer.encode(record.report, where), dtype=torch.int64)
    return Batch(
        features=torch.from_numpy(record.features[chosen]),
        exponent=torch.from_numpy(exponent),
        patches=torch.ones(len(chosen), dtype=torch.bool),
        anchors=torch.ones(len(exponent), dtype=torch.bool),
        tokens=tokens,
        words=torch.ones(len(tokens), dtype=torch.bool),
        prompts=torch.tensor(tokenizer.prompt_targets(record.prompts, where)),
    )


def collate(items: Sequence[Batch]) -> Batch:
    """Items side by side, each padded to the longest; a batch of empty reports has one place for a word."""
    patches, anchors = (max(len(getattr(i, name)) for i in items) for name in ("patches", "anchors"))
    length = max(1, *(len(i.words) for i in items))

    def stacked(name: str, *shape: int, value=0) -> Tensor:
        first = getattr(items[0], name)
        whole = first.new_full((len(items), *shape), value)
        for row, one in enumerate(items):
            part = getattr(one, name)
            whole[(row, *map(slice, part.shape))] = part
        return whole

    return Batch(
        stacked("features", patches, items[0].features.shape[1]).float(),
        stacked("exponent", anchors, patches),
        stacked("patches", patches),
        stacked("anchors", anchors),
        stacked("tokens", length, value=PADDING),
        stacked("words", length),
        stacked("prompts", len(items[0].prompts)),
    )


class Slides(Dataset):
    """Items in memory; asked for as (epoch, row), like every data set of the trainer. The epoch changes nothing."""

    def __init__(self, items: Sequence[Batch]):
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        return self.items[key[1]]
