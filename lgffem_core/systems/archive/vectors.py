"""The embeddings that an archive is tried with: those that a run kept, or generated ones of the same kind."""

import os
from pathlib import Path

import numpy as np

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.base.seeds import derive_seed
from lgffem_core.base.tensors import load_tensors
from lgffem_core.config.study import Study
from lgffem_core.retrieval.archive import BLOCK, make

Vectors = tuple[np.ndarray, np.ndarray]  # archive (N, D) and queries (Q, D), float32


def archive_vectors(study: Study) -> tuple[np.ndarray, np.ndarray, str]:
    """Archive, queries, and what they are in words."""
    settings = study.params.archive
    if path := study.resolve(settings.embeddings):
        vectors, queries = given(path)
        return vectors, queries[: settings.queries], f"{len(vectors):,} embeddings of {path.name}"
    chosen = (settings.classes, settings.between, settings.decay)
    sizes = (settings.vectors, settings.queries, settings.dimension)
    return *generated(study.artifacts, *sizes, *chosen), f"{settings.vectors:,} generated vectors"


def given(path: Path) -> Vectors:
    """The training and the test patches' embeddings in a file that a run kept. ``StudyError`` where there are none."""
    tensors, _ = load_tensors(path, "Name one of artifacts/<profile>/embeddings.")
    if not {"embeddings", "test"} <= tensors.keys() or tensors["test"].all() or not tensors["test"].any():
        raise StudyError(f"{path}: does not hold embeddings of training and test patches; name one that a run kept.")
    vectors, test = tensors["embeddings"].numpy(), tensors["test"].numpy()
    if not np.isfinite(vectors).all():
        raise StudyError(f"{path}: holds NaN or infinity, which have no neighbours; embed its patches again.")
    return vectors[~test], vectors[test]


def generated(folder: Path, size: int, queries: int, dimension: int, classes: int, between: float, decay: float):
    """Vectors in clusters: class means and the spread around them have eigenvalues ∝ i^−decay, turned at random.

    Args:
        folder: where the file lies in which the archive is memory-mapped; it is gone with the array.
        between: share of the variance that is between classes.

    Of independent numbers all distances would be nearly equal, and no index could be better than exact search.
    """
    rng = np.random.default_rng(derive_seed("archive", size, queries, dimension))
    widths = np.arange(1, dimension + 1, dtype=np.float64) ** (-decay / 2)
    widths /= np.sqrt((widths**2).sum())
    turn = np.linalg.qr(rng.standard_normal((dimension, dimension)))[0].astype(np.float32)
    means = (np.sqrt(between) * widths * rng.standard_normal((classes, dimension))).astype(np.float32)
    inner = (np.sqrt(1 - between) * widths).astype(np.float32)

    def draw(count: int) -> np.ndarray:
        spread = inner * rng.standard_normal((count, dimension), dtype=np.float32)
        return (means[rng.integers(classes, size=count)] + spread) @ turn

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".vectors.{os.getpid()}.tmp.npy"
    vectors = np.lib.format.open_memmap(path, "w+", np.float32, (size, dimension))
    path.unlink()
    for start in range(0, size, BLOCK):
        vectors[start : start + BLOCK] = draw(min(BLOCK, size - start))
    return vectors, draw(queries)


def spectrum(vectors: np.ndarray) -> np.ndarray:
    """Share of the variance in each principal direction, largest first, of up to 4,096 vectors."""
    some = vectors[:: max(1, len(vectors) // 4096)].astype(np.float64)
    values = np.linalg.svd(some - some.mean(axis=0), compute_uv=False) ** 2
    return values / values.sum()


def faults(study: Study) -> list[str]:
    """One sentence for each thing in the section ``archive`` that could not be run; before anything is drawn."""
    settings = study.params.archive
    size, dimension, path = settings.vectors, settings.dimension, study.resolve(settings.embeddings)
    try:
        if path:
            size, dimension = given(path)[0].shape
        if settings.k > size:
            raise RequestError(f"k is {settings.k}; an archive of {size} has 1 … {size} neighbours.")
    except StudyError as error:
        return [f"archive.{'embeddings' if path else 'k'}: {error}"]
    found = []
    for index in settings.indices:
        try:
            make(index.factory, dimension, index.search, min(size, settings.training_vectors))
        except RequestError as error:
            found.append(f"archive.indices: {error}")
    return found
