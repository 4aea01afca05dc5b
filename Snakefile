# The study as a graph: one rule per notebook of notebooks/stages.yaml, executed by papermill. ./run_all.sh calls it.
#
# Which stages need not run is decided by lgffem_core/run/due.py, from what files hold, before this file is read: the
# flag of a finished stage is there, and Snakemake sees to the order of the others. A stage whose inputs come out as
# they were finds itself finished and ends at once.
from pathlib import Path

from lgffem_core.run.runner import own_command
from lgffem_core.run.stages import Request, Stage, all_stages, entries, flag_file, processes, resources, upstream
from lgffem_core.run.warm import warmed

request = Path(config["request"])
study = Request.read(request).study
run_notebook = warmed(own_command("notebook", request))


wildcard_constraints:
    variant="[a-z]+",
    seed="[0-9]+",


def done(stage):
    # Counted from the folder that Snakemake works in: what stands above it may hold braces, which mean wildcards.
    return flag_file(study, *stage).relative_to(study.artifacts).as_posix()


def behind(entry):
    """The stages that wait for one, directly or not: the more there are, the sooner it should run."""
    next_ones = [other for other in entries(study) if entry.notebook in (*other.after, *other.beside)]
    return {name for other in next_ones for name in (other.notebook, *behind(other))}


def urgency(entry):
    """Also, what runs once before others goes before what each variant runs: those fill the cores next to it.

    Of stages for which as many wait the longest goes first, so that no long one is left for the end, alone.
    """
    waiting = len(behind(entry))
    return 10_000 * (waiting + (100 if waiting and not entry.repeated else 0)) + entry.resources.minutes


rule all:
    input: [done(stage) for stage in all_stages(study)]


for entry in entries(study):
    stage = Stage(entry.notebook, "{variant}", "{seed}") if entry.repeated else Stage(entry.notebook)
    run = ["--variant", stage.variant, "--seed", stage.seed] if entry.repeated else []

    rule:
        name: entry.notebook[3:]
        priority: urgency(entry)
        input: [done(earlier) for earlier in upstream(study, stage)]
        output: done(stage)
        params: words=[entry.notebook, *run]
        threads: study.params.compute.threads * processes(study, entry)
        resources: **resources(study, entry)
        shell: "{run_notebook:q} {params.words:q}"
