"""Pictures of slides in record form, of what anchors see, and of what the four tasks score."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Patch

from lgffem_core.data.records import Record
from lgffem_core.report.pictures import finish
from lgffem_core.report.style import COLOURS, RIGHT, WRONG, axes
from lgffem_core.retrieval.statistics import chance_reach
from lgffem_core.systems.fgcr.comparison import MEASURED
from lgffem_core.systems.fgcr.scoring import CLASS, TASKS

STROMA = (0.88, 0.88, 0.88)
WIDTH, LINES = 27, 10  # of a report, in characters and lines: what its frame holds
HATCHES = ("//", "\\\\")  # of bands, which may overlap
PALETTE = [*COLOURS[:7], COLOURS[8], COLOURS[9]]  # the eighth is grey, as stroma is

Colours = dict[str, tuple]


def palette(records: list[Record]) -> Colours:
    """Finding -> colour, of all findings that some patch of an archive's records shows."""
    shown = {r.prompts[row] for r in records if r.findings is not None for row in np.unique(r.findings) if row >= 0}
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(sorted(shown))}


def cells(record: Record, values: np.ndarray) -> np.ndarray:
    """``values`` (N, …) of the patches as an image, NaN where there is no tissue."""
    places = np.round(record.positions - record.positions.min(axis=0)).astype(int)
    image = np.full((*(places.max(axis=0) + 1), *values.shape[1:]), np.nan)
    image[places[:, 0], places[:, 1]] = values
    return image


def draw(panel: Axes, record: Record, colours: Colours, title: str = "", frame=None) -> None:
    """A slide's patches in the colours of what they show, or, where that is not known, by their main difference."""
    if record.findings is None:
        centred = record.features.astype(np.float32) - record.features.astype(np.float32).mean(axis=0)
        panel.imshow(cells(record, centred @ np.linalg.svd(centred, full_matrices=False)[2][0]), cmap="cividis")
    else:
        shades = np.array([STROMA if row < 0 else colours[record.prompts[row]] for row in record.findings])
        image = cells(record, shades)
        panel.imshow(np.where(np.isnan(image), 1.0, image))
    panel.set(xticks=[], yticks=[])
    panel.set_title(title, fontsize=8)
    for spine in panel.spines.values():
        spine.set(visible=frame is not None, color=frame, linewidth=2.5)


def named(figure: Figure, colours: Colours) -> None:
    """What the colours mean, at the right."""
    patches = [Patch(color=colour, label=name) for name, colour in {**colours, "none of these": STROMA}.items()]
    figure.legend(handles=patches, loc="outside right upper", frameon=False, fontsize=8)


