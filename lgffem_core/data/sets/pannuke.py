"""PanNuke: 7,901 tiles of 19 tissue types in three folds (paper, section 4.1.1).

Two layouts are read. The official one, ``Fold {k}/images/fold{k}/{images,types}.npy`` with
``Fold {k}/masks/fold{k}/masks.npy``, is first converted by ``convert_folds``. The prepared one is
``images/fold{k}_{i}_{tissue}.png`` with ``masks/….npy``, as PathML 3.0.8 writes it: its PNG files hold
BGR, since it writes RGB arrays through OpenCV (ledger row 13), and so do ours, so that either program
reads what the other wrote.
"""

import re
import shutil
from pathlib import Path
from textwrap import shorten

import numpy as np
import pandas as pd
from PIL import Image

from lgffem_core.base.errors import RequestError
from lgffem_core.data.census import FOLDS, READ
from lgffem_core.data.listing import what_is_there
from lgffem_core.data.sets.facts import PANNUKE_TISSUES, file_tissue
from lgffem_core.data.similar import near_miss
from lgffem_core.data.table import Row, build_table, image_files

SUFFIXES = READ["pannuke"][1]
NAME = re.compile(r"fold([123])_(\d+)_([^_]+)\.(?i:png)")
WHERE = "PanNuke is published by its authors at Warwick; data.pannuke.root holds 'Fold 1' … 'Fold 3'"
AGAIN = "download the fold again"
TILES = 16  # that are checked at a time


def folds_of(source: Path, split: int | None) -> list[int]:
    """The official folds in ``source``. Raises ``RequestError`` where one that trains is missing, see ``layout``."""
    for fold in FOLDS if split is None else (split,):
        images = f"Fold {fold}/images/fold{fold}"
        if not (source / images / "images.npy").is_file():
            raise RequestError(f"{source / images}/images.npy: is missing; {near_miss(source, images) or WHERE}.")
    return [fold for fold in FOLDS if (source / f"Fold {fold}").is_dir()]


def load_array(path: Path, kinds: str, shape: tuple) -> np.ndarray:
    """Map one of the official .npy files; pickled objects in it are refused, and so is an archive of arrays.

    Args:
        kinds: NumPy's letters for the types that it may hold: b, i, u, f, U.
        shape: that it must have; a letter stands for any length.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise RequestError(f"{path}: is missing; {WHERE}.") from None
    except Exception as error:  # of a damaged header NumPy raises what Python's tokeniser and parser raise
        raise RequestError(f"{path}: cannot be read as an array ({shorten(str(error), 200)}); {AGAIN}.") from None
    if array.dtype.kind not in kinds:
        raise RequestError(f"{path}: holds {array.dtype}, not {'names' if kinds == 'U' else 'numbers'}; {AGAIN}.")
    fits = (isinstance(wanted, str) or wanted == length for wanted, length in zip(shape, array.shape, strict=False))
    if array.ndim != len(shape) or not all(fits) or not array.size:
        raise RequestError(f"{path}: has shape {array.shape}, not ({', '.join(map(str, shape))}); {AGAIN}.")
    return array


def load_fold(source: Path, fold: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Images (N, 256, 256, 3) RGB, tissue names (N,) and masks (N, 256, 256, 6) or None, of one fold."""
    folder = source / f"Fold {fold}"
    images_file = folder / "images" / f"fold{fold}" / "images.npy"
    images = load_array(images_file, "iuf", ("N", "H", "W", 3))
    types = load_array(images_file.with_name("types.npy"), "U", ("N",))
    mask_file = folder / "masks" / f"fold{fold}" / "masks.npy"
    masks = load_array(mask_file, "biuf", ("N", *images.shape[1:3], 6)) if mask_file.exists() else None
    if len(images) != len(types) or (masks is not None and len(masks) != len(images)):
        raise RequestError(f"{folder}: images.npy, types.npy and masks.npy differ in length; download it again.")
    unknown = sorted(set(types.tolist()) - set(PANNUKE_TISSUES))
    if unknown:
        raise RequestError(f"{folder}: types.npy has the unknown tissue {unknown[0]!r}.")
    check_values(images_file, images)
    return images, types, masks


