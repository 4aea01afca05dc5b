"""Pictures of data and model for the notebooks: patches, counts, stains, feature maps, curves.

Every function takes arrays or tables and returns a figure, already closed, that carries ``label`` (which
data it is from) at its foot. Images are uint8 (H, W, 3) RGB.
"""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lgffem_core.report.style import COLOURS, sign

NARROWEST = 4.0  # inches: what a label needs
NAMED_BARS = 40  # more bars than this get no names: they would run into each other


def finish(figure: Figure, heading: str, label: str) -> Figure:
    """Put the heading above, wrapped to the figure's width, and the label below.

    Where there are axes alone, it stands over their middle, of which names and a legend beside them leave the figure's.
    """
    above = figure.suptitle(textwrap.fill(heading, int(13 * figure.get_figwidth())), fontsize=10)
    sign(figure, label)
    if len(figure.axes) == 1:
        figure.draw_without_rendering()
        box, half = figure.axes[0].get_position(), above.get_window_extent().width / figure.bbox.width / 2 + 0.005
        above.set_x(round(min(max((box.x0 + box.x1) / 2, half), 1 - half), 3))  # the last digits: see ``settle``
    return figure


def show(panel: Axes, pixels: np.ndarray, title: str = "", **options) -> None:
    """One image in one panel, its pixels as they are, without ticks."""
    panel.imshow(pixels, interpolation="nearest", **options)
    panel.set(xticks=[], yticks=[])
    panel.set_title(title, fontsize=8)
    for spine in panel.spines.values():
        spine.set_visible(False)


def patch_grid(
    images: list[np.ndarray], titles: list[str], heading: str, label: str, columns: int = 8, side: float = 1.2
) -> Figure:
    """Images row by row, each under its title; ``side`` is a panel's width in inches."""
    if not images or len(images) != len(titles):
        raise ValueError(f"{len(images)} images and {len(titles)} titles; one title an image, one image at least")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    height = side * min(1, max(image.shape[0] / image.shape[1] for image in images))  # less where all are wide
    figure = plt.figure(figsize=(max(side * columns, NARROWEST), (height + 0.2) * rows + 0.5), layout="constrained")
    for i, (image, title) in enumerate(zip(images, titles, strict=True)):
        show(figure.add_subplot(rows, columns, i + 1), image, title)
    return finish(figure, heading, label)


def augmentation_grid(original: np.ndarray, augmented: dict[str, list[np.ndarray]], heading: str, label: str) -> Figure:
    """A row for each named pipeline: the original image first, then what the pipeline made of it."""
    columns = 1 + max(len(images) for images in augmented.values())
    figure, panels = plt.subplots(
        len(augmented), columns, squeeze=False, layout="constrained",
        figsize=(1.25 * columns, 1.35 * len(augmented) + 0.6),
    )  # fmt: skip
    for row, (name, images) in zip(panels, augmented.items(), strict=True):
        for i, (panel, image) in enumerate(zip(row, [original, *images], strict=False)):
            show(panel, image, "original" if i == 0 else f"draw {i}")
        row[0].set_ylabel(name, fontsize=9)
    return finish(figure, heading, label)


def class_counts(table: pd.DataFrame, heading: str, label: str) -> Figure:
    """Images of each class of a PatchTable, in label order; a panel for each split, with its own scale."""
    counts = table.groupby(["split", "label_id"]).size().unstack(fill_value=0)
    names = table.drop_duplicates("label_id").set_index("label_id")["label"]
    splits = sorted(counts.index, reverse=True)  # train above test
    figure, panels = plt.subplots(
        len(splits), 1, sharex=True, squeeze=False, layout="constrained", figsize=(8, 1.5 * len(splits) + 1.3)
    )
    for panel, split, colour in zip(panels[:, 0], splits, COLOURS, strict=False):
        panel.bar(range(counts.shape[1]), counts.loc[split], color=colour)
        panel.set_ylabel(f"images, {split}", fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
    if len(names) <= NAMED_BARS:
        panel.set_xticks(range(counts.shape[1]), [names[i] for i in counts.columns], rotation=90, fontsize=8)
    else:
        panel.set_xlabel(f"{len(names)} classes, in label order")
    return finish(figure, heading, label)


def optical_density(image: np.ndarray) -> np.ndarray:
    """−ln(I / 255) of each channel, (H, W, 3) float64; black is taken as 1 of 255, so nothing is infinite."""
    return -np.log(np.maximum(image.astype(np.float64), 1) / 255)


def density_maps(image: np.ndarray, heading: str, label: str) -> Figure:
    """A patch, and its optical density in red, green and blue light on one scale."""
    density = optical_density(image)
    figure, panels = plt.subplots(1, 4, figsize=(8, 2.6), layout="constrained")
    show(panels[0], image, "patch")
    for panel, name, values in zip(panels[1:], ("red", "green", "blue"), np.moveaxis(density, 2, 0), strict=True):
        show(panel, values, f"absorbed in {name} light", cmap="magma", vmin=0, vmax=np.quantile(density, 0.995))
    figure.colorbar(panels[3].images[0], ax=panels[1:], label="optical density", shrink=0.8)
    return finish(figure, heading, label)


def feature_maps(
    image: np.ndarray, maps: list[list[np.ndarray]], rows: list[str], columns: list[str], heading: str, label: str
) -> Figure:
    """The patch at the left, then maps (H, W) in named rows and columns, each on its own scale.

    Dark is low and yellow is high; a panel's title holds the column's name and the map's size.
    """
    height, width = 1.5 * max(len(rows), 1) + 0.8, 1.6 * (len(columns) + 1)
    figure = plt.figure(figsize=(width, height), layout="constrained")
    grid = figure.add_gridspec(len(rows), len(columns) + 1)
    show(figure.add_subplot(grid[:, 0]), image, "patch")
    for r, (row, name) in enumerate(zip(maps, rows, strict=True)):
        for c, (values, column) in enumerate(zip(row, columns, strict=True)):
            panel = figure.add_subplot(grid[r, c + 1])
            show(panel, values, f"{column}  {values.shape[0]}×{values.shape[1]}", cmap="viridis")
            panel.set_ylabel(name if c == 0 else "", fontsize=9)
    return finish(figure, heading, label)


def line_chart(
    x: np.ndarray, lines: dict[str, np.ndarray], axes: tuple[str, str], heading: str, label: str,
    log: bool = False, marks: dict[str, float] | None = None,
) -> Figure:  # fmt: skip
    """Named lines over ``x``; ``axes`` names x and y, ``marks`` names places on x (dotted lines)."""
    figure, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
    for (name, y), colour in zip(lines.items(), COLOURS, strict=False):
        ax.plot(x, y, label=name, color=colour)
    for name, at in (marks or {}).items():
        ax.axvline(at, color="0.4", linestyle=":", linewidth=1)
        ax.annotate(name, (at, 1), (4, -2), ("data", "axes fraction"), "offset points", va="top", fontsize=8)
    ax.set(xlabel=axes[0], ylabel=axes[1], xscale="log" if log else "linear")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8)
    return finish(figure, heading, label)
