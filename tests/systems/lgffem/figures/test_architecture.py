"""Figures 1 and 2 read back from their artists, and compared with what the model's tensors really did.

The truth comes from hooks: which tensor object entered which module, which came out, and with what shape.
The table of equation 6 from which the neck is built is never asked.
"""

import functools
import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from timm.layers import LayerNorm2d
from torch import nn

from lgffem_core.config.params import Backbone as BackboneParams
from lgffem_core.config.params import Model, Neck
from lgffem_core.config.study import VARIANTS
from lgffem_core.model.backbone import Backbone
from lgffem_core.report.style import save_figure
from lgffem_core.systems.lgffem import neck as neck_module
from lgffem_core.systems.lgffem.figures.architecture import architecture_figure
from lgffem_core.systems.lgffem.figures.structure import steps
from lgffem_core.systems.lgffem.figures.units import units_figure
from lgffem_core.systems.lgffem.model import assemble
from lgffem_core.systems.lgffem.neck import NODES, Term

LABEL = "profile test: DEMO, made for a test"
SIDE = 64
TINY = Backbone(BackboneParams(name="test_convnext", pretrained=False))


def build(layers=1, variant="paper", channels=8, backbone=TINY, **toggles):
    """A small model whose fusion weights, α and p are random numbers, some of them negative.

    A node's first weight is positive: a node of zeros alone would hide the weights of those that it feeds.
    """
    torch.manual_seed(layers)
    settings = VARIANTS[variant].model_copy(update=toggles)
    model = assemble(backbone, Model(neck=Neck(channels=channels, layers=layers), image_size=SIDE), settings)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weights"):
                parameter.copy_(1.5 * torch.rand(parameter.shape) - 0.4)
                parameter[0] = 0.5 + torch.rand(())
            elif name.endswith("alpha"):
                parameter.copy_(0.5 * torch.randn(1))
            elif name.endswith("gem.p"):
                parameter.copy_(1 + 5 * torch.rand(1))
    return model


# -- what ran ------------------------------------------------------------------------------------------------


