"""The ``released`` variant against outputs computed with the authors' own code."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from lgffem_core.systems.lgffem.head import GeMHead
from lgffem_core.systems.lgffem.model import LGFFEM
from lgffem_core.systems.lgffem.neck import Neck
from lgffem_core.systems.lgffem.released import convert_released, load_released

GOLDEN = Path(__file__).parents[2] / "data" / "golden" / "released_lgffem_tiny.safetensors"
NODES = ("P0", "P1", "P2", "P3")  # the golden file's names for P1_2 … P4_2


class Stages(torch.nn.Module):
    """Stands in for a backbone: gives the golden inputs, whatever the image."""

    def __init__(self, stages):
        super().__init__()
        self.stages = stages

    def forward(self, images):
        return self.stages


@pytest.fixture(scope="module")
def golden():
    with safe_open(GOLDEN, "pt") as file:
        config = json.loads(file.metadata()["config"])
        return config, {key: file.get_tensor(key) for key in file.keys()}


def state_of(tensors, part):
    return {k.removeprefix(f"{part}."): v for k, v in tensors.items() if k.startswith(f"{part}.")}


@pytest.fixture
def model(golden):
    config, tensors = golden
    neck = Neck(config["in_channels"], config["num_channels"], config["num_layers"], grn="width", fusion_relu=False)
    head = GeMHead(config["num_channels"], config["gem_p"], config["eps"], norm=True)
    stages = [tensors[f"input.{name}"].clone().requires_grad_() for name in NODES]
    return LGFFEM(Stages(stages), neck, head, normalize=False).eval()


def places(values):
    """The 4 × 4 places of each channel that the golden file holds; see its README."""
    kept = np.linspace(0, values.shape[-1] - 1, 4).round().astype(int)
    return values[..., kept[:, None], kept]


def relative_error(ours, theirs):
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def test_every_layer_the_embedding_and_the_input_gradients(golden, model):
    _, tensors = golden
    model.load_trainable_state(convert_released(state_of(tensors, "neck"), state_of(tensors, "head")))
    stages = model.backbone.stages
    layers = model.neck.all_layers(stages)
    for number, outputs in enumerate(layers):
        for name, output in zip(NODES, outputs, strict=True):
            assert relative_error(places(output), tensors[f"output.layer{number}.{name}"]) < 1e-5
    embedding = model.head(layers[-1])
    assert relative_error(embedding, tensors["output.embedding"]) < 1e-5
    weights = torch.linspace(-1, 1, 2 * embedding.numel())[: embedding.numel()]  # theirs were of two images
    (embedding * weights).sum().backward()
    for name, stage in zip(NODES, stages, strict=True):
        assert relative_error(places(stage.grad), tensors[f"grad.{name}"]) < 1e-5


def test_a_checkpoint_in_the_authors_format_gives_the_golden_embedding(golden, model, tmp_path):
    _, tensors = golden
    torch.save(
        {
            "model_neck_state_dict": state_of(tensors, "neck"),
            "model_head_state_dict": state_of(tensors, "head"),
            "loss_state_dict": {"W": torch.zeros(64, 24)},
            "epoch": 10,
            "best_loss": 1.0,
        },
        tmp_path / "BASE-epoch10.pth",
    )
    load_released(model, tmp_path / "BASE-epoch10.pth")
    with torch.no_grad():
        assert relative_error(model(torch.zeros(2, 3, 32, 32)), tensors["output.embedding"]) < 1e-5
