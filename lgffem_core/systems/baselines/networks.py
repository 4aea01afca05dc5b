"""The two baselines of Table 2: DenseNet-121's frozen features, and SE-ResNet-50 with mixed attention.

DenseNet-121 (arXiv:2102.07611) is used as it comes, without any training. MA + MS-loss (Yang et al., Methods
2020) puts a mask of attention over space and channels at once between the third and the fourth stage of a
squeeze-and-excitation network, and is trained with the multi-similarity loss (``training.baselines``).
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from timm.models.senet import SENet
from torch import Tensor, nn

from lgffem_core.base.errors import RequestError
from lgffem_core.config.study import Study
from lgffem_core.config.systems import DenseNet, MixedAttention
from lgffem_core.model.backbone import check_name, create_model, quicken
from lgffem_core.model.device import prepare_device
from lgffem_core.model.weight_files import load_local_weights

DENSENET = "densenet121"
MASK_BLOCKS = 3  # bottlenecks of the mask branch
NO_STATISTICS = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # MA + MS-loss is fed images in [0, 1] as they are


def build_densenet(study: Study, seed: int) -> nn.Module:
    """DenseNet-121 without its classifier: (N, 3, S, S) -> (N, 1024), the global average pool. Frozen, eval mode.

    It has ``mean`` and ``std``, the input statistics for images in [0, 1]. Random weights, where the
    parameters ask for them, are those of ``seed``.
    """
    settings: DenseNet = study.params.baselines.densenet121
    prepare_device(study.params.compute)
    torch.manual_seed(seed)
    network = start_network(DENSENET, settings, study.resolve(settings.weights), "baselines.densenet121")
    quicken(network)
    network.mean, network.std = network.pretrained_cfg["mean"], network.pretrained_cfg["std"]
    return network.requires_grad_(False).eval()


def start_network(name: str, settings: DenseNet | MixedAttention, weights: Path | None, key: str) -> nn.Module:
    """timm's ``name`` without a classifier: weights of a local file, of the hub, or random ones, as set."""
    network = create_model(name, settings.pretrained and weights is None, key, num_classes=0)
    if weights is not None:
        load_local_weights(network, weights, key)
    return network


def weights_label(settings: DenseNet | MixedAttention) -> str:
    """Where a baseline's first weights are from, as the tables say it."""
    if settings.weights is not None:
        return f"weights {settings.weights.name}"
    return "ImageNet weights" if settings.pretrained else "random weights"


class MixedAttentionNet(nn.Module):
    """SE-ResNet with a mask branch after its third stage, and a linear embedding of unit length.

    Args:
        network: one of timm's ``legacy_seresnet…`` models, without a classifier.
        embedding: D of the embedding (512 in the publication).

    ``mean`` and ``std`` are those of images that are not normalised: the publication does without.
    """

    mean, std = NO_STATISTICS

    def __init__(self, network: SENet, embedding: int = 512):
        super().__init__()
        self.network = network
        self.mask_branch = mask_branch(network)
        self.embed = nn.Linear(network.num_features, embedding)

    def attention(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Layer 3's output and its mask, both (N, C, S/16, S/16); the mask lies in (0, 1)."""
        net = self.network
        features = net.layer3(net.layer2(net.layer1(net.pool0(net.layer0(images)))))
        return features, self.mask_branch(features)

    def forward(self, images: Tensor) -> Tensor:  # (N, 3, S, S) in [0, 1] -> (N, D) float32 of unit length
        features, mask = self.attention(images)
        pooled = self.network.layer4(features * mask).mean(dim=(2, 3))
        return F.normalize(self.embed(pooled).float(), dim=1)


def mask_branch(network: SENet) -> nn.Sequential:
    """(N, C, H, W) -> mask (N, C, H, W): a stage like layer 4 but of stride 1, then 1×1 conv, BatchNorm, sigmoid.

    C is layer 3's width. The weights are drawn anew, as timm draws those of the network itself.
    """
    first = network.layer4[0]
    block, groups = type(first), first.conv2.groups
    reduction = first.se_module.fc1.in_channels // first.se_module.fc1.out_channels
    channels, inner = (network.feature_info[stage]["num_chs"] for stage in (3, 4))
    planes = inner // block.expansion
    shortcut = nn.Sequential(nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner))
    blocks = [block(channels, planes, groups, reduction, 1, shortcut)]
    blocks += [block(inner, planes, groups, reduction) for _ in range(MASK_BLOCKS - 1)]
    branch = nn.Sequential(*blocks, nn.Conv2d(inner, channels, 1), nn.BatchNorm2d(channels), nn.Sigmoid())
    for module in branch.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return branch


def build_mixed_attention(study: Study, seed: int) -> MixedAttentionNet:
    """The network of ``baselines.ma_ms`` before its training; what is random in it follows from ``seed``.

    Raises ``RequestError`` where ``network`` is no SE-ResNet of timm's or a weights file does not fit, and
    ``StudyError`` where weights should be downloaded and cannot.
    """
    settings = study.params.baselines.ma_ms
    key = "baselines.ma_ms"
    check_name(settings.network, f"{key}.network")
    if not settings.network.startswith("legacy_seresne"):
        raise RequestError(
            f"{key}.network: {settings.network} is no squeeze-and-excitation network; take one of timm's "
            "legacy_seresnet18, 34, 50, 101 or 152."
        )
    prepare_device(study.params.compute)
    torch.manual_seed(seed)
    network = start_network(settings.network, settings, study.resolve(settings.weights), key)
    torch.manual_seed(seed)  # the branch's draw does not depend on where the network's weights came from
    return MixedAttentionNet(network, settings.embedding)
