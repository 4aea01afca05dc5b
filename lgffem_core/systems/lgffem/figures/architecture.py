"""Figure 1: the whole model, drawn from the model object.

Nothing here knows how many layers, nodes or channels there are: nodes and their terms, module classes,
weights and channels are read off the modules, and shapes off one run on a blank image. The parts stand in
cells of one size, three in a row: backbone with lateral projections, each layer of the neck, the head; the
key takes what is left.
"""

from matplotlib.figure import Figure
from torch import nn

from lgffem_core.report.diagram import (
    AGGREGATOR_COLOURS,
    GREY,
    NORMAL,
    PAGE,
    SMALL,
    TITLE,
    Diagram,
    beside,
    dimensions,
    number,
)
from lgffem_core.systems.lgffem.figures.structure import observed_shapes, steps
from lgffem_core.systems.lgffem.model import LGFFEM
from lgffem_core.systems.lgffem.neck import INPUTS, OUTPUTS, FusionNode, NeckLayer, normalised_weights

COLUMNS = 3
MARGIN = 0.38  # inches at either side, where the lines between two rows turn
CELL = (PAGE - 2 * MARGIN) / COLUMNS
STEP, LEVEL = 0.78, 0.66  # inches between two nodes, to the right and upwards
NODE = (0.38, 0.27)
ABOVE, BELOW, IMAGE = 3 * LEVEL + 0.53, 0.3, 0.36  # inches over and under the first level; what the image adds
BUS = 0.07  # inches between two lines that lead to the next row
FOOT, KEY = 0.22, 1.0  # the key's height where it has a row of its own


def place(node: str) -> tuple[int, int]:
    """Where a node stands in its layer: ``P3_1`` -> (1, 3), step to the right and level upwards."""
    level, step = node[1:].split("_")
    return int(step), int(level)


def architecture_figure(model: LGFFEM, image_size: int, label: str) -> Figure:
    """The model as in the paper's Figure 1, at print size (180 mm wide).

    Args:
        model: any LGFFEM; drawn with the weights that it has now. Its state is left as it was.
        image_size: side of the blank image in pixels that passes the model once, to see the shapes.
        label: which weights these are; stands at the foot.

    An arrow inside a layer is one term of equation 6: its colour tells the aggregator, a dashed line that
    the map is resized first, and the number beside it is the normalised fusion weight.
    """
    shapes = observed_shapes(model, image_size)
    layers = len(model.neck.layers)
    corners, height = cells(layers + 2)
    page = Diagram(PAGE, height)
    draw_backbone(page, model, shapes, corners[0])
    for i, layer in enumerate(model.neck.layers, start=1):
        draw_layer(page, layer, f"layer{i}", shapes, corners[i])
    draw_head(page, model, shapes, corners[layers + 1])
    for i in range(layers + 1):
        connect(page, i, layers, corners[i][1] - below(i))
    draw_key(page, model, corners[-1], one_column=len(corners) % COLUMNS == 0)
    return page.signed(label)


def below(cell: int) -> float:
    """Inches that a cell's row takes under its first level."""
    return BELOW + (IMAGE if cell < COLUMNS else 0)


