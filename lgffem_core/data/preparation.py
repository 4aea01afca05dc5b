"""From a data set's folder to its PatchTable (see ``table``), and back to the table from its file, the *index*.

``prepare`` makes the images where they are synthetic, converts an official form, examines every file
(see ``quarantine``), checks counts, and writes the index to ``artifacts/<profile>/index``. ``patch_table`` gives the
table back; ``check_unchanged`` says whether the files are still those that it names.
"""

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import pandas as pd

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.base.files import held, read_json, sha256_file, sha256_json, write_json, write_text
from lgffem_core.config.study import Study
from lgffem_core.data.census import census, data_digest, files_cache, study_files
from lgffem_core.data.listing import unread_rows
from lgffem_core.data.quarantine import (
    FAULT,
    NOTICE,
    REPORT_COLUMNS,
    Finding,
    examine,
    report_row,
    report_rows,
    write_findings,
)
from lgffem_core.data.sets import NAMES
from lgffem_core.data.sets import get as set_named
from lgffem_core.data.sets.base import Row
from lgffem_core.data.similar import fault_of_root
from lgffem_core.data.table import build_table, read_table


def images_root(study: Study, dataset: str) -> Path:
    """Folder that a PatchTable's paths count from: the data root, or where its official form was converted."""
    root = study.data_root(dataset)
    if set_named(dataset).is_official(root):
        return study.artifacts / "data" / f"{dataset}_{data_digest(study, dataset)[:8]}"
    return root


def prepare(study: Study, dataset: str) -> pd.DataFrame:
    """Bring a data set into place and return its PatchTable, freshly read from disk.

    Every file is examined before any fault stops the study; all findings go to ``<dataset>.faults.csv`` beside
    the index. Raises ``RequestError`` for missing data, and for faulty files unless data.faulty_files=leave_out;
    then the old index stays as it was.
    """
    study.reads(dataset)
    images = bring_into_place(study, dataset)
    data_set, settings = set_named(dataset), settings_of(study, dataset)
    rows, labels = data_set.layout(images, settings)
    if study.params.data.check_counts:
        check_counts(study, dataset, rows)
    hashes = files_census(study, dataset, [path for path, *_ in rows])
    findings = examine(data_set, images, rows, hashes, indexed_hashes(study, dataset))
    write_findings(dataset, findings, faults_file(study, dataset))
    faults = [finding for finding in findings if finding.severity == FAULT]
    if faults and study.params.data.faulty_files == "refuse":
        raise RequestError(refusal(study, dataset, faults))
    table = build_table(images, without(study, dataset, rows, faults), labels, hashes, data_set.columns)
    write_index(study, dataset, table, len(rows), study_files(study, dataset).unread)
    return table


def bring_into_place(study: Study, dataset: str) -> Path:
    """Make or convert the images where that is needed; returns the folder that holds them."""
    root, images = study.data_root(dataset), images_root(study, dataset)
    if study.is_synthetic(dataset):
        if dataset not in study.params.data.synthetic.datasets:
            raise RequestError(f"data.{dataset}.root is not set; this profile does not make synthetic {dataset}.")
        make_synthetic(study, dataset)
    elif fault := fault_of_root(study, dataset, root):
        raise RequestError(f"data.{dataset}.root: {fault}")
    elif images != root:
        set_named(dataset).convert(root, images, settings_of(study, dataset))
    return images


def make_synthetic(study: Study, dataset: str) -> None:
    """Make a set's synthetic images unless they are there; where another process is at it, wait for that."""
    root = study.data_root(dataset)
    if root.exists():
        return
    with held(root.with_name(f"{dataset}.lock")):
        if not root.exists():
            set_named(dataset).make_synthetic(study.params.data.synthetic, root)


def refusal(study: Study, dataset: str, faults: list[Finding]) -> str:
    """The sentence that refuses faulty files: how many, the first, where the list is, what to do."""
    made = study.is_synthetic(dataset) or images_root(study, dataset) != study.data_root(dataset)
    remedy = f"remove {images_root(study, dataset)} to have it made again" if made else "restore them"
    files, kinds = len({fault.path for fault in faults}), Counter(fault.kind for fault in faults)
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return (
        f"data.{dataset}: {files} faulty file{'s' * (files != 1)} ({counts}); the first is "
        f"{images_root(study, dataset) / faults[0].path}: {faults[0].reason}; all are listed in "
        f"{faults_file(study, dataset)}; {remedy}, or set data.faulty_files=leave_out."
    )


def without(study: Study, dataset: str, rows: list[Row], faults: list[Finding]) -> list[Row]:
    """``rows`` without the faulty files; a label that loses all its images of a split is an error."""
    faulty = {fault.path for fault in faults}
    left = [row for row in rows if row[0] not in faulty]
    lost = {row[1:3] for row in rows if row[2] not in set_named(dataset).may_lose} - {row[1:3] for row in left}
    if lost:
        label, split = min(lost)
        raise RequestError(
            f"data.{dataset}: {label} loses all its {split} images, since each is faulty (see "
            f"{faults_file(study, dataset)}); restore at least one."
        )
    return left


# -- the index -------------------------------------------------------------------------------------------------


