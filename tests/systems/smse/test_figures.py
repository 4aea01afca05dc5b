"""SMSE's pictures: what they draw is what the losses and the answers are."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgba
from matplotlib.layout_engine import ConstrainedLayoutEngine

from lgffem_core.report.style import save_figure
from lgffem_core.systems.smse.figures import (
    loss_figure,
    magnification_figure,
    projection_figure,
    three_losses,
    value_and_gradient,
)
from lgffem_core.systems.smse.runs import runs
from lgffem_core.systems.smse.training import JointLoss

EVERY = (40, 100, 200, 400)


@pytest.mark.parametrize("logit", [False, True])
def test_gradients_are_slopes_of_the_values(smse, logit):
    at = np.linspace(-3, 3, 13) if logit else np.linspace(0.05, 0.95, 13)
    for loss in three_losses(smse()).values():
        values = [value_and_gradient(loss, at + step, logit)[0] for step in (1e-6, -1e-6)]
        slopes = np.abs(values[0] - values[1]) / 2e-6
        np.testing.assert_allclose(value_and_gradient(loss, at, logit)[1], slopes, atol=1e-6)


def test_the_losses_are_drawn_in_both_spaces_and_the_peak_is_marked(smse):
    figure = loss_figure(smse(smse__gamma_pair=1.7))
    panels = figure.axes
    assert len(panels) == 4 and all(len(panel.lines) >= 3 for panel in panels)
    reinforced, mark = panels[3].lines[2], panels[3].lines[3]
    peak = reinforced.get_xdata()[reinforced.get_ydata().argmax()]
    assert peak == pytest.approx(mark.get_xdata()[0], abs=0.02) == pytest.approx(np.log(1 / 1.7), abs=0.02)


def test_the_reinforced_loss_is_drawn_as_the_first_training_has_it(smse):
    study = smse(smse__gamma_pair=1.7, smse__gamma_triplet=0.9, smse__alpha=3)
    name, drawn = [*three_losses(study).items()][2]
    trained = JointLoss(study, next(iter(runs(study).values())), torch.tensor([0, 1])).classification
    logits = torch.tensor([[0.0, 0.4], [0.0, -2.0]])
    p = (logits[:, 1] - logits[:, 0]).sigmoid()
    assert "γ = 1.7, α = 3, β = ½" in name and trained(logits, torch.tensor([1, 1])).item() == pytest.approx(
        drawn(p).mean().item()
    )


def test_the_losses_are_the_same_file_however_their_layout_was_solved(smse, tmp_path, monkeypatch):
    """The solver's last digit follows addresses in memory; here a line at 187.8990625 points was written up or down.

    By itself it does so in some drawings only; here the last digits are moved behind the solver, which takes two.
    """
    study, solve = smse(), ConstrainedLayoutEngine.execute
    for towards in (0, 1):

        def moved(engine, figure, towards=towards):
            solve(engine, figure)
            for ax in figure.axes:
                place = np.array(ax.get_position(original=True).bounds)
                for _ in range(4):
                    place = np.nextafter(place, towards)
                ax._set_position(place)  # as the solver does: in the layout still

        monkeypatch.setattr(ConstrainedLayoutEngine, "execute", moved)
        save_figure(loss_figure(study), tmp_path / str(towards))
    assert (tmp_path / "0.svg").read_bytes() == (tmp_path / "1.svg").read_bytes()


def test_hard_samples_are_the_same_in_both_spaces(smse):
    figure = loss_figure(smse())
    ends = []
    for panel in figure.axes[2:]:
        (area,) = (patch.get_extents().transformed(panel.transData.inverted()) for patch in panel.patches)
        ends.append(area.x1)
        assert area.x0 == pytest.approx(panel.lines[0].get_xdata()[0])
    assert ends == pytest.approx([0.25, np.log(1 / 3)]) and 1 / (1 + np.exp(-ends[1])) == pytest.approx(ends[0])


def answers_of(share, seed):
    rng = np.random.default_rng(seed)
    rows = [
        (f"p{p}", zoom, "benign" if p % 3 else "malignant", float(rng.random() < share))
        for p in range(12)
        for zoom in EVERY
    ]
    return pd.DataFrame(rows, columns=["group", "magnification", "label", "right"])


def test_magnifications_that_were_not_seen_are_hollow(smse):
    study = smse()
    every = runs(study)
    found = {name: answers_of(0.8, number) for number, name in enumerate(every)}
    (panel,) = magnification_figure(study, every, found).axes
    drawn = panel.collections[1::2]
    hollow = [[tuple(face) == to_rgba("white") for face in marks.get_facecolors()] for marks in drawn]
    assert hollow == [[False] * 4, [False, False, True, False], [False, True, True, True]]
    np.testing.assert_allclose(
        drawn[0].get_offsets()[:, 1],
        [100 * found["pair"].query("magnification == @zoom")["right"].mean() for zoom in EVERY],
    )


def test_a_map_is_straight_and_says_how_much_it_shows():
    rows = pd.DataFrame({"label": ["benign", "malignant"] * 20, "magnification": [40, 40, 100, 100] * 10})
    flat = np.random.default_rng(0).standard_normal((40, 2)) @ np.random.default_rng(1).standard_normal((2, 6))
    figure = projection_figure(
        {"flat": flat, "round": np.random.default_rng(2).standard_normal((40, 6))}, rows, "label"
    )
    titles = [panel.get_title() for panel in figure.axes]
    assert titles[0] == "flat, 100 %" and titles[1].startswith("round, ") and titles[2:] == ["", ""]
    assert [len(panel.collections) for panel in figure.axes] == [2, 2, 2, 2]
    zooms = [sum(marks.get_facecolors()[0][:3]) for marks in figure.axes[2].collections]
    assert zooms[1] > zooms[0] + 1  # lighter, and far from alike
