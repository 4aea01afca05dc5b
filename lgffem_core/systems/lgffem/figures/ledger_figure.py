"""The ledger's effects as a picture."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lgffem_core.report.pictures import finish
from lgffem_core.report.style import COLOURS, axes
from lgffem_core.systems.lgffem.figures.ledger_table import YARDSTICK


def effect_chart(table: pd.DataFrame, protocol: str, label: str) -> Figure:
    """Δη_p of each measured row of ``ledger_table`` under one protocol, with its interval.

    The band is as wide as the effect of another seed: a trained row inside it cannot be told from luck.
    """
    rows = table[(table["protocol"] == protocol) & table["delta"].notna()]
    figure, ax = axes(6.5, 0.34 * len(rows) + 1.3)
    for seed in rows.loc[rows["row"] == YARDSTICK, "delta"].abs():
        ax.axvspan(-seed, seed, color="0.9", label=f"another seed: ±{seed:.1f}")
    delta = rows["delta"].to_numpy(float)
    ends = rows[["delta_low", "delta_high"]].to_numpy(float)
    spread = np.clip([delta - ends[:, 0], ends[:, 1] - delta], 0, None)
    ax.errorbar(delta, range(len(rows)), xerr=spread, fmt="o", color=COLOURS[0], capsize=2, markersize=4, linewidth=1)
    ax.axvline(0, color="0.5", linewidth=0.8)
    ax.set_yticks(range(len(rows)), [f"{row}  {topic}" for row, topic in zip(rows["row"], rows["topic"], strict=True)])
    ax.tick_params(labelsize=8)
    ax.set(xlabel="Δη_p in points, second value minus first (code minus text)", ylim=(len(rows) - 0.4, -0.6))
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="best", frameon=False, fontsize=8)
    return finish(figure, f"What each row of the ledger does alone, under {protocol}", label)
