"""What an archive's indices trade, in one picture, and the spectrum that lets them."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lgffem_core.report.pictures import finish
from lgffem_core.report.style import COLOURS, axes
from lgffem_core.systems.archive.comparison import FAMILIES

AREA = 0.06  # square points a byte
SIZES = (256, 1024, 4096)  # bytes a vector, of the legend
STYLES = dict(zip(("exact", *FAMILIES.values(), "other"), COLOURS, strict=False))  # family -> colour


def trade_off(table: pd.DataFrame, k: int, heading: str, label: str) -> Figure:
    """Recall@k against queries a second; area = bytes a vector, filled = ``pareto``, bars = lowest to highest rate."""
    figure, ax = axes(7.5, 5.2)
    for (name, index), rows in table.groupby(["family", "index"], sort=False):
        ax.plot(rows["recall"], rows["rate"], color=STYLES[name], linewidth=0.8, zorder=1)
        ends = np.abs(rows[["rate_low", "rate_high"]].to_numpy().T - rows["rate"].to_numpy())
        ax.errorbar(rows["recall"], rows["rate"], ends, fmt="none", color=STYLES[name], capsize=2, zorder=1)
        faces = [STYLES[name] if best else "white" for best in rows["pareto"]]
        ax.scatter(rows["recall"], rows["rate"], AREA * rows["file_bytes"], faces, edgecolors=[STYLES[name]], alpha=0.7)
        ax.scatter([], [], 30, color=[STYLES[name]], label=f"{name}: {index}")
    for size in SIZES:
        ax.scatter([], [], AREA * size, "white", edgecolors="0.4", label=f"{size:,} bytes a vector")
    ax.set(xlabel=f"recall@{k}, %", ylabel="queries a second", yscale="log")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=7, labelspacing=1.2)
    return finish(figure, heading, label)


def spectrum_figure(shares: dict[str, np.ndarray], heading: str, label: str) -> Figure:
    """Share of the variance by principal direction, both logarithmic: a power law is a straight line."""
    figure, ax = axes(6.0, 3.0)
    for (name, values), colour in zip(shares.items(), COLOURS, strict=False):
        ax.plot(np.arange(1, len(values) + 1), values, label=name, color=colour)
    ax.set(xlabel="principal direction", ylabel="share of variance", xscale="log", yscale="log", ylim=(1e-7, 1))
    ax.legend(frameon=False, fontsize=8)
    return finish(figure, heading, label)
