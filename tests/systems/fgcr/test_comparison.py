"""What the demo's FGCR is worth on synthetic slides: above chance and floors, and regions need their terms."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import Study
from lgffem_core.data import prepare
from lgffem_core.systems.fgcr import comparison
from lgffem_core.systems.fgcr.archive import Archive
from lgffem_core.systems.fgcr.comparison import (
    ALL,
    MEASURED,
    NO_FINE,
    OTHER_SEED,
    ablation,
    ablation_runs,
    beyond_yardstick,
    difference,
    ledger_runs,
    result,
    run_of,
)
from lgffem_core.systems.fgcr.figures import answers_figure, delta_chart, palette, task_chart
from lgffem_core.systems.fgcr.floors import anchor_floor, floor_vectors
from lgffem_core.systems.fgcr.regions import pointed
from lgffem_core.systems.fgcr.scoring import CLASS, TASKS
from lgffem_core.systems.fgcr.tables import nearest, region_rows, task_table
from lgffem_core.systems.fgcr.training import recipe


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    wanted = {"systems": ["fgcr"], "data.synthetic.datasets": ["reports"]}
    study = Study.load(PROJECT / "params" / "demo.yaml", wanted, root=tmp_path_factory.mktemp("demo"))
    prepare(study, "reports")
    return study, Archive.load(study)


@pytest.fixture(scope="module")
def paper(demo):
    study, archive = demo
    return result(study, archive, run_of(study, "paper", 0))


def test_four_tasks_are_above_chance_and_floors_by_an_interval_that_excludes_them(demo, paper):
    table = task_table(*demo, {"paper": [paper]})
    for task in TASKS:
        rows = table[(table["task"] == task) & (table["level"] == CLASS)].set_index("method")
        assert rows.loc["FGCR, paper", "R@1_low"] > rows.loc["chance", "R@1"], task
        assert rows.loc["FGCR, paper", "gain_low"] > 0, task
        assert rows.loc["FGCR, paper", "R@1"] - rows.loc["floor", "R@1"] == pytest.approx(
            rows.loc["FGCR, paper", "gain"], abs=0.011
        )
    instance = table[table["level"] == "instance"].set_index(["task", "method"])
    assert set(instance.index.levels[0]) == {"slide to report", "report to slide"}
    assert (instance["R@5"].xs("FGCR, paper", level=1) > instance["R@5"].xs("chance", level=1)).all()


def test_pointing_is_above_chance_and_without_the_fine_grained_terms_it_is_not(demo, paper):
    study, archive = demo
    runs = {run.name: run for run in ablation_runs(study)}
    base, coarse = (result(study, archive, runs[name]) for name in (ALL, NO_FINE))
    found = difference(study, base, coarse)
    assert found["region_change_high"] < -20
    assert found["region"] == pytest.approx(100 * coarse.regions["hit"].mean())
    rows = region_rows({"paper": paper.regions, "floor": pointed(archive, anchor_floor(archive))}, 90, 2000)
    rows = rows.set_index("method")
    assert rows.loc["paper", "R@1_low"] > 2 * rows.loc["chance", "R@1"]
    assert found["region"] < 1.5 * rows.loc["chance", "R@1"]


def test_answers_are_the_nearest_and_can_be_shown(demo, paper):
    study, archive = demo
    asks = archive.of("test")[:2]
    for task, searched in {"slide to report": "report", "report to slide": "slide"}.items():
        answers = nearest(paper, asks, task, 3)
        right = [record.label == query.label for query, row in zip(asks, answers, strict=True) for record in row]
        assert [len(row) for row in answers] == [3, 3] and sum(right) >= 3
        figure = answers_figure(asks, answers, searched, palette(archive.records), "answers", study.label)
        assert len(figure.axes) == 8
    assert len(nearest(paper, asks, "slide to report", 1000)[0]) == len(archive.of("test"))  # of fewer, all


def test_a_report_too_long_for_its_frame_says_that_it_goes_on(demo):
    study, archive = demo
    short = archive.of("test")[0]
    long = replace(short, report=" ".join([short.report] * 20))
    figure = answers_figure([short], [[short, long]], "report", palette(archive.records), "answers", study.label)
    figure.draw_without_rendering()
    for panel in figure.axes[1:]:
        (text,) = panel.texts
        inside, frame = text.get_window_extent(), panel.get_window_extent()
        assert frame.contains(*inside.min) and frame.contains(*inside.max)
    assert [panel.texts[0].get_text().endswith(" …") for panel in figure.axes[1:]] == [False, True]


def test_a_number_that_is_the_same_on_all_slides_breaks_no_floor(study):
    """As a channel of a backbone that tissue never wakes."""
    prepare(study, "reports")
    archive = Archive.load(study)
    still = [replace(r, features=np.pad(r.features, ((0, 0), (0, 1)), constant_values=3)) for r in archive.records]
    same = replace(archive, records=still)
    for task, pair in floor_vectors(archive).items():
        for one, other in zip(pair, floor_vectors(same)[task], strict=True):
            assert np.abs(one - other[:, : one.shape[1]]).max() < 1e-6
    assert all(np.isfinite(looks).all() for looks in anchor_floor(same))


def test_the_table_of_terms_has_the_yardstick_of_the_ledger(monkeypatch, tmp_path):
    study = Study.load(PROJECT / "params" / "smoke.yaml", root=tmp_path)
    trained = []
    monkeypatch.setattr(comparison, "result", lambda study, archive, run: trained.append(run) or run)
    monkeypatch.setattr(comparison, "difference", lambda study, base, other: {"base": base.name, "seed": other.seed})
    table = ablation(study, None)
    first, seed, *others = ablation_runs(study)[0], ledger_runs(study)[0], *ablation_runs(study)[1:]
    assert trained == [first, seed, *others] and table["run"].tolist()[:2] == [ALL, OTHER_SEED]
    assert table["seed"].tolist() == [0, 1, *[0] * len(others)] and set(table["base"]) == {ALL}


def test_bands_are_as_wide_as_what_another_seed_does():
    """Or as half the yardstick's interval, where the two seeds happen to score alike: region level here."""
    changes = {"change": [-12.0, 3, 5], "region_change": [2.0, -30, 1]}
    ends = {f"{name}_{end}": values for name, values in changes.items() for end in ("low", "high")}
    ends |= {"region_change_low": [-1.0, -30, 1], "region_change_high": [7.0, -30, 1]}
    figure = delta_chart(pd.DataFrame({"run": [OTHER_SEED, "a", "b"], **changes, **ends}), "run", "heading", "label")
    bands = [patch.get_extents().transformed(figure.axes[0].transData.inverted()) for patch in figure.axes[0].patches]
    assert [(round(band.x0, 6), round(band.x1, 6)) for band in bands] == [(-12, 12), (-4, 4)]
    assert len({patch.get_hatch() for patch in figure.axes[0].patches} - {None}) == 2  # where they overlap, both show


