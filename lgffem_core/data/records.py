"""A slide in record form: its patches' features and places, its anchors, its report. One safetensors file a slide.

It is what the slides' command writes and what FGCR reads; neither knows the other. A file has a checksum and is written
whole or not at all (``base.tensors``), and nothing in it is executed when it is read. No matrix of distances is stored:
it follows from the positions, and that of 100,000 patches would be 40 GB.

Report and prompts are text. Numbers of words or of prompts hold for one vocabulary alone; which there is, the reader
of all records says (``systems.fgcr.tokenizer``).
"""

from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError
from scipy.cluster.vq import ClusterError, kmeans2

from lgffem_core.base.errors import StudyError
from lgffem_core.base.seeds import derive_seed
from lgffem_core.base.tensors import load_tensors, save_tensors
from lgffem_core.data.headers import FORMAT, Header

LEVELS = (36, 64, 100, 144, 256, 400)  # patches an anchor stands for, finest first (released code, constant npks)
STARTS, ITERATIONS = 8, 20  # of k-means: the best of so many, each of so many rounds
ARRAYS = ("features", "positions", "anchors", "findings")
OPTIONAL = "findings"
REMEDY = "Make it again from its slide."


@dataclass(frozen=True)
class Record:
    """One slide. ``validate`` says what holds of each field; ``write_record`` and ``read_record`` ask it."""

    slide: str  # the slide's name, unique in its set
    features: np.ndarray  # (N, D) float16 or float32, a row a patch, finite, N at least 1
    positions: np.ndarray  # (N, 2) float32: row and column in patches (one step of the grid is 1), no place twice
    anchors: tuple[np.ndarray, ...]  # a level each, in the order of ``levels``: (A_l,) int64 row numbers of patches
    levels: tuple[int, ...] = LEVELS  # patches an anchor of each level stands for
    report: str = ""  # "" = there is none
    prompts: tuple[str, ...] = ()  # the findings that hold of this slide, in words
    label: str = ""  # "" = not known
    group: str = ""  # patient; "" = the slide is one by itself
    mpp: float | None = None  # µm a pixel at which the patches were read; None = not known
    patch_pixels: int | None = None  # pixels a side of a patch at that resolution; None = not known
    findings: np.ndarray | None = None  # (N,) int64: a patch's row of ``prompts``, −1 = none of them; None = not known
    encoder: str = ""  # what made the features: name and identity of the ``Encoder``, or another's words

    def __len__(self) -> int:
        return len(self.features)


def validate(record: Record, where: str) -> Record:
    """``record``, if it is sound; else ``StudyError`` says where, what is wrong, and what to do."""
    if fault := fault_of(record):
        raise StudyError(f"{where}: is no sound record ({fault}); {REMEDY[0].lower()}{REMEDY[1:]}")
    return record


def fault_of(record: Record) -> str | None:
    """What is wrong with a record, the first thing that is; None where nothing is."""
    features, positions, anchors = record.features, record.positions, record.anchors
    if not record.slide:
        return "it does not name its slide"
    if features.ndim != 2 or 0 in features.shape or features.dtype not in (np.float16, np.float32):
        return f"features are {features.dtype} {features.shape}, not float16 or float32 (patches, numbers)"
    if positions.shape != (len(features), 2):
        return f"there are {len(features)} features and {positions.shape} positions, which must be (patches, 2)"
    if not (np.isfinite(features).all() and np.isfinite(positions).all()):
        return "features or positions hold NaN or infinity"
    if len(np.unique(positions, axis=0)) < len(positions):
        return "two patches have the same position"
    if not record.levels or min(record.levels) < 1 or len(anchors) != len(record.levels):
        return f"there are {len(anchors)} levels of anchors for {len(record.levels)} numbers of patches an anchor"
    for level, indices in zip(record.levels, anchors, strict=True):
        if indices.ndim != 1 or not len(indices) or len(np.unique(indices)) < len(indices):
            return f"the level of {level} patches an anchor holds no anchor, or one twice"
        if indices.min() < 0 or indices.max() >= len(features):
            return f"an anchor of the level of {level} is patch {indices.max()} of {len(features)} (0 is the first)"
    if record.findings is not None and (
        fault := fault_of_findings(record.findings, len(features), len(record.prompts))
    ):
        return fault
    if record.mpp is not None and not record.mpp > 0:
        return f"{record.mpp} µm a pixel"
    return None


def fault_of_findings(findings: np.ndarray, patches: int, prompts: int) -> str | None:
    """What is wrong with a record's findings, None where nothing is."""
    if findings.shape != (patches,):
        return f"there are findings {findings.shape} for {patches} patches"
    if findings.min() < -1 or findings.max() >= prompts:
        return (
            f"a patch's finding is {findings.min()} or {findings.max()}, of {prompts} prompts (0 is the first, −1 none)"
        )
    return None


# -- anchors ---------------------------------------------------------------------------------------------------


