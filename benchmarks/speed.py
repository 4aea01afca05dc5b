"""Images a second, training and embedding: the study's two paths, and the authors' code where a checkout is given.

    .venv/bin/python benchmarks/speed.py [training] [embedding] [--authors FOLDER] [--set key.path=value …]

All that is compared runs in turn, round after round, in one process and on the same images in memory, so that a ratio
is of one machine in one state. Each round times one call of each; the tables give medians with the lowest and highest.
FOLDER is a checkout of the authors' repository; of it the model is imported, and its training step and its notebook's
one-at-a-time embedding are written down here. Weights are random: they change no speed. The same command on a machine
with a GPU measures that GPU. Tables go to results/reference/benchmarks/ (--out FOLDER for elsewhere).
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pandas as pd
import torch
from pytorch_metric_learning.losses import SubCenterArcFaceLoss
from torch.utils.flop_counter import FlopCounterMode

from lgffem_core.base.files import write_json
from lgffem_core.base.project import PROJECT
from lgffem_core.base.surroundings import PINNED, clean
from lgffem_core.config.parameter_files import parse_pairs
from lgffem_core.config.study import Study
from lgffem_core.model.compiled import COMPILE_FROM, compile_for
from lgffem_core.model.device import precision_of, prepare_device
from lgffem_core.retrieval.encoder import embed
from lgffem_core.run.hours import projection, random_training
from lgffem_core.systems.lgffem.model import build_model

CLASSES = 24  # of the batches
#: What a precision is called in columns, and what is multiplied in it.
NUMBERS = {
    "32-true": ("fp32", torch.float32),
    "bf16-mixed": ("bf16", torch.bfloat16),
    "16-mixed": ("fp16", torch.float16),
}
Contestant = tuple[dict, Callable[[], object], int]  # (columns of its row, one call, images of a call)


def study_of(pairs: list[str], fast: bool) -> Study:
    """The paper's model with random weights."""
    overrides = {"model.backbone.pretrained": False, "compute.workers": 0, **parse_pairs(pairs), "compute.fast": fast}
    return Study.load(PROJECT / "params" / "paper.yaml", overrides)


def batch_of(study: Study, images: int) -> tuple:
    """A batch as the loader serves it, on the device."""
    torch.manual_seed(1)
    device, side = prepare_device(study.params.compute), study.params.model.image_size
    return torch.randn(images, 3, side, side, device=device), torch.arange(images, device=device) % CLASSES, None


def seconds(call: Callable[[], object]) -> float:
    """Wall time of a call; a GPU is waited for."""
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


# -- the study's own ------------------------------------------------------------------------------------------


def own_training(study: Study, images: int, steps: int) -> Contestant:
    """``steps`` training steps of strategy C, as ``Trainer`` makes them."""
    train_step = random_training(study, images, COMPILE_FROM)
    return row(study, images), lambda: [train_step(step) for step in range(steps)], images * steps


def own_embedding(study: Study, images: int, batches: int) -> Contestant:
    """``batches`` batches through the study's one embedding loop."""
    model, (batch, _, _) = build_model(study, "paper", 0), batch_of(study, images)
    compile_for(study.params.compute, COMPILE_FROM, model)
    device, precision = prepare_device(study.params.compute), precision_of(study.params.compute)
    return row(study, images), lambda: embed(model, [batch] * batches, device, precision), images * batches


def row(study: Study, images: int) -> dict:
    code = "this study" if study.params.compute.fast else "this study, compute.fast=false"
    return {"code": code, "precision": precision_of(study.params.compute), "batch": images}


# -- the authors' ---------------------------------------------------------------------------------------------


