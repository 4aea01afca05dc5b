"""Pictures of the baselines: what they draw, that they are signed, and the weights against autograd."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from lgffem_core.config.systems import MixedAttention
from lgffem_core.systems.baselines.barcodes import barcode
from lgffem_core.systems.baselines.figures import (
    SHOWN,
    baseline_loss,
    feature_barcode,
    mask_maps,
    pair_weight,
    pair_weights,
)
from lgffem_core.training.losses import MultiSimilarity

LABEL = "profile test: DEMO"


def drawn(figure) -> Figure:
    """The figure after layout; every picture carries its label."""
    figure.canvas.draw()
    assert any(text.get_text() == LABEL for text in figure.texts)
    return figure


@pytest.mark.parametrize("size", [20, 300])
def test_the_stripes_are_the_bits_between_the_features_above_them(size):
    features = np.random.default_rng(0).random(size).astype(np.float32)
    bits = barcode(features[None])[0]
    figure = drawn(feature_barcode(np.zeros((8, 8, 3), np.uint8), features, bits, "h", LABEL))
    _, above, below = figure.axes
    line, stripes = above.lines[0].get_ydata(), below.images[0].get_array()[0]
    assert len(stripes) == min(SHOWN, size - 1) == len(line) - 1
    np.testing.assert_array_equal(stripes == 0, line[1:] > line[:-1])
    assert f"of {size - 1} bits" in below.get_xlabel()


def test_masks_are_shown_on_one_scale_from_0_to_1():
    images, masks = [np.zeros((8, 8, 3), np.uint8)] * 2, np.random.default_rng(0).random((2, 5, 3, 3))
    figure = drawn(mask_maps(images, masks, [4, 1], "h", LABEL))
    panels = [ax for ax in figure.axes if ax.images][:8]  # without the colour bar's
    assert [ax.get_title() for ax in panels[:4]] == ["patch", "mean of 5 channels", "channel 4", "channel 1"]
    for row, mask in zip((panels[:4], panels[4:]), masks, strict=True):
        shown = [ax.images[0] for ax in row[1:]]
        assert {image.get_clim() for image in shown} == {(0, 1)}
        for image, expected in zip(shown, [sum(mask) / 5, mask[4], mask[1]], strict=True):
            np.testing.assert_allclose(image.get_array(), expected)


@pytest.mark.parametrize("similarity", [-0.9, 0.2, 0.5, 0.8])
def test_the_weights_are_the_derivatives_of_the_loss(similarity):
    """Two patches at a known angle: one pair, seen from both ends."""
    settings = MixedAttention()
    loss, none = MultiSimilarity(settings).loss, torch.zeros(2, 2)
    pair = torch.tensor([[0.0, 1], [0, 0]])
    for scale, positive in ((settings.alpha, True), (settings.beta, False)):
        S = torch.tensor([[1.0, similarity], [similarity, 1.0]], requires_grad=True)
        anchors = loss._compute_loss(S, pair, none) if positive else loss._compute_loss(S, none, pair)
        anchors["loss"]["losses"].sum().backward()
        weight = pair_weight(np.array(similarity), scale, settings.base, positive)
        assert weight == pytest.approx(abs(S.grad[0, 1].item()), rel=1e-5)


def test_the_picture_of_weights_names_the_constants():
    figure = drawn(pair_weights(MixedAttention(alpha=3), LABEL))
    (ax,) = figure.axes
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names[:2] == ["positive pair, α = 3", "negative pair, β = 5"] and "50" in names[2]
    falling, rising, steep = (line.get_ydata() for line in ax.lines[:3])
    assert (np.diff(falling) < 0).all() and (np.diff(rising) > 0).all() and np.diff(steep).max() > np.diff(rising).max()


@pytest.mark.parametrize("epochs", [1, 30])
def test_the_loss_curve_shows_every_epoch(epochs):
    history = pd.DataFrame({"epoch": range(1, epochs + 1), "loss": np.linspace(1, 0.1, epochs), "lr": 1e-3})
    figure = drawn(baseline_loss(history, LABEL))
    assert [len(ax.lines[0].get_ydata()) for ax in figure.axes] == [epochs, epochs]
    for tick in figure.axes[0].get_xticks():
        assert tick == round(tick)


def test_the_rates_of_a_step_are_read_off_plain_numbers():
    history = pd.DataFrame({"epoch": range(1, 6), "loss": 0.5, "lr": [0.05] * 4 + [0.005]})
    ax = drawn(baseline_loss(history, LABEL)).axes[1]
    low, high = ax.get_ylim()
    shown = [label.get_text() for tick, label in zip(ax.get_yticks(), ax.get_yticklabels(), strict=True)
             if low <= tick <= high]  # fmt: skip
    assert shown == ["0.005", "0.01", "0.02", "0.05"] and not any(t.get_text() for t in ax.get_yticklabels(minor=True))
