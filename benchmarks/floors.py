"""Every floor under every image condition and protocol: how much of the task is stain?

    python benchmarks/floors.py FOLDER [--weights FILE]

FOLDER is in Kimia's layout; FILE holds MobileNetV2 0.35's weights. The reference of the normalisers is the
training patch whose mean colour is closest to that of all training patches. Patches larger than the 224
pixels that the backbone sees are reduced to them first.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from lgffem_core.audit import floors
from lgffem_core.config.params import Backbone as BackboneParams
from lgffem_core.config.params import Kimia
from lgffem_core.data.augment import evaluation_resize
from lgffem_core.data.loading import read_rgb
from lgffem_core.data.sets.kimia import SET
from lgffem_core.data.table import build_table
from lgffem_core.model.backbone import Backbone
from lgffem_core.retrieval.encoder import Encoder, embed_images
from lgffem_core.retrieval.protocols import evaluate

PROTOCOLS = ("test_to_train", "leave_one_out", "released")
PARAMS = {
    "name": "mobilenetv2_035",
    "pretrained": False,
    "options": {"pad_type": "same", "bn_eps": 1e-3},
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
}


def pooled(backbone: Backbone) -> Callable:
    """A frozen backbone as a descriptor of images at 224 pixels."""
    encoder = Encoder("backbone", "not kept", lambda: floors.PooledBackbone(backbone), evaluation_resize(224))
    return partial(embed_images, encoder)


def descriptors(weights: Path | None) -> dict:
    """Every floor by name; the frozen backbone only where there are weights."""
    torch.manual_seed(0)
    found = {
        "mean colour": floors.mean_colour,
        "RGB histogram": floors.rgb_histogram,
        "joint RGB histogram": lambda images: floors.rgb_histogram(images, joint=True),
        "joint RGB, Hellinger": lambda images: floors.hellinger(floors.rgb_histogram(images, joint=True)),
        "H&E histogram": floors.stain_histogram,
        "H&E, Hellinger": lambda images: floors.hellinger(floors.stain_histogram(images)),
        "untrained backbone": pooled(Backbone(BackboneParams(**PARAMS))),
    }
    if weights:
        found["frozen backbone"] = pooled(Backbone(BackboneParams(**PARAMS), weights))
    return found


def conditions(images: list, test: np.ndarray) -> dict:
    """Every condition by name, as a function of all images."""
    colours = floors.mean_colour(images)
    distance = np.linalg.norm(colours - colours[~test].mean(axis=0), axis=1)
    reference = images[np.where(test, np.inf, distance).argmin()]

    def jittered(strength: float) -> floors.Conditioned:
        changed = [floors.stain_jitter(image, number, strength) for number, image in enumerate(images)]
        return floors.Conditioned(changed, np.zeros(len(images), dtype=bool))

    return {
        "as they are": lambda: floors.Conditioned(images, np.zeros(len(images), dtype=bool)),
        "grey": lambda: floors.under(floors.without_colour, images),
        "Macenko": lambda: floors.under(floors.macenko(reference), images),
        "Reinhard": lambda: floors.under(floors.reinhard(reference), images),
        "jitter 0.05": lambda: jittered(0.05),
        "jitter 0.2": lambda: jittered(0.2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", type=Path)
    options = parser.parse_args()
    table, resize = build_table(options.folder, *SET.layout(options.folder, Kimia())), evaluation_resize(224)
    labels, test = table["label_id"].to_numpy(), (table["split"] == "test").to_numpy()
    images = [read_rgb(options.folder / path) for path in table["path"]]
    images = [resize(image, 0) if max(image.shape) > 224 else image for image in images]
    floors_by_name = descriptors(options.weights)
    print("eta_p (eta_w) under", ", ".join(PROTOCOLS))
    for condition, apply in conditions(images, test).items():
        start = time.perf_counter()
        conditioned = apply()
        print(f"{condition}: {conditioned.unchanged.sum()} unchanged, {time.perf_counter() - start:.1f} s", flush=True)
        for name, describe in floors_by_name.items():
            scores = [evaluate(p, describe(conditioned.images), labels, test).scores for p in PROTOCOLS]
            print(f"  {name:20}", "   ".join(f"{s.eta_p:5.1f} ({s.eta_w:5.1f})" for s in scores), flush=True)


if __name__ == "__main__":
    main()
