"""What differs between two results of one name: tables cell by cell and exactly, figures within a tolerance."""

import csv
import math
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

#: A figure is drawn by matplotlib and FreeType, whose releases shift the grey of an edge by a few levels and a label by
#: a fraction of a pixel; what a reader would see moves many pixels by a lot. Three numbers tell the two apart. They
#: cannot see one marker moved in a large figure: the numbers behind it stand in the tables, which are compared exactly.
MEAN_TOLERANCE = 0.5  # of 255: mean absolute difference over pixels and colours
PIXEL_TOLERANCE = 16  # of 255: a pixel further off in any colour counts as another
SHARE_TOLERANCE = 0.001  # of all pixels: how many others there may be

EXIT_CODES = {"equal": 0, "differs, UNEXPECTED": 1, "differs, as expected": 3}


@dataclass
class Comparison:
    """What ``compare_results`` found; every list holds sentences."""

    reference: Path
    rerun: Path
    compared: int = 0  # files
    differences: list[str] = field(default_factory=list)  # of values
    structural: list[str] = field(default_factory=list)  # of files, rows and columns: no machine explains these
    largest: dict[str, float] = field(default_factory=dict)  # "tables/table1.csv eta_p" -> largest |difference|
    remarks: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)  # why values may differ: machine and environment
    causes: list[str] = field(default_factory=list)  # why they should not be compared: parameters, data, code

    @property
    def conclusion(self) -> str:
        """One of the keys of ``EXIT_CODES``."""
        if not self.differences and not self.structural:
            return "equal"
        explained = self.reasons and not self.causes and not self.structural
        return "differs, as expected" if explained else "differs, UNEXPECTED"

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.conclusion]

    def differ(self, place: str, value, again, column: str) -> None:
        """Say that two values differ, and of numbers keep the largest difference in a column."""
        self.differences.append(f"{place}: {value!r} in the reference, {again!r} in the rerun.")
        one, other = number_in(value), number_in(again)
        if one is not None and other is not None:
            self.largest[column] = max(self.largest.get(column, 0.0), abs(one - other))

    def both(self, name: str) -> tuple[Path, Path]:
        return self.reference / name, self.rerun / name


# -- tables --------------------------------------------------------------------------------------------------------


def compare_csv(found: Comparison, name: str) -> None:
    """Every cell as text: 1.0 is not 1, and an empty cell is not a missing row."""
    one, other = map(read_csv, found.both(name))
    if one[:1] != other[:1]:
        only = [sorted(set(a) - set(b)) for a, b in ((one[0], other[0]), (other[0], one[0]))] if one and other else []
        found.structural.append(f"{name} has other columns (only in the reference, only in the rerun: {only}).")
        return
    if len(one) != len(other):
        found.structural.append(f"{name} has {len(one) - 1} rows in the reference and {len(other) - 1} in the rerun.")
        return
    for number, (row, again) in enumerate(zip(one, other, strict=True)):
        for column, cell, cell_again in zip(one[0], row, again, strict=True):  # ValueError: a row cut short
            if cell != cell_again:
                place = f"{name}, row {number} ({leading_text(row)}), {column}"
                found.differ(place, cell, cell_again, f"{name} {column}")


def read_csv(path: Path) -> list[list[str]]:
    """The cells of a CSV file, its header first."""
    with open(path, newline="", encoding="utf-8") as handle:
        return list(csv.reader(handle))


def leading_text(row: list[str], width: int = 28) -> str:
    """What names a row: the cells with text among its first four, shortened."""
    texts = [cell for cell in row[:4] if cell and number_in(cell) is None]
    return ", ".join(cell if len(cell) <= width else f"{cell[:width]}…" for cell in texts)


def number_in(value) -> float | None:
    """A cell or a leaf as a finite number; None where it is none."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def compare_text(found: Comparison, name: str) -> None:
    """The same table for people: by lines."""
    pages = [path.read_text(encoding="utf-8").splitlines() for path in found.both(name)]
    other = [number for number, (a, b) in enumerate(zip_longest(*pages), start=1) if a != b]
    if other:
        found.differences.append(f"{name}: {len(other)} lines differ, the first is line {other[0]}.")


# -- figures -------------------------------------------------------------------------------------------------------


def compare_png(found: Comparison, name: str) -> None:
    """By tolerance, with the numbers found."""
    pictures = [*map(read_pixels, found.both(name))]
    sizes = [f"{picture.shape[1]}x{picture.shape[0]}" for picture in pictures]
    if sizes[0] != sizes[1]:
        found.differences.append(f"{name} is {sizes[0]} pixels in the reference and {sizes[1]} in the rerun.")
        return
    mean, share = distance(*pictures)
    apart = f"mean difference {mean:.3g} of 255, {100 * share:.3g} % of pixels off by more than {PIXEL_TOLERANCE}"
    if mean > MEAN_TOLERANCE or share > SHARE_TOLERANCE:
        limits = f"allowed are {MEAN_TOLERANCE} and {100 * SHARE_TOLERANCE:g} %"
        found.differences.append(f"{name}: {apart}; {limits}.")
    else:
        found.remarks.append(f"{name} has other bytes, within tolerance: {apart}.")


def compare_svg(found: Comparison, name: str) -> None:
    """A remark where the picture beside it, which is compared first, is as it was."""
    picture = Path(name).with_suffix(".png").as_posix()
    if not all(path.is_file() for path in found.both(picture)):
        found.differences.append(f"{name} has other bytes, and there is no picture of it to compare.")
    elif not any(line.startswith(picture) for line in found.differences + found.structural):
        found.remarks.append(f"{name} has other bytes; the picture is the same within tolerance.")


def read_pixels(path: Path):
    """A picture on white as an array (height, width, 3) of whole numbers."""
    import numpy as np
    from PIL import Image

    with Image.open(path) as picture:
        picture = picture.convert("RGBA")
        on_white = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return np.asarray(on_white.convert("RGB")).astype(np.int16)


def distance(one, other) -> tuple[float, float]:
    """Mean absolute difference (of 255), and the share of pixels further off than ``PIXEL_TOLERANCE``."""
    difference = abs(one - other)
    return float(difference.mean()), float((difference.max(axis=2) > PIXEL_TOLERANCE).mean())


COMPARE = {".csv": compare_csv, ".md": compare_text, ".tex": compare_text, ".png": compare_png, ".svg": compare_svg}
