"""Images a second from files and from kept pixels, the memory of an epoch, and what a million files cost.

    .venv/bin/python benchmarks/loading.py [rates] [memory] [index] [--images 200] [--links 1000000] [--set key=value …]

`rates`: of each strategy's data set, reading alone and the whole sample as training takes it, decoded and kept, in turn
on the same rows in one process. `memory`: an epoch over so many images and ten times as many, each in a process of its
own. `index`: a folder of links to 64 images, indexed, and found unchanged by a new process. Without --set data.….root
the images are patterns of the sizes of ImageNet's photographs, PanNuke's tiles and Kimia's patches. One process reads,
without workers. The folder that --scratch names holds all files and is emptied at the end (1 GB, and 0.5 GB of links).
Tables go to results/reference/benchmarks/ (--out FOLDER for elsewhere).
"""

import argparse
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from lgffem_core.base.files import write_json
from lgffem_core.base.project import PROJECT
from lgffem_core.config.machine import processor
from lgffem_core.config.parameter_files import parse_pairs
from lgffem_core.config.study import CURRICULUM, Study
from lgffem_core.data import check_unchanged, patch_table
from lgffem_core.data.census import SETTLED, data_state
from lgffem_core.data.loading import PatchDataset, TrainingBatches, make_loader, read_rgb
from lgffem_core.data.synthetic.textures import texture
from lgffem_core.systems.lgffem.augmentation import training_augment
from lgffem_core.training.patches import training_patches, training_set

