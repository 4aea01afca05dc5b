"""Kimia Path24C: 24 whole-slide images, one class each (paper, section 4.1.1).

Training patches are ``train/s0 … s23/**/*.jpg``, whose file names repeat from scan to scan. Test patches
are ``test/s0_1.jpg`` or ``test/s0/s0_1.jpg``. Train and test come from the same slides, so ``group`` is
the scan.
"""

import re
from pathlib import Path, PurePosixPath

from lgffem_core.base.errors import RequestError
from lgffem_core.data.listing import what_is_there
from lgffem_core.data.sets import facts
from lgffem_core.data.sets.base import DataSet, Row


def scan_of(relative: PurePosixPath) -> str | None:
    """The scan that a patch belongs to: its folder ``s7``, or its name ``s7_12.jpg``; None if neither."""
    folder = next((part for part in relative.parts[:-1] if re.fullmatch(r"s\d+", part)), None)
    name = re.match(r"(s\d+)_", relative.name)
    return folder or (name.group(1) if name else None)


class Kimia(DataSet):
    """Scans s0 … s{scans−1}, each of which is a label."""

    name = "kimia"
    where = (
        "Kimia Path24C: ask for it at its authors' site (tizhoosh.com, academic licence); put its training scans "
        "into train/s0 … s23 and its test patches into test/ of one folder and set data.kimia.root to it"
    )
    images, suffixes = "(train|test)/.+", (".jpg", ".jpeg", ".png", ".tif")
    folders = ("train", "test")
    if_grey = "; Kimia Path24 without C is grey"
    label_in_name = re.compile(r"(s\d+)_")

    def layout(self, root: Path, settings) -> tuple[list[Row], list[str]]:
        """Train first. Raises ``RequestError`` where a scan is missing, or a patch is of none expected."""
        scans, files = [f"s{number}" for number in range(settings.scans)], self.image_files(root)
        return [row for split in self.folders for row in self.split_rows(root, files, split, scans)], scans

    def split_rows(self, root: Path, files: list[str], split: str, scans: list[str]) -> list[Row]:
        """Rows of one split of ``files``, in scan order s0, s1, …, and within a scan in the order of ``files``."""
        folder = root / split
        by_scan: dict[str, list[str]] = {scan: [] for scan in scans}
        for path in (path for path in files if path.startswith(f"{split}/")):
            scan = scan_of(PurePosixPath(path.removeprefix(f"{split}/")))
            if scan not in by_scan:
                raise RequestError(
                    f"{root / path}: belongs to {scan or 'no scan'}, but data.kimia.scans expects "
                    f"{scans[0]} … {scans[-1]}."
                )
            by_scan[scan].append(path)
        empty = [scan for scan, paths in by_scan.items() if not paths]
        if empty:
            searched = folder / empty[0] if (folder / empty[0]).is_dir() else folder
            raise RequestError(
                f"{folder}: scan {empty[0]} has no patches ({len(empty)} of {len(scans)} scans are empty or missing)"
                f"{what_is_there(searched, self.suffixes)}; "
                "restore it, or set data.kimia.scans to the number of scans you have."
            )
        return [(path, scan, split, scan) for scan in scans for path in by_scan[scan]]

    def published(self, settings, rows: list[Row]) -> dict[str, int]:
        """All of them, whatever is there."""
        return {"train": facts.KIMIA_TRAIN_TOTAL, "test": facts.KIMIA_TEST_TOTAL}

    def write_synthetic(self, settings, root: Path) -> None:
        """``train/s{k}/{i}.jpg`` and ``test/s{k}/s{k}_{i}.jpg``, i from 1."""
        from lgffem_core.data.synthetic.make import kimia_patch, save

        for scan, published in enumerate(facts.KIMIA_TEST_COUNTS):
            tests = max(2, round(settings.kimia_test_fraction * published))
            splits = (("train", settings.kimia_train_per_scan, ""), ("test", tests, f"s{scan}_"))
            for split, count, prefix in splits:
                folder = root / split / f"s{scan}"
                folder.mkdir(parents=True)
                for index in range(count):
                    save(folder / f"{prefix}{index + 1}.jpg", kimia_patch(settings, scan, split, index))


SET = Kimia()
