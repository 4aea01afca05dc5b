"""Does a run that is killed again and again come to the same bits?

    python benchmarks/kills.py [--kills 50] [--workers 0 1 2] [--seed 0]

A small study (synthetic images, strategies A, B and C, variant ``released``, a checkpoint every two steps, then
Table 1) is run once undisturbed. Then, for each number of loader workers, it is run and killed with SIGKILL,
with all its processes, and started again until it is through; and all that again until enough kills have been
dealt out. Every other kill comes at a random moment, the others when a file is being written. Each time it is
through, weights, loss curves, last checkpoints (optimisers included), embeddings and Table 1 must have the
SHA-256 of the undisturbed run. No kill may damage a checkpoint or take one away. Exit code 1 where one does.

One process imports everything, reads the code, and forks each attempt, so that an attempt takes a second or two.
"""

import argparse
import gc
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

from lgffem_core.base.files import TEMPORARY, remove_leftovers, sha256_file
from lgffem_core.base.project import PROJECT
from lgffem_core.config.code_version import code_hash, lock_hash
from lgffem_core.config.params import STRATEGIES
from lgffem_core.config.study import CURRICULUM, Study
from lgffem_core.data import patch_table
from lgffem_core.report.tables import write_table
from lgffem_core.systems.lgffem.evaluation import evaluate_all
from lgffem_core.systems.lgffem.tables import table1

VARIANT, SEED = "released", 0  # with dropout and BatchNorm
SMALL = {
    "profile": "kills",
    "variants": [VARIANT],
    "seeds": [SEED],
    "model.image_size": 32,
    "model.backbone.options": {"depths": [1, 1, 1, 1], "dims": [16, 32, 64, 128]},  # a fifth of its time
    "model.neck.layers": 1,
    "data.synthetic.image_size": 32,
    "data.synthetic.imagenet_per_class": 6,
    "data.synthetic.pannuke_per_tissue": 4,
    "data.synthetic.kimia_train_per_scan": 2,
    "training.batch_size": 8,
    "training.a.epochs": 4,
    "training.b.epochs": 2,
    "training.c.epochs": 2,
    "retrieval.bootstrap": 200,
    "compute.checkpoint_steps": 2,
}
PATIENCE = 300  # seconds after which an attempt counts as hanging


@dataclass
class Tally:
    """What happened under one number of workers."""

    workers: int
    kills: int = 0
    during_saves: int = 0  # kills that left an unfinished file behind
    completions: int = 0
    attempts: int = 0
    faults: tuple[str, ...] = ()


def make_study(root: Path, workers: int) -> Study:
    return Study.load(PROJECT / "params" / "smoke.yaml", {**SMALL, "compute.workers": workers}, root=root)


def run(study: Study) -> None:
    """Train what is not trained, search, and write Table 1."""
    table = table1(study, evaluate_all(study))
    write_table(study, table, "table1", "Table 1", "")


def draw(study: Study) -> None:
    """Draw the images and list them: every run here is on the same ones."""
    for dataset, *_ in CURRICULUM.values():
        patch_table(study, dataset)


def know(study: Study) -> None:
    """Load and hash, once for all that are forked from here, what a run loads and hashes when it needs it."""
    draw(study)  # reads the index, and with it loads what checks tables
    for module in ("systems.lgffem.strategies", "retrieval.embed", "model.backbone", "data.loading"):
        code_hash(f"import lgffem_core.{module}")
    lock_hash()
    gc.collect()
    gc.freeze()  # the forked need not look through it again: memory stays shared


