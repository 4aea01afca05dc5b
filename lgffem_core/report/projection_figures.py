"""Maps of embeddings in the plane (Figure 7), with scans that can be told apart without relying on colour.

No reader can tell 24 colours apart. A scan therefore has one of eight colours *and* one of several marker
shapes, and its name stands at the median of its points, or just above where it would hide them.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from lgffem_core.report.pictures import finish

#: Eight colours that readers with and without colour blindness can tell apart (Okabe and Ito, 2008).
SCAN_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#F0E442", "#56B4E9", "#000000")
MARKERS = ("o", "^", "s", "D", "v")  # five times eight scans have a style of their own; Kimia has 24
PANEL = 3.3  # inches
NAME = 6.5  # points: height of a scan's name on the map
NAME_BOX = np.array([0.24, 0.125])  # inches that a name of three characters takes, with a little air


def scan_style(scan: int) -> dict:
    """Colour and marker of the ``scan``-th class, as options of ``Axes.scatter``."""
    colour, marker = scan % len(SCAN_COLOURS), scan // len(SCAN_COLOURS) % len(MARKERS)
    return {"color": [SCAN_COLOURS[colour]], "marker": MARKERS[marker], "edgecolors": "0.15", "linewidths": 0.3}


def push_apart(anchors: np.ndarray, box: np.ndarray, side: float, sweeps: int = 500) -> np.ndarray:
    """Places near ``anchors`` (S, 2), inside a square of ``side``, at which boxes of size ``box`` (2,) do not overlap.

    Two boxes that overlap are pushed apart along the axis where less is missing, over and over. What does not
    overlap stays where it is. Deterministic: of two boxes at one place, the later one goes up.
    """
    places = anchors.astype(np.float64).copy()
    for _ in range(sweeps):
        moved = False
        for i in range(len(places)):
            for j in range(i):
                apart = places[i] - places[j]
                missing = box - np.abs(apart)
                if (missing > 1e-9).all():
                    axis = int(np.argmin(missing / box))
                    push = (missing[axis] / 2 + 1e-6) * (1 if apart[axis] >= 0 else -1)
                    places[i, axis] += push
                    places[j, axis] -= push
                    moved = True
        places = places.clip(box / 2, side - box / 2)
        if not moved:
            break
    return places


def to_panel(points: np.ndarray) -> np.ndarray:
    """Points shifted and scaled, by one factor, into a square panel of ``PANEL`` inches with a margin for names."""
    low, high = points.min(axis=0), points.max(axis=0)
    scale = (PANEL - 2 * NAME_BOX[0]) / (high - low).max()
    return (points - (low + high) / 2) * scale + PANEL / 2


def name_anchor(points: np.ndarray, radius: float) -> np.ndarray:
    """Where a scan's name belongs, (2,): the median of its points, or just above them if it would hide most of them."""
    median = np.median(points, axis=0)
    hidden = (np.abs(points - median) < NAME_BOX / 2).all(axis=1)
    if hidden.mean() <= 0.5:
        return median
    return np.array([median[0], points[hidden, 1].max() + radius + NAME_BOX[1] / 2])


def draw_name(panel: Axes, name: str, place: np.ndarray, median: np.ndarray) -> None:
    """A scan's name at ``place``, with a line to the median of its points where that is not beside it."""
    outside = np.abs(median - place) / (NAME_BOX / 2)  # above 1 along an axis where the name does not reach
    edge = place + (median - place) / max(1.0, outside.max())
    if np.linalg.norm(median - edge) > NAME_BOX[1]:
        panel.plot(*np.stack([median, edge]).T, color="0.15", linewidth=0.5, zorder=3)
    text = panel.text(*place, name, fontsize=NAME, ha="center", va="center_baseline", zorder=4)
    text.set_path_effects([withStroke(linewidth=1.3, foreground="white")])  # legible, and hides few points


def draw_scans(panel: Axes, points: np.ndarray, labels: np.ndarray, names: dict[int, str]) -> None:
    """One map: points (N, 2) in scan style, names at the medians, moved apart where they would overlap."""
    inches, scans = to_panel(points), np.unique(labels)
    size = float(np.clip(8000 / len(points), 7, 24))  # points²
    for scan in scans:
        panel.scatter(*inches[labels == scan].T, s=size, **scan_style(scan))
    anchors = np.array([name_anchor(inches[labels == scan], size**0.5 / 2 / 72) for scan in scans])
    for scan, place in zip(scans, push_apart(anchors, NAME_BOX, PANEL), strict=True):
        draw_name(panel, names[scan], place, np.median(inches[labels == scan], axis=0))
    panel.set(xlim=(0, PANEL), ylim=(0, PANEL), xticks=[], yticks=[], aspect="equal", anchor="S")


def scan_legend(panel: Axes, labels: np.ndarray, names: dict[int, str]) -> None:
    """The legend of all maps, in a panel of its own: a column for each colour, a row for each marker."""
    scans, columns = np.unique(labels), len(SCAN_COLOURS)
    order = sorted(scans, key=lambda scan: (scan % columns, scan))  # matplotlib fills columns first
    handles = [panel.scatter([], [], s=24, label=names[scan], **scan_style(scan)) for scan in order]
    panel.legend(handles=handles, loc="center", ncols=min(columns, len(scans)), frameon=False, fontsize=8)
    panel.set_axis_off()


def projection_panels(
    points: dict[str, np.ndarray], labels: np.ndarray, names: dict[int, str], measures: dict[str, dict],
    heading: str, label: str,
) -> Figure:  # fmt: skip
    """Maps side by side, each under its name and how far it may be trusted.

    Args:
        points: panel name -> (N, 2), from ``projection.project``; labels: (N,) scan of each point.
        names: scan -> its name.
        measures: panel name -> ``projection.faithfulness`` of it.
        heading: must name the method where the panels' names do not.
    """
    figure = plt.figure(figsize=((PANEL + 0.1) * len(points), PANEL + 1.6), layout="constrained")
    grid = figure.add_gridspec(2, len(points), height_ratios=(PANEL, 0.5))
    for i, (name, map_points) in enumerate(points.items()):
        panel = figure.add_subplot(grid[0, i])
        draw_scans(panel, map_points, labels, names)
        found = measures[name]
        panel.set_title(
            f"{name}\ntrustworthiness {found['trustworthiness']:.3f}\n"
            f"k-NN overlap {found['knn_overlap']:.2f} (chance {found['chance_overlap']:.2f})",
            fontsize=9,
        )
    figure.axes[0].set_ylabel("axes have no unit", fontsize=8, color="0.4")
    scan_legend(figure.add_subplot(grid[1, :]), labels, names)
    return finish(figure, heading, label)
