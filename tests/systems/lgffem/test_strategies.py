"""Training runs: the chain A -> B -> C, resuming, and what makes a run start anew."""

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.base.files import sha256_file
from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import Study
from lgffem_core.data import patch_table
from lgffem_core.data.augment import evaluation_resize
from lgffem_core.retrieval.encoder import Encoder, embed_table
from lgffem_core.run.runner import sole_run
from lgffem_core.systems.lgffem import strategies as run
from lgffem_core.systems.lgffem.__main__ import main
from lgffem_core.systems.lgffem.evaluation import evaluate_all, train_and_embed
from lgffem_core.systems.lgffem.model import LGFFEM, build_model
from lgffem_core.systems.lgffem.strategies import train_or_load, train_strategy
from lgffem_core.training import loop


def weights(study, strategy, variant="paper", seed=0):
    return study.checkpoints(strategy, variant, seed) / "model.safetensors"


def test_the_chain_trains_each_strategy_from_the_one_before(tiny_study, monkeypatch):
    study, started = tiny_study(), {}
    original = loop.Trainer.fit

    def spy(self, *arguments):
        started[self.recipe.name] = {k: v.clone() for k, v in self.parts["model"].trainable_state().items()}
        return original(self, *arguments)

    monkeypatch.setattr(loop.Trainer, "fit", spy)
    trained = train_strategy(study, "c", "paper", 0)
    fresh = build_model(study, "paper", 0).trainable_state()
    for strategy, before in (
        ("a", fresh),
        ("b", load_file(weights(study, "a"))),
        ("c", load_file(weights(study, "b"))),
    ):
        assert all(torch.equal(started[strategy][name], before[name]) for name in before)
    assert list(trained.history["epoch"]) == [1, 2, 3]
    assert not torch.equal(load_file(weights(study, "c"))["neck.layers.0.nodes.P3_1.weights"], torch.ones(2))


def test_finished_strategies_are_not_trained_again(tiny_study, monkeypatch):
    study = tiny_study()
    train_strategy(study, "b", "paper", 0)
    monkeypatch.setattr(loop.Trainer, "fit", lambda *a: pytest.fail("trained again"))
    assert train_strategy(study, "b", "paper", 0).weights == weights(study, "b")


class StopHereError(Exception):
    """Stands in for a kill."""


def stop_after(monkeypatch, epochs):
    """Let the trainer die right after the checkpoint of that many epochs."""
    saved, original = [], loop.save_checkpoint

    def save(*arguments):
        path = original(*arguments)
        saved.append(path)
        if len(saved) == epochs:
            raise StopHereError
        return path

    monkeypatch.setattr(loop, "save_checkpoint", save)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_a_stopped_run_goes_on_to_the_same_bits(tiny_study, monkeypatch, variant):
    whole, stopped = tiny_study("whole"), tiny_study("stopped")
    train_strategy(whole, "b", variant, 0)
    train_strategy(stopped, "a", variant, 0)
    with monkeypatch.context() as patch:
        stop_after(patch, epochs=1)
        with pytest.raises(StopHereError):
            train_strategy(stopped, "b", variant, 0)
    trained_epochs = []
    original = loop.Trainer.train_step
    monkeypatch.setattr(
        loop.Trainer,
        "train_step",
        lambda self, step, *r: trained_epochs.append(step) or original(self, step, *r),
    )
    trained = train_strategy(stopped, "b", variant, 0)
    assert trained_epochs == [
        3,
        4,
        5,
    ]  # 24 tiles in batches of 8: the first epoch's three steps are not repeated
    assert sha256_file(trained.weights) == sha256_file(weights(whole, "b", variant))
    pd.testing.assert_frame_equal(trained.history, pd.read_csv(weights(whole, "b", variant).with_name("history.csv")))


@pytest.mark.parametrize("workers", [1, 2])
def test_loader_workers_change_nothing(tiny_study, workers):
    reference, other = tiny_study("zero"), tiny_study("some", compute__workers=workers)
    for study in (reference, other):
        train_strategy(study, "a", "paper", 0)
    assert sha256_file(weights(reference, "a")) == sha256_file(weights(other, "a"))


@pytest.mark.parametrize(
    "change", [{"training__b__epochs": 1}, {"model__toggles__grn": "width"}, {"training__lr": 1e-3}]
)
def test_a_changed_parameter_trains_anew(tiny_study, change):
    study, changed = tiny_study(), tiny_study(**change)
    before = train_strategy(study, "b", "paper", 0).fingerprint
    after = train_strategy(changed, "b", "paper", 0).fingerprint
    assert before != after


