"""The table of FGCR: four tasks, and the region level, each beside its floor and chance."""

import numpy as np
import pandas as pd

from lgffem_core.config.study import Study
from lgffem_core.data.records import Record
from lgffem_core.report.tables import DECIMALS
from lgffem_core.retrieval.index import search
from lgffem_core.retrieval.statistics import BCA, WIDTHLESS
from lgffem_core.systems.fgcr.archive import Archive
from lgffem_core.systems.fgcr.comparison import Result, gallery_of
from lgffem_core.systems.fgcr.floors import floor_vectors
from lgffem_core.systems.fgcr.regions import by_slide
from lgffem_core.systems.fgcr.scoring import TASKS, chance, gain, interval, mean_over_seeds, scored, summary
from lgffem_core.systems.fgcr.training import vectors

FLOOR, CHANCE, REGION = "floor", "chance", "word to region"
NOTE = (
    "Percent. Class level: right is the query's label, its own slide left out; instance level: right is the own report "
    "or slide, or an identical text; region level: right is an anchor whose patch shows the finding that is named. "
    "R@k: one of the first k is right; MV@k: most of them are, a majority vote; mAP: mean average precision. R@1_low, "
    f"R@1_high: 95 % interval ({BCA}) over slides; gain: R@1 above the floor on the same queries, in points, with its "
    f"interval. {WIDTHLESS} Floor: mean feature, bag of words, a ridge regression between them."
)
TERMS_NOTE = (
    "Reading paper, {epochs} epochs each; percent and points, with 95 % intervals over slides ("
    f"{BCA}). R@1: the first answer has the query's label, a mean over the four tasks, which follow; change: of R@1 "
    "against all terms; region: the anchor that scores highest shows the finding. Another seed: the yardstick, which "
    "differs in nothing else."
)


def task_table(study: Study, archive: Archive, results: dict[str, list[Result]]) -> pd.DataFrame:
    """Rows of each task and level: FGCR in each reading, the mean over seeds; its floor; chance."""
    gallery, resamples = gallery_of(study, archive), study.params.retrieval.bootstrap
    floor = scored(floor_vectors(archive), gallery)
    rows = []
    for reading, runs in results.items():
        rows += summary(f"FGCR, {reading}", mean_over_seeds([run.tasks for run in runs]), floor, resamples)
    rows += summary(FLOOR, floor, None, resamples) + summary(CHANCE, chance(gallery), None, resamples)
    table = pd.DataFrame(rows)
    order = {task: number for number, task in enumerate(TASKS)}
    table = table.sort_values(["level", "task"], key=lambda c: c.map(order).fillna(0), kind="stable", ignore_index=True)
    return table.round(DECIMALS)


def region_rows(pointing: dict[str, pd.DataFrame], slides: int, resamples: int) -> pd.DataFrame:
    """A row for each of ``pointed``'s tables, ``FLOOR`` among them, and chance; none where nothing could be asked."""
    floor = pointing[FLOOR]
    if floor.empty:
        return pd.DataFrame()
    asked, rows = np.bincount(floor["slide"], minlength=slides), []
    base = by_slide(floor, "hit", slides)
    for method, table in pointing.items():
        hits = by_slide(table, "hit", slides)
        low, high = interval(hits, resamples, asked)
        row = {"task": REGION, "level": "region", "method": method, "R@1": 100 * hits.sum() / asked.sum()}
        row |= {"R@1_low": low, "R@1_high": high}
        if method != FLOOR:
            row |= dict(zip(("gain", "gain_low", "gain_high"), gain(hits, base, resamples, asked), strict=True))
        rows.append(row)
    table = pd.DataFrame([*rows, {**rows[0], **dict.fromkeys(rows[0]), **chance_of_regions(floor)}])
    return table.round(DECIMALS)


def chance_of_regions(table: pd.DataFrame) -> dict:
    """What pointing at an anchor at random is expected to hit."""
    return {"task": REGION, "level": "region", "method": CHANCE, "R@1": 100 * table["share"].mean()}


def nearest(result: Result, asks: list[Record], task: str, k: int) -> list[list[Record]]:
    """The k first answers of a task to each query, or all where there are fewer; its own slide is not left out."""
    pair, (asking, searched) = vectors(result.model, result.found), TASKS[task]
    test = result.archive.of("test")
    rows = [next(i for i, record in enumerate(test) if record.slide == query.slide) for query in asks]
    return [[test[i] for i in ids] for ids in search(pair[searched], pair[asking][rows], min(k, len(test)))[1]]
