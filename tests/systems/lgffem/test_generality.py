"""What specialising costs elsewhere: every number against a loop, and which images a model was trained on."""

import numpy as np
import pandas as pd
import pytest

from lgffem_core.audit.tables import Domain, generality_table
from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import Study
from lgffem_core.retrieval.embed import Embedded
from lgffem_core.systems.lgffem import generality as module
from lgffem_core.systems.lgffem.generality import (
    across_groups,
    answers,
    domains,
    landmarks,
    landmarks_note,
    trained_on,
)

PATCHES = pd.DataFrame(
    [
        (dataset, split, group, label)
        for dataset, split, group, label in (
            *[("imagenet", split, "n0", i % 3) for split in ("train", "test") for i in range(9)],
            *[("pannuke", "test", f"fold{2 + i % 2}", i % 4) for i in range(12)],
            *[("pannuke", "train", "fold1", i % 4) for i in range(4)],
            *[("kimia", split, "s0", i // 4) for split in ("train", "test") for i in range(8)],
        )
    ],
    columns=["dataset", "split", "group", "label_id"],
).assign(sha256=lambda table: table.index.astype(str))  # no image twice


def study(**changes):
    overrides = {"seeds": [0, 1], "retrieval.bootstrap": 300}
    overrides |= {key.replace("__", "."): value for key, value in changes.items()}
    return Study.load(PROJECT / "params" / "demo.yaml", overrides)


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.setattr(module, "patch_table", lambda study, dataset: PATCHES[PATCHES["dataset"] == dataset])


def values_of(strategy, seed, patches):
    """Embeddings that a strategy and a seed determine, better for some than for others."""
    rng = np.random.default_rng([ord(strategy), seed])
    signal = {"a": 3, "b": 1, "c": 0}.get(strategy, 2) * np.eye(4, 6)[patches["label_id"]]
    return (signal + rng.standard_normal((len(patches), 6))).astype(np.float32)


@pytest.fixture
def embedded(tables, monkeypatch):
    """Stands for trained models: an encoder is its strategy and seed."""

    def embed(study, dataset, patches, key):
        return values_of(*key, patches)

    def kept(study, strategy, variant, seed):
        patches = PATCHES[PATCHES["dataset"] == "kimia"]
        is_test = (patches["split"] == "test").to_numpy()
        values = np.full((len(patches), 6), np.nan, np.float32)
        values[is_test] = values_of(strategy, seed, patches[is_test])
        return Embedded(values, patches["label_id"].to_numpy(), is_test, patches.index.to_numpy())

    backbone = module.backbone_encoder

    class Backbone(tuple):
        label = property(lambda self: backbone(study(), 0).label)

    monkeypatch.setattr(module, "strategy_encoder", lambda study, strategy, variant, seed: (strategy, seed))
    monkeypatch.setattr(module, "backbone_encoder", lambda study, seed: Backbone(("-", 0)))
    monkeypatch.setattr(module, "embed_table", embed)
    monkeypatch.setattr(module, "train_and_embed", kept)


def share_right(values, labels):
    """Leave-one-out by hand, in percent."""
    right = 0
    for i, query in enumerate(values):
        nearest = min((((query - other) ** 2).sum(), j) for j, other in enumerate(values) if j != i)[1]
        right += labels[nearest] == labels[i]
    return 100 * right / len(labels)


def test_every_model_is_asked_on_every_domain(embedded):
    mine = study(data__pannuke__split=1)
    table, found = generality_table(answers(mine), 300), {domain.name: domain.patches for domain in domains(mine)}
    assert list(found) == ["photographs held out*", "PanNuke, fold2, fold3*", "scans, test patches*"]
    assert table["strategy"].tolist() == [m for m in ("frozen backbone", "A", "B", "C") for _ in range(3)]
    assert table["patches"].tolist() == [9, 12, 8] * 4 and table["groups"].tolist() == [3, 4, 2] * 4
    for row in table.itertuples():
        patches = found[row.domain]
        seeds, letter = ([0], "-") if "backbone" in row.strategy else ([0, 1], row.strategy.lower())
        rates = [share_right(values_of(letter, seed, patches), patches["label_id"].tolist()) for seed in seeds]
        assert row.eta_p == pytest.approx(np.mean(rates), abs=0.0051)
        assert row.eta_p_low - 0.01 <= row.eta_p <= row.eta_p_high + 0.01
    by_chance = dict(zip(table["domain"], table["chance_eta_p"], strict=True))
    assert by_chance == {  # (n - 1) / (N - 1), the same for every label
        "photographs held out*": 25.0,
        "PanNuke, fold2, fold3*": round(100 * 2 / 11, 2),
        "scans, test patches*": round(100 * 3 / 7, 2),
    }


@pytest.mark.parametrize("left", [0, 1, 3])
def test_with_fewer_than_two_classes_of_photographs_their_cells_are_not_measured(embedded, monkeypatch, left):
    held_out = PATCHES.index[(PATCHES["dataset"] == "imagenet") & (PATCHES["split"] == "test")]
    one_class = held_out[PATCHES.loc[held_out, "label_id"] == 0][:left]
    without = PATCHES.drop(index=held_out.difference(one_class))
    monkeypatch.setattr(module, "patch_table", lambda study, dataset: without[without["dataset"] == dataset])
    table = generality_table(answers(study()), 300).set_index("domain")
    assert (table.loc["photographs held out*", "patches"] == left).all()
    assert (
        table.loc["photographs held out*", ["eta_p", "eta_p_low", "eta_p_high", "chance_eta_p"]].isna().all(axis=None)
    )
    assert table.drop(index="photographs held out*")["eta_p"].notna().all()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"a": "no", "b": "yes", "c": "yes"}),
        ({"training__a__checkpoint": "a.pth"}, {"a": "unknown", "b": "unknown", "c": "unknown"}),
        ({"training__b__checkpoint": "b.pth"}, {"a": "no", "b": "unknown", "c": "unknown"}),
        ({"training__c__checkpoint": "c.pth"}, {"a": "no", "b": "yes", "c": "unknown"}),
    ],
)
def test_who_was_trained_on_the_tiles(monkeypatch, changes, expected):
    """By content: an image of a name of its own is trained on all the same, where its copy was."""
    table = pd.DataFrame({"split": ["train", "train", "test"]})
    tables = {
        name: table.assign(sha256=[f"{name}1", f"{name}2", f"{name}3"]) for name in ("imagenet", "pannuke", "kimia")
    }
    monkeypatch.setattr(module, "patch_table", lambda study, dataset: tables[dataset])
    mine, tiles = study(**changes), Domain("PanNuke", "pannuke", tables["pannuke"].iloc[:2])
    assert {strategy: trained_on(mine, strategy, tiles) for strategy in "abc"} == expected
    assert trained_on(mine, None, tiles) == "no"


