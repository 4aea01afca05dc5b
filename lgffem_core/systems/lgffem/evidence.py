"""Which reading of a ledger row one released checkpoint supports: ``READINGS``. All other rows stay open."""

from collections.abc import Callable

from lgffem_core.config.parameter_files import shown
from lgffem_core.config.params import STRATEGIES, Training
from lgffem_core.systems.lgffem.contents import Checkpoint

EPOCHS = {strategy: getattr(Training(), strategy).epochs for strategy in STRATEGIES}  # of the text
DEFAULT_BATCH = {"a": 512, "b": 16, "c": 16}  # of the authors' scripts
TEXT, CODE, BOTH, OPEN = "text", "code", "both", "open"  # what is supported; both: the two agree here
Reading = tuple[str, str]  # one of these, and why


def scale(c: Checkpoint) -> Reading:
    return OPEN, f"the scale is no weight; a best loss of {number(c.best_loss)} may be of either"


def response_norm(c: Checkpoint) -> Reading:
    gammas = c.weights("neck", ".gc.gamma")
    if not gammas:
        return OPEN, "no response normalisation is among the weights"
    shape = "x".join(map(str, gammas[0].shape))
    return OPEN, f"gamma is {shape}, as in the code's layer; over which axis its mean runs is no weight"


def head_norm(c: Checkpoint) -> Reading:
    if c.weights("head", ".bn.running_mean"):
        return CODE, "the head holds BatchNorm's statistics"
    if c.weights("head", ".fc.weight") or c.weights("head", ".gem.p"):
        return TEXT, "the head holds no BatchNorm"
    return OPEN, "the head was not recognised"


def fusion_weights(c: Checkpoint) -> Reading:
    values = [value for weights in c.weights("neck", "_weight") for value in weights.flatten().tolist()]
    negative = sum(value < 0 for value in values)
    if negative:
        return OPEN, f"{negative} of {len(values)} weights below 0, the least {min(values):g}: the forms differ"
    return (BOTH, f"none of {len(values)} weights is negative") if values else (OPEN, "no fusion weight is in the file")


def epochs(c: Checkpoint) -> Reading:
    if c.strategy is None or c.epoch is None:
        return OPEN, "epoch or strategy is not known"
    most = EPOCHS[c.strategy]
    if c.epoch > most:
        return CODE, f"epoch {c.epoch}, the text has {most}"
    return BOTH, f"epoch {c.epoch} of at most {most}: a file is written when the loss is at its best"


def schedule(c: Checkpoint) -> Reading:
    group, state, wanted = c.group(), c.state("scheduler"), Training()
    if not group:
        return OPEN, "the optimiser's state is not in the file"
    rate = number(group.get("initial_lr", group.get("lr")))
    if not state:
        return OPEN, f"no schedule: a rate of {rate} throughout"
    rates = f"{rate} to {number(state.get('eta_min'))}, the text has {wanted.lr:g} to {wanted.lr_min:g}"
    if "T_max" in state or state.get("T_0", 0) >= EPOCHS.get(c.strategy, max(EPOCHS.values())):
        return TEXT, f"one cosine, {rates}"
    if "T_0" in state:
        return CODE, f"warm restarts, T_0 = {state['T_0']}, {rates}"
    return OPEN, "a schedule of another kind"


def folds(c: Checkpoint) -> Reading:
    found = {name for name, _ in c.batches()}
    if c.strategy != "b" or len(found) != 1:
        return OPEN, steps_words(c) if c.strategy == "b" else "about strategy B"
    return (CODE if "1" in found.pop() else TEXT), steps_words(c)


def batch_size(c: Checkpoint) -> Reading:
    found = {size for _, size in c.batches()}
    supported = {Training().batch_size: TEXT, DEFAULT_BATCH.get(c.strategy): CODE}
    return supported.get(found.pop(), OPEN) if len(found) == 1 else OPEN, steps_words(c)


def amsgrad(c: Checkpoint) -> Reading:
    if "amsgrad" not in c.group() or c.strategy is None:
        return OPEN, "optimiser or strategy is not known"
    state = f"AMSGrad is {'on' if c.group()['amsgrad'] else 'off'}"
    if c.strategy != "c":
        return OPEN, f"about strategy C; here {state}"
    return CODE if c.group()["amsgrad"] else TEXT, state


def selection(c: Checkpoint) -> Reading:
    if c.best_loss is None:
        return OPEN, "no best loss is in the file"
    return CODE, "it was written at the lowest training loss so far"


#: Ledger row -> what a checkpoint says of it.
READINGS: dict[int, Callable[[Checkpoint], Reading]] = {
    2: scale,
    3: response_norm,
    4: head_norm,
    5: fusion_weights,
    6: epochs,
    7: schedule,
    11: folds,
    19: batch_size,
    20: amsgrad,
    21: selection,
}


def reading(checkpoint: Checkpoint, row: int) -> Reading:
    """Which reading of a ledger row a checkpoint supports, and why."""
    return READINGS[row](checkpoint) if row in READINGS else (OPEN, "a checkpoint does not tell")


def steps_words(c: Checkpoint) -> str:
    """Steps an epoch, and what they would be steps of."""
    if c.steps is None or c.strategy is None:
        return "steps an epoch, or the strategy, are not known"
    found = " or ".join(f"{name} in batches of {size}" for name, size in c.batches())
    return f"{c.steps:g} steps an epoch: {found or 'no usual batch size, or an optimiser that was begun anew'}"


def number(value) -> str:
    """A value of the file for people."""
    if isinstance(value, list | tuple):
        return " and ".join(map(number, value)) or "unknown"
    if isinstance(value, float) or hasattr(value, "dtype"):
        return f"{float(value):g}"
    return "unknown" if value is None else shown(value)  # a text of the file reaches the terminal quoted
