"""Checkpoints of a training run: one safetensors file each, written whole or not at all.

Tensors are named by the part that is trained, as ``model/…`` or ``loss/…``, and ``optimizer/<i>/…``; the header
holds the step, the history of epochs, the losses of the epoch under way and the fingerprint of everything
the run depends on. A checksum over both is kept in the file, and the same state gives the same bytes.
"""

from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from torch import Tensor

from lgffem_core.base.errors import StudyError
from lgffem_core.base.files import remove_file
from lgffem_core.base.tensors import load_tensors, save_tensors

KEPT = 2  # checkpoints kept: the newest, and the one before it

Layout = dict[str, tuple[torch.Size, torch.dtype]]  # what tensors a state consists of


@dataclass
class Checkpoint:
    """The state of a run after ``step`` optimisation steps."""

    step: int
    fingerprint: str
    history: list[dict] = field(default_factory=list)  # one entry an epoch: epoch, loss, lr
    tensors: dict[str, Tensor] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)  # of the steps since the last epoch's end
    precision: dict = field(default_factory=dict)  # fp16's loss scale and its growth; empty for other precisions
    arithmetic: str = ""  # processor and precision that made it, as "cuda bf16-mixed": others go on to other bits
    untouched: bool = False  # fp16 has not let the optimiser take a step yet


def flatten_optimizer(name: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's moments and step counts as flat tensors, by position of the parameter."""
    state = optimizer.state_dict()["state"]
    return {f"{name}/{i}/{key}": value for i, entry in state.items() for key, value in entry.items()}


def optimizer_layout(name: str, optimizer: torch.optim.Optimizer) -> Layout:
    """What ``flatten_optimizer`` gives once every parameter has taken a step.

    A step of the same class and settings with small stand-ins tells which tensors there are: those of a
    stand-in's own shape (the moments) have the parameter's shape, the others (the step count) their own.
    """
    kind, layout, position = type(getattr(optimizer, "optimizer", optimizer)), {}, 0
    for group in optimizer.param_groups:
        small = [torch.nn.Parameter(parameter.new_zeros(2, 3)) for parameter in group["params"]]
        for stand_in in small:
            stand_in.grad = torch.ones_like(stand_in)
        probe = kind(small)
        probe.param_groups[0].update({key: value for key, value in group.items() if key != "params"})
        probe.step()
        for parameter, stand_in in zip(group["params"], small, strict=True):
            for key, value in probe.state[stand_in].items():
                shape = parameter.shape if value.shape == stand_in.shape else value.shape
                layout[f"{name}/{position}/{key}"] = (shape, value.dtype)
            position += 1
    return layout


def restore_optimizer(name: str, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what ``flatten_optimizer`` gave; ``check_layout`` tells before whether it is whole."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        owner, _, rest = key.partition("/")
        if owner == name:
            index, _, leaf = rest.partition("/")
            state.setdefault(int(index), {})[leaf] = value
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, own in state.items():  # a fused step takes numbers as they lie in memory, and a file has but one order
        alike = parameters[index]
        own |= {leaf: torch.empty_like(alike).copy_(value) for leaf, value in own.items() if value.shape == alike.shape}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def layout_of(tensors: dict[str, Tensor]) -> Layout:
    """Shape and type of each tensor."""
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def check_layout(tensors: dict[str, Tensor], expected: Layout, where: str) -> None:
    """``StudyError`` unless ``tensors`` are those of ``expected``: none missing, superfluous or of another shape."""
    found = layout_of(tensors)
    faults = {
        "missing": expected.keys() - found.keys(),
        "superfluous": found.keys() - expected.keys(),
        "of another shape or type": {name for name in expected.keys() & found.keys() if expected[name] != found[name]},
    }
    said = [f"{len(names)} {fault}, e.g. {min(names)}" for fault, names in faults.items() if names]
    if said:
        raise StudyError(f"{where}: its tensors are not this run's ({'; '.join(said)}); delete it and start again.")


def checkpoint_files(folder: Path) -> list[Path]:
    """Checkpoints in ``folder``, newest first."""
    return sorted(folder.glob("step_*.safetensors"), reverse=True)


def checkpoint_path(folder: Path, step: int) -> Path:
    """The file of the checkpoint after ``step`` steps."""
    return folder / f"step_{step:09d}.safetensors"


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint atomically, then remove all but it and the one before it.

    Files of later steps go too: they are damaged or another run's, or this run would have gone on from them.
    """
    path = checkpoint_path(folder, checkpoint.step)
    header = {key: value for key, value in vars(checkpoint).items() if key != "tensors"}
    save_tensors(path, checkpoint.tensors, header)
    files = [file for file in checkpoint_files(folder) if file.is_file()]
    kept = [file for file in files if file.name <= path.name][:KEPT]
    for file in files:
        if file not in kept:
            remove_file(file)
    return path


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; ``StudyError`` names a file that is damaged."""
    tensors, header = load_tensors(path, remedy="Going on without it.")
    if header.keys() != {entry.name for entry in fields(Checkpoint)} - {"tensors"}:
        raise StudyError(f"{path}: is no checkpoint of this study. Going on without it.")
    return Checkpoint(**header, tensors=tensors)


def newest_checkpoint(folder: Path, fingerprint: str) -> Checkpoint | None:
    """The newest valid checkpoint of the run that ``fingerprint`` names, or None.

    A damaged file, and a run with other parameters, code or data, are named on the way.
    """
    for path in checkpoint_files(folder):
        try:
            checkpoint = load_checkpoint(path)
        except StudyError as error:
            print(error)
            continue
        if checkpoint.fingerprint == fingerprint:
            return checkpoint
        print(f"{path.name}: was made with other parameters, code or data; it is not used.")
    return None