def anchor_counts(patches: int, levels: tuple[int, ...] = LEVELS, most: int = 25) -> list[int]:
    """Anchors of each level: ⌈patches / level⌉; where that is more than ``most`` in all, fewer in proportion.

    Proportions are rounded up, so that each level keeps one, and the surplus is taken from the first level (released
    code), or, where that has but one left, from the next. ``StudyError`` where ``most`` is less than one a level.
    """
    if most < len(levels):
        raise StudyError(f"at most {most} anchors for {len(levels)} levels; each level needs one, so allow more.")
    counts = [-(-patches // level) for level in levels]
    if sum(counts) <= most:
        return counts
    counts = [-(-count * most // sum(counts)) for count in counts]
    while sum(counts) > most:
        counts[next(i for i, count in enumerate(counts) if count > 1)] -= 1
    return counts


def anchors(
    positions: np.ndarray, levels: tuple[int, ...] = LEVELS, most: int = 25, seed: int = 0
) -> tuple[np.ndarray, ...]:
    """Row numbers of the patches that are anchors, a level each, ascending within it: (A_l,) int64.

    An anchor is the patch that is nearest to the centre of its cluster, k-means' of the positions (N, 2): so the
    anchors of a level cover the tissue evenly. A level of one needs no k-means. All patches are clustered: for 25
    anchors 100,000 of them take a second or two and some megabytes, so that no sample or minibatch need stand for them.
    """
    positions, rng = np.asarray(positions, dtype=np.float64), np.random.default_rng(derive_seed("anchors", seed))
    return tuple(nearest_to_centres(positions, count, rng) for count in anchor_counts(len(positions), levels, most))


def nearest_to_centres(positions: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Of each of ``count`` clusters, its patch nearest to its mean, the first of several: (count,) int64, ascending."""
    cluster = np.zeros(len(positions), np.int64)
    if count > 1:
        best = np.inf
        for _ in range(STARTS):
            with suppress(ClusterError):  # of a start that left a cluster without a patch
                centres, own = k_means(positions, count, rng)
                spread = ((positions - centres[own]) ** 2).sum()
                best, cluster = min((best, cluster), (spread, own), key=lambda pair: pair[0])
    chosen = []
    for number in np.unique(cluster):
        members = np.flatnonzero(cluster == number)
        offsets = positions[members] - positions[members].mean(axis=0)
        chosen.append(members[(offsets**2).sum(axis=1).argmin()])
    return np.sort(np.array(chosen, np.int64))


def k_means(positions: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """What ITERATIONS rounds of scipy's ``kmeans2`` from a drawn start give: centres (count, 2), and each patch's (N,).

    A round that leaves the centres where they are is the last: those after it would give the same. It comes early.
    """
    centres, own = kmeans2(positions, count, 1, minit="++", missing="raise", rng=rng)
    for _ in range(ITERATIONS - 1):
        centres, own = kmeans2(positions, before := centres, 1, minit="matrix", missing="raise")
        if np.array_equal(centres, before):
            break
    return centres, own


def distances(positions: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Euclidean distance, in patches, of each patch to those that ``indices`` name: (len(indices), N) float32."""
    positions = np.asarray(positions, dtype=np.float64)
    return np.linalg.norm(positions[indices][:, None] - positions[None], axis=2).astype(np.float32)


def coverage(positions: np.ndarray, indices: np.ndarray) -> float:
    """How far patches are from their nearest anchor: the mean of squared distances, which k-means makes small."""
    return float((distances(positions, indices).min(axis=0).astype(np.float64) ** 2).mean())


# -- files ------------------------------------------------------------------------------------------------------


def write_record(path: Path, record: Record) -> Path:
    """Write a sound record, atomically; the same record gives the same bytes. ``StudyError`` where it is not sound."""
    validate(record, str(path))
    tensors = {
        "features": torch.from_numpy(np.ascontiguousarray(record.features)),
        "positions": torch.from_numpy(np.ascontiguousarray(record.positions, dtype=np.float32)),
        "anchors": torch.from_numpy(np.concatenate(record.anchors).astype(np.int64)),
    }
    if record.findings is not None:
        tensors["findings"] = torch.from_numpy(record.findings.astype(np.int64))
    said = {entry.name: getattr(record, entry.name) for entry in fields(Record) if entry.name not in ARRAYS}
    save_tensors(path, tensors, {"format": FORMAT, "anchors": [len(level) for level in record.anchors], **said})
    return Path(path)


def read_record(path: Path) -> Record:
    """The record in a file. ``StudyError`` where it is damaged, is no record of this study, or is not sound."""
    tensors, header = load_tensors(path, REMEDY)
    try:
        said = Header(**header).model_dump(exclude={"format"})
    except ValidationError:
        said = {}
    if not said or not set(ARRAYS) - {OPTIONAL} <= tensors.keys():
        raise StudyError(f"{path}: holds no {FORMAT!r} of this study; {REMEDY[0].lower()}{REMEDY[1:]}")
    ends = np.cumsum(said.pop("anchors"))[:-1]
    arrays = {name: tensors[name].numpy() for name in ARRAYS if name in tensors}
    arrays["anchors"] = tuple(np.split(arrays["anchors"], ends))
    said |= {name: tuple(said[name]) for name in ("levels", "prompts")}
    return validate(Record(**said, **arrays), str(path))
