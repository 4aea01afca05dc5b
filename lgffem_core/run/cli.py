"""The command line: ``run`` (the default), ``verify``, ``slides``, ``checkpoint``, and ``notebook``, for Snakemake."""

import argparse
import os
import shutil
import signal
import sys
from functools import partial
from pathlib import Path

from rich.console import Console

from lgffem_core.base.errors import RequestError, StudyError, near
from lgffem_core.base.project import OUTPUT, PROJECT
from lgffem_core.base.signals import on_stop
from lgffem_core.config import code_version
from lgffem_core.config.study import Study
from lgffem_core.run.checklist import check_startable, told_slow, told_unread
from lgffem_core.run.cluster import cluster_profile
from lgffem_core.run.due import due, raise_flags
from lgffem_core.run.manifest import keep_report
from lgffem_core.run.plan import NOTE, plan
from lgffem_core.run.request import check_profile, make_request
from lgffem_core.run.runner import Reporter, check_silence, own_command, run_graph, snakemake_command, sole_run
from lgffem_core.run.stages import Request, Stage, all_stages, artefacts, entries, known, synthetic_sets
from lgffem_core.run.words import COMMANDS, DEMO, parse

GOES_ON = "the same command goes on from the last checkpoint."
OF_OTHERS = {"slides": "the same command goes on with the slide at which it was.", "checkpoint": "nothing was written."}


def asked_for(params: str, pairs: list[str]) -> Request:
    """The request of a command line whose results have a folder of their own."""
    close = near(params, COMMANDS)
    if close and not Path(params).exists():
        raise RequestError(f"{params}: no such command or parameter file; did you mean ./run_all.sh {close[0]}?")
    request = make_request(params, pairs)
    check_profile(request)
    return request


def run(params: str, pairs: list[str], cores: int | None, cluster: str | None = None) -> int:
    """Run a profile from data to tables; 0, or 2 with a checklist where something is missing."""
    request = asked_for(params, pairs)
    study = request.study
    profile = cluster_profile(cluster) if cluster else None
    cores = cores or (None if cluster else os.cpu_count() or 1)
    hours = hours_of(study)
    check_startable(params, study, *hours)
    console = Console(highlight=False, soft_wrap=True)
    for said in [*hours, *told_slow(study), *told_unread(request)]:
        console.print(said, markup=False)
    with sole_run(study):
        request_file = request.write(study.artifacts / "request.json")
        waiting, stages = raise_flags(study), all_stages(study)
        where = f"{cores} cores" if profile is None else f"on {cluster}"
        console.print(f"{study.label}; {len(waiting)} of {len(stages)} stages to run, {where}", markup=False)
        if waiting:
            command = snakemake_command(study, request_file, cores, profile)
            here = profile is None and len(waiting) > 1
            makes = here and cores > 1 and synthetic_sets(study)
            beside = own_command("synthetic", request_file) if makes else None
            run_stages(study, command, Reporter(console), warm=here, beside=beside)
            check_finished(study)
        if not keep_report(study, request) and not waiting:
            console.print("nothing has changed since the last run")
    told = {entry.notebook for entry in entries(study) if entry.system}  # with LGFFEM, Table 1 of the paper
    first = next((each for each in artefacts(study) if each.file.startswith("tables/") and each.notebook in told), None)
    if first:
        console.print("\n" + (study.results / f"{first.file}.md").read_text(encoding="utf-8"), markup=False)
    page = os.path.relpath(study.report)
    console.print(f"results: {os.path.relpath(study.results)}   all on one page: {page}", markup=False)
    return 0


def show_plan(params: str, pairs: list[str], cluster: str | None) -> int:
    """Print the jobs of a run; it ends as the run would where that could not start, but for another under way."""
    request = asked_for(params, pairs)
    said = [plan(request.study), "", NOTE, *told_slow(request.study), *told_unread(request)]
    print(*said, sep="\n", flush=True)
    if cluster:
        cluster_profile(cluster)
    check_startable(params, request.study)
    return 0


def hours_of(study: Study) -> list[str]:
    """How long the published schedule will take here, in a sentence; nothing for another schedule."""
    from lgffem_core.run.hours import published_schedule, told_hours

    try:
        return [told_hours(study)] if published_schedule(study) else []
    except StudyError:  # of the device, which is on the checklist
        return []


def run_stages(
    study: Study, command: list[str], reporter: Reporter, warm: bool, beside: list[str] | None = None
) -> None:
    """Run what is to be done; ``StudyError`` with the sentences of the stages that failed.

    Ctrl-C says which stages had failed by then: the same command alone would not go beyond them.
    """
    try:
        code = run_graph(study, command, reporter, warm, beside)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(*(f"{stage} had failed: {said}" for stage, said in reporter.failures.items())) from None
    if code:
        if not reporter.failures:
            check_silence(study)
        log, during = study.artifacts / "snakemake.log", " and ".join(map(str, reporter.running))
        stopped = f"the run stopped with code {code}{during and f', during {during}'}; its log is {log}"
        stopped += "; it was killed, or memory ran out: give the same command again." if during else "."
        raise StudyError(" ".join(reporter.failures.values()) or stopped)


def check_finished(study: Study) -> None:
    """``StudyError`` where what was run is no longer what is there: the results would be of neither."""
    if waiting := due(study):
        names = ", ".join(stage.name for stage in waiting[:3]) + (", …" if len(waiting) > 3 else "")
        raise StudyError(
            "parameters, code, data or results changed while the run was under way, so that these stages are not of "
            f"what is there now: {names}; give the same command again."
        )