def slides_figure(records: list[Record], colours: Colours, heading: str, label: str, columns: int = 3) -> Figure:
    """Slides side by side, each under its label."""
    rows = -(-len(records) // columns)
    figure, panels = plt.subplots(
        rows, columns, squeeze=False, figsize=(2.3 * columns + 1.2, 2.4 * rows + 0.5), layout="constrained"
    )
    for panel in panels.flat:
        panel.axis("off")
    for panel, record in zip(panels.flat, records, strict=False):
        panel.axis("on")
        draw(panel, record, colours, f"{record.slide}: {record.label}")
    if colours:
        named(figure, colours)
    return finish(figure, heading, label)


def mask_figure(
    record: Record, exponent: np.ndarray, chosen: list[int], colours: Colours, heading: str, label: str
) -> Figure:
    """The slide with all anchors, then the soft mask exp(exponent) of some of them; exponent (A, N).

    A circle has the mask's standard deviation as its radius.
    """
    figure, panels = plt.subplots(1, 1 + len(chosen), figsize=(2.5 * (1 + len(chosen)), 3.0), layout="constrained")
    draw(panels[0], record, colours, "anchors")
    rows, levels = np.concatenate(record.anchors), np.repeat(record.levels, [len(level) for level in record.anchors])
    places = (record.positions - record.positions.min(axis=0))[rows]
    panels[0].scatter(places[:, 1], places[:, 0], s=12, c="black", marker="x", linewidths=1)
    for panel, anchor in zip(panels[1:], chosen, strict=True):
        shown = panel.imshow(cells(record, np.exp(exponent[anchor])), vmin=0, vmax=1, cmap="viridis")
        panel.add_patch(Circle(places[anchor][::-1], levels[anchor] ** 0.5, fill=False, color="white"))
        panel.set(xticks=[], yticks=[])
        panel.set_title(f"an anchor for {levels[anchor]} patches;\ncircle: its standard deviation", fontsize=8)
    figure.colorbar(shown, ax=panels[-1], label="soft mask", shrink=0.7)
    return finish(figure, heading, label)


def attention_figure(
    record: Record, scores: np.ndarray, exponent: np.ndarray, names: dict[str, int], colours: Colours,
    heading: str, label: str,
) -> Figure:  # fmt: skip
    """Where the anchors of a slide see each named finding, beside what is there; white dots: it is there.

    Args:
        scores: (A, P), how much each anchor looks like each prompt.
        exponent: (A, N) of the soft masks. By them the scores of the two finest levels are spread over the patches.
        names: finding -> its number among the prompts.
    """
    columns = 1 + len(names)
    figure, panels = plt.subplots(1, columns, figsize=(1.9 * columns + 1.2, 2.7), layout="constrained", squeeze=False)
    draw(panels[0, 0], record, colours, "what is there")
    fine = sum(len(level) for level in record.anchors[:2])
    weights = np.exp(exponent[:fine]) / np.exp(exponent[:fine]).sum(axis=0)
    places = record.positions - record.positions.min(axis=0)
    for panel, (name, number) in zip(panels[0, 1:], names.items(), strict=True):
        panel.imshow(cells(record, weights.T @ scores[:fine, number]), cmap="magma")
        panel.set(xticks=[], yticks=[])
        panel.set_title(name, fontsize=8)
        if record.findings is not None and name in record.prompts:
            there = places[record.findings == record.prompts.index(name)]
            panel.scatter(there[:, 1], there[:, 0], s=14, c="white", edgecolors="black", linewidths=0.5)
    if colours:
        named(figure, colours)
    return finish(figure, heading, label)


def task_chart(table: pd.DataFrame, heading: str, label: str) -> Figure:
    """R@1 at class level of each task: a group of bars a task, with intervals where there are some."""
    rows = table[table["level"] == CLASS]
    methods = list(dict.fromkeys(rows["method"]))
    figure, ax = axes(8.0, 3.4)
    width = 0.8 / len(methods)
    for i, (method, colour) in enumerate(zip(methods, COLOURS, strict=False)):
        own = rows[rows["method"] == method].set_index("task").loc[list(TASKS)]
        at = np.arange(len(own)) + (i - (len(methods) - 1) / 2) * width
        ax.bar(at, own["R@1"], width, color=colour, label=method)
        known = own["R@1_low"].notna().to_numpy()
        ends = np.abs(own[["R@1_low", "R@1_high"]].to_numpy(float).T - own["R@1"].to_numpy(float))[:, known]
        ax.errorbar(at[known], own["R@1"][known], ends, fmt="none", color="0.25", capsize=2, linewidth=1)
    ax.set(ylabel="R@1 at class level, %", ylim=(0, 105))
    ax.set_xticks(range(len(TASKS)), list(TASKS))
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return finish(figure, heading, label)


def delta_chart(table: pd.DataFrame, names: str, heading: str, label: str) -> Figure:
    """Changes of R@1 and, where there is one, of the region-level task, a row a run; bars are 95 % intervals.

    The first row is the yardstick, another seed: hatched bands in the measures' colours reach as far as it may
    (``chance_reach``). Where they overlap, both hatches show.
    """
    shown = {column: name for column, name in MEASURED.items() if column in table}
    figure, ax = axes(8.0, 0.36 * len(table) + 1.2)
    for i, ((column, name), colour, hatch) in enumerate(zip(shown.items(), COLOURS, HATCHES, strict=False)):
        at = np.arange(len(table)) + (i - (len(shown) - 1) / 2) * 0.3
        value, low, high = table[[column, f"{column}_low", f"{column}_high"]].to_numpy(float).T
        reach, edge = chance_reach(value[0], low[0], high[0]), (*colour, 0.35)
        band = {"facecolor": "none", "edgecolor": edge, "hatch": hatch, "zorder": 0, "label": f"{name}: another seed"}
        ax.axvspan(-reach, reach, **band)
        ends = np.abs([low - value, high - value])
        ax.errorbar(value, at, xerr=ends, fmt="o", color=colour, capsize=2, markersize=4, linewidth=1, label=name)
    ax.axvline(0, color="0.5", linewidth=0.8)
    ax.set_yticks(range(len(table)), table[names])
    ax.tick_params(labelsize=8)
    ax.set(xlabel="change in points", ylim=(len(table) - 0.4, -0.6))
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return finish(figure, heading, label)


def answers_figure(
    asks: list[Record], answers: list[list[Record]], searched: str, colours: Colours, heading: str, label: str
) -> Figure:
    """Queries at the left and their answers; ``searched`` "report" shows answers as text, "slide" as slides.

    Blue: the label is the query's; vermilion: it is not. The query is shown as the other kind.
    """
    columns = 1 + len(answers[0])
    figure, panels = plt.subplots(
        len(asks), columns, figsize=(2.1 * columns + 1.2, 1.8 * len(asks) + 0.6), layout="constrained", squeeze=False
    )

    def write(panel: Axes, record: Record, title: str, frame) -> None:
        text = textwrap.fill(record.report, WIDTH, max_lines=LINES, placeholder=" …")
        panel.text(0.05, 0.94, text, va="top", fontsize=8, transform=panel.transAxes)
        panel.set(xticks=[], yticks=[])
        panel.set_title(title, fontsize=8)
        for spine in panel.spines.values():
            spine.set(visible=True, color=frame, linewidth=2.5)

    for row, (query, found) in enumerate(zip(asks, answers, strict=True)):
        first = panels[row, 0]
        draw(first, query, colours, f"asked: {query.label}") if searched == "report" else write(
            first, query, f"asked: {query.label}", "0.7"
        )
        for place, (panel, record) in enumerate(zip(panels[row, 1:], found, strict=True), 1):
            frame = RIGHT if record.label == query.label else WRONG
            own = " (its own)" if record.slide == query.slide else ""
            title = f"{place}. {record.label}{own}"
            write(panel, record, title, frame) if searched == "report" else draw(panel, record, colours, title, frame)
    if colours:
        named(figure, colours)
    return finish(figure, heading, label)
