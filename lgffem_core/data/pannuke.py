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

import numpy as np
import pandas as pd
from PIL import Image

from lgffem_core.data.census import READ
from lgffem_core.data.facts import PANNUKE_TISSUES, file_tissue
from lgffem_core.data.table import Row, build_table, image_files
from lgffem_core.errors import RequestError

FOLDS = (1, 2, 3)
NAME = re.compile(r"fold([123])_(\d+)_([^_]+)\.png")
WHERE = "PanNuke is published by its authors at Warwick; data.pannuke.root holds 'Fold 1' … 'Fold 3'"


def is_official(root: Path) -> bool:
    """True where ``root`` holds the official folds."""
    return any((root / f"Fold {fold}").is_dir() for fold in FOLDS)


def load_array(path: Path) -> np.ndarray:
    """Map one of the official .npy files; pickled objects in it are refused."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise RequestError(f"{path}: is missing; {WHERE}.") from None
    except (ValueError, OSError, EOFError) as error:
        raise RequestError(f"{path}: cannot be read as an array ({error}); download the fold again.") from None


def load_fold(source: Path, fold: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Images (N, 256, 256, 3) RGB, tissue names (N,) and masks (N, 256, 256, 6) or None, of one fold."""
    folder = source / f"Fold {fold}"
    images = load_array(folder / "images" / f"fold{fold}" / "images.npy")
    types = load_array(folder / "images" / f"fold{fold}" / "types.npy")
    mask_file = folder / "masks" / f"fold{fold}" / "masks.npy"
    masks = load_array(mask_file) if mask_file.exists() else None
    if images.ndim != 4 or images.shape[3] != 3:
        raise RequestError(f"{folder}: images.npy has shape {images.shape}, not (N, 256, 256, 3); download it again.")
    if len(images) != len(types) or (masks is not None and len(masks) != len(images)):
        raise RequestError(f"{folder}: images.npy, types.npy and masks.npy differ in length; download it again.")
    unknown = sorted(set(types.tolist()) - set(PANNUKE_TISSUES))
    if unknown:
        raise RequestError(f"{folder}: types.npy has the unknown tissue {unknown[0]!r}.")
    return images, types, masks


def convert_folds(source: Path, target: Path) -> Path:
    """Write the official folds in ``source`` as the prepared layout in ``target``, which must not exist.

    The folder is built under a temporary name and renamed at the end, so that a run that was stopped
    leaves nothing that looks complete. Masks are optional: they are written where all folds have them.
    """
    if (target / "images").exists():
        raise RequestError(f"{target}: already holds images/; remove it first, or use it as data.pannuke.root.")
    folds = {fold: load_fold(source, fold) for fold in FOLDS}
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
    """Write an RGB image (256, 256, 3), values 0–255 of any type, with its channels in BGR order."""
    rgb = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    Image.fromarray(np.ascontiguousarray(rgb[..., ::-1])).save(path)


def layout(root: Path, split: int | None = None, tissues: str = "pannuke") -> tuple[list[Row], list[str]]:
    """The rows of a prepared folder, ``group`` the fold, and the labels: one a tissue.

    Args:
        split: PathML's: 1, 2, 3 = the fold that is split "train", the other two being "test"; None = all train.
        tissues: "pannuke" accepts the 19 official names only, "any" every name.

    Raises ``RequestError`` naming the file where a name is malformed or a tissue unknown.
    """
    folder = root / "images"
    if not folder.is_dir():
        raise RequestError(f"data.pannuke.root: neither images/ nor 'Fold 1' is in {root}; {WHERE}.")
    official = {file_tissue(tissue) for tissue in PANNUKE_TISSUES}
    rows = []
    for path in image_files(folder, READ["pannuke"][1]):
        match = NAME.fullmatch(path.name)
        if not match:
            raise RequestError(f"{path}: is not named fold<1-3>_<number>_<tissue>.png.")
        fold, tissue = int(match.group(1)), match.group(3)
        if tissues == "pannuke" and tissue not in official:
            raise RequestError(
                f"{path}: unknown tissue {tissue!r}; PanNuke has 19. For other tiles set data.pannuke.tissues=any."
            )
        use = "train" if split in (None, fold) else "test"
        rows.append((path.relative_to(root).as_posix(), tissue, use, f"fold{fold}"))
    train_tissues = {label for _, label, use, _ in rows if use == "train"}
    if len(train_tissues) < 2:
        raise RequestError(
            f"{folder}: has {len(train_tissues)} tissues to train on; two are needed (data.pannuke.split is {split})."
        )
    return rows, sorted({label for _, label, _, _ in rows})


def patch_table(root: Path, split: int | None = None, tissues: str = "pannuke") -> pd.DataFrame:
    """The PatchTable of a prepared folder, every file decoded; see ``layout``."""
    return build_table(root, *layout(root, split, tissues))
