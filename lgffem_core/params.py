"""The parameters of a run: one validated tree, whose defaults are what the paper states.

A profile (``params/*.yaml``) says only where it differs. Every key that is not listed here is refused,
with the nearest key named, before anything starts.
"""

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lgffem_core.errors import RequestError

DATASETS = ("imagenet", "pannuke", "kimia")
STRATEGIES = ("a", "b", "c")
PROTOCOLS = ("test_to_train", "leave_one_out", "released")

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """A node of the tree: unknown keys are errors, values cannot be changed after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Synthetic(Section):
    """Procedural tissue, written in the real data sets' layouts for every data set whose root is null."""

    datasets: tuple[Literal["imagenet", "pannuke", "kimia"], ...] = ()  # which of them may be made
    seed: int = 0
    image_size: Positive = 96  # pixels; PanNuke's and Kimia's patches alike
    imagenet_classes: Positive = 10
    imagenet_per_class: Positive = 24
    pannuke_per_tissue: Positive = 12
    kimia_train_per_scan: Positive = 16
    kimia_test_fraction: Fraction = 0.1  # of the published test counts, at least two patches a scan


class ImageNet(Section):
    root: Path | None = None  # holds ILSVRC2012_img_train.tar, or train/<wnid>/*.JPEG


class PanNuke(Section):
    root: Path | None = None  # holds images/ (and masks/), or the official "Fold 1" … "Fold 3"
    split: Literal[1, 2, 3] | None = None  # PathML's: the fold trained on; null = all three (ledger 11)
    tissues: Literal["pannuke", "any"] = "pannuke"  # which names a file may carry
    channel_order: Literal["bgr", "rgb"] = "bgr"  # of the PNG files; PathML writes BGR (ledger 13)


class Kimia(Section):
    root: Path | None = None  # holds train/ and test/
    scans: Positive = 24


class Data(Section):
    imagenet: ImageNet = ImageNet()
    pannuke: PanNuke = PanNuke()
    kimia: Kimia = Kimia()
    synthetic: Synthetic = Synthetic()
    check_counts: bool = False  # compare with the published numbers of images


class Backbone(Section):
    name: str = "convnextv2_base.fcmae"  # any timm model with features_only and four stages
    weights: Path | None = None  # a local .safetensors or .pth; null = timm's own from the hub
    pretrained: bool = True  # false: random weights, drawn with the run's seed
    options: dict[str, Any] = {}  # passed to timm.create_model
    mean: tuple[float, float, float] | None = None  # input statistics, images in [0, 1];
    std: tuple[float, float, float] | None = None  # null = from the weights' configuration


class Neck(Section):
    channels: Positive = 512
    layers: Positive = 3
    reduction: Positive = 2  # r of the aggregators
    epsilon: Rate = 1e-4  # of the fast normalised fusion


class Head(Section):
    gem_p: Rate = 4.6
    gem_eps: Rate = 1e-6
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.6  # only where toggles.head_norm is on


class Toggles(Section):
    """Where text and released code disagree. Null = as the variant says; see ``study.VARIANTS``."""

    loss_scale: Literal["s", "margin"] | None = None  # ledger 2
    grn: Literal["channels", "width"] | None = None  # ledger 3: the axis of the mean
    head_norm: bool | None = None  # ledger 4: BatchNorm and Dropout in the head
    fusion_relu: bool | None = None  # ledger 5
    normalize_embedding: bool | None = None  # ledger 12: L2 before the search


class Model(Section):
    backbone: Backbone = Backbone()
    neck: Neck = Neck()
    head: Head = Head()
    toggles: Toggles = Toggles()
    image_size: Positive = 224


class Loss(Section):
    margin: Rate = 17.2  # degrees
    scale: Rate = 64.0
    sub_centers: Positive = 6
    lr: Rate = 1e-4  # of the class centers' own AdamW


EPOCHS = {"a": 60, "b": 300, "c": 300}  # paper, section 4.1.3


class Strategy(Section):
    epochs: Positive
    lr: Rate | None = None  # null = training.lr
    checkpoint: Path | None = None  # a released checkpoint (.pth) to use instead of training


class Training(Section):
    batch_size: Positive = 64
    lr: Rate = 5e-3
    lr_min: Rate = 8e-5
    schedule: Literal["cosine", "warm_restarts"] = "cosine"  # ledger 7
    restart_epochs: Positive = 3  # T_0 of the warm restarts
    weight_decay: Annotated[float, Field(ge=0)] = 1e-5
    amsgrad: bool = False
    clip_norm: Rate = 1.0
    loss: Loss = Loss()
    a: Strategy = Strategy(epochs=EPOCHS["a"])
    b: Strategy = Strategy(epochs=EPOCHS["b"])
    c: Strategy = Strategy(epochs=EPOCHS["c"])

    @model_validator(mode="before")
    @classmethod
    def published_epochs(cls, values):
        """A profile that sets another key of a strategy keeps its published number of epochs."""
        if not isinstance(values, dict):
            return values
        given = {s: {"epochs": n, **values[s]} for s, n in EPOCHS.items() if isinstance(values.get(s), dict)}
        return {**values, **given}


class Retrieval(Section):
    protocols: tuple[Literal["test_to_train", "leave_one_out", "released"], ...] = PROTOCOLS
    batch_size: Positive = 64
    bootstrap: Positive = 2000  # resamples of the 95 % interval


class Compute(Section):
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    threads: Positive = 2  # of torch on the CPU: part of the result's last bits
    workers: Annotated[int, Field(ge=0)] = 2  # processes that decode and augment


class Params(Section):
    profile: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    data: Data = Data()
    model: Model = Model()
    training: Training = Training()
    retrieval: Retrieval = Retrieval()
    compute: Compute = Compute()
    variants: tuple[Literal["paper", "released"], ...] = ("paper",)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0,)

    @model_validator(mode="after")
    def something_to_run(self):
        for name in ("variants", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise ValueError(f"{name} must list at least one value, none of them twice")
        return self


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
