"""Checkpoints of a training run: one safetensors file each, written whole or not at all.

Tensors are named ``model/…``, ``loss/…``, ``optimizer/<i>/…`` and ``loss_optimizer/<i>/…``; the header
holds the step, the history of epochs and the fingerprint of everything the run depends on.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lgffem_core.errors import StudyError
from lgffem_core.files import atomic_path

KEPT = 2  # checkpoints kept: the newest, and the one before it


@dataclass
class Checkpoint:
    """The state of a run after ``step`` optimisation steps."""

    step: int
    fingerprint: str
    history: list[dict] = field(default_factory=list)  # one entry an epoch: epoch, loss, lr
    tensors: dict[str, Tensor] = field(default_factory=dict)


def flatten_optimizer(name: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's moments and step counts as flat tensors, by position of the parameter."""
    state = optimizer.state_dict()["state"]
    return {f"{name}/{i}/{key}": value for i, entry in state.items() for key, value in entry.items()}


def restore_optimizer(name: str, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what ``flatten_optimizer`` gave; a parameter without its state is an error."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        owner, _, rest = key.partition("/")
        if owner == name:
            index, _, leaf = rest.partition("/")
            state.setdefault(int(index), {})[leaf] = value
    current = optimizer.state_dict()
    expected = sum(len(group["params"]) for group in current["param_groups"])
    if len(state) != expected:
        raise StudyError(f"checkpoint: {name} holds {len(state)} of {expected} parameters' states.")
    optimizer.load_state_dict({"state": state, "param_groups": current["param_groups"]})


def checkpoint_files(folder: Path) -> list[Path]:
    """Checkpoints in ``folder``, newest first."""
    return sorted(folder.glob("step_*.safetensors"), reverse=True)


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint atomically, then remove all but the two newest."""
    path = folder / f"step_{checkpoint.step:09d}.safetensors"
    header = {"step": checkpoint.step, "fingerprint": checkpoint.fingerprint, "history": checkpoint.history}
    save_tensors(path, checkpoint.tensors, header)
    for old in checkpoint_files(folder)[KEPT:]:
        old.unlink()
    return path


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; ``StudyError`` names a file that is damaged."""
    tensors, header = load_tensors(path)
    return Checkpoint(header["step"], header["fingerprint"], header["history"], tensors)


def newest_checkpoint(folder: Path, fingerprint: str) -> Checkpoint | None:
    """The newest readable checkpoint of the run that ``fingerprint`` names, or None.

    A damaged file, and a run with other parameters, code or data, are named on the way.
    """
    for path in checkpoint_files(folder):
        try:
            checkpoint = load_checkpoint(path)
        except StudyError as error:
            print(f"{error} Going on from the checkpoint before it.")
            continue
        if checkpoint.fingerprint == fingerprint:
            return checkpoint
        print(f"{path.name}: was made with other parameters, code or data; training starts anew.")
        return None
    return None


def save_tensors(path: Path, tensors: dict[str, Tensor], header: dict) -> None:
    """Write tensors and a JSON header as safetensors, atomically."""
    stored = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(stored, temporary, metadata={"header": json.dumps(header, sort_keys=True)})


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Read what ``save_tensors`` wrote: the tensors on the CPU, and the header."""
    try:
        with safe_open(path, "pt") as file:
            header = json.loads(file.metadata()["header"])
            return {name: file.get_tensor(name) for name in file.keys()}, header
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise StudyError(f"{path}: is damaged or was not written by this study ({error}).") from None
