"""Running the graph of stages: one run at a time, shown while it goes, and nothing left behind after it."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
from rich.console import Console

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.base.files import remove_leftovers, write_text
from lgffem_core.base.progress import VARIABLE, clock, read_events
from lgffem_core.base.project import PROJECT
from lgffem_core.base.signals import on_stop
from lgffem_core.base.sources import first_fault
from lgffem_core.base.surroundings import PRIVATE, of_run
from lgffem_core.config import code_version
from lgffem_core.config.study import Study
from lgffem_core.run.checklist import MIB, full_folders
from lgffem_core.run.due import code_state
from lgffem_core.run.leash import leashed
from lgffem_core.run.stages import absent_systems, all_stages, entries, failed_notebook
from lgffem_core.run.warm import THREADS, start_server

POLL = 0.25  # seconds between looks at the events


@contextmanager
def sole_run(study: Study):
    """Hold the profile's lock; a second run on the same results is refused. It is freed even by a kill."""
    try:
        study.artifacts.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(
            f"{study.artifacts}: cannot be written ({error.strerror}); see ./run_all.sh doctor."
        ) from None
    with open(study.artifacts / "run.lock", "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RequestError(
                f"another run of profile {study.params.profile} is under way in {study.root}; wait for it, or stop it."
            ) from None
        end_leftovers(study)  # before anything is looked at: they would still write
        remove_private()
        for folder in (study.artifacts, study.results):
            remove_leftovers(folder)
        yield


