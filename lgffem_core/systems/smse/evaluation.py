"""What SMSE's networks, and others beside them, make of the patients that they were not trained on.

Every answer is kept image by image, so that any measure, on any magnification, is a mean over some of them, and its
interval a matter of which patients are drawn. Each fold is answered by its own network among its own images.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import f1_score

from lgffem_core.base.files import sha256_file, sha256_json
from lgffem_core.config.study import Study
from lgffem_core.data.augment import evaluation_resize
from lgffem_core.report.tables import DECIMALS
from lgffem_core.retrieval.embed import kept_embeddings
from lgffem_core.retrieval.encoder import Encoder, embed_table
from lgffem_core.retrieval.ranking import Ranking, nearest_across, voted
from lgffem_core.retrieval.statistics import BCA, ratio_ends
from lgffem_core.systems.smse.runs import RFL, Run, seen_words
from lgffem_core.systems.smse.splits import DATASET, fold_split
from lgffem_core.systems.smse.training import folder_of, train, trained

VOTES = (3, 5)
SCORES_NOTE = (
    f"Percent, of patients that were not trained on. {RFL} accuracy_low, accuracy_high and top1_low, top1_high: 95 % "
    f"intervals over patients ({BCA}). balanced: mean of the recalls of both classes; patient_score: mean over "
    "patients of the share of right images; macro_f1: mean of both classes' F1. top1: the nearest image of another "
    "tested patient has the class; MV@3, MV@5, majority vote: most of the nearest three or five have it. "
    "same_magnification: the nearest shares the query's; by_chance: what to expect of that."
)
Embed = Callable[[int, pd.DataFrame], tuple[np.ndarray, np.ndarray | None]]  # fold, its tested rows -> (N, D), (N,)


def encoder(study: Study, run: Run, fold: int, seed: int) -> Encoder:
    """The network of a run, trained first if that has not been done yet."""
    size = study.params.smse.image_size
    identity = sha256_json([sha256_file(train(study, run, fold, seed).weights), size])
    return Encoder(
        f"SMSE, {run.losses}", identity, lambda: trained(study, run, fold, seed)[0], evaluation_resize(*size)
    )


def by_run(study: Study, run: Run, seed: int) -> Embed:
    """Embeddings and predicted classes of a run; the embeddings of all images are kept in a file for each fold."""

    def answer(fold: int, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        path = folder_of(study, run, fold, seed) / "embeddings.safetensors"
        kept = kept_embeddings(study, DATASET, path, encoder(study, run, fold, seed))
        place = {path: number for number, path in enumerate(kept.ids)}
        embeddings = kept.embeddings[[place[path] for path in rows["path"]]]
        with torch.no_grad():
            logits = trained(study, run, fold, seed)[1](torch.from_numpy(embeddings))
        return embeddings, logits.argmax(dim=1).numpy()

    return answer


def by_encoder(study: Study, other: Encoder) -> Embed:
    """Embeddings of an encoder that knows no classes, the same in each fold."""

    def answer(fold: int, rows: pd.DataFrame) -> tuple[np.ndarray, None]:
        return embed_table(study, DATASET, rows, other), None

    return answer


def answers(study: Study, embed: Embed) -> pd.DataFrame:
    """A row for each tested image of each fold: what it is, and how it was answered.

    Columns of the PatchTable; ``fold``; ``right``: its class was predicted (NaN where none is); ``predicted``;
    ``top1``, ``MV@3``, ``MV@5``: the nearest image of another patient, or most of so many, has its class;
    ``same_magnification``: that nearest one is of its magnification; ``by_chance``: the share of such among all that
    it could be.
    """
    found = []
    for fold in study.params.smse.folds:
        table, inside = fold_split(study, fold)
        rows = table[inside].reset_index(drop=True)
        embeddings, predicted = embed(fold, rows)
        found.append(answered(rows, embeddings, predicted).assign(fold=fold))
    return pd.concat(found, ignore_index=True)


def answered(rows: pd.DataFrame, embeddings: np.ndarray, predicted: np.ndarray | None) -> pd.DataFrame:
    """``answers`` of one fold."""
    labels, zooms = rows["label_id"].to_numpy(), rows["magnification"].to_numpy()
    patients = rows["group"].to_numpy()
    others = patients[:, None] != patients[None, :]
    ids = nearest_across(embeddings, patients, min(max(VOTES), int(others.sum(axis=1).min())))
    ranking = Ranking(labels[ids], labels, (others & (labels[:, None] == labels[None, :])).sum(axis=1))
    alike = others & (zooms[:, None] == zooms[None, :])
    return rows.assign(
        predicted=-1 if predicted is None else predicted,
        right=np.nan if predicted is None else (predicted == labels).astype(float),
        top1=(labels[ids[:, 0]] == labels).astype(float),
        **{f"MV@{k}": (voted(ranking, min(k, ids.shape[1])) == labels).astype(float) for k in VOTES},
        same_magnification=(zooms[ids[:, 0]] == zooms).astype(float),
        by_chance=alike.sum(axis=1) / others.sum(axis=1),
    )


def per_patient(values: pd.Series, patients: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Sum of ``values`` and number of images of each patient."""
    grouped = values.groupby(patients.to_numpy())
    return grouped.sum().to_numpy(), grouped.size().to_numpy(dtype=float)


