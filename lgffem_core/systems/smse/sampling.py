"""Pairs and triplets across magnifications: each image is the anchor once an epoch, and its partners are drawn.

A partner may be of any magnification and any patient of the training; its class is drawn (pairs: the anchor's own or
another with probability ½ each) or given (triplets: one of each). What is drawn is a function of (seed, epoch, anchor)
alone, as everything in a training.
"""

import numpy as np
import torch
from torch import Tensor

from lgffem_core.base.seeds import derive_seed
from lgffem_core.data.loading import PatchDataset, normalise

ROOM = 1 << 27  # bytes of augmented images that trainings share
GROUPS = {"none": 1, "pair": 2, "triplet": 3}  # metric loss -> images of a group, the anchor included


class Groups(PatchDataset):
    """Images in groups: an item, asked for as (epoch, row), is (images (K, 3, H, W), labels (K,), rows (K,)).

    ``kind`` is one of ``GROUPS``; everything else is ``PatchDataset``'s. Each image of a group is augmented by itself.
    ``shown`` holds augmented images by SHA-256 and seed, for data sets that differ in nothing but their groups.
    """

    kind, shown = "triplet", None

    def of_kind(self, kind: str, shown: dict[tuple[str, int], np.ndarray] | None = None) -> "Groups":
        """The same, in groups of ``kind``, with what others were ``shown``."""
        self.kind, self.shown, labels = kind, shown, np.array(self.labels)
        self.of_class = {label: np.flatnonzero(labels == label) for label in np.unique(labels)}
        self.of_others = {label: np.flatnonzero(labels != label) for label in np.unique(labels)}
        return self

    def rows(self, epoch: int, anchor: int) -> list[int]:
        """The rows of a group, the anchor first; a partner is the anchor itself only where its class has no other."""
        rng = np.random.default_rng(derive_seed("partners", self.seed, epoch, self.ids[anchor]))
        label, chosen = self.labels[anchor], [anchor]
        if self.kind == "triplet" or (self.kind == "pair" and rng.random() < 0.5):
            own = self.of_class[label]
            chosen.append(int(rng.choice(own[own != anchor]) if len(own) > 1 else anchor))
        if len(chosen) < GROUPS[self.kind]:
            chosen.append(int(rng.choice(self.of_others[label])))
        return chosen

    def view(self, epoch: int, row: int, place: int, anchor: int) -> Tensor:
        """An image of a group, augmented as its place in the group has it: (3, H, W)."""
        key = self.hashes[row], derive_seed("augment", self.seed, epoch, self.ids[anchor], place)
        shown = {} if self.shown is None else self.shown
        if key not in shown:
            image = self.transform(self.image(row), key[1])
            if (len(shown) + 1) * image.nbytes > ROOM:
                return normalise(image, self.mean, self.std)
            shown[key] = image
        return normalise(shown[key], self.mean, self.std)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        epoch, anchor = key
        rows = self.rows(epoch, anchor)
        images = torch.stack([self.view(epoch, row, place, anchor) for place, row in enumerate(rows)])
        return images, torch.tensor([self.labels[row] for row in rows]), torch.tensor(rows)
