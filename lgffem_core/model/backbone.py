"""The frozen backbone: any timm model whose feature maps include strides 4, 8, 16 and 32."""

import re
from contextlib import nullcontext
from pathlib import Path

import timm
import torch
from timm.layers import Conv2dSame
from timm.layers.grn import GlobalResponseNorm
from timm.layers.mlp import GlobalResponseNormMlp
from timm.models import load_state_dict
from torch import Tensor, nn

from lgffem_core.base.errors import RequestError, StudyError, near
from lgffem_core.config.parameter_files import one_line
from lgffem_core.config.params import Backbone as BackboneParams
from lgffem_core.model.device import own_precision, without_autocast
from lgffem_core.model.features import FEATURES
from lgffem_core.model.folding import fold_norms
from lgffem_core.model.layers import EdgePaddedConv, FrozenMlp, ResponseNorm
from lgffem_core.model.packaged import PACKAGES, packaged_weights, under_timms_names

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
OLD_NAMES = re.compile(r"\.(norm|conv)\.([12])\.")  # torchvision's DenseNet files: timm has ".norm1." for ".norm.1."


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
        reason = one_line(str(error)) or type(error).__name__
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
        reason = one_line(str(error)) or type(error).__name__
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
        raise RequestError(f"{key}: timm cannot build {name} ({one_line(str(error))}); there is {tags}.") from None


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


def load_local_weights(network: nn.Module, path: Path, key: str = "model.backbone") -> None:
    """Fill a network from a .safetensors or .pth file in timm's naming; ``key`` is the section that names it."""
    stored = {OLD_NAMES.sub(r".\1\2.", name): tensor for name, tensor in read_weights(path, key).items()}
    fill(network, stored, path, key)


def fill(network: nn.Module, stored: dict[str, Tensor], path: Path, key: str) -> None:
    """Give a network the weights that ``path`` holds under timm's names; ``RequestError`` where they do not fit.

    timm joins nested names with "_" in a feature extractor ("blocks.0" becomes "blocks_0"), so names are
    compared with every "." replaced. Each weight of the network must be in the file, in its shape and finite; what
    the file has beside them (a classifier) is left out.
    """
    by_name = {name.replace(".", "_"): tensor for name, tensor in stored.items()}
    state = network.state_dict()
    for name, tensor in state.items():
        found = by_name.get(name.replace(".", "_"))
        if found is None and name.endswith("num_batches_tracked"):
            continue  # a counter that BatchNorm with a fixed momentum does not read, and that some files leave out
        if fault := weight_fault(found, tensor):
            raise RequestError(
                f"{key}.weights: in {path.name}, {name} {fault}; these are not the weights of this "
                f"{key.rpartition('.')[2]}, or not under timm's names (the file's first is {next(iter(stored), None)})."
            )
        found = found.to(torch.float32) if found.is_floating_point() else found
        if not found.isfinite().all():
            raise RequestError(
                f"{key}.weights: in {path.name}, {name} holds {int((~found.isfinite()).sum())} values that are not "
                "finite; the file is damaged, or was kept from a training that failed: get another."
            )
        state[name] = found
    network.load_state_dict(state)


def weight_fault(found: Tensor | None, wanted: Tensor) -> str | None:
    """What is wrong with a weight of a file, in words; None where it fits."""
    if found is None or found.is_meta:  # a tensor without values
        return "is missing"
    if found.shape != wanted.shape:
        return f"has shape {tuple(found.shape)} for {tuple(wanted.shape)}"
    if found.is_floating_point() != wanted.is_floating_point():  # a quantised weight would be taken for its numbers
        return f"is {str(found.dtype).removeprefix('torch.')} for {str(wanted.dtype).removeprefix('torch.')}"
    return None


def read_weights(path: Path, key: str) -> dict[str, Tensor]:
    """The tensors of a .safetensors or .pth file by name; nothing in it is executed.

    ``RequestError`` names ``key`` and says what to do where there is no file, or none that can be read.
    """
    if not path.is_file():
        raise RequestError(f"{key}.weights: {path} is not a file.")
    try:
        stored = load_state_dict(str(path), weights_only=True)
        return {name: tensor for name, tensor in stored.items() if isinstance(tensor, Tensor)}
    except Exception as error:  # safetensors, pickle and zip each have exceptions of their own
        objects = python_objects(path)
        if objects:
            reason = f"it holds Python objects beside the weights, {', '.join(objects[:3])}, which are never loaded"
            remedy = "save the state dict alone, with torch.save or safetensors"
        else:
            reason, remedy = unread(error), "get it again, as .safetensors or .pth"
        raise RequestError(f"{key}.weights: {path} cannot be read as weights ({reason}); {remedy}.") from error


def unread(error: Exception) -> str:
    """Why a file of weights could not be read, for a sentence: torch's names for it speak of something else."""
    name = type(error).__name__
    writer = "safetensors" if name == "SafetensorError" else "torch.save"
    known = ("SafetensorError", "UnpicklingError", "RuntimeError", "EOFError")
    return f"cut off, or not written by {writer}" if name in known else name


def python_objects(path: Path) -> list[str]:
    """Classes and functions that unpickling a .pth would import, beside tensors; none where it is no such file."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # damaged, or of another format
        return []
