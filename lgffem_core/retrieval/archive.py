"""Search among more embeddings than exact search can afford: FAISS's indices, by factory string, and what each costs.

FAISS does the work. What is here makes an index from a sample, keeps it in a file that is read memory-mapped, and
measures it against exact search: recall, queries a second, bytes. Distances are squared Euclidean, as everywhere.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import faiss
import numpy as np
import psutil

from lgffem_core.base.errors import RequestError, StudyError, one_line
from lgffem_core.base.seeds import derive_seed
from lgffem_core.retrieval.index import gpus

EXACT = "Flat"  # the factory string of exact search
BLOCK = 1 << 14  # vectors that are read at a time
PER_LIST = 39  # training vectors that FAISS's k-means wants for each inverted list
ALONE = 20  # queries that are asked one at a time
TOLERANCE = 1e-6  # relative; a distance this close to the k-th is a tie with it


def make(factory: str, dimension: int, settings: Sequence[str] = (), training: int | None = None) -> faiss.Index:
    """An empty index; ``RequestError`` in one sentence where FAISS cannot make it, or knows none of its ``settings``.

    ``settings`` are as ``tune`` takes them. With ``training``, so many vectors must be enough for its inverted lists.
    """
    what = f"index {factory!r}"
    try:
        index = faiss.index_factory(dimension, factory)
        for setting in settings:
            what = f"index {factory!r} with {setting!r}"
            tune(index, setting)
    except RuntimeError as error:
        raise RequestError(f"{what}: FAISS {faiss.__version__} cannot make it for {dimension} numbers a vector "
                           f"({reason(error)}); see the factory strings of its wiki.") from None  # fmt: skip
    lists = getattr(faiss.try_extract_index_ivf(index), "nlist", 0)
    if training is not None and training < PER_LIST * lists:
        raise RequestError(
            f"index {factory!r}: {lists} lists take {PER_LIST * lists} training vectors or more, and there are "
            f"{training}; choose fewer lists, or more training vectors."
        )
    return index


def reason(error: RuntimeError) -> str:
    """What FAISS says, without its place in the C++ source."""
    return one_line(str(error).rsplit(": ", 1)[-1])


def tune(index: faiss.Index, setting: str) -> None:
    """Set what a search may cost, e.g. ``nprobe=16,k_factor_rf=4``; nothing for an empty text."""
    faiss.ParameterSpace().set_index_parameters(index, setting)


def build(path: Path, factory: str, vectors: np.ndarray, training: int) -> float:
    """Train an index on a sample of ``training`` vectors, add all, write it to ``path``; the seconds that this took.

    Args:
        vectors: (N, D) float32, finite; memory-mapped ones are read in blocks.

    ``StudyError`` where FAISS cannot train it.
    """
    began, size = time.perf_counter(), len(vectors)
    index = make(factory, vectors.shape[1])
    rng = np.random.default_rng(derive_seed("archive", factory, size))
    sample = np.sort(rng.choice(size, min(training, size), replace=False))
    try:
        if not index.is_trained:
            index.train(finite(vectors[sample]))
        for start in range(0, size, BLOCK):
            index.add(finite(vectors[start : start + BLOCK]))
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        raise StudyError(f"index {factory!r}: FAISS cannot build or write it ({reason(error)}).") from None
    return time.perf_counter() - began


def finite(vectors: np.ndarray) -> np.ndarray:
    """The vectors as FAISS takes them; ``ValueError`` where one is not finite."""
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if not np.isfinite(vectors).all():
        raise ValueError("embeddings contain NaN or infinity")
    return vectors


def opened(path: Path, mapped: bool = True) -> faiss.Index:
    """An index from its file: ``mapped``, so that only what a search touches comes into memory, or read whole."""
    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)


def on_gpus(index: faiss.Index) -> tuple[faiss.Index, str]:
    """The index where it is searched, and the name of that place: a graph, or RaBitQ, has no form for GPUs in FAISS."""
    try:
        return (faiss.index_cpu_to_all_gpus(index), f"{gpus()} GPU") if gpus() else (index, "CPU")
    except RuntimeError:
        return index, "CPU"


def search(index: faiss.Index, queries: np.ndarray, k: int) -> np.ndarray:
    """Ids (Q, k) int64 of what the index takes for the k nearest; −1 where it found fewer. k: 1 … N."""
    if not 1 <= k <= index.ntotal:
        raise ValueError(f"k is {k}; an archive of {index.ntotal} has 1 … {index.ntotal} neighbours")
    if not len(queries):
        return np.empty((0, k), dtype=np.int64)
    return index.search(finite(queries), k)[1]


# -- what it is worth, and what it costs ---------------------------------------------------------------------------


def recall(vectors: np.ndarray, queries: np.ndarray, found: np.ndarray, exact: np.ndarray) -> float:
    """Share of the k nearest that were found, in percent: recall@k, mean over queries.

    Args:
        vectors: (N, D); queries: (Q, D); found: (Q, k) ids, −1 for none; exact: (Q, k) ids by exact search.

    A neighbour counts where it is no farther than the k-th exact one: of duplicates any is as right as another.
    """
    right = 0
    for query, ids, nearest in zip(queries.astype(np.float64), found, exact, strict=True):
        unique = np.unique(ids[ids >= 0])
        distances, limit = (((vectors[rows] - query) ** 2).sum(axis=1) for rows in (unique, nearest))
        right += min((distances <= limit.max() * (1 + TOLERANCE)).sum(), len(nearest))
    return 100 * right / exact.size


def rates(call: Callable[[], object], queries: int, repeats: int) -> tuple[float, float, float]:
    """Queries a second of a call that answers so many: median, lowest and highest of the repeats."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return tuple(queries / np.array([np.median(seconds), max(seconds), min(seconds)]))


def resident(path: Path, queries: np.ndarray, k: int, setting: str = "", mapped: bool = False) -> int:
    """Bytes by which a new process grows when it opens the index and answers the queries, as measured.

    A process's own unrest, some MiB, is in it: of a few thousand vectors it says nothing.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(grown, path, queries, k, setting, mapped).result()


def grown(path: Path, queries: np.ndarray, k: int, setting: str, mapped: bool) -> int:
    """What ``resident`` runs in the new process."""
    process, warm = psutil.Process(), faiss.IndexFlatL2(queries.shape[1])
    warm.add(queries)
    warm.search(queries, 1)  # FAISS's threads and buffers are no part of the index
    before = process.memory_info().rss
    index = opened(path, mapped)
    tune(index, setting)
    search(index, queries, k)
    return process.memory_info().rss - before


def measure(path: Path, queries: np.ndarray, k: int, setting: str = "", repeats: int = 5, gpu: bool = False):
    """Ids (Q, k) that the index at ``path`` finds with one setting of its search; and how fast, and where, it does.

    All queries at once, ``repeats`` times, then each of the first ``ALONE`` by itself, which gives the median of their
    times; all of it after a search that is not counted.
    """
    tune(index := opened(path), setting)
    index, device = on_gpus(index) if gpu else (index, "CPU")
    found = search(index, queries, k)
    middle, low, high = rates(lambda: search(index, queries, k), len(queries), repeats)
    alone = [rates(lambda row=row: search(index, queries[row : row + 1], k), 1, 1)[0] for row in range(ALONE)]
    return found, {"rate": middle, "rate_low": low, "rate_high": high, "alone": float(np.median(alone)), "on": device}
