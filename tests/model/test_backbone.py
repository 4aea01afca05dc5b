"""Backbones: four stages of any timm model, local weights read safely, and each fault said in one sentence."""

import datetime
import os
import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from sklearn.neighbors import NearestNeighbors

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.base.files import sha256_file
from lgffem_core.config.params import Backbone as BackboneParams
from lgffem_core.config.params import Kimia
from lgffem_core.data.augment import evaluation_resize
from lgffem_core.data.loading import PatchDataset, evaluation_loader
from lgffem_core.data.sets.kimia import SET
from lgffem_core.data.table import build_table
from lgffem_core.model.backbone import Backbone
from lgffem_core.systems.lgffem.neck import Neck

SMALL = ("test_convnext", "test_resnet", "test_efficientnet")  # timm's own: under half a million weights each


def backbone(name="test_convnext", weights=None, size=64, **fields):
    return Backbone(BackboneParams(name=name, **{"pretrained": False, **fields}), weights, size)


def refusal(kind=RequestError, **arguments):
    with pytest.raises(kind) as caught:
        backbone(**arguments)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".")
    return sentence


@pytest.fixture
def source():
    """A plain timm classifier, its BatchNorm statistics moved, and the features of its four stages."""

    def make(name):
        torch.manual_seed(1)
        model = timm.create_model(name, pretrained=False).eval()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
        images = torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            stages = model.forward_intermediates(images, intermediates_only=True)[-4:]
        return model, images, stages

    return make


@pytest.mark.parametrize("name", [*SMALL, "mobilenetv2_035"])
def test_four_stages_at_strides_4_to_32(name):
    model = backbone(name)
    stages = model(torch.zeros(1, 3, 64, 96))
    assert [tuple(s.shape[2:]) for s in stages] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert [s.shape[1] for s in stages] == model.channels


@pytest.mark.parametrize("kind", ["safetensors", "pth", "wrapped"])
@pytest.mark.parametrize("name", SMALL)
def test_local_weights_give_the_features_of_the_model_they_are_from(source, tmp_path, name, kind):
    model, images, stages = source(name)
    path = tmp_path / f"weights.{'safetensors' if kind == 'safetensors' else 'pth'}"
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state if kind == "pth" else {"state_dict": state, "epoch": 3}, path)
    with torch.no_grad():
        ours = backbone(name, path)(images)
    for mine, theirs in zip(ours, stages, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)  # sums in another order


def test_half_precision_weights_become_float32(source, tmp_path):
    model, images, stages = source("test_resnet")
    halved = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    save_file(halved, tmp_path / "h.safetensors")
    ours = backbone("test_resnet", tmp_path / "h.safetensors")
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    with torch.no_grad():
        for mine, theirs in zip(ours(images), stages, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0.02, atol=0.02)


def test_input_statistics_are_the_weights_own_unless_given():
    own = timm.create_model("test_efficientnet", pretrained=False).pretrained_cfg
    model = backbone("test_efficientnet")
    assert (model.mean, model.std) == (tuple(own["mean"]), tuple(own["std"]))
    model = backbone("test_efficientnet", mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 2.0))
    assert (model.mean, model.std) == ((0.1, 0.2, 0.3), (1.0, 1.0, 2.0))


def test_options_reach_timm():
    model = backbone("mobilenetv2_035", options={"bn_eps": 1e-3, "pad_type": "same"})
    assert {m.eps for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {1e-3}


# -- faults ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("convnextv2_atoo", "convnextv2_atto"), ("mobilnetv2_035", "mobilenetv2_035"), ("resnet81", "resnet18"),
     ("convnextv2_bas.fcmae", "convnextv2_base")],
)  # fmt: skip
def test_an_unknown_name_comes_with_the_nearest(typed, meant):
    sentence = refusal(name=typed)
    assert sentence.startswith(f"model.backbone.name: timm has no model {typed!r}; similar ones are ")
    assert meant in sentence.removesuffix(".").replace(",", "").split()


def test_a_name_like_no_other_is_refused_all_the_same():
    sentence = refusal(name="xyzzy")
    assert sentence == "model.backbone.name: timm has no model 'xyzzy'; timm.list_models() names those it has."


def test_an_unknown_tag_is_refused():
    assert "Invalid pretrained tag (fcmea)" in refusal(name="convnextv2_base.fcmea")


