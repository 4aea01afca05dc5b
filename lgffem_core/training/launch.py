"""Several processes for a training that a single one asked for, as a notebook does: torchrun, started from here.

``compute.devices`` says how many. They see the same batches as one process would, and leave the same files; whoever
asked waits, shows their progress, and takes the finished weights.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import yaml

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.base.files import write_text
from lgffem_core.base.progress import VARIABLE as EVENTS
from lgffem_core.base.project import OUTPUT
from lgffem_core.base.surroundings import PRIVATE
from lgffem_core.config.study import Study
from lgffem_core.config.watched import VARIABLE as DECLARED
from lgffem_core.config.watched import plain
from lgffem_core.model.device import uses_gpu

HELD = "LGFFEM_HELD"  # in the environment of processes whose profile is locked by the one that waits for them


def asks_for_several(study: Study) -> bool:
    """True where a training is to be shared by processes that are not there yet."""
    return study.params.compute.devices > 1 and int(os.environ.get("WORLD_SIZE", 1)) == 1


@contextmanager
def holding() -> Iterator[None]:
    """Let processes that are started inside know that this one holds the profile's lock."""
    os.environ[HELD] = "1"
    try:
        yield
    finally:
        del os.environ[HELD]


def launch(study: Study, module: str, words: list[str], title: str, log: Path) -> None:
    """Run ``python -m module FILE words`` in compute.devices processes, FILE holding the study's parameters.

    What they print is printed; what they say of errors goes to the file ``log``. In a run, or within ``holding``, the
    profile's lock is held already; else the first of them takes it.

    Raises ``RequestError`` where there are fewer GPUs, ``StudyError`` with what they say where they fail.
    """
    count = study.params.compute.devices
    if uses_gpu(study.params.compute) and torch.cuda.device_count() < count:
        raise RequestError(
            f"compute.devices: {count} GPUs are asked for and torch sees {torch.cuda.device_count()}; set it to that."
        )
    # Not watched: whoever asks has read all that the weights depend on, for the hash that they are known by.
    environment = {name: value for name, value in os.environ.items() if name != DECLARED} | {OUTPUT: str(study.root)}
    if EVENTS in environment:
        environment[HELD] = "1"
    log.parent.mkdir(parents=True, exist_ok=True)
    private = tempfile.TemporaryDirectory(prefix=f"{PRIVATE}{os.getpid()}_")
    with private as folder, open(log, "w", encoding="utf-8") as errors:
        file = write_text(Path(folder) / "params.yaml", yaml.safe_dump(plain(study.params).model_dump(mode="json")))
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        command = [sys.executable, *torchrun, "-m", module, str(file), *words]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
            code = process.wait()
        except BaseException:  # an interruption: torchrun ends its processes before it ends
            process.terminate()
            process.wait()
            raise
    if code:
        raise StudyError(why(log.read_text(encoding="utf-8"), title, count, log))
    log.unlink()


def why(said: str, title: str, count: int, log: Path) -> str:
    """The study's own sentence on an error; where there is none, with which code the first of the processes ended."""
    own = re.findall(r"^error: (.*)$", said, re.MULTILINE)
    if own:
        return own[0]
    codes = re.findall(r"exitcode\s*: (-?\d+)", said)
    ended = f"ended with code {codes[-1]}" if codes else "ended before its time"
    return (
        f"{title}: one of its {count} processes {ended}, and the others with it (see {log}); give the same command "
        "again: it goes on from the last checkpoint."
    )
