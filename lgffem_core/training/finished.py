"""A finished training run on disk: its weights, which carry the hash of all that they depend on, and its loss curve."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from lightning_fabric import Fabric

from lgffem_core.base.errors import StudyError
from lgffem_core.base.files import write_text
from lgffem_core.base.tensors import read_header, save_tensors

WEIGHTS = "model.safetensors"
COLUMNS = ["epoch", "loss", "lr"]  # of the loss curve; as CSV its numbers read back to the last bit


@dataclass(frozen=True)
class TrainedRun:
    """What a training run left: its weights, without those of a frozen backbone, and the loss curve."""

    weights: Path
    history: pd.DataFrame  # the loss curve: COLUMNS
    fingerprint: str


# Not by ``base.kept``: all processes compute, one of them writes, and the others read what it wrote.
def train_once(fabric: Fabric, folder: Path, identity: str, train: Callable[[], tuple[dict, list]]) -> TrainedRun:
    """The finished run in ``folder`` if it is the one that ``identity`` names, or else what ``train()`` gives.

    That is the weights by name and the history of epochs. They go to ``history.csv``, then ``model.safetensors``, whose
    presence says that the run is finished. Its header holds the history too: the CSV is a copy for readers.
    ``StudyError`` where the disk gives back something else than was written.
    """
    first = fabric.global_rank == 0
    finished = read_finished(folder, identity, writer=first)
    if finished:
        return finished
    state, history = train()
    if first:
        write_text(folder / "history.csv", pd.DataFrame(history, columns=COLUMNS).to_csv(index=False))
        save_tensors(folder / WEIGHTS, state, {"fingerprint": identity, "history": history})
    fabric.barrier()
    finished = read_finished(folder, identity, writer=False)
    if finished is None:
        raise StudyError(f"{folder}: the weights that were just written cannot be read back; check the disk.")
    return finished


def read_finished(folder: Path, identity: str, writer: bool = True) -> TrainedRun | None:
    """The finished run in ``folder`` if it is the one that ``identity`` names, or None.

    Damaged weights are named and count as not finished; the last checkpoint, or training, makes them again.
    A ``history.csv`` that is not what the weights' header says is named and written again by one of
    the processes, the ``writer``.
    """
    weights, csv = folder / WEIGHTS, folder / "history.csv"
    header = read_header(weights, "Making it again from the last checkpoint.")
    if header is None or header.get("fingerprint") != identity:
        return None
    history = pd.DataFrame(header["history"], columns=COLUMNS)
    text = history.to_csv(index=False)
    if writer and not (csv.is_file() and csv.read_bytes() == text.encode()):
        print(f"{csv}: is missing or was changed; written again from {weights.name}.")
        write_text(csv, text)
    return TrainedRun(weights, history, identity)
