"""Two runs of one profile side by side: what differs, and whether another machine or environment may explain it.

Tables are compared cell by cell and exactly, figures within a tolerance, the manifests' measures exactly.
``report.html`` and executed notebooks hold times and are not compared.
"""

import csv
import math
import re
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from lgffem_core.base.errors import StudyError
from lgffem_core.run.record import MANIFEST, Manifest
from lgffem_core.run.verify import ABSENT, differing

#: A figure is drawn by matplotlib and FreeType, whose releases shift the grey of an edge by a few levels and a label by
#: a fraction of a pixel; what a reader would see moves many pixels by a lot. Three numbers tell the two apart. They
#: cannot see one marker moved in a large figure: the numbers behind it stand in the tables, which are compared exactly.
MEAN_TOLERANCE = 0.5  # of 255: mean absolute difference over pixels and colours
PIXEL_TOLERANCE = 16  # of 255: a pixel further off in any colour counts as another
SHARE_TOLERANCE = 0.001  # of all pixels: how many others there may be

EXIT_CODES = {"equal": 0, "differs, UNEXPECTED": 1, "differs, as expected": 3}
MACHINE = {"processor": "processor", "architecture": "architecture", "gpu": "GPU", "driver": "GPU driver"}
SHOWN = {"reasons": 8, "causes": 4, "differences": 10, "largest": 6, "remarks": 3}  # lines; the rest is counted


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


def compare_results(reference: Path, rerun: Path) -> Comparison:
    """Compare a folder of results with another run's, by their tables, figures and manifests.

    Raises ``RequestError`` where a folder has no manifest, ``StudyError`` where one cannot be read.
    """
    found = Comparison(Path(reference), Path(rerun))
    manifests = [manifest_of(found.reference), manifest_of(found.rerun)]
    files = [result_files(found.reference), result_files(found.rerun)]
    absent = [{path.removeprefix(f"results/{m.profile}/") for path in m.left_out} for m in manifests]
    for name in sorted(files[0] | files[1]):
        if name not in files[0] and name not in absent[0]:
            found.structural.append(f"{name} is in the rerun only.")
        elif name not in files[1] and name not in absent[1]:
            found.structural.append(f"{name} is missing from the rerun.")
        elif name in files[0] & files[1]:
            found.compared += 1
            try:
                one, other = found.both(name)
                if one.read_bytes() != other.read_bytes():
                    COMPARE[Path(name).suffix](found, name)
            except (ValueError, OSError, SyntaxError, csv.Error) as error:  # SyntaxError: Pillow, of a broken PNG
                found.structural.append(f"{name} cannot be read ({' '.join(str(error).split())}).")
    compare_measures(found, *(manifest.measures for manifest in manifests))
    found.reasons = reasons(*manifests)
    found.causes = causes(*manifests)
    return found


def manifest_of(folder: Path) -> Manifest:
    """A folder's manifest; ``StudyError`` where it is none of this version."""
    try:
        return Manifest.read(folder)
    except ValueError as error:
        raise StudyError(f"{folder}/{MANIFEST} cannot be read ({error}); run the profile again.") from None


def result_files(folder: Path) -> set[str]:
    """Tables and figures, named below ``folder``, of the formats that are compared."""
    found = [path for part in ("tables", "figures") for path in (folder / part).rglob("*")]
    return {path.relative_to(folder).as_posix() for path in found if path.suffix in COMPARE and path.is_file()}


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


# -- manifests -----------------------------------------------------------------------------------------------------


def compare_measures(found: Comparison, one: dict, other: dict) -> None:
    """Every number that notebooks left beside their tables."""
    for key, value, again in differing(one, other):
        if ABSENT in (value, again):
            found.structural.append(f"measure {key} is {value!r} in the reference and {again!r} in the rerun.")
        else:
            found.differ(f"measure {key}", value, again, "measure " + re.sub(r"\.\d+\b", "", key))


