"""The jobs of a run as a list: what each asks of a cluster, what it waits for, and whether it is finished."""

from lgffem_core.config.study import Study
from lgffem_core.run.due import due
from lgffem_core.run.stages import all_stages, known, resources, upstream

NOTE = "MB, minutes and GPUs: what a job asks a cluster for, at the published schedule; here nothing depends on them."
HEAD = ("job", "stage", "variant", "seed", "cores", "MB", "minutes", "GPUs", "state", "after jobs")


def plan(study: Study) -> str:
    """A line for each job of a run, each after those that it waits for; nothing is started or written."""
    stages, waiting = all_stages(study), due(study)
    number = {stage: str(place) for place, stage in enumerate(stages, 1)}
    rows = [HEAD]
    for stage in stages:
        asked = resources(study, known()[stage.notebook])
        run = (stage.variant, str(stage.seed)) if stage.variant else ("–", "–")
        sizes = (f"{asked[name]}" for name in ("cpus_per_task", "mem_mb", "runtime", "gpu"))
        state = "to run" if stage in waiting else "finished"
        earlier = " ".join(number[other] for other in upstream(study, stage)) or "–"
        rows.append((number[stage], stage.notebook, *run, *sizes, state, earlier))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
