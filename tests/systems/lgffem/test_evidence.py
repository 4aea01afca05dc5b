"""What a released checkpoint settles, on files that are built as the authors' scripts save them."""

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from lgffem_core.base.errors import RequestError
from lgffem_core.systems.lgffem.contents import STATES, Checkpoint
from lgffem_core.systems.lgffem.evidence import READINGS, reading


@pytest.fixture
def of(tmp_path, released_file):
    """What a file supports for a row: of(row, settings of ``released_file``)."""

    def supports(row, **settings):
        return reading(Checkpoint.read(released_file(tmp_path / "c.pth", **settings)), row)

    return supports


def test_a_file_of_theirs_is_read_although_its_loss_is_a_number_of_numpy(tmp_path, released_file):
    read = Checkpoint.read(released_file(tmp_path / "c.pth"))
    assert (read.epoch, float(read.best_loss), read.strategy, read.centres) == (2, 1.5, "c", (16, 144))
    assert (
        read.classes == {24: 6} and read.group()["weight_decay"] == 1e-5 and read.group("loss_optimizer")["lr"] == 1e-4
    )


@pytest.mark.parametrize(
    ("head", "supported"),
    [
        ({"h1.bn.running_mean": torch.zeros(4)}, "code"),
        ({"h1.fc.weight": torch.zeros(4, 4)}, "text"),
        ({"h1.gem.p": torch.tensor([3.0])}, "text"),
        ({"classifier.weight": torch.zeros(4, 4)}, "open"),
        ({}, "open"),
    ],
)
def test_batch_norm_in_the_head(of, head, supported):
    assert of(4, model_head_state_dict=head)[0] == supported


def test_fusion_weights_agree_unless_one_is_negative(of):
    assert of(5) == ("both", "none of 4 weights is negative")
    changed = {"neck_layer_1.p1_2_weight": torch.tensor([-0.25, 2.0])}
    supported, why = of(5, model_neck_state_dict=changed)
    assert supported == "open" and "1 of 2 weights below 0, the least -0.25" in why


@pytest.mark.parametrize(("classes", "epoch", "supported"), [(24, 300, "both"), (24, 499, "code"), (1000, 61, "code")])
def test_epochs(of, classes, epoch, supported):
    assert of(6, classes=classes, epoch=epoch)[0] == supported


def test_the_schedule_with_its_rates(of):
    supported, why = of(7)
    assert supported == "code" and "T_0 = 3, 0.01 to 0.0001, the text has 0.005 to 8e-05" in why
    assert of(7, schedule=CosineAnnealingLR)[0] == "text"
    assert of(7, schedule=None) == ("open", "no schedule: a rate of 0.01 throughout")
    assert of(7, optimizer_state_dict=None)[0] == "open"


@pytest.mark.parametrize(
    ("steps", "fold", "batch"),
    [
        (166, "code", "code"),  # 2,656 tiles of fold 1 in batches of 16
        (494, "text", "code"),  # 7,901 tiles in batches of 16, the last one kept
        (41, "code", "text"),  # fold 1 in batches of 64
        (123, "text", "text"),
        (100, "open", "open"),
    ],
)
def test_steps_an_epoch_tell_folds_and_batches(of, steps, fold, batch):
    assert of(11, classes=19, epoch=1, steps=steps)[0] == fold
    assert of(19, classes=19, epoch=1, steps=steps)[0] == batch


def test_an_optimiser_that_was_begun_anew_tells_nothing(of):
    supported, why = of(19, classes=19, epoch=3, steps=166)
    assert supported == "open" and "55.3333 steps an epoch" in why and "begun anew" in why


def test_centres_of_several_data_sets_count_for_the_usual_number_of_each_class(tmp_path, released_file):
    """6,000 centres are 1,000 classes with 6 each, and would be 24 with 250."""
    read = Checkpoint.read(released_file(tmp_path / "c.pth", classes=1000))
    assert read.classes == {1000: 6, 24: 250} and read.strategy == "a"
    unusual = {"W": torch.zeros(16, 6000 * 24)}
    assert Checkpoint.read(released_file(tmp_path / "c.pth", loss_state_dict=unusual)).strategy is None


def test_amsgrad_is_about_strategy_c(of):
    assert [of(20, amsgrad=on)[0] for on in (True, False)] == ["code", "text"]
    assert of(20, classes=19, amsgrad=False)[0] == "open"


def test_what_no_checkpoint_tells_stays_open(of):
    assert [of(row)[0] for row in (1, 2, 3, 8, 9, 12, 16)] == ["open"] * 7
    assert "1x2x1x1" in of(3)[1] and "1.5" in of(2)[1]


def test_a_file_without_states_leaves_open_what_they_would_tell(of):
    changes = {name: None for name in (*STATES, "best_loss", "epoch")}
    assert {row: of(row, **changes)[0] for row in READINGS} == {
        row: {4: "code", 5: "both"}.get(row, "open") for row in READINGS
    }


def test_other_losses_and_optimisers_are_no_error(of):
    weight = torch.nn.Linear(2, 2)
    plain = torch.optim.SGD(weight.parameters(), lr=0.1, momentum=0.9).state_dict()
    proxies = {"proxies": torch.zeros(1000, 16)}  # of train_in1k_proxy.py
    assert of(7, optimizer_state_dict=plain, loss_state_dict=proxies)[0] == "code"
    assert of(19, optimizer_state_dict=plain, loss_state_dict=proxies)[0] == "open"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer_state_dict": [1]}, "its optimizer_state_dict is a list"),
        ({"epoch": "ten"}, "its epoch is a str"),
        ({"model_head_state_dict": {"h1.fc.weight": 3}}, "no weights under model_head_state_dict"),
        ({"model_neck_state_dict": {"neck_layer_0.p1_2_weight": torch.tensor([torch.nan])}}, "p1_2_weight holds"),
    ],
)
def test_a_part_of_another_kind_is_named(of, changes, words):
    with pytest.raises(RequestError, match=words):
        of(1, **changes)
