"""The checklist: everything that is missing at once, with where to get it, and nothing written."""

import errno
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import huggingface_hub
import huggingface_hub.utils
import pytest
import timm
import torch

from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import Study
from lgffem_core.run import checklist as checklist_module
from lgffem_core.run.checklist import (
    MIB,
    checklist,
    format_checklist,
    full_folders,
    hub_has,
    missing_weights,
    server_answers,
    told_slow,
)


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    monkeypatch.setattr(checklist_module, "hub_has", lambda name: False)


def load(profile, tmp_path, **overrides):
    overrides = {key.replace("__", "."): value for key, value in overrides.items()}
    return Study.load(PROJECT / "params" / f"{profile}.yaml", overrides, root=tmp_path / "project")


def test_the_paper_profile_lists_three_data_sets_and_the_weights(tmp_path):
    items = checklist(load("paper", tmp_path, baselines__ma_ms__pretrained=True))
    assert len(items) == 6 and checklist(load("paper", tmp_path)) == items[:5]  # its code starts at random
    for item, key, where in zip(
        items, ("imagenet", "pannuke", "kimia"), ("image-net.org", "Warwick", "tizhoosh.com"), strict=False
    ):
        assert item.startswith(f"data.{key}.root is not set. ") and where in item
    networks = ("convnextv2_base.fcmae", "densenet121", "legacy_seresnet50")
    for item, key, name in zip(
        items[3:], ("model.backbone", "baselines.densenet121", "baselines.ma_ms"), networks, strict=True
    ):
        assert item.startswith(f"{key}: the weights of {name} are not ") and f"set {key}.weights to" in item
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("profile", ["smoke", "demo"])
def test_the_synthetic_profiles_need_nothing(tmp_path, profile):
    assert checklist(load(profile, tmp_path)) == []


def test_histology_needs_the_users_two_folders_alone(tmp_path):
    first_words = [item.split()[0] for item in checklist(load("histology", tmp_path))]
    assert first_words == ["data.pannuke.root", "data.kimia.root"]


NETWORKS = ("model__backbone", "baselines__densenet121", "baselines__ma_ms")
FOLDS = ["Fold 1", "Fold 2", "Fold 3"]
RANDOM = {f"{key}__pretrained": False for key in NETWORKS}


def folders(tmp_path):
    for name in ("imagenet/train", *(f"pannuke/{fold}" for fold in FOLDS), "kimia/train", "kimia/test"):
        (tmp_path / name).mkdir(parents=True)
    return {f"data__{name}__root": str(tmp_path / name) for name in ("imagenet", "pannuke", "kimia")}


SMALL = {"model__backbone__name": "test_convnext", "baselines__ma_ms__network": "legacy_seresnet18"}
CHOSEN = dict(zip(NETWORKS, ("test_convnext", "densenet121", "legacy_seresnet18"), strict=True))


def weights_file(tmp_path, key):
    """A file that holds the weights of the network under ``key``; its key of the parameters -> its path."""
    path = tmp_path / f"{key}.pth"
    torch.save(timm.create_model(CHOSEN[key], pretrained=False).state_dict(), path)
    return {f"{key}__weights": str(path)}


def test_with_data_and_weights_nothing_is_missing(tmp_path):
    roots, files = folders(tmp_path), dict(SMALL)
    for key in NETWORKS:
        files |= weights_file(tmp_path, key)
    assert checklist(load("paper", tmp_path, **roots, **files)) == []
    assert len(checklist(load("paper", tmp_path, **roots))) == 2


@pytest.mark.parametrize("name", ["imagenet", "pannuke", "kimia"])
def test_a_root_without_the_expected_contents_is_named(tmp_path, name):
    roots = folders(tmp_path)
    (empty := tmp_path / "empty").mkdir()
    study = load("paper", tmp_path, **roots | {f"data__{name}__root": str(empty)} | RANDOM)
    (item,) = checklist(study)
    assert item.startswith(f"data.{name}.root: {empty} does not hold ")


@pytest.mark.parametrize(
    ("layout", "split"), [(["images"], None), (["Fold 1", "Fold 2", "Fold 3"], None), (["Fold 2"], 2)]
)
def test_either_layout_of_pannuke_will_do_and_of_the_folds_the_one_that_trains(tmp_path, layout, split):
    for name in layout:
        (tmp_path / "tiles" / name).mkdir(parents=True)
    given = {"data__pannuke__root": str(tmp_path / "tiles"), "data__pannuke__split": split}
    study = load("histology", tmp_path, **given, model__backbone__pretrained=False)
    assert [item.split()[0] for item in checklist(study)] == ["data.kimia.root"]


