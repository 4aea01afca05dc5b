"""A study small enough to train in a second: four classes of flat colours with noise, tiny images."""

import numpy as np
import pytest
from PIL import Image

from lgffem_core.study import PROJECT as HERE
from lgffem_core.study import Study

SMALL = {
    "profile": "tiny",
    "model.image_size": 32,
    "model.neck.channels": 8,
    "model.neck.layers": 1,
    "model.backbone.name": "convnextv2_atto",
    "training.batch_size": 8,
    "training.loss.lr": 1e-2,
    "training.a.epochs": 2,
    "training.b.epochs": 2,
    "training.c.epochs": 3,
    "compute.workers": 0,
    "compute.threads": 1,
    "data.kimia.scans": 4,
    "data.pannuke.tissues": "any",
    "retrieval.bootstrap": 200,
}
COLOURS = [(220, 80, 120), (90, 60, 160), (230, 200, 215), (150, 110, 90)]


def write_patch(path, colour, rng):
    noise = rng.normal(0, 25, size=(32, 32, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """One folder for each data set, in its layout."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for k, colour in enumerate(COLOURS):
        for i in range(6):
            write_patch(root / "imagenet" / "train" / f"n{k}" / f"{i}.JPEG", colour, rng)
            write_patch(root / "pannuke" / "images" / f"fold{i % 3 + 1}_{6 * k + i}_T{k}.png", colour, rng)
            write_patch(root / "kimia" / "train" / f"s{k}" / f"{i}.jpg", colour, rng)
        for i in range(3):
            write_patch(root / "kimia" / "test" / f"s{k}" / f"s{k}_{i}.jpg", colour, rng)
    return root


@pytest.fixture
def tiny_study(tiny_data, tmp_path):
    """Makes a study in ``tmp_path`` on the tiny data; keyword arguments set parameters ("__" for ".")."""

    def make(folder="run", **changes):
        overrides = {
            **SMALL,
            **{f"data.{d}.root": str(tiny_data / d) for d in ("imagenet", "pannuke", "kimia")},
        }
        overrides |= {key.replace("__", "."): value for key, value in changes.items()}
        return Study.load(HERE / "params" / "smoke.yaml", overrides, root=tmp_path / folder)

    make.settings = SMALL
    return make