def test_an_unknown_option_is_named():
    assert "bn_epss" in refusal(name="mobilenetv2_035", options={"bn_epss": 1e-3})


@pytest.mark.parametrize("name", ["test_vit", "vit_tiny_patch16_224"])
def test_a_model_without_the_four_strides_is_refused(name):
    assert refusal(name=name) == (
        f"model.backbone.name: {name} has strides [16, 16, 16]; the neck needs 4, 8, 16 and 32."
    )


# -- every family of timm ---------------------------------------------------------------------------------

#: A small member of each family of timm that offers feature maps at strides 4, 8, 16 and 32 (timm 1.0.28).
FAMILIES = """
    bat_resnext26ts coat_lite_tiny convnextv2_atto cpubone_nano cs3darknet_s cspnext_m cspresnet50 darknet17 davit_tiny
    densenet121 dla34 dla46_c dm_nfnet_f0 dpn48b edgenext_xx_small efficientformer_l1 efficientformerv2_s0
    efficientvit_b0 ese_vovnet19b_slim fasternet_t0 fastvit_t8 focalnet_tiny_srf gcvit_xxtiny ghostnet_050
    hardcorenas_a hgnetv2_b0 hiera_tiny_224 hrnet_w18_small iformer_t inception_next_atto lcnetv2_base legacy_seresnet18
    lowformer_b0 mambaout_femto maxvit_rmlp_pico_rw_256 mobilenetv2_035 mobilenetv3_small_050 mobilenetv5_base
    mobilevit_xxs mvitv2_tiny nasnetalarge nextvit_small pnasnet5large poolformer_s12 pvt_v2_b0 rdnet_tiny regnetx_002
    repghostnet_050 repvgg_a0 repvit_m0_9 res2net50_26w_4s resnest14d resnet10t resnetv2_50 rexnet_100 sam2_hiera_tiny
    selecsls42 skresnet18 starnet_s050 swiftformer_xs swin_tiny_patch4_window7_224 swinv2_cr_tiny_ns_224
    swinv2_tiny_window8_256 test_efficientnet tiny_vit_5m_224 tresnet_m twins_pcpvt_small vgg11 xception41p
""".split()
ONE_SIZE = {
    "bat_resnext26ts": 256,
    "swinv2_tiny_window8_256": 256,
    "maxvit_rmlp_pico_rw_256": 256,
}  # others of one size take 224


