"""Networks compiled by torch.compile, block by block, in long runs.

A network of a hundred like blocks is compiled in the time of the few kinds that differ, and whatever looks into the
network between them, as hooks do, finds what it would find otherwise. On a processor only those that a network names
are compiled: oneDNN computes most of a backbone's time already, and what is left gained nothing.
"""

import os
import shutil
import sysconfig
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.utils._triton import has_triton

from lgffem_core.config.params import Compute
from lgffem_core.model.device import precision_of, uses_gpu

COMPILE_FROM = 100_000  # images of a run on a GPU: fewer are done before a compiler is
COMPILE_FROM_ON_CPU = 20_000  # for the paper's model a fraction would do, but small networks are as slow to compile
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
REPEATED = 5  # of so many modules of a class, each is a block


def compile_for(compute: Compute, images: int, *networks: nn.Module) -> bool:
    """Have networks compiled for a run over so many images; True where that is done.

    It is done with ``compute.fast``, where a compiler is: on a GPU for ``COMPILE_FROM`` images or more, and for
    ``COMPILE_FROM_ON_CPU`` on a processor that computes in half precision, which has little to gain in float32. The
    run's first step then takes a minute or two.
    """
    gpu = uses_gpu(compute)
    if not compute.fast or images < (COMPILE_FROM if gpu else COMPILE_FROM_ON_CPU):
        return False
    if not gpu and (precision_of(compute) == "32-true" or not any(getattr(each, "blocks", ()) for each in networks)):
        return False
    if missing := missing_for(gpu):
        print(f"not compiled, and so slower by {'half or more' if gpu else 'a tenth'}: torch.compile needs {missing}.")
        return False
    for network in networks:
        compile_blocks(network, named_only=not gpu)
    return True


def missing_for(gpu: bool) -> str | None:
    """What torch.compile lacks here, in words that say what to install."""
    if gpu:
        there = has_triton() and any(shutil.which(name) for name in (os.environ.get("CC", "cc"), "gcc", "clang"))
        return None if there else "Triton and a C compiler; install gcc"
    header = Path(sysconfig.get_path("include")) / "Python.h"
    there = header.is_file() and any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++"))
    return None if there else "a C++ compiler and Python's headers; install g++ and python3-dev"


def blocks(network: nn.Module, named_only: bool = False) -> Iterator[nn.Module]:
    """The outermost modules of the classes that ``network.blocks`` names, or of which there are many."""
    counts = Counter(type(module) for module in network.modules())
    many = {kind for kind, count in counts.items() if count >= REPEATED and not issubclass(kind, CONTAINERS)}
    kinds = set(getattr(network, "blocks", ())) | (set() if named_only else many)

    def below(module: nn.Module) -> Iterator[nn.Module]:
        for child in module.children():
            if type(child) in kinds and next(child.children(), None) is not None:
                yield child
            else:
                yield from below(child)

    return below(network)


def compile_blocks(network: nn.Module, named_only: bool = False) -> None:
    """Let a network's blocks be compiled when they are first called, once for each kind and shape.

    Kernels are not chosen by timing them, so that another run of the same code comes to the same bits.
    """
    torch._dynamo.config.recompile_limit = 64  # shapes of one class of blocks, in training and evaluation
    for block in blocks(network, named_only):
        block.forward = torch.compile(block.forward, dynamic=False, options={"deterministic": True})
