"""What users get wrong, as one table: each case ends with the right exit code and one sentence, and changes no result.

A case says what is wrong, how it is given to the study, the exit code, and pieces of the sentence. Most go through
the command line; what only a notebook meets goes through the function that the notebook calls.
"""

import errno
import fcntl
import os
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from lgffem_core.base.errors import StudyError
from lgffem_core.base.project import PROJECT
from lgffem_core.config.params import Backbone as BackboneParams
from lgffem_core.config.study import Study
from lgffem_core.data import prepare
from lgffem_core.model.backbone import Backbone
from lgffem_core.run import checklist as checklist_module
from lgffem_core.run import cli
from lgffem_core.run.stages import Request
from lgffem_core.systems.lgffem.head import GeMHead
from lgffem_core.systems.lgffem.model import LGFFEM
from lgffem_core.systems.lgffem.neck import Neck
from lgffem_core.systems.lgffem.released import load_released

SOUND = """\
profile: mine
data: {synthetic: {datasets: [imagenet, pannuke, kimia]}}
model: {backbone: {name: test_convnext, pretrained: false}}
baselines: {densenet121: {pretrained: false}, ma_ms: {network: legacy_seresnet18, pretrained: false}}
"""
NETWORK = "test_convnext"  # timm's own: a quarter of a million weights


class Case(NamedTuple):
    wrong: str  # what a user got wrong
    how: Any  # a function of the workshop that does it
    code: int | tuple[int, ...]
    said: tuple[str, ...]  # pieces of the sentence
    kind: str = "sentence"  # or "list" (several lines are right), or "usage" (argparse)


class StartedError(Exception):
    """The study went on to start a process."""


class Workshop:
    """A project of one's own with the results of an earlier run, and ways to hand the study something."""

    def __init__(self, folder: Path, monkeypatch, capsys):
        self.folder, self.monkeypatch, self.capsys = folder, monkeypatch, capsys
        self.root = folder / "project"
        for name in ("results/mine/tables/table1.csv", "results/mine/manifest.json", "artifacts/mine/index/kimia.csv"):
            (file := self.root / name).parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"an earlier run's {name}")
        monkeypatch.chdir(folder)

    def state(self) -> dict[str, bytes]:
        """Every file of the project's results, by name."""
        files = (path for path in (self.root / "results").rglob("*") if path.is_file())
        return {path.as_posix(): path.read_bytes() for path in files}

    def command(self, *words: str) -> tuple[int, str]:
        """Exit code and error output of ``./run_all.sh WORDS``."""
        try:
            code = cli.main([*words])
        except SystemExit as stopped:  # argparse
            code = stopped.code
        return code, self.capsys.readouterr().err

    def called(self, function) -> tuple[int, str]:
        """The same for a function that a notebook calls, as the command line would end."""
        with pytest.raises(StudyError) as caught:
            function()
        return caught.value.exit_code, f"error: {caught.value}\n"

    def study(self, **overrides) -> Study:
        """The sound profile with some values set (``data__kimia__root`` for data.kimia.root)."""
        (file := self.folder / "mine.yaml").write_text(SOUND)
        return Study.load(file, {k.replace("__", "."): v for k, v in overrides.items()}, root=self.root)


# -- ways to hand the study something ---------------------------------------------------------------------


