"""What is left behind six convolutions, held against torch's own."""

from itertools import product

import pytest
import torch
from torch import nn

from lgffem_core.base.errors import RequestError
from lgffem_core.config.systems import SMSE
from lgffem_core.systems.smse.places import places_left


def by_torch(settings):
    """(rows, columns) that are left of an image of one channel; None where torch refuses it."""
    image = torch.zeros(1, 1, *settings.image_size)
    try:
        for number in range(6):
            image = nn.Conv2d(1, 1, (3, 5), padding="same" if settings.padded else 0)(image)
            image = nn.MaxPool2d((2, 3), stride=2)(image) if number < settings.pools else image
    except RuntimeError:
        return None
    return tuple(image.shape[2:])


def ours(settings):
    try:
        return places_left(settings)
    except RequestError:
        return None


@pytest.mark.parametrize("padded", [True, False])
def test_as_many_places_are_left_as_torch_leaves(padded):
    sides = (5, 13, 29, 61, 189, 190)
    for pools, side in product(range(1, 7), sides):
        for size in ((side, 220), (110, 2 * side)):
            settings = SMSE(image_size=size, pools=pools, padded=padded)
            assert ours(settings) == by_torch(settings), settings


def test_of_the_published_size_five_by_six_are_left():
    assert places_left(SMSE()) == (5, 6)
