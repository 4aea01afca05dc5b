"""ImageNet-1k's training set: the official archive, or what was extracted from it; and held-out images beside it.

``root`` holds ``ILSVRC2012_img_train.tar`` (a tar of one tar per class; torchvision checks its MD5 and
extracts it beside), or already ``train/<wnid>/*.JPEG``. ``val/<wnid>/*.JPEG``, never trained on, may be absent.
"""

import shutil
import tarfile
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.data.census import ARCHIVE, READ
from lgffem_core.data.listing import subfolders, what_is_there
from lgffem_core.data.similar import near_miss
from lgffem_core.data.table import Row, build_table, image_files

SUFFIXES = READ["imagenet"][1]
WHERE = "ImageNet-1k is distributed after registration at its authors' site"


@contextmanager
def plain_members():
    """Within it, tarfile unpacks nothing but regular files with plain names, which is all that ImageNet's tars hold.

    An absolute path, a folder, a link or a device is an error: ``StudyError`` that names it.
    """
    if not hasattr(tarfile, "data_filter"):
        raise StudyError("Archives are unpacked safely by Python 3.11.4 and later; use one, or unpack by hand.")

    def accept(member: tarfile.TarInfo, target: str) -> tarfile.TarInfo:
        if not member.isreg() or member.name in ("", ".", "..") or set(member.name) & {"/", "\\", ":"}:
            raise StudyError(f"holds {member.name!r}, which is no plain file")
        return tarfile.data_filter(member, target)

    before = getattr(tarfile.TarFile, "extraction_filter", None)  # torchvision passes no filter of its own
    tarfile.TarFile.extraction_filter = staticmethod(accept)
    try:
        yield
    finally:
        tarfile.TarFile.extraction_filter = before and staticmethod(before)


def extract_archive(root: Path) -> None:
    """Unpack the official training archive into ``root/train``; a damaged or hostile archive is an error.

    The folder is built under a temporary name and renamed at the end, so that a run that was stopped leaves
    nothing that looks complete.
    """
    from torchvision.datasets.imagenet import parse_train_archive  # imports torch, which no other module here needs

    archive = root / ARCHIVE
    if not archive.is_file():
        raise RequestError(
            f"data.imagenet.root: neither train/<wnid>/*.JPEG nor {archive.name} is in {root}; "
            f"{near_miss(root, 'train') or WHERE}."
        )
    building = root / ".train.extracting"
    shutil.rmtree(building, ignore_errors=True)
    try:
        with plain_members():
            parse_train_archive(str(root), folder=building.name)
    except (RuntimeError, tarfile.TarError, StudyError) as error:
        raise StudyError(f"{archive}: {error}; download it again.") from None
    building.rename(root / "train")


def layout(root: Path) -> tuple[list[Row], list[str]]:
    """The rows of an ImageNet folder, those of train/ first and val/ as split "test", and the classes in wnid order.

    ``group`` is the class, for want of anything finer. Raises ``RequestError`` for an empty class folder.
    """
    train = root / "train"
    if not train.is_dir():
        extract_archive(root)
    by_class: dict[str, list[str]] = {folder.name: [] for folder in subfolders(train)}
    if len(by_class) < 2:
        there = what_is_there(train, SUFFIXES)
        raise RequestError(f"{train}: has {len(by_class)} class folders{there}; two are needed at least.")
    held_out: list[Row] = []
    for path in image_files("imagenet", root):
        part, wnid = path.split("/")[:2]
        if wnid not in by_class:  # of val/: the classes are those of train/
            raise RequestError(f"{root / part / wnid}: is no class of train/; rename it, or remove it.")
        if part == "train":
            by_class[wnid].append(path)
        else:
            held_out.append((path, wnid, "test", wnid))
    for wnid, files in by_class.items():
        if not files:
            there = what_is_there(train / wnid, SUFFIXES)
            raise RequestError(f"{train / wnid}: is an empty class folder{there}; restore its images or remove it.")
    rows = [(path, wnid, "train", wnid) for wnid, files in by_class.items() for path in files]
    return rows + held_out, list(by_class)


def patch_table(root: Path) -> pd.DataFrame:
    """The PatchTable of an ImageNet folder, every file decoded; see ``layout``."""
    return build_table(root, *layout(root))
