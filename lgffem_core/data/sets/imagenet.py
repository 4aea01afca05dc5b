"""ImageNet-1k's training set: the official archive, or what was extracted from it; and held-out images beside it.

``root`` holds ``ILSVRC2012_img_train.tar`` (a tar of one tar per class; torchvision checks its MD5 and
extracts it beside), or already ``train/<wnid>/*.JPEG``. ``val/<wnid>/*.JPEG``, never trained on, may be absent.
"""

import re
import tarfile
from contextlib import contextmanager
from pathlib import Path

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.base.files import atomic_folder
from lgffem_core.data.listing import subfolders, what_is_there
from lgffem_core.data.sets import facts
from lgffem_core.data.sets.base import DataSet, Row

ARCHIVE = "ILSVRC2012_img_train.tar"  # read while there is no folder train/


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
    """Unpack the official training archive into ``root/train``; a damaged or hostile archive is an error."""
    from torchvision.datasets.imagenet import parse_train_archive  # imports torch, which no other module here needs

    with atomic_folder(root / "train") as building:
        try:
            with plain_members():
                parse_train_archive(str(root), folder=building.name)
        except (RuntimeError, tarfile.TarError, StudyError) as error:
            raise StudyError(f"{root / ARCHIVE}: {error}; download it again.") from None


class ImageNet(DataSet):
    """Photographs; a label is a wnid, and so is the ``group``, for want of anything finer."""

    name = "imagenet"
    where = (
        "ImageNet-1k: register at image-net.org and download ILSVRC2012_img_train.tar (138 GB); put it, or the "
        "extracted train/<wnid>/*.JPEG, in a folder and set data.imagenet.root to it"
    )
    images, suffixes = "(train|val)/[^/]+/.+", (".jpeg", ".jpg", ".png")
    only_rgb = False  # ImageNet-1k itself holds a PNG and CMYK under .JPEG
    label_in_name = re.compile(r"(n\d+)_")
    may_lose = ("test",)  # val/ may be absent

    def read_below(self, root: Path) -> re.Pattern[str]:
        """The archive while it is not unpacked."""
        return self.image_pattern() if (root / "train").is_dir() else re.compile(re.escape(ARCHIVE))

    def missing(self, root: Path, settings) -> list[tuple[str, ...]]:
        """The images or the archive."""
        return [] if (root / "train").is_dir() or (root / ARCHIVE).is_file() else [("train", ARCHIVE)]

    def layout(self, root: Path, settings) -> tuple[list[Row], list[str]]:
        """Rows of train/ first, then val/ as split "test"; the classes in wnid order. Unpacks the archive first.

        Raises ``RequestError`` for an empty class folder.
        """
        train = root / "train"
        if not train.is_dir():
            extract_archive(root)
        by_class: dict[str, list[str]] = {folder.name: [] for folder in subfolders(train)}
        if len(by_class) < 2:
            there = what_is_there(train, self.suffixes)
            raise RequestError(f"{train}: has {len(by_class)} class folders{there}; two are needed at least.")
        held_out: list[Row] = []
        for path in self.image_files(root):
            part, wnid = path.split("/")[:2]
            if wnid not in by_class:  # of val/: the classes are those of train/
                raise RequestError(f"{root / part / wnid}: is no class of train/; rename it, or remove it.")
            if part == "train":
                by_class[wnid].append(path)
            else:
                held_out.append((path, wnid, "test", wnid))
        for wnid, files in by_class.items():
            if not files:
                there = what_is_there(train / wnid, self.suffixes)
                raise RequestError(f"{train / wnid}: is an empty class folder{there}; restore its images or remove it.")
        rows = [(path, wnid, "train", wnid) for wnid, files in by_class.items() for path in files]
        return rows + held_out, list(by_class)

    def published(self, settings, rows: list[Row]) -> dict[str, int]:
        """Those of val/ only where it is there."""
        held_out = any(split == "test" for _, _, split, *_ in rows)
        return {"train": facts.IMAGENET_TRAIN_TOTAL} | ({"test": facts.IMAGENET_VAL_TOTAL} if held_out else {})

    def write_synthetic(self, settings, root: Path) -> None:
        """``{train,val}/<wnid>/<wnid>_{i}.JPEG``; the ids are invented, so that nobody takes them for real classes."""
        from lgffem_core.data.synthetic.make import generator, save
        from lgffem_core.data.synthetic.textures import texture

        splits = (("train", settings.imagenet_per_class, ()), ("val", settings.imagenet_val_per_class, ("val",)))
        for number in range(settings.imagenet_classes):
            wnid = f"n9{number:07d}"
            for split, count, apart in splits:
                folder = root / split / wnid
                folder.mkdir(parents=True)
                for index in range(count):
                    rng = generator(settings, "imagenet", number, *apart, index)
                    save(folder / f"{wnid}_{index}.JPEG", texture(number, settings.image_size, rng))


SET = ImageNet()
