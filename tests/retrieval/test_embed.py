"""Embeddings on disk: with the patches that they are of, and computed again where those or the vectors are others."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from lgffem_core.data import patch_table
from lgffem_core.data.augment import evaluation_resize
from lgffem_core.retrieval import embed
from lgffem_core.retrieval.embed import kept_embeddings
from lgffem_core.retrieval.encoder import Encoder


class Means(torch.nn.Module):
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def forward(self, images):
        return images.mean(dim=(2, 3))


@pytest.fixture
def built():
    """How often a network was asked for."""
    return []


@pytest.fixture
def encoder(built):
    return Encoder("means", "first", lambda: built.append(1) or Means(), evaluation_resize(32))


def test_a_file_holds_the_ids_of_its_patches_and_is_made_once(tiny_study, tmp_path, encoder, built):
    study, path = tiny_study(), tmp_path / "a.safetensors"
    first, again = (kept_embeddings(study, "kimia", path, encoder) for _ in range(2))
    table = patch_table(study, "kimia")
    assert first.ids.tolist() == table["path"].tolist() and first.labels.tolist() == table["label_id"].tolist()
    assert first.test.tolist() == (table["split"] == "test").tolist() and first.embeddings.shape == (36, 3)
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True)) and built == [1]
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == {"embeddings", "labels", "test"} and table["path"][7] in str(file.metadata())


def test_other_ids_vectors_or_ways_of_reading_are_computed_again(tiny_study, tmp_path, encoder, built, monkeypatch):
    study, path = tiny_study(), tmp_path / "a.safetensors"

    def embedded(study=study, encoder=encoder):
        before = len(built)
        return kept_embeddings(study, "kimia", path, encoder), len(built) > before

    assert embedded()[1] and not embedded()[1]
    assert embedded(encoder=replace(encoder, identity="second"))[1]
    assert embedded()[1] and embedded(tiny_study(retrieval__batch_size=5))[1]
    assert embedded()[1] and embedded(tiny_study(compute__threads=2))[1]
    assert embedded()[1] and not embedded()[1]
    table = patch_table(study, "kimia")
    table.loc[3, "path"] = table.loc[3, "path"].replace("train", "./train")  # the same file under another name
    monkeypatch.setattr(embed, "patch_table", lambda study, dataset: table)
    assert embedded()[1]
    found, again = embedded()
    assert not again and found.ids[3] == table.loc[3, "path"]
    monkeypatch.setattr(embed, "channel_order", lambda study, dataset: "bgr")
    assert embedded()[1]
