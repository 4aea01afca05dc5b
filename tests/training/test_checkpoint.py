"""Checkpoints: round trip, retention, checksum, damage, and optimisers put back whole."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lgffem_core.base.errors import StudyError
from lgffem_core.base.tensors import checksum, load_tensors, read_header, save_tensors
from lgffem_core.training.checkpoint import (
    Checkpoint,
    checkpoint_files,
    flatten_optimizer,
    layout_of,
    load_checkpoint,
    newest_checkpoint,
    optimizer_layout,
    restore_optimizer,
    save_checkpoint,
)

HEADER = {"step": 0, "fingerprint": "f", "history": [], "losses": []}
HEADER |= {"precision": {}, "arithmetic": "", "untouched": False}


def a_checkpoint(step, fingerprint="f"):
    return Checkpoint(
        step,
        fingerprint,
        [{"epoch": 1, "loss": 0.1 + 0.2, "lr": 5e-3}],
        {"model/w": torch.full((3,), step / 3)},
    )


def test_round_trip_is_exact(tmp_path):
    loaded = load_checkpoint(save_checkpoint(tmp_path, a_checkpoint(7)))
    assert (loaded.step, loaded.fingerprint) == (7, "f")
    assert loaded.history == [{"epoch": 1, "loss": 0.1 + 0.2, "lr": 5e-3}]
    assert torch.equal(loaded.tensors["model/w"], torch.full((3,), 7 / 3))


def test_the_last_two_are_kept(tmp_path):
    for step in (5, 10, 15, 20):
        save_checkpoint(tmp_path, a_checkpoint(step))
    assert [load_checkpoint(path).step for path in checkpoint_files(tmp_path)] == [20, 15]


def test_another_run_s_checkpoint_is_not_used_and_it_is_said(tmp_path, capsys):
    save_checkpoint(tmp_path, a_checkpoint(5, "other"))
    assert newest_checkpoint(tmp_path, "f") is None
    assert "other parameters" in capsys.readouterr().out


def test_a_foreign_file_is_an_error_that_names_it(tmp_path):
    (tmp_path / "step_1.safetensors").write_text("not weights")
    with pytest.raises(StudyError, match="step_1.safetensors"):
        load_checkpoint(tmp_path / "step_1.safetensors")


def steps(model, optimizer, n):
    for i in range(n):
        optimizer.zero_grad()
        model(torch.full((2, 3), float(i))).square().sum().backward()
        optimizer.step()


def test_a_restored_optimizer_goes_on_as_if_nothing_had_happened():
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, amsgrad=True)
    steps(model, optimizer, 3)
    twin = torch.nn.Linear(3, 2)
    twin.load_state_dict(model.state_dict())
    other = torch.optim.AdamW(twin.parameters(), lr=0.1, amsgrad=True)
    restore_optimizer("o", other, {k: v.clone() for k, v in flatten_optimizer("o", optimizer).items()})
    for m, o in ((model, optimizer), (twin, other)):
        steps(m, o, 3)
    assert torch.equal(model.weight, twin.weight) and torch.equal(model.bias, twin.bias)


def test_moments_are_put_back_in_the_order_in_which_their_weights_lie():
    """A file has one order alone; a fused step would take a moment for its neighbour's, without a word."""
    convolutions = [torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last) for _ in range(2)]
    convolutions[1].load_state_dict(convolutions[0].state_dict())
    ours, plain = (
        torch.optim.Adam(each.parameters(), lr=0.1, fused=fused)
        for each, fused in zip(convolutions, (True, False), strict=True)
    )
    for step in range(4):
        if step == 2:
            file = {k: v.contiguous().clone() for k, v in flatten_optimizer("o", ours).items()}
            restore_optimizer("o", ours, file)
        images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        for convolution, optimizer in zip(convolutions, (ours, plain), strict=True):
            optimizer.zero_grad()
            convolution(images).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(convolutions[0].weight, convolutions[1].weight, rtol=1e-4, atol=1e-5)


OPTIMIZERS = {
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.1, weight_decay=1e-5),
    "amsgrad": lambda parameters: torch.optim.AdamW(parameters, lr=0.1, amsgrad=True),
    "sgd with momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_the_layout_of_an_optimizer_is_what_it_has_after_a_step(make):
    model = torch.nn.Linear(3, 2)
    optimizer = make(model.parameters())
    expected = optimizer_layout("o", optimizer)
    assert flatten_optimizer("o", optimizer) == {}  # asking has not moved it
    steps(model, optimizer, 1)
    assert layout_of(flatten_optimizer("o", optimizer)) == expected


# -- the checksum ------------------------------------------------------------------------------------------

ODD = {
    "scalar": torch.tensor(3.0),
    "bf16": torch.tensor([[1.5, -0.0]], dtype=torch.bfloat16),
    "bool": torch.tensor([True, False]),
    "empty": torch.zeros(0, 4),
    "strided": torch.arange(6.0).reshape(2, 3).T,
    "nan": torch.tensor([float("nan"), float("inf")]),
    "count": torch.tensor(7),
}


def same(left, right):
    """Equal to the bit, NaN included."""
    return left.keys() == right.keys() and checksum(left, {}) == checksum(right, {})


