"""The audit's pictures: one ranking as three protocols see it, falling embeddings, the order of the files.

All functions return a figure that carries ``label``, which data it is from, at its foot.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from lgffem_core.audit.order import Orders
from lgffem_core.config.study import Study
from lgffem_core.report.retrieval_figures import hit_style, thumbnail
from lgffem_core.report.style import COLOURS, RIGHT, WRONG, axes, sign
from lgffem_core.retrieval.embed import Embedded
from lgffem_core.retrieval.index import search
from lgffem_core.retrieval.protocols import leave_one_out, released

BLUE, ORANGE = COLOURS[0], COLOURS[1]
IMAGE = 220  # pixels a side of the ranking's images: their full size would make an SVG of many megabytes
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")


def telling_scan(embeddings: np.ndarray, labels: np.ndarray) -> int:
    """The scan whose shares of right patches under ``released`` and ``leave_one_out`` differ most."""
    outcomes = [protocol(embeddings, labels) for protocol in (released, leave_one_out)]
    shares = [outcome.correct / outcome.counts for outcome in outcomes]
    return int(np.argmax(np.abs(shares[0] - shares[1])))


def telling_patch(embeddings: np.ndarray, labels: np.ndarray, scan: int) -> tuple[int, float]:
    """The patch of ``scan`` that ``leave_one_out`` and ``released`` judge most differently, the first of several.

    Its row among ``embeddings`` (N, D) and ``labels`` (N,), and how far 0 or 1, wrong or right, is from the share of
    the scan's patches that ``released`` would count if it were named first; 0 where the two judge every patch alike.
    """
    rows, depth = np.flatnonzero(labels == scan), int((labels <= scan).sum())
    counted = labels[search(embeddings, embeddings[rows], depth)[1]] == scan  # (P, depth)
    apart = np.abs(counted.sum(axis=1) / len(rows) - leave_one_out(embeddings, labels).hits[rows])
    return int(rows[np.argmax(apart)]), float(apart.max())


def ranking_picture(study: Study, images: list[Path], names: list[str], embedded: Embedded, query: int) -> Figure:
    """What each protocol reads from the ranking behind one patch, and how far behind the first of every scan.

    Args:
        images: files of the patches, in the order of ``embedded``; names: of the scans.
        query: row of the patch among the test patches.
    """
    embeddings, labels, test, _ = embedded
    values, scans, files = embeddings[test], labels[test], np.array(images)[test]
    first, depth = np.unique(scans, return_index=True)[1], np.bincount(scans).cumsum()
    scan, asked = scans[query], np.append(first, query)
    _, ids = search(values, values[asked], len(scans))
    own = scans[ids] == scans[asked][:, None]  # (S + 1, N)
    figure = plt.figure(figsize=(7.2, 7.6), layout="constrained")
    shown = min(7, len(scans))
    grid = figure.add_gridspec(3, shown + 1, height_ratios=(1.15, 1.1, 3.6))
    for column, row in enumerate(ids[-1, :shown]):
        right = None if row == query else bool(own[-1, column])
        neighbour(figure.add_subplot(grid[0, column]), files[row], names[scans[row]], f"place {column + 1}", right)
    train = np.flatnonzero(~test)
    nearest = train[search(embeddings[train], values[query][None], 1)[1][0, 0]]
    panel = figure.add_subplot(grid[0, shown])
    neighbour(panel, images[nearest], names[labels[nearest]], "in training", bool(labels[nearest] == scan))
    other, place = int(np.argmax(ids[-1] != query)) + 1, int((scans[:query] == scan).sum()) + 1
    strip(figure.add_subplot(grid[1, :]), own[-1], depth[scan], other, place, names[scan])
    staircase(figure.add_subplot(grid[2, :]), own[:-1], depth, names, scan)
    return sign(figure, study.label)


def neighbour(panel: Axes, path: Path, name: str, place: str, right: bool | None) -> None:
    """One image of a ranking, framed by whether it shares the query's scan; None for the query itself."""
    sign_of, colour, style = hit_style(right)
    panel.imshow(thumbnail(path, IMAGE))
    panel.set(xticks=[], yticks=[])
    panel.set_title(f"{sign_of} {name}\n{place}", fontsize=7)
    for spine in panel.spines.values():
        spine.set(visible=True, color=colour, linewidth=2.2, linestyle=style)


def strip(panel: Axes, own: np.ndarray, depth: int, other: int, place: int, name: str) -> None:
    """The whole ranking of one query as ticks, high where a patch is of its scan, and what each protocol reads.

    ``other`` is the place of the nearest patch that is not the query itself, ``place`` that of the query among its
    scan's patches as they are named. ``released`` asks with the first alone; of another it is said what it would count.
    """
    places, counted = np.arange(1, len(own) + 1), own[:depth].sum()
    panel.vlines(places[~own], 0, 0.25, color="0.7", linewidth=0.8)
    panel.vlines(places[own], 0, 0.8, color=RIGHT, linewidth=1.2)
    panel.axvspan(0.5, depth + 0.5, ymax=0.9 / 1.9, color=ORANGE, alpha=0.18, linewidth=0)
    panel.plot([other, other], [0.9, 1.6], color="black", linewidth=0.8)
    lines = {
        1.6: f"leave_one_out reads place {other}, {'right' if own[other - 1] else 'wrong'}; "
        "test_to_train reads another list, of the training patches",
        1.2: f"released{'' if place == 1 else ', if this were named first,'} "
        f"counts {counted} of {own.sum()} patches in the first {depth} places (shade); "
        f"the others there ({depth - counted}) cost nothing",
    }
    for height, text in lines.items():
        panel.annotate(text, (other, height), (5, 0), textcoords="offset points", fontsize=7, va="center")
    panel.set(xlim=(0, len(own) + 1), ylim=(0, 1.9), yticks=[])
    panel.set_xlabel(f"place in the ranking behind patch {place} of {own.sum()} of {name}", fontsize=8)
    panel.tick_params(labelsize=7)
    panel.spines[["top", "right", "left"]].set_visible(False)