@pytest.mark.parametrize(
    ("dataset", "there", "said"),
    [
        (
            "kimia",
            ["Training", "test"],
            "not hold train (found Training/, rename or link it to train/).",
        ),
        ("kimia", ["train", "RGBPatches-test"], "not hold test (found RGBPatches-test/, rename or link it to test/)."),
        ("kimia", ["train", "photos"], "not hold test. Kimia Path24C: "),
        ("pannuke", ["fold_1"], "not hold Fold 1 or images (found fold_1/, rename or link it to Fold 1/)."),
        ("pannuke", ["Fold 1", "fold 2"], "not hold Fold 2 and Fold 3 (found fold 2/, rename or link it to Fold 2/)."),
        ("imagenet", ["Data/CLS-LOC/train"], "/mine/Data/CLS-LOC does. Name that instead."),
        (
            "kimia",
            ["all/kimia/train", "all/kimia/test", "all/pannuke/images"],
            "/all/kimia does. Name that instead.",
        ),
        ("pannuke", ["a/images", "b/train", "b/test"], "/mine/a does. Name that instead."),
        ("kimia", ["images"], "not hold train and test. Kimia Path24C: "),  # what the other lacks not
        ("pannuke", ["tiles"], "PanNuke: download the three folds"),
        ("pannuke", ["Fold 1/images"], "not hold Fold 2 and Fold 3. PanNuke: download the three folds"),
    ],
)
def test_a_similar_folder_is_named(tmp_path, dataset, there, said):
    roots = folders(tmp_path) | {f"data__{dataset}__root": str(tmp_path / "mine")}
    for name in there:
        (tmp_path / "mine" / name).mkdir(parents=True)
    (item,) = checklist(load("paper", tmp_path, **roots, **RANDOM))
    assert item.startswith(f"data.{dataset}.root: {tmp_path / 'mine'} does not hold ") and said in item


def test_a_root_that_is_no_folder_is_told_as_such(tmp_path):
    roots = folders(tmp_path)
    (tmp_path / "file").touch()
    for name, said in (("file", "is a file; name the folder that holds the images."), ("none", "is not there.")):
        study = load("paper", tmp_path, **roots | {"data__kimia__root": str(tmp_path / name)} | RANDOM)
        assert checklist(study) == [f"data.kimia.root: {tmp_path / name} {said}"]


def test_two_roots_in_each_others_place_are_told_as_such(tmp_path):
    roots = folders(tmp_path)
    swapped = {f"data__{a}__root": roots[f"data__{b}__root"] for a, b in (("kimia", "pannuke"), ("pannuke", "kimia"))}
    items = checklist(load("paper", tmp_path, **roots | swapped | RANDOM))
    for item, key, other in zip(items, ("pannuke", "kimia"), ("kimia", "pannuke"), strict=True):
        assert item.startswith(f"data.{key}.root: ")
        assert item.endswith(f", but what data.{other}.root lacks. Are the two swapped?")


def test_files_of_weights_that_are_not_there_are_named(tmp_path):
    study = load(
        "demo",
        tmp_path,
        model__backbone__weights="none.pth",
        baselines__ma_ms__weights="none.pth",
        training__b__checkpoint="/nowhere/b.pth",
    )
    assert missing_weights(study) == [
        f"model.backbone.weights: {PROJECT / 'none.pth'} is not a file.",
        f"baselines.ma_ms.weights: {PROJECT / 'none.pth'} is not a file.",
        "training.b.checkpoint: /nowhere/b.pth is not a file.",
    ]


@pytest.mark.parametrize("key", [*(f"{key}__weights" for key in NETWORKS), "training__a__checkpoint"])
def test_a_file_that_cannot_be_used_is_told_before_anything_starts(tmp_path, key):
    (readme := tmp_path / "README.md").write_text("# not weights")
    (item,) = checklist(load("demo", tmp_path, **{key: str(readme)}))
    assert item.startswith(f"{key.replace('__', '.')}: {readme}") and ("as weights" in item or "not an ffnir" in item)