def write_index(study: Study, dataset: str, table: pd.DataFrame, examined: int, unread: dict) -> None:
    """Write the index and, last, what it was made for and its own hash: without that it counts as not written."""
    index = study.index(dataset)
    index.with_suffix(".json").unlink(missing_ok=True)
    write_text(index, table.to_csv(index=False))
    found = {"files_examined": examined, "files_not_read": unread}
    made = index_settings(study, dataset) | {"index_sha256": sha256_file(index)} | found
    write_json(index.with_suffix(".json"), made)


def read_index(study: Study, dataset: str) -> pd.DataFrame | None:
    """The index that was written for these settings, None where there is none.

    Raises ``StudyError`` where it was changed after it was written.
    """
    index, settings = study.index(dataset), index_settings(study, dataset)
    known = index.with_suffix(".json")
    if not (known.exists() and index.exists()):
        return None
    made = read_json(known)
    if "index_sha256" not in made or sha256_json({key: made.get(key) for key in settings}) != sha256_json(settings):
        return None
    if sha256_file(index) != made["index_sha256"]:
        raise StudyError(f"{index}: was changed after notebook 01 wrote it; run notebook 01 again.")
    return parsed(index, made["index_sha256"], dataset).copy(deep=False)


@lru_cache(maxsize=len(NAMES))
def parsed(index: Path, content: str, dataset: str) -> pd.DataFrame:
    """The PatchTable in a file of this content, which one call of a stage asks for many times."""
    return read_table(index, set_named(dataset).columns)


def patch_table(study: Study, dataset: str) -> pd.DataFrame:
    """The PatchTable of a data set: as notebook 01 wrote it, or prepared now if it has not run yet.

    With data.accept_changed_files it names the files as they are now, so that whatever is made from them is known
    to be made from these. Raises ``StudyError`` for an index that was edited.
    """
    study.reads(dataset)
    table = read_index(study, dataset)
    if table is None:
        return prepare(study, dataset)
    if study.params.data.accept_changed_files:
        table["sha256"] = table["path"].map(files_census(study, dataset, table["path"]))
    return table


def indexed_hashes(study: Study, dataset: str) -> dict[str, str]:
    """Path -> SHA-256 in the last index; nothing where there is none to compare with."""
    try:
        table = read_index(study, dataset)
    except StudyError:
        return {}
    return {} if table is None else dict(zip(table["path"], table["sha256"], strict=True))


def files_census(study: Study, dataset: str, paths) -> dict[str, str]:
    """The census of a data set's images; ``paths`` count from ``images_root``."""
    images, cache = images_root(study, dataset), files_cache(study, dataset)
    if images != study.data_root(dataset):
        cache = cache.with_name(f"{dataset}.converted.files.csv")  # the other one remembers the arrays
    return census(images, list(paths), cache)


def check_unchanged(study: Study, dataset: str) -> None:
    """Refuse files that are not those the index was made from, unless data.accept_changed_files."""
    table, root = patch_table(study, dataset), images_root(study, dataset)
    now = files_census(study, dataset, table["path"])
    changed = table.loc[table["path"].map(now) != table["sha256"], "path"].tolist()
    if changed:
        raise RequestError(
            f"data.{dataset}: {len(changed)} file{'s' * (len(changed) != 1)} changed since the index was made, the "
            f"first is {root / changed[0]}; run notebook 01 again, which ./run_all.sh does by itself, or set "
            "data.accept_changed_files=true."
        )


def faults_file(study: Study, dataset: str) -> Path:
    """The list of everything that was found, beside the index."""
    return study.index(dataset).with_suffix(".faults.csv")


def data_report(study: Study, datasets: Iterable[str] = NAMES) -> pd.DataFrame:
    """What was found in the files of these data sets, as ``prepare`` left it: the artefact "Data report"."""
    rows = []
    for dataset in datasets:
        if study.is_synthetic(dataset):
            study.params.data.synthetic.model_dump()  # all of it is read, also where another process made the images
        findings = pd.read_csv(faults_file(study, dataset), keep_default_na=False)
        made = read_json(study.index(dataset).with_suffix(".json"))
        rows += report_rows(dataset, made["files_examined"], findings)
        rows += [report_row(dataset, "not read", NOTICE, *row) for row in unread_rows(made["files_not_read"])]
    return pd.DataFrame(rows, columns=list(REPORT_COLUMNS))


# -- what a data set is -----------------------------------------------------------------------------------------


def settings_of(study: Study, dataset: str):
    """A data set's section of the parameters."""
    return getattr(study.params.data, dataset)


def index_settings(study: Study, dataset: str) -> dict:
    """What the PatchTable of a data set depends on, as far as the parameters say.

    Where images were made or unpacked here, their folder counts from that of the index, which moves with it.
    """
    settings, images = settings_of(study, dataset).model_dump(mode="json"), images_root(study, dataset)
    made = images.is_relative_to(study.artifacts)
    place = images.relative_to(study.artifacts).as_posix() if made else str(images)
    settings["faulty_files"] = study.params.data.faulty_files
    return {"dataset": dataset, "images": place, "settings": settings}


def check_counts(study: Study, dataset: str, rows: list[Row]) -> None:
    """Compare with the published numbers of images; a difference is an error that states both."""
    found = dict(sorted(Counter(split for _, _, split, *_ in rows).items()))
    expected = set_named(dataset).published(settings_of(study, dataset), rows)
    if expected and found != expected:
        raise RequestError(
            f"data.{dataset}.root: holds {found} images, the published set {expected}; restore what is missing, "
            "or set data.check_counts=false for a set of your own."
        )
