"""Pictures of training show the numbers they were given."""

import numpy as np
import pandas as pd
import pytest
import torch

from lgffem_core.config.params import Loss, Strategy, Training
from lgffem_core.systems.lgffem.figures import training_figures as figures
from lgffem_core.systems.lgffem.head import GeMHead
from lgffem_core.systems.lgffem.model import LGFFEM
from lgffem_core.systems.lgffem.neck import NODES, Neck


def face(figure):
    return " ".join(text.get_text() for text in figure.texts)


def test_loss_curve_draws_both_columns():
    history = pd.DataFrame({"epoch": [1, 2, 3], "loss": [3.0, 2.0, 1.5], "lr": [5e-3, 1e-3, 8e-5]})
    figure = figures.loss_curve(history, "b", "DEMO")
    left, right = figure.axes
    np.testing.assert_array_equal(left.lines[0].get_ydata(), history["loss"])
    np.testing.assert_array_equal(right.lines[0].get_ydata(), history["lr"])
    assert "DEMO" in face(figure) and "Strategy B" in left.get_title()
    assert all(tick == round(tick) for ax in figure.axes for tick in ax.get_xticks())  # of an epoch there is no half


def test_schedule_curve_draws_both_schedules():
    figure = figures.schedule_curve(Training(a=Strategy(epochs=6)), 6, "DEMO", steps=10)
    cosine, restarts = figure.axes[0].lines
    assert cosine.get_ydata()[-1] == pytest.approx(8e-5)
    assert restarts.get_ydata()[30] == pytest.approx(5e-3)  # a restart after 3 epochs


def test_margin_curve_lies_below_the_plain_cosine():
    figure = figures.margin_curve(Loss(), "DEMO")
    plain, shifted = figure.axes[0].lines
    n = len(shifted.get_xdata())
    assert (shifted.get_ydata() < plain.get_ydata()[:n]).all()
    assert plain.get_ydata()[0] == pytest.approx(64)


@pytest.fixture
def model():
    backbone = torch.nn.Identity()
    return LGFFEM(backbone, Neck([4, 8, 8, 8], 8, 2), GeMHead(8), normalize=True)


def test_gate_table_reads_the_model(model):
    with torch.no_grad():
        model.neck.layers[1].nodes["P2_2"].weights[2] = 3.5
        model.neck.layers[0].nodes["P4_2"].aggregators[1].alpha.fill_(-0.25)
    gates = figures.gate_table(model)
    assert len(gates) == 2 * sum(map(len, NODES.values()))
    changed = gates.query("weight != 1")
    assert changed[["layer", "node", "term", "weight"]].values.tolist() == [[2, "P2_2", "GA(P1_2)", 3.5]]
    assert gates.query("alpha != 0")[["layer", "node", "term", "alpha"]].values.tolist() == [
        [1, "P4_2", "GA(P3_2)", -0.25]
    ]


def test_gate_maps_have_a_row_a_term_and_a_column_a_layer(model):
    figure = figures.gate_maps(figures.gate_table(model), "DEMO")
    for ax in figure.axes:
        assert len(ax.get_yticklabels()) == 14 and len(ax.get_xticklabels()) == 2
    assert "DEMO" in face(figure)


class Patches:
    """Stands in for a data set: one constant image a row, in normalised values."""

    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

    def __getitem__(self, key):
        _, row = key
        return torch.full((3, 4, 4), float(row)), 0, row


def test_batch_strip_undoes_the_normalisation():
    figure = figures.batch_strip(Patches(), rows=[0, 1], epoch=0, label="DEMO")
    first, second = (ax.images[0].get_array() for ax in figure.axes)
    assert np.allclose(first, 0.5) and np.allclose(second, 0.75)
