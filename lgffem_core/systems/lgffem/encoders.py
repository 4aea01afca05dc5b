"""LGFFEM as an encoder: after a strategy, which is trained first if that has not been done yet."""

from functools import cache, partial

from lgffem_core.base.files import sha256_file, sha256_json
from lgffem_core.config.study import Study
from lgffem_core.data.augment import evaluation_resize
from lgffem_core.retrieval.encoder import Encoder
from lgffem_core.systems.lgffem.strategies import train_or_load, train_strategy


def strategy_encoder(study: Study, strategy: str, variant: str, seed: int) -> Encoder:
    """Strategy "a", "b" or "c" of a variant and seed."""
    weights, size = train_strategy(study, strategy, variant, seed).weights, study.params.model.image_size
    return Encoder(
        label=f"LGFFEM {strategy.upper()}",
        identity=sha256_json([sha256_file(weights), size]),
        network=cache(partial(train_or_load, study, strategy, variant, seed)),
        transform=evaluation_resize(size),
    )
