"""Every trained strategy under every protocol: what Table 1 is made of."""

import numpy as np

from lgffem_core.base.files import sha256_file, sha256_json
from lgffem_core.base.tensors import read_header
from lgffem_core.config.code_version import code_hash, lock_hash
from lgffem_core.config.study import Study
from lgffem_core.data import patch_table
from lgffem_core.retrieval.embed import embed_table, load_embeddings, save_embeddings
from lgffem_core.retrieval.protocols import Outcome, evaluate
from lgffem_core.systems.lgffem.strategies import train_or_load, train_strategy


def train_and_embed(study: Study, strategy: str, variant: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(embeddings (N, 4·C), labels (N,), test (N,) bool) of Kimia's patches by a trained strategy.

    They are computed once for given weights, patches, sizes of image and batch, code and packages, and kept in a file.
    """
    path, table = study.embeddings(strategy, variant, seed), patch_table(study, "kimia")
    weights = train_strategy(study, strategy, variant, seed).weights
    code = [code_hash("import lgffem_core.retrieval.embed"), lock_hash()]
    settings = [study.params.model.image_size, study.params.retrieval.batch_size]
    made_from = sha256_json([sha256_file(weights), table.to_dict("list"), settings, code])
    known = read_header(path, "Computing them again.")
    if known is None or known.get("made_from") != made_from:
        model = train_or_load(study, strategy, variant, seed)
        save_embeddings(path, table, embed_table(study, "kimia", table, model), {"made_from": made_from})
    return load_embeddings(path)


def evaluate_all(study: Study) -> dict[tuple[str, str, str], list[Outcome]]:
    """(strategy, variant, protocol) -> one outcome a seed, for everything in the profile."""
    outcomes: dict[tuple[str, str, str], list[Outcome]] = {}
    for strategy, variant, seed in sorted(study.runs(), key=lambda run: (study.params.variants.index(run[1]), run)):
        embedded = train_and_embed(study, strategy, variant, seed)
        for protocol in study.params.retrieval.protocols:
            outcomes.setdefault((strategy, variant, protocol), []).append(evaluate(protocol, *embedded))
    return outcomes
