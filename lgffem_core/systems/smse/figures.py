"""Pictures of SMSE: the losses and their gradients, accuracy by magnification, and the embeddings in the plane."""

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from sklearn.decomposition import PCA

from lgffem_core.config.study import Study
from lgffem_core.report.pictures import finish
from lgffem_core.report.style import COLOURS, axes
from lgffem_core.systems.smse.evaluation import rate
from lgffem_core.systems.smse.losses import cross_entropy, focal, reinforced_focal
from lgffem_core.systems.smse.runs import Run, first_run, seen_words

Loss = Callable[[torch.Tensor], torch.Tensor]
HARD = 0.25  # samples whose own class has less probability than this are called hard in the figure


def gamma_of(study: Study) -> float:
    """The exponent of the reinforced focal loss in the first training."""
    return first_run(study).gamma(study.params.smse)


def three_losses(study: Study) -> dict[str, Loss]:
    """Name -> loss of the probability p, as the study's first training has it, with a class weight of ½."""
    settings = study.params.smse
    gamma, alpha, gamma_focal = gamma_of(study), settings.alpha, settings.gamma_focal
    return {
        "cross-entropy": cross_entropy,
        f"focal, γ = {gamma_focal:g}": lambda p: focal(p, gamma_focal),
        f"reinforced focal, γ = {gamma:g}, α = {alpha:g}, β = ½": lambda p: reinforced_focal(p, gamma, alpha, 0.5),
    }


def value_and_gradient(loss: Loss, at: np.ndarray, logit: bool) -> tuple[np.ndarray, np.ndarray]:
    """A loss and the size of its gradient: in p, or in the logit z with p = σ(z), the margin of the own class."""
    place = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    value = loss(place.sigmoid() if logit else place)
    value.sum().backward()
    return value.detach().numpy(), place.grad.abs().numpy()


def loss_figure(study: Study) -> Figure:
    """Value (above) and gradient (below) over the probability (left) and over the logit (right); grey: p < ``HARD``."""
    losses, peak = three_losses(study), 1 / (1 + gamma_of(study))
    figure, panels = plt.subplots(2, 2, figsize=(8.4, 5.6), layout="constrained", sharex="col")
    places = (np.linspace(0.002, 0.998, 500), np.linspace(-6, 6, 500))
    for column, at in enumerate(places):
        for (name, loss), colour in zip(losses.items(), COLOURS, strict=False):
            for panel, values in zip(panels[:, column], value_and_gradient(loss, at, column == 1), strict=True):
                panel.plot(at, values, color=colour, label=name)
        end = (HARD, np.log(HARD / (1 - HARD)))[column]  # the same samples in both spaces
        panels[1, column].axvspan(at[0], end, color="0.92", zorder=0)
        panels[1, column].annotate("hard", (at[10], 1), (0, -3), ("data", "axes fraction"), "offset points", va="top")
    panels[1, 1].axvline(np.log(peak / (1 - peak)), color="0.4", linestyle=":", linewidth=1)
    panels[0, 0].set(ylabel="loss", ylim=(0, 4), title="over the probability p")
    panels[0, 1].set(ylim=(0, 4), title="over the logit z, p = σ(z)")
    panels[1, 0].set(ylabel="size of the gradient", yscale="log", ylim=(0.03, 600), xlabel="p of the own class")
    panels[1, 1].set(ylim=(0, 1.3), xlabel="z of the own class; dotted: p = 1/(1 + γ)")
    for panel in panels.flat:
        panel.spines[["top", "right"]].set_visible(False)
        panel.title.set_fontsize(9)
    panels[0, 0].legend(loc="upper right", frameon=False, fontsize=8)
    return finish(figure, "The same three losses, and how hard each pulls", study.label)


def magnification_figure(study: Study, runs: dict[str, Run], found: dict[str, pd.DataFrame]) -> Figure:
    """Accuracy on each magnification of the trainings that differ in theirs; hollow: not seen in training."""
    figure, ax = axes(6.4, 3.9)
    every, resamples = study.params.data.breakhis.magnifications, study.params.retrieval.bootstrap
    names = [name for name in ("pair", "others", "one") if name in found]
    for number, name in enumerate(names):
        seen, colour = runs[name].magnifications, COLOURS[number]
        x = np.arange(len(every)) + 0.12 * (number - (len(names) - 1) / 2)
        rows = [rate(found[name][found[name]["magnification"] == zoom], "right", resamples) for zoom in every]
        value, low, high = np.array(rows).T
        ax.errorbar(x, value, [value - low, high - value], fmt="none", color=colour, capsize=2)
        faces = [colour if zoom in seen else "white" for zoom in every]
        ax.scatter(x, value, 34, faces, edgecolors=[colour], zorder=3)
        ax.plot([], [], "o", color=colour, label=f"trained on {seen_words(seen, every)}")
    commoner = 100 * found[names[0]].groupby("label").size().max() / len(found[names[0]])
    ax.axhline(commoner, color="0.5", linestyle="--", linewidth=1)
    place = {"xy": (0.5, commoner), "xytext": (0, -9), "textcoords": "offset points"}
    ax.annotate("always the commoner class", **place, fontsize=7, ha="center")
    ax.plot([], [], "o", color="0.4", markerfacecolor="white", label="this magnification was not seen")
    ax.set(xticks=range(len(every)), xticklabels=[f"{zoom}×" for zoom in every], ylabel="right images, %")
    ax.set(xlabel="tested on", ylim=(min(30, ax.get_ylim()[0] - 20), 103))
    ax.legend(loc="lower center", ncols=2, frameon=False, fontsize=8)
    heading = "Trained on all magnifications, on all but one, on one: 95 % intervals over patients"
    return finish(figure, heading, study.label)


def projection_figure(embedded: dict[str, np.ndarray], rows: pd.DataFrame, label: str) -> Figure:
    """Two principal components of the same images' embeddings, by method: coloured by class, and by magnification.

    The higher the magnification, the lighter its colour. A straight view, which cannot make groups that are not there;
    its title says how much of the variance it shows.
    """
    figure, panels = plt.subplots(
        2, len(embedded), figsize=(2.9 * len(embedded) + 1.2, 5.6), layout="constrained", squeeze=False
    )
    points = {}
    for name, vectors in embedded.items():
        fitted = PCA(2, svd_solver="full")
        places = fitted.fit_transform(vectors.astype(np.float64))
        points[f"{name}, {100 * fitted.explained_variance_ratio_.sum():.0f} %"] = places
    for row, column in zip(panels, ("label", "magnification"), strict=True):
        values = sorted(rows[column].unique())
        colours = COLOURS if column == "label" else plt.get_cmap("viridis")(np.linspace(0, 0.9, len(values)))
        for panel, (name, places) in zip(row, points.items(), strict=True):
            for value, colour in zip(values, colours, strict=False):
                own = (rows[column] == value).to_numpy()
                text = f"{value}×" if column == "magnification" else value
                panel.scatter(*places[own].T, s=9, color=[colour], alpha=0.75, linewidths=0, label=text)
            panel.set(xticks=[], yticks=[], title=name if column == "label" else "")
        row[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8, markerscale=1.8)
    return finish(figure, "The same tested images by each method: by class above, by magnification below", label)
