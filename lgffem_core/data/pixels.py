"""Images as the network's augmentation first needs them, kept on disk so that each file is decoded once.

A file ``artifacts/<profile>/pixels/<data set>_<key>.u8`` holds a table of slots (``SLOT``), one an image, and their
pixels, those of the bytes that the index names by SHA-256. A checksum is written after the pixels of an image and held
against them whenever they are read. So a slot that a killed writer, another process or a bad disk left half-written
counts as empty, and its image is decoded again. What is kept and what is not changes no sample.
"""

import os
import shutil
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from lgffem_core.base.files import atomic_path, refusing, sha256_json
from lgffem_core.base.room import by_use, make_room
from lgffem_core.config.code_version import code_hash, lock_hash
from lgffem_core.config.study import Study
from lgffem_core.data import channel_order, files_census, images_root, patch_table
from lgffem_core.data.augment import Augment

SLOT = np.dtype([("height", "<u4"), ("width", "<u4"), ("check", "<u4")])  # a check of 0: nothing is kept there
GIB, SAMPLED = 1 << 30, 256


class Pixels:
    """The images of a table's rows, uint8 (H, W, 3), in one file; any number of processes may share it.

    Args:
        path: the file, as ``make_file`` left it or others have filled it since.
        count: of its slots.
        rows: the slot of each row, −1 for one that is not kept.
    """

    def __init__(self, path: Path, count: int, rows: np.ndarray):
        slots = np.fromfile(path, SLOT, count)
        self.path, self.rows, self.shapes = path, rows, np.stack([slots["height"], slots["width"]], 1).astype(np.int64)
        self.ends = slots.nbytes + np.cumsum(3 * self.shapes.prod(axis=1))

    def get(self, row: int, decode: Callable[[], np.ndarray]) -> np.ndarray:
        """A row's pixels; where they are not there, or damaged, what ``decode()`` gives, which is kept."""
        slot = int(self.rows[row])
        if slot < 0:
            return decode()
        height, width = self.shapes[slot].tolist()
        size, check = 3 * height * width, slot * SLOT.itemsize + SLOT.fields["check"][1]
        start = int(self.ends[slot]) - size
        try:
            with open(self.path, "rb", buffering=0) as file:  # each time: worker processes get copies of this object
                known = int.from_bytes(os.pread(file.fileno(), 4, check), "little")
                pixels = os.pread(file.fileno(), size, start) if known else b""
        except FileNotFoundError:  # others needed the room
            return decode()
        if known and len(pixels) == size and zlib.crc32(pixels, slot) == known:
            return np.frombuffer(pixels, np.uint8).reshape(height, width, 3)
        if known:
            print(f"{self.path}: is damaged at image {slot}, which is decoded again.")
        image = np.ascontiguousarray(decode())
        if image.shape == (height, width, 3):
            self.write((start, image.reshape(-1).data), (check, zlib.crc32(image, slot).to_bytes(4, "little")))
        return image

    def write(self, *parts: tuple[int, bytes | memoryview]) -> None:
        """Write each part at its place, one after the other; ``StudyError`` where the operating system refuses."""
        with suppress(FileNotFoundError), refusing(self.path, "written"):  # not there where others needed the room
            with open(self.path, "r+b", buffering=0) as file:
                for place, data in parts:
                    while len(data):  # a full disk takes a part, and refuses the rest
                        written = os.pwrite(file.fileno(), data, place)
                        place, data = place + written, data[written:]


def kept_pixels(study: Study, dataset: str, table: pd.DataFrame, transform: Augment) -> Pixels | None:
    """Where the images of ``table``'s rows are kept as ``transform`` needs them; None where they are not.

    That is where all images of the data set take more than compute.cache GiB, or more than half of what is free on the
    disk. The least recently used files of the profile make room. A row is not kept where its image is not among those
    of the index, or its file is no longer what the row says: it has to be read.
    """
    most = study.params.compute.cache * GIB
    if not most:
        return None
    images = patch_table(study, dataset).drop_duplicates("sha256")
    made_from = [images["sha256"].tolist(), channel_order(study, dataset), repr(transform.resize), lock_hash()]
    key = sha256_json([made_from, code_hash("import lgffem_core.data.loading")])[:16]
    path = study.artifacts / "pixels" / f"{dataset}_{key}.u8"
    if is_whole(path, len(images)):
        os.utime(path)
    else:
        shapes = image_shapes(images_root(study, dataset), images["path"].tolist(), transform, most)
        if shapes is None or not make_file(path, shapes, most):
            print(f"{dataset}: decoded anew each time; its pixels fit neither compute.cache nor half of the free disk.")
            return None
    now = table["path"].map(files_census(study, dataset, table["path"]))
    slots = pd.Index(images["sha256"]).get_indexer(table["sha256"])
    return Pixels(path, len(images), np.where(now == table["sha256"], slots, -1))


def is_whole(path: Path, count: int) -> bool:
    """True for a file of so many slots that has room for what they say."""
    if not path.is_file():
        return False
    slots = np.fromfile(path, SLOT, count)
    sizes = 3 * slots["height"].astype(np.int64) * slots["width"]
    return len(slots) == count and path.stat().st_size == slots.nbytes + sizes.sum()


def image_shapes(root: Path, paths: list[str], transform: Augment, most: int) -> np.ndarray | None:
    """(height, width) of each image as it is kept, else from its file's header; None where a sample says: too large."""
    if transform.resize:
        return np.tile([transform.resize.height, transform.resize.width], (len(paths), 1))
    sample = np.array([header_shape(root / path) for path in paths[:: 1 + len(paths) // SAMPLED]])
    if 3 * sample.prod(axis=1).mean() * len(paths) > 2 * most:  # a million headers on a network disk take long
        return None
    return np.array([header_shape(root / path) for path in paths])


def header_shape(path: Path) -> tuple[int, int]:
    """Height and width that an image file states; (0, 0) for one that is not to be opened, as reading it will tell."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except Exception:  # as in ``read_rgb``
        return 0, 0


def make_file(path: Path, shapes: np.ndarray, most: int) -> bool:
    """Make the file for images of these shapes, with nothing kept in it; False where it is too large."""
    slots = np.zeros(len(shapes), SLOT)
    slots["height"], slots["width"] = shapes.T
    path.parent.mkdir(parents=True, exist_ok=True)
    size = slots.nbytes + 3 * int(shapes.prod(axis=1).sum())
    if size > most or 2 * size > shutil.disk_usage(path.parent).free:
        return False
    make_room(by_use(path.parent, path.suffix), most - size)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(slots)
        file.truncate(size)
    return True
