"""The PatchTable: what every data set becomes, so that everything after it is the same.

Columns: ``path`` (relative to the data set's root, POSIX), ``label`` (its name), ``label_id`` (0-based
int64, in the order of the label list), ``split`` ("train" or "test"), ``group`` (slide, patient or
fold), ``sha256`` (of the file's bytes). The row number is the sample id.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from natsort import natsorted
from PIL import Image

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.base.files import atomic_path, sha256_file
from lgffem_core.data.census import image_pattern, in_threads
from lgffem_core.data.decoding import decode_whole
from lgffem_core.data.listing import UNFIT, list_tree

COLUMNS = ["path", "label", "label_id", "split", "group", "sha256"]
Row = tuple[str, str, str, str]  # path, label, split, group


def build_table(
    root: Path, rows: list[Row], labels: list[str], hashes: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Make a PatchTable from rows of (path, label, split, group); rows keep their order.

    ``hashes`` is a census of the files, which ``quarantine`` has examined. Without one, every file is decoded
    and hashed here, so that an unreadable image is found now and not after hours of training.
    """
    table = pd.DataFrame(rows, columns=["path", "label", "split", "group"])
    ids = {label: i for i, label in enumerate(labels)}
    table.insert(2, "label_id", table["label"].map(ids).astype("int64"))
    if hashes is None:
        table["sha256"] = list(in_threads(lambda path: inspect_file(root / path), table["path"].tolist()))
    else:
        table["sha256"] = table["path"].map(hashes)
    return table[COLUMNS]


def inspect_file(path: Path) -> str:
    """SHA-256 of an image file; ``StudyError`` where it is empty, no image, or cut off."""
    check_image(path)
    return sha256_file(path)


def check_image(path: Path) -> None:
    """Decode the image at ``path`` once; a file that is damaged, truncated or no image is an error."""
    try:
        with Image.open(path) as image:
            decode_whole(image, path)
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error …
        raise StudyError(
            f"{path}: not a readable image ({error}); restore it from the original data, it is never skipped."
        ) from None


def image_files(dataset: str, root: Path) -> list[str]:
    """Paths below ``root`` of the images that a data set's reader reads, in natural order (s0_2 before s0_10).

    Raises ``RequestError`` for a name that neither index nor tables can hold.
    """
    files = list_tree(root, image_pattern(dataset)).files
    if unfit := [file for file in files if UNFIT.search(file)]:
        raise RequestError(
            f"data.{dataset}.root: {len(unfit)} of the files below {root} cannot be listed in a table, since a name "
            f"holds control characters or bytes that are no UTF-8, the first is {min(unfit)!r}; rename what is named "
            "so, or unpack its archive anew with the right encoding."
        )
    return natsorted(sorted(files))


def write_patch_table(table: pd.DataFrame, path: Path) -> Path:
    """Write a PatchTable as CSV, atomically."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)
    return path


def read_table(path: Path) -> pd.DataFrame:
    """Read what ``write_patch_table`` wrote; a table with other columns is an error."""
    table = pd.read_csv(path, dtype={"label": str, "group": str}, keep_default_na=False)
    if list(table.columns) != COLUMNS:
        raise StudyError(f"{path}: is no PatchTable (columns {list(table.columns)}); run notebook 01 again.")
    return table
