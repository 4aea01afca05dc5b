"""Tiny images in the real layouts."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def picture():
    """Writes an image of noise that ``seed`` determines, and gives its path back."""

    def write(path, seed=0, size=8):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, size=(size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return write


def truncated(path):
    path.write_bytes(path.read_bytes()[:-40])


def emptied(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("<html>404: this is not the image that you are looking for</html>" * 20)


@pytest.fixture(params=[truncated, emptied, text], ids=lambda damage: damage.__name__)
def damage(request):
    """Three ways in which a download goes wrong: cut off, empty, an error page instead of the image."""
    return request.param


@pytest.fixture
def kimia_folder(tmp_path, picture):
    """Makes a Kimia folder of three scans: training names repeat, test patches lie flat or one folder a scan."""

    def make(flat=True, scans=3, name="kimia"):
        root = tmp_path / name
        for scan in range(scans):
            for number in (1, 2, 10):
                picture(root / "train" / f"s{scan}" / f"{number}.jpg", seed=100 * scan + number)
            for number in (2, 10):
                folder = root / "test" if flat else root / "test" / f"s{scan}"
                picture(folder / f"s{scan}_{number}.jpg", seed=1000 + 100 * scan + number)
        return root

    return make


@pytest.fixture
def official_folds(tmp_path):
    """Makes PanNuke's official folder with tiles of 8 pixels: 3, 2 and 2 of them, masks included."""
    tissues = (["Breast", "Adrenal_gland", "Bile-duct"], ["Colon", "Breast"], ["Adrenal_gland", "Colon"])

    def make(masks=True, name="pannuke"):
        root, rng = tmp_path / name, np.random.default_rng(0)
        for fold, types in enumerate(tissues, start=1):
            folder = root / f"Fold {fold}"
            (folder / "images" / f"fold{fold}").mkdir(parents=True)
            (folder / "masks" / f"fold{fold}").mkdir(parents=True)
            images = rng.integers(0, 256, size=(len(types), 8, 8, 3)).astype(np.float64)  # as distributed
            np.save(folder / "images" / f"fold{fold}" / "images.npy", images)
            np.save(folder / "images" / f"fold{fold}" / "types.npy", np.array(types))
            if masks:
                np.save(folder / "masks" / f"fold{fold}" / "masks.npy", rng.integers(0, 9, size=(len(types), 8, 8, 6)))
        return root

    return make