class Run:
    """One run of a model on noise: edges by tensor identity, shapes, and each node's effective weights."""

    def __init__(self, model, side=SIDE):
        self.edges, self.shapes, self.weights = set(), {}, {}
        self.name_of, self.kept, self.fed = {}, [], []  # kept: an id stays a tensor's own while that lives
        self.terms = {}
        handles = [hook for name, module in model.named_modules() for hook in self.watch(name, module)]
        image = torch.randn(2, 3, side, side)
        self.call(image, "image")
        with torch.no_grad():
            model.eval()(image)
        for handle in handles:
            handle.remove()

    def call(self, tensor, name):
        self.name_of[id(tensor)], self.shapes[name] = name, tuple(tensor.shape[1:])
        self.kept.append(tensor)

    def watch(self, name, module):
        kind, path = type(module).__name__, name.split(".")
        number = next((int(part) + 1 for part in path if part.isdigit()), 0)
        if kind == "Backbone":
            yield module.register_forward_hook(self.stages)
        elif path[0] == "backbone":
            yield module.register_forward_pre_hook(lambda _, x: self.fed.append(("in", x[0])))
            yield module.register_forward_hook(lambda _, x, y: self.fed.append(("out", y)))
        elif kind in ("LateralProjection", "MiniHead"):
            here = {"LateralProjection": "lateral", "MiniHead": "head"}[kind] + str(number)
            yield module.register_forward_pre_hook(lambda _, x: self.edges.add(f"{self.name_of[id(x[0])]}->{here}"))
            yield module.register_forward_hook(lambda _, x, y: self.call(y, here))
        elif kind == "NeckLayer":
            yield module.register_forward_pre_hook(lambda _, x: self.enter(x[0], f"layer{number}"))
        elif kind in ("GlobalAggregator", "LocalAggregator"):
            node = f"layer{number}:{path[path.index('nodes') + 1]}"
            yield module.register_forward_hook(
                lambda _, x, y: self.term(x[0], y, node, {"G": "GA", "L": "LA"}[kind[0]])
            )
        elif kind == "FusionNode":
            node = f"layer{number}:{path[-1]}"
            yield module.register_forward_hook(lambda _, x, y: self.fused(y, node))
        elif kind == "GeMHead":
            yield module.register_forward_hook(lambda _, x, y: self.concatenated(y))
        elif kind == "LGFFEM":
            yield module.register_forward_hook(lambda _, x, y: self.call(y, "embedding"))

    def stages(self, _, inputs, outputs):
        """A stage is fed by the stage, or the image, that last entered a module before the stage came out."""
        tensors = {id(inputs[0]): "image"} | {id(t): f"stage{i}" for i, t in enumerate(outputs, start=1)}
        latest = None
        for way, tensor in [("in", inputs[0]), *self.fed]:
            name = tensors.get(id(tensor))
            if way == "in":
                latest = name or latest
            elif name and name not in self.shapes:
                self.edges.add(f"{latest}->{name}")
                self.call(tensor, name)

    def enter(self, tensors, layer):
        """A layer's inputs, first level first; from here on their names are those that the layer gives them."""
        for level, tensor in enumerate(tensors, start=1):
            self.edges.add(f"{self.name_of[id(tensor)]}->{layer}:P{level}_0")
            self.call(tensor, f"{layer}:P{level}_0")

    def term(self, x, y, node, kind):
        resize = {True: ":up", False: ":down"}[y.shape[-1] > x.shape[-1]] if y.shape != x.shape else ""
        edge = f"{self.name_of[id(x)]}->{node.split(':')[1]}:{kind}{resize}"
        self.edges.add(edge)
        self.terms.setdefault(node, []).append((edge, y.double().flatten().numpy()))

    def fused(self, y, node):
        """The weights with which the terms give the node, as least squares find them."""
        edges, columns = zip(*self.terms[node], strict=True)
        found, _, rank, _ = np.linalg.lstsq(np.stack(columns, axis=1), y.double().flatten().numpy(), rcond=None)
        assert rank == len(edges)
        self.weights |= dict(zip(edges, found, strict=True))
        self.call(y, node)

    def concatenated(self, y):
        heads = [(name, t) for t in self.kept if (name := self.name_of[id(t)]).startswith("head")]
        for (name, tensor), part in zip(heads, y.chunk(len(heads), dim=1), strict=True):
            if torch.equal(tensor, part):
                self.edges.add(f"{name}->embedding")


# -- what is drawn -------------------------------------------------------------------------------------------


def artists(figure, kind):
    (ax,) = figure.axes
    return {patch.get_gid(): patch for patch in ax.patches if type(patch) is kind and patch.get_gid()}


def arrows(figure):
    return {gid: patch for gid, patch in artists(figure, FancyArrowPatch).items() if "->" in gid}


def words(figure):
    (ax,) = figure.axes
    return {text.get_gid(): text.get_text() for text in ax.texts if text.get_gid()}


def printed_number(text):
    return float(text.replace("−", "-"))


def assert_drawn_as_run(figure, run):
    """Arrows, their styles and weights, boxes and shapes: all as the run had them, no more and no fewer."""
    drawn, texts = arrows(figure), words(figure)
    assert set(drawn) == run.edges
    keys = artists(figure, FancyArrowPatch)
    colours = {"GA": keys["key:0"].get_edgecolor(), "LA": keys["key:1"].get_edgecolor()}
    assert colours["GA"] != colours["LA"]
    for edge in run.weights:
        kind, *resize = edge.split(":")[2:]
        assert drawn[edge].get_edgecolor() == colours[kind], edge
        assert (drawn[edge].get_linestyle() not in ("-", "solid")) == bool(resize), edge
        assert printed_number(texts[f"{edge}:weight"]) == pytest.approx(run.weights[edge], abs=0.0051), edge
    assert set(artists(figure, FancyBboxPatch)) == set(run.shapes)
    for name, shape in run.shapes.items():
        if name.startswith("layer"):
            assert texts[f"{name}:text"].splitlines() == [name.split(":")[1], "×".join(map(str, shape[1:]))]
        elif not name.startswith(("lateral", "head")):
            assert "×".join(map(str, shape)) in texts[f"{name}:text"].splitlines(), name


