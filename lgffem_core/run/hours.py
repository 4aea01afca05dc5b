"""How long the published schedule takes on the device at hand, from training images a second that were measured.

torch and pandas are loaded where a profile has that schedule: ``published_schedule`` says so without.
"""

import time
from pathlib import Path

from lgffem_core.base.files import read_json
from lgffem_core.base.project import PROJECT
from lgffem_core.config.parameter_files import apply_overrides, validate
from lgffem_core.config.study import CURRICULUM, Study
from lgffem_core.config.watched import plain
from lgffem_core.data.sets import facts
from lgffem_core.run.stages import entries

MEASURED = PROJECT / "results" / "reference" / "benchmarks"  # what benchmarks/speed.py left
IMAGES = {"a": facts.IMAGENET_TRAIN_TOTAL, "b": sum(facts.PANNUKE_FOLD_SIZES), "c": facts.KIMIA_TRAIN_TOTAL}
RANDOM = {"model.backbone.pretrained": False, "model.backbone.weights": None}  # which change no speed, and need no file
PATIENCE = 8  # seconds after which a short measurement begins no further step; a step on a CPU takes some


def projection(rate: float):
    """A data frame: hours of the published schedule at ``rate`` training images a second (paper, section 4.1.3)."""
    import pandas as pd

    training = Study.published().params.training
    rows = [{"strategy": n, "images": IMAGES[n], "epochs": getattr(training, n).epochs} for n in CURRICULUM]
    table = pd.DataFrame(rows).assign(hours=lambda t: t["images"] * t["epochs"] / rate / 3600)
    return pd.concat([table, pd.DataFrame([{"strategy": "all", "hours": table["hours"].sum()}])])


def published_schedule(study: Study) -> bool:
    """True for a profile that trains the paper's model for as long as the paper did."""
    ours, paper = plain(study.params), plain(Study.published().params)
    epochs = [[getattr(params.training, name).epochs for name in CURRICULUM] for params in (ours, paper)]
    name, size, neck = ours.model.backbone.name, ours.model.image_size, ours.model.neck
    trained = any(entry.declares("training.a.epochs") for entry in entries(study))
    same = trained and (name, size, neck) == (paper.model.backbone.name, paper.model.image_size, paper.model.neck)
    return same and epochs[0] == epochs[1]


def told_hours(study: Study) -> str:
    """The hours in words, with where the rate is from. ``StudyError`` where the device cannot be used."""
    kept = kept_rate(study)
    rate, source = kept or (short_rate(study), "measured just now, in some steps; benchmarks/speed.py does it well")
    hours = projection(rate).set_index("strategy")["hours"]
    runs = len(study.params.variants) * len(study.params.seeds)
    each = ", ".join(f"{name.upper()} {hours[name]:,.0f}" for name in CURRICULUM)
    more = f"; {runs} of them, for variants and seeds, {runs * hours['all']:,.0f}" if runs > 1 else ""
    return (
        f"The published schedule takes about {hours['all']:,.0f} hours on this device ({each}{more}), at {rate:.3g} "
        f"training images a second ({source}). The paper says 60 on its GPU."
    )


def kept_rate(study: Study, folder: Path = MEASURED) -> tuple[float, str] | None:
    """Images a second that ``benchmarks/speed.py`` measured on this kind of device, and where; None if nothing.

    A processor's name does not say whether it multiplies in half precision, with which it is twice as fast: so the
    precision, too, must be the one that was measured.
    """
    import pandas as pd

    from lgffem_core.model.device import precision_of

    name, threads, precision = device_name(study), study.params.compute.threads, precision_of(study.params.compute)
    for about in sorted(folder.glob("speed_training*.json")):
        known = read_json(about)
        if known["device"] == name and (known["threads"] == threads or name_of_gpu(study)):
            table = pd.read_csv(about.with_suffix(".csv"))
            code = "this study" if study.params.compute.fast else "this study, compute.fast=false"
            rates = table.loc[(table["code"] == code) & (table["precision"] == precision), "images_per_s"]
            if len(rates):  # of the best batch
                return float(rates.max()), f"measured on {name} by benchmarks/speed.py"
    return None


def name_of_gpu(study: Study) -> str | None:
    """Of the GPU that is used, if one is; ``StudyError`` where one is asked for that is not seen."""
    import torch

    from lgffem_core.model.device import prepare_device

    return torch.cuda.get_device_name() if prepare_device(study.params.compute) == "cuda" else None


def device_name(study: Study) -> str:
    """The kind of device, as ``benchmarks/speed.py`` writes it down."""
    import torch

    return name_of_gpu(study) or torch.cpu.get_capabilities()["cpu_name"]


def short_rate(study: Study) -> float:
    """Images a second of training steps on random images, from the second step on: some seconds' worth."""
    tree = apply_overrides(plain(study.params).model_dump(), RANDOM)
    study = Study(validate(tree, f"profile {study.params.profile}"), study.root)
    images = study.params.training.batch_size if name_of_gpu(study) else 2  # a processor gains little from more
    train_step = random_training(study, images)
    train_step(0).item()
    began, steps = time.perf_counter(), 0
    while not steps or time.perf_counter() - began < PATIENCE:
        steps += 1
        train_step(steps).item()
    return images * steps / (time.perf_counter() - began)


def random_training(study: Study, images: int, run: int = 0):
    """A step of strategy C on random images in memory, called by its number, which gives the loss.

    The network is compiled where it would be in a training over ``run`` images.
    """
    import torch

    from lgffem_core.model.compiled import compile_for
    from lgffem_core.systems.lgffem.model import build_model
    from lgffem_core.systems.lgffem.strategies import strategy_recipe
    from lgffem_core.training.fabric import make_fabric
    from lgffem_core.training.loop import Trainer, labelled_images
    from lgffem_core.training.losses import LOSSES

    params, settings, classes = study.params, study.params.training.loss, facts.KIMIA_SCANS
    loss = LOSSES[settings.name](settings, classes, 4 * params.model.neck.channels, study.variant("paper"))
    parts = {"model": build_model(study, "paper", 0), "loss": loss}
    trainer = Trainer(make_fabric(study), strategy_recipe(params, "c"), parts, labelled_images, 0)
    compile_for(params.compute, run, parts["model"])
    side, device = params.model.image_size, trainer.fabric.device
    batch = torch.randn(images, 3, side, side, device=device), torch.arange(images, device=device) % classes, None
    for part in trainer.wrapped.values():
        part.train()
    return lambda step: trainer.train_step(step, 1e-4, batch, 1.0)
