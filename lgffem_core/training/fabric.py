"""The device, the precision and the processes that a run trains with."""

import os

from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision

from lgffem_core.config.study import Study
from lgffem_core.model.device import precision_of, prepare_device


def make_fabric(study: Study) -> Fabric:
    """Device, precision and, under torchrun, the processes of a run."""
    device, precision = prepare_device(study.params.compute), precision_of(study.params.compute)
    here, everywhere = (int(os.environ.get(name, 1)) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))  # of torchrun
    fabric = Fabric(
        accelerator=device,
        devices=here,
        num_nodes=everywhere // here,
        strategy="ddp" if everywhere > 1 else "auto",
        plugins=MixedPrecision(precision, device) if precision != "32-true" else None,
    )
    fabric.launch()
    return fabric
