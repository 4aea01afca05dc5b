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


def hidden_by(panel):
    """Points of a map's markers that some name lies on, one list a name."""
    points = np.concatenate([np.asarray(collection.get_offsets()) for collection in panel.collections])
    radius = panel.collections[0].get_sizes()[0] ** 0.5 / 2 / 72
    places = [np.array(text.get_position()) for text in panel.texts]
    return [points[(np.abs(points - place) < figures.NAME_BOX / 2 + radius).all(axis=1)] for place in places]


def test_a_name_stands_beside_its_own_points_and_hides_none_where_there_is_room():
    labels, points = scans_and_points(scans=12, each=9)
    points[labels == 3] = points[labels == 3] * 0.01 + points[labels == 3].mean(axis=0)  # one small heap
    panel = drawn(labels, points).axes[0]
    assert [text.get_text() for text in panel.texts] == [f"s{scan}" for scan in range(12)]
    assert sum(map(len, hidden_by(panel))) == 0
    medians = [np.median(np.asarray(collection.get_offsets()), axis=0) for collection in panel.collections]
    away = [np.linalg.norm(text.get_position() - m) for text, m in zip(panel.texts, medians, strict=True)]
    assert max(away) < 0.7 and away[3] < 0.3


def test_where_a_map_is_full_names_hide_few_points():
    rng = np.random.default_rng(0)
    labels, points = np.repeat(np.arange(24), 50), rng.uniform(-1, 1, (1200, 2))
    panel = drawn(labels, points).axes[0]
    medians = [np.median(np.asarray(collection.get_offsets()), axis=0) for collection in panel.collections]
    at_medians = [np.array(m) for m in medians]
    found = sum(map(len, hidden_by(panel)))
    for text, median in zip(panel.texts, at_medians, strict=True):
        text.set_position(median)
    assert found < 0.5 * sum(map(len, hidden_by(panel)))


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


def test_names_stay_inside_and_leave_room_for_the_line_of_another():
    medians = np.array([[0.0, 0.0], [0.0, 0.0], [0.05, 0.0], [2.0, 2.0], [3.3, 3.3]])
    places = figures.free_places(medians, medians, radius=0.03)
    assert not overlaps(places, figures.NAME_BOX)
    assert (places >= figures.NAME_BOX / 2).all() and (places <= figures.PANEL - figures.NAME_BOX / 2).all()
    for i, (place, median) in enumerate(zip(places, medians, strict=True)):
        line = place + np.linspace(0.1, 0.9, 9)[:, None] * (median - place)
        for other in np.delete(places, i, axis=0):
            assert not (np.abs(line - other) < figures.NAME_BOX / 2).all(axis=1).any()


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
