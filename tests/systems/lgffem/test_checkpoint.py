"""The command that reads one released checkpoint: what it prints, and what it refuses."""

import pathlib

import pytest
import torch

from lgffem_core.run.cli import main
from lgffem_core.systems.lgffem.checkpoint import format_checkpoint
from lgffem_core.systems.lgffem.ledger import read_ledger


class Trap:
    """Unpickling this would run code."""

    def __reduce__(self):
        return (print, ("executed",))


def test_contents_and_a_line_for_each_row(tmp_path, capsys, released_file):
    path = released_file(tmp_path / "epoch2.pth", classes=19, epoch=1, steps=166)
    assert main(["checkpoint", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(path) and lines[1] == "  epoch 1, best loss 1.5"
    assert lines[2] == "  neck: 2 layers; head: 4 channels, GeM p 4.50"
    assert lines[3].endswith("earlier strategies included: 7")
    assert lines[4] == "  loss: 114 centres of length 16: 19 classes (strategy B), 6 centres each"
    assert "betas 0.9 and 0.999, weight_decay 1e-05, amsgrad False" in lines[5]
    assert (
        lines[7]
        == "  schedule: cosine with warm restarts, T_0 3, T_mult 1, base_lrs 0.01, eta_min 0.0001, last_epoch 0"
    )
    rows = [line.split()[0] for line in lines[lines.index("") + 2 :]]
    assert rows == [str(row.row) for row in read_ledger()]


def test_a_file_may_be_of_several_data_sets(tmp_path, released_file):
    several = {"W": torch.zeros(16, 6000 * 24)}
    text = format_checkpoint(released_file(tmp_path / "c.pth", loss_state_dict=several))
    assert "1000 classes (strategy A), 144 centres each or 24 classes (strategy C), 6000 centres each" in text


def test_one_is_no_plural_and_what_is_not_there_is_unknown(tmp_path, released_file):
    parts = {"model_neck_state_dict": {"neck_layer_0.p1_2_weight": torch.tensor([0.5, 1.0])}}
    parts |= {"model_head_state_dict": {"other.weight": torch.zeros(4)}, "loss_state_dict": {"W": torch.zeros(16, 24)}}
    text = format_checkpoint(released_file(tmp_path / "c.pth", **parts))
    assert "  neck: 1 layer; head: unknown channels, GeM p unknown\n" in text
    assert "24 classes (strategy C), 1 centre each\n" in text and "open  the head was not recognised" in text


def test_a_text_of_the_file_does_not_steer_the_terminal(tmp_path, released_file):
    parts = {"scheduler_state_dict": {"T_0": 3, "eta_min": "\x1b[2J\n 19  batch size  text"}}
    text = format_checkpoint(released_file(tmp_path / "c.pth", **parts))
    assert "\x1b" not in text and "\n 19  batch size  text" not in text


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def overwrite(content):
    return lambda path: path.write_bytes(content)


def beside(**parts):
    return lambda path: torch.save(torch.load(path, weights_only=False) | parts, path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, "not an ffnir checkpoint, or a damaged one"),
        (overwrite(b""), "not an ffnir checkpoint, or a damaged one"),
        (overwrite(b"no checkpoint at all"), "not an ffnir checkpoint"),
        (lambda path: torch.save({"weights": torch.zeros(1)}, path), "no weights under model_neck_state_dict"),
        (lambda path: torch.save([1, 2], path), "no weights under model_neck_state_dict"),
        (beside(extra=pathlib.PurePosixPath("a")), "objects of another kind (pathlib"),
        (beside(extra=Trap()), "objects of another kind (builtins.print); nothing of it was executed"),
        (beside(optimizer_state_dict={"state": {0: 3}, "param_groups": []}), "another form"),
        (beside(scheduler_state_dict={"T_0": torch.ones(2)}), "another form"),
        (lambda path: path.unlink(), "no such released checkpoint"),
        (lambda path: (path.unlink(), path.mkdir()), "not an ffnir checkpoint"),
    ],
)
def test_what_is_none_of_theirs_is_refused_in_one_sentence(tmp_path, capsys, released_file, damage, words):
    path = released_file(tmp_path / "c.pth")
    damage(path)
    assert main(["checkpoint", str(path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith(f"error: {path}: ") and words in printed.err
    assert printed.err.count("\n") == 1 and printed.err.endswith(".\n")