def authors_model(folder: Path, study: Study) -> torch.nn.Module:
    """The model of the authors' checkout with the same backbone and sizes, weights random."""
    settings = study.params.model
    sys.path.insert(0, str(folder))
    sys.modules["omegaconf"] = ModuleType("omegaconf")  # of it they need one name, for annotations
    sys.modules["omegaconf.dictconfig"] = SimpleNamespace(DictConfig=object)
    from model import backbone, lgffem

    create, names = backbone.create_model, backbone.TIMM_AVAILABLE_MODELS
    backbone.create_model = lambda *a, **options: create(*a, **{**options, "pretrained": False})
    names.append(settings.backbone.name)
    stages = build_model(study, "paper", 0).backbone.channels
    head = SimpleNamespace(P=settings.head.gem_p, EPS=settings.head.gem_eps)
    size = {"NUM_CHANNELS": settings.neck.channels, "IN_CHANNELS": stages, "NUM_LAYERS": settings.neck.layers}
    network = SimpleNamespace(MODEL_NAME=settings.backbone.name, OUT_INDICES=[0, 1, 2, 3])
    model = SimpleNamespace(BACKBONE=network, NECK=SimpleNamespace(**size), HEAD=head)
    return lgffem.LGFFEM(SimpleNamespace(MODEL=model)).to(prepare_device(study.params.compute))


def authors_training(folder: Path, study: Study, images: int, steps: int, amp: bool) -> Contestant:
    """Their training step on Kimia: two AdamW, gradients clipped, ``--amp`` on a GPU alone."""
    model, (batch, labels, _) = authors_model(folder, study).train(), batch_of(study, images)
    parameters = [p for p in model.parameters() if p.requires_grad]
    loss = SubCenterArcFaceLoss(
        num_classes=CLASSES, embedding_size=4 * study.params.model.neck.channels, margin=17.5, scale=17.5, sub_centers=6
    )
    loss.to(batch.device)
    optimizers = [torch.optim.AdamW(parameters, weight_decay=1e-5, amsgrad=True), torch.optim.AdamW(loss.parameters())]
    scaler = torch.amp.GradScaler(enabled=amp)

    def call() -> None:
        for _ in range(steps):
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cuda", torch.float16, enabled=amp):
                value = loss(model(batch), labels)
            scaler.scale(value).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                scaler.step(optimizer)
            scaler.update()
            value.item()

    return {"code": "the authors'", "precision": "fp16" if amp else "32-true", "batch": images}, call, images * steps


def authors_embedding(folder: Path, study: Study, images: int) -> Contestant:
    """Their notebook's loop: one image at a time."""
    model, (batch, _, _) = authors_model(folder, study).eval(), batch_of(study, images)

    @torch.no_grad()
    def call() -> None:
        for image in batch:
            model(image[None]).cpu()

    return {"code": "the authors'", "precision": "32-true", "batch": 1}, call, images


# -- measuring ------------------------------------------------------------------------------------------------


