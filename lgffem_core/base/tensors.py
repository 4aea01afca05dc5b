"""Tensors with a JSON header in one safetensors file, written whole or not at all, with a checksum over both."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lgffem_core.base.errors import StudyError
from lgffem_core.base.files import STAMP, atomic_path


def checksum(tensors: dict[str, Tensor], header: dict) -> str:
    """SHA-256 over the header and each tensor's name, type, shape and bytes, whatever their order."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def save_tensors(path: Path, tensors: dict[str, Tensor], header: dict) -> None:
    """Write tensors and a JSON header as safetensors, with a checksum over both, atomically.

    The same tensors and header give the same bytes. ``StudyError`` where the file cannot be written.
    """
    stored = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    stamp = json.dumps({"header": header, "sha256": checksum(stored, header)}, sort_keys=True)
    contents = save(stored, metadata={STAMP: stamp})
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(contents)


def load_tensors(path: Path, remedy: str = "Delete it: the same command makes it again.") -> tuple[dict, dict]:
    """Read what ``save_tensors`` wrote: the tensors by name, on the CPU, and the header.

    ``StudyError`` names a file that cannot be read or does not fit its checksum, and ends with ``remedy``.
    """
    try:
        with safe_open(path, "pt") as file:
            stamp = json.loads(file.metadata()[STAMP])
            tensors, header = {name: file.get_tensor(name) for name in file.keys()}, stamp["header"]
        if checksum(tensors, header) != stamp["sha256"]:
            raise ValueError("its checksum does not fit its contents")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise StudyError(f"{path}: is damaged or was not written by this study ({error}). {remedy}") from None
    return tensors, header


def read_header(path: Path, remedy: str = "Making it again.") -> dict | None:
    """The header of a file of ``save_tensors``, None where there is none or, said in a line, it is damaged."""
    if not path.exists():
        return None
    try:
        return load_tensors(path, remedy)[1]
    except StudyError as error:
        print(error)
        return None