@pytest.mark.parametrize("name", FAMILIES)
def test_maps_of_every_family_have_the_strides_and_channels_that_the_neck_expects(name):
    """Of an image of S pixels they are S/4 … S/32 a side, channels first. On PyTorch's device of shapes alone."""
    size = ONE_SIZE.get(name, 224)
    with torch.device("meta"):
        model = backbone(name, size=size)
        maps = model(torch.rand(1, 3, size, size))
        outputs = Neck(model.channels, channels=8, layers=1)(maps)
    sides = [(size // stride, size // stride) for stride in (4, 8, 16, 32)]
    assert [tuple(each.shape) for each in maps] == [
        (1, c, *side) for c, side in zip(model.channels, sides, strict=True)
    ]
    assert [tuple(each.shape) for each in outputs] == [(1, 8, *side) for side in sides]


def test_a_network_that_gives_channels_last_gives_the_same_numbers_channels_first():
    model, images = backbone("test_mambaout", size=64), torch.rand(2, 3, 64, 64)
    assert model.channels_last
    for ours, theirs in zip(model(images), model.features(images), strict=True):
        assert ours.shape[1] == theirs.shape[3] and torch.allclose(
            ours[:, 3, 1, 0], theirs[:, 1, 0, 3], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("name", ["inception_v3", "legacy_xception"])
def test_a_network_that_loses_borders_is_refused(name):
    assert f"of an image of 96 px {name} gives maps of [" in refusal(name=name, size=96)


def test_a_network_of_one_size_says_which_parameters_to_set():
    sentence = refusal(name="swin_tiny_patch4_window7_224", size=96)
    assert "takes no images of 96 px" in sentence and "model.backbone.options={img_size: 96}" in sentence
    backbone("swin_tiny_patch4_window7_224", size=96, options={"img_size": 96})


def test_options_that_move_a_stride_are_refused():
    assert "strides" in refusal(name="resnet10t", options={"output_stride": 16})


@pytest.mark.parametrize("option", ["pretrained_cfg", "pretrained_strict", "feature_cls"])
def test_options_that_would_read_other_weights_are_refused(option):
    assert f"{option} is set by the study itself" in refusal(options={option: "w.pth"})


# -- files of weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["densenet121", "densenetblur121d"])
def test_the_old_names_of_densenet_files_are_understood(tmp_path, name):
    """torchvision's files say denselayer1.norm.1.weight where timm, like torchvision's code today, says norm1."""
    torch.manual_seed(3)
    state = timm.create_model(name, pretrained=False).state_dict()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key): value for key, value in state.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "w.pth")
    kept = backbone(name, tmp_path / "w.pth").features.state_dict()
    assert all(torch.equal(value, state[key.replace("features_", "features.")]) for key, value in kept.items())


def test_other_names_than_timms_are_quoted(source, tmp_path):
    state = {f"trunk.{key}": value for key, value in source("test_convnext")[0].state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    sentence = refusal(weights=tmp_path / "w.safetensors")
    assert "not under timm's names (the file's first is trunk." in sentence


@pytest.mark.parametrize("extra", [np.float64(3.5), Path("run/best.pth"), datetime.date(2026, 1, 1)])
def test_python_objects_beside_the_weights_are_named(source, tmp_path, extra):
    torch.save({"state_dict": source("test_convnext")[0].state_dict(), "best": extra}, tmp_path / "w.pth")
    sentence = refusal(weights=tmp_path / "w.pth")
    assert "it holds Python objects beside the weights" in sentence and "save the state dict alone" in sentence
    assert {np.float64: "scalar", datetime.date: "date"}.get(type(extra), "Path") in sentence


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
def test_a_weight_that_is_not_finite_is_named(source, tmp_path, value, kind):
    state = {key: tensor.to(kind) for key, tensor in source("test_convnext")[0].state_dict().items()}
    state["stages.1.blocks.0.conv_dw.bias"][2] = value
    save_file(state, tmp_path / "w.safetensors")
    sentence = refusal(weights=tmp_path / "w.safetensors")
    assert "stages_1.blocks.0.conv_dw.bias holds 1 values that are not finite" in sentence


def test_weights_that_float32_cannot_hold_are_refused(source, tmp_path):
    state = source("test_convnext")[0].state_dict()
    state["stages.1.blocks.0.conv_dw.bias"] = state["stages.1.blocks.0.conv_dw.bias"].double() + 1e300
    save_file(state, tmp_path / "w.safetensors")
    assert "values that are not finite" in refusal(weights=tmp_path / "w.safetensors")


def test_quantised_weights_are_not_taken_for_their_numbers(source, tmp_path):
    state = source("test_convnext")[0].state_dict()
    state["stages.1.blocks.0.conv_dw.weight"] = state["stages.1.blocks.0.conv_dw.weight"].to(torch.int8)
    save_file(state, tmp_path / "w.safetensors")
    assert "conv_dw.weight is int8 for float32" in refusal(weights=tmp_path / "w.safetensors")


def test_sparse_weights_are_told_as_not_fitting(source, tmp_path):
    state = source("test_convnext")[0].state_dict()
    state["stages.1.blocks.0.conv_dw.bias"] = state["stages.1.blocks.0.conv_dw.bias"].to_sparse()
    torch.save(state, tmp_path / "w.pth")
    assert "stages_1.blocks.0.conv_dw.bias is sparse; these are not the weights" in refusal(weights=tmp_path / "w.pth")


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "none.pth"
    assert refusal(weights=path) == f"model.backbone.weights: {path} is not a file."


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("damage", ["empty", "text", "truncated"])
def test_a_corrupt_file_is_named(source, tmp_path, suffix, damage):
    path = tmp_path / f"weights.{suffix}"
    state = source("test_convnext")[0].state_dict()
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    path.write_bytes({"empty": b"", "text": b"<html>" * 99, "truncated": path.read_bytes()[:-5000]}[damage])
    assert refusal(weights=path).startswith(f"model.backbone.weights: {path} cannot be read as weights (")


class MakesFolder:
    """Unpickling this makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    path, made = tmp_path / "weights.pth", tmp_path / "made"
    torch.save({"state_dict": MakesFolder(made)}, path)
    torch.load(path, weights_only=False)
    made.rmdir()  # so the attack works where pickles are run
    assert "cannot be read as weights (" in refusal(weights=path)
    assert not made.exists()


@pytest.mark.parametrize("fault", ["is missing", "has shape (1, 2, 3) for (48, 1, 7, 7)"])
def test_a_weight_that_is_missing_or_of_another_shape_is_named(source, tmp_path, fault):
    state = source("test_convnext")[0].state_dict()
    name = "stages.2.blocks.0.conv_dw.weight"
    state[name] = torch.zeros(1, 2, 3)
    if fault == "is missing":
        del state[name]
    save_file(state, tmp_path / "w.safetensors")
    sentence = refusal(weights=tmp_path / "w.safetensors")
    assert sentence.startswith("model.backbone.weights: in w.safetensors, stages_2") and f" {fault}; " in sentence


def test_weights_of_another_model_are_refused(source, tmp_path):
    save_file(source("test_resnet")[0].state_dict(), tmp_path / "w.safetensors")
    assert "these are not the weights of this backbone" in refusal(weights=tmp_path / "w.safetensors")


def test_counters_may_be_left_out(source, tmp_path):
    model, images, stages = source("test_resnet")
    kept = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert len(kept) < len(model.state_dict())
    save_file(kept, tmp_path / "w.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(backbone("test_resnet", tmp_path / "w.safetensors")(images)[3], stages[3])


def test_weights_that_cannot_be_downloaded_say_what_to_do(monkeypatch):
    original = timm.create_model

    def offline(name, pretrained=False, **options):
        if pretrained:
            raise ConnectionError("no route to host")
        return original(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    sentence = refusal(StudyError, pretrained=True)
    assert "test_convnext cannot be downloaded" in sentence and "--set model.backbone.weights=FILE" in sentence
    backbone(pretrained=False)


def test_a_local_file_never_asks_the_hub(source, tmp_path, monkeypatch):
    save_file(source("test_convnext")[0].state_dict(), tmp_path / "w.safetensors")
    original = timm.create_model

    def watched(name, pretrained=False, **options):
        assert not pretrained
        return original(name, **options)

    monkeypatch.setattr(timm, "create_model", watched)
    backbone(weights=tmp_path / "w.safetensors", pretrained=True)


# -- real weights on real tissue -------------------------------------------------------------------------


def accuracy(gallery, gallery_labels, queries, labels, skip):
    """Percent of queries whose nearest neighbour, after ``skip`` of them, has their label."""
    _, ids = NearestNeighbors(n_neighbors=skip + 1).fit(gallery).kneighbors(queries)
    return 100 * (gallery_labels[ids[:, skip]] == labels).mean()


def test_frozen_pooled_features_reach_the_known_values_on_real_tissue(shared):
    """On these tiles: 93.7 test_to_train and 94.3 leave_one_out at 224 pixels."""
    root = shared / "histology" / "kimia"
    rows, labels = SET.layout(root, Kimia())
    table = build_table(root, rows, labels, {path: sha256_file(root / path) for path, *_ in rows})
    model = backbone(
        "mobilenetv2_035", shared / "weights" / "mobilenetv2_035.safetensors",
        options={"pad_type": "same", "bn_eps": 1e-3}, mean=(0.5,) * 3, std=(0.5,) * 3,
    )  # fmt: skip
    patches = PatchDataset(table, root, evaluation_resize(224), model.mean, model.std)
    features = []
    with torch.no_grad():
        for images, _, _ in evaluation_loader(patches, 64, workers=0):
            pooled = [stage.mean(dim=(2, 3)) for stage in model(images)]
            features.append(torch.cat([p / p.norm(dim=1, keepdim=True) for p in pooled], dim=1))
    features, labels = torch.cat(features).numpy(), table["label_id"].to_numpy()
    test = (table["split"] == "test").to_numpy()
    assert len(np.unique(features, axis=0)) == len(features)  # so the first neighbour of a patch is itself
    to_train = accuracy(features[~test], labels[~test], features[test], labels[test], skip=0)
    one_out = accuracy(features[test], labels[test], features[test], labels[test], skip=1)
    assert (to_train, one_out) == (pytest.approx(93.7, abs=0.6), pytest.approx(94.3, abs=0.6))


def test_the_real_weights_are_all_used(shared):
    """Every weight of the extractor comes from the file: none keeps its random draw."""
    path = shared / "weights" / "mobilenetv2_035.safetensors"
    stored = {name.replace(".", "_"): tensor for name, tensor in load_file(path).items()}
    state = backbone("mobilenetv2_035", path).features.state_dict()
    for name, tensor in state.items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, stored[name.replace(".", "_")].float()), name
