"""Augmentation: a function of the seed, whose transforms nevertheless fall independently."""

from collections import Counter

import albumentations as A
import numpy as np
import pytest

from lgffem_core.data.augment import Augment, evaluation_resize
from lgffem_core.systems.lgffem.augmentation import training_augment

IMAGE = np.random.default_rng(0).integers(0, 256, size=(24, 20, 3), dtype=np.uint8)
SEEDS = 400


@pytest.mark.parametrize("strategy", ["a", "b", "c"])
def test_the_result_is_a_function_of_the_seed(strategy):
    one, other = training_augment(strategy, 16), training_augment(strategy, 16)
    wanted = [one(IMAGE, seed) for seed in range(30)]
    for seed in reversed(range(30)):  # whatever was drawn before
        np.testing.assert_array_equal(other(IMAGE, seed), wanted[seed])
    assert len({image.tobytes() for image in wanted}) > 15


@pytest.mark.parametrize("strategy", ["a", "b", "c"])
def test_neither_numpys_nor_pythons_global_generator_matters(strategy):
    augment = training_augment(strategy, 16)
    np.random.seed(0)
    first = augment(IMAGE, 5)
    np.random.seed(1)
    np.testing.assert_array_equal(augment(IMAGE, 5), first)


@pytest.mark.parametrize("strategy", ["a", "b", "c"])
@pytest.mark.parametrize("size", [16, 32])
def test_shape_and_type(strategy, size):
    image = training_augment(strategy, size)(IMAGE, 0)
    assert image.shape == (size, size, 3) and image.dtype == np.uint8


def test_the_argument_is_left_as_it_was():
    before = IMAGE.copy()
    for seed in range(20):
        training_augment("c", 20)(IMAGE, seed)
    np.testing.assert_array_equal(IMAGE, before)


def flips_of(image, result):
    """(vertical, horizontal) that turn ``image`` into ``result``."""
    found = [(v, h) for v in (0, 1) for h in (0, 1) if np.array_equal(result, image[:: 1 - 2 * v, :: 1 - 2 * h])]
    assert len(found) == 1
    return found[0]


def flips(strategy):
    """The two flips of a strategy's pipeline, alone."""
    return [
        t
        for t in training_augment(strategy, 16).pipeline.transforms
        if isinstance(t, A.VerticalFlip | A.HorizontalFlip)
    ]


def test_the_flips_are_independent():
    """``Compose.set_random_seed`` gives every transform a generator of the same seed. Both flips would then
    happen together or not at all, and two of the four combinations would never be seen."""
    augment = Augment(flips("b"))
    counts = Counter(flips_of(IMAGE, augment(IMAGE, seed)) for seed in range(SEEDS))
    assert len(counts) == 4 and all(0.15 <= count / SEEDS <= 0.35 for count in counts.values()), counts


def test_one_generator_a_transform_would_not_do():
    """Why the adapter does not use the library's own seeding; should this fail, the library has changed."""
    pipeline = A.Compose(flips("b"))
    seen = set()
    for seed in range(60):
        pipeline.set_random_seed(seed)
        seen.add(flips_of(IMAGE, pipeline(image=IMAGE)["image"]))
    assert seen == {(0, 0), (1, 1)}


@pytest.mark.parametrize(("strategy", "rate"), [("b", 0.5), ("c", 0.6)])
def test_the_flips_come_as_often_as_in_the_released_code(strategy, rate):
    augment = Augment(flips(strategy))
    seen = np.array([flips_of(IMAGE, augment(IMAGE, seed)) for seed in range(SEEDS)])
    assert np.abs(seen.mean(axis=0) - rate).max() < 0.09  # 3.6 standard deviations


def test_the_transforms_are_those_of_the_released_code():
    def listed(strategy):
        return [(type(t).__name__, t.p) for t in training_augment(strategy, 16).pipeline.transforms]

    assert listed("a") == [("RandomResizedCrop", 1), ("HorizontalFlip", 0.5)]
    for strategy, flip, median in (("b", 0.5, 0.5), ("c", 0.6, 0.6)):
        assert sorted(listed(strategy)) == [
            ("GaussianBlur", 0.5), ("HorizontalFlip", flip), ("MedianBlur", median), ("RandomRotate90", flip),
            ("Resize", 1), ("VerticalFlip", flip),
        ]  # fmt: skip


@pytest.mark.parametrize("strategy", ["d", "C", "", "ab"])
def test_an_unknown_strategy_is_an_error_and_not_another_ones_pipeline(strategy):
    with pytest.raises(KeyError):
        training_augment(strategy, 16)


def test_evaluation_only_resizes():
    resize = evaluation_resize(12)
    image = resize(IMAGE, 0)
    assert image.shape == (12, 12, 3) and image.dtype == np.uint8
    assert all(np.array_equal(resize(IMAGE, seed), image) for seed in range(10))
    np.testing.assert_array_equal(evaluation_resize(24)(IMAGE[:, [0] * 24], 0), IMAGE[:, [0] * 24])


def test_shrinking_averages_areas():
    """A 0/255 chessboard at half size is grey; picking or interpolating single pixels could leave it black."""
    board = np.indices((32, 32)).sum(axis=0) % 2 * np.uint8(255)
    shrunk = evaluation_resize(16)(np.repeat(board[..., None], 3, axis=2).astype(np.uint8), 0)
    assert (np.abs(shrunk.astype(int) - 127.5) <= 1).all()
    stripes = np.zeros((32, 32, 3), dtype=np.uint8)
    stripes[:, ::4] = 255
    assert (np.abs(evaluation_resize(8)(stripes, 0).astype(int) - 63.75) <= 1).all()
