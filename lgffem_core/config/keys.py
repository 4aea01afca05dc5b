"""The keys that parameters have, dotted as users write them, and what is said of one that there is none."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from lgffem_core.base.errors import near
from lgffem_core.config.params import Params


def known_keys(section: type[BaseModel] = Params, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> type, of the whole tree and with its sections: ``profile``, ``data``, ``data.imagenet``, …"""
    keys = {}
    for name, field in section.model_fields.items():
        keys[prefix + name] = field.annotation
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys |= known_keys(field.annotation, f"{prefix}{name}.")
    return keys


def keys_of(*kinds: type) -> frozenset[str]:
    """The dotted keys whose value is of one of these types, or null."""
    asked = {*kinds, *(kind | None for kind in kinds)}
    return frozenset(key for key, kind in known_keys().items() if kind in asked)


PATH_KEYS = keys_of(Path)
TEXT_KEYS = keys_of(str, Path)  # a shell hands their values over as they are; YAML would read more into them


def nearest_key(key: str) -> str | None:
    """The known key that a user most likely meant by ``key``: of its section, else of any; None where none is near."""
    keys, (section, _, leaf) = list(known_keys()), key.rpartition(".")
    for some in ([known for known in keys if known.rpartition(".")[0] == section], keys):
        by_leaf = {known.rpartition(".")[2]: known for known in reversed(some)}
        if close := near(leaf, by_leaf):
            return by_leaf[close[0]]
    return None


def told_instead(key: str) -> str:
    """What to say of an unknown key: the nearest one, or, where none is near, what there is in its section."""
    if nearest := nearest_key(key):
        return f"did you mean {nearest}?"
    parents = {name: name.rpartition(".")[0] for name in known_keys()}
    section = key.rpartition(".")[0]
    while section not in parents.values():
        section = section.rpartition(".")[0]
    inside = [name.rpartition(".")[2] for name, parent in parents.items() if parent == section]
    return f"{section or 'a profile'} has {', '.join(inside)}."