def rate(found: pd.DataFrame, measure: str, resamples: int) -> tuple[float, float, float]:
    """The mean of a measure over images, with the 95 % interval over patients (BCa): value, low, high in percent.

    Without an image, as of a magnification that no tested patient has, all three are NaN.
    """
    if found.empty:
        return (np.nan,) * 3
    sums, counts = per_patient(found[measure], found["group"])
    low, high = ratio_ends(sums, counts, resamples)
    return tuple(100 * float(value) for value in (sums.sum() / counts.sum(), low, high))


def difference(
    a: pd.DataFrame, b: pd.DataFrame, measure: str, resamples: int, balanced: bool = False
) -> tuple[float, float, float]:
    """How much larger a measure is in ``a`` than in ``b`` on the same images, with its interval over patients.

    ``balanced``: both classes count alike, whatever their numbers of images, as in the mean of their recalls.
    """
    if a["path"].tolist() != b["path"].tolist():
        raise ValueError("the two answered other images")
    weight = 1 / a.groupby("label")["label"].transform("size") if balanced else pd.Series(1.0, index=a.index)
    parts, wholes = (
        per_patient(values, a["group"])[0]
        for values in (weight * (a[measure].to_numpy() - b[measure].to_numpy()), weight)
    )
    low, high = ratio_ends(parts, wholes, resamples)
    return tuple(100 * float(value) for value in (parts.sum() / wholes.sum(), low, high))


def patient_score(found: pd.DataFrame) -> float:
    """Mean over patients of the share of right images, in percent (Spanhol et al. 2016)."""
    sums, counts = per_patient(found["right"], found["group"])
    return 100 * float((sums / counts).mean())


def scores(found: pd.DataFrame, resamples: int) -> dict[str, float]:
    """The measures of some answers, in percent; those of a classifier are NaN where there is none."""
    classified = found["right"].notna().all()
    accuracy = rate(found, "right", resamples) if classified else (np.nan,) * 3
    cells = dict(zip(("accuracy", "accuracy_low", "accuracy_high"), accuracy, strict=True))
    recalls = found.groupby("label", sort=True)["right"].mean()
    cells["balanced"] = 100 * recalls.mean()
    cells["patient_score"] = patient_score(found) if classified else np.nan
    truth, said = found["label_id"], found["predicted"]
    cells["macro_f1"] = 100 * f1_score(truth, said, average="macro", zero_division=0) if classified else np.nan
    cells |= {f"recall_{label}": 100 * value for label, value in recalls.items()}
    top1 = rate(found, "top1", resamples)
    cells |= dict(zip(("top1", "top1_low", "top1_high"), top1, strict=True))
    return cells | {name: 100 * found[name].mean() for name in ("MV@3", "MV@5", "same_magnification", "by_chance")}


def table_of(study: Study, methods: dict[tuple[str, tuple[int, ...]], pd.DataFrame]) -> pd.DataFrame:
    """A row for each method on all magnifications together and on each that a tested patient has.

    Args:
        methods: (name, magnifications that it was trained on, () where on none of them) -> its answers.
    """
    rows, resamples = [], study.params.retrieval.bootstrap
    every = study.params.data.breakhis.magnifications
    for (name, seen), found in methods.items():
        parts = {"all": found} | {f"{zoom}×": found[found["magnification"] == zoom] for zoom in every}
        for asked, part in ((asked, part) for asked, part in parts.items() if len(part)):
            new = seen and asked != "all" and int(asked.rstrip("×")) not in seen
            row = {"method": name, "trained_on": seen_words(seen, every), "tested_on": asked}
            row |= {"unseen": "yes" if new else "", "images": len(part), "patients": part["group"].nunique()}
            rows.append(row | scores(part, resamples))
    return pd.DataFrame(rows).round(DECIMALS)
