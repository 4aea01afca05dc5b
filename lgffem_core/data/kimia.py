"""Kimia Path24C: 24 whole-slide images, one class each (paper, section 4.1.1).

Training patches are ``train/s0 … s23/**/*.jpg``, whose file names repeat from scan to scan. Test patches
are ``test/s0_1.jpg`` or ``test/s0/s0_1.jpg``. Train and test come from the same slides, so ``group`` is
the scan.
"""

import re
from pathlib import Path

import pandas as pd

from lgffem_core.data.census import READ
from lgffem_core.data.table import Row, build_table, image_files
from lgffem_core.errors import RequestError

SUFFIXES = READ["kimia"][1]
WHERE = "Kimia Path24C is distributed after registration at its authors' site; data.kimia.root holds train/ and test/"


def scan_of(relative: Path) -> str | None:
    """The scan that a patch belongs to: its folder ``s7``, or its name ``s7_12.jpg``; None if neither."""
    folder = next((part for part in relative.parts[:-1] if re.fullmatch(r"s\d+", part)), None)
    name = re.match(r"(s\d+)_", relative.name)
    return folder or (name.group(1) if name else None)


def split_rows(root: Path, split: str, scans: list[str]) -> list[Row]:
    """Rows of one split, in scan order s0, s1, …, and in natural order of names within a scan."""
    folder = root / split
    if not folder.is_dir():
        raise RequestError(f"data.kimia.root: {folder} is not there; {WHERE}.")
    by_scan: dict[str, list[Path]] = {scan: [] for scan in scans}
    for path in image_files(folder, SUFFIXES):
        scan = scan_of(path.relative_to(folder))
        if scan not in by_scan:
            raise RequestError(
                f"{path}: belongs to {scan or 'no scan'}, but data.kimia.scans expects {scans[0]} … {scans[-1]}."
            )
        by_scan[scan].append(path)
    empty = [scan for scan, paths in by_scan.items() if not paths]
    if empty:
        raise RequestError(
            f"{folder}: scan {empty[0]} has no patches ({len(empty)} of {len(scans)} scans are empty or missing); "
            "restore it, or set data.kimia.scans to the number of scans you have."
        )
    return [(p.relative_to(root).as_posix(), scan, split, scan) for scan in scans for p in by_scan[scan]]


def layout(root: Path, scans: int = 24) -> tuple[list[Row], list[str]]:
    """The rows of a Kimia folder with scans s0 … s{scans−1}, train first, and the labels in their order.

    Raises ``RequestError`` where a split or a scan is missing, or a patch belongs to no expected scan.
    """
    names = [f"s{number}" for number in range(scans)]
    return split_rows(root, "train", names) + split_rows(root, "test", names), names


def patch_table(root: Path, scans: int = 24) -> pd.DataFrame:
    """The PatchTable of a Kimia folder, every file decoded; see ``layout``."""
    return build_table(root, *layout(root, scans))