def check_values(path: Path, images: np.ndarray) -> None:
    """Refuse tiles that are not whole numbers from 0 to 255, of whatever type; read a few at a time."""
    low, high, whole = np.inf, -np.inf, True
    for start in range(0, len(images), TILES):
        part = images[start : start + TILES]
        if not np.isfinite(part).all():
            tile = start + int(np.argmin(np.isfinite(part).all(axis=(1, 2, 3))))
            raise RequestError(f"{path}: tile {tile} holds values that are no finite numbers; {AGAIN}.")
        low, high = min(low, part.min()), max(high, part.max())
        whole = whole and bool((part == np.rint(part)).all())
    if low < 0 or not 1 < high <= 255 or not whole:
        found = f"{images.dtype} from {low:g} to {high:g}{'' if whole else ', with fractions'}"
        raise RequestError(f"{path}: holds {found}, not whole numbers from 0 to 255; {AGAIN}.")


def convert_folds(source: Path, target: Path, split: int | None = None) -> Path:
    """Write the official folds in ``source`` as the prepared layout in ``target``, which must not exist.

    All three are needed, with a ``split`` only the one that trains.

    The folder is built under a temporary name and renamed at the end, so that a run that was stopped
    leaves nothing that looks complete. Masks are optional: they are written where all folds have them.
    """
    if (target / "images").exists():
        raise RequestError(f"{target}: already holds images/; remove it first, or use it as data.pannuke.root.")
    folds = {fold: load_fold(source, fold) for fold in folds_of(source, split)}
    building = target.with_name(f".{target.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    with_masks = all(masks is not None for _, _, masks in folds.values())
    for name in ("images", "masks") if with_masks else ("images",):
        (building / name).mkdir(parents=True)
    for fold, (images, types, masks) in folds.items():
        for i, tissue in enumerate(types.tolist()):
            stem = f"fold{fold}_{i}_{file_tissue(tissue)}"
            write_bgr(images[i], building / "images" / f"{stem}.png")
            if with_masks:
                np.save(building / "masks" / f"{stem}.npy", np.moveaxis(masks[i], 2, 0))
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rmdir()  # an empty folder that the user made; one with files in it is left alone
    building.rename(target)
    return target


def write_bgr(image: np.ndarray, path: Path) -> None:
    """Write an RGB image (256, 256, 3), whole numbers 0–255 of any type, with its channels in BGR order."""
    Image.fromarray(np.ascontiguousarray(image[..., ::-1].astype(np.uint8))).save(path)


def layout(root: Path, split: int | None = None, tissues: str = "pannuke") -> tuple[list[Row], list[str]]:
    """The rows of a prepared folder, ``group`` the fold, and the labels: one a tissue.

    Args:
        split: PathML's: 1, 2, 3 = the fold that is split "train", the other two being "test"; None = all train.
        tissues: "pannuke" accepts the 19 official names only, "any" every name.

    Raises ``RequestError`` naming the file where a name is malformed or a tissue unknown.
    """
    folder = root / "images"
    if not folder.is_dir():
        near = near_miss(root, f"Fold {split or 1}", "images")
        raise RequestError(f"data.pannuke.root: neither images/ nor 'Fold {split or 1}' is in {root}; {near or WHERE}.")
    official = {file_tissue(tissue) for tissue in PANNUKE_TISSUES}
    rows = []
    for path in image_files("pannuke", root):
        match = NAME.fullmatch(path.rpartition("/")[2])
        if not match:
            raise RequestError(f"{root / path}: is not named fold<1-3>_<number>_<tissue>.png.")
        fold, tissue = int(match.group(1)), match.group(3)
        if tissues == "pannuke" and tissue not in official:
            raise RequestError(
                f"{root / path}: unknown tissue {tissue!r}; PanNuke has 19. For other tiles set "
                "data.pannuke.tissues=any."
            )
        use = "train" if split in (None, fold) else "test"
        rows.append((path, tissue, use, f"fold{fold}"))
    train_tissues = {label for _, label, use, _ in rows if use == "train"}
    if not rows:
        near = near_miss(root, *(f"Fold {fold}" for fold in FOLDS)) or WHERE
        raise RequestError(f"{folder}: has no tiles{what_is_there(folder, SUFFIXES)}; {near}.")
    if len(train_tissues) < 2:
        raise RequestError(
            f"{folder}: has {len(train_tissues)} tissues to train on; two are needed (data.pannuke.split is {split})."
        )
    return rows, sorted({label for _, label, _, _ in rows})


def patch_table(root: Path, split: int | None = None, tissues: str = "pannuke") -> pd.DataFrame:
    """The PatchTable of a prepared folder, every file decoded; see ``layout``."""
    return build_table(root, *layout(root, split, tissues))