def test_weights_of_another_network_and_a_checkpoint_of_another_size_are_told(tmp_path):
    files = SMALL | {"model__backbone__weights": weights_file(tmp_path, NETWORKS[1])["baselines__densenet121__weights"]}
    (item,) = checklist(load("demo", tmp_path, **files))
    assert item.startswith("model.backbone.weights: in baselines__densenet121.pth, stem_0.weight is missing")
    given = SMALL | {"model__backbone__pretrained": False, "training__b__checkpoint": str(tmp_path / "b.pth")}
    empty = {"model_neck_state_dict": {}, "model_head_state_dict": {}}
    torch.save(empty, tmp_path / "b.pth")
    (item,) = checklist(load("demo", tmp_path, **given))
    assert item.startswith(f"training.b.checkpoint: {tmp_path / 'b.pth'}: the weights do not fit this model: missing [")


def test_a_gpu_that_is_not_there_is_told_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (item,) = checklist(load("demo", tmp_path, compute__device="cuda"))
    assert item == "compute.device is cuda, but torch sees no CUDA device; set it to auto or cpu."


@pytest.fixture
def free(monkeypatch):
    """Bytes that each folder has free, by its path, which may be changed; none of the variables is set."""
    room = {}
    usage = shutil.disk_usage
    monkeypatch.setattr(
        shutil, "disk_usage", lambda folder: SimpleNamespace(free=room[folder]) if folder in room else usage(folder)
    )
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    return room


def test_a_full_folder_of_temporary_files_is_told_before_anything_starts(tmp_path, monkeypatch, free):
    free["/tmp"] = 1.5 * MIB
    (item,) = checklist(load("demo", tmp_path))
    assert item.startswith("/tmp: 1.5 MiB are free for temporary files, a run needs 16. Free space there, or ")
    assert item.endswith(": TMPDIR=DIR ./run_all.sh …")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert checklist(load("demo", tmp_path)) == []
    monkeypatch.setenv("TMP", "/tmp")  # the solver prefers it, Python TMPDIR
    assert checklist(load("demo", tmp_path)) == [item.replace("TMPDIR", "TMP")]
    assert full_folders(MIB) == []
    monkeypatch.setenv("TMP", str(tmp_path / "none"))  # nobody heeds it
    monkeypatch.setenv("TEMP", "/tmp")  # nor this, after TMPDIR
    assert checklist(load("demo", tmp_path)) == []


def test_a_folder_without_an_entry_left_is_told_as_a_full_one(tmp_path, monkeypatch, free):
    def refuse(**_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(checklist_module.tempfile, "TemporaryFile", refuse)
    (item,) = checklist(load("demo", tmp_path))
    assert item.startswith(
        f"{tmp_path}: takes no more temporary files (No space left on device). Remove some there, or"
    )
    monkeypatch.setattr(os, "access", lambda *_: False)  # Python and the solver pass over it
    assert full_folders() == []


@pytest.mark.parametrize(
    ("precision", "units", "slow"),
    [
        ("bf16-mixed", "avx2", True),
        ("bf16-mixed", "avx512_bf16", False),
        ("16-mixed", "avx512_bf16", True),
        ("16-mixed", "amx_fp16", False),
        ("32-true", "avx2", False),
        ("auto", "avx2", False),
    ],
)
def test_half_precision_without_units_for_it_is_told_and_not_refused(tmp_path, monkeypatch, precision, units, slow):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {units: True})
    study = load("demo", tmp_path, compute__precision=precision, compute__device="cpu")
    assert checklist(study) == []
    said = told_slow(study)
    assert len(said) == slow and all(f"no units for {precision}" in line and "Set it to auto" in line for line in said)


@pytest.mark.parametrize(("precision", "slow"), [("bf16-mixed", True), ("16-mixed", False)])
def test_a_gpu_without_bfloat16_has_the_other_half(tmp_path, monkeypatch, precision, slow):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    study = load("demo", tmp_path, compute__precision=precision, compute__device="auto")
    assert len(told_slow(study)) == slow


def test_torch_is_loaded_only_for_what_must_be_tried():
    """Where it cannot be loaded, which takes no time, that is only then an error."""
    ask = (
        "import sys; sys.modules['torch'] = None;"
        "from lgffem_core.run.checklist import checklist, told_slow; from lgffem_core.config.study import Study;"
        "study = Study.load('params/demo.yaml'); assert checklist(study) == told_slow(study) == []; print('not tried');"
        "checklist(Study.load('params/demo.yaml', {'model.backbone.weights': 'README.md'}))"
    )
    done = subprocess.run([sys.executable, "-c", ask], cwd=PROJECT, capture_output=True, text=True)
    assert done.stdout == "not tried\n" and "import of torch halted" in done.stderr.splitlines()[-1], done.stderr


