"""The trainings of SMSE, by what one does differently from another. Nothing here imports torch."""

from typing import NamedTuple

from lgffem_core.config.study import Study
from lgffem_core.config.systems import SMSE
from lgffem_core.config.watched import Watched

METRICS = {"triplet": "triplet", "pair": "pair", "none": "no metric loss"}
CLASSIFICATIONS = {"reinforced_focal": "RFL", "focal": "focal loss", "cross_entropy": "cross-entropy"}


RFL = "RFL: reinforced focal loss."


class Run(NamedTuple):
    """What one training does differently from another."""

    metric: str  # of METRICS
    classification: str  # of CLASSIFICATIONS
    magnifications: tuple[int, ...]  # that it is trained on

    @property
    def losses(self) -> str:
        """Its losses as tables name them: "triplet + RFL"."""
        return f"{METRICS[self.metric]} + {CLASSIFICATIONS[self.classification]}"

    def gamma(self, settings: SMSE | Watched) -> float:
        """The exponent of its reinforced focal loss: one beside pairs, another in all else."""
        return settings.gamma_pair if self.metric == "pair" else settings.gamma_triplet

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return "_".join([self.metric, self.classification, *map(str, self.magnifications)])


def runs(study: Study) -> dict[str, Run]:
    """Name -> training: the losses on all magnifications, then fewer magnifications with the first of the losses.

    Where the data have a single magnification, or not the one to be held out, the trainings that need it are not there.
    """
    settings, every = study.params.smse, study.params.data.breakhis.magnifications
    found = {
        "pair": Run("pair", "reinforced_focal", every),
        "triplet": Run("triplet", "reinforced_focal", every),
        "plain": Run("none", "reinforced_focal", every),
        "focal": Run("pair", "focal", every),
        "cross_entropy": Run("pair", "cross_entropy", every),
    }
    if settings.held_out in every and settings.single in every and settings.held_out != settings.single:
        rest = tuple(each for each in every if each != settings.held_out)
        found["one"] = Run("pair", "reinforced_focal", (settings.single,))
        if len(rest) > 1:
            found["others"] = Run("pair", "reinforced_focal", rest)
    return found


def first_run(study: Study) -> Run:
    """The training that each other one differs from."""
    return next(iter(runs(study).values()))


def seen_words(seen: tuple[int, ...], every: tuple[int, ...]) -> str:
    """Which magnifications a method was trained on: "all", "40×", "all but 200×", "–"."""
    left = [each for each in every if each not in seen]
    if not seen or not left:
        return "all" if seen else "–"
    return f"all but {left[0]}×" if len(left) == 1 and len(seen) > 1 else ", ".join(f"{each}×" for each in seen)
