"""The networks of SMSE: six convolutions, or ResNet-18, to an embedding; and the classifier that reads it."""

from itertools import pairwise
from math import prod

import timm
import torch
from torch import Tensor, nn

from lgffem_core.config.systems import SMSE
from lgffem_core.config.watched import Watched
from lgffem_core.systems.smse.places import KERNEL, POOL, STRIDE, places_left

CHANNELS = (3, 4, 4, 8, 16, 32, 64)
SLOPE = 0.25  # of a PReLU below 0, at first
HIDDEN = 256  # of the two fully connected layers


class EmbeddingNet(nn.Module):
    """Images (N, 3, H, W) -> embeddings (N, D) of any length; ``mean`` and ``std`` are the statistics of its inputs."""

    def __init__(self, body: nn.Module, settings: SMSE | Watched):
        super().__init__()
        self.body = body.to(memory_format=torch.channels_last)  # of few channels, on a processor, in half the time
        self.mean, self.std = (settings.mean,) * 3, (settings.std,) * 3

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images.contiguous(memory_format=torch.channels_last))


def six_convolutions(settings: SMSE | Watched) -> nn.Sequential:
    """Six times convolution 3 × 5, PReLU and max-pooling 2 × 3 with stride 2; two layers of 256 with PReLU; linear.

    Without padding, and 460 × 700 pixels, 5 × 6 places of 64 channels are left, and there are 602,035 parameters with
    the classifier. ``RequestError`` where an image is too small.
    """
    layers: list[nn.Module] = []
    for number, (taken, given) in enumerate(pairwise(CHANNELS)):
        layers += [nn.Conv2d(taken, given, KERNEL, padding="same" if settings.padded else 0), nn.PReLU()]
        layers += [nn.MaxPool2d(POOL, STRIDE)] if number < settings.pools else []
    left = CHANNELS[-1] * prod(places_left(settings))
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(left, HIDDEN), nn.PReLU(), nn.Linear(HIDDEN, HIDDEN), nn.PReLU(),
        nn.Linear(HIDDEN, settings.embedding),
    )  # fmt: skip


def build_network(settings: SMSE | Watched, seed: int) -> EmbeddingNet:
    """The network that ``smse.network`` names, its weights drawn by ``seed``."""
    torch.manual_seed(seed)
    if settings.network == "resnet18":
        return EmbeddingNet(timm.create_model("resnet18", num_classes=settings.embedding), settings)
    network = EmbeddingNet(six_convolutions(settings), settings)
    if settings.initial == "he":
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, a=SLOPE)
                nn.init.zeros_(module.bias)
    return network


def build_classifier(settings: SMSE | Watched, classes: int, seed: int) -> nn.Sequential:
    """Embedding (N, D) -> logits (N, C): PReLU and a linear layer, drawn by ``seed``."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.PReLU(), nn.Linear(settings.embedding, classes))
