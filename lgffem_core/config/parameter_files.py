"""Reading parameters: YAML files and ``--set`` pairs become a tree that ``params`` checks."""

import json
import math
import os
import re
from collections.abc import Collection
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from lgffem_core.base.errors import RequestError, near, one_line
from lgffem_core.base.project import PROJECT
from lgffem_core.config.keys import TEXT_KEYS, told_instead
from lgffem_core.config.params import Params

LARGEST = 2**32 - 1  # the largest seed that NumPy's and scikit-learn's generators take
LONGEST = 100  # characters of a user's value that a sentence quotes
DEEPEST = 9  # dots of a key; parameters have four


class PlainLoader(yaml.SafeLoader):
    """Plain types only, each key once, and ``1e-3`` is a number as in YAML 1.2; PyYAML itself takes it for a string.

    Aliases are refused: a few lines of them can stand for more values than fit into memory. So are their anchors,
    and a key with nothing behind it: both read as null where a value was meant.
    """

    def compose_node(self, parent, index):
        event = self.peek_event()
        if event.anchor:
            raise yaml.YAMLError(f"{event.anchor} stands there as an anchor or alias; write the value out")
        node = super().compose_node(parent, index)
        if isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null") and not node.value:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: a key with nothing behind it; null is a word")
        return node

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for i, key in enumerate(keys) if key in keys[:i]]
        if twice:
            raise yaml.YAMLError(f"the key {twice[0]!r} stands there twice")
        return super().construct_mapping(node, deep)


PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+|\d*\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def shown(value) -> str:
    """A value as a sentence quotes it, cut where it is long."""
    text = one_line(repr(value))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


@cache
def parsed(text: str):
    """The tree of a YAML text. Kept: a run's stages ask for the same few profiles hundreds of times."""
    return yaml.load(text, PlainLoader)


def profiles() -> list[Path]:
    """The parameter files that come with the study, and those that were put beside them."""
    return sorted((PROJECT / "params").glob("*.yaml"))


def read_yaml(path: Path) -> dict:
    """A YAML mapping from a file, with plain types only."""
    try:
        tree = deepcopy(parsed(Path(path).read_text(encoding="utf-8")))
    except FileNotFoundError:
        close = near(Path(path).stem, [profile.stem for profile in profiles()])
        where = f"did you mean params/{close[0]}.yaml?" if close else "the profiles are in params/."
        raise RequestError(f"{path}: no such parameter file; {where}") from None
    except IsADirectoryError:
        known = ", ".join(f"params/{profile.name}" for profile in profiles())
        raise RequestError(f"{path}: is a folder; name a parameter file, e.g. one of {known}.") from None
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror}).") from None
    except Exception as error:  # PyYAML's constructors raise ValueError, KeyError, RecursionError … of their own
        raise RequestError(f"{path}: cannot be read as YAML ({one_line(error)}).") from None
    if not isinstance(tree, dict):
        raise RequestError(f"{path}: must be a mapping of parameters, as in params/demo.yaml.")
    return tree


def parse_pairs(pairs: list[str]) -> dict[str, Any]:
    """``["training.a.epochs=2"]`` -> ``{"training.a.epochs": 2}``.

    Paths and names are taken as typed, but for the word null; other values are read as YAML.
    """
    overrides = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        key = key.strip()
        quoted = one_line(pair[:LONGEST])
        if not equals or not all(key.split(".")) or key.count(".") > DEEPEST or not is_utf8(key):
            raise RequestError(f"--set {quoted}: write it as key.path=value, e.g. training.a.epochs=2.")
        try:
            overrides[key] = value if key in TEXT_KEYS and value != "null" else yaml.load(value, PlainLoader)
        except Exception:  # as in ``read_yaml``
            raise RequestError(f"--set {quoted}: the value is not valid YAML.") from None
        if not value.strip() or (overrides[key] is None and value != "null"):
            raise RequestError(
                f"--set {quoted}: holds no value (is a shell variable empty?); leave the pair out, or write null."
            )
        check_leaves(overrides[key], key, "--set")
    return overrides


def is_utf8(text: str) -> bool:
    """False where bytes were typed that are none: Python has surrogates in their place."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def check_leaves(value, key: str, source: str) -> None:
    """Refuse what no parameter can be: a number beyond every use, or text that is no path on any system."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for name, part in inside:
        check_leaves(part, f"{key}.{name}" if key else str(name), source)
    fault = None
    if isinstance(value, float) and not math.isfinite(value):
        fault = "must be a finite number"
    elif isinstance(value, int) and abs(value) > LARGEST:
        fault = f"must not be larger than {LARGEST}"
    elif key in TEXT_KEYS and isinstance(value, str) and not value.strip():  # as a path, the current folder
        fault = "must not be empty; leave it out, or write null"
    elif isinstance(value, str) and "\0" in value:
        fault = "must not hold the character 0"
    elif isinstance(value, str) and not is_utf8(value):
        fault = "holds bytes that are no UTF-8; rename the file or folder, or link to it"
    elif isinstance(value, str) and value.startswith("~") and os.path.expanduser(value).startswith("~"):
        fault = "names a home folder that is not there"
    if fault:
        raise RequestError(one_line(f"{source}: parameter {key}: {fault}, got {shown(value)}."))


