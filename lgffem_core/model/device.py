"""The device that torch computes on, set so that float32 is float32 and a rerun gives the same bits."""

import os
from contextlib import AbstractContextManager, nullcontext

import torch

from lgffem_core.base.errors import RequestError
from lgffem_core.config.params import Compute


def uses_gpu(compute: Compute) -> bool:
    """True where torch sees a GPU and ``compute.device`` lets it be used."""
    return torch.cuda.is_available() and compute.device != "cpu"


def prepare_device(compute: Compute) -> str:
    """Set torch up as ``compute`` says and return "cuda", where there is a GPU that may be used, or "cpu".

    Ask before anything runs on the GPU. From then on, on one and the same machine:

    - what is computed in float32 is computed in float32, not in TF32 (torch's own choice for convolutions);
    - every operation that has an implementation which gives the same bits each time uses it. torch warns, by name,
      of one that has none.

    ``RequestError`` where ``compute.device`` is cuda and torch sees none.
    """
    if compute.device == "cuda" and not uses_gpu(compute):
        raise RequestError("compute.device is cuda, but torch sees no CUDA device; set it to auto or cpu.")
    torch.set_num_threads(compute.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # read when cuBLAS starts; without it sums vary from run to run
    torch.backends.cudnn.benchmark = False  # it picks the algorithm that is fastest today
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # nothing here reads memory before writing it
    return "cuda" if uses_gpu(compute) else "cpu"


def precision_of(compute: Compute) -> str:
    """What networks compute in: "32-true", "bf16-mixed" or "16-mixed", in Fabric's words; losses stay in float32.

    Where ``compute.precision`` is auto, half of it on a processor that multiplies matrices faster so, unless
    ``compute.fast`` is off.
    """
    if compute.precision != "auto":
        return compute.precision
    if not compute.fast:
        return "32-true"
    if uses_gpu(compute):
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    units = torch.cpu.get_capabilities()
    return "bf16-mixed" if units.get("avx512_bf16") or units.get("amx_bf16") else "32-true"


def autocast(device: str | torch.device, precision: str) -> torch.autocast:
    """The context in which a network computes in ``precision``."""
    half = torch.float16 if precision == "16-mixed" else torch.bfloat16
    return torch.autocast(torch.device(device).type, half, enabled=precision != "32-true")


def own_precision(x: torch.Tensor) -> AbstractContextManager:
    """The context in which what is computed from ``x`` stays in its precision: a GPU's autocast would widen it."""
    return torch.autocast("cuda", enabled=False) if x.is_cuda else nullcontext()


def without_autocast(x: torch.Tensor) -> AbstractContextManager:
    """The context in which nothing chooses a precision, on the device of ``x``."""
    kind = x.device.type
    return nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False)
