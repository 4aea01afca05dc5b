"""Every trained strategy on Kimia's patches: what Table 1 is made of."""

from lgffem_core.config.study import CURRICULUM, Study
from lgffem_core.retrieval.embed import Embedded, kept_embeddings
from lgffem_core.retrieval.methods import Methods, Outcomes, evaluated
from lgffem_core.systems.lgffem.encoders import strategy_encoder

DATASET = "kimia"  # what the strategies are compared on


def train_and_embed(study: Study, strategy: str, variant: str, seed: int) -> Embedded:
    """Kimia's patches as a strategy embeds them, (N, 4·C), computed once and kept in a file."""
    encoder = strategy_encoder(study, strategy, variant, seed)
    return kept_embeddings(study, DATASET, study.embeddings(strategy, variant, seed), encoder)


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