@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize(
    ("key", "name", "said"),
    [
        ("model__backbone__name", "resnet9999", "model.backbone.name: timm has no model 'resnet9999'; timm.list_m"),
        ("model__backbone__name", "convnextv2_base.fcmea", "model.backbone.name: timm cannot build convnextv2_base."),
        ("baselines__ma_ms__network", "legacy_seresnet51", "baselines.ma_ms.network: timm has no model "),
    ],
)
def test_a_name_that_timm_does_not_know_is_told_as_such(tmp_path, monkeypatch, connected, key, name, said):
    monkeypatch.setattr(checklist_module, "hub_has", lambda name: connected)
    section = key.rpartition("__")[0]
    (item,) = missing_weights(load("demo", tmp_path, **{key: name, f"{section}__pretrained": True}))
    assert item.startswith(said)


def test_the_hub_is_asked_only_where_weights_would_come_from_it(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(checklist_module, "hub_has", lambda name: (asked.append(name), True)[1])
    missing_weights(load("demo", tmp_path))  # random weights
    missing_weights(load("paper", tmp_path, **{f"{key}__weights": "w.pth" for key in NETWORKS}))  # files
    assert asked == []
    assert missing_weights(load("paper", tmp_path, baselines__ma_ms__pretrained=True)) == []
    assert asked == ["convnextv2_base.fcmae", "densenet121", "legacy_seresnet50"]


@pytest.mark.parametrize("count", [1, 3])
def test_the_checklist_is_a_list_to_tick(count):
    text = format_checklist("params/paper.yaml", [f"item {i}." for i in range(count)])
    lines = text.splitlines()
    assert lines[0] == f"params/paper.yaml cannot start; {count} thing{'s' if count > 1 else ''} missing or not usable:"
    assert [line for line in lines if "[ ]" in line] == [f"  [ ] item {i}." for i in range(count)]
    assert lines[-1].endswith("Nothing was written.")


# -- the hub ---------------------------------------------------------------------------------------------


class Session:
    """Stands in for the hub's connection."""

    def __init__(self, up):
        self.up, self.timeouts, self.servers = up, [], []

    def head(self, address, timeout):
        self.timeouts.append(timeout)
        self.servers.append(address)
        if not self.up:
            raise ConnectionError


@pytest.fixture
def hub(monkeypatch):
    def make(up, cached=None, offline=False):
        server_answers.cache_clear()
        session = Session(up)
        monkeypatch.setattr(huggingface_hub.utils, "get_session", lambda: session)
        monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repository, file: cached)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
        return session

    yield make
    server_answers.cache_clear()


@pytest.mark.parametrize("up", [True, False])
def test_the_hub_has_weights_iff_it_answers_soon(hub, up):
    session = hub(up)
    assert hub_has("convnextv2_base.fcmae") == up
    assert len(session.timeouts) == 1 and session.timeouts[0] <= 3  # seconds: the checklist is quick


def test_each_server_is_asked_once_for_all_networks(hub):
    """SE-ResNet's weights lie on another server than the others'."""
    session = hub(up=False)
    for name in ("convnextv2_base.fcmae", "densenet121", "legacy_seresnet50", "legacy_seresnet18"):
        assert not hub_has(name)
    assert session.servers == ["https://huggingface.co", "https://github.com"]
    assert sum(session.timeouts) <= 4  # seconds


def test_weights_that_were_downloaded_from_the_other_server_need_no_connection(hub, tmp_path, monkeypatch):
    session = hub(up=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "se_resnet50-ce0d4300.pth").write_bytes(b"x")
    assert hub_has("legacy_seresnet50") and session.servers == []
    assert not hub_has("legacy_seresnet18")


def test_cached_weights_need_no_connection(hub):
    session = hub(up=False, cached="/cache/model.safetensors")
    assert hub_has("convnextv2_base.fcmae") and session.timeouts == []


def test_offline_mode_asks_nobody(hub):
    session = hub(up=True, offline=True)
    assert not hub_has("convnextv2_base.fcmae") and session.timeouts == []


@pytest.mark.parametrize("name", ["no_such_model", "convnextv2_base.no_such_tag"])
def test_an_unknown_name_is_no_crash_of_the_checklist(hub, name):
    hub(up=False)
    assert hub_has(name) is False
