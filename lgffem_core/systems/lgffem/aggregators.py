"""The aggregator units of the neck (paper, section 3.3.1, equations 2–5; ledger row 3).

Shapes: N images, C channels, H × W positions. Every aggregator keeps the shape of its (resized) input X.
"""

import torch
from torch import Tensor, nn

from lgffem_core.model.layers import ChannelNorm, DepthwiseDownsample, DepthwiseUpsample, ResponseNorm


def attend(x: Tensor, logits: Tensor, alpha: Tensor | float) -> Tensor:
    """α·X + (1−α)·X ⊙ σ(logits): the gate that both aggregators share (equations 3 and 5), X factored out."""
    alpha = torch.as_tensor(alpha).squeeze()  # a number without an axis leaves maps in half precision as they are
    return x * (alpha + (1 - alpha) * torch.sigmoid(logits))


class WidthResponseNorm(nn.Module):
    """Response normalisation as the released code computes it (ledger row 3).

    The mean runs over the last axis of an N×C×1×1 tensor, which has length 1. Each channel is divided by
    its own norm, so that channels do not compete and a per-channel affine map remains.
    """

    def __init__(self, channels: int, eps: float = 1e-6):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W)
        norm = torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True)  # (N, C, 1, 1)
        ratio = norm / (norm.mean(dim=-1, keepdim=True) + self.eps)
        return self.weight[:, None, None] * (x * ratio) + self.bias[:, None, None] + x


def response_norm(kind: str, channels: int) -> nn.Module:
    """GRN over channels as in ConvNeXt V2 (``"channels"``, the text) or over the width (``"width"``)."""
    if kind == "width":
        return WidthResponseNorm(channels)
    return ResponseNorm(channels, eps=1e-6, channels_last=False)


class LocalAggregator(nn.Module):
    """LA(X) = α·X + (1−α)·X ⊙ σ(L(X)), L(X) = PW(GELU(PW(LN(X)))) (equations 4 and 5).

    Args:
        channels: C.
        reduction: r, the channel reduction between the two point-wise convolutions.
        upsample: double H and W first (LayerNorm, then a depth-wise 2×2 transposed convolution).
    """

    kind = "LA"

    def __init__(self, channels: int, reduction: int = 2, upsample: bool = False):
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(1))
        self.resize = nn.Identity()
        if upsample:
            self.resize = nn.Sequential(ChannelNorm(channels), DepthwiseUpsample(channels))
        hidden = channels // reduction
        self.local_operator = nn.Sequential(
            ChannelNorm(channels), nn.Conv2d(channels, hidden, 1), nn.GELU(), nn.Conv2d(hidden, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W), or (N, C, 2H, 2W)
        x = self.resize(x)
        return attend(x, self.local_operator(x), self.alpha)


class GlobalAggregator(nn.Module):
    """GA(X) = α·X + (1−α)·X ⊙ σ(G(X)), G(X) = PW(GRN(GELU(PW(LN(DW3×3(X)))))) (equations 2 and 3).

    Args:
        channels: C.
        reduction: r, the channel reduction between the two point-wise convolutions.
        downsample: halve H and W first (depth-wise 3×3 convolution with stride 2, then LayerNorm).
        grn: which axis the response normalisation averages over, see ``response_norm``.
    """

    kind = "GA"

    def __init__(self, channels: int, reduction: int = 2, downsample: bool = False, grn: str = "channels"):
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(1))
        self.resize = nn.Identity()
        if downsample:
            self.resize = nn.Sequential(DepthwiseDownsample(channels), ChannelNorm(channels))
        hidden = channels // reduction
        self.global_operator = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            ChannelNorm(channels),
            nn.Conv2d(channels, hidden, 1),
            nn.GELU(),
            response_norm(grn, hidden),
            nn.Conv2d(hidden, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W), or (N, C, H/2, W/2)
        x = self.resize(x)
        return attend(x, self.global_operator(x), self.alpha)
