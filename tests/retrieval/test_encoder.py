"""The one loop that embeds: what a network is fed, in which batches, and in which order the answers come."""

import numpy as np
import pytest
import torch

from lgffem_core.data import images_root, patch_table
from lgffem_core.data.augment import evaluation_resize
from lgffem_core.data.loading import read_rgb
from lgffem_core.retrieval.encoder import Encoder, embed_images, embed_table


class Means(torch.nn.Module):
    """Mean of each channel; it keeps the sizes of its batches, and drops out while it trains."""

    mean, std = (0.5, 0.25, 0.125), (0.5, 1.0, 2.0)

    def __init__(self):
        super().__init__()
        self.seen, self.drop = [], torch.nn.Dropout(0.5)

    def forward(self, images):
        self.seen.append(tuple(images.shape))
        return self.drop(images.mean(dim=(2, 3)).double())


@pytest.fixture
def network():
    return Means().train()


def encoder(network):
    return Encoder("means", "not kept", lambda: network, evaluation_resize(16))


def by_hand(image):
    """An image of 32 pixels a side at 16: each pixel the mean of four, rounded as OpenCV rounds."""
    shrunk = image.reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
    return (np.floor(shrunk + 0.5).mean(axis=(0, 1)) / 255 - Means.mean) / Means.std


def test_a_table_is_embedded_in_its_order_and_in_the_studys_batches(tiny_study, network):
    study = tiny_study(retrieval__batch_size=5)
    table = patch_table(study, "kimia").iloc[[30, 2, 7, 11, 5, 1, 0]]  # their numbers say nothing
    found = embed_table(study, "kimia", table, encoder(network))
    assert network.seen == [(5, 3, 16, 16), (2, 3, 16, 16)] and found.dtype == np.float32
    images = [read_rgb(images_root(study, "kimia") / path) for path in table["path"]]
    np.testing.assert_allclose(found, [by_hand(image) for image in images], atol=2e-3)


def test_images_in_memory_are_embedded_as_those_of_a_table(tiny_study, network):
    study = tiny_study(retrieval__batch_size=4)
    table = patch_table(study, "kimia")
    images = [read_rgb(images_root(study, "kimia") / path) for path in table["path"]]
    found = embed_images(encoder(network), images, 4)
    assert set(network.seen) == {(4, 3, 16, 16)} and len(network.seen) == 9
    assert np.array_equal(found, embed_table(study, "kimia", table, encoder(network)))


def test_a_backbones_statistics_are_those_of_the_network_that_holds_it(network):
    holder = torch.nn.Module()
    holder.backbone, holder.forward = network, network.forward
    image = np.full((16, 16, 3), 51, np.uint8)
    assert np.array_equal(embed_images(encoder(holder), [image]), embed_images(encoder(network), [image]))