def start(study: Study, log: Path, body: Callable[[Study], None] = run) -> int:
    """Fork a run in a process group of its own; returns its process id."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    code = 1
    try:
        remove_leftovers(study.root)
        body(study)
        code = 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def folders(study: Study) -> list[Path]:
    """Where the run writes what must come out equal."""
    trained = [study.checkpoints(strategy, VARIANT, SEED) for strategy in STRATEGIES]
    return [*trained, study.embeddings("a", VARIANT, SEED).parent, study.results / "tables"]


def names(study: Study) -> set[str]:
    """Names of the files being written, or left behind half-written."""
    found = set()
    for folder in folders(study):
        try:
            found |= {entry.name for entry in os.scandir(folder) if TEMPORARY.fullmatch(entry.name)}
        except FileNotFoundError:
            pass  # not made yet, or an entry has just been renamed
    return found


def contents(study: Study) -> dict[str, str]:
    """Path -> SHA-256 of everything that the run leaves."""
    files = [path for folder in folders(study) for path in sorted(folder.glob("*"))]
    return {str(path.relative_to(study.root)): sha256_file(path) for path in files}


def newest_steps(study: Study) -> dict[str, str]:
    """Strategy -> name of its newest checkpoint."""
    found = {s: sorted(study.checkpoints(s, VARIANT, SEED).glob("step_*.safetensors")) for s in STRATEGIES}
    return {strategy: files[-1].name for strategy, files in found.items() if files}


def wait(child: int, study: Study, until: float, saves: int | None) -> int | None:
    """Wait for the child's end and return its exit code; None where ``until`` or so many ``saves`` came before.

    Args:
        until: time on the monotonic clock.
        saves: how many files to see being written before giving up at once, in the middle of the last.
    """
    seen: set[str] = set()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(0.0005)  # a save takes some milliseconds
        if saves is None:
            continue
        now = names(study)
        saves -= len(now - seen)
        seen = now
        if saves <= 0:
            return None


def undisturbed(study: Study, log: Path, body: Callable[[Study], None] = run) -> float:
    """Let a run come to its end; returns the seconds that it took."""
    began = time.monotonic()
    child = start(study, log, body)
    code = wait(child, study, began + PATIENCE, None)
    if code is None:
        os.killpg(child, signal.SIGKILL)
    if code != 0:
        sys.exit(f"the undisturbed run failed:\n{log.read_text()}")
    return time.monotonic() - began


def attempt(study: Study, log: Path, tally: Tally, seconds: float, rng: random.Random) -> bool:
    """One start, killed at a random moment or in a random save; True where it came to its end before."""
    tally.attempts += 1
    before = newest_steps(study)
    saves = rng.randint(1, 8) if tally.attempts % 2 else None
    child = start(study, log)
    limit = PATIENCE if saves else rng.uniform(0, seconds)
    code = wait(child, study, time.monotonic() + limit, saves)
    if code is None:
        os.killpg(child, signal.SIGKILL)
        killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        tally.kills += killed
        tally.during_saves += killed and bool(names(study))
    elif code:
        tally.faults += (f"an attempt failed:\n{log.read_text()}",)
    after = newest_steps(study)
    if "is damaged" in log.read_text():
        tally.faults += (log.read_text(),)
    if any(after.get(strategy, "") < step for strategy, step in before.items()):
        tally.faults += (f"checkpoints were lost: {before} -> {after}",)
    return code == 0


def clear(study: Study) -> None:
    """Remove everything but the images and their index."""
    for folder in (study.artifacts / "checkpoints", study.artifacts / "embeddings", study.results):
        rmtree(folder, ignore_errors=True)


def kill_often(root: Path, workers: int, kills: int, expected: dict, seconds: float, seed: int) -> Tally:
    """Runs under SIGKILL, until ``kills`` of them have been dealt out and the last run is through."""
    study, tally, rng = make_study(root, workers), Tally(workers), random.Random(f"{seed}/{workers}")
    while tally.kills < kills and not tally.faults:
        clear(study)
        while not attempt(study, root / "log.txt", tally, seconds, rng) and not tally.faults:
            pass
        tally.completions += not tally.faults
        found = contents(study)
        differ = sorted(path for path in found.keys() | expected.keys() if found.get(path) != expected.get(path))
        if differ and not tally.faults:
            tally.faults += (f"not the undisturbed run's: {', '.join(differ)}",)
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="at least so many for each number of workers")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, tallies = Path(folder), []
        study, log = make_study(root, 0), root / "log.txt"
        undisturbed(study, log, draw)  # in a fork: nothing here may leave threads behind
        know(study)
        seconds = undisturbed(study, log)
        expected = contents(study)
        print(f"undisturbed: {seconds:.1f} s, {len(expected)} files", flush=True)
        print("| workers | kills | of these in a save | completions | all equal |\n|---|---|---|---|---|", flush=True)
        for workers in options.workers:
            tally = kill_often(root, workers, options.kills, expected, seconds, options.seed)
            equal = "no" if tally.faults else "yes"
            row = (tally.workers, tally.kills, tally.during_saves, tally.completions, equal)
            print(f"| {' | '.join(map(str, row))} |", flush=True)
            print(*tally.faults, sep="\n", end="\n" * bool(tally.faults), file=sys.stderr)
            tallies.append(tally)
    return int(any(tally.faults for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
