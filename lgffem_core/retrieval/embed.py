"""The embeddings of a data set's patches, and their file."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from lgffem_core.base.files import sha256_json, sha256_table
from lgffem_core.base.kept import kept
from lgffem_core.config.study import Study
from lgffem_core.data import channel_order, patch_table
from lgffem_core.retrieval.encoder import Encoder, embed_table


class Embedded(NamedTuple):
    """Patches as one encoder embeds them, in the order of their PatchTable."""

    embeddings: np.ndarray  # (N, D) float32
    labels: np.ndarray  # (N,) int64
    test: np.ndarray  # (N,) bool, True for test patches
    ids: np.ndarray  # (N,) str, the PatchTable's paths


def kept_embeddings(study: Study, dataset: str, path: Path, encoder: Encoder) -> Embedded:
    """A data set's embeddings from the file ``path``, computed again where they are of other patches or vectors.

    They are what encoder, PatchTable, way of reading, batch, threads, code and packages make them.
    """
    table = patch_table(study, dataset)
    settings = [channel_order(study, dataset), study.params.retrieval.batch_size]

    def compute():
        vectors = embed_table(study, dataset, table, encoder)
        labels = torch.tensor(table["label_id"].tolist(), dtype=torch.int64)
        test = torch.tensor((table["split"] == "test").tolist())
        return {"embeddings": torch.from_numpy(vectors), "labels": labels, "test": test}, {"ids": list(table["path"])}

    made_from = sha256_json([encoder.identity, sha256_table(table), settings, study.computed_by(__name__)])
    tensors, header = kept(path, made_from, compute)
    return Embedded(*(tensors[name].numpy() for name in ("embeddings", "labels", "test")), np.array(header["ids"]))