def test_held_out_photographs_that_were_trained_on_are_counted(monkeypatch):
    tables = {name: pd.DataFrame({"split": ["train"], "sha256": [name]}) for name in ("imagenet", "pannuke", "kimia")}
    monkeypatch.setattr(module, "patch_table", lambda study, dataset: tables[dataset])
    for digests, said in ((["x", "y"], "no"), (["x", "imagenet"], "1 of 2"), (["imagenet"] * 2, "yes")):
        held_out = Domain("photographs", "imagenet", pd.DataFrame({"split": "test", "sha256": digests}))
        assert {trained_on(study(), strategy, held_out) for strategy in "abc"} == {said}


def test_a_star_marks_what_is_synthetic(tables):
    names = [domain.name for domain in domains(study(data__kimia__root=".", data__pannuke__root="."))]
    assert names == ["photographs held out*", "PanNuke, fold2, fold3", "scans, test patches"]


def test_where_all_folds_train_all_tiles_are_asked(tables, monkeypatch):
    every = PATCHES.assign(split=PATCHES["split"].where(PATCHES["dataset"] != "pannuke", "train"))
    monkeypatch.setattr(module, "patch_table", lambda study, dataset: every[every["dataset"] == dataset])
    assert domains(study())[1].name == "PanNuke, fold1, fold2, fold3*" and len(domains(study())[1].patches) == 16


def test_the_published_values_are_those_that_the_authors_notebook_printed():
    assert landmarks().to_dict("index") == {
        "A": {"roxford": 19.78, "rparis": 54.64},
        "B": {"roxford": 7.86, "rparis": 28.69},
        "C": {"roxford": 2.70, "rparis": 7.63},
    }
    assert landmarks_note().endswith("A 19.78 / 54.64, B 7.86 / 28.69, C 2.70 / 7.63.")


def test_scans_are_asked_of_c_and_tiles_of_b(embedded):
    (scans, c), (tiles, b) = across_groups(study(seeds=[4]))
    assert (c, b) == (("c", 4), ("b", 4)) and (scans.dataset, tiles.dataset) == ("kimia", "pannuke")
    assert len(scans.patches) == 8 and set(scans.patches["split"]) == {"test"} and len(tiles.patches) == 16
