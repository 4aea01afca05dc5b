"""What one released checkpoint holds and settles, as text for the terminal."""

from pathlib import Path

from lgffem_core.base.errors import RequestError
from lgffem_core.systems.lgffem.contents import TRAINED_ON, Checkpoint
from lgffem_core.systems.lgffem.evidence import number, reading, steps_words
from lgffem_core.systems.lgffem.ledger import read_ledger

OPTIMIZER = ("lr", "initial_lr", "betas", "momentum", "weight_decay", "amsgrad")
SCHEDULE = ("T_0", "T_mult", "T_max", "base_lrs", "eta_min", "last_epoch")
KINDS = {"T_0": "cosine with warm restarts", "T_max": "one cosine"}  # of schedules, by what only they have
LEGEND = "text, code: the reading that the file supports; both: they agree here; open: it does not tell."


def format_checkpoint(path: Path) -> str:
    """Contents in lines, then a line for each row of the ledger.

    Raises ``RequestError`` where the file is none of the authors', or its parts have another form than theirs.
    """
    checkpoint = Checkpoint.read(path)
    try:
        found = [(row.row, row.topic, *reading(checkpoint, row.row)) for row in read_ledger()]
        lines = contents(checkpoint)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise RequestError(f"{path}: not an ffnir checkpoint; a part has another form ({error}).") from error
    width = max(len(topic) for _, topic, *_ in found)
    table = [f"{row:3d}  {topic:{width}s}  {supports:4s}  {why}" for row, topic, supports, why in found]
    return "\n".join([str(path), *(f"  {line}" for line in lines), "", f"Rows of the ledger. {LEGEND}", *table])


def contents(c: Checkpoint) -> list[str]:
    """What is in the file, without judging it."""
    layers = len({key.split(".")[0] for key in c.stored["model_neck_state_dict"]})
    channels = {len(weights) for weights in c.weights("head", ".fc.weight")}
    powers = ", ".join(f"{float(p):.2f}" for p in c.weights("head", ".gem.p")) or "unknown"
    seen = {int(count) for count in c.weights("head", ".bn.num_batches_tracked")}
    return [
        f"epoch {number(c.epoch)}, best loss {number(c.best_loss)}",
        f"neck: {layers} layer{'s' * (layers != 1)}; head: {number(sorted(channels))} channels, GeM p {powers}",
        f"batches that the head's BatchNorm was trained with, earlier strategies included: {number(sorted(seen))}",
        loss_words(c),
        *(optimizer_words(name, c.group(name)) for name in ("optimizer", "loss_optimizer")),
        schedule_words(c.state("scheduler")),
        steps_words(c),
    ]


def loss_words(c: Checkpoint) -> str:
    """The class centres, and which data set has so many classes."""
    if c.centres is None:
        return "loss: no class centres in the file"
    length, count = c.centres
    sets = [
        f"{n} classes (strategy {TRAINED_ON[n][0].upper()}), {k} centre{'s' * (k != 1)} each"
        for n, k in c.classes.items()
    ]
    return f"loss: {count} centres of length {length}: {' or '.join(sets) or 'of no data set of the paper'}"


def optimizer_words(name: str, group: dict) -> str:
    """Settings of an optimiser; the file does not hold its name."""
    kind = "with betas, so of Adam's kind" if "betas" in group else "without betas, so not of Adam's kind"
    values = [kind, *(f"{key} {number(group[key])}" for key in OPTIMIZER if key in group)]
    return f"{name}: {', '.join(values) if group else 'not in the file'}"


def schedule_words(state: dict) -> str:
    """Kind and settings of the schedule of the rate; the file does not hold its name."""
    kind = next((words for key, words in KINDS.items() if key in state), "of another kind")
    values = [kind, *(f"{key} {number(state[key])}" for key in SCHEDULE if key in state)]
    return f"schedule: {', '.join(values) if state else 'none'}"
