"""The baselines of Table 2 on Kimia's patches, under every protocol."""

from collections.abc import Callable

import numpy as np

from lgffem_core.base.files import sha256_file, sha256_json
from lgffem_core.base.tensors import read_header
from lgffem_core.config.code_version import code_hash, lock_hash
from lgffem_core.config.study import Study
from lgffem_core.data import patch_table
from lgffem_core.data.augment import ma_ms_evaluation
from lgffem_core.model.weights import start_hash, state_hash
from lgffem_core.retrieval.embed import Inputs, embed_table, load_embeddings, save_embeddings
from lgffem_core.retrieval.protocols import Outcome, evaluate
from lgffem_core.systems.baselines.barcodes import barcode
from lgffem_core.systems.baselines.ma_ms import crop_size, train_mixed_attention, train_or_load_mixed_attention
from lgffem_core.systems.baselines.networks import DENSENET as DENSENET_NAME
from lgffem_core.systems.baselines.networks import build_densenet, weights_label

DENSENET, BARCODE, MA_MS = "DenseNet-121", "DenseNet-121 barcode", "MA + MS-loss"
Embedded = tuple[np.ndarray, np.ndarray, np.ndarray]  # embeddings (N, D), labels (N,), test (N,) bool


def kept_embeddings(study: Study, method: str, seed: int, weights: str, compute: Callable) -> Embedded:
    """The embeddings in ``study.baseline(method, seed)``, by ``compute(table)`` unless they are there already.

    ``weights`` says what they are made with, along with the patches' table, the batch, the code and the packages.
    """
    path, table = study.baseline(method, seed) / "embeddings.safetensors", patch_table(study, "kimia")
    code = [code_hash("import lgffem_core.retrieval.embed, lgffem_core.systems.baselines.networks"), lock_hash()]
    made_from = sha256_json([weights, table.to_dict("list"), study.params.retrieval.batch_size, code])
    known = read_header(path, "Computing them again.")
    if known is None or known.get("made_from") != made_from:
        save_embeddings(path, table, compute(table), {"made_from": made_from})
    return load_embeddings(path)


def densenet_embeddings(study: Study, seed: int) -> Embedded:
    """DenseNet-121's 1024 features of Kimia's patches: the global average pool, of images of model.image_size."""
    model, size, threads = build_densenet(study, seed), study.params.model.image_size, study.params.compute.threads
    weights = start_hash(study, "baselines.densenet121", DENSENET_NAME) or state_hash(model)
    made_with = sha256_json([weights, size, threads])
    return kept_embeddings(
        study, "densenet121", seed, made_with, lambda table: embed_table(study, "kimia", table, model)
    )


def mixed_attention_embeddings(study: Study, seed: int) -> Embedded:
    """MA + MS-loss's embeddings of Kimia's patches, training it first if that has not been done yet."""
    made_with = sha256_json([sha256_file(train_mixed_attention(study, seed).weights), crop_size(study)])

    def compute(table):
        model = train_or_load_mixed_attention(study, seed)
        inputs = Inputs(ma_ms_evaluation(crop_size(study)), model.mean, model.std)
        return embed_table(study, "kimia", table, model, inputs)

    return kept_embeddings(study, "ma_ms", seed, made_with, compute)


def densenet_variant(study: Study) -> str:
    """What the rows of DenseNet-121 stand for, e.g. "frozen, ImageNet weights"."""
    return f"frozen, {weights_label(study.params.baselines.densenet121)}"


def mixed_attention_variant(study: Study) -> str:
    """What the rows of MA + MS-loss stand for, e.g. "legacy_seresnet18, random start, 4 epochs"."""
    settings = study.params.baselines.ma_ms
    start = weights_label(settings).replace("random weights", "random start")
    return f"{settings.network}, {start}, {settings.epochs} epoch{'s' * (settings.epochs != 1)}"


def evaluate_baselines(study: Study) -> dict[tuple[str, str, str], list[Outcome]]:
    """(method, variant, protocol) -> one outcome a seed, for every baseline and protocol of the profile.

    Methods are "DenseNet-121", "DenseNet-121 barcode" and "MA + MS-loss"; a variant names weights and training.
    """
    outcomes: dict[tuple[str, str, str], list[Outcome]] = {}
    for seed in study.params.seeds:
        features, labels, test = densenet_embeddings(study, seed)
        embedded = {
            (DENSENET, densenet_variant(study)): (features, labels, test),
            (BARCODE, densenet_variant(study)): (barcode(features).astype(np.float32), labels, test),
            (MA_MS, mixed_attention_variant(study)): mixed_attention_embeddings(study, seed),
        }
        for (method, variant), arrays in embedded.items():
            for protocol in study.params.retrieval.protocols:
                outcomes.setdefault((method, variant, protocol), []).append(evaluate(protocol, *arrays))
    return outcomes
