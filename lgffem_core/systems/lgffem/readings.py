"""The paper's readings of its heat maps, node by node (section 4.2.2), held against a structure whose place is known.

The paper read the maps of one image, whose tissue is named by a preliminary clinical analysis. Here a node *finds* the
planted structure where its hottest points lie on it more often than chance, at 0.05 after Holm's correction for all
nodes of the model.
"""

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from lgffem_core.retrieval.comparison import holm
from lgffem_core.systems.lgffem.explain import Node
from lgffem_core.systems.lgffem.neck import OUTPUTS
from lgffem_core.systems.lgffem.sanity import hits

FINDS, NOTHING = "finds it", "finds nothing"
TISSUE, PARTLY, SLOW = "parts of the tissue, no structure", "finds one of two", "fuses with delay"
#: What the paper says of P1_2 to P4_2 in each layer. Only ``FINDS`` and ``NOTHING`` can be held against a count; the
#: others leave it undecided.
LAYERS = {
    1: (NOTHING, NOTHING, TISSUE, TISSUE),
    2: (NOTHING, NOTHING, FINDS, PARTLY),
    3: (SLOW, SLOW, SLOW, FINDS),
}
PAPER: dict[Node, str] = {
    (layer, node): said for layer, row in LAYERS.items() for node, said in zip(OUTPUTS, row, strict=True)
}


def readings_table(
    trained: dict[Node, np.ndarray], untrained: dict[Node, np.ndarray], masks: np.ndarray
) -> pd.DataFrame:
    """A row for each fused node: how often its hottest point lies on the structure, and what the paper says of it.

    Args:
        trained, untrained: (layer, node) -> maps (N, S, S) of a trained model and of one with random weights; maps of
            other names, such as the collapse, are left out.
        masks: (N, S, S) bool, where the structure lies.

    ``share`` (of patches), its 95 % interval ``low`` to ``high`` (exact), and ``chance`` are fractions.
    """
    rows = []
    for layer, node in sorted(key for key in trained if key[1] in OUTPUTS):
        found, plain = hits(trained[layer, node], masks), hits(untrained[layer, node], masks)
        interval = binomtest(found.found, found.patches).proportion_ci(0.95, "exact")
        rows.append(
            {"layer": layer, "node": node, "found": found.found, "patches": found.patches}
            | {"share": found.found / found.patches, "low": interval.low, "high": interval.high}
            | {"chance": found.chance, "untrained": plain.found / plain.patches, "p_value": found.p_value}
        )
    table = pd.DataFrame(rows)
    table["p_value"] = holm(table["p_value"])
    table["here"] = np.where(table["p_value"] < 0.05, FINDS, NOTHING)
    table["paper"] = [PAPER.get(key, "") for key in zip(table["layer"], table["node"], strict=True)]
    decided = table["paper"].isin([FINDS, NOTHING])
    table["agrees"] = np.where(decided, np.where(table["paper"] == table["here"], "yes", "no"), "")
    return table


def number(count: int, one: str, many: str) -> str:
    """A count and its words: 1 node, 2 nodes."""
    return f"{count} {one if count == 1 else many}"


def readings_sentences(table: pd.DataFrame) -> list[str]:
    """Plainly, whether the paper's readings hold for the model that ``readings_table`` looked at."""
    decided, layers = table[table["agrees"] != ""], int(table["layer"].max())
    agrees, finds = decided["agrees"] == "yes", decided["paper"] == FINDS
    verdict = "hold" if agrees.all() else "hold in part" if agrees.any() else "do not hold"
    counts = []
    if finds.any():
        of = number(finds.sum(), "node that finds", "nodes that find")
        here = number((agrees & finds).sum(), "does", "do")
        counts.append(f"of the {of} a structure according to the paper, {here} here")
    if not finds.all():
        of = number((~finds).sum(), "node that finds", "nodes that find")
        here = number((agrees & ~finds).sum(), "finds", "find")
        counts.append(f"of the {of} nothing according to the paper, {here} no more here than by chance")
    told = f"as far as {table['patches'].max()} patches tell"
    lines = [f"On this run the paper's readings {verdict}: {'; '.join(counts)}, {told}."]
    lines += [
        f"Layer {row.layer}, {row.node}: the paper says {row.paper!r}, here {row.found} of {row.patches} hottest "
        f"points lie on the structure, {row.chance * row.patches:.1f} expected by chance (p = {row.p_value:.2g})."
        for row in decided[decided["agrees"] == "no"].itertuples()
    ]
    absent = [str(layer) for layer in sorted({layer for layer, _ in PAPER}) if layer > layers]
    if absent:
        lines.append(
            f"This model has {layers} neck layer{'s' * (layers > 1)}: what the paper says of layer "
            f"{' and '.join(absent)} cannot be checked."
        )
    return lines
