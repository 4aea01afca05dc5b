"""PanNuke's official folds, and how they become the prepared layout (see ``pannuke``).

``Fold {k}/images/fold{k}/{images,types}.npy`` with ``Fold {k}/masks/fold{k}/masks.npy``. Imported when a fold is to be
converted: ``pannuke`` itself is asked before any stage starts, and stays quick to load.
"""

from io import BytesIO
from pathlib import Path
from textwrap import shorten

import numpy as np
from PIL import Image

from lgffem_core.base.errors import RequestError
from lgffem_core.base.files import atomic_folder
from lgffem_core.data.sets.facts import PANNUKE_FOLDS, PANNUKE_TISSUES, file_tissue
from lgffem_core.data.similar import near_miss

AGAIN = "download the fold again"
TILES = 16  # that are checked at a time


def folds_of(source: Path, split: int | None) -> list[int]:
    """The official folds in ``source``. Raises ``RequestError`` where one that trains is missing, see ``layout``."""
    for fold in PANNUKE_FOLDS if split is None else (split,):
        images = f"Fold {fold}/images/fold{fold}"
        if not (source / images / "images.npy").is_file():
            raise RequestError(f"{source / images}/images.npy: is missing; {near_miss(source, images) or AGAIN}.")
    return [fold for fold in PANNUKE_FOLDS if (source / f"Fold {fold}").is_dir()]


def load_array(path: Path, kinds: str, shape: tuple) -> np.ndarray:
    """Map one of the official .npy files; pickled objects in it are refused, and so is an archive of arrays.

    Args:
        kinds: NumPy's letters for the types that it may hold: b, i, u, f, U.
        shape: that it must have; a letter stands for any length.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise RequestError(f"{path}: is missing; {AGAIN}.") from None
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
    """Write the official folds in ``source`` as the prepared layout in ``target``, which must not exist, or be empty.

    All three are needed, with a ``split`` only the one that trains. Masks are optional: they are written where all
    folds have them.
    """
    folds = {fold: load_fold(source, fold) for fold in folds_of(source, split)}
    with_masks = all(masks is not None for _, _, masks in folds.values())
    with atomic_folder(target) as building:
        for name in ("images", "masks") if with_masks else ("images",):
            (building / name).mkdir()
        for fold, (images, types, masks) in folds.items():
            for i, tissue in enumerate(types.tolist()):
                stem = f"fold{fold}_{i}_{file_tissue(tissue)}"
                write_bgr(images[i], building / "images" / f"{stem}.png")
                if with_masks:
                    write_array(building / "masks" / f"{stem}.npy", np.moveaxis(masks[i], 2, 0))
    return target


def write_bgr(image: np.ndarray, path: Path) -> None:
    """Write an RGB image (256, 256, 3), whole numbers 0–255 of any type, with its channels in BGR order."""
    Image.fromarray(np.ascontiguousarray(image[..., ::-1].astype(np.uint8))).save(path)


def write_array(path: Path, array: np.ndarray) -> None:
    """Write ``array`` as .npy; NumPy's own writing does not say why it fails, as where the disk is full."""
    np.save(buffer := BytesIO(), array)
    path.write_bytes(buffer.getvalue())
