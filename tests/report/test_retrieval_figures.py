"""Pictures of retrieval: the right neighbours, the right frames, the right bars."""

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lgffem_core.report import retrieval_figures as figures
from lgffem_core.report.style import RIGHT, WRONG, save_figure
from lgffem_core.retrieval.protocols import Outcome
from lgffem_core.study import PROJECT, Study


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
    figure = figures.query_strip(made, table[table["split"] == "test"], embeddings, query=0, neighbours=2)
    assert [int(ax.images[0].get_array()[0, 0, 0]) for ax in figure.axes] == [40, 120, 80]
    assert [frame(ax) for ax in figure.axes[1:]] == [pytest.approx(WRONG), pytest.approx(RIGHT)]
    assert [ax.get_title() for ax in figure.axes] == ["query s0", "s1\nd² = 1.000", "s0\nd² = 9.000"]


def test_split_grid_has_training_above_test(study):
    made, table = study
    figure = figures.split_grid(made, table, scans=2)
    assert [ax.get_title() for ax in figure.axes] == ["s0, train", "s1, train", "s0, test", "s1, test"]
    assert [int(ax.images[0].get_array()[0, 0, 0]) for ax in figure.axes] == [40, 120, 40, 120]


def test_similarity_map_holds_the_mean_cosines():
    embeddings, labels = np.array([[1.0, 0], [0, 2.0], [3.0, 0]]), np.array([0, 1, 1])
    figure = figures.similarity_map(embeddings, labels, ["x", "y"], "title", "DEMO")
    drawn = figure.axes[0].collections[0].get_array().reshape(2, 2)
    np.testing.assert_allclose(drawn, [[1, 0.5], [0.5, 0.5]])  # (y is the mean of two orthogonal unit vectors)


def test_scan_bars_average_seeds_and_sort(study):
    outcomes = [Outcome(np.array([2, 1]), np.array([2, 2]), None), Outcome(np.array([2, 0]), np.array([2, 2]), None)]
    ax = figures.scan_bars(outcomes, study[0]).axes[0]
    assert [patch.get_height() for patch in ax.patches] == [25, 100]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["s1", "s0"]


def test_protocol_bars_draw_every_row_and_the_paper_where_it_belongs(study):
    rows = [
        {
            "strategy": s,
            "variant": "paper",
            "protocol": p,
            "eta_p": value,
            "eta_p_low": value - 2,
            "eta_p_high": value + 1,
            "paper_eta_p": 72.08 if p == "released" else float("nan"),
        }
        for s, value in zip("ABC", (20, 30, 60), strict=True)
        for p in ("test_to_train", "leave_one_out", "released")
    ]
    figure = figures.protocol_bars(pd.DataFrame(rows), study[0])
    ax = figure.axes[0]
    assert sorted(patch.get_height() for patch in ax.patches) == [20] * 3 + [30] * 3 + [60] * 3
    diamonds = np.ma.concatenate([c.get_offsets()[:, 1] for c in ax.collections if len(c.get_offsets()) == 3])
    assert diamonds.compressed()[~np.isnan(diamonds.compressed())].tolist() == [72.08] * 3


def test_saved_figures_are_the_same_bytes_each_time(study, tmp_path):
    for name in ("one", "two"):
        outcomes = [Outcome(np.array([2, 1]), np.array([2, 2]), None)]
        save_figure(figures.scan_bars(outcomes, study[0]), tmp_path / name)
    for kind in (".png", ".svg"):
        assert (tmp_path / f"one{kind}").read_bytes() == (tmp_path / f"two{kind}").read_bytes()
