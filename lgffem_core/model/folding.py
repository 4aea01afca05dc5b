"""Batch normalisation of a frozen network as part of the convolution before it.

In eval mode it is one affine map a channel, which a convolution's weights and bias can take up. On a processor that
saves a small convolutional backbone a third of its time or more, since each norm reads and writes a whole map.
"""

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from lgffem_core.model.layers import EdgePaddedConv

SAME = 1e-3  # of a map's largest value; sums in another order differ by some 1e-6


class Folded:
    """A convolution that has taken up the norm after it; its own weights stay what it is known and counted by."""

    def take_up(self, norm: nn.BatchNorm2d) -> None:
        """Hold the weights and the bias that do what this convolution and ``norm`` do."""
        affine = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        both = fuse_conv_bn_weights(self.weight, self.bias, *affine)
        for name, tensor in zip(("folded_weight", "folded_bias"), both, strict=True):
            self.register_buffer(name, tensor.detach(), persistent=False)

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, self.folded_weight, self.folded_bias)


class FoldedConv(Folded, nn.Conv2d):
    """torch's, of which it has all else."""


class FoldedEdgePaddedConv(Folded, EdgePaddedConv):
    """The one with TensorFlow's padding."""


class TakenUpNorm(nn.BatchNorm2d):
    """A norm that the convolution before it has taken up."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class TakenUpNormAct(BatchNormAct2d):
    """timm's norm with an activation, which is left."""

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(x))


CONVOLUTIONS = {nn.Conv2d: FoldedConv, EdgePaddedConv: FoldedEdgePaddedConv}
NORMS = {nn.BatchNorm2d: TakenUpNorm, BatchNormAct2d: TakenUpNormAct}


@torch.no_grad()
def fold_norms(network: nn.Module, size: int) -> None:
    """Fold the norms that follow a convolution in a frozen ``network`` of images of ``size`` pixels a side to maps.

    All stay as they are where its maps would not: a convolution's values may be used elsewhere, too.
    """
    images = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    pairs, before = following(network, images)
    plain = [(module, type(module)) for pair in pairs for module in pair]
    for conv, norm in pairs:
        conv.__class__, norm.__class__ = CONVOLUTIONS[type(conv)], NORMS[type(norm)]
        conv.take_up(norm)
    if not all(map(close, network(images), before)):
        for module, kind in plain:
            module.__class__ = kind


def following(network: nn.Module, images: Tensor) -> tuple[list[tuple[nn.Conv2d, nn.BatchNorm2d]], list[Tensor]]:
    """Convolutions, each with the norm that is given its very output; and the network's maps of ``images``."""
    made, pairs, hooks = {}, [], []

    def remember(conv: nn.Module, _, output: Tensor) -> None:
        made[id(output)] = conv, output  # which, being kept, keeps its number to itself

    for module in network.modules():
        if type(module) in CONVOLUTIONS:
            hooks.append(module.register_forward_hook(remember))
        elif type(module) in NORMS and module.track_running_stats:
            hooks.append(module.register_forward_pre_hook(lambda norm, given: pairs.append((given[0], norm))))
    try:
        found = network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [(made[id(given)][0], norm) for given, norm in pairs if id(given) in made], found


def close(found: Tensor, expected: Tensor) -> bool:
    """Whether two maps are the same but for rounding."""
    return bool((found - expected).abs().max() <= SAME * expected.abs().max())