MODELS = {
    "1 layer, released": {"layers": 1, "variant": "released"},
    "3 layers, 12 channels": {"layers": 3, "channels": 12},
    "5 layers": {"layers": 5},
}
every_model = pytest.mark.parametrize("name", MODELS)


@functools.cache
def figure_1(name):
    model = build(**MODELS[name])
    return model, architecture_figure(model, SIDE, LABEL)


@every_model
def test_figure_1_shows_what_really_ran(name):
    (model, figure), settings = figure_1(name), MODELS[name]
    run = Run(model)
    layers, channels = settings["layers"], settings.get("channels", 8)
    assert len(run.edges) == 4 + 4 + 4 + layers * 14 + (layers - 1) * 4 + 4 + 4
    assert min(run.weights.values()) < 0 or settings.get("variant") != "released"
    assert_drawn_as_run(figure, run)
    titles = [text.get_text() for text in figure.axes[0].texts if text.get_text().startswith("neck layer ")]
    assert titles == [f"neck layer {i + 1}, C = {channels}" for i in range(layers)]
    assert {shape[0] for name, shape in run.shapes.items() if name.startswith("layer")} == {channels}


def test_printed_weights_are_those_of_equation_6_by_hand():
    for variant, clip in (("paper", 0.0), ("released", -np.inf)):
        model = build(variant=variant)
        node = model.neck.layers[0].nodes["P2_2"]
        with torch.no_grad():
            node.weights.copy_(torch.tensor([1.5, -0.4, 0.9]))
        texts = words(architecture_figure(model, SIDE, LABEL))
        w = np.maximum([1.5, -0.4, 0.9], clip)
        names = ["P2_0->P2_2:LA", "P2_1->P2_2:LA", "P1_2->P2_2:GA:down"]
        shown = [texts[f"layer1:{name}:weight"] for name in names]
        assert shown == [f"{x:.2f}".replace("-", "−") for x in w / (w.sum() + 1e-4)]


@pytest.mark.parametrize(
    "change",
    [
        {"P3_1": (Term("P3_0", "LA"), Term("P4_0", "LA", "up"))},
        {"P4_2": (Term("P3_2", "GA", "down"),)},
        {"P2_1": (Term("P2_0", "GA"), Term("P1_0", "GA", "down"), Term("P3_1", "LA", "up"))},
        {"P4_1": (Term("P4_0", "GA"),), "P3_1": (Term("P3_0", "GA"), Term("P4_1", "LA", "up"))},
    ],
    ids=["other kind", "a term less", "a term more", "a node more"],
)
def test_another_neck_draws_itself_differently_and_right(monkeypatch, change):
    usual = architecture_figure(build(), SIDE, LABEL)
    monkeypatch.setattr(neck_module, "NODES", {k: change[k] for k in change if k not in NODES} | NODES | change)
    model = build()
    figure, run = architecture_figure(model, SIDE, LABEL), Run(model)
    assert_drawn_as_run(figure, run)
    assert set(arrows(figure)) != set(arrows(usual))


def test_boxes_of_laterals_heads_and_embedding_follow_the_modules():
    for variant in VARIANTS:
        model = build(variant=variant)
        texts = words(architecture_figure(model, SIDE, LABEL))
        for i, (into, lateral) in enumerate(zip(TINY.channels, model.neck.lateral, strict=True), start=1):
            hidden = lateral[0].weight.shape[0]
            assert texts[f"lateral{i}:text"].splitlines() == [f"PW {into}→{hidden}", "LN · GELU", f"PW {hidden}→8"]
            power, *others = texts[f"head{i}:text"].splitlines()
            assert power == f"GeM p = {model.head.mini_heads[i - 1].gem.p.item():.2f}"
            assert others == ["BN · Dropout"] * (variant == "released") + ["FC 8→8", "L2", "FC 8→8"]
        length = Run(model).kept[-1].norm(dim=1)
        unit = torch.allclose(length, torch.ones_like(length))
        assert texts["embedding:text"].endswith("L2-normalised" if unit else "not normalised")
        trained = sum(p.numel() for part in (model.neck, model.head) for p in part.parameters())
        assert f"trainable parameters: {trained:,}" in texts["parameters"]


