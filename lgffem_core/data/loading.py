"""From a PatchTable to batches: decoding, augmentation, and an order that anyone can recompute."""

import hashlib
import io
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, UnidentifiedImageError
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.base.seeds import derive_seed
from lgffem_core.data.augment import Augment
from lgffem_core.data.pixels import Pixels


def read_rgb(path: Path, channel_order: str = "rgb", sha256: str | None = None) -> np.ndarray:
    """Decode an image to uint8 (H, W, 3) RGB; ``channel_order="bgr"`` puts a swapped file right (ledger 13).

    Raises ``StudyError`` where the file cannot be decoded whole, or is not the one whose bytes hash to ``sha256``.
    """
    try:
        data = Path(path).read_bytes()
        if sha256 is None or hashlib.sha256(data).hexdigest() == sha256:
            with Image.open(io.BytesIO(data)) as image:
                pixels = np.asarray(image.convert("RGB"))
                return np.ascontiguousarray(pixels[..., ::-1]) if channel_order == "bgr" else pixels
    except UnidentifiedImageError:
        raise StudyError(f"{path}: cannot be decoded (it is no image); restore it and run notebook 01 again.") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error …
        raise StudyError(f"{path}: cannot be decoded ({error}); restore it and run notebook 01 again.") from None
    raise StudyError(f"{path}: changed since the index was made; restore it, or run notebook 01 again.")


@cache
def normalised_levels(mean: tuple, std: tuple) -> np.ndarray:
    """What each level 0 … 255 becomes in each channel: (256, 3) float32."""
    return (np.arange(256, dtype=np.float32)[:, None] / 255.0 - np.float32(mean)) / np.float32(std)


def normalise(image: np.ndarray, mean: tuple, std: tuple) -> torch.Tensor:
    """uint8 (H, W, 3) -> float32 (3, H, W): (x/255 − mean)/std per channel."""
    values, scaled = normalised_levels(tuple(mean), tuple(std)), np.empty((3, *image.shape[:2]), np.float32)
    for channel in range(3):
        np.take(values[:, channel], image[..., channel], out=scaled[channel], mode="clip")  # which checks no index
    return torch.from_numpy(scaled)


class PatchDataset(Dataset):
    """Patches of a PatchTable, decoded, transformed and normalised.

    Args:
        table: the rows to serve; a row's index label is its sample id, and a file must hash to its ``sha256``.
        root: folder that the paths count from.
        transform: an ``Augment``; its seed for a sample is a function of (seed, epoch, sample id).
        mean, std: input statistics of the backbone.
        channel_order: of the files, see ``read_rgb``.
        seed: of the run.
        pixels: where images are kept after ``transform.begin``, so that files need not be decoded.

    An item is asked for as ``(epoch, row)``, which is how the epoch reaches worker processes, and is
    ``(image (3, S, S) float32, label id, row)``.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        root: Path,
        transform: Augment,
        mean: tuple,
        std: tuple,
        channel_order: str = "rgb",
        seed: int = 0,
        pixels: Pixels | None = None,
    ):
        self.paths, self.labels = table["path"].tolist(), table["label_id"].tolist()
        self.ids, self.hashes = table.index.tolist(), table["sha256"].tolist()
        self.root, self.transform, self.mean, self.std = Path(root), transform, mean, std
        self.channel_order, self.seed, self.pixels = channel_order, seed, pixels

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, row: int) -> np.ndarray:
        """An image before its augmentation, as it is kept or from its file."""
        return self.pixels.get(row, lambda: self.decode(row)) if self.pixels else self.decode(row)

    def decode(self, row: int) -> np.ndarray:
        """An image from its file, uint8 (H, W, 3), as far as it does not depend on the epoch."""
        return self.transform.begin(read_rgb(self.root / self.paths[row], self.channel_order, self.hashes[row]))

    def __getitem__(self, key: tuple[int, int]):
        epoch, row = key
        image = self.image(row)
        image = self.transform(image, derive_seed("augment", self.seed, epoch, self.ids[row]))
        return normalise(image, self.mean, self.std), self.labels[row], row


def epoch_order(size: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the samples in one epoch: a permutation of range(size), a function of (seed, epoch)."""
    return np.random.default_rng(derive_seed("order", seed, epoch)).permutation(size)


