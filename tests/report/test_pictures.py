"""The notebooks' pictures: the right panels, the given pixels in them, and on each the data's label."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lgffem_core.report import pictures
from lgffem_core.report.style import axes

LABEL = "profile test: DEMO, made for a test"


def noise(seed, side=8):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def pixels(ax):
    (image,) = ax.images
    return np.asarray(image.get_array())


def texts(figure):
    return [text.get_text() for text in figure.texts]


def table(counts):
    """A PatchTable's columns that matter here, from {(label, split): images}."""
    names = list(dict.fromkeys(label for label, _ in counts))
    rows = [(label, names.index(label), split) for (label, split), n in counts.items() for _ in range(n)]
    return pd.DataFrame(rows, columns=["label", "label_id", "split"])


def every_figure():
    image, maps = noise(0), [[np.eye(3), np.eye(5)]]
    return {
        "patch_grid": pictures.patch_grid([image], ["one"], "heading", LABEL),
        "augmentation_grid": pictures.augmentation_grid(image, {"A": [noise(1)]}, "heading", LABEL),
        "class_counts": pictures.class_counts(table({("s0", "train"): 2}), "heading", LABEL),
        "density_maps": pictures.density_maps(image, "heading", LABEL),
        "feature_maps": pictures.feature_maps(image, maps, ["r"], ["a", "b"], "heading", LABEL),
        "line_chart": pictures.line_chart(np.arange(3), {"y": np.arange(3)}, ("x", "y"), "heading", LABEL),
    }


def test_every_picture_carries_label_and_heading_inside_its_borders_and_is_closed():
    for name, figure in every_figure().items():
        assert LABEL in texts(figure), name
        assert figure.get_suptitle() == "heading", name
        figure.draw_without_rendering()
        width, height = figure.bbox.size
        for text in figure.texts:
            box = text.get_window_extent()
            assert 0 <= box.x0 and box.x1 <= width and 0 <= box.y0 and box.y1 <= height, (name, text.get_text())
    assert plt.get_fignums() == []


def test_label_stands_below_all_panels():
    for name, figure in every_figure().items():
        figure.draw_without_rendering()
        foot = next(text for text in figure.texts if text.get_text() == LABEL).get_window_extent().y1
        assert all(ax.get_tightbbox().y0 >= foot - 1 for ax in figure.axes), name


def test_patch_grid_shows_the_images_in_order_under_their_titles():
    images = [noise(i, side=4 + i) for i in range(5)]
    figure = pictures.patch_grid(images, list("abcde"), "heading", LABEL, columns=3)
    assert [ax.get_title() for ax in figure.axes] == list("abcde")
    for ax, image in zip(figure.axes, images, strict=True):
        np.testing.assert_array_equal(pixels(ax), image)
    rows = sorted({round(ax.get_position().y0, 3) for ax in figure.axes})
    assert len(rows) == 2  # three columns: a, b, c above d, e


@pytest.mark.parametrize("images, titles", [([], []), ([noise(0)], ["a", "b"])])
def test_patch_grid_refuses_nothing_to_show_and_unequal_titles(images, titles):
    with pytest.raises(ValueError, match=f"{len(images)} images and {len(titles)} titles"):
        pictures.patch_grid(images, titles, "heading", LABEL)


def test_augmentation_grid_starts_each_row_with_the_original():
    rows = {"strategy A": [noise(1), noise(2)], "strategy B": [noise(3), noise(4)]}
    figure = pictures.augmentation_grid(noise(0), rows, "heading", LABEL)
    shown = [pixels(ax) for ax in figure.axes]
    expected = [noise(0), noise(1), noise(2), noise(0), noise(3), noise(4)]
    np.testing.assert_array_equal(shown, expected)
    assert [ax.get_ylabel() for ax in figure.axes] == ["strategy A", "", "", "strategy B", "", ""]


