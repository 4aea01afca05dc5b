"""Patches that were cut before, with their places: a folder a slide, or a set's own layout."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from lgffem_core.base.errors import StudyError, one_line
from lgffem_core.data.decoding import decode_whole

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif")
COORDINATES = "coordinates.csv"  # file, x, y; without it, names end in _<x>_<y>
PLACE = re.compile(r"(?:.*[^_-])?[_-]x?(\d+)[_-]y?(\d+)")  # not "_-5_0", whose sign would be lost
ON_GRID = 0.01  # of a step, by which a patch may be off the grid


class Patches:
    """A sequence of patches, uint8 (H, W, 3) RGB, each decoded when it is asked for.

    Args:
        files: an image each.
        positions: (N, 2), row and column; see ``data.records``.
        mpp: µm a pixel, where it is known.

    Attributes:
        pixels: along a side of a patch; None where the first is not square.
    """

    overview = None  # nobody looked for tissue

    def __init__(self, files: Sequence[Path], positions: np.ndarray, mpp: float | None = None):
        self.files, self.positions, self.mpp = list(files), positions.astype(np.float32), mpp
        height, width = decoded(self.files[0]).shape[:2]
        self.pixels = width if width == height else None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> np.ndarray:
        return decoded(self.files[number])


def decoded(path: Path) -> np.ndarray:
    """An image, uint8 (H, W, 3) RGB; ``StudyError`` where it cannot be decoded whole."""
    try:
        with Image.open(path) as image:
            decode_whole(image, path)
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error …
        reason = "it is no image" if "cannot identify" in str(error) else one_line(error)
        raise StudyError(f"{path}: cannot be decoded ({reason}); restore it.") from None


def of_folder(folder: Path, files: Sequence[Path], step: float | None, mpp: float | None) -> Patches:
    """The patches in a folder, by their coordinates: x to the right and y down, of any unit.

    Args:
        step: from one patch to the next, in that unit; None: the smallest that occurs, if all others are on its grid.

    ``StudyError`` where a patch has no coordinates or shares them, or there is no such grid.
    """
    table = folder / COORDINATES
    places = read_coordinates(table, files) if table.is_file() else in_names(files)
    places = places - places.min(axis=0)
    places = places / (step or spacing(places, folder))
    first: dict[tuple, Path] = {}
    for place, file in zip(map(tuple, places), files, strict=True):
        if place in first:
            raise StudyError(f"{folder}: {first[place].name} and {file.name} have the same coordinates; keep one.")
        first[place] = file
    return Patches(files, places[:, ::-1], mpp)


def in_names(files: Sequence[Path]) -> np.ndarray:
    """x and y (N, 2) as the files' names end."""
    found = [PLACE.fullmatch(file.stem) for file in files]
    if None in found:
        raise StudyError(
            f"{files[found.index(None)]}: its name does not end in _<x>_<y>, and there is no {COORDINATES} beside it; "
            "write that (file, x, y), or rename the patches."
        )
    return np.array([[int(number) for number in each.groups()] for each in found], float)


def read_coordinates(table: Path, files: Sequence[Path]) -> np.ndarray:
    """x and y (N, 2) of ``files`` in a CSV file with columns file, x, y."""
    try:
        rows = pd.read_csv(table, dtype={"file": str})
        places = rows.set_index("file")[["x", "y"]].astype(float)
        if not np.isfinite(places.to_numpy()).all():
            raise ValueError("a coordinate is missing")
    except (ValueError, KeyError) as error:
        said = one_line(error)
        raise StudyError(f"{table}: must have columns file, x, y, the last two of numbers ({said}); mend it.") from None
    names = [file.name for file in files]
    if places.index.has_duplicates or (lacking := set(names) - set(places.index)):
        twice = places.index[places.index.duplicated()]
        said = f"names {twice[0]} twice" if len(twice) else f"does not name {min(lacking)}, which lies beside it"
        raise StudyError(f"{table}: {said}; mend it.")
    return places.loc[names].to_numpy()


def spacing(places: np.ndarray, folder: Path) -> float:
    """The smallest distance along an axis, (N, 2) from 0 on; ``StudyError`` where others are no multiples of it."""
    gaps = np.concatenate([np.diff(np.unique(axis)) for axis in places.T])
    if not len(gaps):
        return 1.0  # a single patch
    off = np.abs(places / gaps.min() - np.rint(places / gaps.min())).max()
    if off > ON_GRID:
        raise StudyError(
            f"{folder}: its patches are on no grid of {gaps.min():g}, their smallest distance; say how far it is from "
            "one patch to the next with --set slides.step=…"
        )
    return float(gaps.min())


def in_order(files: Sequence[Path], mpp: float | None) -> Patches:
    """Patches whose places are not known, row by row on a square grid in their order. An assumption: say that it is."""
    columns = int(np.ceil(np.sqrt(len(files))))
    numbers = np.arange(len(files))
    return Patches(files, np.stack([numbers // columns, numbers % columns], axis=1), mpp)