def surroundings(manifest: Manifest) -> dict[str, str]:
    """What else than the profile, its data and the code decides over the last bits of a number.

    Stages count too: a run that was stopped may have gone on elsewhere. Of a lock, what counts are the packages.
    """
    machines = [manifest.machine, *(stage.machine for stage in manifest.stages.values())]
    found = {name: sorted({getattr(m, key) or "none" for m in machines}) for key, name in MACHINE.items()}
    words = {name: " and ".join(values) for name, values in found.items()}
    return words | {"Python": manifest.python, "lock": manifest.lock.name}


def reasons(reference: Manifest, rerun: Manifest) -> list[str]:
    """Why the last bits, and what follows from them, may differ: another machine, Python, lock, other packages."""
    pairs = differing(surroundings(reference), surroundings(rerun))
    found = [f"another {name}: {other} instead of {one}" for name, one, other in pairs]
    packages = [f"{name} {b} instead of {a}" for name, a, b in differing(reference.packages, rerun.packages)]
    return found + ([f"other packages: {', '.join(packages)}"] if packages else [])


def causes(reference: Manifest, rerun: Manifest) -> list[str]:
    """What makes two runs another study: parameters, data or code. None of these excuses a difference."""
    pair = {"reference": reference, "rerun": rerun}
    found = [f"the manifest of the {name} was edited" for name, manifest in pair.items() if manifest.is_edited]
    withheld = {*reference.request.withheld, *rerun.request.withheld}
    for key, value, again in differing(reference.parameters, rerun.parameters):
        if key not in withheld:
            found.append(f"parameter {key}: {value!r} in the reference, {again!r} in the rerun")
    if reference.weights is None or rerun.weights is None:
        found.append("a manifest does not tell its weights, as those of older versions")
    else:
        found += [f"other weights to start from: {name}" for name in others(reference.weights, rerun.weights)]
    contents = [{k: data.model_copy(update={"files": None}) for k, data in m.inputs.items()} for m in pair.values()]
    for name in others(*contents):
        files = [m.inputs[name].files if name in m.inputs else 0 for m in pair.values()]
        one, other = ("unknown" if number is None else number for number in files)  # older versions did not count
        found.append(f"other data: {name} ({one} files in the reference, {other} in the rerun)")
    if reference.code_sha256 != rerun.code_sha256:
        commits = [str(manifest.commit.id or "none")[:10] for manifest in pair.values()]
        found.append(f"other code (commit {commits[0]} in the reference, {commits[1]} in the rerun)")
    return found


def others(one: dict, other: dict) -> list[str]:
    """Names that stand for another value in two trees, or in one of them alone."""
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


# -- what the command prints ---------------------------------------------------------------------------------------


def format_comparison(comparison: Comparison) -> str:
    """The comparison as a user reads it: the conclusion first, then what it rests on, at most some forty lines."""
    conclusion = comparison.conclusion
    if conclusion == "differs, as expected":
        conclusion += f": {'; '.join(comparison.reasons)}"
    head = f"{comparison.reference} and {comparison.rerun}: {conclusion} ({comparison.compared} files compared)"
    differences = comparison.structural + comparison.differences
    largest = sorted(comparison.largest.items(), key=lambda item: -item[1]) if comparison.reasons else []
    sections = [
        ("reasons", "Why values may differ:", comparison.reasons if conclusion == comparison.conclusion else []),
        ("causes", "Causes to look at:", comparison.causes),
        ("differences", f"Differences ({len(differences)}):", differences),
        ("largest", "Largest difference by column:", [f"{name}: {value:.4g}" for name, value in largest]),
        ("remarks", "Remarks:", comparison.remarks),
    ]
    lines = [head]
    for key, title, entries in sections:
        if entries:
            lines += [title, *(f"  {entry}" for entry in entries[: SHOWN[key]])]
            lines += [f"  … and {len(entries) - SHOWN[key]} more"] if len(entries) > SHOWN[key] else []
    return "\n".join(lines)
