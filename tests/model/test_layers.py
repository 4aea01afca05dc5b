"""The quick layers against the plain ones of torch and timm whose weights they take."""

import pytest
import torch
from timm.layers import Conv2dSame, LayerNorm2d
from timm.layers.grn import GlobalResponseNorm
from timm.layers.mlp import GlobalResponseNormMlp
from torch import nn

from lgffem_core.model import layers
from lgffem_core.model.layers import (
    ChannelNorm,
    DepthwiseDownsample,
    DepthwiseUpsample,
    EdgePaddedConv,
    FrozenMlp,
    ResponseNorm,
)


def draw(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def pairs(dtype: torch.dtype):
    for last in (True, False):
        plain = draw(GlobalResponseNorm(16, channels_last=last))
        quick = ResponseNorm(16, channels_last=last)
        quick.load_state_dict(plain.state_dict())
        shape = (3, 5, 7, 16) if last else (3, 16, 5, 7)
        yield plain.to(dtype), quick.to(dtype), 3 * torch.randn(shape, dtype=dtype)
    plain, quick = draw(nn.ConvTranspose2d(8, 8, kernel_size=2, stride=2, groups=8)), DepthwiseUpsample(8)
    quick.load_state_dict(plain.state_dict())
    yield plain.to(dtype), quick.to(dtype), torch.randn(2, 8, 3, 5, dtype=dtype)
    plain, quick = draw(nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8, bias=False)), DepthwiseDownsample(8)
    quick.load_state_dict(plain.state_dict())
    yield plain.to(dtype), quick.to(dtype), torch.randn(2, 8, 6, 9, dtype=dtype)
    for options in (dict(kernel_size=3, stride=2), dict(kernel_size=(5, 3), stride=1, dilation=2), dict(kernel_size=1)):
        plain, quick = draw(Conv2dSame(6, 4, groups=2, **options)), EdgePaddedConv(6, 4, groups=2, **options)
        quick.load_state_dict(plain.state_dict())
        yield plain.to(dtype), quick.to(dtype), torch.randn(2, 6, 8, 11, dtype=dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_quick_layers_give_the_plain_ones_values_and_gradients(dtype, tolerance, layout):
    for plain, quick, x in pairs(dtype):
        answers = []
        for module in (plain, quick):
            given = x.contiguous(memory_format=layout).requires_grad_()
            value = module(given)
            value.backward(torch.linspace(-1, 1, value.numel(), dtype=dtype).reshape(value.shape))
            answers.append([value, given.grad, *(parameter.grad for parameter in module.parameters())])
            module.zero_grad()
            x = x.detach()
        for theirs, ours in zip(*answers, strict=True):
            scale = theirs.abs().max()
            torch.testing.assert_close(ours / scale, theirs / scale, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 2), (4, 3)])
def test_a_convolution_whose_edges_alone_are_filled_has_the_same_bits(kernel, stride, layout):
    plain = draw(Conv2dSame(5, 7, kernel, stride, bias=False)).to(memory_format=layout)
    quick = EdgePaddedConv(5, 7, kernel, stride, bias=False).to(memory_format=layout)
    quick.load_state_dict(plain.state_dict())
    x = torch.randn(2, 5, 9, 12).contiguous(memory_format=layout)
    theirs, ours = plain(x), quick(x)
    assert torch.equal(ours, theirs) and ours.stride() == theirs.stride()


def test_half_precision_is_derived_from_the_convolution_of_stride_1(monkeypatch):
    strides, convolution = [], torch.nn.functional.conv2d

    def noted(*arguments, stride=1, **more):
        strides.append(stride)
        return convolution(*arguments, stride=stride, **more)

    monkeypatch.setattr(layers.F, "conv2d", noted)
    layer = draw(DepthwiseDownsample(4)).bfloat16()
    layer(torch.randn(1, 4, 6, 6).bfloat16().requires_grad_())
    assert strides == [1]


@pytest.mark.skipif(not layers.multiplies_bfloat16(), reason="oneDNN has no bfloat16 on this processor")
def test_a_frozen_mlp_is_the_plain_one_in_half_precision():
    """Nearer to the plain one in float32 than the plain one in half precision, or as near; and by erf, not tanh."""
    plain = draw(GlobalResponseNormMlp(16, 64)).requires_grad_(False)
    x = torch.randn(2, 5, 7, 16).bfloat16()
    exact = plain(x.float())
    plain.bfloat16()
    half, plain.__class__ = plain(x), FrozenMlp
    plain.grn.__class__ = ResponseNorm
    quick = plain(x)
    assert quick.dtype == torch.bfloat16
    error, theirs = ((each.float() - exact).norm() / exact.norm() for each in (quick, half))
    assert error < max(theirs * 1.1, 1e-3)
    assert torch.equal(plain.float()(x.float()), super(FrozenMlp, plain).forward(x.float()))


def test_a_channel_of_zeros_has_a_gradient():
    norm = draw(ResponseNorm(4))
    x = torch.zeros(1, 2, 2, 4, requires_grad=True)
    norm(x).sum().backward()
    assert x.grad.isfinite().all() and all(p.grad.isfinite().all() for p in norm.parameters())


def test_half_precision_whose_squares_leave_its_range():
    plain, quick, _ = next(pairs(torch.float32))
    x = torch.full((1, 2, 2, 16), 1000.0)
    torch.testing.assert_close(quick.half()(x.half()).float(), plain(x), rtol=5e-3, atol=1.0)


def test_an_upsampled_map_keeps_its_layout_in_memory():
    x = torch.randn(2, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    assert DepthwiseUpsample(8)(x).is_contiguous(memory_format=torch.channels_last)


class OnGpu(torch.Tensor):
    """A tensor that passes for one of a GPU."""

    is_cuda = True


def test_a_gpus_way_of_upsampling_gives_the_same_bits():
    layer, x = draw(DepthwiseUpsample(8)), torch.randn(2, 8, 3, 5)
    there = layer(x.as_subclass(OnGpu)).as_subclass(torch.Tensor)
    assert torch.equal(there, layer(x))


def test_a_norm_over_channels_keeps_half_precision():
    plain, quick, x = draw(LayerNorm2d(8)), draw(ChannelNorm(8)), torch.randn(2, 8, 3, 5)
    assert torch.equal(plain(x), quick(x))
    half = quick(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), plain(x), rtol=0.02, atol=0.05)