@pytest.mark.parametrize(("strategy", "steps", "amsgrad"), [("a", 4, False), ("b", 5, False), ("c", 4, True)])
def test_each_strategy_trains_as_its_released_script(tiny_study, monkeypatch, strategy, steps, amsgrad):
    """22 images in batches of 5: PathML's loader keeps the last two, and C alone has AMSGrad (ledger 19 and 20)."""
    study, seen = tiny_study(training__batch_size=5, **{f"training__{strategy}__epochs": 1}), []
    step, fit, whole = loop.Trainer.train_step, loop.Trainer.fit, run.training_set
    monkeypatch.setattr(run, "training_set", lambda *a: whole(*a).iloc[:22])
    monkeypatch.setattr(loop.Trainer, "fit", lambda self, *a: fit(self, *a) if self.recipe.name == strategy else [])
    monkeypatch.setattr(loop.Trainer, "train_step", lambda self, *a: seen.append(self) or step(self, *a))
    train_strategy(study, strategy, "paper", 0)
    assert len(seen) == steps
    assert ["max_exp_avg_sq" in s for s in seen[0].optimizer.state.values()][0] is amsgrad


@pytest.mark.parametrize(
    ("images", "processes", "head_norm", "drop_last", "words"),
    [
        (21, 1, True, False, "training.b: the last batch of an epoch has 1 of 4 images, too few for BatchNorm; set"),
        (22, 3, False, False, "training.b: the last batch of an epoch has 2 of 4 images, too few for 3 processes; set"),
        (21, 1, False, False, ""),
        (22, 2, True, False, ""),
        (20, 3, True, False, ""),
        (21, 3, True, True, ""),
    ],
)
def test_a_last_batch_that_cannot_be_trained_on_is_refused(images, processes, head_norm, drop_last, words):
    params = Study.load(PROJECT / "params" / "smoke.yaml", {"training.batch_size": 4}).params
    recipe = replace(run.strategy_recipe(params, "b"), drop_last=drop_last)
    if not words:
        return run.check_last_batch(recipe, images, processes, head_norm)
    with pytest.raises(RequestError, match=words):
        run.check_last_batch(recipe, images, processes, head_norm)


def test_another_seed_gives_other_weights(tiny_study):
    study = tiny_study()
    first, second = (load_file(train_strategy(study, "a", "paper", seed).weights) for seed in (0, 1))
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_a_released_checkpoint_stands_in_for_training(tiny_study, tmp_path, monkeypatch):
    study = tiny_study(training__b__checkpoint=str(tmp_path / "ffnir.pth"))
    study.root.mkdir()
    (tmp_path / "ffnir.pth").write_bytes(b"weights")
    monkeypatch.setattr(
        run, "load_released", lambda model, path: torch.nn.init.constant_(model.head.mini_heads[0].gem.p, 2.5)
    )
    monkeypatch.setattr(loop.Trainer, "fit", lambda *a: pytest.fail("trained"))
    trained = train_strategy(study, "b", "paper", 0)
    assert load_file(trained.weights)["head.mini_heads.0.gem.p"].item() == 2.5
    assert trained.history.empty and not weights(study, "a").exists()


def test_an_infinite_loss_stops_the_run(tiny_study, monkeypatch):
    study = tiny_study()
    monkeypatch.setitem(run.LOSSES, "sub_center_arcface", lambda *a: Infinite())
    with pytest.raises(StudyError, match="strategy A: the loss is nan at step 0"):
        train_strategy(study, "a", "paper", 0)
    assert not weights(study, "a").exists()


