"""Pictures of retrieval: the right neighbours, the right frames, the right bars."""

import itertools

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import Study
from lgffem_core.report import retrieval_figures as figures
from lgffem_core.report.style import RIGHT, WRONG, save_figure
from lgffem_core.retrieval.protocols import Outcome, leave_one_out


@pytest.fixture
def study(tmp_path):
    """Four 8×8 Kimia patches of two scans, each of its own grey."""
    rows = []
    for split in ("train", "test"):
        for k, grey in enumerate((40, 80, 120, 160)):
            path = tmp_path / split / f"s{k // 2}" / f"s{k // 2}_{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (grey, grey, grey)).save(path)
            rows.append((path.relative_to(tmp_path).as_posix(), f"s{k // 2}", k // 2, split))
    made = Study.load(PROJECT / "params" / "smoke.yaml", {"data.kimia.root": str(tmp_path)}, root=tmp_path)
    return made, pd.DataFrame(rows, columns=["path", "label", "label_id", "split"])


def frame(ax):
    return matplotlib.colors.to_rgb(ax.spines["left"].get_edgecolor())


def test_query_strip_shows_the_query_then_its_neighbours_framed_by_scan(study):
    made, table = study
    embeddings = np.array([[0.0], [3.0], [1.0], [9.0]], dtype=np.float32)  # 2 is nearest to 0, then 1
    figure = figures.query_strip(made, "kimia", table[table["split"] == "test"], embeddings, query=0, neighbours=2)
    assert [int(ax.images[0].get_array()[0, 0, 0]) for ax in figure.axes] == [40, 120, 80]
    assert [frame(ax) for ax in figure.axes[1:]] == [pytest.approx(WRONG), pytest.approx(RIGHT)]
    assert [ax.get_title() for ax in figure.axes] == ["query s0", "✗ s1\nd² = 1.000", "✓ s0\nd² = 9.000"]
    assert [ax.spines["left"].get_linestyle() for ax in figure.axes[1:]] == ["--", "-"]


def test_the_query_is_left_out_by_id_even_among_duplicates():
    embeddings = np.array([[1.0], [1.0], [1.0], [4.0]], dtype=np.float32)
    for query, expected in ((0, [1, 2]), (1, [0, 2]), (2, [0, 1]), (3, [0, 1])):
        _, ids = figures.nearest_others(embeddings, query, 2)
        assert ids.tolist() == expected


def test_a_small_set_has_fewer_neighbours_and_scans_than_asked_for(study):
    made, table = study
    embeddings = np.array([[0.0], [3.0], [1.0], [9.0]], dtype=np.float32)
    strip = figures.query_strip(made, "kimia", table[table["split"] == "test"], embeddings, query=0, neighbours=5)
    assert len(strip.axes) == 1 + 3
    assert [ax.get_title() for ax in figures.split_grid(made, "kimia", table, scans=6).axes] == [
        "s0, train", "s1, train", "s0, test", "s1, test",
    ]  # fmt: skip


def test_a_distance_that_rounds_to_zero_is_not_printed_as_zero():
    images = [np.zeros((2, 2, 3), dtype=np.uint8)] * 2
    figure = figures.neighbour_strip(images, ["s0", "s0"], [0.0, 0.0001], "DEMO")
    assert figure.axes[1].get_title() == "✓ s0\nd² < 0.001"


@pytest.mark.parametrize(
    ("distance", "text"), [(0.0, "0.000"), (0.0004, "<0.001"), (0.0005, "0.001"), (1.2345, "1.234"), (1234.5, "1234")]
)
def test_distances_are_printed_in_few_characters(distance, text):
    assert figures.squared(distance) == text


def figure_3(made, table, embeddings):
    """As notebook 07 draws it."""
    tests = table[table["split"] == "test"]
    return figures.query_strip(made, "kimia", tests, embeddings, query=0, neighbours=1, side=2.6, named=True)


def test_figure_3_is_the_first_query_and_what_leave_one_out_retrieves_for_it(study):
    made, table = study
    embeddings = np.array([[0.0], [3.0], [1.0], [9.0]], dtype=np.float32)
    figure = figure_3(made, table, embeddings)
    assert [int(ax.images[0].get_array()[0, 0, 0]) for ax in figure.axes] == [40, 120]
    assert [ax.get_title() for ax in figure.axes] == ["query s0\ns0_0.png", "✗ s1\ns1_2.png\nd² = 1.000"]
    assert leave_one_out(embeddings, np.array([0, 0, 1, 1])).hits.tolist()[0] is False  # the protocol agrees


def test_no_title_of_figure_3_is_cut_off(study):
    made, table = study
    embeddings = np.array([[0.0], [3.0], [1.0], [9.0]], dtype=np.float32)
    figure = figure_3(made, table, embeddings)
    figure.draw_without_rendering()
    for ax in figure.axes:
        extent = ax.title.get_window_extent()
        assert extent.y1 <= figure.bbox.y1 and extent.x0 >= 0 and extent.x1 <= figure.bbox.x1


def test_the_gallery_asks_each_scan_once_and_orders_by_distance(study):
    made, table = study
    embeddings = np.array([[0.0], [3.0], [1.0], [9.0]], dtype=np.float32)
    ax = figures.gallery(made, "kimia", table[table["split"] == "test"], embeddings, neighbours=2).axes[0]
    assert [int(image.get_array()[0, 0, 0]) for image in ax.images] == [40, 120, 80, 120, 40, 80]
    words = ["query s0", "✗ s1  1.000", "✓ s0  9.000", "query s1", "✗ s0  1.000", "✗ s0  4.000"]
    assert [text.get_text() for text in ax.texts] == words
    frames = [(matplotlib.colors.to_rgb(p.get_edgecolor()), p.get_linestyle()) for p in ax.patches]
    right, wrong = (pytest.approx(RIGHT), "-"), (pytest.approx(WRONG), "--")
    assert [frames[i] for i in (1, 2, 4, 5)] == [wrong, right, wrong, wrong]


def test_the_gallery_shows_what_there_is_where_a_test_set_is_tiny(study):
    made, table = study
    embeddings = np.array([[0.0], [3.0], [1.0], [9.0]], dtype=np.float32)
    ax = figures.gallery(made, "kimia", table[table["split"] == "test"], embeddings).axes[0]
    assert len(ax.images) == 2 * 4  # two queries, each with the three others


def test_a_gallery_of_24_scans_stays_small_and_clean(tmp_path):
    """Noise does not compress, so no tissue makes a larger file."""
    rng, rows = np.random.default_rng(0), []
    for k in range(144):
        path = tmp_path / f"s{k // 6}_{k}.png"
        Image.fromarray(rng.integers(0, 256, (100, 100, 3), dtype=np.uint8)).save(path)
        rows.append((path.name, f"s{k // 6}", k // 6, "test"))
    made = Study.load(PROJECT / "params" / "smoke.yaml", {"data.kimia.root": str(tmp_path)}, root=tmp_path)
    table = pd.DataFrame(rows, columns=["path", "label", "label_id", "split"])
    figure = figures.gallery(made, "kimia", table, rng.standard_normal((144, 4)).astype(np.float32))
    save_figure(figure, tmp_path / "gallery")
    assert (tmp_path / "gallery.png").stat().st_size < 3.0e6
    assert (tmp_path / "gallery.svg").stat().st_size < 4e6
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 144 and not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes)
    assert np.prod(figure.get_size_inches()) < 8.3 * 11.7  # an A4 page


def test_thumbnails_keep_their_shape_and_are_never_enlarged(tmp_path):
    Image.new("RGB", (200, 100), (10, 20, 30)).save(tmp_path / "wide.png")
    Image.new("RGB", (8, 8), (10, 20, 30)).save(tmp_path / "small.png")
    assert figures.thumbnail(tmp_path / "wide.png", 50).shape == (25, 50, 3)
    assert figures.thumbnail(tmp_path / "small.png", 50).shape == (8, 8, 3)
    assert (figures.thumbnail(tmp_path / "wide.png", 50) == (10, 20, 30)).all()


def test_split_grid_has_training_above_test(study):
    made, table = study
    figure = figures.split_grid(made, "kimia", table, scans=2)
    assert [ax.get_title() for ax in figure.axes] == ["s0, train", "s1, train", "s0, test", "s1, test"]
    assert [int(ax.images[0].get_array()[0, 0, 0]) for ax in figure.axes] == [40, 120, 40, 120]


def test_similarity_map_holds_the_mean_cosines():
    embeddings, labels = np.array([[1.0, 0], [0, 2.0], [3.0, 0]]), np.array([0, 1, 1])
    figure = figures.similarity_panels({"title": embeddings}, labels, ["x", "y"], "DEMO")
    drawn = figure.axes[0].collections[0].get_array().reshape(2, 2)
    np.testing.assert_allclose(drawn, [[1, 0.5], [0.5, 0.5]])  # (y is the mean of two orthogonal unit vectors)


def test_similarity_panels_share_one_colour_scale():
    labels = np.array([0, 1])
    seen = {"before": np.array([[1.0, 0], [0.8, 0.6]]), "after": np.array([[0, 3.0], [2.0, 0]])}
    figure = figures.similarity_panels(seen, labels, ["x", "y"], "DEMO")
    maps = {ax.get_title(): ax.collections[0] for ax in figure.axes if ax.get_title()}
    assert list(maps) == ["before", "after"]
    assert [colours.get_clim() for colours in maps.values()] == [(0, 1), (0, 1)]
    np.testing.assert_allclose(maps["before"].get_array().reshape(2, 2), [[1, 0.8], [0.8, 1]])


def test_scan_bars_average_seeds_and_sort(study):
    outcomes = [Outcome(np.array([2, 1]), np.array([2, 2]), None), Outcome(np.array([2, 0]), np.array([2, 2]), None)]
    ax = figures.scan_bars(outcomes, study[0]).axes[0]
    assert [patch.get_height() for patch in ax.patches] == [25, 100]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["s1", "s0"]


def test_the_mean_of_scan_bars_is_named_outside_the_bars(study):
    for right in (1, 8):  # of ten: bars are low or high
        figure = figures.scan_bars([Outcome(np.full(24, right), np.full(24, 10), None)], study[0])
        figure.canvas.draw()
        (legend,), ax = figure.legends, figure.axes[0]
        assert legend.get_texts()[0].get_text() == f"mean (η_w) {right}0.0 %" and ax.get_legend() is None
        assert inside(figure, legend) and not legend.get_window_extent().overlaps(ax.get_window_extent())


def inside(figure, artist):
    box, (width, height) = artist.get_window_extent(), figure.bbox.size
    return 0 <= box.x0 < box.x1 <= width and 0 <= box.y0 < box.y1 <= height


@pytest.mark.parametrize("variants", [["paper head_norm=true"], ["paper", "released"]])
def test_protocol_bars_draw_every_row_and_the_paper_where_it_belongs(study, variants):
    rows = [
        {
            "strategy": s,
            "variant": v,
            "protocol": p,
            "eta_p": value,
            "eta_p_low": value - 2,
            "eta_p_high": value + 1,
            "paper_eta_p": 72.08 if p == "released" else float("nan"),
        }
        for s, value in zip("ABC", (20, 30, 60), strict=True)
        for p in ("test_to_train", "leave_one_out", "released")
        for v in variants
    ]
    figure = figures.protocol_bars(pd.DataFrame(rows), study[0])
    ax = figure.axes[0]
    assert sorted(patch.get_height() for patch in ax.patches) == [20] * 3 + [30] * 3 + [60] * 3
    drawn = [c for c in ax.collections if len(c.get_offsets()) == 3]
    diamonds = np.ma.concatenate([c.get_offsets()[:, 1] for c in drawn])
    assert diamonds.compressed()[~np.isnan(diamonds.compressed())].tolist() == [72.08] * 3
    figure.canvas.draw()
    assert "paper, on Kimia Path24C" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert inside(figure, figure.legends[0])


def test_a_published_diamond_is_hollow_and_grey(study):
    """As its data are others than those of the bars that it stands before."""
    row = {"strategy": "A", "variant": "paper", "protocol": "released", "eta_p": 20, "eta_p_low": 18, "eta_p_high": 21}
    ax = figures.protocol_bars(pd.DataFrame([row | {"paper_eta_p": 72.08}]), study[0]).axes[0]
    (diamond,) = (c for c in ax.collections if 72.08 in c.get_offsets())
    assert len(diamond.get_facecolor()) == 0
    (edge,) = diamond.get_edgecolor().tolist()
    assert edge[0] == edge[1] == edge[2] > 0


def test_saved_figures_are_the_same_bytes_each_time(study, tmp_path):
    for name in ("one", "two"):
        outcomes = [Outcome(np.array([2, 1]), np.array([2, 2]), None)]
        save_figure(figures.scan_bars(outcomes, study[0]), tmp_path / name)
    for kind in (".png", ".svg"):
        assert (tmp_path / f"one{kind}").read_bytes() == (tmp_path / f"two{kind}").read_bytes()