def leaves(tree, prefix: str = "") -> dict[str, Any]:
    """A tree as dotted key -> value; lists of plain values, and what is empty, stay whole.

    >>> leaves({"a": {"b": 1}, "seeds": [0, 1], "hits": [{"found": 46}]})
    {'a.b': 1, 'seeds': [0, 1], 'hits.0.found': 46}
    """
    if isinstance(tree, list) and any(isinstance(value, dict | list) for value in tree):
        tree = dict(enumerate(tree))
    if not isinstance(tree, dict) or not tree:
        return {prefix.removesuffix("."): tree} if prefix else {}
    return {k: v for name, value in tree.items() for k, v in leaves(value, f"{prefix}{name}.").items()}


def apply_overrides(tree: dict, overrides: dict[str, Any]) -> dict:
    """A copy of ``tree`` with each dotted key of ``overrides``, which were typed behind --set, set."""
    merged = {k: apply_overrides(v, {}) if isinstance(v, dict) else v for k, v in tree.items()}
    for key, value in overrides.items():
        *sections, leaf = key.split(".")
        node = merged
        for name in sections:
            if not isinstance(node.setdefault(name, {}), dict):
                raise RequestError(f"--set {key}: {name} is a value, not a section; see params/paper.yaml.")
            node = node[name]
        node[leaf] = value
    return merged


def validate(tree: dict, source: str, overrides: Collection[str] = ()) -> Params:
    """Check ``tree`` against the schema; the first fault becomes one sentence naming key and remedy.

    Types are taken at their word, as in JSON: ``true`` is no number, and ``"3"`` neither. What is wrong with one of
    the ``overrides``, dotted keys, or inside it, is not laid on the file that is the ``source`` of the others.
    """
    check_leaves(tree, "", source)
    try:
        return Params.model_validate_json(json.dumps(tree, default=str), strict=True)
    except ValidationError as error:
        faults = error.errors()  # a mistyped key may also be one that is missing: the typo is what to say
        fault = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
        key = ".".join(str(part) for part in fault["loc"])
        rule = fault["type"] == "value_error" and isinstance(fault["input"], dict)  # of a section: its text says all
        if fault["type"] == "extra_forbidden":
            message = f"unknown parameter {key}; {told_instead(key)}"
        elif fault["type"] == "missing":
            message = f"parameter {key} is missing."
        elif fault["type"] == "model_type":
            message = f"parameter {key}: must be a section, as in params/paper.yaml, got {shown(fault['input'])}."
        elif rule:
            message = f"{said(fault)}."
        else:
            remedy = "; put it in quotes" if key in TEXT_KEYS and not isinstance(fault["input"], str) else ""
            message = f"parameter {key}: {said(fault)}, got {shown(fault['input'])}{remedy}."
        typed = any(f"{key}.".startswith(f"{each}.") or each.startswith(f"{key}.") for each in overrides)
        place = "--set" if typed else source
        if rule:  # it names keys: those of them that were typed
            blamed = [each for each in overrides if re.search(rf"\b{re.escape(each)}\b", message)]
            place = f"--set {', '.join(blamed)}" if blamed else source
        raise RequestError(one_line(f"{place}: {message}")) from None


def said(fault: dict) -> str:
    """What one of our rules, or pydantic itself, says of a fault."""
    return fault["msg"].removeprefix("Value error, ")


def checked_entry(schema: type[BaseModel], entry, place: str) -> BaseModel:
    """An entry of a file as ``schema`` has it; ``RequestError`` names its ``place`` and the key at fault."""
    try:
        return schema.model_validate(entry)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ", ".join([place, *map(str, fault["loc"])])
        raise RequestError(one_line(f"{place}: {said(fault)}.")) from None


def read_reference(path: Path, name: str, schema: type[BaseModel]) -> list:
    """The list ``name`` of a file in ``params/reference``, each entry as ``schema`` has it; ``RequestError`` else."""
    entries = read_yaml(path).get(name)
    if not isinstance(entries, list) or not entries:
        raise RequestError(f"{path}: {name} must be a list of entries.")
    return [checked_entry(schema, entry, f"{path}: {name}, entry {i}") for i, entry in enumerate(entries, start=1)]


def read_rows(path: Path, schema: type[BaseModel]) -> list:
    """The ``rows`` of such a file, a ledger; ``RequestError`` too where one stands there twice, or out of order."""
    rows = read_reference(path, "rows", schema)
    numbers = [row.row for row in rows]
    if numbers != sorted(set(numbers)):
        raise RequestError(f"{path}: the rows must be numbered upwards, each number once; they are {numbers}.")
    return rows
