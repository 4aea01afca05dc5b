"""The audit's pictures: what they write and mark, against counts by hand."""

import numpy as np
import pytest
from PIL import Image

from lgffem_core.audit import figures
from lgffem_core.audit.order import Orders
from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import Study
from lgffem_core.report.style import save_figure
from lgffem_core.retrieval.embed import Embedded

COUNTS = [4, 3, 5]
LABELS = np.concatenate([np.repeat([0, 1, 2], COUNTS), np.arange(3)])
IS_TEST = np.arange(len(LABELS)) < sum(COUNTS)
NAMES = ["s0", "s1", "s2"]


@pytest.fixture
def picture(tmp_path):
    """The ranking picture for given test embeddings on a line; training patches lie at 0, 100 and 200."""
    study = Study.load(PROJECT / "params" / "demo.yaml", root=tmp_path)
    paths = [tmp_path / f"{i}.png" for i in range(len(LABELS))]
    for i, path in enumerate(paths):
        Image.fromarray(np.full((8, 8, 3), 9 * i, np.uint8)).save(path)

    def make(values, query):
        line = np.array([*values, 0, 100, 200], dtype=np.float32)[:, None]
        return figures.ranking_picture(
            study, paths, NAMES, Embedded(line, LABELS, IS_TEST, np.array(paths, dtype=str)), query
        )

    return make


def texts(figure):
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def test_the_ranking_says_what_each_protocol_reads(picture):
    # scan 1 asks at 10: nearest 11 (s0), then 12 (s1), ...; C_1 = 7 of 12 places hold 10, 11, 12, 13, 8, 14, 15
    figure = picture([11, 13, 14, 15, 10, 12, 50, 8, 60, 70, 80, 90], query=4)
    written = texts(figure)
    assert any(text.startswith("leave_one_out reads place 2, wrong;") for text in written)
    assert any(
        "first 7 places" in t and "counts 2 of 3 patches" in t and "the others there (5) cost nothing" in t
        for t in written
    )
    titles = [ax.get_title() for ax in figure.axes[:8]]
    assert titles[:3] == ["query s1\nplace 1", "✗ s0\nplace 2", "✓ s1\nplace 3"]
    assert titles[7] == "✗ s0\nin training"
    # every scan's found/all at the right: C = 4, 7, 12; s0 asks at 11 and reads 11, 10, 12, 13
    assert [text for text in written if "/" in text] == ["2/4", "2/3", "5/5"]
    assert "DEMO" in figure.texts[-1].get_text()


def test_a_query_with_a_twin_before_it_is_still_the_query(picture):
    figure = picture([10, 13, 14, 15, 10, 12, 50, 8, 60, 70, 80, 90], query=4)  # row 0 has the smaller id
    assert [ax.get_title() for ax in figure.axes[:2]] == ["✗ s0\nplace 1", "query s1\nplace 2"]
    assert any(text.startswith("leave_one_out reads place 1, wrong;") for text in texts(figure))


def test_the_telling_scan_is_where_the_two_protocols_differ_most():
    # s0 and s2 are perfect under both; s1's patches have nearest others of s0 but lie within its seven places
    values = np.array([1.0, 2.0, 3.0, 4.0, 1.3, 2.3, 3.3, 90, 91, 92, 93, 94])[:, None]
    assert figures.telling_scan(values, LABELS[IS_TEST]) == 1


def test_the_telling_patch_is_the_one_that_the_two_protocols_judge_most_differently(picture):
    """s1's third, at 3.4, has a neighbour of s0, and all of s1 within seven places; its others are right under both."""
    values = [1, 2, 3, 4, 10, 12, 3.4, 90, 91, 92, 93, 94]
    query, apart = figures.telling_patch(np.array(values, dtype=np.float32)[:, None], LABELS[IS_TEST], 1)
    assert (query, apart) == (6, 1)
    figure = picture(values, query)
    assert figure.axes[8].get_xlabel() == "place in the ranking behind patch 3 of 3 of s1"
    written = " ".join(texts(figure))
    assert "leave_one_out reads place 2, wrong;" in written
    assert "released, if this were named first, counts 3 of 3 patches in the first 7 places (shade)" in written


def test_where_all_of_a_scan_is_judged_alike_the_first_patch_is_shown():
    values = np.array([1, 2, 3, 4, 10, 11, 12, 90, 91, 92, 93, 94], dtype=np.float32)[:, None]
    assert figures.telling_patch(values, LABELS[IS_TEST], 1) == (4, 0)


def test_degradation_shows_curve_chance_and_every_method():
    top1, other = np.array([[100, 100], [50, 54], [4, 4]]), np.array([[100, 100], [90, 80], [60, 50]])
    curves = {"leave_one_out": top1[..., None], "released": other[..., None]}
    figure = figures.degradation_picture(curves, 53.1, {"A": (40, 85), "B": (70, 92)}, "DEMO")
    ax = figure.axes[0]
    mean = next(line for line in ax.lines if "perfect" in line.get_label())
    assert mean.get_xydata().tolist() == [[4, 55], [52, 85], [100, 100]]
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "random embeddings: 53.1 %" in legend and {"A", "B"} <= set(legend)
    marked = [tuple(c.get_offsets()[0]) for c in ax.collections if c.get_label() in ("A", "B")]
    assert marked == [(40, 85), (70, 92)]


def test_the_order_picture_has_a_dot_for_each_rotation_and_all_lie_within(tmp_path):
    rotations = np.array([60.0, 61.0, 61.0, 70.0])
    found = {name: Orders(60.0, rotations, np.linspace(50, 80, 101), (45.0, 90.0)) for name in ("A", "B")}
    figure = figures.order_picture(found, "DEMO")
    ax = figure.axes[0]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["A", "B"]
    dots = [c.get_offsets() for c in ax.collections if len(c.get_offsets()) == 4]
    assert len(dots) == 2 and all(part[:, 0].tolist() == rotations.tolist() for part in dots)
    assert len({tuple(dot) for dot in dots[0].tolist()}) == 4  # equal values stand above each other
    bars = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches]
    assert bars == [pytest.approx((50.75, 79.25))] * 2
    low, high = ax.get_xlim()
    assert low < 45 and high > 90
    save_figure(figure, tmp_path / "order")
    assert (tmp_path / "order.png").stat().st_size > 10_000


def test_dots_of_equal_values_do_not_hide_each_other():
    heights = figures.beeswarm(np.array([1.0, 1.0, 2.0, 1.0]))
    assert heights.tolist() == [0, 0.5, 0, 1]
    assert figures.beeswarm(np.array([7.0, 7.0])).tolist() == [0, 1]
