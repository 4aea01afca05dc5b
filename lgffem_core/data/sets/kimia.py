"""Kimia Path24C: 24 whole-slide images, one class each (paper, section 4.1.1).

Training patches are ``train/s0 … s23/**/*.jpg``, whose file names repeat from scan to scan. Test patches
are ``test/s0_1.jpg`` or ``test/s0/s0_1.jpg``. Train and test come from the same slides, so ``group`` is
the scan.
"""

import re
from pathlib import Path, PurePosixPath

import pandas as pd

from lgffem_core.base.errors import RequestError
from lgffem_core.data.census import READ
from lgffem_core.data.listing import what_is_there
from lgffem_core.data.similar import near_miss
from lgffem_core.data.table import Row, build_table, image_files

SUFFIXES = READ["kimia"][1]
WHERE = "Kimia Path24C is distributed after registration at its authors' site; data.kimia.root holds train/ and test/"


def scan_of(relative: PurePosixPath) -> str | None:
    """The scan that a patch belongs to: its folder ``s7``, or its name ``s7_12.jpg``; None if neither."""
    folder = next((part for part in relative.parts[:-1] if re.fullmatch(r"s\d+", part)), None)
    name = re.match(r"(s\d+)_", relative.name)
    return folder or (name.group(1) if name else None)


def split_rows(root: Path, files: list[str], split: str, scans: list[str]) -> list[Row]:
    """Rows of one split of ``files``, in scan order s0, s1, …, and within a scan in the order of ``files``."""
    folder = root / split
    if not folder.is_dir():
        raise RequestError(f"data.kimia.root: {folder} is not there; {near_miss(root, split) or WHERE}.")
    by_scan: dict[str, list[str]] = {scan: [] for scan in scans}
    for path in (path for path in files if path.startswith(f"{split}/")):
        scan = scan_of(PurePosixPath(path.removeprefix(f"{split}/")))
        if scan not in by_scan:
            raise RequestError(
                f"{root / path}: belongs to {scan or 'no scan'}, but data.kimia.scans expects {scans[0]} … {scans[-1]}."
            )
        by_scan[scan].append(path)
    empty = [scan for scan, paths in by_scan.items() if not paths]
    if empty:
        searched = folder / empty[0] if (folder / empty[0]).is_dir() else folder
        raise RequestError(
            f"{folder}: scan {empty[0]} has no patches ({len(empty)} of {len(scans)} scans are empty or missing)"
            f"{what_is_there(searched, SUFFIXES)}; "
            "restore it, or set data.kimia.scans to the number of scans you have."
        )
    return [(path, scan, split, scan) for scan in scans for path in by_scan[scan]]


def layout(root: Path, scans: int = 24) -> tuple[list[Row], list[str]]:
    """The rows of a Kimia folder with scans s0 … s{scans−1}, train first, and the labels in their order.

    Raises ``RequestError`` where a split or a scan is missing, or a patch belongs to no expected scan.
    """
    names, files = [f"s{number}" for number in range(scans)], image_files("kimia", root)
    return split_rows(root, files, "train", names) + split_rows(root, files, "test", names), names


def patch_table(root: Path, scans: int = 24) -> pd.DataFrame:
    """The PatchTable of a Kimia folder, every file decoded; see ``layout``."""
    return build_table(root, *layout(root, scans))
