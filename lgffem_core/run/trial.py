"""Trying what a profile names before anything starts: local files of weights, released checkpoints, the GPU.

Imports torch, which takes seconds: ``checklist`` asks here only where a profile names such a thing, or half precision.
"""

from collections.abc import Callable, Iterator
from functools import cache, partial

import torch

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.config.params import Compute
from lgffem_core.config.study import CURRICULUM, Study
from lgffem_core.model.backbone import Backbone
from lgffem_core.model.device import prepare_device, uses_gpu
from lgffem_core.systems.baselines.networks import build_densenet, build_mixed_attention
from lgffem_core.systems.lgffem.model import assemble
from lgffem_core.systems.lgffem.released import load_released

#: Half precision -> what torch calls the units of processors for it.
UNITS = {
    "bf16-mixed": ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"),
    "16-mixed": ("avx512_fp16", "amx_fp16", "fp16_arith"),
}


def unusable(study: Study, files: set[str]) -> list[str]:
    """One item for each of ``files``, dotted keys of the parameters whose file is there, that cannot be used.

    So is a GPU that is asked for and not seen; the rest of a profile that asks for one cannot be tried then.
    """
    try:
        prepare_device(study.params.compute)
    except StudyError as error:
        return [str(error)]
    items = []
    for trial in (trial for key, trial in trials(study) if key in files):
        try:
            trial()
        except StudyError as error:
            items.append(str(error))
    return items


def trials(study: Study) -> Iterator[tuple[str, Callable]]:
    """(key of the parameters, a call that raises ``StudyError`` where the file under it cannot be used)."""
    settings = study.params.model
    random = settings.backbone.model_copy(update={"weights": None, "pretrained": False})
    anyone = cache(lambda: Backbone(random, None, settings.image_size))  # its channels alone count for a checkpoint
    weights = study.resolve(settings.backbone.weights)
    yield "model.backbone.weights", partial(Backbone, settings.backbone, weights, settings.image_size)
    yield "baselines.densenet121.weights", partial(build_densenet, study, 0)
    yield "baselines.ma_ms.weights", partial(build_mixed_attention, study, 0)
    for strategy in CURRICULUM:
        key = f"training.{strategy}.checkpoint"
        path = study.resolve(getattr(study.params.training, strategy).checkpoint)

        def fill(path=path, key=key) -> None:
            try:
                for variant in study.params.variants:
                    load_released(assemble(anyone(), settings, study.variant(variant)), path)
            except StudyError as error:
                raise RequestError(f"{key}: {error}") from None

        yield key, fill


def slow_precision(compute: Compute) -> list[str]:
    """A sentence on a half precision that the device has no units for; nothing where it has."""
    if uses_gpu(compute):
        there = compute.precision != "bf16-mixed" or torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        there = any(torch.cpu.get_capabilities().get(unit) for unit in UNITS[compute.precision])
    said = (
        f"compute.precision: this device has no units for {compute.precision}, which may take ten to fifty times as "
        "long as float32. Set it to auto, which takes what is fast here."
    )
    return [] if there else [said]
