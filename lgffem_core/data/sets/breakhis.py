"""BreakHis: breast tumours of 82 patients at four magnifications (Spanhol et al., IEEE TBME 2016; CC BY 4.0).

The official tree ``BreaKHis_v1/histology_slides/breast/<class>/SOB/<type>/<slide>/<magnification>X`` is read, whole or
a part of it, or the archive that holds it. ``group`` is the patient, that is the slide by its year and number, which
may be of two types. ``tested_in`` has the folds in which it is tested ("1", or "1 4" by the official lists); ``split``
is that of the first.
"""

import re
import tarfile
from collections import Counter
from pathlib import Path

from lgffem_core.base.errors import RequestError, StudyError, one_line
from lgffem_core.base.files import atomic_folder
from lgffem_core.data.listing import what_is_there
from lgffem_core.data.sets import facts
from lgffem_core.data.sets.base import DataSet, Row
from lgffem_core.data.sets.breakhis_folds import LISTS, dealt, list_files, listed
from lgffem_core.data.sets.breakhis_names import CLASSES, TYPES, Name, parse_path

FOLDER, ARCHIVE = "BreaKHis_v1", "BreaKHis_v1.tar.gz"


class BreakHis(DataSet):
    """Microscope fields, 700 × 460 px; a label is benign or malignant."""

    name = "breakhis"
    where = (
        "BreakHis: download BreaKHis_v1.tar.gz (4 GB, CC BY 4.0) from the site of its authors (VRI, Federal University "
        "of Paraná); put it, or the BreaKHis_v1 it holds, in a folder and set data.breakhis.root to it"
    )
    images, suffixes = f"({FOLDER}/)?histology_slides/breast/.+", (".png",)
    columns = {"type": "str", "magnification": "int64", "tested_in": "str"}

    def has_tree(self, root: Path) -> bool:
        """True where images lie below ``root``, or are meant to."""
        return any((root / folder / "histology_slides" / "breast").is_dir() for folder in ("", FOLDER))

    def is_official(self, root: Path) -> bool:
        """True for the archive, while nothing of it lies beside it."""
        return (root / ARCHIVE).is_file() and not self.has_tree(root)

    def read_below(self, root: Path) -> re.Pattern[str]:
        """The archive or the images, and the lists of folds."""
        images = re.escape(ARCHIVE) if self.is_official(root) else self.image_pattern().pattern
        return re.compile(f"{images}|{LISTS}", re.DOTALL)

    def missing(self, root: Path, settings) -> list[tuple[str, ...]]:
        """The tree or its archive."""
        return [] if self.has_tree(root) or (root / ARCHIVE).is_file() else [(FOLDER, ARCHIVE)]

    def convert(self, root: Path, target: Path, settings) -> None:
        """Unpack the images of the archive into ``target``, and put the lists of folds beside them."""
        if target.exists():
            return
        with atomic_folder(target) as building:
            unpack(root / ARCHIVE, building, self.image_pattern())
            for path in list_files(root).values():
                (building / path.name).write_bytes(path.read_bytes())

    def layout(self, root: Path, settings) -> tuple[list[Row], list[str]]:
        """Rows of the magnifications that are asked for.

        Raises ``RequestError`` for a name or folder that is none of BreakHis', an image that is there twice, a patient
        of two classes, one on both sides of a fold, and a magnification of which there is no image.
        """
        names = {path: read_name(root, path) for path in self.image_files(root)}
        chosen = {path: name for path, name in names.items() if name.magnification in settings.magnifications}
        check_magnifications(root, names, settings)
        check_classes(root, chosen)
        check_once(root, names)
        files = list_files(root)
        folds = listed(files, chosen.values()) if files else dealt(chosen.values(), settings.folds)
        first = min(files, default=1)
        rows = []
        for path, name in chosen.items():
            tested = sorted(folds[name.patient])
            split = "test" if first in tested else "train"
            rows.append(
                (path, name.label, split, name.patient, name.type, name.magnification, " ".join(map(str, tested)))
            )
        for label in CLASSES.values():
            if lacking := {"train", "test"} - {row[2] for row in rows if row[1] == label}:
                raise RequestError(
                    f"{root}: fold {first} has no {label} patient in {min(lacking)}; give more patients, or set "
                    "data.breakhis.folds to fewer."
                )
        return rows, list(CLASSES.values())

    def published(self, settings, rows: list[Row]) -> dict[str, int]:
        """All images of the magnifications; how many of them are tested is no published number, and taken as found."""
        test = sum(row[2] == "test" for row in rows)
        total = sum(facts.BREAKHIS_COUNTS[magnification] for magnification in settings.magnifications)
        return {"test": test, "train": total - test}

    def write_synthetic(self, settings, root: Path) -> None:
        """The official tree with procedural fields; slides' numbers are invented, and start with 9."""
        from lgffem_core.data.synthetic.magnified import PATTERNS, patient_tissue, views
        from lgffem_core.data.synthetic.make import generator, save

        benign = max(sum(label == "benign" for label, _ in TYPES.values()), round(0.3 * settings.breakhis_patients))
        counts = {"benign": benign, "malignant": settings.breakhis_patients - benign}
        for label, count in counts.items():
            signs = [sign for sign, (of, _) in TYPES.items() if of == label]
            for number in range(count):
                sign, patient = signs[number % len(signs)], f"14-9{len(label)}{number:03d}"
                tissue = patient_tissue(PATTERNS[sign], generator(settings, "breakhis", patient))
                for field in range(settings.breakhis_fields):
                    rng = generator(settings, "breakhis", patient, field)
                    for magnification, image in views(tissue, 3 * settings.image_size // 4, rng).items():
                        name = Name(label, TYPES[sign][1], sign, patient, magnification, field + 1)
                        folder = root / FOLDER / "histology_slides" / "breast" / name.folders
                        folder.mkdir(parents=True, exist_ok=True)
                        save(folder / name.file, image)


def read_name(root: Path, path: str) -> Name:
    """What a path says of its image; ``RequestError`` names the file."""
    try:
        return parse_path(path)
    except ValueError as error:
        raise RequestError(f"{root / path}: {error}; restore its name and place.") from None


def check_magnifications(root: Path, names: dict[str, Name], settings) -> None:
    """``RequestError`` where there is no image of a magnification that is asked for."""
    there = Counter(name.magnification for name in names.values())
    if not there:
        raise RequestError(f"{root}: has no images{what_is_there(root, SET.suffixes)}; {SET.where}.")
    if lacking := [each for each in settings.magnifications if each not in there]:
        listed_as, found = ("X, ".join(map(str, some)) + "X" for some in (lacking, sorted(there)))
        raise RequestError(
            f"{root}: is a part of BreakHis, with {found} and without {listed_as}; restore what is missing, or set "
            f"data.breakhis.magnifications={sorted(there)}."
        )


def check_classes(root: Path, names: dict[str, Name]) -> None:
    """``RequestError`` for a patient with images of both classes."""
    first: dict[str, tuple[str, str]] = {}
    for path, name in names.items():
        label, other = first.setdefault(name.patient, (name.label, path))
        if label != name.label:
            raise RequestError(
                f"{root / path}: patient {name.patient} is {name.label} here and {label} in {other}; a patient has one "
                "class: remove what is misplaced."
            )


def check_once(root: Path, names: dict[str, Name]) -> None:
    """``RequestError`` where an image is there twice, as where one tree was unpacked into another."""
    first: dict[Name, str] = {}
    for path, name in names.items():
        if first.setdefault(name, path) != path:
            raise RequestError(f"{root / path}: is there twice, also as {first[name]}; remove one tree of the two.")


def unpack(archive: Path, target: Path, wanted: re.Pattern[str]) -> None:
    """Write the members whose names ``wanted`` matches below ``target``; others are left in the archive.

    ``StudyError`` for an archive that is damaged, or holds a path out of it, a link or a device.
    """
    if not hasattr(tarfile, "data_filter"):
        raise StudyError("Archives are unpacked safely by Python 3.11.4 and later; use one, or unpack by hand.")
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                if not (member.isreg() or member.isdir()):
                    raise StudyError(f"holds {member.name!r}, which is neither file nor folder")
                safe = tarfile.data_filter(member, str(target))
                if member.isreg() and wanted.fullmatch(safe.name.removeprefix("./")):
                    tar.extract(safe, target, filter="data")
            while tar.fileobj.read(1 << 20):  # to the end, where the checksum is
                pass
    except (tarfile.TarError, EOFError, StudyError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk, and not of the archive
            raise
        raise StudyError(f"{archive}: {one_line(error)}; download it again.") from None


SET = BreakHis()