class Infinite(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.W = torch.nn.Parameter(torch.ones(1))

    def forward(self, embeddings, labels):
        return (embeddings.sum() * self.W).sum() * float("nan")


def untrained(study):
    return Encoder("untrained", "not kept", lambda: build_model(study, "paper", 0), evaluation_resize(32))


def test_cuda_is_refused_where_there_is_none(tiny_study, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RequestError, match="compute.device is cuda"):
        run.make_fabric(tiny_study(compute__device="cuda"))


@pytest.mark.parametrize(
    "compute",
    [
        lambda study: train_strategy(study, "a", "paper", 0),
        lambda study: embed_table(study, "kimia", patch_table(study, "kimia"), untrained(study)),
    ],
    ids=["training", "embedding"],
)
def test_nothing_is_computed_before_the_device_is_set_up(tiny_study, monkeypatch, compute):
    seen, forward = set(), LGFFEM.forward
    monkeypatch.setattr(LGFFEM, "forward", lambda self, images: (seen.add(torch_settings()), forward(self, images))[1])
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(2)
    compute(tiny_study(training__a__epochs=1))
    assert seen == {(False, False, False, True, 1)}


def torch_settings():
    backends = torch.backends
    tf32 = backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32
    return *tf32, backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()


def test_training_learns_the_colours(tiny_study):
    study = tiny_study(training__c__epochs=12)
    scores = {key: outcome[0].scores.eta_p for key, outcome in evaluate_all(study).items()}
    assert scores["c", "paper", "test_to_train"] >= 75  # four classes: chance is 25
    assert set(scores) == {(s, "paper", p) for s in "abc" for p in ("test_to_train", "leave_one_out", "released")}


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("unit", [False, True])
def test_embeddings_have_unit_length_iff_the_toggle_of_ours_is_on(tiny_study, variant, unit):
    """Neither text nor code normalise before the search (ledger 12)."""
    toggles = {"model__toggles__normalize_embedding": True} if unit else {}
    study = tiny_study(variants=["paper", "released"], **toggles)
    embeddings, labels, test, ids = train_and_embed(study, "a", variant, 0)
    lengths = (embeddings**2).sum(axis=1)
    assert embeddings.shape == (36, 32) and embeddings.dtype == "float32"
    assert labels.dtype == "int64" and test.sum() == 12
    assert ids.tolist() == patch_table(study, "kimia")["path"].tolist()
    assert (abs(lengths - 1) < 1e-5).all() == unit


def test_a_strategy_is_known_by_the_same_fingerprint_with_and_without_its_parents(tiny_study):
    study = tiny_study()
    for strategy in "cb":
        alone = run.strategy_fingerprint(study, strategy, "paper", 0)
        assert train_strategy(study, strategy, "paper", 0).fingerprint == alone


def test_embeddings_are_kept_until_the_weights_or_the_code_change(tiny_study, monkeypatch):
    study = tiny_study()
    first = train_and_embed(study, "a", "paper", 0)[0]
    with monkeypatch.context() as patch:
        patch.setattr("lgffem_core.retrieval.embed.embed_table", lambda *a: pytest.fail("embedded again"))
        assert (train_and_embed(study, "a", "paper", 0)[0] == first).all()
        by = Study.computed_by
        patch.setattr(Study, "computed_by", lambda self, name: {} if name.endswith("embed") else by(self, name))
        with pytest.raises(pytest.fail.Exception, match="embedded again"):
            train_and_embed(study, "a", "paper", 0)
    other = train_and_embed(tiny_study(training__a__epochs=1), "a", "paper", 0)[0]
    assert (other != first).any()


def test_the_command_trains_and_says_where(tiny_study, tmp_path, monkeypatch, capsys):
    study = tiny_study()
    monkeypatch.setattr("lgffem_core.run.stages.Study.load", lambda *a: study)
    assert main(["params/smoke.yaml", "--strategy", "a"]) == 0
    assert str(weights(study, "a")) in capsys.readouterr().out


def test_a_last_batch_is_refused_before_the_strategies_that_it_starts_from_are_trained(tiny_study):
    study = tiny_study()
    count = len(run.training_set(study, "pannuke"))
    bad = {"training__batch_size": count - 1, "training__b__drop_last": False, "model__toggles__head_norm": True}
    study = tiny_study(**bad)
    with pytest.raises(RequestError, match=r"^training\.b: the last batch of an epoch has 1 of"):
        train_strategy(study, "b", "paper", 0)
    assert not weights(study, "a").exists()


def test_the_command_and_a_run_of_the_same_profile_exclude_each_other(tiny_study, monkeypatch, capsys):
    study = tiny_study()
    monkeypatch.setattr("lgffem_core.run.stages.Study.load", lambda *a: study)
    command = ["params/smoke.yaml", "--strategy", "a"]
    with sole_run(study):
        assert main(command) == 2
    assert "another run of profile" in capsys.readouterr().err

    def refused(*_):
        with sole_run(study):
            pytest.fail("two at once")

    monkeypatch.setattr("lgffem_core.systems.lgffem.__main__.train_strategy", refused)
    assert main(command) == 2
    monkeypatch.setenv("RANK", "1")  # the first of torchrun's processes holds it for all
    with pytest.raises(pytest.fail.Exception, match="two at once"):
        main(command)


def test_settings_of_other_programs_do_not_reach_the_command(tiny_study, monkeypatch):
    """Lightning Fabric would take its precision from there."""
    study, seen = tiny_study(), []

    def look(*_):
        seen.append(run.make_fabric(study)._precision.precision)
        return SimpleNamespace(weights="")

    monkeypatch.setattr("lgffem_core.run.stages.Study.load", lambda *a: study)
    monkeypatch.setattr("lgffem_core.systems.lgffem.__main__.train_strategy", look)
    monkeypatch.setenv("LT_PRECISION", "bf16-mixed")
    look()
    assert main(["params/smoke.yaml", "--strategy", "a"]) == 0 and seen == ["bf16-mixed", "32-true"]


def test_too_little_shared_memory_is_a_sentence_with_a_remedy(tiny_study, monkeypatch, capsys):
    """Of the worker process, in which it happens, too. What torch says there was read on a machine with 16 MiB."""
    study = tiny_study(**{"compute.workers": 1})

    def full(samples):
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2>: No space left on device (28)")

    monkeypatch.setattr("lgffem_core.data.loading.default_collate", full)
    monkeypatch.setattr("lgffem_core.run.stages.Study.load", lambda *a: study)
    assert main(["params/smoke.yaml", "--strategy", "a"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: /dev/shm is too small") and "compute.workers=0" in error and error.count("\n") == 1


def test_the_command_refuses_a_typo(capsys):
    assert main(["params/smoke.yaml", "--strategy", "a", "--set", "training.a.epoch=1"]) == 2
    assert "training.a.epochs" in capsys.readouterr().err


def test_the_loaded_model_is_the_trained_one(tiny_study):
    study = tiny_study()
    model = train_or_load(study, "a", "paper", 0)
    assert not model.training
    assert all(torch.equal(v, load_file(weights(study, "a"))[k]) for k, v in model.trainable_state().items())
