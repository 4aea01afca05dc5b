"""Pictures of Grad-CAM++ maps: figures 4-6, and those of the sanity checks.

Maps are (S, S) in [0, 1] and are drawn right way up: dark is low and bright is high, in a map whose steps every
reader can tell apart. (``show_cam_on_image`` subtracted from one, as at a commit of the released code, wraps around in
uint8 and inverts the colours: ledger 14.) Images are uint8 (S, S, 3) RGB.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from lgffem_core.report.pictures import finish, show
from lgffem_core.report.style import COLOURS, RIGHT, WRONG, axes
from lgffem_core.systems.lgffem.neck import OUTPUTS

COLOURMAP = "inferno"
OPACITY = 0.6  # of a map over its patch in grey
COLUMNS = (*OUTPUTS, "collapse")


def luminance(image: np.ndarray) -> np.ndarray:
    """Luminance (S, S) uint8 (ITU-R BT.601), so that the only colours in a panel are the map's."""
    return np.rint(image @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)


def overlay(panel: Axes, image: np.ndarray, heat: np.ndarray, title: str = "") -> None:
    """A map over its patch in grey; 0 has the colour map's lowest colour and 1 its highest, in every panel."""
    show(panel, luminance(image), title, cmap="gray", vmin=0, vmax=255)
    show(panel, heat, title, cmap=COLOURMAP, vmin=0, vmax=1, alpha=OPACITY)
    if not heat.any():
        panel.text(0.5, 0.5, "no heat", color="white", ha="center", va="center", transform=panel.transAxes, fontsize=8)


def add_scale(figure: Figure, panels: np.ndarray) -> None:
    """The colour bar of all maps in a figure, in words: a map's unit was lost in its scaling."""
    bar = figure.colorbar(ScalarMappable(cmap=COLOURMAP), ax=panels, shrink=0.8, aspect=25, pad=0.01)
    bar.set_ticks([0, 1], labels=["low", "high"])


def cam_figure(images: dict[str, np.ndarray], maps: dict[str, dict], layer: int, label: str) -> Figure:
    """Figures 4, 5 and 6: one row a patch, with its maps at a layer's fused nodes and their collapse.

    Args:
        images: name -> patch, e.g. "query s0" and "retrieved s0".
        maps: the same names -> {"P1_2": (S, S), …, "P4_2": (S, S), "collapse": (S, S)}.
    """
    size = (1.25 * (len(COLUMNS) + 1) + 0.6, 1.22 * len(images) + 0.75)
    figure, panels = plt.subplots(len(images), len(COLUMNS) + 1, figsize=size, squeeze=False, layout="constrained")
    for i, (row, name) in enumerate(zip(panels, images, strict=True)):
        show(row[0], images[name], "patch" if i == 0 else "")
        row[0].set_ylabel(name, fontsize=9)
        for panel, column in zip(row[1:], COLUMNS, strict=True):
            overlay(panel, images[name], maps[name][column], column if i == 0 else "")
    add_scale(figure, panels)
    return finish(figure, f"Grad-CAM++ in neck layer {layer}: what makes each patch similar to the other", label)


def absent_layer_figure(layer: int, layers: int, label: str) -> Figure:
    """The page that stands for the figure of a neck layer that this model does not have."""
    figure, ax = plt.subplots(figsize=(6, 1.5), layout="constrained")
    ax.set_axis_off()
    has = f"{layers} layer" + ("s" if layers > 1 else "")
    text = (
        f"This model's neck has {has}. The paper's Figure {layer + 3} shows layer {layer}.\n"
        f"With model.neck.layers={layer} or more it is drawn here."
    )
    ax.text(0.5, 0.5, text, ha="center", va="center", fontsize=10)
    return finish(figure, f"Grad-CAM++ in neck layer {layer}: no such layer", label)


def planted_figure(images: np.ndarray, masks: np.ndarray, maps: np.ndarray, points: np.ndarray, label: str) -> Figure:
    """Planted patches above, their maps below; a ring outlines each structure, a cross is the hottest point.

    Blue crosses lie on the structure, vermilion ones do not. ``points`` are (N, 2), row and column.
    """
    figure, panels = plt.subplots(
        2, len(images), figsize=(1.25 * len(images) + 0.6, 3.0), squeeze=False, layout="constrained"
    )
    for i, (row, column) in enumerate(points):
        show(panels[0, i], images[i])
        overlay(panels[1, i], images[i], maps[i])
        for panel, colour in zip(panels[:, i], ("black", "white"), strict=True):
            panel.contour(masks[i], levels=[0.5], colors=colour, linewidths=1, linestyles="--")
        colour = RIGHT if masks[i, row, column] else WRONG
        panels[1, i].plot(column, row, "P", color=colour, markeredgecolor="white", markersize=9)
    add_scale(figure, panels)
    return finish(figure, "Planted structures (outlined) and where their maps are hottest (crosses)", label)


def correlation_chart(table: pd.DataFrame, heading: str, label: str) -> Figure:
    """Mean rank correlations and their 95 % range: a colour for each ``comparison``, a place for each ``map``.

    ``table`` has the columns comparison, map, mean, low and high; rows without a mean are left out.
    """
    places = list(table["map"].unique())
    figure, ax = axes(max(5.0, 0.42 * len(places) + 1.5), 3.2)
    comparisons = list(table.groupby("comparison", sort=False))
    for i, (name, rows) in enumerate(comparisons):
        rows = rows.dropna(subset="mean")
        x = np.array([places.index(place) for place in rows["map"]]) + 0.2 * (i - (len(comparisons) - 1) / 2)
        mean = rows["mean"].to_numpy(float)
        spread = np.stack([mean - rows["low"].to_numpy(float), rows["high"].to_numpy(float) - mean])
        ax.errorbar(x, mean, spread, fmt="o", markersize=4, capsize=2, linewidth=1, color=COLOURS[i], label=name)
    ax.axhline(0, color="0.6", linewidth=0.8)
    ax.set_xticks(range(len(places)), places, rotation=90 if len(places) > 6 else 0, fontsize=8)
    ax.set(ylabel="rank correlation", ylim=(-1.05, 1.05))
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize=8)
    return finish(figure, heading, label)
