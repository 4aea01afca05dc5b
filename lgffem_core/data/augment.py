"""The augmentations of each strategy, as albumentations pipelines; the only file that names the library.

One sample's augmentation is a function of (seed, epoch, sample id) alone: the pipeline is given a seed of
its own before every call, so that worker count and resume point change nothing. Probabilities are the
released code's; the paper's text names no transform.
"""

import os
import random

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # the library asks the network for news otherwise

import albumentations as A
import cv2
import numpy as np

cv2.setNumThreads(0)  # workers are the parallelism; threads inside them would fight


#: Strategy -> probabilities of the flips and of the median filter.
PROBABILITIES = {"b": (0.5, 0.5), "c": (0.6, 0.6)}


class Augment:
    """Callable ``(image, seed) -> image``: uint8 (H, W, 3) RGB in, uint8 (size, size, 3) out.

    All transforms draw from one generator. ``Compose.set_random_seed`` would start a generator of the
    same seed in each of them: both flips would then always happen together.
    """

    def __init__(self, transforms: list[A.BasicTransform]):
        self.pipeline = A.Compose(transforms)

    def __call__(self, image: np.ndarray, seed: int) -> np.ndarray:
        self.pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
        return self.pipeline(image=image)["image"]


def training_augment(strategy: str, size: int) -> Augment:
    """The random transforms that strategy "a", "b" or "c" trains with, ending in images of ``size`` pixels a side.

    Raises ``ValueError`` for another strategy.
    """
    if strategy == "a":
        return Augment([A.RandomResizedCrop((size, size), area_for_downscale="image"), A.HorizontalFlip(p=0.5)])
    if strategy not in PROBABILITIES:
        raise ValueError(f"unknown strategy {strategy!r}; there are 'a', 'b' and 'c'")
    flips, median = PROBABILITIES[strategy]
    return Augment(
        [
            A.Resize(size, size, area_for_downscale="image"),
            A.VerticalFlip(p=flips),
            A.HorizontalFlip(p=flips),
            A.RandomRotate90(p=flips),
            A.GaussianBlur(p=0.5),
            A.MedianBlur(blur_limit=5, p=median),
        ]
    )


RESIZED, CROPPED = 300, 224  # pixels a side in the publication of MA + MS-loss


def ma_ms_resize(size: int) -> A.Resize:
    """The resize before a crop of ``size`` pixels, in the publication's proportion of 300 to 224.

    It says bicubic; albumentations has no bicubic filter that averages when it shrinks, as Pillow's does, and
    area averaging is much nearer to that than unfiltered bicubic. So: bicubic where the image grows.
    """
    side = round(size * RESIZED / CROPPED)
    return A.Resize(side, side, interpolation=cv2.INTER_CUBIC, area_for_downscale="image")


def ma_ms_augment(size: int) -> Augment:
    """What MA + MS-loss trains with: a random crop of ``size`` pixels, and flips."""
    return Augment([ma_ms_resize(size), A.RandomCrop(size, size), A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)])


def ma_ms_evaluation(size: int) -> Augment:
    """What MA + MS-loss is evaluated with: the same resize, then the centre."""
    return Augment([ma_ms_resize(size), A.CenterCrop(size, size)])


def evaluation_resize(size: int) -> Augment:
    """The one resize of evaluation and figures (the released code has a different one each, ledger 17)."""
    return Augment([A.Resize(size, size, area_for_downscale="image")])
