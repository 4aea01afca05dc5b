"""The losses of 50 steps of strategies A, B and C, to the last bit: what ``test_golden_losses.py`` compares.

    python tests/training/golden_losses.py             # prints them
    python tests/training/golden_losses.py --write     # stores them in golden_losses.json

Store them again, in a commit that says why, after a change that is meant to change what training computes, or
with other versions of the libraries. They are computed on one thread with an instruction set that every x86-64
processor has; images are whole numbers in PNG files. ``--as-it-is`` leaves the instruction set to the machine,
``--threads`` sets another number of threads: to see how much hangs on that.
"""

import argparse
import hashlib
import json
import os
import platform
import sys
import tempfile
from importlib.metadata import distributions, version
from pathlib import Path

STORED = Path(__file__).with_suffix(".json")
ROOT = Path(__file__).resolve().parents[2]
STEPS = 50
LIBRARIES = (
    "torch",
    "timm",
    "pytorch-metric-learning",
    "lightning-fabric",
    "albumentations",
    "opencv-python-headless",
    "numpy",
    "pillow",
)
PINNED = {  # read when the libraries are loaded, so they must be there before
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
    "OPENCV_CPU_DISABLE": "AVX2,AVX,FP16",
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}
SETTINGS = {  # 20 images in batches of 4: 5 steps an epoch, 10 epochs
    "profile": "golden",
    "model.image_size": 64,
    "model.backbone.options": {"depths": [1, 1, 1, 1]},  # half the time; nothing of it is trained
    "model.neck.channels": 8,
    "model.neck.layers": 2,
    "training.batch_size": 4,
    "training.a.epochs": 10,
    "training.b.epochs": 10,
    "training.c.epochs": 10,
    "data.pannuke.tissues": "any",
    "data.kimia.scans": 4,
    "compute.device": "cpu",
    "compute.precision": "32-true",
    "compute.workers": 0,
}
COLOURS = ((220, 80, 120), (90, 60, 160), (230, 200, 215), (150, 110, 90))


def write_images(root: Path) -> None:
    """Four classes of coloured noise in each data set's layout: integers throughout, the same everywhere."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for k, colour in enumerate(COLOURS):
        for i in range(5):
            for name in (
                f"imagenet/train/n{k}/{i}.JPEG",
                f"pannuke/images/fold{i % 3 + 1}_{5 * k + i}_T{k}.png",
                f"kimia/train/s{k}/{i}.png",
                *([f"kimia/test/s{k}/s{k}_{i}.png"] if i < 2 else []),
            ):
                noise = rng.integers(-60, 61, size=(64, 64, 3))
                pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / name, format="PNG")


def compute(threads: int) -> dict[str, list[str]]:
    """Strategy -> its losses, as ``float.hex`` writes them."""
    from lgffem_core.config.study import Study
    from lgffem_core.systems.lgffem.strategies import train_strategy
    from lgffem_core.training import loop
    from lgffem_core.training.loop import Trainer

    losses, original = {"a": [], "b": [], "c": []}, Trainer.train_step

    def note(self, *arguments):
        value = original(self, *arguments)
        losses[self.recipe.name].append(float(value).hex())
        return value

    Trainer.train_step = note
    loop.save_checkpoint = lambda folder, checkpoint: None  # no run here goes on from one
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder))
        roots = {f"data.{name}.root": f"{folder}/{name}" for name in ("imagenet", "pannuke", "kimia")}
        overrides = {**SETTINGS, **roots, "compute.threads": threads}
        train_strategy(Study.load(ROOT / "params" / "smoke.yaml", overrides, root=folder), "c", "paper", 0)
    assert {len(values) for values in losses.values()} == {STEPS}
    return losses


def processor() -> str:
    """The processor's name, for whoever compares."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def circumstances() -> dict:
    """What the last bits may depend on."""
    return {
        "machine": platform.machine(),
        "processor": processor(),
        "versions": {name: version(name) for name in LIBRARIES if list(distributions(name=name))},
        "lock": hashlib.sha256((ROOT / "requirements.lock").read_bytes()).hexdigest(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--as-it-is", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if not options.as_it_is and any(os.environ.get(key) != value for key, value in PINNED.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **PINNED})
    sys.stdout, wanted = sys.stderr, sys.stdout  # the lines of the epochs are not part of the result
    result = {**circumstances(), "losses": compute(options.threads)}
    text = json.dumps(result, indent=1) + "\n"
    STORED.write_text(text) if options.write else print(text, end="", file=wanted)


if __name__ == "__main__":
    main()
