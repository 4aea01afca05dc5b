"""Pictures of retrieval: similarity between classes, a query's neighbours, scores by protocol and by scan."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from lgffem_core.config.study import Study
from lgffem_core.data import images_root
from lgffem_core.data.loading import read_rgb
from lgffem_core.report.style import COLOURS, RIGHT, WRONG, axes, sign
from lgffem_core.retrieval.index import search
from lgffem_core.retrieval.protocols import Outcome

THUMBNAIL = 66  # pixels a side: 144 of them make a picture of about two megabytes
TILE = 0.66  # inches that an image of the gallery takes, with
IMAGE = 0.94  # of it for the image itself
ROW = 1.2  # tiles from one row of the gallery to the next: an image and its line of text
GAP = 0.5  # tiles between blocks of rows


def hit_style(right: bool | None) -> tuple[str, tuple | str, str]:
    """(sign, colour, line style) of a retrieved patch, so that it also reads without colour; None for the query."""
    return {None: ("query", "0.2", "-"), True: ("✓", RIGHT, "-"), False: ("✗", WRONG, "--")}[right]


def squared(distance: float) -> str:
    """A squared distance in few characters: three decimals, or none where it is large. Only 0 prints as 0.000."""
    if 0 < distance < 0.0005:
        return "<0.001"
    return f"{distance:.3f}" if distance < 100 else f"{distance:.0f}"


def neighbour_strip(
    images: list[np.ndarray], scans: list[str], distances: list[float], label: str,
    side: float = 1.5, files: list[str] | None = None,
) -> Figure:  # fmt: skip
    """A query (first) and its neighbours, framed by whether they share its scan; distances squared Euclidean.

    ``side`` is a panel's width in inches; ``files`` are names to print under the scans.
    """
    lines = 3 if files else 2
    size = (side * len(images), side + 0.14 * lines + 0.25)
    figure, ax = plt.subplots(1, len(images), figsize=size, layout="constrained")
    for i, (panel, image, scan, distance) in enumerate(zip(ax, images, scans, distances, strict=True)):
        sign_of, colour, style = hit_style(scan == scans[0] if i else None)
        panel.imshow(image)
        panel.set(xticks=[], yticks=[], anchor="S")  # what the layout leaves free lies above, where the titles are
        words = [
            f"{sign_of} {scan}",
            *([files[i]] if files else []),
            *([f"d² = {squared(distance)}".replace("= <", "< ")] if i else []),
        ]
        panel.set_title("\n".join(words), fontsize=8)
        for spine in panel.spines.values():
            spine.set(visible=True, color=colour, linewidth=3, linestyle=style)
    return sign(figure, label)


def similarity_panels(embeddings: dict[str, np.ndarray], labels: np.ndarray, names: list[str], label: str) -> Figure:
    """Mean cosine similarity between the embeddings of every two classes: the diagonal should stand out.

    A panel for each title, side by side on one colour scale, so that a change can be seen.
    """
    means = {title: class_similarity(values, labels) for title, values in embeddings.items()}
    low, high = min(m.min() for m in means.values()), max(m.max() for m in means.values())
    figure, panels = plt.subplots(1, len(means), figsize=(5.2 * len(means), 4.4), layout="constrained", squeeze=False)
    ticks = [names[k] for k in np.unique(labels)]
    for ax, (title, values) in zip(panels[0], means.items(), strict=True):
        sns.heatmap(
            values, vmin=low, vmax=high, ax=ax, cmap="viridis", xticklabels=ticks, yticklabels=ticks, square=True
        )
        ax.tick_params(labelsize=min(8, max(4, 190 / len(ticks))))  # as large as their rows
        ax.set_title(title, fontsize=10)
    return sign(figure, label)


def class_similarity(embeddings: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(K, K): mean cosine similarity between the embeddings (N, D) of every two of the K classes."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    means = np.stack([unit[labels == k].mean(axis=0) for k in np.unique(labels)])
    return means @ means.T


def protocol_bars(table: pd.DataFrame, study: Study) -> Figure:
    """η_p of every strategy under every protocol, with its interval; the published value as a hollow diamond.

    It is hollow and grey, and its data are named, because those of the run are others in all profiles but one.
    """
    paper = {"marker": "D", "s": 26, "facecolor": "none", "edgecolor": "0.2", "linewidth": 1.2, "zorder": 3}
    variants, strategies = list(table["variant"].unique()), list(table["strategy"].unique())
    figure, panels = plt.subplots(
        1, len(variants), figsize=(5 * len(variants), 3.6), sharey=True, layout="constrained", squeeze=False
    )
    protocols = list(table["protocol"].unique())
    for ax, variant in zip(panels[0], variants, strict=True):
        rows = table[table["variant"] == variant]
        for i, protocol in enumerate(protocols):
            part = rows[rows["protocol"] == protocol]
            x = np.arange(len(part)) + (i - (len(protocols) - 1) / 2) * 0.26
            spread = np.abs(part[["eta_p_low", "eta_p_high"]].to_numpy().T - part["eta_p"].to_numpy())
            ax.bar(x, part["eta_p"], 0.24, yerr=spread, capsize=2, color=COLOURS[i], label=protocol)
            ax.scatter(x, part["paper_eta_p"], **paper)
        ax.set(xticks=range(len(strategies)), xticklabels=strategies, ylim=(0, 105))
        ax.set(title=f"variant {variant}", xlabel="strategy")
    panels[0][0].set_ylabel("η_p, %")
    panels[0][0].scatter([], [], **paper, label="paper, on Kimia Path24C")
    entries, columns = panels[0][0].get_legend_handles_labels(), 2 * len(variants)
    figure.legend(*entries, loc="outside upper center", ncols=columns, frameon=False, fontsize=8)
    sns.despine(figure)
    return sign(figure, study.label)


def nearest_others(embeddings: np.ndarray, query: int, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    """(squared distances, rows) of the nearest rows of ``embeddings`` but the query itself, left out by its id.

    They are as many as there are, where that is fewer than ``neighbours``.
    """
    neighbours = min(neighbours, len(embeddings) - 1)
    distances, ids = search(embeddings, embeddings[query : query + 1], neighbours + 1)
    others = ids[0] != query
    return distances[0][others][:neighbours], ids[0][others][:neighbours]


def query_strip(
    study: Study, dataset: str, table: pd.DataFrame, embeddings: np.ndarray, query: int, neighbours: int,
    side: float = 1.5, named: bool = False,
) -> Figure:  # fmt: skip
    """One patch and its nearest other patches in ``table``, whose rows ``embeddings`` belong to.

    ``side`` is a panel's width in inches; ``named`` prints the files' names too.
    """
    distances, ids = nearest_others(embeddings, query, neighbours)
    root, rows = images_root(study, dataset), table.iloc[[query, *ids]]
    images = [read_rgb(root / path) for path in rows["path"]]
    files = [Path(path).name for path in rows["path"]] if named else None
    return neighbour_strip(images, rows["label"].tolist(), [0.0, *distances], study.label, side, files)


def first_patches(table: pd.DataFrame) -> np.ndarray:
    """Row position of each scan's first patch in ``table``, scans in order: (S,)."""
    return np.unique(table["label_id"], return_index=True)[1]


