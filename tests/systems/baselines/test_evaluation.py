"""Baselines under the three protocols: keys, honest names, files kept by content."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import Study
from lgffem_core.model.weights import state_hash
from lgffem_core.retrieval import embed
from lgffem_core.retrieval.protocols import evaluate
from lgffem_core.systems.baselines import evaluation as baselines
from lgffem_core.systems.baselines.evaluation import (
    DENSENET,
    MA_MS,
    baseline_embeddings,
    densenet_variant,
    evaluate_baselines,
    methods,
    mixed_attention_variant,
)
from lgffem_core.systems.baselines.ma_ms import train_or_load_mixed_attention
from lgffem_core.systems.baselines.networks import build_densenet, build_mixed_attention
from lgffem_core.systems.lgffem.model import build_model

PROTOCOLS = ("test_to_train", "leave_one_out", "released")
COLOURS = [(220, 80, 120), (90, 60, 160), (230, 200, 215)]


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    """Three scans of noisy colours in Kimia's layout: four training patches and two test patches each."""
    root, rng = tmp_path_factory.mktemp("kimia"), np.random.default_rng(0)
    for k, colour in enumerate(COLOURS):
        for i in range(6):
            path = root / (f"train/s{k}/{i}.jpg" if i < 4 else f"test/s{k}/s{k}_{i}.jpg")
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.clip(np.array(colour) + rng.normal(0, 20, (40, 40, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    return root


@pytest.fixture
def study(patches, tmp_path):
    def make(**overrides):
        settings = {"data.kimia.root": str(patches), "data.kimia.scans": 3, "model.image_size": 32}
        settings |= {"baselines.ma_ms.batch_size": 6, "baselines.ma_ms.epochs": 2}
        settings |= {key.replace("__", "."): value for key, value in overrides.items()}
        return Study.load(PROJECT / "params" / "smoke.yaml", settings, root=tmp_path)

    return make


def test_every_method_and_protocol_has_an_outcome_a_seed(study):
    mine = study(seeds=[0, 3])
    outcomes = evaluate_baselines(mine)
    dense, mixed = "frozen, random weights", "legacy_seresnet18, random start, 2 epochs"
    assert list(outcomes) == [
        (method, variant, protocol)
        for method, variant in (("DenseNet-121", dense), ("DenseNet-121 barcode", dense), ("MA + MS-loss", mixed))
        for protocol in PROTOCOLS
    ]
    for (method, _, protocol), runs in outcomes.items():
        assert len(runs) == 2 and all(run.counts.tolist() == [2, 2, 2] for run in runs)
        name, binary = ("ma_ms", False) if method == "MA + MS-loss" else ("densenet121", "barcode" in method)
        for run, seed in zip(runs, (0, 3), strict=True):
            kept = {k: v.numpy() for k, v in load_file(mine.baseline(name, seed) / "embeddings.safetensors").items()}
            vectors = np.diff(kept["embeddings"], axis=1) > 0 if binary else kept["embeddings"]
            expected = evaluate(protocol, vectors.astype(np.float32), kept["labels"], kept["test"])
            assert run.correct.tolist() == expected.correct.tolist()


def test_embeddings_are_those_of_the_networks_on_the_published_inputs(study, patches):
    mine = study()
    dense, labels, test, _ = baseline_embeddings(mine, DENSENET, 0)
    mixed = baseline_embeddings(mine, MA_MS, 0).embeddings
    assert dense.shape == (18, 1024) and mixed.shape == (18, 16)
    assert labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [0, 0, 1, 1, 2, 2] and test.sum() == 6
    pixels = np.asarray(Image.open(patches / "train" / "s0" / "0.jpg"))
    np.testing.assert_allclose(np.linalg.norm(mixed, axis=1), 1, rtol=1e-5)
    enlarged = torch.from_numpy(pixels / 255.0).permute(2, 0, 1)[None].float()
    side = round(32 * 300 / 224)  # 43, from 40 pixels: torch's bicubic without antialiasing is OpenCV's
    resized = F.interpolate(enlarged, (side, side), mode="bicubic", align_corners=False).clamp(0, 1)
    first = (side - 32) // 2
    with torch.no_grad():
        expected = train_or_load_mixed_attention(mine, 0)(resized[:, :, first : first + 32, first : first + 32])[0]
    np.testing.assert_allclose(mixed[0], expected, atol=0.02)


@pytest.mark.parametrize(("name", "change"), [
    (DENSENET, {"model__image_size": 64}),
    (MA_MS, {"baselines__ma_ms__epochs": 1}),
], ids=["densenet", "ma_ms"])  # fmt: skip
def test_embeddings_are_kept_until_what_they_depend_on_changes(study, monkeypatch, name, change):
    first = baseline_embeddings(study(), name, 0).embeddings
    with monkeypatch.context() as patch:
        patch.setattr(embed, "embed_table", lambda *a: pytest.fail("embedded again"))
        assert np.array_equal(baseline_embeddings(study(), name, 0).embeddings, first)
        by = Study.computed_by
        patch.setattr(Study, "computed_by", lambda self, name: {} if name.endswith("embed") else by(self, name))
        with pytest.raises(pytest.fail.Exception, match="embedded again"):
            baseline_embeddings(study(), name, 0)
    assert not np.array_equal(baseline_embeddings(study(**change), name, 0).embeddings, first)


def test_the_networks_code_is_part_of_what_densenets_embeddings_are_made_from(study, monkeypatch):
    baseline_embeddings(study(), DENSENET, 0)
    monkeypatch.setattr(embed, "embed_table", lambda *a: pytest.fail("embedded again"))
    monkeypatch.setattr(baselines, "code_hash", lambda source: "other code")
    with pytest.raises(pytest.fail.Exception, match="embedded again"):
        baseline_embeddings(study(), DENSENET, 0)


def test_methods_are_every_baseline_with_an_entry_a_seed(study):
    found = methods(study(seeds=[0, 1], baselines__ma_ms__epochs=1))
    assert [name for name, _ in found] == ["DenseNet-121", "DenseNet-121 barcode", "MA + MS-loss"]
    assert {len(runs) for runs in found.values()} == {2}
    features, bits = (found[name, "frozen, random weights"][1] for name in ("DenseNet-121", "DenseNet-121 barcode"))
    assert (bits.embeddings == (features.embeddings[:, 1:] > features.embeddings[:, :-1])).all()
    assert bits.embeddings.dtype == np.float32 and bits.ids.tolist() == features.ids.tolist()


def test_variants_name_weights_and_training(study):
    given = study(baselines__densenet121__weights="w/dense.pth", baselines__ma_ms__epochs=1)
    assert densenet_variant(given) == "frozen, weights dense.pth"
    assert mixed_attention_variant(given) == "legacy_seresnet18, random start, 1 epoch"
    paper = Study.load(PROJECT / "params" / "paper.yaml", {}, root=study().root)
    assert densenet_variant(paper) == "frozen, ImageNet weights"
    assert mixed_attention_variant(paper) == "legacy_seresnet50, random start, 100 epochs"


def test_the_hash_of_a_state_sees_every_value():
    layer = torch.nn.BatchNorm1d(3)
    before = state_hash(layer)
    assert state_hash(torch.nn.BatchNorm1d(3)) == before
    layer.running_mean[1] = 1e-7
    assert state_hash(layer) != before


@pytest.mark.parametrize("build", [
    lambda study: build_model(study, "paper", 0), lambda study: build_densenet(study, 0),
    lambda study: build_mixed_attention(study, 0),
], ids=["LGFFEM", "densenet", "ma_ms"])  # fmt: skip
def test_whoever_has_a_network_computes_with_the_threads_of_the_study(study, build):
    before = torch.get_num_threads()
    try:
        for threads in (3, 1):
            build(study(compute__threads=threads))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_densenets_embeddings_of_another_number_of_threads_are_computed_again(study, monkeypatch):
    baseline_embeddings(study(), DENSENET, 0)
    monkeypatch.setattr(embed, "embed_table", lambda *a: pytest.fail("embedded again"))
    baseline_embeddings(study(), DENSENET, 0)
    with pytest.raises(pytest.fail.Exception, match="embedded again"):
        baseline_embeddings(study(compute__threads=2), DENSENET, 0)
