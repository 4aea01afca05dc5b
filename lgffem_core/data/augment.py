"""Augmentations, as albumentations pipelines; the only file that names the library.

One sample's augmentation is a function of (seed, epoch, sample id) alone: the pipeline is given a seed of
its own before every call, so that worker count and resume point change nothing.
"""

import os
import random

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # the library asks the network for news otherwise

import albumentations as A
import cv2
import numpy as np

cv2.setNumThreads(0)  # workers are the parallelism; threads inside them would fight


class Augment:
    """Callable ``(image, seed) -> image``: uint8 (H, W, 3) RGB in, uint8 (size, size, 3) out.

    All transforms draw from one generator. ``Compose.set_random_seed`` would start a generator of the
    same seed in each of them: both flips would then always happen together.

    ``resize`` is a resize that comes first, if one does: it draws nothing, and leaves an image as it is that went
    through it.
    """

    def __init__(self, transforms: list[A.BasicTransform]):
        self.pipeline = A.Compose(transforms)
        self.resize = transforms[0] if isinstance(transforms[0], A.Resize) else None

    def begin(self, image: np.ndarray) -> np.ndarray:
        """``image`` after that resize: all that can be done before a seed is known."""
        return self.resize.apply(image) if self.resize else image

    def __call__(self, image: np.ndarray, seed: int) -> np.ndarray:
        self.pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
        return self.pipeline(image=image)["image"]


def random_crops(size: int) -> Augment:
    """Random crops of 8 to 100 % of the area, resized to ``size`` pixels a side, and horizontal flips."""
    return Augment([A.RandomResizedCrop((size, size), area_for_downscale="image"), A.HorizontalFlip(p=0.5)])


def flips_and_blurs(size: int, flips: float, median: float) -> Augment:
    """A resize to ``size`` pixels a side, flips and right angles with probability ``flips``, blurs.

    A Gaussian blur has a probability of 0.5, a median filter one of ``median``.
    """
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


def crops_of_resized(side: int, size: int, at_random: bool) -> Augment:
    """A resize to ``side`` pixels, then a random crop of ``size`` and flips, or else the centre.

    The resize is bicubic where the image grows, and averages areas where it shrinks: albumentations has no bicubic
    filter that averages, as Pillow's does, and area averaging is much nearer to that than unfiltered bicubic.
    """
    resize = A.Resize(side, side, interpolation=cv2.INTER_CUBIC, area_for_downscale="image")
    if at_random:
        return Augment([resize, A.RandomCrop(size, size), A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)])
    return Augment([resize, A.CenterCrop(size, size)])


def flips_and_colours(height: int, width: int, jitter: float) -> Augment:
    """A resize to ``height`` × ``width`` pixels, flips with probability 0.5, colours changed by up to ``jitter``.

    Brightness, contrast and saturation are multiplied by 1 ± jitter, the hue is turned by up to jitter of the circle.
    """
    resize = A.Resize(height, width, area_for_downscale="image")
    spread = (1 - jitter, 1 + jitter)
    turn = (-min(jitter, 0.5), min(jitter, 0.5))
    colours = A.ColorJitter(brightness=spread, contrast=spread, saturation=spread, hue=turn, p=1)
    return Augment([resize, A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5), *([colours] if jitter else [])])


def evaluation_resize(size: int, width: int | None = None) -> Augment:
    """The one resize of evaluation and figures (the released code has a different one each, ledger 17).

    To ``size`` pixels a side, or ``size`` high and ``width`` wide.
    """
    return Augment([A.Resize(size, width or size, area_for_downscale="image")])
