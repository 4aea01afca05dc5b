"""Which patients of BreakHis are tested in which fold: by the official lists, or dealt out here."""

from collections.abc import Iterable
from pathlib import Path

from lgffem_core.base.errors import RequestError
from lgffem_core.base.seeds import derive_seed
from lgffem_core.data.sets.breakhis_names import Name, parse_name

LISTS = r"(mkfold/)?dsfold[0-9]+\.txt"  # as the archive mkfold has them


def dealt(names: Iterable[Name], folds: int) -> dict[str, set[int]]:
    """Patient -> the folds (1 … ``folds``) in which it is tested: one each, the types spread evenly over them.

    A slide's number may be followed by letters, as 22549AB and 22549CD; whether those are one person is not known, so
    they go into one fold. The order in which patients are dealt depends on nothing but their names.
    """
    kinds: dict[str, str] = {}
    patients = sorted({(name.patient, f"{name.label} {name.type}") for name in names})
    for patient, kind in patients:
        kinds.setdefault(case_of(patient), kind)
    order = sorted(kinds, key=lambda case: (kinds[case], derive_seed("fold", case), case))
    fold_of = {case: number % folds + 1 for number, case in enumerate(order)}
    return {patient: {fold_of[case_of(patient)]} for patient, _ in patients}


def case_of(patient: str) -> str:
    """Year and number without the letters behind them."""
    return patient.rstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def list_files(root: Path) -> dict[int, Path]:
    """Fold -> its official list, where ``root`` or its folder mkfold holds some."""
    found = {}
    for path in sorted([*root.glob("dsfold*.txt"), *root.glob("mkfold/dsfold*.txt")]):
        number = path.stem.removeprefix("dsfold")
        if number.isdigit():
            found.setdefault(int(number), path)
    return found


def listed(files: dict[int, Path], names: Iterable[Name]) -> dict[str, set[int]]:
    """Patient -> the folds whose list has it as ``test``.

    Lines are ``SOB_B_A-14-22549AB-40-001.png|40|1|train``. ``RequestError`` names the list and what is amiss: a line
    that is no such, a patient on both sides, or one of ``names`` that it lacks.
    """
    wanted, tested = {name.patient for name in names}, {}
    for fold, path in files.items():
        sides = sides_in(path)
        if lacking := sorted(wanted - sides.keys()):
            raise RequestError(
                f"{path}: does not have patient {lacking[0]}; give lists of all patients, or remove them."
            )
        for patient in wanted:
            tested.setdefault(patient, set()).update({fold} if sides[patient] == "test" else ())
    return tested


def sides_in(path: Path) -> dict[str, str]:
    """Patient -> "train" or "test", of one list."""
    sides: dict[str, str] = {}
    text = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        parts = [part.strip() for part in line.split("|")]
        try:
            if len(parts) != 4 or parts[3] not in ("train", "test"):
                raise ValueError("is not <file>|<magnification>|<fold>|<train or test>")
            patient = parse_name(parts[0]).patient
        except ValueError as error:
            raise RequestError(f"{path}: line {number} {error}; get the lists again, or remove them.") from None
        if sides.setdefault(patient, parts[3]) != parts[3]:
            raise RequestError(
                f"{path}: line {number}: patient {patient} is in train and in test; a fold must keep a patient's "
                "images on one side: get the lists again, or remove them."
            )
    return sides
