"""File names and folders of BreakHis, read and held against one another."""

import re
from typing import NamedTuple

CLASSES = {"B": "benign", "M": "malignant"}
#: Sign of a tumour type in file names -> (its class, the name of its folder).
TYPES = {
    "A": ("benign", "adenosis"),
    "F": ("benign", "fibroadenoma"),
    "PT": ("benign", "phyllodes_tumor"),
    "TA": ("benign", "tubular_adenoma"),
    "DC": ("malignant", "ductal_carcinoma"),
    "LC": ("malignant", "lobular_carcinoma"),
    "MC": ("malignant", "mucinous_carcinoma"),
    "PC": ("malignant", "papillary_carcinoma"),
}
NAME = re.compile(r"SOB_([BM])_([A-Z]{1,2})-([0-9]{2}-[0-9]+[A-Z]*)-([0-9]+)-([0-9]{3})\.(?i:png)")
MAGNIFICATIONS = (40, 100, 200, 400)


class Name(NamedTuple):
    """What a file's name says of its image."""

    label: str  # benign or malignant
    type: str  # as its folder is named
    sign: str  # of the type: DC
    patient: str  # year and number of the slide: 14-22549AB
    magnification: int
    sequence: int

    @property
    def folders(self) -> str:
        """Where below ``breast`` the official tree has it: ``benign/SOB/adenosis/SOB_B_A_14-22549AB/40X``."""
        slide = f"SOB_{self.label[0].upper()}_{self.sign}_{self.patient}"
        return f"{self.label}/SOB/{self.type}/{slide}/{self.magnification}X"

    @property
    def file(self) -> str:
        """``SOB_B_A-14-22549AB-40-001.png``."""
        number = f"{self.magnification}-{self.sequence:03d}"
        return f"SOB_{self.label[0].upper()}_{self.sign}-{self.patient}-{number}.png"


def parse_name(file: str) -> Name:
    """The parts of a file name; ``ValueError`` says which of them is none of BreakHis'."""
    found = NAME.fullmatch(file)
    if not found:
        raise ValueError("is not named SOB_<B or M>_<type>-<year>-<slide>-<magnification>-<three digits>.png")
    letter, sign, patient, magnification, sequence = found.groups()
    if sign not in TYPES:
        raise ValueError(f"names the type {sign}, which is none of {', '.join(TYPES)}")
    label, kind = TYPES[sign]
    if CLASSES[letter] != label:
        raise ValueError(f"names the class {letter} and the type {sign}, which is {label}")
    if magnification not in map(str, MAGNIFICATIONS):
        raise ValueError(f"names the magnification {magnification}, which is none of 40, 100, 200, 400")
    return Name(label, kind, sign, patient, int(magnification), int(sequence))


def parse_path(path: str) -> Name:
    """The same of a path, whose folders must agree with the name; ``ValueError`` says where they do not."""
    folder, _, file = path.rpartition("/")
    name = parse_name(file)
    below = folder.partition("histology_slides/breast/")[2]
    if below != name.folders:
        raise ValueError(f"lies in {below or 'the wrong folder'}, but by its name belongs in {name.folders}")
    return name
