"""Indices side by side: recall, rate and memory of each, and which of them no other beats."""

import os

import faiss
import numpy as np
import pandas as pd

from lgffem_core.config.study import Study
from lgffem_core.model.device import prepare_device
from lgffem_core.retrieval.archive import EXACT, build, measure, recall, resident

#: Part of a factory string -> what such an index is called; the first that fits.
FAMILIES = {"RaBitQ": "RaBitQ", "PQ": "product quantiser", "HNSW": "graph", "IVF": "inverted lists"}
BETTER = {"recall": 1, "rate": 1, "file_bytes": -1}  # column -> 1 where more is better, -1 where less is


def family(factory: str) -> str:
    """What an index with this factory string is called."""
    return next((name for part, name in FAMILIES.items() if part in factory), "exact" if factory == EXACT else "other")


def compared(study: Study, vectors: np.ndarray, queries: np.ndarray) -> pd.DataFrame:
    """A row for each index and each setting of its search, exact search first; a line is printed for each index.

    Columns: ``recall`` in percent; ``rate``, its lowest and highest, and ``alone``, in queries a second, and the first
    as ``times_exact``; bytes a vector of the index's file, and by which a process grows that reads it whole
    (``held_bytes``) or maps it (``mapped_bytes``) and searches; seconds to build; ``pareto``, as ``unbeaten`` says.
    """
    settings, rows, exact = study.params.archive, [], None
    gpu = prepare_device(study.params.compute) == "cuda"
    faiss.omp_set_num_threads(study.params.compute.threads)
    path = study.artifacts / f".index.{os.getpid()}.tmp"
    for factory, searches in [(EXACT, ("",)), *((index.factory, index.search) for index in settings.indices)]:
        try:
            row = {"family": family(factory), "index": factory}
            row["seconds_to_build"] = build(path, factory, vectors, settings.training_vectors)
            row["file_bytes"] = path.stat().st_size / len(vectors)
            for name, mapped in {"held_bytes": False, "mapped_bytes": True}.items():
                row[name] = resident(path, queries, settings.k, searches[-1], mapped) / len(vectors)
            for setting in searches:
                found, rated = measure(path, queries, settings.k, setting, settings.repeats, gpu)
                exact = found if exact is None else exact
                rows.append({**row, "search": setting, "recall": recall(vectors, queries, found, exact), **rated})
        finally:
            path.unlink(missing_ok=True)
        print(f"{factory}: built in {row['seconds_to_build']:.0f} s, {row['file_bytes']:.0f} bytes a vector")
    table = pd.DataFrame(rows)
    table["times_exact"] = table["rate"] / table["rate"].iloc[0]
    return table.assign(pareto=unbeaten(table))


def unbeaten(table: pd.DataFrame) -> list[bool]:
    """True for a row than which no other is better in recall, rate or memory and as good in the two others."""
    values = table[[*BETTER]].to_numpy() * [*BETTER.values()]
    return [not ((values >= row).all(axis=1) & (values > row).any(axis=1)).any() for row in values]