def test_drawing_leaves_the_model_as_it_was():
    model = build(variant="released").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    architecture_figure(model, SIDE, LABEL), units_figure(model, LABEL)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert plt.get_fignums() == []


# -- the page ------------------------------------------------------------------------------------------------


class Wide(nn.Module):
    """Stands for a large backbone at 224 pixels: the longest numbers that a box must hold."""

    channels = [256, 512, 1024, 2048]

    def forward(self, images):
        return [torch.zeros(len(images), c, 56 // 2**i, 56 // 2**i) for i, c in enumerate(self.channels)]


def points_on(arrow, figure):
    """Points along an arrow, in pixels."""
    corners = [loop for loop in arrow.get_path().to_polygons(closed_only=False)]
    ends = [np.linspace(a, b, 40) for loop in corners for a, b in itertools.pairwise(loop)]
    return figure.axes[0].transData.transform(np.concatenate(ends))


def assert_clean(figure):
    """No words on other words, on an arrow or over the border; words of a box inside it; 6 points at least."""
    figure.draw_without_rendering()
    (ax,) = figure.axes
    texts = [text for text in (*ax.texts, *figure.texts) if text.get_text()]
    boxes = [(text, text.get_window_extent()) for text in texts]
    width, height = figure.bbox.size
    for text, box in boxes:
        assert text.get_fontsize() >= 6
        assert 0 <= box.x0 and box.x1 <= width and 0 <= box.y0 and box.y1 <= height, text.get_text()
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        assert not a.overlaps(b), (one.get_text(), other.get_text())
    frames = artists(figure, FancyBboxPatch)
    for text, box in boxes:
        frame = frames.get((text.get_gid() or "").removesuffix(":text"))
        if frame is not None:
            around = frame.get_window_extent()
            assert around.x0 < box.x0 and box.x1 < around.x1 and around.y0 < box.y0 and box.y1 < around.y1, text
    for gid, arrow in artists(figure, FancyArrowPatch).items():
        along = points_on(arrow, figure)
        for text, box in boxes:
            inside = (along > [box.x0, box.y0]).all(axis=1) & (along < [box.x1, box.y1]).all(axis=1)
            assert not inside.any(), (gid, text.get_text())


def assert_joined(figure, arrow, source, target):
    """An arrow starts at its source's border and has its head at its target's."""
    frames, along = artists(figure, FancyBboxPatch), points_on(arrow, figure)
    head = arrow.get_path().to_polygons(closed_only=False)[-1]
    ends = (along[:1], figure.axes[0].transData.transform(head))
    for name, points in zip((source, target), ends, strict=True):
        box = frames[name].get_window_extent()
        away = np.maximum(0, np.maximum([box.x0, box.y0] - points, points - [box.x1, box.y1])).max(axis=1)
        assert away.min() < 0.03 * figure.dpi, (arrow.get_gid(), name)


@every_model
def test_figure_1_is_legible_and_its_arrows_end_at_their_boxes(name):
    _, figure = figure_1(name)
    assert figure.get_figwidth() * 25.4 == pytest.approx(180)
    assert_clean(figure)
    for gid, arrow in arrows(figure).items():
        source, target = gid.split("->")
        if gid.count(":") > 1 and not target.startswith("layer"):
            target = f"{source.split(':')[0]}:{target.split(':')[0]}"
        assert_joined(figure, arrow, source, target)


def test_long_numbers_fit_too():
    model = build(variant="released", channels=512, backbone=Wide())
    assert_clean(architecture_figure(model, SIDE, LABEL))
    assert_clean(units_figure(model, LABEL))


def test_the_same_model_gives_the_same_bytes(tmp_path):
    for i in range(2):
        model = build()
        save_figure(architecture_figure(model, SIDE, LABEL), tmp_path / f"one{i}")
        save_figure(units_figure(model, LABEL), tmp_path / f"two{i}")
    for name, suffix in itertools.product(("one", "two"), (".png", ".svg")):
        first, second = ((tmp_path / f"{name}{i}{suffix}").read_bytes() for i in range(2))
        assert first == second and len(first) > 1000
    assert b'id="layer1:P4_0-&gt;P3_1:LA:up"' in (tmp_path / "one0.svg").read_bytes()


# -- units ---------------------------------------------------------------------------------------------------


def executed(unit, x):
    """Names of a unit's innermost modules in the order in which they run, without those that do nothing."""
    order = []
    for name, module in unit.named_modules():
        if not isinstance(module, nn.Identity | nn.Sequential) and module is not unit:
            module.register_forward_hook(lambda m, *_, name=name: order.append((name, m)))
    with torch.no_grad():
        unit.eval()(x)
    return order


def drawn_flow(figure, name):
    """The boxes of one flow from top to bottom: names without the flow's, and their words."""
    boxes, texts = artists(figure, FancyBboxPatch), words(figure)
    flow = sorted((gid for gid in boxes if gid.startswith(f"{name}:")), key=lambda gid: -boxes[gid].get_y())
    return {gid.split(":")[1]: texts[f"{gid}:text"] for gid in flow}


@pytest.mark.parametrize("variant", VARIANTS)
def test_figure_2_has_the_modules_in_the_order_in_which_they_run(variant):
    model = build(layers=3, variant=variant)
    figure, nodes = units_figure(model, LABEL), model.neck.layers[0].nodes
    x = torch.randn(2, 8, 4, 4)
    units = {"GA": nodes["P4_2"].aggregators[1], "LA": nodes["P3_1"].aggregators[1], "head": model.head.mini_heads[0]}
    for name, unit in units.items():
        flow, order = drawn_flow(figure, name), executed(unit, x)
        modules = [box for box in flow if box not in ("P", "out", "attend", "normalize")]
        assert modules == [path for path, _ in order]
        for path, module in order:
            known = (nn.Conv2d, nn.ConvTranspose2d, LayerNorm2d)  # what quicker layers of ours stand for
            kind = next((each for each in known if isinstance(module, each)), type(module))
            assert kind.__name__ in flow[path]
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                kernel = "PW" if module.kernel_size == (1, 1) else f"DW {module.kernel_size[0]}×{module.kernel_size[1]}"
                assert flow[path].startswith(f"{kernel} {module.in_channels}→{module.out_channels}")
        dashed = {
            gid.split(":")[1] for gid, box in artists(figure, FancyBboxPatch).items()
            if gid.startswith(f"{name}:") and box.get_linestyle() not in ("-", "solid")
        }  # fmt: skip
        assert dashed == {path for path, _ in order if path.startswith("resize.")}
        chain = {f"{name}:{a}->{b}" for a, b in itertools.pairwise(flow)}
        skip = {f"{name}:resize.1->attend"} if name != "head" else set()
        assert {gid for gid in arrows(figure) if gid.startswith(f"{name}:")} == chain | skip
    assert "(÷2)" in drawn_flow(figure, "GA")["global_operator.2"]


def test_the_gate_and_the_length_stand_where_they_are_computed():
    model = build(layers=1)
    figure, nodes = units_figure(model, LABEL), model.neck.layers[0].nodes
    x = torch.randn(2, 8, 4, 4)
    for name, unit in (("GA", nodes["P4_2"].aggregators[1]), ("LA", nodes["P3_1"].aggregators[1])):
        assert list(drawn_flow(figure, name))[-2:] == ["attend", "out"]
        assert drawn_flow(figure, name)["attend"] == "α·X + (1−α)·X ⊙ σ(·)"
        X, α = unit.resize(x), unit.alpha
        operator = unit.global_operator if name == "GA" else unit.local_operator
        torch.testing.assert_close(unit(x), α * X + (1 - α) * X * torch.sigmoid(operator(X)))
    head, seen = model.head.mini_heads[0], []
    head.fc_out.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    head(x)
    torch.testing.assert_close(seen[0].norm(dim=1), torch.ones(2))
    assert list(drawn_flow(figure, "head")) == ["P", "gem", "fc_in", "normalize", "fc_out", "out"]


def test_every_toggle_of_the_units_changes_the_drawing_alone():
    usual = words(units_figure(build(), LABEL))
    other_grn = words(units_figure(build(grn="width"), LABEL))
    different = {gid for gid in usual if usual[gid] != other_grn[gid]}
    assert different == {"GA:global_operator.4:text"} and "WidthResponseNorm" in other_grn["GA:global_operator.4:text"]
    with_norm = words(units_figure(build(head_norm=True), LABEL))
    assert set(with_norm) - set(usual) == {"head:norm.0:text", "head:norm.1:text"}
    assert with_norm["head:norm.0:text"] == "BN 8\nBatchNorm1d" and with_norm["head:norm.1:text"] == "Dropout 0.6"


@pytest.mark.parametrize("layers", [1, 3, 5])
def test_every_gate_is_shown_in_the_row_of_its_term_and_the_column_of_its_layer(layers):
    model = build(layers=layers)
    figure = units_figure(model, LABEL)
    assert_clean(figure)
    cells, texts = artists(figure, Rectangle), words(figure)
    edges = Run(model).weights
    assert set(cells) == {f"{edge}:alpha" for edge in edges}
    alphas = {name: p.item() for name, p in model.named_parameters() if name.endswith(".alpha")}
    rows = {text.get_text(): text.get_position()[1] for text in figure.axes[0].texts if "←" in text.get_text()}
    assert len(rows) == 14
    places = {}
    for (name, alpha), edge in zip(alphas.items(), edges, strict=True):  # both in the order of computation
        layer, source, target, kind, *resize = edge.replace("->", ":").split(":")
        assert name.startswith(f"neck.layers.{int(layer[5:]) - 1}.nodes.{target}.aggregators.")
        assert printed_number(texts[f"{edge}:alpha:text"]) == pytest.approx(alpha, abs=0.0051)
        cell = cells[f"{edge}:alpha"]
        term = f"{target} ← {kind}({' '.join([*resize, source])})"
        assert cell.get_y() + cell.get_height() / 2 == pytest.approx(rows[term])
        places.setdefault(layer, set()).add(round(cell.get_x(), 6))
    columns = [places[f"layer{i + 1}"] for i in range(layers)]
    assert all(len(column) == 1 for column in columns)
    assert [min(column) for column in columns] == sorted({x for column in columns for x in column})


def test_p_of_every_head_is_shown():
    model = build()
    powers = [f"{head.gem.p.item():.2f}" for head in model.head.mini_heads]
    assert len(set(powers)) == 4
    assert words(units_figure(model, LABEL))["head:p"].endswith(", ".join(powers))


# -- what cannot be drawn ------------------------------------------------------------------------------------


class Doubled(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return torch.tanh(self.inner(x))


def test_an_unknown_module_or_function_is_an_error():
    model = build()
    for layer in model.neck.layers:
        for node in layer.nodes.values():
            for aggregator in node.aggregators:
                if aggregator.kind == "LA":
                    aggregator.local_operator[2] = nn.SiLU()
    with pytest.raises(TypeError, match=r"LocalAggregator.local_operator.2 is a SiLU"):
        units_figure(model, LABEL)
    with pytest.raises(TypeError, match="Doubled calls .*tanh"):
        steps(Doubled(nn.GELU()))
    model.neck.lateral[0][2] = nn.SiLU()
    with pytest.raises(TypeError, match=r"LateralProjection.2 is a SiLU"):
        architecture_figure(model, SIDE, LABEL)


def test_units_that_differ_are_an_error():
    model = build()
    model.neck.layers[0].nodes["P1_2"].aggregators[0].global_operator[3] = nn.Identity()
    with pytest.raises(TypeError, match="global aggregator .* differ"):
        units_figure(model, LABEL)
    model = build()
    model.head.mini_heads[2].norm = nn.BatchNorm1d(8)
    with pytest.raises(TypeError, match="mini-head units of this model differ"):
        units_figure(model, LABEL)
