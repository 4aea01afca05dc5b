"""The ledger of text against code as a table and a picture: both readings of each row, what switching it alone does."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lgffem_core.config.study import Study
from lgffem_core.report.pictures import finish
from lgffem_core.report.style import COLOURS, axes
from lgffem_core.report.tables import DECIMALS
from lgffem_core.retrieval.comparison import holm
from lgffem_core.retrieval.statistics import BCA, WIDTHLESS, chance_reach
from lgffem_core.systems.lgffem.ledger import Effect, Row, measure, not_measured, paired_difference, read_ledger

COLUMNS = [
    "row", "kind", "topic", "text", "code", "switch", "protocol", "eta_p_text", "eta_p_code", "delta", "delta_low",
    "delta_high", "p_holm", "note", "settles",
]  # fmt: skip
YARDSTICK = 15  # the row whose two readings are two seeds
SURE = 0.05  # a larger p_holm is noted
LEDGER_NOTE = (
    "kind: disagreement of text and code; silence of the text; ambiguous, where the text can be read both ways; "
    "observation, where nothing differs. Percent; delta: eta_p with the code's value minus eta_p with the text's (or "
    "as `switch` says in brackets), in points, one training of a few epochs each; delta_low, delta_high: 95 % interval "
    f"({BCA}) over test patches, or over scans where `released` is involved; p_holm: by McNemar's test of patches, or "
    "by flipping the signs of scans' differences, corrected by Holm for the rows of a protocol. Interval and p speak "
    "of these two trainings only: row 15, another seed, shows what chance in training does, by one pair of seeds. As "
    "that pair may happen to score alike, its reach is its delta or half the width of its interval, whichever is more. "
    "note: whether a row's delta is larger than that reach, and what speaks against it all the same; `further than "
    "another seed` alone: it is larger, the interval leaves out 0, and p_holm is 0.05 or less; `one set of weights`: "
    f"no training differs, so that no seed can. {WIDTHLESS}"
)


def ledger_table(study: Study) -> pd.DataFrame:
    """A line for each row and protocol, or one without numbers where a row is not measured, in the rows' order.

    Trains what is not trained yet. ``note`` says why a row is not measured, that both readings share one set of
    weights, or how a row stands to what another seed does (``with_yardstick``).
    """
    rows = read_ledger()
    effects = {row.row: measure(study, row) for row in rows if not not_measured(study, row)}
    lines = []
    for row in rows:
        if row.row in effects:
            lines += [measured_line(study, effect) for effect in effects[row.row]]
        else:
            lines.append(words(row) | {"protocol": "", "note": f"not measured: {not_measured(study, row)}"})
    table = pd.DataFrame(lines, columns=[*COLUMNS, "family"])
    table["p_holm"] = table.groupby("family")["p_holm"].transform(lambda p: holm(p.to_numpy()))
    return with_yardstick(table[COLUMNS]).round(
        {name: DECIMALS for name in COLUMNS if name.startswith(("eta", "delta"))}
    )


def words(row: Row) -> dict:
    """The cells of a row that are known without measuring."""
    pairs = (row.switch or {}).items()
    switch = "; ".join(f"{key}: {shown(text)} -> {shown(code)}" for key, (text, code) in pairs)
    known = {name: getattr(row, name) for name in ("row", "kind", "topic", "text", "code", "settles")}
    return known | {"switch": f"{switch} ({row.sides})" if row.sides else switch}


def shown(value) -> str:
    """A parameter's value as a profile writes it."""
    named = {None: "null", True: "true", False: "false"} if value is None or isinstance(value, bool) else {}
    if isinstance(value, list):
        return f"[{', '.join(dict.fromkeys(map(shown, value)))}]"
    return named.get(value, str(value))


def measured_line(study: Study, effect: Effect) -> dict:
    """The cells of one effect; ``p_holm`` still holds the unadjusted p, and ``family`` what it is adjusted within."""
    found = paired_difference(effect.text, effect.code, study.params.retrieval.bootstrap)
    before, after = effect.text_protocol, effect.code_protocol
    return words(effect.row) | {
        "protocol": before if before == after else f"{before} -> {after}",
        "eta_p_text": effect.text.scores.eta_p,
        "eta_p_code": effect.code.scores.eta_p,
        "p_holm": found.p,
        "family": after,
        "note": "" if effect.row.trains else "one set of weights",
        **found._asdict(),
    }


def with_yardstick(table: pd.DataFrame) -> pd.DataFrame:
    """``table`` with a note on each trained row: whether it moves a score further than the seed does, and surely."""
    limit = table["protocol"].map(seed_reach(table))
    size, trained = table["delta"].abs(), (table["note"] == "") & (table["row"] != YARDSTICK)
    zero = (table["delta_low"] <= 0) & (table["delta_high"] >= 0)
    notes = {
        "the yardstick": table["row"] == YARDSTICK,
        "no further than another seed": trained & (size <= limit),
        "further than another seed, but the interval includes 0": trained & zero,
        f"further than another seed, but p_holm is above {SURE}": trained & (table["p_holm"] > SURE),
        "further than another seed": trained,
    }  # the first that is true
    return table.assign(note=np.select(list(notes.values()), list(notes), table["note"]))


def seed_reach(table: pd.DataFrame) -> pd.Series:
    """Protocol -> how far another seed may move its score, in points (``chance_reach`` of row 15)."""
    seed = table[table["row"] == YARDSTICK].set_index("protocol")
    return chance_reach(seed["delta"], seed["delta_low"], seed["delta_high"])


def effect_chart(table: pd.DataFrame, protocol: str, label: str) -> Figure:
    """Δη_p of each measured row of ``ledger_table`` under one protocol, with its interval.

    The band reaches as far as another seed may (``seed_reach``): a trained row inside it cannot be told from luck.
    """
    rows = table[(table["protocol"] == protocol) & table["delta"].notna()]
    figure, ax = axes(6.5, 0.34 * len(rows) + 1.3)
    for reach in seed_reach(rows):
        ax.axvspan(-reach, reach, color="0.9", label=f"reach of another seed: ±{reach:.1f}")
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
