"""The maps' pictures: right way up, on the right patch, and the same bytes each time."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from lgffem_core.report.style import RIGHT, WRONG, save_figure
from lgffem_core.systems.lgffem.figures import cam_figures

LABEL = "profile test: DEMO, made for a test"
NAMES = ("query s0", "retrieved s3")


def patch(seed, side=16):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def ramp(seed, side=16):
    """A map from 0 to 1 whose hottest pixel is known."""
    values = np.random.default_rng(seed).permutation(side * side).reshape(side, side)
    return values / values.max()


def cam(layer=1):
    images = {name: patch(i) for i, name in enumerate(NAMES)}
    maps = {name: {c: ramp(10 * i + j) for j, c in enumerate(cam_figures.COLUMNS)} for i, name in enumerate(NAMES)}
    return images, maps, cam_figures.cam_figure(images, maps, layer, LABEL)


def planted():
    images, masks = np.stack([patch(i) for i in range(3)]), np.zeros((3, 16, 16), bool)
    masks[:, 4:9, 4:9] = True
    points = np.array([[5, 6], [0, 15], [8, 8]])
    maps = np.stack([ramp(i) for i in range(3)])
    return images, masks, maps, points, cam_figures.planted_figure(images, masks, maps, points, LABEL)


def correlations():
    table = pd.DataFrame(
        [
            ("trained, random", "1 P1_2", 0.1, -0.2, 0.3),
            ("trained, random", "1 collapse", -0.4, -0.5, 0.1),
            ("random, random", "1 P1_2", None, None, None),
            ("random, random", "1 collapse", 0.6, 0.5, 0.7),
        ],
        columns=["comparison", "map", "mean", "low", "high"],
    )
    return cam_figures.correlation_chart(table, "heading", LABEL)


def panels(figure):
    return [ax for ax in figure.axes if ax.images]


def every_figure():
    return {
        "cam": cam()[-1],
        "absent": cam_figures.absent_layer_figure(2, 1, LABEL),
        "planted": planted()[-1],
        "correlations": correlations(),
    }


def test_every_picture_carries_its_label_inside_its_borders_and_is_closed():
    for name, figure in every_figure().items():
        assert LABEL in [text.get_text() for text in figure.texts], name
        figure.draw_without_rendering()
        width, height = figure.bbox.size
        for text in [*figure.texts, *(text for ax in figure.axes for text in ax.texts)]:
            box = text.get_window_extent()
            assert 0 <= box.x0 and box.x1 <= width and 0 <= box.y0 and box.y1 <= height, (name, text.get_text())
    assert plt.get_fignums() == []


def test_nothing_lies_over_the_label():
    for name, figure in every_figure().items():
        figure.draw_without_rendering()
        label = next(text for text in figure.texts if text.get_text() == LABEL).get_window_extent()
        legends = [ax.get_legend() for ax in figure.axes if ax.get_legend()] + figure.legends
        boxes = [ax.get_tightbbox() for ax in figure.axes] + [legend.get_window_extent() for legend in legends]
        assert not any(label.overlaps(box) for box in boxes), name
        heading = figure._suptitle.get_window_extent()
        assert not any(heading.overlaps(legend.get_window_extent()) for legend in legends), name


@pytest.mark.parametrize("values", [ramp(0), ramp(0) / 2], ids=["full range", "half range"])
def test_high_has_the_colour_maps_top_colour_and_low_its_bottom(values):
    """Ledger 14: the released code's colours are inverted. Half a map's height is the middle colour."""
    figure, ax = plt.subplots()
    plt.close(figure)
    cam_figures.overlay(ax, patch(0), values)
    drawn = ax.images[-1].to_rgba(values)[..., :3]
    colours = matplotlib.colormaps["inferno"]
    hottest, coldest = (np.unravel_index(f(values), values.shape) for f in (np.argmax, np.argmin))
    np.testing.assert_allclose(drawn[hottest], colours(float(values.max()))[:3])
    np.testing.assert_allclose(drawn[coldest], colours(0.0)[:3])
    assert drawn[hottest].sum() > drawn[coldest].sum() + 0.5


def test_rendered_pixels_are_brightest_where_the_map_is_hottest():
    """The same on the canvas, through the patch in grey, and with the first row of the map at the top."""
    values = np.zeros((16, 16))
    values[2:6, 9:14] = 1
    images = {"query": np.full((16, 16, 3), 128, np.uint8)}
    figure = cam_figures.cam_figure(images, {"query": dict.fromkeys(cam_figures.COLUMNS, values)}, 1, LABEL)
    canvas = matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].astype(float).sum(axis=2)
    box = panels(figure)[1].get_window_extent()
    height = len(pixels)
    top, left, size = height - box.y1, box.x0, box.width / 16

    def at(row, column):
        return pixels[int(top + (row + 0.5) * size), int(left + (column + 0.5) * size)]

    assert at(4, 11) > at(11, 4) + 200  # row 4 from the top, not from the foot
    assert at(4, 4) == at(11, 4) == at(11, 11)


def test_the_colour_bar_says_which_end_is_which():
    bar = cam()[-1].axes[-1]
    named = dict(zip([t.get_text() for t in bar.get_yticklabels()], bar.get_yticks(), strict=True))
    assert named == {"low": 0, "high": 1}


def test_each_row_shows_its_patch_then_its_maps_over_it_in_the_papers_order():
    images, maps, figure = cam(layer=3)
    shown = panels(figure)
    columns = ["P1_2", "P2_2", "P3_2", "P4_2", "collapse"]
    assert [ax.get_title() for ax in shown] == ["patch", *columns] + [""] * 6
    assert "neck layer 3" in figure.get_suptitle()
    for row, name in enumerate(NAMES):
        first, *others = shown[6 * row : 6 * row + 6]
        assert first.get_ylabel() == name
        np.testing.assert_array_equal(first.images[0].get_array(), images[name])
        for ax, column in zip(others, columns, strict=True):
            under, over = ax.images
            expected = [0.299 * r + 0.587 * g + 0.114 * b for r, g, b in images[name].reshape(-1, 3).astype(float)]
            np.testing.assert_allclose(np.ravel(under.get_array()), expected, atol=0.5)
            np.testing.assert_array_equal(over.get_array(), maps[name][column])


def test_a_map_without_heat_says_so():
    images, maps, _ = cam()
    maps[NAMES[1]]["P4_2"] = np.zeros((16, 16))
    said = [[t.get_text() for t in ax.texts] for ax in panels(cam_figures.cam_figure(images, maps, 1, LABEL))]
    assert said == [[]] * 10 + [["no heat"]] + [[]]


@pytest.mark.parametrize(("layers", "words"), [(1, "neck has 1 layer."), (2, "neck has 2 layers.")])
def test_the_page_for_a_layer_that_is_not_there_says_why(layers, words):
    (ax,) = cam_figures.absent_layer_figure(3, layers, LABEL).axes
    (text,) = [t.get_text() for t in ax.texts]
    assert words in text and "Figure 6 shows layer 3" in text and "model.neck.layers=3" in text


def test_hottest_points_are_marked_at_their_place_and_coloured_by_where_they_lie():
    _, masks, _, points, figure = planted()
    lower = panels(figure)[3:]
    for ax, mask, (row, column) in zip(lower, masks, points, strict=True):
        (mark,) = ax.lines
        assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (column, row)
        assert to_rgb(mark.get_color()) == tuple(RIGHT if mask[row, column] else WRONG)
    assert [to_rgb(ax.lines[0].get_color()) == tuple(RIGHT) for ax in lower] == [True, False, True]


def test_the_correlation_chart_draws_means_with_their_ranges_and_leaves_out_what_has_none():
    (ax,) = correlations().axes
    drawn = {}
    for container in ax.containers:
        line, _, (bars,) = container.lines
        places = zip(*line.get_data(), bars.get_segments(), strict=True)
        drawn[container.get_label()] = [(round(float(x)), y, *segment[:, 1]) for x, y, segment in places]
    expected = {
        "trained, random": [(0, 0.1, -0.2, 0.3), (1, -0.4, -0.5, 0.1)],
        "random, random": [(1, 0.6, 0.5, 0.7)],
    }
    assert drawn.keys() == expected.keys()
    for name, points in expected.items():
        np.testing.assert_allclose(drawn[name], points)


def test_the_same_maps_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        save_figure(cam()[-1], tmp_path / name)
    for kind in ("png", "svg"):
        assert (tmp_path / f"one.{kind}").read_bytes() == (tmp_path / f"two.{kind}").read_bytes()
