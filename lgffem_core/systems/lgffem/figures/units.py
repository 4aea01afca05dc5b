"""Figure 2: the two aggregators and the mini-head as the model has them, and the learned gates α."""

from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import nn

from lgffem_core.report.diagram import NORMAL, PAGE, TITLE, Diagram, number
from lgffem_core.systems.lgffem.figures.structure import GATE, Step, steps
from lgffem_core.systems.lgffem.model import LGFFEM

BOX, STEP = (1.2, 0.3), 0.44  # inches; a box of a flow, and from one box to the next
CENTRES = {"GA": 0.82, "LA": 2.22, "head": 3.58}  # of the three flows
TITLES = {"GA": "global aggregator (GA)", "LA": "local aggregator (LA)", "head": "mini-head"}
MAP, CELL = 5.46, (0.31, 0.24)  # left edge of the map of gates, and its cells
TOP, FOOT = 0.55, 0.3


def units_figure(model: LGFFEM, label: str) -> Figure:
    """The units as in the paper's Figure 2, at print size, and every aggregator's α with the weights of now.

    A box is one step in the order in which it is computed, with its symbol, channels in → out and class;
    dashed boxes stand only where the map is resized. Raises ``TypeError`` where a step has no box, and where
    the aggregators of one kind, or the mini-heads, differ, so that one drawing cannot show them.
    """
    aggregators = [a for layer in model.neck.layers for node in layer.nodes.values() for a in node.aggregators]
    heads = list(model.head.mini_heads)
    units = {kind: [a for a in aggregators if a.kind == kind] for kind in dict.fromkeys(a.kind for a in aggregators)}
    flows = {name: common_steps(name, some) for name, some in {**units, "head": heads}.items()}
    gates = gates_by_term(model)
    height = TOP + FOOT + max(*(len(flow) * STEP + 0.7 for flow in flows.values()), (len(gates) + 3) * CELL[1])
    page = Diagram(PAGE + max(0, len(model.neck.layers) - 5) * CELL[0], height)
    for name, flow in flows.items():
        page.text(CENTRES[name], height - 0.2, TITLES[name], size=TITLE)
        draw_flow(page, name, flow, (CENTRES[name], height - TOP))
    powers = "p of the four heads:\n" + ", ".join(f"{head.gem.p.item():.2f}" for head in heads)
    page.text(CENTRES["head"], height - TOP - (len(flows["head"]) + 1) * STEP - 0.35, powers, "head:p")
    resized = sum(not isinstance(a.resize, nn.Identity) for a in aggregators)
    note = f"dashed boxes: only in the {resized} of {len(aggregators)} aggregators that resize"
    page.text(MAP - 1.04, height - TOP - 0.25 - len(gates) * CELL[1], note, "resized", ha="left")
    draw_gates(page, gates, len(model.neck.layers), height)
    return page.signed(label)


def resizing(flow: list[Step]) -> int:
    """How many steps at a flow's beginning make X out of the map that comes in."""
    return next((step.skips + 1 for step in flow if step.symbol == GATE), 0)


def common_steps(name: str, units: list[nn.Module]) -> list[Step]:
    """The steps that all units share; units without a resize may stand beside others that have one."""

    def signature(flow: list[Step]) -> tuple:  # without what a unit learned, and without places in the flow
        return tuple((s.path, s.symbol, "" if s.symbol == "GeM" else s.sizes, s.made_by) for s in flow)

    flows = [steps(unit) for unit in {(type(u), repr(u)): u for u in reversed(units)}.values()]
    before = {signature(flow[: resizing(flow)]) for flow in flows} - {()}
    after = {signature(flow[resizing(flow) :]) for flow in flows}
    if len(before) > 1 or len(after) > 1:
        raise TypeError(f"the {TITLES[name]} units of this model differ; one drawing cannot show them all")
    return max(flows, key=len)


def caption(step: Step) -> str:
    """What a step's box says: symbol and sizes, and below the class where it is not the symbol itself."""
    if step.symbol == GATE:
        return "α·X + (1−α)·X ⊙ σ(·)"
    above = f"{step.symbol} {step.sizes}".strip()
    return above if step.made_by == step.symbol else f"{above}\n{step.made_by}"


def draw_flow(page: Diagram, name: str, flow: list[Step], top: tuple[float, float]) -> None:
    """Boxes from ``top`` downwards: the map P, a box for each step, and what comes out."""
    x, y = top
    words = [(caption(step), f"{name}:{step.path}") for step in flow]
    out = "f" if name == "head" else f"{name}(X)"
    boxes = [("P", f"{name}:P"), *words, (out, f"{name}:out")]
    for i, (text, gid) in enumerate(boxes):
        dashed = 0 < i <= resizing(flow)
        fill = "1" if 0 < i < len(boxes) - 1 else "0.95"
        page.box(gid, (x, y - i * STEP), BOX, text, fill, "--" if dashed else "-")
    for (_, start), (_, end) in zip(boxes, boxes[1:], strict=False):
        page.arrow(f"{start}->{end.split(':')[1]}", start, end)
    for i, step in enumerate(flow, start=1):
        if step.symbol == GATE:
            start = boxes[step.skips + 1][1]  # the first box is the map itself
            (left, high), low = (x - BOX[0] / 2, y - (step.skips + 1) * STEP), y - i * STEP
            page.route(f"{start}->{step.path}", [(left, high), (left - 0.12, high), (left - 0.12, low), (left, low)])
            page.text(left - 0.07, high - 0.13, "X")


def gates_by_term(model: LGFFEM) -> dict[str, dict[str, tuple[int, float]]]:
    """α of every aggregator: term, such as ``P3_1 ← LA(up P4_0)``, then its name in the drawing -> (layer, α)."""
    gates: dict[str, dict[str, tuple[int, float]]] = {}
    for i, layer in enumerate(model.neck.layers):
        for target, node in layer.nodes.items():
            for term, aggregator in zip(node.terms, node.aggregators, strict=True):
                row = gates.setdefault(f"{target} ← {aggregator.kind}({f'{term.resize} {term.source}'.strip()})", {})
                parts = (f"layer{i + 1}", f"{term.source}->{target}", aggregator.kind, term.resize, "alpha")
                row[":".join(filter(None, parts))] = i, aggregator.alpha.item()
    return gates


def draw_gates(page: Diagram, gates: dict[str, dict[str, tuple[int, float]]], layers: int, height: float) -> None:
    """A row for each term, a column for each layer; blue is below zero and red above, as far as any α goes."""
    width, step = CELL
    top = height - TOP - 0.1
    largest = max(0.1, *(abs(alpha) for row in gates.values() for _, alpha in row.values()))
    page.text(MAP + layers * width / 2, height - 0.2, "learned α", size=TITLE)
    page.text(MAP - 0.08, top + 0.2, "term, neck layer", size=NORMAL, ha="right")
    for i in range(layers):
        page.text(MAP + (i + 0.5) * width, top + 0.2, f"{i + 1}", size=NORMAL)
    for k, (term, row) in enumerate(gates.items()):
        y = top - k * step
        page.text(MAP - 0.08, y, term, ha="right")
        for gid, (i, alpha) in row.items():
            colour = colormaps["RdBu_r"](0.5 + 0.5 * alpha / largest)
            page.ax.add_patch(Rectangle((MAP + i * width, y - step / 2), width, step, facecolor=colour, gid=gid))
            dark = abs(alpha) > 0.6 * largest
            page.text(MAP + (i + 0.5) * width, y, number(alpha), f"{gid}:text", color="1" if dark else "0.1")
