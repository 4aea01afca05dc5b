"""The data layer: each data set's layout on disk becomes a PatchTable (see ``table``).

``prepare`` makes the images where they are synthetic, converts PanNuke's official folds, checks counts,
and writes the table to ``artifacts/<profile>/index``; ``patch_table`` gives it back.
"""

from pathlib import Path

import pandas as pd

from lgffem_core.data import facts, imagenet, kimia, pannuke, synthetic
from lgffem_core.data.table import read_table, write_table
from lgffem_core.errors import RequestError
from lgffem_core.files import read_json, sha256_json, write_json
from lgffem_core.study import Study


def images_root(study: Study, dataset: str) -> Path:
    """Folder that a PatchTable's paths count from: the data root, or where official folds were converted."""
    root = study.data_root(dataset)
    if dataset == "pannuke" and pannuke.is_official(root):
        return study.artifacts / "data" / f"pannuke_{sha256_json(pannuke.official_files(root))[:8]}"
    return root


def prepare(study: Study, dataset: str) -> pd.DataFrame:
    """Bring a data set into place and return its PatchTable, freshly read from disk.

    Raises ``RequestError`` for missing data and ``StudyError`` for damaged files, naming the file.
    """
    root, images = study.data_root(dataset), images_root(study, dataset)
    if study.is_synthetic(dataset):
        if dataset not in study.params.data.synthetic.datasets:
            raise RequestError(f"data.{dataset}.root is not set; this profile does not make synthetic {dataset}.")
        if not root.exists():
            synthetic.make(dataset, study.params.data.synthetic, root)
    elif not root.is_dir():
        raise RequestError(f"data.{dataset}.root: {root} is not a folder.")
    elif images != root and not images.exists():
        pannuke.convert_folds(root, images)
    table = read_layout(study, dataset, images)
    if study.params.data.check_counts:
        check_counts(dataset, table, study)
    write_table(table, study.index(dataset))
    write_json(study.index(dataset).with_suffix(".json"), index_settings(study, dataset))
    return table


def patch_table(study: Study, dataset: str) -> pd.DataFrame:
    """The PatchTable of a data set: as notebook 01 wrote it, or prepared now if it has not run yet."""
    known = study.index(dataset).with_suffix(".json")
    if known.exists() and sha256_json(index_settings(study, dataset)) == sha256_json(read_json(known)):
        return read_table(study.index(dataset))
    return prepare(study, dataset)


def channel_order(study: Study, dataset: str) -> str:
    """Order of the colour channels in the files: only PanNuke's prepared PNGs are swapped (ledger 13)."""
    return study.params.data.pannuke.channel_order if dataset == "pannuke" else "rgb"


def read_layout(study: Study, dataset: str, images: Path) -> pd.DataFrame:
    """Read one data set's layout with the reader that knows it."""
    data = study.params.data
    if dataset == "imagenet":
        return imagenet.patch_table(images)
    if dataset == "pannuke":
        return pannuke.patch_table(images, data.pannuke.split, data.pannuke.tissues)
    return kimia.patch_table(images, data.kimia.scans)


def index_settings(study: Study, dataset: str) -> dict:
    """What the PatchTable of a data set depends on, as far as the parameters say."""
    settings = getattr(study.params.data, dataset).model_dump(mode="json")
    return {"dataset": dataset, "images": str(images_root(study, dataset)), "settings": settings}


def check_counts(dataset: str, table: pd.DataFrame, study: Study) -> None:
    """Compare with the published numbers of images; a difference is an error that states both."""
    found = table.groupby("split").size().to_dict()
    expected = {
        "imagenet": {"train": facts.IMAGENET_TRAIN_TOTAL},
        "kimia": {"train": facts.KIMIA_TRAIN_TOTAL, "test": facts.KIMIA_TEST_TOTAL},
        "pannuke": pannuke_counts(study.params.data.pannuke.split),
    }[dataset]
    if found != expected:
        raise RequestError(
            f"data.{dataset}.root: holds {found} images, the published set {expected}; restore what is missing, "
            "or set data.check_counts=false for a set of your own."
        )


def pannuke_counts(split: int | None) -> dict[str, int]:
    """Published numbers of tiles in split "train" and "test" for a value of data.pannuke.split."""
    sizes = dict(zip(pannuke.FOLDS, facts.PANNUKE_FOLD_SIZES, strict=True))
    if split is None:
        return {"train": sum(sizes.values())}
    return {"train": sizes[split], "test": sum(sizes.values()) - sizes[split]}