def contestants(task: str, args: argparse.Namespace) -> Iterator[Contestant]:
    plain, fast = study_of(args.pairs, False), study_of(args.pairs, True)
    own = own_training if task == "training" else own_embedding
    for study in (plain, fast):
        yield own(study, args.batch, args.calls)
    if args.authors and task == "training":
        for images in sorted({4, args.batch}):
            yield authors_training(args.authors, plain, images, max(args.calls * args.batch // images, 1), False)
        if prepare_device(fast.params.compute) == "cuda":
            yield authors_training(args.authors, plain, args.batch, args.calls, True)
    elif args.authors:
        yield authors_embedding(args.authors, plain, args.batch)


def work_of(task: str, pairs: list[str]) -> float:
    """Floating-point operations of one image, two a multiplication with addition.

    A backward pass takes twice the forward's, of what is trained; torch's own counter takes grouped ones for whole.
    """
    study = study_of([*pairs, "compute.device=cpu"], False)
    model, (images, _, _) = build_model(study, "paper", 0), batch_of(study, 1)

    def counted(module: torch.nn.Module) -> float:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(images)
        return counter.get_total_flops()

    forward = counted(model)
    return forward + 2 * (forward - counted(model.backbone)) if task == "training" else forward


def matrix_rate(device: str, dtype: torch.dtype, size: int = 2048) -> float:
    """Operations a second of a plain product of two square matrices, the best of five.

    A processor without a unit for ``dtype`` takes a minute a product.
    """
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    left @ right
    return 2 * size**3 / min(seconds(lambda: left @ right) for _ in range(5))


def measure(task: str, args: argparse.Namespace) -> pd.DataFrame:
    """A row a contestant; ratios are medians over the rounds, each of two calls of one round."""
    found, rates = list(contestants(task, args)), []
    for names, call, _ in found:  # the first call allocates, chooses and compiles
        print(f"{task}, first call, {names['code']}, {names['precision']}: {seconds(call):.1f} s", flush=True)
    for number in range(args.repeats):
        rates.append([images / seconds(call) for _, call, images in found])
        print(f"{task}, round {number + 1}: " + ", ".join(f"{rate:.2f}" for rate in rates[-1]), flush=True)
    compute = study_of(args.pairs, True).params.compute
    name, dtype = NUMBERS[precision_of(compute)]  # of no other, for which there may be no unit
    work, most = work_of(task, args.pairs), matrix_rate(prepare_device(compute), dtype)
    columns = list(zip(*rates, strict=True))
    theirs = [i for i, (names, _, _) in enumerate(found) if names["code"] == "the authors'"]
    base = max(theirs or [0], key=lambda i: statistics.median(columns[i]))
    rows = []
    for (names, _, _), column in zip(found, columns, strict=True):
        ratios = [ours / against for ours, against in zip(column, columns[base], strict=True)]
        middle = statistics.median(column)
        rows.append(
            {"task": task, **names, "images_per_s": middle, "lowest": min(column), "highest": max(column)}
            | {"ratio": statistics.median(ratios), "ratio_lowest": min(ratios), "ratio_highest": max(ratios)}
            | {f"share_of_{name}_matrix_rate": middle * work / most}
        )
    table = pd.DataFrame(rows)
    table.attrs = {"repeats": args.repeats, "gflop_an_image": work / 1e9, f"{name}_gflop_per_s": most / 1e9}
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="training|embedding")
    parser.add_argument("--authors", type=Path)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--calls", type=int, default=1, help="batches of a timed call")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=PROJECT / "results" / "reference" / "benchmarks")
    parser.add_argument("--set", dest="pairs", nargs="+", default=[], metavar="key.path=value")
    args = parser.parse_args()
    args.tasks = args.tasks or ["training", "embedding"]
    if unknown := set(args.tasks) - {"training", "embedding"}:
        parser.error(
            f"there is nothing to measure called {', '.join(sorted(unknown))}; there are training and embedding"
        )
    device = prepare_device(study_of(args.pairs, True).params.compute)
    machine = torch.cuda.get_device_name() if device == "cuda" else torch.cpu.get_capabilities()["cpu_name"]
    about = {"device": machine, "threads": torch.get_num_threads(), "python": platform.python_version()}
    about |= {name: version(name) for name in ("torch", "timm")}
    args.out.mkdir(parents=True, exist_ok=True)
    for task in args.tasks:
        table = measure(task, args)
        table.to_csv(args.out / f"speed_{task}.csv", index=False, float_format="%.4g")
        write_json(args.out / f"speed_{task}.json", about | table.attrs)
        print(table.to_string(index=False, float_format="%.3g"))
        if task == "training":
            hours = projection(table.loc[table["code"] == "this study", "images_per_s"].item())
            hours.to_csv(args.out / "projection.csv", index=False, float_format="%.4g")
            print(hours.to_string(index=False, float_format="%.4g"))


if __name__ == "__main__":
    if any(os.environ.get(name) != value for name, value in PINNED.items()):  # as run_all.sh starts everything
        os.execve(sys.executable, [sys.executable, *sys.argv], clean(os.environ))
    main()
