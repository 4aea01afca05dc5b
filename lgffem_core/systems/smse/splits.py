"""The folds of BreakHis: which images a training is tested on, and which it sees. Nothing here imports torch.

So the checklist can ask, before a run starts, what a training would refuse hours later.
"""

import numpy as np
import pandas as pd

from lgffem_core.base.errors import RequestError
from lgffem_core.config.study import Study
from lgffem_core.data import patch_table
from lgffem_core.data.sets import get as set_named
from lgffem_core.data.sets.breakhis_folds import list_files
from lgffem_core.data.sets.breakhis_names import CLASSES
from lgffem_core.systems.smse.places import places_left
from lgffem_core.systems.smse.runs import Run, runs

DATASET = "breakhis"
RESNET_STRIDE = 32  # pixels of an image that become a place of ResNet's last map


def fold_split(study: Study, fold: int) -> tuple[pd.DataFrame, np.ndarray]:
    """The PatchTable, and which of its rows are tested in a fold: (N,) bool; see ``tested``."""
    table = patch_table(study, DATASET)
    return table, tested(table, fold)


def tested(table: pd.DataFrame, fold: int) -> np.ndarray:
    """Which rows of a table with labels and ``tested_in`` are tested in a fold: (N,) bool.

    ``RequestError`` for a fold that is none, or leaves a class without images to train on or to test.
    """
    inside = np.array([str(fold) in each.split() for each in table["tested_in"]])
    for side, rows in (("tested", table[inside]), ("trained on", table[~inside])):
        if lacking := sorted({*table["label"]} - {*rows["label"]}):
            raise RequestError(
                f"smse.folds: in fold {fold}, no {lacking[0]} image is {side}; name folds of data.breakhis (there are "
                f"{', '.join(sorted({*' '.join(table['tested_in']).split()}, key=int))}), or give more patients."
            )
    return inside


def training_rows(study: Study, run: Run, fold: int) -> pd.DataFrame:
    """The rows of the PatchTable that a run is trained on; see ``trained_on``."""
    return trained_on(patch_table(study, DATASET), run, fold)


def trained_on(table: pd.DataFrame, run: Run, fold: int) -> pd.DataFrame:
    """The rows that a run is trained on, with sample ids 0, 1, …; ``RequestError`` where a class has none of them."""
    rows = table[~tested(table, fold) & table["magnification"].isin(run.magnifications)].reset_index(drop=True)
    if rows["label"].nunique() < table["label"].nunique():
        raise RequestError(
            f"smse: of fold {fold}, {', '.join(map(str, run.magnifications))}×, only one class is there to train on; "
            "restore what is missing, or set smse.single and smse.held_out to other magnifications."
        )
    return rows


def check_last_batch(study: Study, run: Run, images: int) -> None:
    """``RequestError`` where an epoch ends with one image of one place: ResNet's BatchNorm has nothing to average."""
    settings = study.params.smse
    alone = run.metric == "none" and images % settings.batch_size == 1
    if alone and settings.network == "resnet18" and max(settings.image_size) <= RESNET_STRIDE:
        raise RequestError(
            f"smse.batch_size: of {images} images in batches of {settings.batch_size} one is left alone, too few for "
            f"BatchNorm; set another, or images larger than {RESNET_STRIDE} pixels."
        )


def faults(study: Study) -> list[str]:
    """Why a user's BreakHis cannot be trained on as the parameters say: what ``train`` would say, at most one sentence.

    Of an archive that is still to be unpacked no more is known than which folds there are.
    """
    root, data_set, settings = study.data_root(DATASET), set_named(DATASET), study.params.data.breakhis
    columns = ["path", "label", "split", "group", *data_set.columns]
    try:
        if study.params.smse.network == "six_convolutions":
            places_left(study.params.smse)
        packed = data_set.is_official(root)
        known = [*(list_files(root) or range(1, settings.folds + 1)), ""] if packed else []  # "": tested in none
        rows = [{"label": label, "tested_in": str(fold)} for label in CLASSES.values() for fold in known]
        table = pd.DataFrame(rows if packed else data_set.layout(root, settings)[0], columns=columns)
        for fold in study.params.smse.folds:
            for run in runs(study).values():
                if packed:
                    tested(table, fold)
                else:
                    check_last_batch(study, run, len(trained_on(table, run, fold)))
    except RequestError as error:
        return [str(error)]
    return []