def profile(content: str | bytes | None, *words: str):
    """A parameter file with this content, and further words of the command line."""

    def give(shop: Workshop):
        if content is not None:
            (shop.folder / "mine.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
        return shop.command("mine.yaml", *words)

    return give


def line(text: str):
    """A sound parameter file with one more line."""
    return profile(f"{SOUND}{text}\n")


def pair(*pairs: str):
    """A sound parameter file, and pairs behind --set."""
    return profile(SOUND, "--set", *pairs)


def words(*given: str):
    """Words behind ./run_all.sh."""
    return lambda shop: shop.command(*given)


def folder_as_profile(shop):
    (shop.folder / "params.yaml").mkdir()
    return shop.command("params.yaml")


def state(shop) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {k: v.contiguous() for k, v in timm.create_model(NETWORK, pretrained=False).state_dict().items()}


def weights(make, name="w.safetensors", network=NETWORK, **fields):
    """A file of weights for the backbone, made by ``make(shop, path)``."""

    def give(shop):
        make(shop, path := shop.folder / name)
        return shop.called(lambda: Backbone(BackboneParams(name=network, pretrained=False, **fields), path))

    return give


def content(value: bytes):
    return lambda shop, path: path.write_bytes(value)


def cut_off(shop, path):
    save_file(state(shop), path)
    path.write_bytes(path.read_bytes()[:-5000])


def of_another_network(shop, path):
    save_file(timm.create_model("test_resnet", pretrained=False).state_dict(), path)


def without_one(shop, path):
    save_file({k: v for k, v in state(shop).items() if k != "stages.0.blocks.0.conv_dw.bias"}, path)


def with_one_of_another_shape(shop, path):
    save_file({**state(shop), "stages.0.blocks.0.conv_dw.bias": torch.zeros(3, 3)}, path)


def with_a_number(shop, path):
    torch.save({**state(shop), "stages.0.blocks.0.conv_dw.bias": 3}, path)


class Trap:
    """Unpickling this makes a folder."""

    def __reduce__(self):
        return os.mkdir, ("pwned",)


def trap(shop, path):
    torch.save({"state_dict": Trap(), "model_neck_state_dict": Trap()}, path)


def network(name=NETWORK, **fields):
    """A backbone of this name and these settings."""

    def give(shop):
        return shop.called(lambda: Backbone(BackboneParams(name=name, **{"pretrained": False, **fields})))

    return give


def released(make):
    """A released checkpoint, made by ``make(shop, path)``."""

    def give(shop):
        neck, head = Neck([4, 4, 4, 4], 4, 1, grn="width"), GeMHead(4, norm=True)
        model = LGFFEM(torch.nn.Identity(), neck, head, normalize=False)
        make(shop, path := shop.folder / "released.pth")
        return shop.called(lambda: load_released(model, path))

    return give


def checkpoint(neck=(), head=()):
    """A file in the authors' form."""
    return lambda shop, path: torch.save(
        {"model_neck_state_dict": dict(neck), "model_head_state_dict": dict(head)}, path
    )


def cut_off_checkpoint(shop, path):
    torch.save({"model_neck_state_dict": {"a": torch.zeros(9999)}}, path)
    path.write_bytes(path.read_bytes()[:-20000])


# -- data -------------------------------------------------------------------------------------------------


def image(path: Path, size=8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(str(path))).integers(0, 256, size=(size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def kimia_folder(root: Path):
    for scan in ("s0", "s1"):
        for name in ("train/{}/1.jpg", "train/{}/2.jpg", "test/{}_1.jpg"):
            image(root / name.format(scan))


def pannuke_folder(root: Path):
    for number, tissue in enumerate(("Breast", "Colon", "Breast", "Colon")):
        image(root / "images" / f"fold{number % 3 + 1}_{number}_{tissue}.png")


def imagenet_folder(root: Path):
    for wnid in ("n01", "n02"):
        image(root / "train" / wnid / f"{wnid}_1.JPEG")


MAKE = {"kimia": kimia_folder, "pannuke": pannuke_folder, "imagenet": imagenet_folder}


def data(dataset: str, spoil, **overrides):
    """A sound folder of a data set, spoilt by ``spoil(root)``, as notebook 01 reads it."""

    def give(shop):
        MAKE[dataset](root := shop.folder / "slides")
        spoil(root)
        given = {f"data__{dataset}__root": str(root), "data__kimia__scans": 2, **overrides}
        return shop.called(lambda: prepare(shop.study(**given), dataset))

    return give


def root_is(make):
    """A root of Kimia's data that ``make(path)`` makes, named on the command line."""

    def give(shop):
        make(path := shop.folder / "slides")
        return pair(f"data.kimia.root={path}")(shop)

    return give


def without(name: str):
    """Removes a file or a folder."""
    return lambda root: shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink()


def also(name: str):
    return lambda root: image(root / name)


def cut(name: str):
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[:-40])


def without_pixels(name: str):
    """Ends a JPEG where its pixels would begin, behind the 14 bytes that begin a scan of three colours."""
    return lambda root: (root / name).write_bytes(
        (data := (root / name).read_bytes())[: data.index(b"\xff\xda") + 14] + b"\xff\xd9"
    )


def replaced(name: str, by: bytes):
    return lambda root: (root / name).write_bytes(by)


def renamed(name: str, to: str):
    return lambda root: (root / name).rename(root / to)


def in_bmp(root):
    for path in (root / "train" / "s0").iterdir():
        path.rename(path.with_suffix(".bmp"))


def official(array: str, value):
    """PanNuke's official folds with one array replaced; ``None`` takes it away."""

    def spoil(root):
        shutil.rmtree(root)
        for fold in (1, 2, 3):
            (folder := root / f"Fold {fold}" / "images" / f"fold{fold}").mkdir(parents=True)
            np.save(folder / "images.npy", np.full((2, 8, 8, 3), 99.0))
            np.save(folder / "types.npy", np.array(["Breast", "Colon"]))
        file = root / "Fold 2" / "images" / "fold2" / array
        if value is None:
            file.unlink()
        elif isinstance(value, bytes):
            file.write_bytes(value)
        else:
            np.save(file, value)

    return spoil


def archive(value: bytes):
    """Only ImageNet's archive, with this content."""

    def spoil(root):
        shutil.rmtree(root / "train")
        (root / "ILSVRC2012_img_train.tar").write_bytes(value)

    return spoil


# -- the machine ------------------------------------------------------------------------------------------


def with_artifacts_as_a_file(shop):
    shutil.rmtree(shop.root / "artifacts")
    (shop.root / "artifacts").write_text("a file")
    return profile(SOUND)(shop)


def with_an_unwritable_project(shop):
    def refused(path, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    shutil.rmtree(shop.root / "artifacts")
    (shop.folder / "mine.yaml").write_text(SOUND)
    shop.monkeypatch.setattr(os, "mkdir", refused)
    return shop.command("mine.yaml")


def with_a_full_disk(shop):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (shop.folder / "mine.yaml").write_text(SOUND)
    shop.monkeypatch.setattr(os, "fsync", full)
    return shop.command("mine.yaml")


def during_another_run(shop):
    with open(shop.root / "artifacts" / "mine" / "run.lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        return profile(SOUND)(shop)


def script(*given: str, **surroundings: str):
    """run_all.sh itself, in a checkout without .venv."""

    def give(shop):
        shop.monkeypatch.undo()  # processes may start
        (checkout := shop.folder / "checkout").mkdir()
        (checkout / "tools").mkdir()
        for name in ("run_all.sh", "pyproject.toml", "tools/doctor.py"):
            shutil.copy(PROJECT / name, checkout / name)
        (checkout / "requirements.lock").write_text("none==0\n")
        environment = {**os.environ, **surroundings}
        command = [checkout / "run_all.sh", *given]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=60)
        assert not (checkout / ".venv").exists()
        return done.returncode, done.stderr

    return give


# -- tools ------------------------------------------------------------------------------------------------


def tool(name: str, function: str, *arguments):
    """A function of one of the tools, in this project; ``arguments`` may be functions of the workshop."""

    def give(shop):
        given = [argument(shop) if callable(argument) else argument for argument in arguments]
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(PROJECT / "tools" / f"{name}.py"))[function](*given)
        return 1, f"{caught.value.code}\n"  # Python ends with 1 where the code is text

    return give


def project(shop):
    """The workshop's project, for tools that take it."""
    return shop.root


# -- the table --------------------------------------------------------------------------------------------

FILE, SET = "mine.yaml: ", "--set "
PARAMS = [
    Case("missing file", profile(None), 2, (FILE, "no such parameter file", "params/")),
    Case("empty file", profile(""), 2, (FILE, "must be a mapping of parameters, as in params/demo.yaml")),
    Case("a list", profile("- profile\n- mine\n"), 2, (FILE, "must be a mapping")),
    Case("a word", profile("demo"), 2, (FILE, "must be a mapping")),
    Case("not YAML", profile("seeds: [0"), 2, (FILE, "cannot be read as YAML", "line 1")),
    Case("binary file", profile(b"\x80\x02\xff\x00" * 99), 2, (FILE, "cannot be read as YAML")),
    Case("tabs", line("training:\n\tlr: 1"), 2, (FILE, "cannot be read as YAML", "line 6")),
    Case("folder", folder_as_profile, 2, ("params.yaml: is a folder", "params/demo.yaml")),
    Case("key twice", line("seeds: [1]\nseeds: [2]"), 2, (FILE, "the key 'seeds' stands there twice")),
    Case("key twice inside", line("training: {lr: 1, lr: 2}"), 2, (FILE, "the key 'lr' stands there twice")),
    Case("alias", line("training: &x {a: *x}"), 2, (FILE, "anchor or alias; write the value out")),
    Case("very deep", line(f"seeds: {'[' * 2000}"), 2, (FILE, "cannot be read as YAML")),
    Case("tag that runs code", line("seeds: !!python/object/apply:os.getcwd []"), 2, (FILE, "python/object/apply")),
    Case("unknown section", line("trainig: {lr: 1}"), 2, (FILE, "unknown parameter trainig", "did you mean training?")),
    Case("unknown key", line("compute: {threds: 1}"), 2, ("compute.threds", "did you mean compute.threads?")),
    Case("key that is a number", line("1: 2"), 2, (FILE, "unknown parameter 1;")),
    Case("no profile", profile("seeds: [0]"), 2, (FILE, "parameter profile is missing")),
    Case("profile with a slash", profile("profile: a/b"), 2, ("parameter profile: ", "'a/b'")),
    Case("profile that leads outside", profile("profile: ../mine"), 2, ("parameter profile: ", "'../mine'")),
    Case("word as number", line("training: {a: {epochs: many}}"), 2, ("training.a.epochs", "integer", "'many'")),
    Case("text as number", line("training: {a: {epochs: '3'}}"), 2, ("training.a.epochs", "integer", "'3'")),
    Case("part of an epoch", line("training: {a: {epochs: 1.5}}"), 2, ("training.a.epochs", "integer", "1.5")),
    Case("boolean as count", line("training: {a: {epochs: true}}"), 2, ("training.a.epochs", "integer", "True")),
    Case("boolean as rate", line("training: {lr: true}"), 2, ("training.lr", "number", "True")),
    Case("boolean as seed", line("seeds: [true]"), 2, ("seeds.0", "integer", "True")),
    Case("number as boolean", line("training: {c: {amsgrad: 1}}"), 2, ("training.c.amsgrad", "boolean", "got 1")),
    Case("out of range", line("training: {a: {epochs: 0}}"), 2, ("training.a.epochs", "greater than 0", "got 0")),
    Case("huge number", line(f"seeds: [{'9' * 30}]"), 2, ("seeds.0", "must not be larger than 4294967295")),
    Case("number of 5000 digits", line(f"seeds: [{'9' * 5000}]"), 2, (FILE, "cannot be read as YAML")),
    Case("BatchNorm of one image", pair("training.batch_size=1"), 2, ("training.batch_size", "equal to 2", "got 1")),
    Case("infinite rate", line("training: {lr: .inf}"), 2, ("training.lr", "must be a finite number", "inf")),
    Case("no number as rate", line("training: {lr: .nan}"), 2, ("training.lr", "must be a finite number", "nan")),
    Case("section without content", line("training: null"), 2, ("parameter training: must be a section", "None")),
    Case("list as section", line("training: [1]"), 2, ("parameter training: must be a section", "[1]")),
    Case("same seed twice", line("seeds: [1, 1]"), 2, ("seeds must list at least one value, none of them twice",)),
    Case("no seeds", line("seeds: []"), 2, ("seeds must list at least one value",)),
    Case("no protocols", line("retrieval: {protocols: []}"), 2, ("retrieval.protocols",)),
    Case("unknown variant", line("variants: [papr]"), 2, ("variants.0", "'paper' or 'released'", "'papr'")),
    Case("home of nobody", pair("data.kimia.root=~nobody-here/x"), 2, ("data.kimia.root", "home folder", "~nobody")),
    Case("empty path in --set", pair("data.kimia.root="), 2, (f"{SET}data.kimia.root=: holds no value", "write null")),
    Case("empty value in --set", pair("training.b.lr="), 2, (f"{SET}training.b.lr=: holds no value", "write null")),
    Case("comment for a value", pair("training.b.lr=#5"), 2, (f"{SET}training.b.lr=#5: holds no value",)),
    Case("key with nothing behind it", line("training:"), 2, (FILE, "nothing behind it; null is a word")),
    Case("a year for a path", pair("data={kimia: {root: 2024}}"), 2, ("data.kimia.root", "put it in quotes")),
    Case("path with a zero", pair('data.kimia={root: "a\\0b"}'), 2, ("data.kimia.root", "the character 0")),
    Case("long value", line(f"variants: [{'x' * 5000}]"), 2, ("variants.0", "x…")),
]
COMMANDS = [
    Case("unknown key in --set", pair("training.a.epoch=3"), 2, ("--set: ", "did you mean training.a.epochs?")),
    Case("--set without =", pair("seeds"), 2, (f"{SET}seeds: write it as key.path=value",)),
    Case("--set without key", pair("=3"), 2, (f"{SET}=3: write it as key.path=value",)),
    Case("--set with half a key", pair("training.=3"), 2, (f"{SET}training.=3: write it as",)),
    Case("--set of a section", pair("training=3"), 2, ("parameter training: must be a section", "got 3")),
    Case("--set below a value", pair("seeds.first=3"), 2, ("parameter seeds", "{'first': 3}")),
    Case("--set with half a list", pair("seeds=[0"), 2, (f"{SET}seeds=[0: the value is not valid YAML",)),
    Case("--set over two lines", pair("a\nb=1"), 2, ("unknown parameter a b",)),
    Case("--set of nothing", words("--set"), 2, ("argument --set: expected at least one argument",), "usage"),
    Case("unknown option", words("--sets", "seeds=[0]"), 2, ("unrecognized arguments: --sets",), "usage"),
    Case("unknown command", words("benchmark"), 2, ("benchmark: no such parameter file", "params/")),
    Case("two profiles", words("a.yaml", "b.yaml"), 2, ("unrecognized arguments: b.yaml",), "usage"),
    Case("cores in words", words("--cores", "many"), 2, ("argument --cores: ", "many"), "usage"),
    Case("no cores", profile(SOUND, "--cores", "0"), 2, ("cores", "0"), "usage"),
    Case("cores below none", profile(SOUND, "--cores", "-1"), 2, ("cores", "-1"), "usage"),
]
WEIGHTS = [
    Case("missing file", weights(lambda shop, path: None), 2, ("model.backbone.weights: ", "w.safetensors is not a")),
    Case("missing file, at the start", pair("model.backbone.weights=w.pth"), 2, ("w.pth is not a file",), "list"),
    Case("no weights, at the start", pair("model.backbone.weights=mine.yaml"), 2, ("read as weights",), "list"),
    Case("no checkpoint, at the start", pair("training.a.checkpoint=mine.yaml"), 2, ("not an ffnir",), "list"),
    Case("a folder", weights(lambda shop, path: path.mkdir()), 2, ("w.safetensors is not a file",)),
    Case("empty", weights(content(b"")), 2, ("w.safetensors cannot be read as weights", "get it again")),
    Case("cut off", weights(cut_off), 2, ("w.safetensors cannot be read as weights", "get it again")),
    Case("text", weights(content(b"<html>404</html>" * 99)), 2, ("w.safetensors cannot be read as weights",)),
    Case("text as .pth", weights(content(b"<html>" * 99), "w.pth"), 2, ("weights (cut off, or not written by",)),
    Case("another network's", weights(of_another_network), 2, ("is missing", "not the weights of this backbone")),
    Case("one is missing", weights(without_one), 2, ("stages_0.blocks.0.conv_dw.bias is missing",)),
    Case("another shape", weights(with_one_of_another_shape), 2, ("conv_dw.bias has shape (3, 3)",)),
    Case("a number among them", weights(with_a_number, "w.pth"), 2, ("conv_dw.bias is missing",)),
    Case("runs code", weights(trap, "w.pth"), 2, ("w.pth cannot be read as weights",)),
    Case("unknown network", network("convnextv2_atoo"), 2, ("has no model 'convnextv2_atoo'", "convnextv2_atto")),
    Case("unknown tag", network("convnextv2_base.fcmea"), 2, ("cannot build", "Invalid pretrained tag")),
    Case("network of one scale", network("test_vit"), 2, ("test_vit has strides [16, 16, 16]", "4, 8, 16 and 32")),
    Case("unknown option", network(options={"bn_epss": 1}), 2, ("cannot build test_convnext", "bn_epss")),
    Case("option of a wrong size", network(options={"depths": [1, 1]}), 2, ("model.backbone: timm cannot build",)),
    Case("option without sense", network(options={"depths": "x"}), 2, ("model.backbone: timm cannot build",)),
    Case("option of the study's own", network(options={"feature_cls": "x"}), 2, ("feature_cls is set by the study",)),
    Case("option of ours", network(options={"in_chans": 1}), 2, ("model.backbone.options: in_chans", "leave it out")),
    Case("division by zero", network(std=(0.0, 1.0, 1.0)), 2, ("model.backbone.std: must be positive",)),
]
RELEASED = [
    Case("missing file", released(lambda shop, path: None), 2, ("released.pth: no such released checkpoint",)),
    Case("cut off", released(cut_off_checkpoint), 2, ("released.pth: not an ffnir checkpoint",)),
    Case(
        "text", released(content(b"# 404")), 2, ("released.pth: not an ffnir checkpoint", "not written by torch.save")
    ),
    Case("a folder", released(lambda shop, path: path.mkdir()), 2, ("released.pth: is a folder, not an ffnir",)),
    Case("a folder, to look into", words("checkpoint", "."), 2, (".: is a folder, not an ffnir",)),
    Case("other keys", released(lambda s, path: torch.save({"state_dict": {}}, path)), 2, ("not an ffnir checkpoint",)),
    Case("runs code", released(trap), 2, ("released.pth: not an ffnir checkpoint",)),
    Case(
        "unknown weight",
        released(checkpoint(head={"h1.x.weight": torch.ones(1)})),
        2,
        ("released.pth: unknown", "h1.x.weight"),
    ),
    Case(
        "unknown head", released(checkpoint(head={"hx.fc.bias": torch.ones(1)})), 2, ("released.pth: unknown", "hx.fc")
    ),
    Case("weights missing", released(checkpoint()), 2, ("released.pth: the weights do not fit this model: missing",)),
]
BROKEN = {"kind": "list", "code": (1, 2)}  # a list of faulty files is as right as the first of them
DATA = [
    Case("missing root", root_is(lambda path: None), 2, ("slides is not there",), "list"),
    Case("root is a file", root_is(lambda path: path.write_text("x")), 2, ("slides is a file",), "list"),
    Case("empty root", root_is(lambda path: path.mkdir()), 2, ("slides does not hold train",), "list"),
    Case("only train", data("kimia", without("test")), 2, ("slides does not hold test. Kimia",)),
    Case("another name of train", data("kimia", renamed("train", "Training")), 2, ("found Training/, rename or link",)),
    Case("a name that is no text", data("kimia", also("train/s0/gr\udce4u.jpg")), 2, ("'train/s0/gr\\udce4u.jpg'",)),
    Case("only .bmp", data("kimia", in_bmp), 2, ("scan s0 has no patches", "there are 2 .bmp files, this set reads")),
    Case("a scan without patches", data("kimia", without("train/s1")), 2, ("scan s1 has no patches", "restore it")),
    Case("a scan too many", data("kimia", also("train/s7/1.jpg")), 2, ("s7/1.jpg: belongs to s7", "data.kimia.scans")),
    Case("a patch of no scan", data("kimia", also("test/1.jpg")), 2, ("test/1.jpg: belongs to no scan",)),
    Case("cut off image", data("kimia", cut("test/s1_1.jpg")), said=("s1_1.jpg", "restore"), **BROKEN),
    Case("damaged image", data("kimia", without_pixels("test/s1_1.jpg")), said=("s1_1.jpg", "restore"), **BROKEN),
    Case("empty image", data("kimia", replaced("train/s0/1.jpg", b"")), said=("s0/1.jpg", "restore"), **BROKEN),
    Case("text as image", data("kimia", replaced("test/s0_1.jpg", b"404")), said=("s0_1.jpg", "restore"), **BROKEN),
    Case("cut off tile", data("pannuke", cut("images/fold1_0_Breast.png")), said=("fold1_0", "restore"), **BROKEN),
    Case(
        "malformed name",
        data("pannuke", renamed("images/fold1_0_Breast.png", "images/fold4_0_Breast.png")),
        2,
        ("fold4_0_Breast.png: is not named fold<1-3>_<number>_<tissue>.png",),
    ),
    Case(
        "unknown tissue",
        data("pannuke", also("images/fold1_9_Tail.png")),
        2,
        ("fold1_9_Tail.png: unknown tissue 'Tail'", "data.pannuke.tissues=any"),
    ),
    Case(
        "one tissue",
        data("pannuke", lambda root: [p.unlink() for p in root.rglob("*Colon.png")]),
        2,
        ("slides/images: has 1 tissues", "two are needed"),
    ),
    Case(
        "neither layout",
        data("pannuke", renamed("images", "tiles")),
        2,
        ("slides does not hold Fold 1 or images. PanNuke",),
    ),
    Case("a fold without images", data("pannuke", official("images.npy", None)), 2, ("images.npy: is missing",)),
    Case("a fold cut off", data("pannuke", official("images.npy", b"\x93NUMPY")), 2, ("images.npy", "download")),
    Case("a fold too short", data("pannuke", official("images.npy", np.ones((1, 8, 8, 3)))), 2, ("differ in length",)),
    Case(
        "a fold of other values",
        data("pannuke", official("images.npy", np.full((2, 8, 8, 3), 0.5))),
        2,
        ("images.npy: holds float64 from 0.5 to 0.5", "not whole numbers from 0 to 255", "download the fold again"),
    ),
    Case("tissues in a column", data("pannuke", official("types.npy", np.array([["Colon"]] * 2))), 2, ("(2, 1)",)),
    Case(
        "a fold without colours",
        data("pannuke", official("images.npy", np.zeros((2, 8, 8)))),
        2,
        ("images.npy", "(2, 8, 8)"),
    ),
    Case("a tissue of no fold", data("pannuke", official("types.npy", np.array(["Breast", "Tail"]))), 2, ("'Tail'",)),
    Case("one class", data("imagenet", without("train/n02")), 2, ("has 1 class folders", "two are needed")),
    Case("a class without images", data("imagenet", without("train/n02/n02_1.JPEG")), 2, ("empty class folder",)),
    Case(
        "another number of images",
        data("kimia", lambda root: None, data__check_counts=True),
        2,
        ("holds {'test': 2, 'train': 4} images", "22591", "data.check_counts=false"),
    ),
    Case("cut off archive", data("imagenet", archive(b"n01.tar" + bytes(505))), 1, (".tar: ", "download it again")),
    Case("no archive", data("imagenet", archive(b"404")), 1, ("ILSVRC2012_img_train.tar: ", "download it again")),
    Case(
        "neither folders nor archive",
        data("imagenet", without("train")),
        2,
        ("does not hold train or ILSVRC2012_img_train.tar",),
    ),
]
MACHINE = [
    Case("another run", during_another_run, 2, ("another run of profile mine is under way", "wait for it")),
    Case("a file called artifacts", with_artifacts_as_a_file, (1, 2), ("artifacts",)),
    Case("unwritable folder", with_an_unwritable_project, (1, 2), ("ermission",)),
    Case("full disk", with_a_full_disk, (1, 2), ("space",)),
    Case("lock that is not there", script(LGFFEM_LOCK="none.lock"), 2, ("none.lock is not in", "requirements*.lock")),
    Case("PYTHON that is none", script(PYTHON="/nowhere/python"), 2, ("PYTHON=/nowhere/python is no Python 3.11",)),
    Case("an option of the doctor", script("doctor", "--cores", "1"), 2, ("unrecognized arguments",), "usage"),
]
TOOLS = [
    Case("no profile to keep", tool("keep_reference", "main", []), 1, ("error: name one profile",), "usage"),
    Case("a path to keep", tool("keep_reference", "main", ["../mine"]), 1, ("error: name one profile",), "usage"),
    Case("no run to keep", tool("keep_reference", "main", ["none"], project), 1, ("none/manifest.json: is not",)),
    Case("a damaged manifest", tool("keep_reference", "main", ["mine"], project), 1, ("mine/manifest.json: is not",)),
    Case(
        "no place in the README",
        tool("readme", "with_blocks", "README.md", "# a README without its blocks"),
        1,
        ("README.md must hold one block <!-- table1 -->",),
    ),
    Case(
        "a file for PanNuke",
        tool("prepare_pannuke_pathml", "prepare", lambda shop: shop.root / "results" / "mine" / "manifest.json"),
        1,
        ("manifest.json is a file; name a folder",),
        "usage",
    ),
]
TABLE = {
    "params": PARAMS,
    "commands": COMMANDS,
    "weights": WEIGHTS,
    "released": RELEASED,
    "data": DATA,
    "machine": MACHINE,
    "tools": TOOLS,
}


def rows():
    for group, cases in TABLE.items():
        for case in cases:
            yield pytest.param(case, id=f"{group}: {case.wrong}")


@pytest.fixture
def shop(tmp_path, monkeypatch, capsys):
    """A workshop in which nothing can be started, and the hub has nothing."""
    shop = Workshop(tmp_path, monkeypatch, capsys)
    monkeypatch.setattr(
        Request, "study", property(lambda self: Study.load(PROJECT / self.params, self.overrides, root=shop.root))
    )
    monkeypatch.setattr(checklist_module, "hub_has", lambda name: False)

    def started(*_, **__):
        raise StartedError

    monkeypatch.setattr(subprocess, "Popen", started)
    return shop


@pytest.mark.parametrize("case", list(rows()))
def test_a_bad_input_is_one_sentence_and_changes_no_result(shop, case):
    before = shop.state()
    code, error = case.how(shop)
    assert code in (case.code if isinstance(case.code, tuple) else (case.code,)), error
    assert "Traceback" not in error and all(piece in error for piece in case.said), error
    if case.kind == "usage":
        assert len(error.splitlines()) <= 6
    else:
        assert error.startswith("error: ") and len(error) < 1500
    if case.kind == "sentence":
        assert error.endswith((".\n", "?\n")), error
        assert error.count("\n") == 1 and len(error) < 600, error
    assert shop.state() == before and not (shop.folder / "pwned").exists()


def test_without_the_fault_the_study_starts(shop):
    """The table's refusals are due to what each case changes."""
    with pytest.raises(StartedError):
        profile(SOUND)(shop)


@pytest.mark.parametrize("dataset", MAKE)
def test_without_the_fault_the_data_are_read(shop, dataset):
    MAKE[dataset](root := shop.folder / "slides")
    study = shop.study(**{f"data__{dataset}__root": str(root), "data__kimia__scans": 2})
    assert set(prepare(study, dataset)["label_id"]) == {0, 1}


def test_without_the_fault_the_weights_are_read(shop):
    save_file(state(shop), path := shop.folder / "w.safetensors")
    assert len(Backbone(BackboneParams(name=NETWORK, pretrained=False), path).channels) == 4


def test_a_run_that_is_not_complete_does_not_replace_the_reference(shop):
    """What is kept stays until all of the new run is there."""
    (kept := shop.root / "results" / "reference" / "mine" / "manifest.json").parent.mkdir(parents=True)
    kept.write_text("kept")
    (shop.root / "results" / "mine" / "manifest.json").write_text('{"inputs": {"kimia": {"synthetic": true}}}')
    code, said = tool("keep_reference", "main", ["mine"], project)(shop)
    assert code == 1 and "manifest.json: is not the manifest of a run" in said and kept.read_text() == "kept"


def test_the_table_is_long_enough():
    assert sum(map(len, TABLE.values())) >= 40 and all(TABLE.values())