CLASSES, DISTINCT = 1000, 64  # folders and pictures of the million links
STATISTICS = SimpleNamespace(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
TASKS = ("rates", "memory", "index")


def study_of(folder: Path, pairs: list[str], **changes) -> Study:
    """The paper's sizes on the images below ``folder``."""
    roots = {f"data.{name}.root": str(folder / name) for name, _, _ in CURRICULUM.values()}
    fixed = {"data.check_counts": False, "data.pannuke.tissues": "any", "data.kimia.scans": 2, "profile": "loading"}
    overrides = {**fixed, **roots, **parse_pairs(pairs), **changes}
    return Study.load(PROJECT / "params" / "paper.yaml", overrides, root=folder / "run")


def patches_of(study: Study, strategy: str) -> PatchDataset:
    """A strategy's training images, augmented, for a network of ImageNet's statistics."""
    dataset, augment = CURRICULUM[strategy][0], training_augment(strategy, study.params.model.image_size)
    return training_patches(study, dataset, training_set(study, dataset), augment, STATISTICS, seed=0)


def picture(number: int, height: int, width: int) -> np.ndarray:
    """A pattern with a camera's noise, uint8 (H, W, 3)."""
    rng = np.random.default_rng(number)
    noise = rng.normal(0, 6, (height, width, 3))
    return np.clip(texture(number, max(height, width), rng)[:height, :width] + noise, 0, 255).astype(np.uint8)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_images(folder: Path, images: int) -> None:
    """Every data set's layout, two labels each."""
    sides = np.random.default_rng(0).integers(300, 520, (images, 2))
    for number, (height, width) in enumerate(sides.tolist()):
        label, name = number % 2, f"{number}.jpg"
        save(folder / "imagenet" / "train" / f"n{label}" / f"{number}.JPEG", picture(number, height, width))
        save(folder / "pannuke" / "images" / f"fold1_{number}_T{label}.png", picture(number, 256, 256))
        save(folder / "kimia" / "train" / f"s{label}" / name, picture(number, 1000, 1000))
        if number < 2:
            save(folder / "kimia" / "test" / f"s{label}_{number}.jpg", picture(number + images, 1000, 1000))


# -- rates -----------------------------------------------------------------------------------------------------


def readings(patches: PatchDataset, root: Path) -> dict[str, Callable[[int], object]]:
    """What is timed of one row: reading alone, and the whole sample, each decoded and kept."""

    def refuse():
        raise SystemExit("an image is not kept")

    without = PatchDataset.__new__(PatchDataset)
    vars(without).update(vars(patches), pixels=None)
    return {
        "reading, decoded": lambda row: read_rgb(root / patches.paths[row], patches.channel_order, patches.hashes[row]),
        "reading, kept": lambda row: patches.pixels.get(row, refuse),
        "sample, decoded": lambda row: without[0, row],
        "sample, kept": lambda row: patches[0, row],
    }


def rates(folder: Path, args: argparse.Namespace) -> pd.DataFrame:
    """A row a reading of a strategy's images; ratios are to the decoded one of the same round."""
    write_images(folder, args.images)
    study, table = study_of(folder, args.pairs), []
    for strategy in CURRICULUM:
        patches = patches_of(study, strategy)
        calls, rows = readings(patches, patches.root), range(min(args.images, len(patches)))
        for row in rows:
            patches[0, row]  # keeps it
        found = [{name: len(rows) / seconds(call, rows) for name, call in calls.items()} for _ in range(args.repeats)]
        for name in calls:
            what, how = name.split(", ")
            column = [each[name] for each in found]
            ratios = [each[name] / each[f"{what}, decoded"] for each in found]
            middle = {"images_per_s": statistics.median(column), "lowest": min(column), "highest": max(column)}
            spread = {"ratio": statistics.median(ratios), "ratio_lowest": min(ratios), "ratio_highest": max(ratios)}
            table.append({"strategy": strategy, "what": what, "how": how, **middle, **spread})
    return pd.DataFrame(table)


def seconds(call: Callable[[int], object], rows: range) -> float:
    """Wall time of a call a row."""
    start = time.perf_counter()
    for row in rows:
        call(row)
    return time.perf_counter() - start


# -- memory ----------------------------------------------------------------------------------------------------


def write_copies(folder: Path, images: int) -> None:
    """So many photographs of different bytes: the same ones, with a number behind their end."""
    sources = [cv2.imencode(".jpg", picture(number, 400, 500))[1].tobytes() for number in range(8)]
    for number in range(images):
        path = folder / "imagenet" / "train" / f"n{number % 2}" / f"{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sources[number % 8] + number.to_bytes(4, "little"))


def memory(folder: Path, args: argparse.Namespace) -> pd.DataFrame:
    """Peak memory of two epochs, the first of which fills what is kept, over ``--images`` and ten times as many."""
    table = []
    for images in (args.images, 10 * args.images):
        write_copies(folder / str(images), images)
        patch_table(study_of(folder / str(images), []), "imagenet")  # indexed here, so that it counts nowhere
        for how, cache in (("decoded", 0), ("kept", 16)):
            table.append({"images": images, "how": how, **alone("epochs", folder / str(images), cache)})
    return pd.DataFrame(table).drop(
        columns=["seconds", "cpu_seconds"]
    )  # which compare nothing: one run, one after the other


def epochs(folder: Path, cache: float) -> None:
    """Two epochs of strategy A."""
    patches = patches_of(study_of(folder, [], **{"compute.cache": cache}), "a")
    for _ in make_loader(patches, TrainingBatches(len(patches), 16, 2, 0), workers=0):
        pass


# -- index -----------------------------------------------------------------------------------------------------


def index(folder: Path, args: argparse.Namespace) -> pd.DataFrame:
    """Seconds and peak memory of each thing that a run asks of a large folder, each in a process of its own."""
    for number in range(DISTINCT):
        save(folder / "pictures" / f"{number}.jpg", picture(number, 32, 32))
    for label in range(CLASSES):
        below = folder / "imagenet" / "train" / f"n{label:08d}"
        below.mkdir(parents=True)
        for number in range(args.links // CLASSES):
            (below / f"{number}.JPEG").symlink_to(folder / "pictures" / f"{(label + number) % DISTINCT}.jpg")
    time.sleep(SETTLED)
    asked = ("state", "indexed", "table", "state", "unchanged")
    return pd.DataFrame([{"links": args.links, "asked": task, **alone(task, folder)} for task in asked])


ASKED = {
    "state": lambda study: data_state(study, "imagenet"),  # by every start of a run; the first reads all files
    "indexed": lambda study: patch_table(study, "imagenet"),  # by notebook 01, which decodes every file
    "table": lambda study: [patch_table(study, "imagenet") for _ in range(5)],  # by one training
    "unchanged": lambda study: check_unchanged(study, "imagenet"),  # before it
}


def alone(task: str, folder: Path, cache: float = 0) -> dict:
    """What ``inside`` measures, in a new process."""
    command = [sys.executable, __file__, "--inside", task, str(folder), str(cache)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT)
    if done.returncode:
        raise SystemExit(done.stderr)
    took, busy, before, peak = map(float, done.stdout.split()[-4:])
    print(f"{task}: {took:.1f} s ({busy:.1f} of the CPU), {peak:.0f} MiB, of which {before:.0f} before", flush=True)
    return {"seconds": took, "cpu_seconds": busy, "mib_before": before, "mib_peak": peak}


def inside(task: str, folder: Path, cache: float) -> None:
    """Seconds of a task, and of the CPU; the peak resident memory of this process in MiB before it and after it."""
    study, before = study_of(folder, []), peak_memory()
    start, busy = time.perf_counter(), time.process_time()
    epochs(folder, cache) if task == "epochs" else ASKED[task](study)
    print(time.perf_counter() - start, time.process_time() - busy, before, peak_memory())


def peak_memory() -> float:
    """In MiB; where there is one, from Linux' account of this program: ru_maxrss counts who started it too."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    if sys.argv[1:2] == ["--inside"]:
        return inside(sys.argv[2], Path(sys.argv[3]), float(sys.argv[4]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="|".join(TASKS))
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--links", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--scratch", type=Path, help="a folder for temporary files")
    parser.add_argument("--out", type=Path, default=PROJECT / "results" / "reference" / "benchmarks")
    parser.add_argument("--set", dest="pairs", nargs="+", default=[], metavar="key.path=value")
    args = parser.parse_args()
    if unknown := set(args.tasks) - set(TASKS):
        parser.error(f"no such task: {', '.join(sorted(unknown))} (there are {', '.join(TASKS)})")
    about = {"device": processor(), "python": platform.python_version(), "repeats": args.repeats}
    about |= {name: version(name) for name in ("numpy", "pillow", "albumentations", "opencv-python-headless")}
    args.out.mkdir(parents=True, exist_ok=True)
    for task in args.tasks or TASKS:  # argparse would hold a default of several words against choices
        with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
            table = globals()[task](Path(folder), args)
        table.to_csv(args.out / f"loading_{task}.csv", index=False, float_format="%.4g")
        write_json(args.out / f"loading_{task}.json", about)
        print(table.to_string(index=False, float_format="%.3g"))


if __name__ == "__main__":
    main()