def cells(count: int) -> tuple[list[tuple[float, float]], float]:
    """Left edge and first level's height of ``count`` cells and of the key, and the page's height, in inches."""
    rows = -(-count // COLUMNS)
    turns = len(INPUTS) * BUS + 0.1
    key = KEY if count % COLUMNS == 0 else 0
    height = rows * ABOVE + sum(below(row * COLUMNS) for row in range(rows)) + (rows - 1) * turns + key + FOOT
    places, top = [], height
    for cell in range(count + 1):
        if cell and cell % COLUMNS == 0:
            top -= ABOVE + below(cell - 1) + turns
        places.append((MARGIN + cell % COLUMNS * CELL, top - ABOVE))
    if key:
        places[-1] = (MARGIN, FOOT + KEY - 3 * LEVEL - 0.25)
    return places, height


def level_height(corner: tuple[float, float], level: int) -> float:
    return corner[1] + (level - 1) * LEVEL


def title(page: Diagram, x: float, corner: tuple[float, float], words: str) -> None:
    page.text(x, level_height(corner, 4) + 0.39, words, size=TITLE)


def draw_backbone(page: Diagram, model: LGFFEM, shapes: dict, corner: tuple[float, float]) -> None:
    """The image, the stages above each other, and beside each its lateral projection."""
    left, middle = corner[0] + 0.34, corner[0] + 1.36
    page.frame((left - 0.4, level_height(corner, 1) - 0.22), (0.8, 3 * LEVEL + 0.44))
    title(page, left, corner, "frozen backbone")
    title(page, middle, corner, "lateral projections")
    page.box("image", (left, level_height(corner, 1) - 0.5), (0.66, 0.27), f"image\n{dimensions(shapes['image'])}", "1")
    below = "image"
    for i, lateral in enumerate(model.neck.lateral, start=1):
        stage, y = f"stage{i}", level_height(corner, i)
        page.box(stage, (left, y), (0.66, 0.27), f"stage {i}\n{dimensions(shapes[stage])}")
        page.arrow(f"{below}->{stage}", below, stage)
        page.box(f"lateral{i}", (middle, y), (0.8, 0.42), short_steps(lateral), "1")
        page.arrow(f"{stage}->lateral{i}", stage, f"lateral{i}")
        below = stage


def short_steps(unit: nn.Module) -> str:
    """A unit's steps in a few lines: those that change no sizes share one."""
    lines, joins = [], False
    for step in steps(unit):
        sized = "→" in step.sizes or step.symbol == "GeM"
        if joins and not sized:
            lines[-1] += f" · {step.symbol}"
        else:
            lines.append(f"{step.symbol} {step.sizes.split(' (')[0]}" if sized else step.symbol)
        joins = not sized
    return "\n".join(lines)


def draw_layer(page: Diagram, layer: NeckLayer, name: str, shapes: dict, corner: tuple[float, float]) -> None:
    """The nodes of one neck layer with height and width of their maps, and an arrow for each term."""
    channels = sorted({shapes[f"{name}:{node}"][0] for node in (*INPUTS, *layer.nodes)})
    words = f"neck {name.replace('layer', 'layer ')}, C = {', '.join(map(str, channels))}"
    title(page, corner[0] + CELL / 2, corner, words)
    left = corner[0] + (CELL - 2 * STEP) / 2
    for node in (*INPUTS, *layer.nodes):
        step, level = place(node)
        at = (left + step * STEP, level_height(corner, level))
        page.box(f"{name}:{node}", at, NODE, f"{node}\n{dimensions(shapes[f'{name}:{node}'][1:])}")
    for target, node in layer.nodes.items():
        draw_terms(page, node, name, target, [*INPUTS, *layer.nodes])


def draw_terms(page: Diagram, node: FusionNode, name: str, target: str, others: list[str]) -> None:
    """A node's terms as arrows, each with its normalised fusion weight."""
    shares = normalised_weights(node.weights.detach(), node.epsilon, node.relu).tolist()
    for term, aggregator, share in zip(node.terms, node.aggregators, shares, strict=True):
        gid = f"{name}:{term.source}->{target}:{aggregator.kind}" + (f":{term.resize}" if term.resize else "")
        resized = not isinstance(aggregator.resize, nn.Identity)
        start, end = f"{name}:{term.source}", f"{name}:{target}"
        bend = bend_around(term.source, target, others)
        page.arrow(gid, start, end, AGGREGATOR_COLOURS[aggregator.kind], (0, (3, 1.6)) if resized else "-", bend)
        x, y, align = beside(page.centre(start), page.centre(end), bend, upper=place(target)[1] > 2)
        page.text(x, y, number(share), f"{gid}:weight", ha=align)


def bend_around(source: str, target: str, others: list[str]) -> float:
    """How far an arrow bends: not at all, or past the nodes on its way, towards the middle of the layer."""
    (x0, y0), (x1, y1) = place(source), place(target)
    on_line = [
        (x, y) for x, y in map(place, others) if (x - x0) * (y1 - y0) == (y - y0) * (x1 - x0)
        and min(x0, x1) <= x <= max(x0, x1) and min(y0, y1) <= y <= max(y0, y1)
    ]  # fmt: skip
    if len(on_line) <= 2:
        return 0.0
    return 0.28 if y0 > 2 else -0.28


def draw_head(page: Diagram, model: LGFFEM, shapes: dict, corner: tuple[float, float]) -> None:
    """The mini-heads, and the embedding that their vectors make side by side."""
    x, right, high = corner[0] + 0.57, corner[0] + 1.66, 3 * LEVEL + 0.54
    title(page, x, corner, "mini-heads")
    length = "L2-normalised" if model.normalize else "not normalised"
    size = dimensions(shapes["embedding"])
    middle = (right, level_height(corner, 2) + LEVEL / 2)
    page.box("embedding", middle, (0.76, high), f"embedding:\nconcatenated\n\n{size}\n\n{length}", "1")
    for i, head in enumerate(model.head.mini_heads, start=1):
        y = level_height(corner, i)
        page.box(f"head{i}", (x, y), (0.96, 0.54), short_steps(head), "1")
        page.route(f"head{i}->embedding", [(x + 0.48, y), (right - 0.38, y)])


def connect(page: Diagram, cell: int, layers: int, turn: float) -> None:
    """The maps that a cell hands on to the next one; where a row ends, around the corner below ``turn``."""
    for k, (output, source) in enumerate(zip(OUTPUTS, INPUTS, strict=True)):
        start = f"layer{cell}:{output}" if cell else f"lateral{k + 1}"
        end = f"layer{cell + 1}:{source}" if cell < layers else f"head{k + 1}"
        (x0, y0), (x1, y1) = page.centre(start), page.centre(end)
        x0, x1 = x0 + page.boxes[start].get_width() / 2, x1 - page.boxes[end].get_width() / 2
        right, left = PAGE - MARGIN + BUS * (k + 0.5), MARGIN - BUS * (len(INPUTS) - k - 0.5)
        low = turn - BUS * (k + 0.5)
        around = [(right, y0), (right, low), (left, low), (left, y1)] if (cell + 1) % COLUMNS == 0 else []
        page.route(f"{start}->{end}", [(x0, y0), *around, (x1, y1)])


def draw_key(page: Diagram, model: LGFFEM, corner: tuple[float, float], one_column: bool) -> None:
    """What the lines mean, and how many parameters there are."""
    x, y = corner[0] + 0.12, level_height(corner, 4) + 0.05
    nodes = [node for layer in model.neck.layers for node in layer.nodes.values()]
    clipped = " and ".join(sorted({"w clipped at 0" if node.relu else "w not clipped" for node in nodes}))
    lines = [
        (AGGREGATOR_COLOURS["GA"], "-", "global aggregator (GA)"),
        (AGGREGATOR_COLOURS["LA"], "-", "local aggregator (LA)"),
        (GREY, (0, (3, 1.6)), "resized first"),
        (GREY, "-", "handed on unchanged"),
    ]
    for i, (colour, line, words) in enumerate(lines):
        page.route(f"key:{i}", [(x, y - 0.15 * i), (x + 0.3, y - 0.15 * i)], colour, linestyle=line)
        page.text(x + 0.38, y - 0.15 * i, words, size=NORMAL, ha="left")
    page.text(x, y - 0.62, "0.50", size=SMALL, ha="left")
    page.text(x + 0.38, y - 0.62, f"weight w / (Σw + ε), {clipped}", size=NORMAL, ha="left")
    parts = {"lateral projections": model.neck.lateral, "neck layers": model.neck.layers, "head": model.head}
    counts = [f"{name}: {sum(p.numel() for p in part.parameters()):,}" for name, part in parts.items()]
    frozen = sum(p.numel() for p in model.backbone.parameters())
    facts = [f"trainable parameters: {model.trainable_parameters():,}", *counts, f"frozen backbone: {frozen:,}"]
    x, y = (x, y - 0.9) if one_column else (x + CELL, y)
    page.text(x, y + 0.07, "\n".join(facts), "parameters", NORMAL, ha="left", va="top", linespacing=1.6)
