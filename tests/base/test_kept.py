"""What is kept is computed once for what it is made from, and again where that or the file changed."""

import pytest
import torch
from safetensors import safe_open

from lgffem_core.base.errors import StudyError
from lgffem_core.base.kept import kept


class Compute:
    """A computation that counts its calls, and gives its count."""

    calls = 0

    def __call__(self):
        self.calls += 1
        return {"x": torch.full((2, 3), self.calls, dtype=torch.float32)}, {"note": "é", "calls": self.calls}


def test_the_first_call_computes_and_a_later_one_reads_the_same(tmp_path):
    compute, path = Compute(), tmp_path / "new" / "kept.safetensors"
    first, second = kept(path, "this", compute), kept(path, "this", compute)
    assert compute.calls == 1
    assert first[1] == second[1] == {"note": "é", "calls": 1, "made_from": "this"}
    assert torch.equal(first[0]["x"], torch.ones(2, 3)) and torch.equal(first[0]["x"], second[0]["x"])
    with safe_open(path, "pt") as file:
        assert list(file.keys()) == ["x"]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_what_is_made_from_something_else_is_computed_again(tmp_path):
    compute, path = Compute(), tmp_path / "kept.safetensors"
    for made_from, calls in [("this", 1), ("that", 2), ("that", 2), ("this", 3)]:
        tensors, header = kept(path, made_from, compute)
        assert (header["made_from"], header["calls"], tensors["x"][0, 0].item()) == (made_from, calls, calls)


@pytest.mark.parametrize("damage", [b"", b"no tensors", None], ids=["empty", "other", "cut"])
def test_a_damaged_file_is_named_and_computed_again(tmp_path, capsys, damage):
    compute, path = Compute(), tmp_path / "kept.safetensors"
    kept(path, "this", compute)
    path.write_bytes(path.read_bytes()[:-1] if damage is None else damage)
    assert kept(path, "this", compute)[1]["calls"] == 2
    said = capsys.readouterr().out
    assert said.startswith(f"{path}: is damaged") and said.endswith("Making it again.\n")


def test_a_computation_that_fails_leaves_the_file_that_was_there(tmp_path):
    path = tmp_path / "kept.safetensors"
    kept(path, "this", Compute())
    before = path.read_bytes()

    def fails():
        raise StudyError("no images")

    with pytest.raises(StudyError, match="no images"):
        kept(path, "that", fails)
    assert path.read_bytes() == before


def test_a_computation_does_not_name_what_it_was_made_from(tmp_path):
    """The header's ``made_from`` is the caller's, whatever the computation puts there."""
    path = tmp_path / "kept.safetensors"
    assert kept(path, "this", lambda: ({}, {"made_from": "other"}))[1] == {"made_from": "this"}
