"""The authors' released checkpoints: their key names in terms of ours, and loading one.

A released file is a dict with ``model_neck_state_dict``, ``model_head_state_dict``, ``loss_state_dict``
and the optimisers' states. ``load_released`` fills a model with neck and head; ``evidence`` reads the rest.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.serialization import safe_globals

from lgffem_core.base.errors import RequestError
from lgffem_core.model.weight_files import python_objects, unread
from lgffem_core.systems.lgffem.model import LGFFEM
from lgffem_core.systems.lgffem.neck import NODES, Term

LATERAL = {"pwconv1": "0", "norm": "1", "pwconv2": "3"}
LOCAL = {
    "norm": "local_operator.0",
    "pwconv1": "local_operator.1",
    "pwconv2": "local_operator.3",
    "normup": "resize.0",
    "upsample": "resize.1",
}
GLOBAL = {
    "dwconv": "global_operator.0",
    "norm": "global_operator.1",
    "pwconv1": "global_operator.2",
    "gc": "global_operator.4",
    "pwconv2": "global_operator.5",
    "downsample": "resize.0",
    "normup": "resize.1",
}
HEAD = {"gem": "gem", "bn": "norm.0", "fc": "fc_in", "fc_norm": "fc_out"}
RESPONSE_NORM = {"gamma": "weight", "beta": "bias"}  # inside "gc"
MAKE_SCALAR = np.float32(0).__reduce__()[0]
#: What their ``best_loss``, a NumPy number, is stored with; before NumPy 2 the function had another name.
NUMBERS = [
    (MAKE_SCALAR, "numpy.core.multiarray.scalar"),
    (MAKE_SCALAR, "numpy._core.multiarray.scalar"),
    *(np.dtype, *(type(np.dtype(name)) for name in ("float32", "float64", "int64"))),
]


def released_term_name(node: str, term: Term) -> str:
    """The authors' name of a term, e.g. ``p22_lca_P21``: inner nodes as sources of outer LAs are upper case."""
    target, source = node.replace("_", "").lower(), term.source.replace("_", "").lower()
    if node in ("P2_2", "P3_2") and term.source.endswith("_1"):
        source = source.upper()
    return f"{target}_{'gca' if term.aggregator == 'GA' else 'lca'}_{source}"


def rename_layer_key(key: str) -> str | None:
    """A neck layer's key in our naming, from theirs (both without the layer's prefix); None if unknown."""
    module, _, rest = key.partition(".")
    for node, terms in NODES.items():
        if module == f"{node.lower()}_weight" and not rest:
            return f"nodes.{node}.weights"
        for position, term in enumerate(terms):
            if module != released_term_name(node, term):
                continue
            part, _, leaf = rest.partition(".")
            prefix = f"nodes.{node}.aggregators.{position}"
            if part == "alpha":
                return f"{prefix}.alpha"
            table = LOCAL if term.aggregator == "LA" else GLOBAL
            leaf = RESPONSE_NORM.get(leaf) if part == "gc" else leaf
            return f"{prefix}.{table[part]}.{leaf}" if part in table and leaf else None
    return None


def rename_neck_key(key: str) -> str | None:
    """``neck_layer_0.p1_down_channel.norm.bias`` -> ``neck.lateral.0.1.bias``; None if unknown."""
    layer, _, rest = key.partition(".")
    number = layer.removeprefix("neck_layer_")
    module, _, leaf = rest.partition(".")
    if module.endswith("_down_channel") and module[1:2].isdecimal():
        part, _, name = leaf.partition(".")
        return f"neck.lateral.{int(module[1]) - 1}.{LATERAL[part]}.{name}" if part in LATERAL else None
    renamed = rename_layer_key(rest)
    return renamed and f"neck.layers.{number}.{renamed}"


def rename_head_key(key: str) -> str | None:
    """``h1.bn.weight`` -> ``head.mini_heads.0.norm.0.weight``; None if unknown."""
    head, part, leaf = (key.split(".") + ["", ""])[:3]
    known = part in HEAD and head[1:].isdecimal()
    return f"head.mini_heads.{int(head[1:]) - 1}.{HEAD[part]}.{leaf}" if known else None


def convert_released(neck: dict[str, Tensor], head: dict[str, Tensor]) -> dict[str, Tensor]:
    """The authors' neck and head state as a ``trainable_state`` of ours.

    The response norm's parameters change shape, 1×C×1×1 to C. A key that is not known is an error.
    """
    state = {}
    for rename, part in ((rename_neck_key, neck), (rename_head_key, head)):
        for key, tensor in part.items():
            name = rename(key)
            if name is None:
                raise RequestError(f"unknown weight {key!r}; is this an ffnir checkpoint?")
            state[name] = tensor.flatten() if ".gc." in key else tensor
    return state


def read_released(path: Path) -> dict:
    """Everything in a released ``.pth`` file, read without executing anything in it; neck and head are there.

    Raises ``RequestError`` where it is damaged, none of theirs, or holds objects that are neither weights nor numbers.
    """
    if path.is_dir():
        raise RequestError(f"{path}: is a folder, not an ffnir checkpoint; name a .pth file.")
    try:
        with safe_globals(NUMBERS):
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RequestError(f"{path}: no such released checkpoint.") from None
    except Exception as error:  # a damaged file is reported in many ways
        with safe_globals(NUMBERS):
            objects = python_objects(path)
        if objects:
            found = f"it holds objects of another kind ({', '.join(objects[:3])}); nothing of it was executed"
            raise RequestError(f"{path}: not an ffnir checkpoint: {found}.") from error
        raise RequestError(
            f"{path}: not an ffnir checkpoint, or a damaged one ({unread(error)}); get it again."
        ) from error
    for part in ("model_neck_state_dict", "model_head_state_dict"):
        weights = stored.get(part) if isinstance(stored, dict) else None
        if not isinstance(weights, dict) or not all(map(is_weight, weights, weights.values())):
            raise RequestError(f"{path}: not an ffnir checkpoint; it has no weights under {part}.")
        broken = next((key for key, tensor in weights.items() if not tensor.isfinite().all()), None)
        if broken:
            raise RequestError(f"{path}: {broken} holds values that are no finite numbers; get the file again.")
    return stored


def is_weight(name, value) -> bool:
    """Whether what a checkpoint holds is a named tensor with values, as theirs are; a sparse one is not."""
    tensor = isinstance(name, str) and torch.is_tensor(value)
    return tensor and value.layout == torch.strided and not value.is_meta


def load_released(model: LGFFEM, path: Path) -> None:
    """Fill neck and head from a released ``.pth`` file.

    Raises ``RequestError`` where the file is none of theirs, or its sizes differ from the model's.
    """
    stored = read_released(path)
    try:
        model.load_trainable_state(convert_released(stored["model_neck_state_dict"], stored["model_head_state_dict"]))
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip().rstrip(".")
        raise RequestError(f"{path}: does not fit model.neck and model.toggles ({reason}).") from None
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from None
