"""Which blocks of a network are compiled, and when; that compiled blocks compute the same was measured on a GPU."""

import pytest
import torch
from torch import nn

from lgffem_core.config.params import Compute
from lgffem_core.model import compiled
from lgffem_core.model.compiled import COMPILE_FROM, blocks, compile_for


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.steps = nn.Sequential(nn.Linear(4, 4), nn.GELU())

    def forward(self, x):
        return x + self.steps(x)


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Block()

    def forward(self, x):
        return self.inner(x)


class Network(nn.Module):
    blocks = (Head,)

    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList(nn.Sequential(Block(), Block()) for _ in range(3))
        self.head = Head()

    def forward(self, x):
        for stage in self.stages:
            x = stage(x)
        return self.head(x)


@pytest.fixture
def gpu(monkeypatch):
    """As on a GPU with a compiler; the functions that torch.compile was given, which it leaves as they are."""
    found = []
    monkeypatch.setattr(compiled, "uses_gpu", lambda compute: compute.device != "cpu")
    monkeypatch.setattr(compiled, "has_triton", lambda: True)
    monkeypatch.setattr(compiled.shutil, "which", lambda name: "/usr/bin/gcc" if name == "gcc" else None)
    monkeypatch.setattr(torch, "compile", lambda forward, **options: found.append((forward, options)) or forward)
    return found


def test_blocks_are_those_named_and_those_of_which_there_are_many():
    network = Network()
    assert list(blocks(network)) == [block for stage in network.stages for block in stage] + [network.head]
    assert not list(blocks(nn.Sequential(Block(), Block())))  # two of a kind are no reason


def test_each_block_is_compiled_once_without_choosing_kernels_by_time(gpu):
    network, x = Network(), torch.randn(2, 4)
    before = network(x)
    assert compile_for(Compute(fast=True), COMPILE_FROM, network)
    assert [forward.__self__ for forward, _ in gpu] == list(blocks(network))
    assert all(options == {"dynamic": False, "options": {"deterministic": True}} for _, options in gpu)
    assert torch.equal(network(x), before)


@pytest.mark.parametrize(
    ("compute", "images"),
    [
        (Compute(fast=False), COMPILE_FROM),
        (Compute(fast=True), COMPILE_FROM - 1),
        (Compute(fast=True, device="cpu"), 10**9),
    ],
)
def test_nothing_is_compiled_for_few_images_or_without_a_gpu(gpu, compute, images, capsys):
    assert not compile_for(compute, images, Network()) and not gpu and not capsys.readouterr().out


@pytest.mark.parametrize("missing", ["triton", "compiler"])
def test_a_machine_that_cannot_compile_is_told_so(gpu, missing, monkeypatch, capsys):
    if missing == "triton":
        monkeypatch.setattr(compiled, "has_triton", lambda: False)
    else:
        monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    assert not compile_for(Compute(fast=True), COMPILE_FROM, Network()) and not gpu
    assert "install gcc" in capsys.readouterr().out