def notebook(request_file: Path, name: str, variant: str, seed: str) -> int:
    """Execute one stage of a request (what the Snakefile's rules call)."""
    from lgffem_core.base.progress import emit
    from lgffem_core.run.execute import execute_stage

    if name not in known():
        raise RequestError(f"{name}: no stage of notebooks/stages.yaml.")
    try:
        execute_stage(Request.read(request_file), name, variant, seed)
    except (StudyError, OSError) as error:
        emit("failed", stage=Stage(name, variant, seed).name, message=told(error))
        raise
    return 0


def synthetic(request_file: Path) -> int:
    """Make the synthetic data of a request; the last first, while its first stage begins with the first."""
    from lgffem_core.data import make_synthetic

    study = Request.read(request_file).study
    for name in reversed(synthetic_sets(study)):
        make_synthetic(study, name)
    return 0


def verify(folders: list[str]) -> int:
    """Hold every artefact of these folders of results, by default of all, against its manifest; 1 where one differs."""
    from lgffem_core.run.verify import report

    output = Path(os.environ.get(OUTPUT) or PROJECT)
    for name in folders:
        if not Path(name).exists() and (output / "results" / Path(name).stem).is_dir():
            known = os.path.relpath(output / "results" / Path(name).stem)
            raise RequestError(f"{name}: no such folder of results; did you mean {known}?")
    return report([Path(folder).resolve() for folder in folders], PROJECT, output)


def verify_by_rerun(params: str, pairs: list[str], cores: int | None) -> int:
    """Run a profile from nothing in a folder of its own and compare it with the kept reference.

    Returns 0 where all is equal, 3 where it differs as another processor or other versions make it differ, else 1.
    An interrupted one goes on; what differs is left for looking at.
    """
    from lgffem_core.run.compare import compare_results, format_comparison, manifest_of

    profile = make_request(params, pairs).study.params.profile
    reference = PROJECT / "results" / "reference" / profile
    if not (reference / "manifest.json").is_file():
        kept = ", ".join(sorted(path.parent.name for path in reference.parent.glob("*/manifest.json"))) or "none"
        raise RequestError(
            f"{reference}: is no kept run of profile {profile}; --rerun compares with kept runs alone "
            f"(there are: {kept}), and tools/keep_reference.py {profile} keeps a finished one."
        )
    manifest_of(reference)  # one that cannot be compared with is refused before the run, which takes its time
    scratch = PROJECT / "artifacts" / "verify" / profile
    again = scratch / "results" / profile
    if (again / "manifest.json").is_file():  # of a comparison that has been made
        shutil.rmtree(scratch)
    scratch.mkdir(parents=True, exist_ok=True)
    os.environ[OUTPUT] = str(scratch)
    run(params, pairs, cores)
    comparison = compare_results(reference, again)
    print(format_comparison(comparison))
    if comparison.exit_code == 0:
        shutil.rmtree(scratch)
    return comparison.exit_code


def checkpoint(path: Path) -> int:
    """Print what one of the authors' checkpoints holds, and which rows of the ledger it settles."""
    from lgffem_core.systems.lgffem.checkpoint import format_checkpoint

    print(format_checkpoint(path))
    return 0


def slides(folder: Path, params: str, out: Path, pairs: list[str]) -> int:
    """Make a record of each slide in a folder, with the encoder of a profile; 1 where a slide failed."""
    from lgffem_core.run.slides import make_records

    console = Console(highlight=False, soft_wrap=True, emoji=False)  # names of files are said as they are
    return make_records(make_request(params, pairs).study, folder, out, partial(console.print, markup=False))


def told(error: StudyError | OSError) -> str:
    """An error in one sentence; the operating system's are of a full disk, or of a folder of somebody else's."""
    if isinstance(error, StudyError):
        return str(error)
    return f"{error.filename or 'a file of the run'}: {error.strerror or error}."


def perform(options: argparse.Namespace) -> int:
    """Call what the command line asks for; returns the exit code."""
    if options.command == "notebook":
        return notebook(options.request, options.name, options.variant, options.seed)
    if options.command == "synthetic":
        return synthetic(options.request)
    os.environ.pop(code_version.VARIABLE, None)  # who starts a run is told nothing: it is for those that a run starts
    if options.command == "slides":
        return slides(options.folder, options.params, options.out, options.pairs)
    if options.command == "checkpoint":
        return checkpoint(options.file)
    if options.command == "verify" and options.rerun:
        return verify_by_rerun(*(options.folders or [DEMO]), options.pairs, options.cores)
    if options.command == "verify":
        return verify(options.folders)
    if options.dry_run:
        return show_plan(options.params, options.pairs, options.cluster)
    return run(options.params, options.pairs, options.cores, options.cluster)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code, after one sentence where something is wrong."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    if os.environ.get(OUTPUT):  # notebooks run in another folder
        os.environ[OUTPUT] = os.path.abspath(os.environ[OUTPUT])
    with on_stop(signal.default_int_handler) as before:  # a polite kill, or a closed terminal, is like Ctrl-C
        if before[signal.SIGINT] == signal.SIG_IGN:  # behind & in a script: what is started must heed it all the same,
            signal.signal(signal.SIGINT, lambda *_: None)  # or Snakemake would be killed with its jobs left in a queue
        try:
            return perform(options)
        except (StudyError, OSError) as error:
            print(f"error: {told(error)}", file=sys.stderr)
            return getattr(error, "exit_code", 1)
        except KeyboardInterrupt as stopped:
            print(" ".join(["stopped;", *(stopped.args or [OF_OTHERS.get(options.command, GOES_ON)])]), file=sys.stderr)
            return 130
