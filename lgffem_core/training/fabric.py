"""The device, the precision and the processes that a run trains with."""

import os

from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment

from lgffem_core.config.study import Study
from lgffem_core.model.device import precision_of, prepare_device


def make_fabric(study: Study) -> Fabric:
    """Device, precision and, under torchrun, the processes of a run."""
    device, precision = prepare_device(study.params.compute), precision_of(study.params.compute)
    here, everywhere = (int(os.environ.get(name, 1)) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))  # of torchrun
    # Named, since Fabric would take a SLURM job for its own way of starting processes, and complain where it is not.
    environment = TorchElasticEnvironment() if everywhere > 1 else LightningEnvironment()
    halved = [MixedPrecision(precision, device)] if precision != "32-true" else []
    fabric = Fabric(
        accelerator=device,
        devices=here,
        num_nodes=everywhere // here,
        strategy="ddp" if everywhere > 1 else "auto",
        plugins=[environment, *halved],
    )
    fabric.launch()
    return fabric
