"""Near misses: the folder that was most likely meant where a data set's layout asks for one that is not there."""

import re
from difflib import SequenceMatcher
from pathlib import Path

from lgffem_core.base.errors import StudyError
from lgffem_core.data.listing import printable, subfolders

DEPTH, SEARCHED = 3, 1000  # how deep, and in how many folders of a level, a similar name is looked for
ALIKE = 0.7  # difflib's ratio


def near_miss(root: Path, *wanted: str) -> str:
    """What to do about missing folders ("train", "Fold 1/images") of which one will do, where a similar one is there.

    Part of a sentence: ``found Training/, rename or link it to train/``, or nothing.
    """
    return next(filter(None, (miss_of(root, folder) for folder in wanted)), "")


def miss_of(root: Path, wanted: str) -> str:
    """``near_miss`` of one folder."""
    base, names = Path(root), wanted.split("/")
    while names and (base / names[0]).is_dir():
        base /= names.pop(0)
    if not names:
        return ""
    missing = (base / names[0]).relative_to(root)
    if plain(base.name) == plain(names[0]):
        return f"{printable(base)} seems to be {names[0]}/ itself, then name {printable(base.parent)} instead"
    if found := similar(base, names[0]):
        return f"found {printable(found.relative_to(root))}/, rename or link it to {missing}/"
    return ""


def similar(folder: Path, name: str) -> Path | None:
    """The folder below ``folder`` that looks most like ``name``: exactly, but for signs and case, in part, roughly."""
    wanted, number = plain(name), re.sub(r"\D", "", name)

    def rank(path: Path) -> tuple:
        own = plain(path.name)
        return path.name != name, own != wanted, wanted not in own, len(path.parts), path

    def is_near(own: str) -> bool:
        if number and number != re.sub(r"\D", "", own):
            return False
        return wanted in own or SequenceMatcher(None, own, wanted).ratio() > ALIKE

    return min((path for path in folders_below(folder) if is_near(plain(path.name))), key=rank, default=None)


def plain(name: str) -> str:
    """A name without signs and case: ``Fold_1`` and ``fold-1`` are one."""
    return re.sub(r"[\W_]", "", name).casefold()


def listed(folder: Path) -> list[Path]:
    """The folders in ``folder``; none where it cannot be listed, which is no reason to say nothing of the others."""
    try:
        return subfolders(folder)
    except StudyError:
        return []


def folders_below(folder: Path) -> list[Path]:
    """The folders at most ``DEPTH`` below ``folder``, those near it first; of a large tree the first ``SEARCHED``."""
    level, found = [folder], []
    for _ in range(DEPTH):
        level = [below for above in level[:SEARCHED] for below in listed(above)]
        found += level
    return found
