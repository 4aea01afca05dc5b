"""LGFFEM as an encoder, and every trained strategy on Kimia's patches: what Table 1 is made of."""

from functools import cache, partial
from pathlib import Path

from lgffem_core.base.files import sha256_file, sha256_json
from lgffem_core.config.study import CURRICULUM, SEARCHED, Study
from lgffem_core.data.augment import evaluation_resize
from lgffem_core.retrieval.embed import Embedded, kept_embeddings
from lgffem_core.retrieval.encoder import Encoder
from lgffem_core.retrieval.methods import Methods, Outcomes, evaluated
from lgffem_core.systems.lgffem.strategies import train_strategy, with_weights
from lgffem_core.training.finished import WEIGHTS


def strategy_encoder(study: Study, strategy: str, variant: str, seed: int) -> Encoder:
    """LGFFEM after strategy "a", "b" or "c", which is trained first if that has not been done yet."""
    return encoder_of(study, strategy, variant, seed, train_strategy(study, strategy, variant, seed).weights)


def kept_encoder(study: Study, strategy: str, variant: str, seed: int) -> Encoder | None:
    """LGFFEM as an earlier stage left it, for images of any data set; None where it is not trained yet.

    The weights are read as they lie there: nothing is trained, and no data set of LGFFEM's is asked for.
    """
    weights = study.checkpoints(strategy, variant, seed) / WEIGHTS
    return encoder_of(study, strategy, variant, seed, weights) if weights.is_file() else None


def encoder_of(study: Study, strategy: str, variant: str, seed: int, weights: Path) -> Encoder:
    """LGFFEM with the neck and head in a file."""
    size = study.params.model.image_size
    return Encoder(
        label=f"LGFFEM {strategy.upper()}",
        identity=sha256_json([sha256_file(weights), size]),
        network=cache(partial(with_weights, study, variant, seed, weights)),
        transform=evaluation_resize(size),
    )


def train_and_embed(study: Study, strategy: str, variant: str, seed: int) -> Embedded:
    """Kimia's patches as a strategy embeds them, (N, 4·C), computed once and kept in a file."""
    encoder = strategy_encoder(study, strategy, variant, seed)
    return kept_embeddings(study, SEARCHED, study.embeddings(strategy, variant, seed), encoder)


def strategies(study: Study) -> Methods:
    """(strategy, variant) -> one entry a seed, for everything in the profile."""
    return {
        (strategy, variant): [train_and_embed(study, strategy, variant, seed) for seed in study.params.seeds]
        for variant in study.params.variants
        for strategy in CURRICULUM
    }


def methods(study: Study) -> Methods:
    """The same as tables beside other systems name it: ("LGFFEM A", the variant with its toggles), …"""
    found = strategies(study)
    return {(f"LGFFEM {name.upper()}", study.variant_label(variant)): runs for (name, variant), runs in found.items()}


def evaluate_all(study: Study) -> Outcomes:
    """(strategy, variant, protocol) -> one outcome a seed, under every protocol of the profile."""
    return evaluated(strategies(study), study.params.retrieval.protocols)
