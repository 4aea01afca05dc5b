"""Layers that compute what torch's or timm's do, in less time; a test holds each against the one it stands for."""

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame, LayerNorm2d, get_same_padding
from timm.layers.grn import GlobalResponseNorm
from timm.layers.mlp import GlobalResponseNormMlp
from torch import Tensor, nn


class DepthwiseUpsample(nn.ConvTranspose2d):
    """The 2×2 transposed convolution of stride 2, channel by channel: (N, C, H, W) -> (N, C, 2H, 2W).

    Each position becomes four, x·w + b. torch has one way for grouped channels, which takes several times as long.
    """

    def __init__(self, channels: int):
        super().__init__(channels, channels, kernel_size=2, stride=2, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        x, weight, bias = x.permute(0, 2, 3, 1), self.weight[:, 0].to(x.dtype), self.bias.to(x.dtype)
        if x.is_cuda:  # as one product, which a compiler can fuse; a processor is slower so, and far slower backward
            fourfold = x[:, :, None, :, None] * weight.permute(1, 2, 0)[:, None] + bias
        else:
            rows = [torch.stack([x * weight[:, i, j] + bias for j in (0, 1)], dim=3) for i in (0, 1)]
            fourfold = torch.stack(rows, dim=2)
        return fourfold.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


class DepthwiseDownsample(nn.Conv2d):
    """The 3×3 convolution of stride 2, channel by channel: (N, C, H, W) -> (N, C, H/2, W/2).

    Where a processor is to derive it in half precision, as every second position of the one of stride 1: torch has no
    quick way back to the input from a stride of 2, and took a tenth of a training step for it.
    """

    def __init__(self, channels: int):
        super().__init__(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and x.dtype.itemsize < 4 and not x.is_cuda:
            return F.conv2d(x, self.weight, padding=1, groups=self.groups)[:, :, ::2, ::2]
        return super().forward(x)


class EdgePaddedConv(Conv2dSame):
    """timm's convolution with TensorFlow's padding, which fills the edges alone: torch's fills the whole map first.

    Of a small backbone's time in float32 that was a tenth.
    """

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W)
        sides = zip(x.shape[2:], self.kernel_size, self.stride, self.dilation, strict=True)
        high, wide = (get_same_padding(*side) for side in sides)
        (top, left), (h, w) = (high // 2, wide // 2), x.shape[2:]
        order = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        padded = torch.empty(*x.shape[:2], h + high, w + wide, dtype=x.dtype, device=x.device, memory_format=order)
        padded[:, :, :top] = padded[:, :, top + h :] = 0
        padded[..., :left] = padded[..., left + w :] = 0
        padded[:, :, top : top + h, left : left + w] = x
        return self._conv_forward(padded, self.weight, self.bias)  # its own padding is none


class ChannelNorm(LayerNorm2d):
    """timm's LayerNorm2d, over the channels of (N, C, H, W), with a result in the precision of ``x``.

    Under autocast a GPU gives float32, and every map after it would take twice the memory and the time.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).to(x.dtype)


class ResponseNorm(GlobalResponseNorm):
    """timm's global response normalisation: x + w·x·N(x) + b as x·(1 + w·N(x)) + b, and a norm of plain sums.

    torch's norm over positions is slow in half precision, and as slow as all else in a block.
    """

    def forward(self, x: Tensor) -> Tensor:  # (N, H, W, C) with channels_last, or (N, C, H, W)
        scale, bias = self.scale(x), self.bias.view(self.wb_shape).to(x.dtype)
        return torch.addcmul(bias, x, scale) if x.dtype.itemsize < 4 else x * scale + bias

    def scale(self, x: Tensor) -> Tensor:
        """1 + w·N(x), of shape (N, 1, 1, C) or (N, C, 1, 1)."""
        wide = x.float() if x.dtype == torch.float16 else x  # squares leave its range
        squares = wide.square().sum(self.spatial_dim, keepdim=True)
        squares = squares.to(torch.promote_types(x.dtype, torch.float32))
        norm = squares.clamp(min=torch.finfo(torch.float32).tiny).sqrt()  # which has a derivative at 0, too
        share = norm / (norm.mean(dim=self.channel_dim, keepdim=True) + self.eps)
        return (1 + self.weight.view(self.wb_shape) * share).to(x.dtype)


class FrozenMlp(GlobalResponseNormMlp):
    """timm's two linear layers with GELU and a ``ResponseNorm`` between, for weights that are not trained.

    On a processor that multiplies bfloat16, oneDNN adds the bias and applies GELU to sums while it has them at hand.
    """

    def forward(self, x: Tensor) -> Tensor:  # (N, H, W, C)
        first, second = self.fc1, self.fc2
        if x.is_cuda or x.dtype != torch.bfloat16 or first.weight.dtype != x.dtype or not multiplies_bfloat16():
            return super().forward(x)
        product = torch.ops.mkldnn._linear_pointwise
        hidden = product(x, first.weight, first.bias, "gelu", [], "none")  # "none": by erf, not by tanh
        return product(self.grn(hidden), second.weight, second.bias, "none", [], "")


def multiplies_bfloat16() -> bool:
    """True where torch has oneDNN, and that has a way to multiply in bfloat16 on this processor."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
