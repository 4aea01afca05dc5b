"""Pictures of the baselines: features and their barcode, the attention mask, what the multi-similarity loss weighs."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from lgffem_core.config.systems import MixedAttention
from lgffem_core.report.pictures import finish, show
from lgffem_core.report.style import COLOURS, axes

LIBRARY_BETA = 50.0  # what pytorch-metric-learning takes unless told otherwise
SHOWN = 64  # bits of a barcode drawn one by one: more could not be told apart


def feature_barcode(image: np.ndarray, features: np.ndarray, bits: np.ndarray, heading: str, label: str) -> Figure:
    """A patch, its first features as a line, and the bits between them as black and white stripes.

    Args:
        image: uint8 (H, W, 3) RGB.
        features: (D,) of the patch, bits: (D − 1,) of 0 and 1.
    """
    shown = min(SHOWN, len(bits))
    figure = plt.figure(figsize=(8, 2.9), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(1, 3), height_ratios=(3, 1))
    show(figure.add_subplot(grid[:, 0]), image, "patch")
    above = figure.add_subplot(grid[0, 1])
    above.plot(np.arange(shown + 1), features[: shown + 1], color=COLOURS[0], marker="o", markersize=2.5, linewidth=1)
    above.set(xlim=(0, shown), ylabel="feature", xticks=[])
    above.spines[["top", "right"]].set_visible(False)
    below = figure.add_subplot(grid[1, 1])
    below.imshow(1 - bits[None, :shown], cmap="gray", vmin=0, vmax=1, aspect="auto", extent=(0, shown, 0, 1))
    below.set(yticks=[], xlabel=f"the first {shown} of {len(bits)} bits: black where the next feature is greater")
    return finish(figure, heading, label)


def mask_maps(images: list[np.ndarray], masks: np.ndarray, channels: list[int], heading: str, label: str) -> Figure:
    """A row for each patch: the patch, its mask averaged over channels, and single channels, on one colour scale.

    Args:
        images: of N patches, uint8 (S, S, 3) RGB, as the network saw them.
        masks: (N, C, H, W), values in (0, 1).
        channels: which of the C to show.
    """
    rows, columns = len(images), 2 + len(channels)
    figure, panels = plt.subplots(
        rows, columns, squeeze=False, figsize=(1.5 * columns + 0.8, 1.6 * rows + 0.8), layout="constrained"
    )
    for row, image, mask in zip(panels, images, masks, strict=True):
        show(row[0], image)
        for panel, values in zip(row[1:], [mask.mean(axis=0), *mask[channels]], strict=True):
            show(panel, values, cmap="viridis", vmin=0, vmax=1)
    titles = ["patch", f"mean of {masks.shape[1]} channels", *(f"channel {channel}" for channel in channels)]
    for panel, title in zip(panels[0], titles, strict=True):
        panel.set_title(title, fontsize=8)
    figure.colorbar(panels[0, 1].images[0], ax=panels, label="mask", shrink=0.8)
    return finish(figure, heading, label)


def pair_weight(similarity: np.ndarray, scale: float, base: float, positive: bool) -> np.ndarray:
    """How much the loss of an anchor with one such pair changes with that pair's similarity, in absolute value.

    The derivative of 1/α·log(1 + exp(−α(S − λ))) for a positive pair, with +β for a negative one: a logistic
    curve of steepness ``scale`` (α or β) around ``base`` (λ).
    """
    return 1 / (1 + np.exp((1 if positive else -1) * scale * (similarity - base)))


def pair_weights(settings: MixedAttention, label: str) -> Figure:
    """The weight of a positive and of a negative pair over their cosine similarity, with the library's β beside."""
    figure, ax = axes(8, 3)
    similarity = np.linspace(-1, 1, 401)
    for name, scale, positive, style, colour in (
        (f"positive pair, α = {settings.alpha:g}", settings.alpha, True, "-", COLOURS[0]),
        (f"negative pair, β = {settings.beta:g}", settings.beta, False, "-", COLOURS[3]),
        (f"negative pair, the library's β = {LIBRARY_BETA:g}", LIBRARY_BETA, False, ":", COLOURS[3]),
    ):
        ax.plot(similarity, pair_weight(similarity, scale, settings.base, positive), style, label=name, color=colour)
    ax.axvline(settings.base, color="0.6", linewidth=1, linestyle="--")
    ax.annotate(f"λ = {settings.base:g}", (settings.base, 0), (4, 2), "data", "offset points", fontsize=8)
    ax.set(xlabel="cosine similarity S of the pair", ylabel="|∂ loss / ∂S|", ylim=(0, 1.05))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    return finish(figure, "What one pair weighs: far positives pull, near negatives push", label)


def baseline_loss(history: pd.DataFrame, label: str) -> Figure:
    """Mean multi-similarity loss and learning rate of each epoch, side by side."""
    figure, (left, right) = axes(8, 2.8, 2)
    left.plot(history["epoch"], history["loss"], color=COLOURS[0], marker="o", markersize=3)
    left.set(xlabel="epoch", ylabel="mean loss", ylim=(0, None))
    right.plot(history["epoch"], history["lr"], color=COLOURS[1], marker="o", markersize=3)
    right.set(xlabel="epoch", ylabel="learning rate", yscale="log")
    right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    right.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    right.yaxis.set_minor_formatter(NullFormatter())
    for ax in (left, right):
        ax.set_xlim(0.5, len(history) + 0.5)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return finish(figure, "MA + MS-loss: multi-similarity loss, and the steps of its learning rate", label)
