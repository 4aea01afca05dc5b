"""Pictures of retrieval: similarity between classes, a query's neighbours, scores by protocol and by scan."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from lgffem_core.data import images_root
from lgffem_core.data.loading import read_rgb
from lgffem_core.report.style import COLOURS, RIGHT, WRONG, axes, sign
from lgffem_core.retrieval.index import search
from lgffem_core.retrieval.protocols import Outcome
from lgffem_core.study import Study


def neighbour_strip(images: list[np.ndarray], scans: list[str], distances: list[float], label: str) -> Figure:
    """A query (first) and its neighbours, framed by whether they share its scan; distances squared Euclidean."""
    figure, ax = plt.subplots(1, len(images), figsize=(1.5 * len(images), 2.2), layout="constrained")
    for i, (panel, image, scan, distance) in enumerate(zip(ax, images, scans, distances, strict=True)):
        panel.imshow(image)
        panel.set(xticks=[], yticks=[])
        panel.set_title(f"query {scan}" if i == 0 else f"{scan}\nd² = {distance:.3f}", fontsize=8)
        colour = "0.2" if i == 0 else RIGHT if scan == scans[0] else WRONG
        for spine in panel.spines.values():
            spine.set(visible=True, color=colour, linewidth=3)
    return sign(figure, label)


def similarity_map(embeddings: np.ndarray, labels: np.ndarray, names: list[str], title: str, label: str) -> Figure:
    """Mean cosine similarity between the embeddings of every two classes: the diagonal should stand out."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    present = np.unique(labels)
    means = np.stack([unit[labels == k].mean(axis=0) for k in present])
    figure, ax = axes(5.2, 4.4)
    ticks = [names[k] for k in present]
    sns.heatmap(means @ means.T, ax=ax, cmap="viridis", xticklabels=ticks, yticklabels=ticks, square=True)
    ax.tick_params(labelsize=6)
    ax.set_title(title, fontsize=10)
    return sign(figure, label)


def protocol_bars(table: pd.DataFrame, study: Study) -> Figure:
    """η_p of every strategy under every protocol, with its interval, and the published value as a diamond."""
    variants = list(table["variant"].unique())
    figure, panels = plt.subplots(
        1, len(variants), figsize=(5 * len(variants), 3.6), sharey=True, layout="constrained", squeeze=False
    )
    for ax, variant in zip(panels[0], variants, strict=True):
        rows = table[table["variant"] == variant]
        for i, protocol in enumerate(rows["protocol"].unique()):
            part = rows[rows["protocol"] == protocol]
            x = np.arange(len(part)) + (i - 1) * 0.26
            spread = np.abs(part[["eta_p_low", "eta_p_high"]].to_numpy().T - part["eta_p"].to_numpy())
            ax.bar(x, part["eta_p"], 0.24, yerr=spread, capsize=2, color=COLOURS[i], label=protocol)
            ax.scatter(x, part["paper_eta_p"], marker="D", s=22, color="black", zorder=3)
        ax.set(
            xticks=range(3),
            xticklabels=["A", "B", "C"],
            ylim=(0, 105),
            title=f"variant {variant}",
            xlabel="strategy",
        )
    panels[0][0].set_ylabel("η_p, %")
    panels[0][0].scatter([], [], marker="D", s=22, color="black", label="paper")
    figure.legend(
        *panels[0][0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=4,
        frameon=False,
        fontsize=8,
    )
    sns.despine(figure)
    return sign(figure, study.label)


def query_strip(study: Study, table: pd.DataFrame, embeddings: np.ndarray, query: int, neighbours: int) -> Figure:
    """One Kimia patch and its nearest other patches in ``table``, whose rows ``embeddings`` belong to."""
    distances, ids = search(embeddings, embeddings[query : query + 1], neighbours + 1)
    others = ids[0] != query
    order = [query, *ids[0][others][:neighbours]]
    root, rows = images_root(study, "kimia"), table.iloc[order]
    images = [read_rgb(root / path) for path in rows["path"]]
    return neighbour_strip(images, rows["label"].tolist(), [0.0, *distances[0][others][:neighbours]], study.label)


def split_grid(study: Study, table: pd.DataFrame, scans: int) -> Figure:
    """The first training patch (above) and the first test patch (below) of the first ``scans`` scans."""
    figure, grid = plt.subplots(2, scans, figsize=(1.5 * scans, 3.4), layout="constrained")
    root = images_root(study, "kimia")
    for row, split in zip(grid, ("train", "test"), strict=True):
        for panel, scan in zip(row, table["label"].unique(), strict=False):
            path = table.query("split == @split and label == @scan")["path"].iloc[0]
            panel.imshow(read_rgb(root / path))
            panel.set_title(f"{scan}, {split}", fontsize=8)
            panel.set_axis_off()
    return sign(figure, study.label)


def scan_bars(outcomes: list[Outcome], study: Study) -> Figure:
    """Share of right patches in each scan, averaged over seeds, scans sorted by it."""
    share = np.mean([outcome.correct / outcome.counts for outcome in outcomes], axis=0) * 100
    order = np.argsort(share, kind="stable")
    figure, ax = axes(8, 2.8)
    ax.bar(np.arange(len(share)), share[order], color=COLOURS[0])
    ax.axhline(share.mean(), color="0.4", linewidth=1, linestyle="--", label=f"mean (η_w) {share.mean():.1f} %")
    ax.set_xticks(np.arange(len(share)), [f"s{k}" for k in order], fontsize=7)
    ax.set(ylabel="right patches, %", ylim=(0, 105))
    ax.legend(frameon=False, loc="lower right")
    return sign(figure, study.label)