def thumbnail(path: Path, side: int = THUMBNAIL) -> np.ndarray:
    """An image file as uint8 (≤ side, ≤ side, 3) RGB."""
    image = Image.fromarray(read_rgb(path))
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(image)


def gallery(
    study: Study, dataset: str, table: pd.DataFrame, embeddings: np.ndarray, neighbours: int = 5, blocks: int = 2
) -> Figure:
    """One query a scan, its first patch, and its nearest other patches, in blocks of rows side by side.

    Args:
        table: the test patches; embeddings: (N, D), theirs.
        neighbours: as many as there are where the table holds fewer others.
    """
    queries, root = first_patches(table), images_root(study, dataset)
    neighbours = min(neighbours, len(table) - 1)
    rows, width = -(-len(queries) // blocks), neighbours + 1 + GAP
    figure, ax = plt.subplots(figsize=(TILE * blocks * width, TILE * ROW * rows + 0.6), layout="constrained")
    for i, query in enumerate(queries):
        distances, ids = nearest_others(embeddings, query, neighbours)
        for column, row in enumerate([query, *ids]):
            scan, path = table["label"].iloc[row], root / table["path"].iloc[row]
            corner = (i // rows * width + column + (0.15 if column else 0), -ROW * (i % rows))
            sign_of, colour, style = hit_style(scan == table["label"].iloc[query] if column else None)
            distance = f"  {squared(distances[column - 1])}" if column else ""
            draw_tile(ax, thumbnail(path), corner, f"{sign_of} {scan}{distance}", colour, style)
    ax.set(xlim=(-0.05, blocks * width - GAP + 0.2), ylim=(-ROW * (rows - 1) - 0.05, ROW), aspect="equal")
    ax.set_axis_off()
    ax.set_title("query and its nearest others: ✓ solid, same scan; ✗ dashed, another; d² beside the scan", fontsize=8)
    return sign(figure, study.label)


def draw_tile(ax: Axes, image: np.ndarray, corner: tuple[float, float], text: str, colour, style: str) -> None:
    """An image as a framed unit square with its lower left at ``corner``, and a line of text above it."""
    x, y = corner
    ax.imshow(image, extent=(x, x + IMAGE, y, y + IMAGE), interpolation="none")
    ax.add_patch(Rectangle(corner, IMAGE, IMAGE, fill=False, edgecolor=colour, linestyle=style, linewidth=1.8))
    ax.text(x + IMAGE / 2, y + IMAGE + 0.04, text, fontsize=5.5, ha="center", va="bottom")


def split_grid(study: Study, dataset: str, table: pd.DataFrame, scans: int) -> Figure:
    """The first training patch (above) and the first test patch (below) of the first ``scans`` scans, or of all."""
    scans = min(scans, table["label"].nunique())
    figure, grid = plt.subplots(2, scans, figsize=(1.5 * scans, 3.4), layout="constrained")
    root = images_root(study, dataset)
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
    ax.set_xticks(np.arange(len(share)), [f"s{k}" for k in order], fontsize=8)
    ax.set(ylabel="right patches, %", ylim=(0, 105))
    figure.legend(loc="outside upper right", frameon=False, fontsize=8)  # bars are wherever the axes have room
    return sign(figure, study.label)
