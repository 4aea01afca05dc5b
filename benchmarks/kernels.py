"""Kill the command, then the kernel of each notebook in turn, and compare what comes out with a calm run.

    .venv/bin/python benchmarks/kernels.py [params/smoke.yaml]

Three whole runs, in folders of their own. In one the command alone is killed a few times, so that Snakemake and
kernels are left behind and the next call has to end them. In another kernels are killed: each time the command must
end with one sentence that names notebook and cell, and the stage must not pass for finished. Exits with 1 where that
is not so, or where a table or figure differs. Some minutes in profile smoke.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from lgffem_core.base.progress import STAGE_VARIABLE, VARIABLE, read_events
from lgffem_core.base.project import OUTPUT, PROJECT
from lgffem_core.config.study import Study
from lgffem_core.run.due import is_finished
from lgffem_core.run.runner import events_file
from lgffem_core.run.stages import Stage, all_stages

SENTENCE = re.compile(r"error: notebook (\S+), cell (\d+): the kernel ended before its time .*\n")


def kernel_of(study: Study, stage: str) -> psutil.Process | None:
    """The process in which a stage's cells run, or that stands for it (``run.warm``), once it is there."""
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            mine = environment.get(VARIABLE) == str(events_file(study)) and environment.get(STAGE_VARIABLE) == stage
            if mine and "ipykernel_launcher" in process.cmdline():
                return process
        except psutil.Error:
            continue
    return None


def into(study: Study) -> dict[str, str]:
    """The environment in which a command leaves its results where ``study`` has them."""
    return {**os.environ, OUTPUT: str(study.root)}


def killed_once(study: Study, command: list[str], spared: set[str], wait: float) -> tuple[str | None, int, str]:
    """Run until a stage that is not ``spared`` has had its kernel for ``wait`` seconds, and kill that.

    Returns the stage, None where only spared ones ran, with the command's exit code and what it said of the error.
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = subprocess.Popen(command, cwd=PROJECT, env=into(study), **pipes)
    started.stdout.readline()  # what is to run: until it says so, what an earlier command left behind may still report
    time.sleep(1)
    victim, position, begun = None, 0, []
    while started.poll() is None and victim is None:
        new, position = read_events(events_file(study), position)
        begun += [event["stage"] for event in new if event["event"] == "started" and event["stage"] not in spared]
        kernel = kernel_of(study, begun[0]) if begun else None
        if kernel:
            time.sleep(wait)
            if kernel.is_running():
                kernel.kill()
                victim = begun[0]
        time.sleep(0.1)
    _, error = started.communicate()
    return victim, started.returncode, error


def run_to_the_end(study: Study, command: list[str]) -> None:
    """Run without disturbing; a failure ends the benchmark."""
    subprocess.run(command, cwd=PROJECT, env=into(study), check=True, capture_output=True)


def kill_the_command(study: Study, command: list[str], wait: float) -> None:
    """Start the command and kill it, and nothing that it started, after ``wait`` seconds."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = subprocess.Popen(command, cwd=PROJECT, env=into(study), **quiet)
    time.sleep(wait)
    started.kill()
    print(f"| the command, after {wait} s | | {started.wait()} | |", flush=True)


def kept(study: Study) -> dict[str, bytes]:
    """Every table and figure of a run."""
    files = [path for name in ("tables", "figures") for path in (study.results / name).iterdir()]
    return {path.relative_to(study.results).as_posix(): path.read_bytes() for path in files}


def disturbed(study: Study, command: list[str]) -> bool:
    """Kill every stage's kernel once, each a little later than the one before; True where all was said as it should."""
    spared, sound = set(), True
    while len(spared) < len(all_stages(study)):
        victim, code, error = killed_once(study, command, spared, 0.4 * (len(spared) % 10))
        said = SENTENCE.fullmatch(error)
        if victim is None:
            print(f"the run ended with {code} before a kernel was killed: {error}")
            return False
        finished = [s for s in all_stages(study) if s.name == victim and is_finished(study, s)]
        print(f"| {victim} | {said[2] if said else error} | {code} | {'yes' if finished else 'no'} |", flush=True)
        sound &= code == 1 and said is not None and Stage(said[1]).name in victim and not finished
        spared.add(victim)
    return sound


def main() -> int:
    """The three runs and their comparison; 0 where nothing differs."""
    profile = sys.argv[1] if len(sys.argv) > 1 else "params/smoke.yaml"
    command = [sys.executable, "-m", "lgffem_core", profile]
    with tempfile.TemporaryDirectory() as folder:
        names = ("calm", "left behind", "kernels")
        studies = [Study.load(PROJECT / profile, root=Path(folder) / name) for name in names]
        calm, alone, killed = studies
        run_to_the_end(calm, command)
        print("| killed | cell | exit code | taken for finished |\n|---|---|---|---|")
        for wait in (3, 12, 25, 40):
            kill_the_command(alone, command, wait)
        run_to_the_end(alone, command)
        sound = disturbed(killed, [*command, "--cores", "1"])
        run_to_the_end(killed, command)
        undisturbed, *others = map(kept, studies)
    other = sorted({n for again in others for n in undisturbed | again if undisturbed.get(n) != again.get(n)})
    print(f"{len(undisturbed)} tables and figures, of which differ: {', '.join(other) or 'none'}")
    return 0 if sound and not other else 1


if __name__ == "__main__":
    sys.exit(main())
