"""The GeM head: four mini-heads, one a terminal node (paper, section 3.4, equation 7; ledger row 4)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def generalised_mean(x: Tensor, p: Tensor | float, eps: float = 1e-6) -> Tensor:
    """(mean of xᵖ over positions)^(1/p), with x clipped below at ``eps``; (N, C, H, W) -> (N, C)."""
    return x.clamp(min=eps).pow(p).mean(dim=(2, 3)).pow(1.0 / p)


class GeM(nn.Module):
    """Generalised-mean pooling with a trainable p: p = 1 is the average, p → ∞ the maximum."""

    def __init__(self, p: float = 4.6, eps: float = 1e-6):
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), float(p)))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
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
