"""Reading files of weights into a network: what is in them, whether it fits, and nothing of it executed."""

import re
from pathlib import Path

import torch
from timm.models import load_state_dict
from torch import Tensor, nn

from lgffem_core.base.errors import RequestError

OLD_NAMES = re.compile(r"\.(norm|conv)\.([12])\.")  # torchvision's DenseNet files: timm has ".norm1." for ".norm.1."


def load_local_weights(network: nn.Module, path: Path, key: str = "model.backbone") -> None:
    """Fill a network from a .safetensors or .pth file in timm's naming; ``key`` is the section that names it."""
    stored = {OLD_NAMES.sub(r".\1\2.", name): tensor for name, tensor in read_weights(path, key).items()}
    fill(network, stored, path, key)


def fill(network: nn.Module, stored: dict[str, Tensor], path: Path, key: str) -> None:
    """Give a network the weights that ``path`` holds under timm's names; ``RequestError`` where they do not fit.

    timm joins nested names with "_" in a feature extractor ("blocks.0" becomes "blocks_0"), so names are
    compared with every "." replaced. Each weight of the network must be in the file, in its shape and finite; what
    the file has beside them (a classifier) is left out.
    """
    by_name = {name.replace(".", "_"): tensor for name, tensor in stored.items()}
    state = network.state_dict()
    for name, tensor in state.items():
        found = by_name.get(name.replace(".", "_"))
        if found is None and name.endswith("num_batches_tracked"):
            continue  # a counter that BatchNorm with a fixed momentum does not read, and that some files leave out
        if fault := weight_fault(found, tensor):
            raise RequestError(
                f"{key}.weights: in {path.name}, {name} {fault}; these are not the weights of this "
                f"{key.rpartition('.')[2]}, or not under timm's names (the file's first is {next(iter(stored), None)})."
            )
        found = found.to(torch.float32) if found.is_floating_point() else found
        if not found.isfinite().all():
            raise RequestError(
                f"{key}.weights: in {path.name}, {name} holds {int((~found.isfinite()).sum())} values that are not "
                "finite; the file is damaged, or was kept from a training that failed: get another."
            )
        state[name] = found
    network.load_state_dict(state)


def weight_fault(found: Tensor | None, wanted: Tensor) -> str | None:
    """What is wrong with a weight of a file, in words; None where it fits."""
    if found is None or found.is_meta:  # a tensor without values
        return "is missing"
    if found.layout != torch.strided:
        return "is sparse"
    if found.shape != wanted.shape:
        return f"has shape {tuple(found.shape)} for {tuple(wanted.shape)}"
    if found.is_floating_point() != wanted.is_floating_point():  # a quantised weight would be taken for its numbers
        return f"is {str(found.dtype).removeprefix('torch.')} for {str(wanted.dtype).removeprefix('torch.')}"
    return None


def read_weights(path: Path, key: str) -> dict[str, Tensor]:
    """The tensors of a .safetensors or .pth file by name; nothing in it is executed.

    ``RequestError`` names ``key`` and says what to do where there is no file, or none that can be read.
    """
    if not path.is_file():
        raise RequestError(f"{key}.weights: {path} is not a file.")
    try:
        stored = load_state_dict(str(path), weights_only=True)
        return {name: tensor for name, tensor in stored.items() if isinstance(tensor, Tensor)}
    except Exception as error:  # safetensors, pickle and zip each have exceptions of their own
        objects = python_objects(path)
        if objects:
            reason = f"it holds Python objects beside the weights, {', '.join(objects[:3])}, which are never loaded"
            remedy = "save the state dict alone, with torch.save or safetensors"
        else:
            reason, remedy = unread(error), "get it again, as .safetensors or .pth"
        raise RequestError(f"{key}.weights: {path} cannot be read as weights ({reason}); {remedy}.") from error


def unread(error: Exception) -> str:
    """Why a file of weights could not be read, for a sentence: torch's names for it speak of something else."""
    name = type(error).__name__
    writer = "safetensors" if name == "SafetensorError" else "torch.save"
    known = ("SafetensorError", "UnpicklingError", "RuntimeError", "EOFError")
    return f"cut off, or not written by {writer}" if name in known else name


def python_objects(path: Path) -> list[str]:
    """Classes and functions that unpickling a .pth would import, beside tensors; none where it is no such file."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # damaged, or of another format
        return []
