"""Maps of embeddings in the plane (Figure 7), with scans that can be told apart without relying on colour.

No reader can tell 24 colours apart. A scan therefore has one of eight colours *and* one of several marker
shapes, and its name stands beside its points, with a line to their median where it is not near.
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
STEP, NEAR = 0.06, 150  # inches between the spots where a name may stand; how many of them are compared to the end
HIDES, CROSSES = 0.5, 0.3  # inches that a name goes further rather than hide a point, or lie with another on a line


def scan_style(scan: int) -> dict:
    """Colour and marker of the ``scan``-th class, as options of ``Axes.scatter``."""
    colour, marker = scan % len(SCAN_COLOURS), scan // len(SCAN_COLOURS) % len(MARKERS)
    return {"color": [SCAN_COLOURS[colour]], "marker": MARKERS[marker], "edgecolors": "0.15", "linewidths": 0.3}


def free_places(medians: np.ndarray, points: np.ndarray, radius: float, sweeps: int = 3) -> np.ndarray:
    """Places (S, 2) for the scans' names: near their ``medians`` (S, 2), beside all ``points`` (N, 2), apart.

    Each name in turn takes the cheapest spot of a grid that no other name has: inches from its median, and more for
    each point of ``radius`` that it would hide and each name that would lie on a line to a median, of which the nearer
    spots alone are asked. Then all choose again.
    """
    columns, rows = (np.arange(half, PANEL - half, STEP) for half in NAME_BOX / 2)
    spots = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
    hidden = within(spots[:, None] - points, NAME_BOX / 2 + radius).sum(axis=1)
    costs = np.linalg.norm(spots[:, None] - medians, axis=-1) + HIDES * hidden[:, None]  # (all spots, S)
    places, parts = np.full(medians.shape, np.inf), np.linspace(0.1, 0.9, 9)[:, None, None, None]
    for scan in [*range(len(medians))] * sweeps:
        others = np.isfinite(places[:, 0]) & (np.arange(len(medians)) != scan)
        cost = costs[:, scan] + PANEL * len(points) * within(spots[:, None] - places[others], NAME_BOX).any(axis=1)
        near = np.argsort(cost, kind="stable")[:NEAR]
        away = spots[near, None] - places[others]  # (C, O, 2)
        own, theirs = spots[near, None] - medians[scan], places[others] - medians[others]  # to where their lines begin
        crossed = within(away - parts * own, NAME_BOX / 2) | within(away + parts * theirs, NAME_BOX / 2)  # (9, C, O)
        places[scan] = spots[near[np.argmin(cost[near] + CROSSES * crossed.any(axis=0).sum(axis=1))]]
    return places


def within(distances: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Whether distances (…, 2) are smaller than a box along both axes: (…)."""
    return (np.abs(distances) < box).all(axis=-1)


def to_panel(points: np.ndarray) -> np.ndarray:
    """Points shifted and scaled, by one factor, into a square panel of ``PANEL`` inches with a margin for names."""
    low, high = points.min(axis=0), points.max(axis=0)
    scale = (PANEL - 2 * NAME_BOX[0]) / (high - low).max()
    return (points - (low + high) / 2) * scale + PANEL / 2


def draw_name(panel: Axes, name: str, place: np.ndarray, median: np.ndarray) -> None:
    """A scan's name at ``place``, with a line to the median of its points where that is not beside it."""
    outside = np.abs(median - place) / (NAME_BOX / 2)  # above 1 along an axis where the name does not reach
    edge = place + (median - place) / max(1.0, outside.max())
    if np.linalg.norm(median - edge) > NAME_BOX[1]:
        panel.plot(*np.stack([median, edge]).T, color="0.15", linewidth=0.5, zorder=3)
    text = panel.text(*place, name, fontsize=NAME, ha="center", va="center_baseline", zorder=4)
    text.set_path_effects([withStroke(linewidth=1.3, foreground="white")])  # legible, and hides few points


def draw_scans(panel: Axes, points: np.ndarray, labels: np.ndarray, names: dict[int, str]) -> None:
    """One map: points (N, 2) in scan style, each scan's name beside them."""
    inches, scans = to_panel(points), np.unique(labels)
    size = float(np.clip(8000 / len(points), 7, 24))  # points²
    for scan in scans:
        panel.scatter(*inches[labels == scan].T, s=size, **scan_style(scan))
    medians = np.array([np.median(inches[labels == scan], axis=0) for scan in scans])
    for scan, place, median in zip(scans, free_places(medians, inches, size**0.5 / 2 / 72), medians, strict=True):
        draw_name(panel, names[scan], place, median)
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
