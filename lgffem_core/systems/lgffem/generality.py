"""What specialising costs: each strategy, and the backbone without neck and head, on three domains."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from lgffem_core.audit.floors import backbone_encoder
from lgffem_core.audit.tables import Answers, Domain
from lgffem_core.config.study import CURRICULUM, SEARCHED, Study
from lgffem_core.data import patch_table
from lgffem_core.retrieval.encoder import Encoder, embed_table
from lgffem_core.retrieval.statistics import BCA
from lgffem_core.systems.lgffem.evaluation import strategy_encoder, train_and_embed
from lgffem_core.systems.lgffem.strategies import trained_here
from lgffem_core.systems.lgffem.tables import published

GENERALITY_NOTE = (
    "Percent, under leave_one_out, means over seeds, first variant. groups: the classes, tissues or scans that are "
    f"asked for; eta_p_low, eta_p_high: 95 % interval of eta_p over them ({BCA}). trained_on: whether these very "
    "images were trained on, by the strategy or one that it starts from. Without scores: not measured, as fewer than "
    "two groups have images; for photographs, data.imagenet.root then has no val/<class>/."
)


def domains(study: Study) -> list[Domain]:
    """Held-out photographs, PanNuke's folds that were not trained on (all tiles where there are none), the scans."""
    photographs, tiles, scans = (patch_table(study, name) for name in ("imagenet", "pannuke", SEARCHED))
    unseen = tiles[tiles["split"] == "test"]
    tiles = unseen if len(unseen) else tiles
    found = [
        Domain("photographs held out", "imagenet", photographs[photographs["split"] == "test"]),
        Domain(f"PanNuke, {', '.join(sorted(tiles['group'].unique()))}", "pannuke", tiles),
        Domain("scans, test patches", SEARCHED, scans[scans["split"] == "test"]),
    ]
    return [d._replace(name=f"{d.name}{'*' * study.is_synthetic(d.dataset)}") for d in found]


def answers(study: Study) -> Iterator[Answers]:
    """Every model on every domain, the frozen backbone first; of the first variant."""
    found, seeds = domains(study), study.params.seeds
    for strategy in (None, *CURRICULUM):
        by_seed = [embeddings(study, strategy, seed, found) for seed in seeds[: None if strategy else 1]]
        name = strategy.upper() if strategy else backbone_encoder(study, seeds[0]).label
        for domain, runs in zip(found, zip(*by_seed, strict=True), strict=True):
            yield Answers(name, domain, trained_on(study, strategy, domain), list(runs))


def embeddings(study: Study, strategy: str | None, seed: int, found: list[Domain]) -> list[np.ndarray | None]:
    """One model's embeddings of each domain, (N, D); None for a domain without images."""
    variant, values = study.params.variants[0], []
    encoder = strategy_encoder(study, strategy, variant, seed) if strategy else backbone_encoder(study, seed)
    for domain in found:
        if strategy and domain.dataset == SEARCHED:  # kept by notebook 07
            kept = train_and_embed(study, strategy, variant, seed)
            values.append(kept.embeddings[kept.test])
        else:
            values.append(embed_table(study, domain.dataset, domain.patches, encoder) if len(domain.patches) else None)
    return values


def across_groups(study: Study) -> list[tuple[Domain, Encoder]]:
    """Questions to be answered from another group, and who answers; of the first variant and seed.

    Kimia's test patches by strategy C, where the group is the slide and the label too; PanNuke's tiles by strategy
    B, where the group is the fold.
    """
    variant, seed = study.params.variants[0], study.params.seeds[0]
    scans, tiles = patch_table(study, SEARCHED), patch_table(study, "pannuke")
    asked = {"c": Domain(SEARCHED, SEARCHED, scans[scans["split"] == "test"]), "b": Domain("pannuke", "pannuke", tiles)}
    return [(domain, strategy_encoder(study, strategy, variant, seed)) for strategy, domain in asked.items()]


def trained_on(study: Study, strategy: str | None, domain: Domain) -> str:
    """Whether a model was trained on a domain's images, by their content, itself or one that it starts from.

    "yes", "no", how many of them, or "unknown" where weights were given.
    """
    if strategy is None:
        return "no"
    here = trained_here(study, strategy)
    if not here or study.parent(here[-1]):  # given weights stand in for it, or for what it starts from
        return "unknown"
    tables = [patch_table(study, CURRICULUM[earlier][0]) for earlier in here]
    seen = {digest for table in tables for digest in table.loc[table["split"] == "train", "sha256"]}
    count = int(domain.patches["sha256"].isin(seen).sum())
    return {0: "no", len(domain.patches): "yes"}.get(count, f"{count} of {len(domain.patches)}")


def landmarks() -> pd.DataFrame:
    """What the authors' notebook prints for their models on photographs of landmarks: mAP in percent."""
    return pd.DataFrame(published("landmarks")["rows"]).T.rename_axis("strategy").rename(index=str.upper)


def landmarks_note() -> str:
    """The same as one sentence."""
    values = ", ".join(f"{row.Index} {row.roxford:.2f} / {row.rparis:.2f}" for row in landmarks().itertuples())
    return (
        "The authors' notebook prints, of their models, mean average precision on photographs of Oxford / Paris "
        f"(ROxford and RParis, easy queries): {values}."
    )
