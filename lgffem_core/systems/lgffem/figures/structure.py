"""What a model is made of, read off the model itself: the steps of its units, and the shapes that occur.

The steps come from a symbolic trace of a unit's ``forward``, so that their order is the order in which they
are computed. A module or a function that has no name here is an error: it would otherwise be drawn wrong.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from lgffem_core.model.layers import ChannelNorm, DepthwiseDownsample, DepthwiseUpsample, ResponseNorm
from lgffem_core.systems.lgffem.aggregators import WidthResponseNorm, attend
from lgffem_core.systems.lgffem.head import GeM
from lgffem_core.systems.lgffem.model import LGFFEM, untouched
from lgffem_core.systems.lgffem.neck import INPUTS

GATE = "gate"


class Step(NamedTuple):
    """One operation of a unit, in the paper's symbols where it has one."""

    path: str  # the module's name inside the unit, or the function's
    symbol: str  # "PW", "LN", "GeM", …
    sizes: str  # "512→256", or what else the module holds as a number
    made_by: str  # the class or function
    source: int  # the step whose output comes in; -1 is the unit's input
    skips: int | None = None  # the gate alone: the step whose output is X


def convolution(module: nn.Conv2d | nn.ConvTranspose2d) -> tuple[str, str, str]:
    """Symbol, sizes and class of a point-wise, depth-wise or ordinary convolution."""
    into, out = module.in_channels, module.out_channels
    kernel = "×".join(map(str, module.kernel_size))
    symbol = "PW" if kernel == "1×1" and module.groups == 1 else f"conv {kernel}"
    if module.groups == into == out:
        symbol = f"DW {kernel}"
    ratio = f" (÷{into // out})" if into > out and into % out == 0 else ""
    stride = f", stride {module.stride[0]}" if module.stride[0] > 1 else ""
    bias = "" if module.bias is not None else ", no bias"
    name = "ConvTranspose2d" if isinstance(module, nn.ConvTranspose2d) else "Conv2d"  # what quick ones stand for
    return symbol, f"{into}→{out}{ratio}", f"{name}{stride}{bias}"


def named(symbol: str, sizes: Callable[[nn.Module], str]) -> Callable[[nn.Module], tuple[str, str, str]]:
    return lambda module: (symbol, sizes(module), type(module).__name__)


MODULES: dict[type, Callable[[nn.Module], tuple[str, str, str]]] = {
    nn.Conv2d: convolution,
    DepthwiseDownsample: convolution,
    DepthwiseUpsample: convolution,
    nn.Linear: named("FC", lambda m: f"{m.in_features}→{m.out_features}"),
    ChannelNorm: lambda module: ("LN", f"{module.weight.numel()}", "LayerNorm2d"),  # what it is known as
    nn.BatchNorm1d: named("BN", lambda m: f"{m.num_features}"),
    nn.Dropout: named("Dropout", lambda m: f"{m.p:g}"),
    nn.GELU: named("GELU", lambda m: ""),
    ResponseNorm: named("GRN", lambda m: f"{m.weight.numel()}"),
    WidthResponseNorm: named("GRN over width", lambda m: f"{m.weight.numel()}"),
    GeM: named("GeM", lambda m: f"p = {m.p.item():.2f}"),
}
FUNCTIONS: dict[Callable, tuple[str, str]] = {F.normalize: ("L2", "normalize"), attend: (GATE, "attend")}


class UnitTracer(fx.Tracer):
    """Follows ``nn.Sequential`` inwards and takes every other module as one step."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return not isinstance(module, nn.Sequential)


def steps(unit: nn.Module) -> list[Step]:
    """The operations of an aggregator, a mini-head or a lateral projection, in the order of computation.

    Raises ``TypeError`` for a module or function without a name here, for which the drawing has no box.
    """
    found, place = [], {}
    for node in UnitTracer(autowrap_functions=(attend,)).trace(unit).nodes:
        if node.op == "placeholder":
            place[node] = -1
        elif node.op == "call_module" and isinstance(unit.get_submodule(node.target), nn.Identity):
            place[node] = place[node.args[0]]
        elif node.op == "call_module":
            module = unit.get_submodule(node.target)
            if type(module) not in MODULES:
                raise TypeError(f"{type(unit).__name__}.{node.target} is a {type(module).__name__}: no box for it")
            found.append(Step(node.target, *MODULES[type(module)](module), place[node.args[0]]))
            place[node] = len(found) - 1
        elif node.op == "call_function" and node.target in FUNCTIONS:
            symbol, name = FUNCTIONS[node.target]
            inputs = [place[argument] for argument in node.args if argument in place]
            gate = symbol == GATE
            found.append(Step(name, symbol, "", name, inputs[-1], inputs[0] if gate else None))
            place[node] = len(found) - 1
        elif node.op not in ("get_attr", "output"):
            raise TypeError(f"{type(unit).__name__} calls {node.target}: the drawing has no box for it")
    if [step.source for step in found] != list(range(-1, len(found) - 1)):
        raise TypeError(f"{type(unit).__name__} is no chain of steps; the drawing knows chains alone")
    return found


def observed_shapes(model: LGFFEM, image_size: int) -> dict[str, tuple[int, ...]]:
    """Shapes without the batch axis, seen while one blank image of ``image_size`` pixels passes the model.

    Returns shapes under the names ``image``, ``stage1`` …, ``lateral1`` …, ``layer1:P3_1`` … (every node of
    every layer, its inputs included), ``head1`` … and ``embedding``. The model's weights, running statistics
    and modes are left as they were.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def note(names: list[str], tensors) -> None:
        tensors = [tensors] if isinstance(tensors, Tensor) else tensors
        shapes.update({name: tuple(t.shape[1:]) for name, t in zip(names, tensors, strict=True)})

    given, made = {}, {model: ["embedding"], model.backbone: [f"stage{i + 1}" for i in range(len(INPUTS))]}
    made |= {module: [f"lateral{i}"] for i, module in enumerate(model.neck.lateral, start=1)}
    for i, layer in enumerate(model.neck.layers, start=1):
        given[layer] = [f"layer{i}:{name}" for name in INPUTS]
        made |= {node: [f"layer{i}:{name}"] for name, node in layer.nodes.items()}
    made |= {head: [f"head{i}"] for i, head in enumerate(model.head.mini_heads, start=1)}
    hooks = [m.register_forward_pre_hook(lambda module, inputs: note(given[module], inputs[0])) for m in given]
    hooks += [m.register_forward_hook(lambda module, _, output: note(made[module], output)) for m in made]
    image = torch.zeros(1, 3, image_size, image_size, device=next(model.parameters()).device)
    note(["image"], image)
    try:
        with untouched(model), torch.no_grad():
            model.eval()(image)
    finally:
        for hook in hooks:
            hook.remove()
    return shapes
