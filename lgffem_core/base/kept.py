"""What is computed once for what it depends on, and kept in a file."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from lgffem_core.base.tensors import load_tensors, read_header, save_tensors

Contents = tuple[dict[str, Tensor], dict]  # tensors by name, and a JSON header


def kept(path: Path, made_from: str, compute: Callable[[], Contents]) -> Contents:
    """The tensors and header in the file ``path``, which ``compute()`` gives where it was not made from the same.

    Args:
        made_from: hash of everything that the contents depend on; it stands in the header under this name.
        compute: called where there is no such file, or, said in a line, a damaged one; what it gives is saved.

    What is returned was read from the file, so that a first call and a later one give the same.
    ``StudyError`` where the file cannot be written, or the disk gives back something else.
    """
    header = read_header(path)
    if header is None or header.get("made_from") != made_from:
        tensors, header = compute()
        save_tensors(path, tensors, {**header, "made_from": made_from})
    return load_tensors(path)
