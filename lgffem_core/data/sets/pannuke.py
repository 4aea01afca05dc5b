"""PanNuke: 7,901 tiles of 19 tissue types in three folds (paper, section 4.1.1).

Two layouts are read. The official one, arrays in ``Fold 1`` … ``Fold 3``, is first converted (``pannuke_folds``). The
prepared one is ``images/fold{k}_{i}_{tissue}.png`` with ``masks/….npy``, as PathML 3.0.8 writes it: its PNG files hold
BGR, since it writes RGB arrays through OpenCV (ledger row 13), and so do ours, so that either program
reads what the other wrote.
"""

import re
from pathlib import Path

from lgffem_core.base.errors import RequestError
from lgffem_core.data.listing import what_is_there
from lgffem_core.data.sets import facts
from lgffem_core.data.sets.base import DataSet, Row
from lgffem_core.data.sets.facts import PANNUKE_FOLDS, PANNUKE_TISSUES, file_tissue
from lgffem_core.data.similar import near_miss

ARRAYS = re.compile(r"Fold ([123])/(images/fold\1/(images|types)|masks/fold\1/masks)\.npy")
NAME = re.compile(r"fold([123])_(\d+)_([^_]+)\.(?i:png)")


class PanNuke(DataSet):
    """Tiles; a label is a tissue, and ``group`` the fold."""

    name = "pannuke"
    where = (
        "PanNuke: download the three folds from the site of its authors (TIA Centre, Warwick); unpack them side "
        "by side as 'Fold 1' … 'Fold 3' and set data.pannuke.root to the folder that holds them"
    )
    images, suffixes = "images/.+", (".png",)

    def is_official(self, root: Path) -> bool:
        """True where ``root`` holds official folds, or some of them."""
        return any((root / f"Fold {fold}").is_dir() for fold in PANNUKE_FOLDS)

    def read_below(self, root: Path) -> re.Pattern[str]:
        """The arrays of official folds, even where images/ lies beside them."""
        return ARRAYS if self.is_official(root) else self.image_pattern()

    def missing(self, root: Path, settings) -> list[tuple[str, ...]]:
        """The folds that are needed, or either layout."""
        if self.is_official(root):
            needed = PANNUKE_FOLDS if settings.split is None else (settings.split,)
            return [(f"Fold {fold}",) for fold in needed if not (root / f"Fold {fold}").is_dir()]
        return [] if (root / "images").is_dir() else [(f"Fold {settings.split or 1}", "images")]

    def convert(self, root: Path, target: Path, settings) -> None:
        """Write the folds as images. Of folds that were converted, one that trains may be gone since: an error."""
        from lgffem_core.data.sets import pannuke_folds

        pannuke_folds.folds_of(root, settings.split)
        if not target.exists():
            pannuke_folds.convert_folds(root, target, settings.split)

    def layout(self, root: Path, settings) -> tuple[list[Row], list[str]]:
        """Rows of a prepared folder: data.pannuke.split trains (null: all), the others are split "test".

        Raises ``RequestError`` naming the file where a name is malformed or a tissue unknown.
        """
        folder, split = root / "images", settings.split
        official = {file_tissue(tissue) for tissue in PANNUKE_TISSUES}
        rows = []
        for path in self.image_files(root):
            match = NAME.fullmatch(path.rpartition("/")[2])
            if not match:
                raise RequestError(f"{root / path}: is not named fold<1-3>_<number>_<tissue>.png.")
            fold, tissue = int(match.group(1)), match.group(3)
            if settings.tissues == "pannuke" and tissue not in official:
                raise RequestError(
                    f"{root / path}: unknown tissue {tissue!r}; PanNuke has 19. For other tiles set "
                    "data.pannuke.tissues=any."
                )
            use = "train" if split in (None, fold) else "test"
            rows.append((path, tissue, use, f"fold{fold}"))
        train_tissues = {label for _, label, use, _ in rows if use == "train"}
        if not rows:
            near = near_miss(root, *(f"Fold {fold}" for fold in PANNUKE_FOLDS)) or self.where
            raise RequestError(f"{folder}: has no tiles{what_is_there(folder, self.suffixes)}; {near}.")
        if len(train_tissues) < 2:
            raise RequestError(
                f"{folder}: has {len(train_tissues)} tissues to train on; two are needed (data.pannuke.split is "
                f"{split})."
            )
        return rows, sorted({label for _, label, _, _ in rows})

    def published(self, settings, rows: list[Row]) -> dict[str, int]:
        """Those of the fold that trains, or of all; of the others, which are not needed, those that are there."""
        sizes, split = dict(zip(PANNUKE_FOLDS, facts.PANNUKE_FOLD_SIZES, strict=True)), settings.split
        if split is None:
            return {"train": sum(sizes.values())}
        present = {group for *_, group in rows} - {f"fold{split}"}
        test = sum(size for fold, size in sizes.items() if f"fold{fold}" in present)
        return {"train": sizes[split]} | ({"test": test} if test else {})

    def write_synthetic(self, settings, root: Path) -> None:
        """``images/fold{k}_{i}_{tissue}.png`` with red and blue swapped (ledger 13), ``masks/….npy``."""
        from lgffem_core.data.sets.pannuke_folds import write_array
        from lgffem_core.data.synthetic.make import pannuke_patch, save

        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True)
        for number, tissue in enumerate(PANNUKE_TISSUES):
            for index in range(settings.pannuke_per_tissue):
                in_fold = index // 3 * len(PANNUKE_TISSUES) + number
                stem = f"fold{index % 3 + 1}_{in_fold}_{file_tissue(tissue)}"
                image, masks = pannuke_patch(settings, tissue, index)
                save(root / "images" / f"{stem}.png", image[:, :, ::-1])
                write_array(root / "masks" / f"{stem}.npy", masks)


SET = PanNuke()