def steps_per_epoch(size: int, batch_size: int, drop_last: bool = True) -> int:
    """Batches in an epoch, an incomplete one left out or not; a data set smaller than one gives one of all samples."""
    return max(1, size // batch_size if drop_last else math.ceil(size / batch_size))


class TrainingBatches(Sampler):
    """Every batch of a training run from step ``first`` on, as lists of ``(epoch, row)``.

    One sampler spans all epochs, so that workers are started once.

    Args:
        size: samples in the data set.
        batch_size: samples of a batch over all processes together.
        epochs: of the whole run.
        seed: with the epoch, determines the order.
        first: global step to start with (where an interrupted run goes on).
        rank, world: this process serves every ``world``-th sample of each batch, from ``rank`` on, so
            that a batch holds the same samples however many processes share it.
        drop_last: leave the last batch of an epoch out where it is incomplete. The released code does so for
            strategies A and C; the loader of B, which is PathML's, keeps it (ledger 19).

    ``RequestError`` where a batch has not a sample for each process.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        epochs: int,
        seed: int,
        first: int = 0,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = True,
    ):
        self.size, self.batch_size, self.epochs, self.seed = size, min(batch_size, size), epochs, seed
        self.first, self.rank, self.world = first, rank, world
        self.steps = steps_per_epoch(size, batch_size, drop_last)
        least = self.images_at(self.steps - 1)
        if least < world:
            raise RequestError(f"training.batch_size: {world} processes cannot share a batch of {least}; start fewer.")

    def __len__(self) -> int:
        return self.epochs * self.steps - self.first

    def images_at(self, step: int) -> int:
        """Samples of the batch at a global step, over all processes together: fewer in an incomplete last one."""
        return min(self.batch_size, self.size - step % self.steps * self.batch_size)

    def share_at(self, step: int) -> float:
        """Of the samples of that batch, those of this process, relative to an equal share."""
        together = self.images_at(step)
        return len(range(self.rank, together, self.world)) * self.world / together

    def __iter__(self):
        for epoch in range(self.first // self.steps, self.epochs):
            order = epoch_order(self.size, self.seed, epoch)
            start = self.first % self.steps if epoch == self.first // self.steps else 0
            for step in range(start, self.steps):
                batch = order[step * self.batch_size : (step + 1) * self.batch_size]
                yield [(epoch, int(row)) for row in batch[self.rank :: self.world]]


def evaluation_loader(dataset: PatchDataset, batch_size: int, workers: int, even: bool = False) -> DataLoader:
    """Every sample once, in table order; ``even``: the last one again until the last batch is full, too."""
    rows = [(0, row) for row in range(len(dataset))]
    rows += rows[-1:] * (-len(rows) % batch_size if even else 0)
    batches = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    return make_loader(dataset, batches, workers)


def collate(samples: list):
    """A batch of samples. A worker puts it into shared memory; ``StudyError`` where that is too small."""
    try:
        return default_collate(samples)
    except RuntimeError as error:
        if "shared memory" not in str(error):
            raise
        raise StudyError(
            "/dev/shm is too small for the batches that worker processes hand over; enlarge it (for a container "
            "--shm-size=1g), or read without workers: --set compute.workers=0."
        ) from None


def make_loader(dataset: Dataset, batches, workers: int, collate: Callable = collate) -> DataLoader:
    """A loader over explicit batches of ``(epoch, row)``."""
    return DataLoader(
        dataset, batch_sampler=batches, num_workers=workers, pin_memory=torch.cuda.is_available(), collate_fn=collate
    )
