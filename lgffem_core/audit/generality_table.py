"""What specialising costs elsewhere (paper, section 4.2.1): each strategy on three domains."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from lgffem_core.audit.chance import chance
from lgffem_core.audit.floors import pooled
from lgffem_core.audit.verdicts import OVER_SCANS
from lgffem_core.config.study import CURRICULUM, Study
from lgffem_core.data import patch_table
from lgffem_core.model.backbone import Backbone
from lgffem_core.report.tables import DECIMALS, published
from lgffem_core.retrieval.embed import embed_table
from lgffem_core.retrieval.protocols import leave_one_out
from lgffem_core.retrieval.statistics import scan_interval
from lgffem_core.systems.lgffem.evaluation import train_and_embed
from lgffem_core.systems.lgffem.strategies import train_or_load, trained_here

PROTOCOL = "leave_one_out"
GENERALITY_NOTE = (
    "Percent, under leave_one_out, means over seeds, first variant. groups: the classes, tissues or scans that are "
    "asked for; eta_p_low, eta_p_high: 95 % interval of eta_p over them (BCa). trained_on: whether these very images "
    "were trained on, by the strategy or one that it starts from. Without scores: not measured, as fewer than two "
    "groups have images; for photographs, data.imagenet.root then has no val/<class>/."
)


class Domain(NamedTuple):
    """Images that a domain is measured on, by the name that the table shows."""

    name: str
    dataset: str
    patches: pd.DataFrame


class PooledBackbone(torch.nn.Module):
    """A frozen backbone as an embedding of its own: its stages, pooled and joined."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, images: torch.Tensor) -> torch.Tensor:  # (N, 3, S, S) -> (N, ΣCᵢ)
        return pooled(self.backbone(images))


def domains(study: Study) -> list[Domain]:
    """Held-out photographs, PanNuke's folds that were not trained on (all tiles where there are none), the scans."""
    photographs, tiles, scans = (patch_table(study, name) for name in ("imagenet", "pannuke", "kimia"))
    unseen = tiles[tiles["split"] == "test"]
    tiles = unseen if len(unseen) else tiles
    found = [
        Domain("photographs held out", "imagenet", photographs[photographs["split"] == "test"]),
        Domain(f"PanNuke, {', '.join(sorted(tiles['group'].unique()))}", "pannuke", tiles),
        Domain("scans, test patches", "kimia", scans[scans["split"] == "test"]),
    ]
    return [d._replace(name=f"{d.name}{'*' * study.is_synthetic(d.dataset)}") for d in found]


def generality_table(study: Study) -> pd.DataFrame:
    """A row for each model and domain; the frozen backbone, without neck and head, comes first."""
    found, rows = domains(study), []
    for strategy in (None, *CURRICULUM):
        embedded = [embeddings(study, strategy, seed, found) for seed in study.params.seeds[: None if strategy else 1]]
        for i, domain in enumerate(found):
            row = {"strategy": model_name(study, strategy), "domain": domain.name, "protocol": PROTOCOL}
            row |= {"trained_on": trained_on(study, strategy, domain)}
            rows.append(row | scored(domain, [values[i] for values in embedded], study.params.retrieval.bootstrap))
    return pd.DataFrame(rows).round(DECIMALS)


def model_name(study: Study, strategy: str | None) -> str:
    """As the table names it: "A", or the backbone with or without weights."""
    settings = study.params.model.backbone
    return (
        strategy.upper()
        if strategy
        else f"{'frozen' if settings.pretrained or settings.weights else 'untrained'} backbone"
    )


def embeddings(study: Study, strategy: str | None, seed: int, found: list[Domain]) -> list[np.ndarray | None]:
    """One model's embeddings of each domain, (N, D); None for a domain without images."""
    variant = study.params.variants[0]
    model = train_or_load(study, strategy or "a", variant, seed)
    model = model if strategy else PooledBackbone(model.backbone)
    values = []
    for domain in found:
        if strategy and domain.dataset == "kimia":  # kept by notebook 07
            kept, _, test = train_and_embed(study, strategy, variant, seed)
            values.append(kept[test])
        else:
            values.append(embed_table(study, domain.dataset, domain.patches, model) if len(domain.patches) else None)
    return values


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


def scored(domain: Domain, embedded: list[np.ndarray | None], resamples: int) -> dict:
    """The numbers of a row from one array of embeddings a seed; NaN where there are fewer than two groups."""
    labels = domain.patches["label_id"].to_numpy()
    row = {"patches": len(labels), "groups": len(np.unique(labels))}
    if row["groups"] < 2:
        return row | dict.fromkeys(("eta_p", "eta_p_low", "eta_p_high", "chance_eta_p"), np.nan)
    runs = [leave_one_out(values, labels) for values in embedded]
    counts = runs[0].counts
    low, high = scan_interval(np.array([run.correct for run in runs]), counts, resamples, OVER_SCANS)
    row |= {"eta_p": np.mean([run.scores.eta_p for run in runs]), "eta_p_low": low, "eta_p_high": high}
    return row | {"chance_eta_p": chance(PROTOCOL, counts).eta_p}


def landmarks() -> pd.DataFrame:
    """What the authors' notebook prints for their models on photographs of landmarks: mAP in percent."""
    return pd.DataFrame(published("landmarks")["rows"]).T.rename_axis("strategy").rename(index=str.upper)


def landmarks_note() -> str:
    """The same as one sentence."""
    values = ", ".join(f"{row.Index} {row.roxford:.2f} / {row.rparis:.2f}" for row in landmarks().itertuples())
    return f"The authors' notebook prints, of their models, mAP (easy) on ROxford / RParis: {values}."
