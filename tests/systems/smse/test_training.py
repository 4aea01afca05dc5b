"""SMSE's trainings: as many steps for each, the same bits after a stop, and what makes one another."""

import numpy as np
import pytest
import torch

from lgffem_core.base.errors import RequestError
from lgffem_core.base.files import read_json, sha256_file
from lgffem_core.base.tensors import load_tensors
from lgffem_core.data import patch_table
from lgffem_core.systems.smse import training
from lgffem_core.systems.smse.losses import class_weights, own_log_probability, pair_loss, triplet_loss
from lgffem_core.systems.smse.runs import Run, runs
from lgffem_core.systems.smse.splits import training_rows
from lgffem_core.systems.smse.training import (
    JointLoss,
    fingerprint,
    folder_of,
    recipe,
    step,
    train,
    train_all,
    trained,
)
from lgffem_core.training import loop

EVERY = (40, 100, 200, 400)
RUN = Run("triplet", "reinforced_focal", EVERY)


def test_runs_on_fewer_images_take_as_many_steps_at_the_same_rates(smse):
    study = smse(smse__epochs=8, smse__step_epochs=2)
    few, many = (recipe(study, RUN, images, 120) for images in (30, 120))
    assert (few.epochs, many.epochs) == (32, 8)
    rates = [
        [plan.rate(step, images // 6) for step in range(plan.epochs * images // 6)]
        for plan, images in ((few, 30), (many, 120))
    ]
    assert rates[0] == rates[1]
    assert sorted(set(np.round(np.log10(rates[0])).astype(int).tolist())) == [-6, -5, -4, -3]


def test_trainings_that_differ_have_names_of_their_own(smse, capsys):
    """In lines of progress and in errors: three have the same losses and other magnifications."""
    study = smse()
    titles = [recipe(study, run, 30, 120).title for run in runs(study).values()]
    assert len(set(titles)) == len(titles) and titles[0] == "SMSE, pair + RFL, trained on all"
    assert {title.rpartition(" on ")[2] for title in titles if title.startswith("SMSE, pair + RFL")} == {
        "all", f"{study.params.smse.single}×", f"all but {study.params.smse.held_out}×",
    }  # fmt: skip
    train(study, RUN, 1, 0)
    assert "SMSE, triplet + RFL, trained on all, fold 1  epoch" in capsys.readouterr().out


# -- one step ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["triplet", "pair", "none"])
def test_the_loss_is_metric_loss_plus_classification_of_the_anchor(smse, kind):
    study = smse(smse__metric_weight=0.5)
    count = {"triplet": 3, "pair": 2, "none": 1}[kind]
    images = torch.rand(5, count, 3, 16, 24)
    labels = torch.tensor([[0, 0, 1], [1, 1, 0], [0, 0, 1], [1, 1, 0], [1, 1, 0]])[:, :count]
    model, classifier = training.networks(study, 0)
    loss = JointLoss(study, Run(kind, "reinforced_focal", EVERY), torch.tensor([0, 1, 1]))
    ours = step((images, labels, None), model, classifier, loss)
    parts = [model(images[:, place]) for place in range(count)]
    metric = {
        "triplet": lambda: triplet_loss(*parts, 1.0),
        "pair": lambda: pair_loss(*parts, labels[:, 0] == labels[:, 1], 1.0),
        "none": lambda: torch.zeros(()),
    }[kind]()
    p = own_log_probability(classifier(parts[0]), labels[:, 0]).exp()
    gamma = 1.5 if kind == "pair" else 1.2
    beta = class_weights(torch.tensor([0, 1, 1]), 2)[labels[:, 0]]
    torch.testing.assert_close(ours, 0.5 * metric + (beta * 2 * (1 - p) ** gamma).mean())


# -- to the end, and again ---------------------------------------------------------------------------------


class KilledError(Exception):
    pass


def test_a_killed_training_goes_on_to_the_same_bits(smse, monkeypatch):
    run = Run("pair", "focal", (40, 200))
    whole = train(smse("whole", smse__epochs=2), run, 1, 0)
    stopped, saved, original = smse("stopped", smse__epochs=2), [], loop.save_checkpoint

    def killed_after(count):
        def save(folder, checkpoint):
            path = original(folder, checkpoint)
            saved.append(checkpoint.step)
            if len(saved) == count:
                raise KilledError
            return path

        return save

    for count in (1, 3):
        with monkeypatch.context() as patch:
            patch.setattr(loop, "save_checkpoint", killed_after(count))
            with pytest.raises(KilledError):
                train(stopped, run, 1, 0)
    done = train(stopped, run, 1, 0)
    assert saved[:3] == [2, 4, 6] or saved == sorted(saved)  # none of the steps was taken twice
    assert sha256_file(done.weights) == sha256_file(whole.weights)
    assert done.history.equals(whole.history)


def test_what_is_done_is_not_done_again_and_a_change_is(smse, monkeypatch):
    study = smse()
    first = train(study, RUN, 1, 0)
    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "fit", lambda *_: pytest.fail("trained again"))
        assert train(study, RUN, 1, 0).fingerprint == first.fingerprint
    rows = training_rows(study, RUN, 1)
    plan = recipe(study, RUN, len(rows), len(rows))
    known = fingerprint(study, RUN, rows, plan, 0)
    others = [
        fingerprint(smse(smse__margin=2.0), RUN, rows, plan, 0),
        fingerprint(study, RUN._replace(metric="pair"), rows, plan, 0),
        fingerprint(study, RUN, rows.iloc[1:], plan, 0),
        fingerprint(study, RUN, rows, plan, 1),
    ]
    assert known == first.fingerprint and len({known, *others}) == 5
    assert fingerprint(smse(smse__folds=[1, 2]), RUN, rows, plan, 0) == known


def test_the_trained_network_is_the_one_that_is_kept(smse):
    study = smse()
    state = load_tensors(train(study, RUN, 1, 0).weights)[0]
    model, classifier = trained(study, RUN, 1, 0)
    for part, module in (("model", model), ("classifier", classifier)):
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, state[f"{part}/{name}"])
    start = training.networks(study, 0)[0].state_dict()
    assert any(not torch.equal(start[name], tensor) for name, tensor in model.state_dict().items())


def test_damaged_weights_are_made_again_to_the_same_bits(smse, capsys):
    study = smse()
    weights = train(study, RUN, 1, 0).weights
    before = weights.read_bytes()
    weights.write_bytes(before[:-5])
    train(study, RUN, 1, 0)
    assert weights.read_bytes() == before and "is damaged" in capsys.readouterr().out


def test_all_runs_are_noted_with_their_hash(smse):
    study = smse()
    table = train_all(study, {"triplet": RUN}, 0)
    assert table["images"].tolist() == [len(training_rows(study, RUN, 1))]
    noted = read_json(study.artifacts / "smse" / "runs.json")
    weights = folder_of(study, RUN, 1, 0) / "model.safetensors"
    assert noted == {weights.relative_to(study.artifacts).as_posix(): sha256_file(weights)}


def test_a_changed_image_stops_the_training_by_name(smse, smse_data, tmp_path):
    import shutil

    root = tmp_path / "copy"
    shutil.copytree(smse_data, root)
    study = smse(data__breakhis__root=str(root))
    path = root / patch_table(study, "breakhis")["path"].iloc[0]
    other = root / patch_table(study, "breakhis")["path"].iloc[1]
    path.write_bytes(other.read_bytes())
    with pytest.raises(RequestError, match=f"1 file changed since the index was made, the first is {path}"):
        train(study, RUN, 1, 0)
