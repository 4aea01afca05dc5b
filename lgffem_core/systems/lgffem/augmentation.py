"""What each strategy trains with. The paper's text names no transform; probabilities are the released code's."""

from lgffem_core.data.augment import Augment, flips_and_blurs, random_crops

#: Strategy -> probabilities of flips and right angles, and of the median filter.
PROBABILITIES = {"b": (0.5, 0.5), "c": (0.6, 0.6)}


def training_augment(strategy: str, size: int) -> Augment:
    """The random transforms that strategy "a", "b" or "c" trains with, ending in images of ``size`` pixels a side."""
    if strategy == "a":
        return random_crops(size)
    return flips_and_blurs(size, *PROBABILITIES[strategy])
