"""Released checkpoints that do not fit are refused in one sentence; the golden ones are in test_golden."""

import zipfile

import numpy as np
import pytest
import torch

from lgffem_core.base.errors import RequestError
from lgffem_core.systems.lgffem.head import GeMHead
from lgffem_core.systems.lgffem.model import LGFFEM
from lgffem_core.systems.lgffem.neck import Neck
from lgffem_core.systems.lgffem.released import convert_released, load_released, read_released


@pytest.fixture
def model():
    return LGFFEM(torch.nn.Identity(), Neck([4, 4, 4, 4], 4, 1, grn="width"), GeMHead(4, norm=True), normalize=False)


class Trap:
    """Unpickling this would run code."""

    def __reduce__(self):
        return (print, ("executed",))


def test_a_missing_file_is_named(model, tmp_path):
    with pytest.raises(RequestError, match="gone.pth: no such"):
        load_released(model, tmp_path / "gone.pth")


def parts(neck):
    return {"model_neck_state_dict": neck, "model_head_state_dict": {}}


@pytest.mark.parametrize(
    "content",
    [
        {"weights": 1},
        [1, 2],
        Trap(),
        parts({0: torch.zeros(1)}),
        parts({"a": torch.zeros(1).to_sparse()}),
        parts({"a": torch.zeros(1, device="meta")}),
    ],
)
def test_a_foreign_file_is_refused_and_runs_nothing(model, tmp_path, content, capsys):
    torch.save(content, tmp_path / "foreign.pth")
    with pytest.raises(RequestError, match="foreign.pth: not an ffnir checkpoint"):
        load_released(model, tmp_path / "foreign.pth")
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "key",
    [
        "neck_layer_0.p9_gca_p10.alpha",
        "neck_layer_0.p12_gca_p10.other.weight",
        "neck_layer_0.p1_down_channel.other.weight",
    ],
)
def test_an_unknown_neck_weight_is_named(key):
    with pytest.raises(RequestError, match=key.replace(".", r"\.")):
        convert_released({key: torch.zeros(1)}, {})


def test_an_unknown_head_weight_is_named():
    with pytest.raises(RequestError, match="h1.other.weight"):
        convert_released({}, {"h1.other.weight": torch.zeros(1)})


def test_a_missing_weight_is_named(model, tmp_path):
    torch.save({"model_neck_state_dict": {}, "model_head_state_dict": {}}, tmp_path / "empty.pth")
    with pytest.raises(RequestError, match=r"missing \['neck.lateral.0.0.weight'"):
        load_released(model, tmp_path / "empty.pth")


def test_another_size_is_refused(model, tmp_path):
    head = {"h1.gem.p": torch.zeros(3)}
    torch.save({"model_neck_state_dict": {}, "model_head_state_dict": head}, tmp_path / "wide.pth")
    with pytest.raises(RequestError, match="wide.pth: does not fit"):
        load_released(model, tmp_path / "wide.pth")


@pytest.mark.parametrize("module", ["numpy._core.multiarray", "numpy.core.multiarray"])
def test_numbers_of_numpy_beside_the_weights_are_read(tmp_path, module):
    """As the authors' scripts store ``best_loss``; NumPy before version 2 wrote the other name."""
    numbers = {"best_loss": np.float32(0.5), "mean": np.float64(0.25), "steps": np.int64(3)}
    content = {"model_neck_state_dict": {}, "model_head_state_dict": {}, **numbers}
    torch.save(content, tmp_path / "new.pth")
    with zipfile.ZipFile(tmp_path / "new.pth") as new, zipfile.ZipFile(tmp_path / "old.pth", "w") as old:
        for name in new.namelist():
            old.writestr(name, new.read(name).replace(b"numpy._core.multiarray", module.encode()))
    assert read_released(tmp_path / "old.pth") == content


def test_a_weight_that_is_no_finite_number_is_named(model, tmp_path):
    weights = {"h1.gem.p": torch.tensor([float("nan")])}
    torch.save({"model_neck_state_dict": {}, "model_head_state_dict": weights}, tmp_path / "nan.pth")
    with pytest.raises(RequestError, match="nan.pth: h1.gem.p holds values that are no finite numbers"):
        load_released(model, tmp_path / "nan.pth")
