"""How a run tells where it is: events, appended as JSON lines to the file that ``LGFFEM_EVENTS`` names.

A stage runs in a Jupyter kernel, under papermill, under Snakemake; a file passes through all of them. In a
notebook opened by hand there is no such file, and ``EpochLines`` prints instead.
"""

import json
import os
import time
from pathlib import Path

VARIABLE = "LGFFEM_EVENTS"
STAGE_VARIABLE = "LGFFEM_STAGE"  # the stage that a process works for; several may run side by side
LINES = 20  # printed for one training run, beside its last


def emit(event: str, **details) -> None:
    """Append one event; does nothing where no run is listening."""
    path = os.environ.get(VARIABLE)
    if path:
        line = json.dumps({"event": event, "time": time.time(), "stage": os.environ.get(STAGE_VARIABLE), **details})
        with open(path, "a", encoding="utf-8") as handle:
            handle.write(line + "\n")


def read_events(path: Path, position: int = 0) -> tuple[list[dict], int]:
    """Events from byte ``position`` on, and where to go on reading; a half-written line waits."""
    if not path.exists():
        return [], position
    with open(path, "rb") as handle:
        handle.seek(position)
        data = handle.read()
    whole = data[: data.rfind(b"\n") + 1]
    return [json.loads(line) for line in whole.splitlines()], position + len(whole)


def clock(seconds: float) -> str:
    """3725 -> "1:02:05", 65 -> "1:05"."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class EpochLines:
    """Reports a training run's epochs under its ``title``: an event each, ``lines`` of them printed, and the last.

    ``unit`` is what a sample is: "images", or "slides".
    """

    def __init__(
        self, title: str, epochs: int, first: int = 0, quiet: bool = False, lines: int = LINES, unit: str = "images"
    ):
        self.title, self.epochs, self.first, self.quiet, self.unit = title, epochs, first, quiet, unit
        self.start = time.monotonic()
        self.every = max(1, -(-epochs // lines))

    def epoch_done(self, epoch: int, samples: int, loss: float, lr: float) -> None:
        """Report that ``epoch`` (0-based) ended, with ``samples`` seen since this process started."""
        elapsed = max(time.monotonic() - self.start, 1e-9)
        left = elapsed / (epoch + 1 - self.first) * (self.epochs - epoch - 1)
        if self.quiet:
            return
        emit(
            "epoch",
            title=self.title,
            epoch=epoch + 1,
            epochs=self.epochs,
            loss=loss,
            per_second=samples / elapsed,
            unit=self.unit,
            seconds_left=left,
        )
        if epoch % self.every == 0 or epoch + 1 == self.epochs:
            print(
                f"{self.title}  epoch {epoch + 1:>3}/{self.epochs}  loss {loss:8.4f}  "
                f"lr {lr:.1e}  {samples / elapsed:5.0f} {self.unit}/s  {clock(left)} left",
                flush=True,
            )
