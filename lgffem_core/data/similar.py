"""What a data set's root lacks, and near misses: the folder that was most likely meant instead."""

import re
from difflib import SequenceMatcher
from pathlib import Path

from lgffem_core.base.errors import StudyError
from lgffem_core.data import sets
from lgffem_core.data.listing import printable, subfolders

DEPTH, SEARCHED = 3, 1000  # how deep, and in how many folders of a level, a similar name is looked for
ALIKE = 0.7  # difflib's ratio


def fault_of_root(study, dataset: str, root: Path) -> str | None:
    """What is wrong with the folder that was named for a data set, and what was probably meant; None where it fits."""
    if not root.is_dir():
        return f"{root} is a file; name the folder that holds the images." if root.exists() else f"{root} is not there."

    def lacks(folder: Path, name: str = dataset) -> list[tuple[str, ...]]:
        return list(sets.get(name).missing(folder, getattr(study.params.data, name)))

    if not (missing := lacks(root)):
        return None
    says = f"{root} does not hold {' and '.join(' or '.join(either) for either in missing)}"
    near = "; ".join(filter(None, (near_miss(root, *either) for either in missing)))
    alike = filter(None, (similar(root, name) for either in missing for name in either))
    misnamed = sets.get(dataset).is_official(root) or any(folder.parent == root for folder in alike)
    if not misnamed and (inside := next((folder for folder in folders_below(root) if not lacks(folder)), None)):
        return f"{says}, but {inside} does. Name that instead."
    if near:
        return f"{says} ({near})."
    given = [name for name in sets.NAMES if name != dataset and not study.is_synthetic(name)]
    if others := [name for name in given if not lacks(root, name) and lacks(study.data_root(name), name)]:
        return f"{says}, but what data.{others[0]}.root lacks. Are the two swapped?"
    return f"{says}. {sets.get(dataset).where}. For slides of your own see docs/own_data.md."


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
