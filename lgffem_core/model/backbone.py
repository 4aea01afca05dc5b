"""The frozen backbone: any timm model whose feature maps include strides 4, 8, 16 and 32."""

import difflib
from pathlib import Path

import timm
import torch
from timm.models import load_state_dict
from torch import Tensor, nn

from lgffem_core.errors import RequestError, StudyError
from lgffem_core.parameter_files import one_line
from lgffem_core.params import Backbone as BackboneParams

STRIDES = (4, 8, 16, 32)
#: Options of timm.create_model that the study sets itself, or that would read another file of weights.
OWN_OPTIONS = ("pretrained", "features_only", "out_indices", "in_chans", "checkpoint_path")


class Backbone(nn.Module):
    """Four feature maps of a frozen network, always in eval mode (paper, section 4.1.2).

    Args:
        params: name, options and where the weights come from.
        weights: resolved path of a local weights file in timm's naming, or None.

    Attributes:
        channels: channels of the four stages, e.g. [128, 256, 512, 1024] for ConvNeXt V2 base.
        mean, std: input statistics for images in [0, 1].

    Raises ``RequestError`` where name, options or weights do not fit; ``StudyError`` where weights
    should come from the hub and cannot.
    """

    def __init__(self, params: BackboneParams, weights: Path | None = None):
        super().__init__()
        from_hub = params.pretrained and weights is None
        self.features = create_features(params, from_hub)
        if weights is not None:
            load_local_weights(self.features, weights)
        self.channels = list(self.features.feature_info.channels())
        configuration = getattr(self.features, "pretrained_cfg", None) or {}
        self.mean = tuple(params.mean or configuration.get("mean") or (0.485, 0.456, 0.406))
        self.std = tuple(params.std or configuration.get("std") or (0.229, 0.224, 0.225))
        if min(self.std) <= 0:
            raise RequestError(f"model.backbone.std: must be positive in every channel, got {self.std}.")
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in eval mode: a frozen backbone must not move its running statistics or drop paths."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:  # (N, 3, S, S) -> 4 × (N, Cᵢ, S/stride, S/stride)
        return self.features(images)


def create_features(params: BackboneParams, from_hub: bool) -> nn.Module:
    """timm's feature extractor at strides 4, 8, 16 and 32, with weights from the hub or random ones."""
    check_name(params.name)
    own = next((option for option in OWN_OPTIONS if option in params.options), None)
    if own:
        raise RequestError(f"model.backbone.options: {own} is set by the study itself; leave it out.")
    try:
        reductions = timm.create_model(
            params.name, pretrained=False, features_only=True, **params.options
        ).feature_info.reduction()
    except Exception as error:  # each network has ways of its own to fail on an option
        reason = one_line(str(error)) or type(error).__name__
        raise RequestError(f"model.backbone: timm cannot build {params.name} ({reason}).") from None
    if not set(STRIDES) <= set(reductions):
        raise RequestError(
            f"model.backbone.name: {params.name} has strides {reductions}; the neck needs 4, 8, 16 and 32."
        )
    stages = tuple(reductions.index(stride) for stride in STRIDES)
    return create_model(params.name, from_hub, features_only=True, out_indices=stages, **params.options)


def check_name(name: str, key: str = "model.backbone.name") -> None:
    """Raise ``RequestError`` with timm's nearest names where timm has no model ``name``, given as ``key``."""
    if not timm.is_model(name):
        close = difflib.get_close_matches(name.split(".")[0], timm.list_models(), n=3)
        hint = f"; similar ones are {', '.join(close)}" if close else ""
        raise RequestError(f"{key}: timm has no model {name!r}{hint}.")


def create_model(name: str, from_hub: bool, key: str = "model.backbone", **options) -> nn.Module:
    """timm's model, with downloaded weights or random ones; ``StudyError`` where they cannot be had.

    ``key`` is the section of the parameters that asks for it, for messages.
    """
    try:
        return timm.create_model(name, pretrained=from_hub, **options)
    except Exception as error:  # the hub client raises its own, changing, exception types
        raise StudyError(
            f"the weights of {name} cannot be downloaded ({type(error).__name__}); connect this machine, "
            f"or give a local file with --set {key}.weights=FILE."
        ) from error


def load_local_weights(network: nn.Module, path: Path, key: str = "model.backbone") -> None:
    """Fill a network from a .safetensors or .pth file in timm's naming.

    timm joins nested names with "_" in a feature extractor ("blocks.0" becomes "blocks_0"), so names are
    compared with every "." replaced. Each weight of the network must be in the file, in its shape; what the
    file has beside them (a classifier) is left out.

    Args:
        key: section of the parameters that names the file, for messages.
    """
    if not path.is_file():
        raise RequestError(f"{key}.weights: {path} is not a file.")
    try:
        stored = load_state_dict(str(path), weights_only=True)
    except Exception as error:  # safetensors, pickle and zip each have exceptions of their own
        raise RequestError(
            f"{key}.weights: {path} cannot be read as weights ({type(error).__name__}); get it again, as .safetensors "
            "or .pth."
        ) from error
    by_name = {name.replace(".", "_"): tensor for name, tensor in stored.items() if isinstance(tensor, Tensor)}
    state = network.state_dict()
    for name, tensor in state.items():
        found = by_name.get(name.replace(".", "_"))
        if found is None and name.endswith("num_batches_tracked"):
            continue  # a counter that BatchNorm with a fixed momentum does not read, and that some files leave out
        if found is None or found.shape != tensor.shape:
            what = "is missing" if found is None else f"has shape {tuple(found.shape)}"
            raise RequestError(
                f"{key}.weights: in {path.name}, {name} {what}; these are not the weights of this "
                f"{key.rpartition('.')[2]}."
            )
        state[name] = found.to(torch.float32) if found.is_floating_point() else found
    network.load_state_dict(state)
