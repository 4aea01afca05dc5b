"""What each loss term, and each row of the ledger, does: short trainings that differ in one thing, scored alike."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from lgffem_core.config.study import Study
from lgffem_core.config.systems import Fgcr, FgcrLoss
from lgffem_core.report.tables import DECIMALS
from lgffem_core.retrieval.statistics import chance_reach
from lgffem_core.systems.fgcr.archive import Archive
from lgffem_core.systems.fgcr.losses import FINE
from lgffem_core.systems.fgcr.model import FGCRModel, Output
from lgffem_core.systems.fgcr.readings import read_ledger, toggles
from lgffem_core.systems.fgcr.regions import by_slide, model_scores, pointed
from lgffem_core.systems.fgcr.scoring import CLASS, TASKS, Gallery, Values, gain, same_for_all, scored
from lgffem_core.systems.fgcr.training import Run, outputs, trained_model, vectors

TERMS = tuple(FgcrLoss.model_fields)
MEASURED = {"change": "four tasks, R@1", "region_change": "region level"}  # where a table has them
ALL, NO_FINE, OTHER_SEED = "all terms", "without both fine-grained terms", "another seed"


@dataclass(frozen=True)
class Result:
    """A trained run and what it says of the test slides."""

    model: FGCRModel
    found: list[Output]
    archive: Archive
    gallery: Gallery

    @cached_property
    def tasks(self) -> dict[tuple[str, str], Values]:
        """(task, level) -> measures by query."""
        return scored(same_for_all(vectors(self.model, self.found)), self.gallery)

    @cached_property
    def top1(self) -> np.ndarray:
        """R@1 at class level of each test slide, the mean over the four tasks: (N,)."""
        return np.mean([self.tasks[task, CLASS]["R@1"] for task in TASKS], axis=0)

    @cached_property
    def regions(self) -> pd.DataFrame:
        """The region-level task."""
        return pointed(self.archive, model_scores(self.found))


def gallery_of(study: Study, archive: Archive) -> Gallery:
    """The test slides as what is searched."""
    return Gallery.of(archive.labels("test"), [record.report for record in archive.of("test")], study.params.fgcr.k)


def run_of(study: Study, reading: str, seed: int) -> Run:
    """The training of a reading at the profile's full length."""
    settings = study.params.fgcr.model_copy()
    return Run(
        f"{reading}, seed {seed}", study.kept("fgcr", reading, f"seed{seed}"), settings, toggles(study, reading), seed
    )


def result(study: Study, archive: Archive, run: Run) -> Result:
    """A run's result; it is trained if that has not been done yet."""
    model = trained_model(study, archive, run)
    return Result(model, outputs(study, model, archive.items("test")), archive, gallery_of(study, archive))


# -- one thing at a time ----------------------------------------------------------------------------------------


def compared_run(study: Study, name: str) -> Run:
    """The reading ``paper`` at ``compared_epochs``, which all the others differ from in one thing."""
    settings = study.params.fgcr.model_copy()
    short = settings.model_copy(update={"epochs": settings.compared_epochs})
    folder = study.artifacts / "fgcr" / "compared" / name.replace(" ", "_").replace(":", "")
    return Run(name, folder, short, toggles(study, "paper"), study.params.seeds[0], lines=1)


def without(settings: Fgcr, *names: str) -> Fgcr:
    """The settings with these terms off."""
    off = {name: getattr(settings.loss, name).model_copy(update={"used": False}) for name in names}
    return settings.model_copy(update={"loss": settings.loss.model_copy(update=off)})


def ablation_runs(study: Study) -> list[Run]:
    """All terms; each of those that are on left out alone; the fine-grained ones left out together."""
    base = compared_run(study, ALL)
    on = [name for name in TERMS if getattr(base.settings.loss, name).used]
    left_out = {f"without {name}": (name,) for name in on} | {NO_FINE: FINE}
    changed = {name: without(base.settings, *terms) for name, terms in left_out.items()}
    return [base, *(replace(compared_run(study, name), settings=settings) for name, settings in changed.items())]


def yardstick(study: Study) -> Run:
    """The run that differs in nothing but its seed: an effect no larger than its own is luck."""
    base = compared_run(study, OTHER_SEED)
    return replace(base, seed=base.seed + 1)


def ledger_runs(study: Study) -> dict[int, Run]:
    """Row -> the run with that row's toggle as the other reading has it; 0: the yardstick."""
    base = compared_run(study, ALL)
    runs = {0: yardstick(study)}
    for row in read_ledger():
        if row.toggle:
            changed = base.toggles.model_copy(update={row.toggle: row.values[1]})
            runs[row.row] = replace(compared_run(study, f"ledger {row.row}"), toggles=changed)
    return runs


def difference(study: Study, base: Result, other: Result) -> dict[str, float]:
    """What ``other`` scores, and how much more than ``base``, in percent: four tasks, R@1, and region level."""
    resamples, slides = study.params.retrieval.bootstrap, len(base.top1)
    change = gain(other.top1, base.top1, resamples)
    row = {"R@1": 100 * other.top1.mean(), **dict(zip(("change", "change_low", "change_high"), change, strict=True))}
    row |= {task: 100 * other.tasks[task, CLASS]["R@1"].mean() for task in TASKS}
    if len(other.regions):
        hits = [by_slide(some.regions, "hit", slides) for some in (other, base)]
        asked = np.bincount(base.regions["slide"], minlength=slides)
        names = ("region_change", "region_change_low", "region_change_high")
        row |= {
            "region": 100 * other.regions["hit"].mean(),
            **dict(zip(names, gain(*hits, resamples, asked), strict=True)),
        }
    return row


def ablation(study: Study, archive: Archive) -> pd.DataFrame:
    """A row for each run of ``ablation_runs``, and behind the first the yardstick: what another seed does."""
    base, *others = ablation_runs(study)
    results = {run.name: result(study, archive, run) for run in (base, yardstick(study), *others)}
    rows = [{"run": name, **difference(study, results[ALL], own)} for name, own in results.items()]
    table = pd.DataFrame(rows).round(DECIMALS)
    table.loc[0, [name for name in table if "change" in name]] = np.nan  # all terms, against themselves
    return table


def ledger(study: Study, archive: Archive) -> pd.DataFrame:
    """A row of the ledger each, and first the yardstick: what another seed does."""
    base = result(study, archive, compared_run(study, ALL))
    effects = {row: difference(study, base, result(study, archive, run)) for row, run in ledger_runs(study).items()}
    said = [{"row": 0, "kind": "yardstick", "topic": OTHER_SEED, "text": "", "code": "", "note": ""}]
    for row in read_ledger():
        words = {name: getattr(row, name) for name in ("row", "kind", "topic", "text", "code")}
        said.append({**words, "note": f"not measured: {row.why_not}" if row.why_not else ""})
    return pd.DataFrame([{**words, **effects.get(words["row"], {})} for words in said]).round(DECIMALS)


def beyond_yardstick(table: pd.DataFrame) -> list[str]:
    """Of each row, the measures that change by more than the reach of the first row, the yardstick (``chance_reach``),
    and whose interval leaves out zero; "" for none."""
    beyond = {}
    for column, name in MEASURED.items():
        if column in table:
            value, low, high = table[[column, f"{column}_low", f"{column}_high"]].to_numpy(float).T
            beyond[name] = (np.abs(value) > chance_reach(value[0], low[0], high[0])) & ((low > 0) | (high < 0))
    return [" and ".join(name for name, rows in beyond.items() if rows[i]) for i in range(len(table))]