def test_what_goes_beyond_another_seed_does_so_on_either_side_and_surely():
    changes = {
        "change": [-12.0, 12, 13, -13, 13, 3], "change_low": [-20.0, 5, 5, -20, -1, 1],
        "change_high": [-4.0, 20, 20, -5, 20, 5],
        "region_change": [0.0, 1, 3, 1, np.nan, -3], "region_change_low": [-2.0, 0.5, 1, -1, np.nan, -4],
        "region_change_high": [2.0, 2, 5, 3, np.nan, -1],
    }  # fmt: skip
    tasks, region = MEASURED.values()
    assert beyond_yardstick(pd.DataFrame(changes)) == ["", "", f"{tasks} and {region}", tasks, "", region]
    del changes["region_change"]
    assert beyond_yardstick(pd.DataFrame(changes)) == ["", "", tasks, tasks, "", ""]


def test_bars_without_an_interval_have_no_caps():
    rows = [
        {"task": task, "level": CLASS, "method": method, "R@1": 50.0, "R@1_low": low, "R@1_high": high}
        for task in TASKS
        for method, low, high in (("FGCR", 40.0, 60.0), ("chance", np.nan, np.nan))
    ]
    (ax,) = task_chart(pd.DataFrame(rows), "heading", "label").axes
    drawn = [path for lines in ax.collections for path in lines.get_paths()]
    assert len(ax.patches) == 2 * len(drawn) == 2 * len(TASKS)
    assert all(path.vertices[:, 1].tolist() == [40, 60] for path in drawn)


def test_progress_is_told_in_slides_and_of_compared_trainings_briefly(tmp_path):
    study = Study.load(PROJECT / "params" / "demo.yaml", root=tmp_path)
    whole, compared = recipe(run_of(study, "paper", 0)), recipe(ablation_runs(study)[0])
    assert (whole.unit, compared.unit) == ("slides", "slides") and compared.lines < whole.lines < whole.epochs
