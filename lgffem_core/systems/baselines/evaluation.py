"""The baselines of Table 2 on Kimia's patches: each is an entry of ``BASELINES``."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from lgffem_core.audit.verdicts import Ours, changed
from lgffem_core.base.files import sha256_file, sha256_json
from lgffem_core.config.code_version import code_hash
from lgffem_core.config.study import SEARCHED, Study
from lgffem_core.data.augment import evaluation_resize
from lgffem_core.model.weights import start_hash, state_hash
from lgffem_core.retrieval.embed import Embedded, kept_embeddings
from lgffem_core.retrieval.encoder import Encoder
from lgffem_core.retrieval.methods import Methods, Outcomes, evaluated
from lgffem_core.systems.baselines.barcodes import barcode
from lgffem_core.systems.baselines.ma_ms import (
    crop_size,
    ma_ms_transform,
    train_mixed_attention,
    train_or_load_mixed_attention,
)
from lgffem_core.systems.baselines.networks import DENSENET as DENSENET_NAME
from lgffem_core.systems.baselines.networks import build_densenet, weights_label

DENSENET, BARCODE, MA_MS = "DenseNet-121", "DenseNet-121 barcode", "MA + MS-loss"


class Baseline(NamedTuple):
    """A method that LGFFEM is compared with."""

    folder: str  # of its files, see ``Study.baseline``
    encoder: Callable[[Study, int], Encoder]  # of a seed
    variant: Callable[[Study], str]  # which weights and training its rows stand for
    code: Callable[[np.ndarray], np.ndarray] = np.asarray  # what becomes of the embeddings (N, D)


def densenet_encoder(study: Study, seed: int) -> Encoder:
    """DenseNet-121's 1024 features, the global average pool, of images of model.image_size."""
    network, size = build_densenet(study, seed), study.params.model.image_size
    weights = start_hash(study, "baselines.densenet121", DENSENET_NAME) or state_hash(network)
    identity = sha256_json([weights, size, code_hash("import lgffem_core.systems.baselines.networks")])
    return Encoder(DENSENET, identity, lambda: network, evaluation_resize(size))


def mixed_attention_encoder(study: Study, seed: int) -> Encoder:
    """MA + MS-loss, which is trained first if that has not been done yet."""
    size = crop_size(study)
    identity = sha256_json([sha256_file(train_mixed_attention(study, seed).weights), size])
    network, transform = partial(train_or_load_mixed_attention, study, seed), ma_ms_transform(size, training=False)
    return Encoder(MA_MS, identity, network, transform)


def densenet_variant(study: Study) -> str:
    """What the rows of DenseNet-121 stand for, e.g. "frozen, ImageNet weights"."""
    return f"frozen, {weights_label(study.params.baselines.densenet121)}"


def mixed_attention_variant(study: Study) -> str:
    """What the rows of MA + MS-loss stand for, e.g. "legacy_seresnet18, random start, 4 epochs"."""
    settings = study.params.baselines.ma_ms
    start = weights_label(settings).replace("random weights", "random start")
    return f"{settings.network}, {start}, {settings.epochs} epoch{'s' * (settings.epochs != 1)}"


#: Table 2's name -> the baseline, in the table's order.
BASELINES = {
    DENSENET: Baseline("densenet121", densenet_encoder, densenet_variant),
    BARCODE: Baseline("densenet121", densenet_encoder, densenet_variant, barcode),
    MA_MS: Baseline("ma_ms", mixed_attention_encoder, mixed_attention_variant),
}


def network_embeddings(study: Study, baseline: Baseline, seed: int) -> Embedded:
    """Kimia's patches as a baseline's network embeds them, computed once and kept in a file."""
    path = study.baseline(baseline.folder, seed) / "embeddings.safetensors"
    return kept_embeddings(study, SEARCHED, path, baseline.encoder(study, seed))


def coded(baseline: Baseline, run: Embedded) -> Embedded:
    """Its embeddings, as the baseline searches them."""
    return run._replace(embeddings=baseline.code(run.embeddings))


def baseline_embeddings(study: Study, name: str, seed: int) -> Embedded:
    """Kimia's patches as a baseline embeds them."""
    return coded(BASELINES[name], network_embeddings(study, BASELINES[name], seed))


def methods(study: Study) -> Methods:
    """(name, variant) -> one entry a seed, for every baseline; a network that several share is asked once."""
    networks = {baseline.folder: baseline for baseline in BASELINES.values()}
    seeds = study.params.seeds
    runs = {folder: [network_embeddings(study, one, seed) for seed in seeds] for folder, one in networks.items()}
    return {
        (name, baseline.variant(study)): [coded(baseline, run) for run in runs[baseline.folder]]
        for name, baseline in BASELINES.items()
    }


def evaluate_baselines(study: Study) -> Outcomes:
    """(name, variant, protocol) -> one outcome a seed, under every protocol of the profile."""
    return evaluated(methods(study), study.params.retrieval.protocols)


def ours(study: Study) -> dict[str, Ours]:
    """Published row of Table 2 -> our method behind it, and what its numbers depend on."""
    params, paper = study.params, Study.published().params
    side = params.model.image_size
    size = {"model.image_size": side} if side != paper.model.image_size else {}
    dense = changed(params.baselines.densenet121, paper.baselines.densenet121, "densenet121", ("densenet121.weights",))
    mixed = changed(params.baselines.ma_ms, paper.baselines.ma_ms, "ma_ms", ("ma_ms.weights",))
    return {
        DENSENET: Ours(DENSENET, dense | size, {SEARCHED}),
        MA_MS: Ours(MA_MS, mixed | size, {SEARCHED}, ("published on Kimia Path24 RGB (ledger 22)",)),
    }
