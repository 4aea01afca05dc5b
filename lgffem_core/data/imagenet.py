"""ImageNet-1k's training set: the official archive, or what was extracted from it.

``root`` holds ``ILSVRC2012_img_train.tar`` (a tar of one tar per class; torchvision checks its MD5 and
extracts it beside), or already ``train/<wnid>/*.JPEG``.
"""

import shutil
from pathlib import Path

import pandas as pd
from torchvision.datasets.imagenet import ARCHIVE_META, parse_train_archive

from lgffem_core.data.table import build_table, image_files
from lgffem_core.errors import RequestError, StudyError

SUFFIXES = (".jpeg", ".jpg", ".png")
WHERE = "ImageNet-1k is distributed after registration at its authors' site"


def extract_archive(root: Path) -> None:
    """Unpack the official training archive into ``root/train``; a damaged archive is an error.

    The folder is built under a temporary name and renamed at the end, so that a run that was stopped leaves
    nothing that looks complete.
    """
    archive = root / ARCHIVE_META["train"][0]
    if not archive.is_file():
        raise RequestError(f"data.imagenet.root: neither train/<wnid>/*.JPEG nor {archive.name} is in {root}; {WHERE}.")
    building = root / ".train.extracting"
    shutil.rmtree(building, ignore_errors=True)
    try:
        parse_train_archive(str(root), folder=building.name)
    except RuntimeError as error:
        raise StudyError(f"{archive}: {error}; download it again.") from None
    building.rename(root / "train")


def patch_table(root: Path) -> pd.DataFrame:
    """The PatchTable of an ImageNet folder: classes in wnid order, every image in split "train".

    ``group`` is the class, for want of anything finer. Raises ``RequestError`` for an empty class folder.
    """
    train = root / "train"
    if not train.is_dir():
        extract_archive(root)
    classes = sorted(p.name for p in train.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(classes) < 2:
        raise RequestError(f"{train}: has {len(classes)} class folders; two are needed at least.")
    rows = []
    for wnid in classes:
        files = image_files(train / wnid, SUFFIXES)
        if not files:
            raise RequestError(f"{train / wnid}: is an empty class folder; restore its images or remove it.")
        rows += [(p.relative_to(root).as_posix(), wnid, "train", wnid) for p in files]
    return build_table(root, rows, classes)
