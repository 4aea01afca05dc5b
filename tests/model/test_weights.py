"""What a network starts from counts by its content, wherever it came from."""

import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import save_file

from lgffem_core.base.files import read_json, sha256_file
from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import Study
from lgffem_core.model.weights import hub_hash, start_hash
from lgffem_core.run.manifest import first_weights
from lgffem_core.systems.baselines import ma_ms as baselines
from lgffem_core.systems.lgffem import strategies as run

MADE = {"model.backbone.name": "test_convnext", "baselines.ma_ms.network": "legacy_seresnet18"}
NETWORKS = {"model.backbone": "test_convnext", "baselines.ma_ms": "legacy_seresnet18"}


@pytest.fixture
def study(tmp_path):
    def make(**overrides):
        named = MADE | {key.replace("__", "."): value for key, value in overrides.items()}
        return Study.load(PROJECT / "params" / "smoke.yaml", named, root=tmp_path)

    return make


@pytest.fixture
def hub(monkeypatch):
    """A function that says by a number which weights the hub gives from now on."""
    original, given = timm.create_model, {"number": 0}

    def create_model(name, pretrained=False, **options):
        network = original(name, **options)
        if pretrained:
            torch.nn.init.constant_(next(network.parameters()), given["number"])
            network.load_state_dict({k: torch.full_like(v, given["number"]) for k, v in network.state_dict().items()})
        return network

    def give(number):
        given["number"] = number
        hub_hash.cache_clear()  # as in a process of its own

    monkeypatch.setattr(timm, "create_model", create_model)
    yield give
    hub_hash.cache_clear()


@pytest.mark.parametrize("key", NETWORKS)
def test_weights_of_the_hub_count_by_what_they_are(study, hub, key):
    mine, found = study(**{f"{key}.pretrained": True}), []
    for number in (0, 1, 0):
        hub(number)
        found.append(start_hash(mine, key, NETWORKS[key]))
        note = {"network": NETWORKS[key], "sha256": found[-1]}
        assert read_json(mine.downloaded(key)) == note
        assert first_weights(mine)[key] == {"source": "hub", "sha256": found[-1]}
    assert found[0] == found[2] != found[1]


@pytest.mark.parametrize("key", NETWORKS)
def test_the_hub_is_not_asked_where_a_file_is_given_or_weights_are_random(study, monkeypatch, tmp_path, key):
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: pytest.fail("built"))
    save_file({"weight": torch.ones(2)}, file := tmp_path / "w.safetensors")
    given, random = study(**{f"{key}.weights": str(file), f"{key}.pretrained": True}), study()
    assert start_hash(given, key, NETWORKS[key]) == sha256_file(file) and start_hash(random, key, NETWORKS[key]) is None
    assert first_weights(given)[key] == {"source": "file", "sha256": sha256_file(file)}
    assert first_weights(random)[key] == {"source": "random"}
    assert not given.downloaded(key).exists()


def test_a_checkpoint_that_stands_in_for_training_is_named_too(study, tmp_path):
    (file := tmp_path / "theirs.pth").write_bytes(b"weights")
    found = first_weights(study(training__c__checkpoint=str(file)))
    assert found["training.c"] == {"source": "file", "sha256": sha256_file(file)} and "training.a" not in found


@pytest.mark.parametrize("key", NETWORKS)
def test_other_weights_of_the_hub_train_anew(study, hub, monkeypatch, key):
    table = pd.DataFrame({"label": ["x"]})
    for module in (run, baselines):
        monkeypatch.setattr(module, "training_set", lambda *_: table)
    mine, found = study(**{f"{key}.pretrained": True}), set()
    for number in (0, 1, 0):
        hub(number)
        found.add(
            baselines.mixed_attention_fingerprint(mine, 0)
            if "ma_ms" in key
            else run.strategy_fingerprint(mine, "a", "paper", 0)
        )
    assert len(found) == 2
