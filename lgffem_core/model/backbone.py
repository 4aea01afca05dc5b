"""The frozen backbone: any timm model whose feature maps include strides 4, 8, 16 and 32."""

from contextlib import nullcontext
from pathlib import Path

import timm
import torch
from timm.layers import Conv2dSame
from timm.layers.grn import GlobalResponseNorm
from timm.layers.mlp import GlobalResponseNormMlp
from torch import Tensor, nn

from lgffem_core.base.errors import RequestError, StudyError, near, one_line
from lgffem_core.config.params import Backbone as BackboneParams
from lgffem_core.model.device import own_precision, without_autocast
from lgffem_core.model.features import FEATURES
from lgffem_core.model.folding import fold_norms
from lgffem_core.model.layers import EdgePaddedConv, FrozenMlp, ResponseNorm
from lgffem_core.model.packaged import PACKAGES, packaged_weights, under_timms_names
from lgffem_core.model.weight_files import fill, load_local_weights, read_weights

STRIDES = (4, 8, 16, 32)
#: Options of timm.create_model that the study sets itself, or that would read another file of weights.
OWN_OPTIONS = (
    "pretrained",
    "features_only",
    "out_indices",
    "in_chans",
    "checkpoint_path",
    "pretrained_strict",
    "feature_cls",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
)


class Backbone(nn.Module):
    """Four feature maps of a frozen network, always in eval mode (paper, section 4.1.2).

    Args:
        params: name, options and where the weights come from.
        weights: resolved path of a local weights file in timm's naming, or None.
        image_size: pixels a side of the images that it will see; some networks take one size alone.

    Attributes:
        channels_last: the network itself gives (N, H, W, C), as Swin does.
        channels: channels of the four stages, e.g. [128, 256, 512, 1024] for ConvNeXt V2 base.
        mean, std: input statistics for images in [0, 1].
        exact: computes in float32 whatever the rest does. With batch normalisation, rounding its weights alone moves
            an embedding's cosine below 0.999.

    Raises ``RequestError`` where name, options or weights do not fit; ``StudyError`` where weights
    should come from an installed package or the hub and cannot.
    """

    def __init__(self, params: BackboneParams, weights: Path | None = None, image_size: int = 224):
        super().__init__()
        self.features = create_features(params, params.pretrained and weights is None)
        if weights is not None:
            load_local_weights(self.features, weights)
        self.channels = list(self.features.feature_info.channels())
        configuration = getattr(self.features, "pretrained_cfg", None) or {}
        self.mean = tuple(params.mean or configuration.get("mean") or (0.485, 0.456, 0.406))
        self.std = tuple(params.std or configuration.get("std") or (0.229, 0.224, 0.225))
        if min(self.std) <= 0:
            raise RequestError(f"model.backbone.std: must be positive in every channel, got {self.std}.")
        self.requires_grad_(False).eval()
        self.exact = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.modules())
        self.channels_last = check_maps(params.name, self.features, image_size)
        quicken(self.features)
        if not next(self.parameters()).is_meta:  # which has no values
            fold_norms(self.features, image_size)

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in eval mode: a frozen backbone must not move its running statistics or drop paths."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:  # (N, 3, S, S) -> 4 × (N, Cᵢ, S/stride, S/stride)
        return FEATURES.of(self, images, lambda: self.maps(images))

    def maps(self, images: Tensor) -> list[Tensor]:
        """The same, computed."""
        weight = next(self.parameters())  # float32, or half precision where a run computes in it
        if self.exact:
            context = without_autocast(images)
        else:
            context = nullcontext() if weight.dtype == torch.float32 else own_precision(images)
        with context:
            maps = self.features(images.to(weight.dtype, memory_format=torch.channels_last))
        return [(each.permute(0, 3, 1, 2) if self.channels_last else each).to(images.dtype) for each in maps]


def quicken(features: nn.Module) -> None:
    """Let a frozen network compute the same in less time: channels last in memory, and layers of ``model.layers``."""
    features.to(memory_format=torch.channels_last)
    for module in features.modules():
        if type(module) is GlobalResponseNorm:
            module.__class__ = ResponseNorm  # of the same weights
        elif type(module) is Conv2dSame:
            module.__class__ = EdgePaddedConv
        elif type(module) is GlobalResponseNormMlp and isinstance(module.fc1, nn.Linear):
            module.__class__ = FrozenMlp


