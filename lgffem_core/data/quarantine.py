"""What is wrong with the files of a data set: every fault is found before any of them stops the study.

A *fault* makes a file unusable or its label doubtful. It is never repaired or replaced: the study is refused, or
goes on without the file and says so (``data.faulty_files``). A *notice* is worth knowing and changes nothing.
"""

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from PIL import Image, UnidentifiedImageError

from lgffem_core.base.errors import one_line
from lgffem_core.base.files import write_text
from lgffem_core.data.census import in_threads
from lgffem_core.data.decoding import decode_whole, unheeded
from lgffem_core.data.sets.base import DataSet, Row

FAULT, NOTICE = "fault", "notice"
CHANGED = "changed"  # of this folder's history; all other findings follow from the files alone
FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".tif": "TIFF"}  # what a suffix promises
#: What is recognised at all. Pillow knows more, some of which it hands to other programs (EPS to Ghostscript).
KNOWN = ("JPEG", "PNG", "TIFF", "GIF", "BMP")
MODES = {"P": "has a palette", "CMYK": "is CMYK", **dict.fromkeys(("RGBA", "LA", "PA"), "has an alpha channel")}
REPORT_COLUMNS = ("data set", "finding", "outcome", "files", "file", "reason")
EMPTY = hashlib.sha256().hexdigest()  # of no bytes
LISTED = 50  # findings of one kind that the report shows one by one


class Finding(NamedTuple):
    """One thing about one file."""

    path: str  # relative to the data set's images
    kind: str
    severity: str
    reason: str  # without paths of this machine


def examine(
    data_set: DataSet, root: Path, rows: list[Row], hashes: Mapping[str, str], before: Mapping[str, str] | None = None
) -> list[Finding]:
    """Everything that is wrong with, or worth knowing of, the files in ``rows``, in their order.

    Args:
        hashes: a census of the files.
        before: hashes of the last index, to tell what changed since.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # of tags that are not read
        found = list(in_threads(lambda row: list(examine_file(data_set, root, row, hashes[row[0]])), rows))
    found += [duplicates(rows, hashes), changes(hashes, before or {})]
    order = {path: number for number, (path, *_) in enumerate(rows)}
    return sorted((finding for each in found for finding in each), key=lambda finding: order[finding.path])


def examine_file(data_set: DataSet, root: Path, row: Row, digest: str):
    """Findings about one file: its contents, then its name."""
    path, label = row[0], row[1]
    for kind, severity, reason in examine_image(data_set, root / path, digest):
        yield Finding(path, kind, severity, reason)
    named = data_set.label_in_name and data_set.label_in_name.match(Path(path).name)
    if named and named.group(1) != label:
        yield Finding(path, "mislabelled", FAULT, f"its name says {named.group(1)}, its folder {label}")


def examine_image(data_set: DataSet, path: Path, digest: str):
    """(kind, severity, reason) of what is found in a file; an image is decoded unless its header forbids it."""
    if not digest:
        yield "unreadable", FAULT, "cannot be opened"
        return
    if digest == EMPTY:
        yield "empty", FAULT, "holds no bytes"
        return
    if not data_set.pictures:
        if reason := data_set.unsound(path):
            yield "unsound", FAULT, reason
        return
    lenient = FAULT if data_set.only_rgb else NOTICE
    try:
        with Image.open(path, formats=KNOWN) as image:
            promised, mode = FORMATS[path.suffix.lower()], mode_problem(data_set, image)
            if image.format.replace("MPO", "JPEG") != promised:  # MPO: a JPEG with further ones behind it
                yield "wrong format", lenient, f"is {image.format}, its name says {promised}"
            if mode:
                yield "wrong mode", lenient, mode
            decode_whole(image, path)
            yield from ((kind, NOTICE, reason) for kind, reason in unheeded(image, path))
            if image.mode == "RGB" and image.getcolors(1):
                yield "blank", NOTICE, "all its pixels have one colour"
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        yield "oversized", FAULT, f"claims more than {Image.MAX_IMAGE_PIXELS} pixels; it was not decoded"
    except UnidentifiedImageError:
        yield "unreadable", FAULT, f"is no {', '.join(KNOWN)} image"
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error …
        yield "unreadable", FAULT, f"cannot be decoded ({one_line(str(error).replace(str(path), path.name))})"


def mode_problem(data_set: DataSet, image: Image.Image) -> str | None:
    """Why an opened, not yet decoded image is not 8-bit RGB; None where it is."""
    deep = image.mode.startswith(("I", "F")) or ";16" in str(image.tile[:1])  # Pillow cuts 16-bit RGB down unasked
    if image.mode == "RGB" and not deep:
        return None
    problem = "holds more than 8 bits a channel" if deep else MODES.get(image.mode, f"has the mode {image.mode}")
    if image.mode in ("1", "L"):
        problem = f"is grey ({image.mode})"
    if not data_set.only_rgb:
        return f"{problem}; it is converted to 8-bit RGB"
    return f"{problem}, where 8-bit RGB is needed{data_set.if_grey if image.mode == 'L' else ''}"


def duplicates(rows: list[Row], hashes: Mapping[str, str]) -> list[Finding]:
    """A notice for each file whose bytes an earlier one has, saying what the two share."""
    first, found = {}, []
    for path, label, split, *_ in rows:
        if hashes[path] in ("", EMPTY):  # faults by themselves
            continue
        other, other_label, other_split = first.setdefault(hashes[path], (path, label, split))
        if other != path:
            kind = "twice" if label == other_label else "twice, under two labels"
            kind += "" if split == other_split else ", in train and test"
            found.append(Finding(path, kind, NOTICE, f"the same bytes as {other}"))
    return found


def changes(hashes: Mapping[str, str], before: Mapping[str, str]) -> list[Finding]:
    """A notice for each file that is not what it was when the last index was made."""
    changed = [path for path, digest in hashes.items() if before.get(path, digest) != digest]
    return [Finding(path, CHANGED, NOTICE, "is not the file that the last index was made from") for path in changed]


def write_findings(dataset: str, findings: list[Finding], path: Path) -> Path:
    """Write all findings as CSV, atomically; a data set without any gives the header alone."""
    table = pd.DataFrame(findings, columns=Finding._fields)
    table.insert(0, "dataset", dataset)
    return write_text(path, table.to_csv(index=False))


def report_rows(dataset: str, examined: int, findings: pd.DataFrame) -> list[dict]:
    """Rows of the data report: the files examined, then findings, at most ``LISTED`` of a kind one by one.

    What changed since the last index is left out: it is about this folder's past, and the next run cannot repeat it.
    """
    rows = [report_row(dataset, "examined", "", examined)]
    stated = findings[findings["kind"] != CHANGED]
    for (severity, kind), group in stated.groupby(["severity", "kind"], sort=True):
        outcome = "left out" if severity == FAULT else NOTICE
        listed = group.head(LISTED)
        rows += [report_row(dataset, kind, outcome, 1, row.path, row.reason) for row in listed.itertuples()]
        if len(group) > LISTED:
            rows.append(report_row(dataset, kind, outcome, len(group) - LISTED, "further files"))
    return rows


def report_row(dataset: str, finding: str, outcome: str, files: int, file: str = "", reason: str = "") -> dict:
    """A row of the data report."""
    return dict(zip(REPORT_COLUMNS, (dataset, finding, outcome, files, file, reason), strict=True))
