"""LGFFEM as an encoder of other systems' images: as it was left, or not at all."""

import numpy as np
import pytest

from lgffem_core.data import patch_table
from lgffem_core.retrieval.encoder import embed_table
from lgffem_core.systems.lgffem import evaluation
from lgffem_core.systems.lgffem.evaluation import kept_encoder, train_and_embed


def test_untrained_it_is_none_and_nothing_is_trained(tiny_study, monkeypatch):
    monkeypatch.setattr(evaluation, "train_strategy", lambda *_: pytest.fail("trained"))
    assert kept_encoder(tiny_study(), "a", "paper", 0) is None


def test_as_it_was_left_it_embeds_as_the_strategy_does_without_its_data(tiny_study, monkeypatch):
    study = tiny_study()
    kept = train_and_embed(study, "a", "paper", 0)
    monkeypatch.setattr(evaluation, "train_strategy", lambda *_: pytest.fail("trained"))
    encoder = kept_encoder(study, "a", "paper", 0)
    table = patch_table(study, "kimia")
    np.testing.assert_array_equal(embed_table(study, "kimia", table, encoder), kept.embeddings)
    weights = study.checkpoints("a", "paper", 0) / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b"x")
    assert kept_encoder(study, "a", "paper", 0).identity != encoder.identity
