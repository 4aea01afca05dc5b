"""Released checkpoints that do not fit are refused in one sentence; the golden ones are in test_golden."""

import pytest
import torch

from lgffem_core.errors import RequestError
from lgffem_core.model.head import GeMHead
from lgffem_core.model.lgffem import LGFFEM
from lgffem_core.model.neck import Neck
from lgffem_core.model.released import convert_released, load_released


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


@pytest.mark.parametrize("content", [{"weights": 1}, [1, 2], Trap()])
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