def test_class_counts_draws_each_split_with_its_own_bars_in_label_order():
    counts = {("s0", "train"): 5, ("s1", "train"): 3, ("s10", "train"): 4, ("s0", "test"): 2, ("s10", "test"): 1}
    figure = pictures.class_counts(table(counts), "heading", LABEL)
    train, test = figure.axes
    assert [bar.get_height() for bar in train.patches] == [5, 3, 4]
    assert [bar.get_height() for bar in test.patches] == [2, 0, 1]
    assert [tick.get_text() for tick in test.get_xticklabels()] == ["s0", "s1", "s10"]
    assert (train.get_ylabel(), test.get_ylabel()) == ("images, train", "images, test")


def test_class_counts_leaves_out_names_that_would_not_fit():
    many = table({(f"n{i}", "train"): 1 for i in range(pictures.NAMED_BARS + 1)})
    (ax,) = pictures.class_counts(many, "heading", LABEL).axes
    assert ax.get_xlabel() == "41 classes, in label order"
    assert not any(tick.get_text().startswith("n") for tick in ax.get_xticklabels())


def test_optical_density_adds_up_where_light_is_multiplied():
    image = np.array([[[255, 128, 0]]], np.uint8)
    np.testing.assert_allclose(
        pictures.optical_density(image)[0, 0], [0.0, -np.log(128 / 255), np.log(255)], rtol=1e-12
    )
    half, quarter = (pictures.optical_density(np.full((1, 1, 3), value, np.uint8)) for value in (51 * 2, 51))
    np.testing.assert_allclose(quarter - half, np.log(2), rtol=1e-12)


def test_density_maps_shows_the_patch_and_three_channels_on_one_scale():
    image = noise(7)
    panels = pictures.density_maps(image, "heading", LABEL).axes[:4]
    np.testing.assert_array_equal(pixels(panels[0]), image)
    for channel, ax in enumerate(panels[1:]):
        np.testing.assert_allclose(pixels(ax), pictures.optical_density(image)[..., channel])
    assert len({ax.images[0].get_clim() for ax in panels[1:]}) == 1


def test_feature_maps_places_rows_and_columns():
    maps = [[np.full((4, 4), 10 * r + c) + np.eye(4) for c in range(2)] for r in range(3)]
    figure = pictures.feature_maps(noise(0), maps, ["one", "two", "three"], ["P1_2", "P2_2"], "heading", LABEL)
    patch, *panels = figure.axes
    np.testing.assert_array_equal(pixels(patch), noise(0))
    assert len(panels) == 6
    for ax, values in zip(panels, [values for row in maps for values in row], strict=True):
        np.testing.assert_array_equal(pixels(ax), values)
    assert [ax.get_ylabel() for ax in panels] == ["one", "", "two", "", "three", ""]
    assert panels[1].get_title() == "P2_2  4×4"


def test_line_chart_draws_the_given_points_and_marks():
    x = np.array([1.0, 10.0, 100.0])
    figure = pictures.line_chart(
        x, {"up": x * 2, "down": -x}, ("p", "value"), "heading", LABEL, log=True, marks={"paper": 4.6}
    )
    (ax,) = figure.axes
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), x * 2)
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), -x)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["up", "down"]
    assert list(ax.lines[2].get_xdata()) == [4.6, 4.6] and ax.texts[0].get_text() == "paper"
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_xscale()) == ("p", "value", "log")


def test_over_one_axes_the_heading_stands_in_its_middle_whatever_is_beside_it():
    figure, ax = axes(8.0, 3.0)
    ax.barh(["a name that takes a good part of the figure"], [1], label="one")
    figure.legend(loc="outside right upper")
    pictures.finish(figure, "heading", LABEL).draw_without_rendering()
    heading, box = figure._suptitle.get_window_extent(), ax.get_window_extent()
    assert heading.x0 + heading.x1 == pytest.approx(box.x0 + box.x1, abs=2)
    assert abs(box.x0 + box.x1 - figure.bbox.width) > 20  # the figure's middle is another


def test_a_long_heading_stays_inside_the_figure():
    figure, ax = axes(6.0, 3.0)
    ax.barh(["a name that takes most of the figure, and leaves little beside it"], [1])
    pictures.finish(figure, "a heading that is nearly as wide as the figure, no more than a line", LABEL)
    figure.draw_without_rendering()
    heading = figure._suptitle.get_window_extent()
    assert 0 <= heading.x0 < heading.x1 <= figure.bbox.width
