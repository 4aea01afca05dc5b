"""What all pictures share: colours that every reader can tell apart, and the line that names the data."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from IPython import get_ipython
from IPython.core.pylabtools import select_figure_formats
from matplotlib.figure import Figure

from lgffem_core.base.files import atomic_path

plt.rcdefaults()  # a matplotlibrc of the user's would make other pictures
COLOURS = sns.color_palette("colorblind")
FOOT = 0.16  # inches kept free for that line
RIGHT, WRONG = COLOURS[0], COLOURS[3]  # blue and vermilion: told apart by every reader

if shell := get_ipython():  # Jupyter itself sees to this only once pyplot makes a figure, and ours need not be pyplot's
    select_figure_formats(shell, {"png"}, bbox_inches="tight")


def sign(figure: Figure, label: str) -> Figure:
    """Write at a figure's foot which data it is from, and close it, so that a notebook shows it once."""
    foot = FOOT / figure.get_figheight()
    figure.set_layout_engine("constrained", rect=(0, foot, 1, 1 - foot))
    figure.text(0.995, 0.005, label, ha="right", va="bottom", fontsize=7, color="0.4")
    plt.close(figure)
    return figure


def axes(width: float = 6.0, height: float = 3.2, columns: int = 1):
    """A figure with ``columns`` axes side by side, without upper and right spines."""
    figure, ax = plt.subplots(1, columns, figsize=(width, height), layout="constrained")
    sns.despine(figure)
    return figure, ax


def save_figure(figure: Figure, path: Path) -> None:
    """Write ``path``.png (200 dots an inch) and ``path``.svg; the same figure gives the same bytes."""
    settle(figure)
    with plt.rc_context({"svg.hashsalt": "lgffem"}):
        with atomic_path(path.with_suffix(".png")) as temporary:
            figure.savefig(temporary, dpi=200, metadata={"Software": None})
        with atomic_path(path.with_suffix(".svg")) as temporary:
            figure.savefig(temporary, metadata={"Date": None})


def settle(figure: Figure) -> None:
    """Lay ``figure`` out once and for all, its axes at places of six decimals of its width and height.

    The solver of the layout leaves the last digit to the addresses its variables happen to have in memory. From there
    it would get into coordinates, into the points that are drawn of a curve and into the names of clip paths.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for ax in figure.axes:
        ax.set_position(np.round(ax.get_position(original=True).bounds, 6))
