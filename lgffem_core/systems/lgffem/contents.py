"""What one released checkpoint holds beside weights: epoch, loss, class centres, optimisers, schedule."""

from dataclasses import dataclass
from numbers import Real
from pathlib import Path

from torch import Tensor

from lgffem_core.base.errors import RequestError
from lgffem_core.config.params import Loss
from lgffem_core.data.sets.facts import IMAGENET_TRAIN_TOTAL, KIMIA_TRAIN_TOTAL, PANNUKE_FOLD_SIZES
from lgffem_core.systems.lgffem.released import read_released

#: Classes of the loss -> strategy and, by name, the numbers of images that it may have been trained on.
TRAINED_ON = {
    1000: ("a", {"ImageNet-1k": IMAGENET_TRAIN_TOTAL}),
    19: ("b", {"PanNuke's fold 1": PANNUKE_FOLD_SIZES[0], "PanNuke's three folds": sum(PANNUKE_FOLD_SIZES)}),
    24: ("c", {"Kimia Path24C": KIMIA_TRAIN_TOTAL}),
}
BATCHES = [2**power for power in range(2, 12)]  # sizes that are looked for
STATES = [f"{part}_state_dict" for part in ("loss", "optimizer", "loss_optimizer", "scheduler")]


@dataclass(frozen=True)
class Checkpoint:
    """A released checkpoint's contents by name; what is not in the file is None or empty."""

    stored: dict

    @classmethod
    def read(cls, path: Path) -> "Checkpoint":
        """Raises ``RequestError`` where the file is none of theirs, or a part of it is of another kind."""
        stored = read_released(path)
        for name, kind in {**dict.fromkeys(STATES, dict), "epoch": int, "best_loss": Real}.items():
            if stored.get(name) is not None and not isinstance(stored[name], kind):
                raise RequestError(f"{path}: not an ffnir checkpoint; its {name} is a {type(stored[name]).__name__}.")
        return cls(stored)

    @property
    def epoch(self) -> int | None:
        return self.stored.get("epoch")

    @property
    def best_loss(self) -> Real | None:
        return self.stored.get("best_loss")

    def state(self, part: str) -> dict:
        """The state of "loss", "optimizer", "loss_optimizer" or "scheduler"."""
        return self.stored.get(f"{part}_state_dict") or {}

    def group(self, optimizer: str = "optimizer") -> dict:
        """Settings of an optimiser's first parameter group."""
        return next(iter(self.state(optimizer).get("param_groups") or []), {})

    @property
    def centres(self) -> tuple[int, int] | None:
        """(length of the embedding, class centres); the loss keeps them as columns."""
        found = self.state("loss").get("W")
        return tuple(found.shape) if isinstance(found, Tensor) and found.ndim == 2 else None

    @property
    def classes(self) -> dict[int, int]:
        """Classes -> sub-centres of each, for every data set whose number of classes divides the centres."""
        count = self.centres[1] if self.centres else 0
        return {classes: count // classes for classes in TRAINED_ON if count and count % classes == 0}

    @property
    def data(self) -> tuple[str, dict[str, int]] | None:
        """Of ``TRAINED_ON``: where several are possible, the one with as many sub-centres as the scripts' default."""
        usual = [classes for classes, each in self.classes.items() if each == Loss().sub_centers]
        possible = usual or list(self.classes)
        return TRAINED_ON[possible[0]] if len(possible) == 1 else None

    @property
    def strategy(self) -> str | None:
        """The strategy that the file is of; None where the class centres do not tell."""
        return self.data[0] if self.data else None

    @property
    def steps(self) -> float | None:
        """Optimiser steps an epoch; not whole where the optimiser was begun anew or left steps out."""
        state = next(iter(self.state("optimizer").get("state", {}).values()), {})
        return float(state["step"]) / self.epoch if "step" in state and self.epoch else None

    def batches(self) -> list[tuple[str, int]]:
        """(data, batch size) that give this many steps an epoch, whether the last batch is dropped or kept."""
        sizes = self.data[1] if self.data else {}
        return [(name, b) for name, size in sizes.items() for b in BATCHES if self.steps in (size // b, -(-size // b))]

    def weights(self, part: str, end: str) -> list[Tensor]:
        """The weights of "neck" or "head" whose names end so."""
        return [tensor for key, tensor in self.stored[f"model_{part}_state_dict"].items() if key.endswith(end)]
