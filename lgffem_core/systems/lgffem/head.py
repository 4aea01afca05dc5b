"""The GeM head: four mini-heads, one a terminal node (paper, section 3.4, equation 7; ledger row 4)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def generalised_mean(x: Tensor, p: Tensor | float, eps: float = 1e-6) -> Tensor:
    """(mean of xᵖ over positions)^(1/p), with x clipped below at ``eps``; (N, C, H, W) -> (N, C)."""
    return x.clamp(min=eps).pow(p).mean(dim=(2, 3)).pow(1.0 / p)


class ClosedMean(torch.autograd.Function):
    """``generalised_mean`` on a processor, computed in float32 a few images at a time, and its derivatives.

    xᵖ is exp(p·log x), of which the way back needs the logarithm alone; and so many maps stay in the caches, which a
    batch's do not. torch's own takes three times as long, there and back.
    """

    @staticmethod
    def forward(ctx, x: Tensor, p: Tensor, eps: float) -> Tensor:  # (N, C, H, W), (1,) -> (N, C) float32
        means, slopes = [], []
        for some in x.split(at_a_time(x)):
            logs = some.float().clamp(min=eps).log_()
            powers = (logs * p).exp_()
            means.append(powers.mean(dim=(2, 3)))
            if p.requires_grad:
                slopes.append(powers.mul_(logs).mean(dim=(2, 3)))
        mean, slope = torch.cat(means), torch.cat(slopes) if slopes else None
        ctx.save_for_backward(x, p, mean, slope)
        ctx.eps = eps
        return mean.pow(1 / p)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple:
        x, p, mean, slope = ctx.saved_tensors
        outer = grad * mean.pow(1 / p)  # d/dx = outer · xᵖ⁻¹ / (mean · H·W) where x was not clipped
        to_p = None if slope is None else (outer * (slope / mean / p - mean.log() / p**2)).sum().reshape(p.shape)
        scale, to_x = (outer / mean / x[0, 0].numel())[:, :, None, None], torch.empty_like(x)
        for some, by, into in zip(*(each.split(at_a_time(x)) for each in (x, scale, to_x)), strict=True):
            powers = some.float().clamp(min=ctx.eps).log_().mul_(p - 1).exp_().mul_(by).to(x.dtype)
            into.copy_(torch.ops.aten.threshold_backward(powers, some, ctx.eps))  # a mask takes thirty times as long
        return to_x, to_p, None


def at_a_time(x: Tensor) -> int:
    """How many images' maps a processor's cache holds, or one: 2¹⁸ numbers are a MiB of float32."""
    return max(1, 2**18 // x[0].numel())


closed_mean = torch.compiler.disable(ClosedMean.apply)  # a compiler makes it no faster


class GeM(nn.Module):
    """Generalised-mean pooling with a trainable p: p = 1 is the average, p → ∞ the maximum."""

    def __init__(self, p: float = 4.6, eps: float = 1e-6):
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), float(p)))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cpu:
            return closed_mean(x, self.p, self.eps)
        return generalised_mean(x.float(), self.p, self.eps)  # x^4.6 leaves the range of half precision


class MiniHead(nn.Module):
    """f = FC(L2(FC(GeM(P)))) (equation 7); with ``norm``, BatchNorm and Dropout follow GeM (ledger 4)."""

    def __init__(self, channels: int, p: float, eps: float, norm: bool, dropout: float):
        super().__init__()
        self.gem = GeM(p, eps)
        self.norm = nn.Sequential(nn.BatchNorm1d(channels), nn.Dropout(dropout)) if norm else nn.Identity()
        self.fc_in = nn.Linear(channels, channels)
        self.fc_out = nn.Linear(channels, channels)

    def forward(self, node: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C)
        pooled = self.norm(self.gem(node))
        return self.fc_out(F.normalize(self.fc_in(pooled), dim=-1))


class GeMHead(nn.Module):
    """The image descriptor: the four mini-heads' outputs side by side, (N, 4·C)."""

    def __init__(self, channels: int, p: float = 4.6, eps: float = 1e-6, norm: bool = False, dropout: float = 0.6):
        super().__init__()
        self.mini_heads = nn.ModuleList(MiniHead(channels, p, eps, norm, dropout) for _ in range(4))

    def forward(self, nodes: list[Tensor]) -> Tensor:  # 4 × (N, C, Hᵢ, Wᵢ) -> (N, 4·C)
        return torch.cat([head(node) for head, node in zip(self.mini_heads, nodes, strict=True)], dim=1)
