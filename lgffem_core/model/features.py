"""What a frozen backbone gave, kept on disk: a batch that any stage of a run has seen before is not computed again.

A frozen network gives the same maps of the same images, so that kept ones are those that would be computed, to the
last bit, and no result depends on what is kept. They are known by the batch's values, by the weights, the precision,
the code, the packages and the processor, not by where the images came from: an augmented batch that comes again is
found as well as one that several models embed. It does in the trainings of two variants, which differ behind the
backbone, and in the ledger's. Only what a processor computes is kept, not what a GPU does.

A file ``artifacts/<profile>/features/<key>.maps`` holds a batch's maps behind a checksum over the key and them: one
that a lost power left half-written counts as none, and so does another batch's.
"""

import hashlib
import io
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lgffem_core.base.files import atomic_path, refusing, sha256_json
from lgffem_core.base.room import by_use, make_room
from lgffem_core.config.code_version import code_hash, lock_hash
from lgffem_core.config.machine import machine
from lgffem_core.config.study import Study

Maps = list[Tensor]  # 4 × (N, Cᵢ, Hᵢ, Wᵢ)
GIB, CHECK = 1 << 30, 4  # bytes; of a checksum
SUFFIX = ".maps"
ARITHMETIC = ("ATEN_", "DNNL_", "MKL_", "ONEDNN_")  # how variables begin that choose a processor's instructions


class Features:
    """Maps on disk by what made them; the least recently used make room for others.

    Attributes:
        room: bytes that may be kept in ``folder``; 0 outside of ``keeping``.
        left: bytes to be written before the folder is looked at again: other processes write there, too.
    """

    def __init__(self):
        self.folder, self.room, self.left, self.made_from = Path(), 0, 0, b""
        self.weights: WeakKeyDictionary[nn.Module, bytes] = WeakKeyDictionary()

    @contextmanager
    def keeping(self, folder: Path, gib: float) -> Iterator[None]:
        """Keep up to ``gib`` GiB of what backbones give inside; their weights must not change there."""
        before = self.folder, self.room, self.left, self.made_from
        self.folder, self.room, self.left = folder, int(gib * GIB), 0
        if self.room:
            chosen = {name: value for name, value in os.environ.items() if name.startswith(ARITHMETIC)}
            made_from = [code_hash("import lgffem_core.model.backbone"), lock_hash(), machine("cpu"), chosen]
            self.made_from = sha256_json([made_from, torch.get_num_threads()]).encode()
        try:
            yield
        finally:
            self.folder, self.room, self.left, self.made_from = before
            self.weights.clear()

    def of(self, backbone: nn.Module, images: Tensor, compute: Callable[[], Maps]) -> Maps:
        """The maps of a batch (N, 3, S, S): kept ones, or else what ``compute()`` gives."""
        if not self.room or images.device.type != "cpu":
            return compute()
        path = self.folder / f"{self.key(backbone, images)}{SUFFIX}"
        maps = read_maps(path)
        if maps is None:
            maps = compute()
            self.keep(path, maps)
        return maps

    def key(self, backbone: nn.Module, images: Tensor) -> str:
        """Hash of all that a batch's maps depend on."""
        if backbone not in self.weights:
            self.weights[backbone] = digest(repr(backbone).encode(), *backbone.state_dict().values()).encode()
        half = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        seen = f"{images.shape} {images.dtype} {half}".encode()
        return digest(self.made_from, seen, self.weights[backbone], images)

    def keep(self, path: Path, maps: Maps) -> None:
        """Write a batch's maps where there is room for them; ``StudyError`` where the operating system refuses."""
        contents = io.BytesIO(bytes(CHECK))
        contents.seek(CHECK)
        torch.save(maps, contents)  # which keeps how they lie in memory: sums over them depend on it
        contents = contents.getbuffer()
        contents[:CHECK] = checksum(path, contents[CHECK:])
        if self.left < len(contents):
            self.left = self.make_room(len(contents))
        if self.left >= len(contents):
            self.left -= len(contents)
            with atomic_path(path, lasting=False) as temporary:
                temporary.write_bytes(contents)

    def make_room(self, size: int) -> int:
        """Delete what was used least recently until ``size`` bytes fit, and an eighth of all room; gives what is left.

        Of the disk's free space, no more than half counts as room.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        files = by_use(self.folder, SUFFIX)
        room = min(self.room, sum(kept for _, kept, _ in files) + shutil.disk_usage(self.folder).free // 2)
        total = make_room(files, room - max(size, room // 8))
        return max(size, (room - total) // 2) if size <= room - total else 0


def kept_features(study: Study) -> AbstractContextManager:
    """Where a study's backbones may keep their maps: as much as ``compute.features`` says."""
    return FEATURES.keeping(study.artifacts / "features", study.params.compute.features)


def checksum(path: Path, contents: memoryview) -> bytes:
    """Of a batch's key, which is the file's name, and its maps as they are written."""
    return zlib.crc32(contents, zlib.crc32(path.stem.encode())).to_bytes(CHECK, "little")


def read_maps(path: Path) -> Maps | None:
    """The maps in a file, None where there is none or it is damaged; ``StudyError`` where it cannot be read."""
    try:
        with refusing(path, "read"):
            contents = memoryview(path.read_bytes())
    except FileNotFoundError:
        return None
    with suppress(OSError):  # of a disk that is read-only
        os.utime(path)
    if len(contents) <= CHECK or checksum(path, contents[CHECK:]) != contents[:CHECK]:
        print(f"{path}: is damaged; its batch is computed again.")
        return None
    return torch.load(io.BytesIO(contents[CHECK:]), weights_only=True)


def digest(*parts: bytes | Tensor) -> str:
    """SHA-256 over bytes and tensors, in hexadecimal."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part if isinstance(part, bytes) else part.detach().contiguous().view(-1).view(torch.uint8).numpy())
    return found.hexdigest()


FEATURES = Features()  # of this process