def create_features(params: BackboneParams, pretrained: bool) -> nn.Module:
    """timm's feature extractor at strides 4, 8, 16 and 32, with ImageNet weights or random ones."""
    check_name(params.name)
    own = next((option for option in OWN_OPTIONS if option in params.options), None)
    if own:
        raise RequestError(f"model.backbone.options: {own} is set by the study itself; leave it out.")
    try:
        described = timm.create_model(params.name, pretrained=False, features_only=True, **params.options).feature_info
    except Exception as error:  # each network has ways of its own to fail on an option
        reason = one_line(error) or type(error).__name__
        raise RequestError(f"model.backbone: timm cannot build {params.name} ({reason}).") from None
    reductions = described.reduction()
    if not set(STRIDES) <= set(reductions):
        raise RequestError(
            f"model.backbone.name: {params.name} has strides {reductions}; the neck needs 4, 8, 16 and 32."
        )
    stages = tuple(described.out_indices[reductions.index(stride)] for stride in STRIDES)
    return create_model(params.name, pretrained, features_only=True, out_indices=stages, **params.options)


def check_maps(name: str, features: nn.Module, size: int) -> bool:
    """True where the maps come as (N, H, W, C); ``RequestError`` where they are not those that timm describes.

    Looked at once, on one image of the size that the study uses: a network may take only its own size, give its
    channels last, or lose a border on the way down.
    """
    if size % STRIDES[-1]:
        raise RequestError(f"model.image_size is {size}; it must be a multiple of {STRIDES[-1]}.")
    try:
        with torch.no_grad():
            shapes = [tuple(each.shape) for each in features(torch.zeros(1, 3, size, size))]
    except Exception as error:  # each network has an exception of its own for a size it cannot take
        reason = one_line(error) or type(error).__name__
        raise RequestError(
            f"model.backbone.name: {name} takes no images of {size} px ({reason}); "
            f"set model.image_size to its own, or model.backbone.options={{img_size: {size}}} where it has that."
        ) from None
    sides = [
        (channels, size // stride) for channels, stride in zip(features.feature_info.channels(), STRIDES, strict=True)
    ]
    if shapes == [(1, channels, side, side) for channels, side in sides]:
        return False
    if shapes == [(1, side, side, channels) for channels, side in sides]:
        return True
    raise RequestError(
        f"model.backbone.name: of an image of {size} px {name} gives maps of {[shape[2:] for shape in shapes]} pixels; "
        "the neck needs exactly a 4th, 8th, 16th and 32nd of it a side."
    )


def check_name(name: str, key: str = "model.backbone.name") -> None:
    """Raise ``RequestError`` with timm's nearest names where timm has no model ``name``, or no such tag of it."""
    if not timm.is_model(name):
        close = near(name.split(".")[0], timm.list_models(), most=3)
        hint = f"similar ones are {', '.join(close)}" if close else "timm.list_models() names those it has"
        raise RequestError(f"{key}: timm has no model {name!r}; {hint}.")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = ", ".join(timm.list_models(f"{name.partition('.')[0]}.*", pretrained=True)[:3]) or "none with weights"
        raise RequestError(f"{key}: timm cannot build {name} ({one_line(error)}); there is {tags}.") from None


def create_model(name: str, pretrained: bool, key: str = "model.backbone", **options) -> nn.Module:
    """timm's model, with weights of a package or the hub, or random ones; ``StudyError`` where they cannot be had.

    ``key`` is the section of the parameters that asks for it, for messages.
    """
    if pretrained and name in PACKAGES:
        network, path = timm.create_model(name, **options), packaged_weights(name, key).path
        fill(network, under_timms_names(name, read_weights(path, key), path), path, key)
        return network
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:  # the hub client raises its own, changing, exception types
        raise StudyError(
            f"the weights of {name} cannot be downloaded ({type(error).__name__}); connect this machine, "
            f"or give a local file with --set {key}.weights=FILE."
        ) from error
