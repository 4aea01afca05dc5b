"""Pictures of training: batches, loss, schedule, margin, and what the gates have learned."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lgffem_core.config.params import Loss, Training
from lgffem_core.data.loading import PatchDataset
from lgffem_core.report.style import COLOURS, axes, sign
from lgffem_core.systems.lgffem.model import LGFFEM
from lgffem_core.training.schedule import learning_rate


def batch_strip(patches: PatchDataset, rows, epoch: int, label: str) -> Figure:
    """The images that training sees for some rows in one epoch, with the normalisation undone."""
    rows = list(rows)
    figure, panels = plt.subplots(1, len(rows), figsize=(1.3 * len(rows), 1.6), layout="constrained")
    for panel, row in zip(panels, rows, strict=True):
        image = patches[epoch, row][0].numpy().transpose(1, 2, 0) * patches.std + patches.mean
        panel.imshow(np.clip(image, 0, 1))
        panel.set_axis_off()
    return sign(figure, label)


def loss_curve(history: pd.DataFrame, strategy: str, label: str) -> Figure:
    """Mean loss and last learning rate of each epoch, side by side."""
    figure, (left, right) = axes(8, 2.8, 2)
    left.plot(history["epoch"], history["loss"], color=COLOURS[0], marker="o", markersize=3)
    left.set(xlabel="epoch", ylabel="mean loss", title=f"Strategy {strategy.upper()}: Sub-center ArcFace loss")
    right.plot(history["epoch"], history["lr"], color=COLOURS[1], marker="o", markersize=3)
    right.set(xlabel="epoch", ylabel="learning rate", title="learning rate at each epoch's last step")
    for ax in (left, right):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return sign(figure, label)


def schedule_curve(training: Training, epochs: int, label: str, steps: int = 20) -> Figure:
    """The learning rate under both schedules of ledger row 7, for ``steps`` steps an epoch."""
    figure, ax = axes()
    at = np.arange(epochs * steps)
    for name, colour in (("cosine", COLOURS[0]), ("warm_restarts", COLOURS[1])):
        rates = [
            learning_rate(s, len(at), steps, training.lr, training.lr_min, name, training.restart_epochs) for s in at
        ]
        ax.plot(at / steps, rates, label=name.replace("_", " "), color=colour)
    ax.set(xlabel="epoch", ylabel="learning rate", title="Text: one cosine; released code, if asked: warm restarts")
    ax.legend(frameon=False)
    return sign(figure, label)


def margin_curve(loss: Loss, label: str) -> Figure:
    """The own class's logit with and without the angular margin, over the angle to its nearest center."""
    figure, ax = axes()
    theta = np.linspace(0, 180, 361)
    ax.plot(theta, loss.scale * np.cos(np.radians(theta)), color="0.5", label="s·cos θ (other classes)")
    shifted = theta[theta <= 180 - loss.margin]
    own = loss.scale * np.cos(np.radians(shifted + loss.margin))
    ax.plot(shifted, own, color=COLOURS[0], label="s·cos(θ + m) (own class)")
    ax.set(xlabel="angle θ to the center, degrees", ylabel="logit", title=f"m = {loss.margin}°, s = {loss.scale:g}")
    ax.legend(frameon=False)
    return sign(figure, label)


def gate_table(model: LGFFEM) -> pd.DataFrame:
    """Every term of equation 6 in every layer: its fusion weight and its α, as they stand in the model."""
    rows = []
    for number, layer in enumerate(model.neck.layers, start=1):
        for name, node in layer.nodes.items():
            for term, aggregator, weight in zip(node.terms, node.aggregators, node.weights, strict=True):
                gates = (weight.item(), aggregator.alpha.item())
                rows.append((number, name, f"{term.aggregator}({term.source})", *gates))
    return pd.DataFrame(rows, columns=["layer", "node", "term", "weight", "alpha"])


def gate_maps(gates: pd.DataFrame, label: str) -> Figure:
    """Fusion weights and α of every term (rows) in every layer (columns)."""
    figure, both = axes(9, 4.6, 2)
    gates = gates.assign(row=gates["node"] + ":  " + gates["term"])
    for ax, column, centre in zip(both, ("weight", "alpha"), (1.0, 0.0), strict=True):
        grid = gates.pivot(index="row", columns="layer", values=column).reindex(gates["row"].unique())
        sns.heatmap(grid, ax=ax, cmap="vlag", center=centre, annot=True, fmt=".2f", annot_kws={"size": 7}, cbar=False)
        ax.set(title="fusion weight (1 at the start)" if column == "weight" else "α (0 at the start)", ylabel="")
        ax.tick_params(labelsize=7)
    return sign(figure, label)
