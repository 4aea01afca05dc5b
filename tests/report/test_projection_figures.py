"""Figure 7: every point in its scan's style, every name beside its scan, nothing on top of anything."""

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from lgffem_core.report import projection_figures as figures
from lgffem_core.report.style import save_figure

MEASURES = {"trustworthiness": 0.912, "knn_overlap": 0.6, "chance_overlap": 0.09}
NAMES = {scan: f"s{scan}" for scan in range(24)}


def scans_and_points(scans=24, each=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(scans), each)
    return labels, rng.standard_normal((scans, 2))[labels] * 3 + rng.standard_normal((len(labels), 2))


def drawn(labels, points, panels=("A", "B", "C")):
    maps = {name: points * (i + 1) + i for i, name in enumerate(panels)}
    return figures.projection_panels(maps, labels, NAMES, {name: MEASURES for name in panels}, "UMAP", "DEMO")


def overlaps(places, box):
    pairs = itertools.combinations(places, 2)
    return [(a, b) for a, b in pairs if (np.abs(a - b) < box - 1e-6).all()]


#: What colours look like without red, and without green, cones (Machado et al., IEEE TVCG 2009; linear RGB).
WITHOUT = {
    "none missing": np.eye(3),
    "red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def seen(colour, matrix):
    """sRGB of a colour as somebody sees it to whom ``matrix`` applies."""
    linear = np.matmul(matrix, np.array(to_rgb(colour)) ** 2.2)
    return linear.clip(0, 1) ** (1 / 2.2)


def test_24_scans_have_24_styles_of_eight_colours_and_three_shapes():
    styles = [figures.scan_style(scan) for scan in range(24)]
    assert len({(*to_rgb(style["color"][0]), style["marker"]) for style in styles}) == 24
    assert len({to_rgb(style["color"][0]) for style in styles}) == 8
    assert len({style["marker"] for style in styles}) == 3


@pytest.mark.parametrize("missing", WITHOUT)
def test_no_two_colours_look_alike(missing):
    colours = [seen(colour, WITHOUT[missing]) for colour in figures.SCAN_COLOURS]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(colours, 2)) > 0.19


def test_panels_carry_their_name_and_measures_and_no_ticks():
    figure = drawn(*scans_and_points())
    panels = figure.axes[:3]
    expected = "trustworthiness 0.912\nk-NN overlap 0.60 (chance 0.09)"
    assert [panel.get_title() for panel in panels] == [f"{name}\n{expected}" for name in "ABC"]
    assert all(not panel.get_xticks().size and not panel.get_yticks().size for panel in panels)
    assert panels[0].get_ylabel() == "axes have no unit"
    assert figure.get_suptitle() == "UMAP" and figure.texts[-1].get_text() == "DEMO"


def test_each_scan_has_its_points_up_to_one_shift_and_one_scale():
    labels, points = scans_and_points()
    collections = drawn(labels, points).axes[1].collections
    assert len(collections) == 24
    inches = np.concatenate([np.asarray(collection.get_offsets()) for collection in collections])
    original = np.concatenate([points[labels == scan] for scan in range(24)])
    scale = np.ptp(inches, axis=0) / np.ptp(original, axis=0)
    assert scale[0] == pytest.approx(scale[1])
    np.testing.assert_allclose(inches - inches[0], (original - original[0]) * scale, atol=1e-9)
    assert (inches > 0).all() and (inches < figures.PANEL).all()


def test_a_name_stands_at_the_median_of_its_points_where_there_is_room():
    labels = np.repeat(np.arange(4), 3)
    corners = np.array([[0, 0], [10, 0], [0, 10], [10, 10]])
    points = corners[labels] + np.tile([[-1, 0], [0.2, 0.1], [1, 1]], (4, 1))
    panel = drawn(labels, points).axes[0]
    for scan, (text, collection) in enumerate(zip(panel.texts, panel.collections, strict=True)):
        assert text.get_text() == f"s{scan}"
        np.testing.assert_allclose(text.get_position(), np.median(np.asarray(collection.get_offsets()), axis=0))


