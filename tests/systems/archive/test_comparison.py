"""Indices side by side: the table against counting by hand, and which rows are unbeaten."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection

from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import Study
from lgffem_core.systems.archive.comparison import compared, family, unbeaten
from lgffem_core.systems.archive.figures import trade_off
from lgffem_core.systems.archive.vectors import archive_vectors

INDICES = [
    {"factory": "PCA12,IVF8,RaBitQ4,Refine(SQ8)", "search": ["nprobe=1,k_factor_rf=1", "nprobe=8,k_factor_rf=8"]},
    {"factory": "HNSW8,Flat", "search": ["efSearch=64"]},
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A study of 2,000 vectors, its archive, queries and table."""
    sizes = {"vectors": 2000, "dimension": 16, "classes": 20, "queries": 25, "training_vectors": 500}
    overrides = {f"archive.{key}": value for key, value in {**sizes, "indices": INDICES}.items()}
    study = Study.load(PROJECT / "params" / "archive.yaml", overrides, root=tmp_path_factory.mktemp("archive"))
    vectors, queries, _ = archive_vectors(study)
    return study, vectors, queries, compared(study, vectors, queries)


def test_there_is_a_row_for_each_search_and_exact_search_comes_first(run):
    table = run[-1]
    assert list(table["index"]) == ["Flat", *[INDICES[0]["factory"]] * 2, "HNSW8,Flat"]
    assert list(table["search"]) == ["", *INDICES[0]["search"], *INDICES[1]["search"]]
    assert list(table["family"]) == ["exact", "RaBitQ", "RaBitQ", "graph"]
    assert (table["rate_low"] <= table["rate"]).all() and (table["rate"] <= table["rate_high"]).all()
    assert table["times_exact"].iloc[0] == 1 and set(table["on"]) == {"CPU"}


def test_exact_search_finds_all_and_takes_four_bytes_a_number(run):
    table = run[-1]
    assert table["recall"].iloc[0] == 100 and table["file_bytes"].iloc[0] == pytest.approx(64, abs=0.1)
    assert table["recall"].iloc[1] < table["recall"].iloc[2] <= 100 and table["recall"].iloc[2] > 90
    codes = 16 + (12 * 4 / 8) + 8  # SQ8, RaBitQ4 and the id; RaBitQ's factors and the tables come to that
    assert codes < table["file_bytes"].iloc[1] < 64


def test_nothing_is_left_behind(run):
    assert list(run[0].artifacts.iterdir()) == []


def test_unbeaten_is_what_no_other_row_is_better_than_and_as_good_in_the_rest():
    rows = [(100, 10, 64), (90, 50, 8), (90, 50, 9), (80, 50, 8), (70, 90, 64), (90, 50, 8), (60, 80, 65)]
    table = pd.DataFrame(rows, columns=["recall", "rate", "file_bytes"])
    assert unbeaten(table) == [True, True, False, False, True, True, False]


@pytest.mark.parametrize(
    ("factory", "name"),
    [
        ("Flat", "exact"),
        ("PCA8,IVF8,RaBitQ4,RFlat", "RaBitQ"),
        ("IVF8_HNSW8,PQ4x4fs", "product quantiser"),
        ("HNSW8_SQ8", "graph"),
        ("IVF8,SQ8", "inverted lists"),
        ("SQ8", "other"),
    ],
)
def test_families(factory, name):
    assert family(factory) == name


def test_the_figure_has_a_marker_for_each_row_with_the_area_of_its_memory(run):
    table = run[-1]
    figure = trade_off(table, 10, "heading", "label")
    markers = (each for each in figure.axes[0].collections if isinstance(each, PathCollection))
    drawn = [marks for marks in markers if len(marks.get_offsets())]  # those of the legend have none
    points = np.concatenate([marks.get_offsets() for marks in drawn])
    np.testing.assert_allclose(np.sort(points[:, 1]), np.sort(table["rate"]))
    np.testing.assert_allclose(
        np.sort(np.concatenate([marks.get_sizes() for marks in drawn])), np.sort(0.06 * table["file_bytes"])
    )