def staircase(panel: Axes, own: np.ndarray, depth: np.ndarray, names: list[str], scan: int) -> None:
    """Every scan's ranking as a row, and how far ``released`` reads in it."""
    for row, found in enumerate(own):
        places = np.arange(1, len(found) + 1)
        inside = places <= depth[row]
        panel.barh(row, depth[row], 0.92, left=0.5, color=ORANGE, alpha=0.18, linewidth=0)
        panel.vlines(places[found & inside], row - 0.42, row + 0.42, color=RIGHT, linewidth=1.0)
        panel.vlines(places[found & ~inside], row - 0.2, row + 0.2, color=WRONG, linewidth=1.0)
        panel.text(len(found) + 2, row, f"{found[inside].sum()}/{found.sum()}", fontsize=6.5, va="center")
    panel.tick_params(labelsize=7)
    panel.set_yticks(range(len(names)), names, fontsize=6.5)
    panel.get_yticklabels()[scan].set_fontweight("bold")
    panel.set(xlim=(0, own.shape[1] + 1), ylim=(len(names) - 0.4, -0.6))
    panel.set_xlabel("place", fontsize=8)
    panel.set_title(
        "first patch of each scan: blue, high = its scan and counted; vermilion, low = its scan, too far; shade = read",
        fontsize=8,
    )
    panel.spines[["top", "right"]].set_visible(False)


def degradation_picture(
    curves: dict[str, np.ndarray], expected: float, points: dict[str, tuple[float, float]], label: str
) -> Figure:
    """η_p under ``released`` against top-1 accuracy, for embeddings from perfect to random.

    Args:
        curves: of ``degradation``; expected: η_p of random embeddings under ``released``.
        points: method -> its own (top-1, ``released``), where the protocols were run on it.
    """
    top1, scores = (curves[name][..., 0] for name in ("leave_one_out", "released"))  # (steps, draws)
    figure, ax = axes(6.2, 4.2)
    order = np.argsort(top1.mean(axis=1), kind="stable")
    x = top1.mean(axis=1)[order]
    ax.fill_between(x, scores.min(axis=1)[order], scores.max(axis=1)[order], color=BLUE, alpha=0.25, linewidth=0)
    ax.plot(x, scores.mean(axis=1)[order], color=BLUE, linewidth=2, label="perfect to random (band: all draws)")
    ax.plot([0, 100], [0, 100], color="0.4", linestyle="--", linewidth=1, label="if both said the same")
    ax.axhline(expected, color=ORANGE, linestyle=":", linewidth=1.5, label=f"random embeddings: {expected:.1f} %")
    for i, (name, (own, score)) in enumerate(points.items()):
        ax.scatter(own, score, s=34, marker=MARKERS[i % len(MARKERS)], facecolor="white", edgecolor="black", label=name)
    ax.set(xlabel="top-1: η_p under leave_one_out, %", ylabel="η_p under released, %", xlim=(0, 101), ylim=(0, 102))
    ax.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return sign(figure, label)


def order_picture(found: dict[str, Orders], label: str) -> Figure:
    """How η_p under ``released`` scatters where only the order of the files changes; a row for each model."""
    figure, ax = axes(6.6, 0.62 * len(found) + 1.5)
    for row, orders in enumerate(found.values()):
        ax.plot(orders.extremes, [row, row], color="0.75", linewidth=1, zorder=1)
        ax.scatter(orders.extremes, [row, row], marker="|", color="0.6", s=60, zorder=1)
        low, high = np.percentile(orders.first, (2.5, 97.5))
        ax.barh(row + 0.2, high - low, 0.22, left=low, color=ORANGE, alpha=0.6, linewidth=0)
        ax.plot([np.median(orders.first)] * 2, [row + 0.09, row + 0.31], color="black", linewidth=1)
        levels = row - 0.14 - 0.2 * beeswarm(orders.rotations)
        ax.scatter(orders.rotations, levels, s=14, color=BLUE, linewidth=0, alpha=0.8, zorder=2)
        ax.scatter(orders.filed, row, marker="D", s=36, facecolor="white", edgecolor="black", zorder=3)
    handles = [
        ax.scatter([], [], marker="D", s=36, facecolor="white", edgecolor="black", label="as filed"),
        ax.scatter([], [], s=14, color=BLUE, label="every rotation of the scans"),
        Patch(color=ORANGE, alpha=0.6, label="other first patches: 95 % of draws, median"),
        ax.plot([], [], color="0.75", linewidth=1, marker="|", label="extremes of both together")[0],
    ]
    least = min(orders.extremes[0] for orders in found.values())
    ax.set(yticks=range(len(found)), yticklabels=list(found), ylim=(len(found) - 0.45, -0.6), xlim=(least - 2, 101.5))
    ax.set_xlabel("η_p under released, %")
    figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    return sign(figure, label)


def beeswarm(values: np.ndarray, bins: int = 60) -> np.ndarray:
    """Heights of 0 … 1 at which dots at ``values`` (N,) stand above those that would hide them."""
    places = np.round(values / (np.ptp(values) / bins or 1)).astype(int)
    seen: dict[int, int] = {}
    heights = np.array([seen.update({p: seen.get(p, -1) + 1}) or seen[p] for p in places], dtype=float)
    return heights / max(heights.max(), 1)