def test_a_name_does_not_hide_a_compact_scan():
    rng = np.random.default_rng(0)
    compact = rng.uniform(-0.04, 0.04, (30, 2)) + 1
    place = figures.name_anchor(compact, radius=0.02)
    assert place[0] == pytest.approx(np.median(compact[:, 0]))
    assert place[1] - figures.NAME_BOX[1] / 2 == pytest.approx(compact[:, 1].max() + 0.02)
    wide = rng.uniform(-1, 1, (30, 2))
    np.testing.assert_allclose(figures.name_anchor(wide, radius=0.02), np.median(wide, axis=0))


def test_names_do_not_overlap_on_a_crowded_map():
    labels, points = scans_and_points()
    points[labels < 12] *= 0.01  # half of the scans on one heap
    panel = drawn(labels, points).axes[0]
    places = [np.array(text.get_position()) for text in panel.texts]
    medians = [np.median(np.asarray(collection.get_offsets()), axis=0) for collection in panel.collections]
    assert overlaps(medians, figures.NAME_BOX) and not overlaps(places, figures.NAME_BOX)


def test_a_line_leads_from_the_median_to_a_name_beside_it_and_not_through_it():
    labels, points = scans_and_points()
    points[labels < 12] *= 0.01
    panel = drawn(labels, points).axes[0]
    medians = [np.median(np.asarray(collection.get_offsets()), axis=0) for collection in panel.collections]
    places = [np.array(text.get_position()) for text in panel.texts]
    assert panel.lines
    for line in panel.lines:
        start, end = line.get_xydata()
        scan = next(i for i in range(24) if np.allclose(start, medians[i]))
        assert (np.abs(end - places[scan]) / (figures.NAME_BOX / 2)).max() == pytest.approx(1)
    far = [i for i in range(24) if np.abs(medians[i] - places[i])[1] > 2 * figures.NAME_BOX[1]]
    assert len(panel.lines) >= len(far)


def test_printed_names_fit_into_the_boxes_that_keep_them_apart():
    figure = drawn(*scans_and_points())
    figure.draw_without_rendering()
    for text in figure.axes[0].texts:
        extent = text.get_window_extent()
        assert extent.width / figure.dpi <= figures.NAME_BOX[0] and extent.height / figure.dpi <= figures.NAME_BOX[1]


def test_spread_keeps_boxes_inside_and_leaves_free_ones_alone():
    anchors, box = np.array([[0.0, 0.0], [0.0, 0.0], [0.05, 0.0], [2.0, 2.0]]), np.array([0.4, 0.2])
    places = figures.push_apart(anchors, box, side=3.0)
    assert not overlaps(places, box)
    assert (places >= box / 2).all() and (places <= 3 - box / 2).all()
    np.testing.assert_array_equal(places[3], anchors[3])


def test_the_legend_names_every_scan_once_with_a_column_a_colour():
    legend = drawn(*scans_and_points()).axes[-1].get_legend()
    names = [text.get_text() for text in legend.get_texts()]
    assert names[:3] == ["s0", "s8", "s16"] and sorted(names) == sorted(NAMES.values())


def test_nothing_is_cut_off_and_no_title_meets_the_heading():
    figure = drawn(*scans_and_points())
    figure.draw_without_rendering()
    page = figure.bbox
    titles = [panel.title.get_window_extent() for panel in figure.axes[:3]]
    heading = figure._suptitle.get_window_extent()
    legend = figure.axes[-1].get_legend().get_window_extent()
    for extent in (*titles, heading, legend):
        assert extent.x0 >= page.x0 and extent.x1 <= page.x1 and extent.y0 >= page.y0 and extent.y1 <= page.y1
    assert all(not title.overlaps(heading) for title in titles)
    assert all(not a.overlaps(b) for a, b in itertools.combinations(titles, 2))
    assert not legend.overlaps(figure.texts[-1].get_window_extent())


def test_the_same_maps_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        save_figure(drawn(*scans_and_points()), tmp_path / name)
    for kind in (".png", ".svg"):
        assert (tmp_path / f"one{kind}").read_bytes() == (tmp_path / f"two{kind}").read_bytes()