def test_every_type_and_shape_comes_back_to_the_bit(tmp_path):
    save_tensors(tmp_path / "a.safetensors", ODD, {"µ": [0.1, None]})
    tensors, header = load_tensors(tmp_path / "a.safetensors")
    assert header == {"µ": [0.1, None]} and same(tensors, {k: v.contiguous() for k, v in ODD.items()})
    assert (tensors["scalar"].shape, tensors["empty"].shape, tensors["strided"].shape) == ((), (0, 4), (3, 2))


def test_the_same_state_gives_the_same_bytes(tmp_path):
    """One key of metadata: safetensors writes several in an order that varies from process to process."""
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    tensors = {name: torch.full((2,), i) for i, name in enumerate("abc")}
    save_tensors(one, tensors, {"x": 1, "y": 2})
    save_tensors(other, dict(reversed(tensors.items())), {"y": 2, "x": 1})
    assert one.read_bytes() == other.read_bytes()
    with safe_open(one, "pt") as file:
        assert len(file.metadata()) == 1


def test_no_flipped_bit_goes_unnoticed(tmp_path):
    """Whichever byte is changed, the file is refused by name, or what it says is still the same."""
    path, tensors, header = tmp_path / "a.safetensors", {"w": torch.arange(3.0), "n": torch.tensor(1)}, {"step": 1}
    save_tensors(path, tensors, header)
    whole, refused = path.read_bytes(), 0
    for position in range(len(whole)):
        for flip in (0x01, 0x20, 0x80):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ flip]) + whole[position + 1 :])
            try:
                found, said = load_tensors(path)
            except StudyError as error:
                assert "a.safetensors: is damaged" in str(error)
                refused += 1
            else:
                assert said == header and same(found, tensors)
    assert refused > 0.97 * 3 * len(whole)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, header: tensors.pop("n"),
        lambda tensors, header: tensors.update(w=torch.tensor([0.0, 1.0, 3.0])),
        lambda tensors, header: tensors.update(w=tensors["w"].reshape(3, 1)),
        lambda tensors, header: tensors.update(w=tensors["w"].view(torch.int32)),
        lambda tensors, header: tensors.update(v=tensors.pop("w")),
        lambda tensors, header: header.update(step=2),
    ],
)
def test_the_checksum_covers_names_types_shapes_bytes_and_header(change):
    tensors, header = {"w": torch.arange(3.0), "n": torch.tensor(1)}, {"step": 1}
    before = checksum(tensors, header)
    change(tensors, header)
    assert checksum(tensors, header) != before


# -- damage ------------------------------------------------------------------------------------------------


def shorten(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path, position):
    contents = bytearray(path.read_bytes())
    contents[position] ^= 0x10
    path.write_bytes(contents)


def make_folder(path):
    path.unlink()
    path.mkdir()


DAMAGE = {
    "cut short": shorten,
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "flipped in the header": lambda path: flip(path, 40),
    "flipped in the data": lambda path: flip(path, -1),
    "empty": lambda path: path.write_bytes(b""),
    "a folder": make_folder,
    "no checksum": lambda path: save_file({"w": torch.zeros(2)}, path, {"header": "{}"}),
    "no checkpoint": lambda path: save_tensors(path, {"w": torch.zeros(2)}, {"fingerprint": "f"}),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_newest_is_named_and_the_one_before_is_used(tmp_path, capsys, damage):
    save_checkpoint(tmp_path, a_checkpoint(5))
    damaged = save_checkpoint(tmp_path, a_checkpoint(10))
    damage(damaged)
    assert newest_checkpoint(tmp_path, "f").step == 5
    assert str(damaged) in capsys.readouterr().out


def test_after_damage_the_valid_ones_are_kept(tmp_path):
    for step in (5, 10):
        save_checkpoint(tmp_path, a_checkpoint(step))
    shorten(tmp_path / "step_000000010.safetensors")
    save_checkpoint(tmp_path, a_checkpoint(6))
    assert [load_checkpoint(path).step for path in checkpoint_files(tmp_path)] == [6, 5]


def test_another_run_s_later_checkpoints_do_not_outlive_this_run_s(tmp_path, capsys):
    for step in (20, 30):
        save_checkpoint(tmp_path, a_checkpoint(step, "other"))
    save_tensors(tmp_path / "step_000000003.safetensors", {}, {**HEADER, "step": 3})  # killed before it tidied up
    assert newest_checkpoint(tmp_path, "f").step == 3
    save_checkpoint(tmp_path, a_checkpoint(6))
    assert [load_checkpoint(path).step for path in checkpoint_files(tmp_path)] == [6, 3]


def test_the_header_alone_of_a_whole_a_missing_and_a_damaged_file(tmp_path, capsys):
    path = tmp_path / "embeddings.safetensors"
    assert read_header(path) is None and capsys.readouterr().out == ""
    save_tensors(path, {"w": torch.zeros(2)}, {"made_from": "x"})
    assert read_header(path) == {"made_from": "x"}
    flip(path, -1)
    assert read_header(path) is None
    said = capsys.readouterr().out
    assert said.startswith(f"{path}: is damaged") and said.endswith("does not fit its contents). Making it again.\n")
    with pytest.raises(StudyError, match=r"Delete it: the same command makes it again\.$"):
        load_tensors(path)
