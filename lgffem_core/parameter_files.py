"""Reading parameters: YAML files and ``--set`` pairs become a tree that ``params`` checks."""

import difflib
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from lgffem_core.errors import RequestError
from lgffem_core.params import Params


def known_keys(section: type[BaseModel] = Params, prefix: str = "") -> list[str]:
    """Every dotted key of the tree, sections included: ``["profile", "data", "data.imagenet", …]``."""
    keys = []
    for name, field in section.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += known_keys(field.annotation, f"{prefix}{name}.")
    return keys


def nearest_key(key: str) -> str:
    """The known key that a user most likely meant by ``key``."""
    keys = known_keys()
    by_leaf = {k.split(".")[-1]: k for k in reversed(keys)}
    close = difflib.get_close_matches(key, keys, n=1, cutoff=0.75)
    leaf = difflib.get_close_matches(key.split(".")[-1], by_leaf, n=1, cutoff=0.6)
    return close[0] if close else by_leaf[leaf[0]] if leaf else "profile"


class PlainLoader(yaml.SafeLoader):
    """Plain types only, and ``1e-3`` is a number as in YAML 1.2; PyYAML itself takes it for a string."""


PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+|\d*\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(path: Path) -> dict:
    """A YAML mapping from a file, with plain types only."""
    try:
        tree = yaml.load(Path(path).read_text(encoding="utf-8"), PlainLoader)
    except FileNotFoundError:
        raise RequestError(f"{path}: no such parameter file; the profiles are in params/.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise RequestError(f"{path}: cannot be read as YAML ({reason}).") from None
    if not isinstance(tree, dict):
        raise RequestError(f"{path}: must be a mapping of parameters, as in params/demo.yaml.")
    return tree


def parse_pairs(pairs: list[str]) -> dict[str, Any]:
    """``["training.a.epochs=2"]`` -> ``{"training.a.epochs": 2}``; values are read as YAML."""
    overrides = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise RequestError(f"--set {pair}: write it as key.path=value, e.g. training.a.epochs=2.")
        try:
            overrides[key] = yaml.load(value, PlainLoader)
        except yaml.YAMLError:
            raise RequestError(f"--set {pair}: the value is not valid YAML.") from None
    return overrides


def apply_overrides(tree: dict, overrides: dict[str, Any]) -> dict:
    """A copy of ``tree`` with each dotted key of ``overrides`` set."""
    merged = {k: apply_overrides(v, {}) if isinstance(v, dict) else v for k, v in tree.items()}
    for key, value in overrides.items():
        *sections, leaf = key.split(".")
        node = merged
        for name in sections:
            if not isinstance(node.setdefault(name, {}), dict):
                raise RequestError(f"{key}: {name} is a value, not a section; see params/paper.yaml.")
            node = node[name]
        node[leaf] = value
    return merged


def validate(tree: dict, source: str) -> Params:
    """Check ``tree`` against the schema; the first fault becomes one sentence naming key and remedy."""
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        faults = error.errors()  # a mistyped key may also be one that is missing: the typo is what to say
        fault = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
        key = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            message = f"unknown parameter {key}; did you mean {nearest_key(key)}?"
        elif fault["type"] == "missing":
            message = f"parameter {key} is missing."
        elif not key:  # a rule about the whole tree: its text says all
            message = f"{fault['msg'].removeprefix('Value error, ')}."
        else:
            message = f"parameter {key}: {fault['msg']}, got {fault['input']!r}."
        raise RequestError(f"{source}: {message}") from None
