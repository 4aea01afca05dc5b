"""Boxes and arrows with machine-readable names, on a page whose coordinates are inches.

Every box and arrow carries its name as ``gid``, which is also its id in the SVG file: a test reads the
drawing back and compares it with what the model computes.
"""

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from lgffem_core.report.style import COLOURS, sign

PAGE = 180 / 25.4  # inches: a page's text width
SMALL, NORMAL, TITLE = 6.0, 6.5, 7.5  # points
GREY = "0.45"
AGGREGATOR_COLOURS = {"GA": COLOURS[1], "LA": COLOURS[0]}  # orange and blue: told apart by every reader
ROUND = "round,pad=0,rounding_size=0.04"


class Diagram:
    """A page ``width`` × ``height`` inches with (0, 0) at the lower left."""

    def __init__(self, width: float, height: float):
        # Not pyplot's: a drawing that is given up halfway must not stay open. At 150 dpi six points stay legible.
        self.figure = Figure(figsize=(width, height), dpi=150)
        self.ax = self.figure.add_axes((0, 0, 1, 1))
        self.ax.set(xlim=(0, width), ylim=(0, height))
        self.ax.axis("off")
        self.boxes: dict[str, FancyBboxPatch] = {}

    def text(self, x: float, y: float, words: str, gid: str | None = None, size: float = SMALL, **options) -> None:
        options = {"ha": "center", "va": "center", "color": "0.1", "linespacing": 1.15} | options
        self.ax.text(x, y, words, fontsize=size, gid=gid, zorder=4, **options)

    def box(
        self, gid: str, centre: tuple[float, float], size: tuple[float, float], words: str, fill: str = "0.95",
        line: str = "-",
    ) -> None:  # fmt: skip
        """A box with words in it; the words' gid is the box's followed by ``:text``."""
        (x, y), (width, height) = centre, size
        corner = (x - width / 2, y - height / 2)
        self.boxes[gid] = FancyBboxPatch(
            corner, width, height, boxstyle=ROUND, facecolor=fill, edgecolor="0.4", linewidth=0.7, linestyle=line,
            gid=gid, zorder=3,
        )  # fmt: skip
        self.ax.add_patch(self.boxes[gid])
        self.text(x, y, words, f"{gid}:text")

    def centre(self, gid: str) -> tuple[float, float]:
        box = self.boxes[gid]
        return box.get_x() + box.get_width() / 2, box.get_y() + box.get_height() / 2

    def arrow(self, gid: str, source: str, target: str, colour=GREY, line: str = "-", bend: float = 0) -> None:
        """From box to box, straight or bent (``bend`` as in matplotlib's arc3), clipped at both."""
        self.ax.add_patch(FancyArrowPatch(
            self.centre(source), self.centre(target), connectionstyle=f"arc3,rad={bend}", arrowstyle="-|>",
            mutation_scale=6, patchA=self.boxes[source], patchB=self.boxes[target], shrinkA=0, shrinkB=0.5,
            linewidth=1, linestyle=line, color=colour, gid=gid, zorder=2,
        ))  # fmt: skip

    def route(self, gid: str, corners: list[tuple[float, float]], colour=GREY, **options) -> None:
        """An arrow through given corners."""
        self.ax.add_patch(FancyArrowPatch(
            path=Path(corners), arrowstyle="-|>", mutation_scale=6, linewidth=0.8, color=colour, fill=False,
            joinstyle="round", gid=gid, zorder=1, **options,
        ))  # fmt: skip

    def frame(self, corner: tuple[float, float], size: tuple[float, float]) -> None:
        """A pale ground behind what belongs together."""
        self.ax.add_patch(FancyBboxPatch(
            corner, *size, boxstyle=ROUND, facecolor="0.985", edgecolor="0.8", linewidth=0.5, zorder=0
        ))  # fmt: skip

    def signed(self, label: str) -> Figure:
        figure = sign(self.figure, label)
        figure.set_layout_engine("none")  # everything here has its place; there is no grid to lay out
        return figure


def dimensions(shape: tuple[int, ...]) -> str:
    """(512, 14, 14) as ``512×14×14``."""
    return "×".join(map(str, shape))


def number(value: float) -> str:
    """Two decimals with a proper minus sign, and no minus before a zero."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def beside(start: tuple[float, float], end: tuple[float, float], bend: float, upper: bool) -> tuple[float, float, str]:
    """Where words stand that belong to an arrow, and how they are aligned.

    A bent arrow has them inside its bow, near its head; a horizontal one above (``upper``) or below; a
    vertical one at its right; any other at its upper right or lower right.
    """
    (x0, y0), (dx, dy) = start, (end[0] - start[0], end[1] - start[1])
    if bend:
        t = 0.8
        off = 2 * t * (1 - t) * bend
        side = 0.075 * (1 if bend < 0 else -1)
        return x0 + t * dx + off * dy, y0 + t * dy - off * dx + side, "center"
    x, y = x0 + dx / 2, y0 + dy / 2
    if dx == 0:
        return x + 0.05, y, "left"
    if abs(dy) < 1e-9:
        return x, y + (0.075 if upper else -0.085), "center"
    return x + 0.05, y + 0.06 * (1 if dy < 0 else -1), "left"
