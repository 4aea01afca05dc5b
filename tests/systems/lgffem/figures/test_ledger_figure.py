"""The picture of the ledger: a point for each measured row of one protocol, and the yardstick's band."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lgffem_core.systems.lgffem.figures.ledger_figure import effect_chart

TABLE = pd.DataFrame(
    {
        "row": [2, 3, 5, 15, 2],
        "topic": ["scale", "GRN", "fusion", "seeds", "scale"],
        "protocol": ["leave_one_out"] * 4 + ["released"],
        "delta": [6.0, -1.0, np.nan, -4.5, 9.0],
        "delta_low": [2.0, -3.0, np.nan, -6.0, 8.0],
        "delta_high": [9.0, 2.0, np.nan, -1.0, 9.5],
    }
)


def test_measured_rows_of_the_protocol_stand_in_order_with_their_intervals():
    figure = effect_chart(TABLE, "leave_one_out", "label")
    (ax,) = figure.axes
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["2  scale", "3  GRN", "15  seeds"]
    (points,) = [line for line in ax.lines if line.get_marker() == "o"]
    assert points.get_xdata().tolist() == [6, -1, -4.5] and points.get_ydata().tolist() == [0, 1, 2]
    segments = [segment[:, 0].tolist() for line in ax.collections for segment in line.get_segments()]
    assert segments == [[2, 9], [-3, 2], [-6, -1]]
    assert "label" in [text.get_text() for text in figure.texts] and plt.get_fignums() == []


def test_the_band_is_as_wide_as_the_effect_of_another_seed():
    (band,) = effect_chart(TABLE, "leave_one_out", "label").axes[0].patches
    assert (band.get_x(), band.get_x() + band.get_width()) == (-4.5, 4.5)
    assert not effect_chart(TABLE, "released", "label").axes[0].patches
