"""Networks compiled for a GPU, by torch.compile, block by block.

A network of a hundred like blocks is compiled in the time of the few kinds that differ, and whatever looks into the
network between them, as hooks do, finds what it would find otherwise.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterator

import torch
from torch import nn
from torch.utils._triton import has_triton

from lgffem_core.config.params import Compute
from lgffem_core.model.device import uses_gpu

COMPILE_FROM = 100_000  # images of a run: fewer are done before a compiler is
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
REPEATED = 5  # of so many modules of a class, each is a block


def compile_for(compute: Compute, images: int, *networks: nn.Module) -> bool:
    """Have networks compiled for a run over so many images; True where that is done.

    It is done with ``compute.fast``, on a GPU, for ``COMPILE_FROM`` images or more, where a compiler is. The run's
    first step then takes a minute or two.
    """
    if not (compute.fast and uses_gpu(compute) and images >= COMPILE_FROM):
        return False
    if not has_triton() or not any(shutil.which(name) for name in (os.environ.get("CC", "cc"), "gcc", "clang")):
        print("not compiled, and so slower by half or more: torch.compile needs Triton and a C compiler; install gcc.")
        return False
    for network in networks:
        compile_blocks(network)
    return True


def blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules of the classes that ``network.blocks`` names, or of which there are many."""
    counts = Counter(type(module) for module in network.modules())
    kinds = {kind for kind, count in counts.items() if count >= REPEATED and not issubclass(kind, CONTAINERS)}
    kinds |= set(getattr(network, "blocks", ()))

    def below(module: nn.Module) -> Iterator[nn.Module]:
        for child in module.children():
            if type(child) in kinds and next(child.children(), None) is not None:
                yield child
            else:
                yield from below(child)

    return below(network)


def compile_blocks(network: nn.Module) -> None:
    """Let a network's blocks be compiled when they are first called, once for each kind and shape.

    Kernels are not chosen by timing them, so that another run of the same code comes to the same bits.
    """
    torch._dynamo.config.recompile_limit = 64  # shapes of one class of blocks, in training and evaluation
    for block in blocks(network):
        block.forward = torch.compile(block.forward, dynamic=False, options={"deterministic": True})