def remove_private() -> None:
    """Remove what runs that were killed left among the system's temporary files."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PRIVATE}*_*"):
        leader = folder.name.removeprefix(PRIVATE).partition("_")[0]
        if leader.isdigit() and not psutil.pid_exists(int(leader)):
            shutil.rmtree(folder, ignore_errors=True)  # of another user it stays


def events_file(study: Study) -> Path:
    """Where the stages of a run report to."""
    return study.artifacts / "events.jsonl"


def snakemake_command(study: Study, request_file: Path, cores: int | None, cluster: Path | None = None) -> list[str]:
    """Snakemake on our Snakefile, here or on a ``cluster``; what is to be done follows from the stages' flags.

    ``cores`` is how many run at a time; None, on a cluster alone, leaves it to the cluster's profile.
    """
    options = {
        "--snakefile": str(PROJECT / "Snakefile"),
        "--directory": str(study.artifacts),
        "--workflow-profile": str(cluster or "none"),  # not profiles/default of where the command is typed
        "--rerun-triggers": "params",
        "--config": f"request={os.path.relpath(request_file, study.artifacts)}",  # as YAML: a full path may hold ": "
    } | ({"--cores": str(cores)} if cores else {})
    switches = ["--nolock", "--rerun-incomplete", "--drop-metadata"]
    return [sys.executable, "-m", "snakemake", *switches, *(word for option in options.items() for word in option)]


def own_command(*words: str | Path) -> list[str]:
    """A command of the study, for a process of its own."""
    return [sys.executable, "-m", "lgffem_core", *map(str, words)]


class Reporter:
    """Shows a run: a line for each stage that ends, and on a terminal a live line for those that run."""

    def __init__(self, console: Console):
        self.console, self.done = console, 0
        self.failures: dict[str, str] = {}  # stage -> what is wrong
        self.running: dict[str, tuple[str, str]] = {}  # stage -> (where it is, time left)

    def handle(self, event: dict) -> None:
        """Take note of one event from ``progress``."""
        kind, stage = event["event"], event.get("stage")
        if kind == "started":
            self.running[stage] = ("", "")
        elif kind == "epoch":
            where = (
                f"{event['title']}, epoch {event['epoch']}/{event['epochs']}, "
                f"{event['per_second']:.0f} {event['unit']}/s"
            )
            self.running[stage] = (where, f", {clock(event['seconds_left'])} left")
        elif kind == "finished":
            self.done += 1
            where, _ = self.running.pop(stage, ("", ""))
            line = f"[{self.done}] {stage} finished in {clock(event['seconds'])}" + (f" ({where})" if where else "")
            self.console.print(line, markup=False, highlight=False)
        elif kind == "failed":
            self.running.pop(stage, None)
            self.failures[stage] = event["message"]
            self.console.print(f"{stage} failed: {event['message']}", markup=False, highlight=False)

    def line(self) -> str:
        """What runs now, for the live line."""
        now = [f"{stage}: {where}{left}" if where else str(stage) for stage, (where, left) in self.running.items()]
        return "  |  ".join(now) or "next stage"


def run_graph(
    study: Study, command: list[str], reporter: Reporter, warm: bool = False, beside: list[str] | None = None
) -> int:
    """Run Snakemake and show its stages; its own log goes to a file. Ctrl-C stops it and its kernels.

    Where ``warm``, what all kernels import is imported once, which pays from the second stage on. The command
    ``beside`` does what the first stage would otherwise do alone, while the other cores wait for it; should it fail,
    the stage does it, and says what is wrong.
    """
    events = events_file(study)
    events.unlink(missing_ok=True)
    position = 0
    with (
        open(study.artifacts / "snakemake.log", "w") as log,
        tempfile.TemporaryDirectory(prefix=f"{PRIVATE}{os.getpid()}_") as private,
        reporter.console.status(reporter.line()) as status,
    ):
        syntax = Path(private, "syntax.json")
        environment = {**of_run(study.root, Path(private)), VARIABLE: str(events), code_version.VARIABLE: str(syntax)}
        if warm:
            environment |= start_server(environment, private, study.params.compute.threads, log)
        start = partial(subprocess.Popen, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        process = start(leashed(command), env=environment)
        if beside:
            start(leashed(beside), env=environment | dict.fromkeys(THREADS, str(study.params.compute.threads)))
        try:
            tell_syntax(study, syntax)
            while True:
                ended = process.poll() is not None
                new, position = read_events(events, position)
                for event in new:
                    reporter.handle(event)
                status.update(reporter.line())
                if ended:
                    return process.returncode
                try:
                    process.wait(POLL)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if stopped := process.poll() is None:
                stop_group(process)
            with on_stop(signal.SIG_IGN):  # soon done, and whoever asks again wants nothing else
                end_leftovers(study)
                for stage in all_stages(study) if stopped else ():
                    if stage.name in reporter.running:  # it did not fail
                        failed_notebook(study, stage).unlink(missing_ok=True)


def check_silence(study: Study) -> None:
    """``StudyError`` with why a stage that failed could not say so: no room to write, or a module of the study's."""
    room = study.artifacts / ".room"
    try:
        write_text(room, " " * MIB)
    finally:
        room.unlink(missing_ok=True)
    if said := next(iter(full_folders(MIB)), None) or first_fault(PROJECT / "lgffem_core"):
        raise StudyError(said)


def tell_syntax(study: Study, path: Path) -> None:
    """Find out, once for all stages, what their code is; one whose code cannot be read says so itself."""
    for entry in entries(study):
        with suppress(StudyError):
            code_state(entry.notebook, absent_systems(study))
    code_version.tell(path)


def stop_group(process: subprocess.Popen, patience: float = 15.0) -> None:
    """Interrupt a process group, and kill it where it does not end in time, or where Ctrl-C comes once more."""
    for sign in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            process.wait(patience)
            return
        except ProcessLookupError:
            return
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            continue


def end_leftovers(study: Study) -> None:
    """Kill whatever still works for this profile: Jupyter kernels outlive a parent that was stopped.

    They are known by the events file in their environment. Only the holder of the profile's lock calls this.
    One may start another just before it is killed, so the search is repeated until it finds none.
    """
    events = str(events_file(study))
    while any([end(process, events) for process in psutil.process_iter()]):
        continue


def end(process: psutil.Process, events: str) -> bool:
    """Kill a process if it works for the run that reports to ``events``; True where it did and is gone."""
    try:
        if process.pid != os.getpid() and process.environ().get(VARIABLE) == events:
            process.kill()
            process.wait(5)
            return True
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.TimeoutExpired, OSError):
        pass  # it ended by itself, or is another user's
    return False
