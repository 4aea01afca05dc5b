"""Which blocks of a network are compiled, and when; on a processor, that they compute the same.

On a GPU that was measured.
"""

import pytest
import torch
from torch import nn

from lgffem_core.config.params import Compute
from lgffem_core.model import compiled
from lgffem_core.model.compiled import COMPILE_FROM, COMPILE_FROM_ON_CPU, blocks, compile_blocks, compile_for
from lgffem_core.systems.lgffem.neck import NODES, FusionNode


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
        (Compute(fast=True, device="cpu", precision="bf16-mixed"), COMPILE_FROM_ON_CPU - 1),
        (Compute(fast=False, device="cpu", precision="bf16-mixed"), 10**9),
        (Compute(fast=True, device="cpu", precision="32-true"), 10**9),
    ],
)
def test_nothing_is_compiled_for_few_images_or_without_gain(gpu, compute, images, capsys):
    assert not compile_for(compute, images, Network()) and not gpu and not capsys.readouterr().out


ON_CPU = Compute(fast=True, device="cpu", precision="bf16-mixed")


def test_on_a_processor_the_blocks_that_a_network_names_are_compiled(gpu, monkeypatch):
    monkeypatch.setattr(compiled.shutil, "which", lambda name: "/usr/bin/g++" if name == "g++" else None)
    monkeypatch.setattr(compiled.Path, "is_file", lambda path: path.name == "Python.h")
    network = Network()
    assert compile_for(ON_CPU, COMPILE_FROM_ON_CPU, network, nn.Linear(2, 2))
    assert [forward.__self__ for forward, _ in gpu] == [network.head]
    assert not compile_for(ON_CPU, 10**9, nn.Sequential(*(Block() for _ in range(9))))  # names none


@pytest.mark.parametrize("missing", ["compiler", "headers"])
def test_a_processor_without_what_it_compiles_with_is_told_so(gpu, missing, monkeypatch, capsys):
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None if missing == "compiler" else "/usr/bin/g++")
    monkeypatch.setattr(compiled.Path, "is_file", lambda path: missing == "compiler")
    assert not compile_for(ON_CPU, COMPILE_FROM_ON_CPU, Network()) and not gpu
    assert "install g++ and python3-dev" in capsys.readouterr().out


@pytest.mark.skipif(compiled.missing_for(False) is not None, reason="no C++ compiler, or no headers of Python")
def test_compiled_on_a_processor_a_node_of_the_neck_gives_the_same(monkeypatch):
    """Values and gradients in bfloat16, against those in float32; a second call gives the same bits."""
    monkeypatch.setattr(torch._inductor.config, "compile_threads", 1)  # no processes that would import torch first
    torch.manual_seed(0)
    node = FusionNode(NODES["P4_2"], 16, 2, 1e-4, "channels", True)
    maps = {name: torch.randn(2, 16, side, side).bfloat16() for name, side in (("P4_0", 4), ("P3_2", 8))}

    def found(half: bool) -> list[torch.Tensor]:
        node.zero_grad()
        given = {name: (x if half else x.float()).requires_grad_() for name, x in maps.items()}
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            value = node(given)
        value.float().square().sum().backward()
        return [value.detach().float(), *(p.grad.clone() for p in node.parameters())]

    plain = found(half=False)
    compile_blocks(Holder(node), named_only=True)
    quick = found(half=True)
    for theirs, ours in zip(plain, quick, strict=True):
        scale = theirs.abs().max().clamp(min=1e-3)
        torch.testing.assert_close(ours / scale, theirs / scale, rtol=0, atol=0.05)
    assert all(torch.equal(first, second) for first, second in zip(quick, found(half=True), strict=True))


class Holder(nn.Module):
    blocks = (FusionNode,)

    def __init__(self, node):
        super().__init__()
        self.node = node


@pytest.mark.parametrize("missing", ["triton", "compiler"])
def test_a_machine_that_cannot_compile_is_told_so(gpu, missing, monkeypatch, capsys):
    if missing == "triton":
        monkeypatch.setattr(compiled, "has_triton", lambda: False)
    else:
        monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    assert not compile_for(Compute(fast=True), COMPILE_FROM, Network()) and not gpu
    assert "install gcc" in capsys.readouterr().out
