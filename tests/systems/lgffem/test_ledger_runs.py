"""The ledger's trainings: which strategies they train, from which weights, and what they leave alone."""

import numpy as np
import pandas as pd
import pytest
import torch

from lgffem_core.data import patch_table
from lgffem_core.systems.lgffem import strategies as run
from lgffem_core.systems.lgffem.evaluation import train_and_embed
from lgffem_core.systems.lgffem.ledger import base_study, measure, read_ledger, readings, row_embeddings
from lgffem_core.systems.lgffem.model import build_model
from lgffem_core.training.loop import Trainer

ROWS = {row.row: row for row in read_ledger()}


@pytest.fixture
def trained(monkeypatch):
    """(run's name, strategy, first weights) of every training, in order."""
    started, original = [], Trainer.fit

    def spy(self, patches, folder, *rest):
        first = {k: v.clone() for k, v in self.parts["model"].trainable_state().items()}
        started.append((folder.parent.name, self.recipe.name, first))
        return original(self, patches, folder, *rest)

    monkeypatch.setattr(Trainer, "fit", spy)
    return started


def test_a_row_trains_strategy_c_alone_and_once_for_each_reading(tiny_study, trained):
    study = tiny_study(ledger__epochs=2)
    effects = measure(study, ROWS[8])
    assert [(name, strategy) for name, strategy, _ in trained] == [("base_c", "c"), ("row08_code", "c")]
    fresh = build_model(study, "paper", 0).trainable_state()
    assert all(torch.equal(first[k], fresh[k]) for _, _, first in trained for k in fresh)
    assert [(e.text_protocol, e.code_protocol) for e in effects] == [(p, p) for p in study.params.retrieval.protocols]
    history = pd.read_csv(base_study(study).checkpoints("c", "paper", 0) / "history.csv")
    assert list(history["epoch"]) == [1, 2]
    assert not (study.artifacts / "checkpoints").exists() and not (study.artifacts / "embeddings").exists()
    measure(study, ROWS[8])
    assert len(trained) == 2


def test_another_scale_changes_the_loss_that_is_trained(tiny_study):
    text, code = readings(tiny_study(ledger__epochs=1), ROWS[2])
    losses = [run.train_strategy(side, "c", "paper", 0).history["loss"][0] for side in (text, code)]
    assert losses[0] > 2 * losses[1]  # s = 64 against s = m = 17.2


def test_rows_about_evaluation_share_one_set_of_weights(tiny_study, trained):
    study = tiny_study(ledger__epochs=1)
    counted = measure(study, ROWS[1])
    assert [(e.text_protocol, e.code_protocol) for e in counted] == [("leave_one_out", "released")]
    assert all(e.code.hits is None and e.text.hits is not None for e in counted)
    base, (text, code) = base_study(study), readings(study, ROWS[12])
    plain, labels, test, ids = row_embeddings(text, base)  # as text and code have it
    unit = row_embeddings(code, base).embeddings  # ours
    lengths = np.linalg.norm(plain, axis=1, keepdims=True)
    assert (abs(lengths - 1) > 1e-3).all()
    np.testing.assert_allclose(plain / lengths, unit, atol=1e-5)
    assert np.array_equal(plain, train_and_embed(base, "c", "paper", 0)[0]) and len(labels) == len(test) == len(ids)
    assert [name for name, _, _ in trained] == ["base_c"]


def test_a_row_about_pannuke_trains_b_and_then_c_on_tiles_of_its_own(tiny_study, trained):
    study = tiny_study(ledger__epochs=1)
    before = patch_table(study, "pannuke")
    measure(study, ROWS[11])
    assert [(name, strategy) for name, strategy, _ in trained] == [
        ("base_b_c", "b"),
        ("base_b_c", "c"),
        ("row11_code", "b"),
        ("row11_code", "c"),
    ]
    _, code = readings(study, ROWS[11])
    tiles = patch_table(code, "pannuke")
    assert (before["split"] == "train").all() and set(tiles.query("split == 'train'")["group"]) == {"fold1"}
    pd.testing.assert_frame_equal(patch_table(study, "pannuke"), before)


def test_another_seed_is_another_training(tiny_study, trained):
    measure(tiny_study(ledger__epochs=1), ROWS[15])
    (_, _, first), (name, _, second) = trained
    assert name == "row15_code" and any(not torch.equal(first[k], second[k]) for k in first)
