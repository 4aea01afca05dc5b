"""PathML 3.0.8 reads the PanNuke folder that we write, and we read the one that it writes.

PathML is GPL-2.0 software with an environment of its own; this file alone imports it, to compare the
two programs on the same small folds. Run it with ``./run_all.sh test-pathml``.
"""

import importlib.metadata
import re
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from lgffem_core.config.params import PanNuke
from lgffem_core.data.loading import read_rgb
from lgffem_core.data.sets.pannuke import SET
from lgffem_core.data.sets.pannuke_folds import convert_folds
from lgffem_core.data.table import build_table

pytestmark = [pytest.mark.pathml, pytest.mark.filterwarnings("ignore:.*pin_memory.*")]

try:
    importlib.metadata.version("pathml")
except importlib.metadata.PackageNotFoundError:
    pytest.skip(
        "PathML is not installed here; it has its own environment: ./run_all.sh test-pathml",
        allow_module_level=True,
    )

import openslide_bin  # noqa: E402, F401  - loads libopenslide, which PathML's bindings then find
from pathml.datasets.pannuke import PanNukeDataModule, PanNukeDataset  # noqa: E402

TISSUES = {  # of each fold, as types.npy spells them
    1: ["Adrenal_gland", "Bile-duct", "HeadNeck", "Breast", "Adrenal_gland"],
    2: ["Colon", "Adrenal_gland", "HeadNeck", "Bile-duct"],
    3: ["Uterus", "Bile-duct", "Adrenal_gland"],
}
SIZE = 256


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    """A folder of three small folds in the official format: float64 arrays, types as '<U13'."""
    root, rng = tmp_path_factory.mktemp("official"), np.random.default_rng(7)
    for fold, tissues in TISSUES.items():
        shape = (len(tissues), SIZE, SIZE)
        nuclei = np.where(rng.random((*shape, 5)) < 0.05, rng.integers(1, 60, (*shape, 5)), 0)
        background = ~nuclei.any(axis=3, keepdims=True)
        for kind in ("images", "masks"):
            (root / f"Fold {fold}" / kind / f"fold{fold}").mkdir(parents=True)
        images = root / f"Fold {fold}" / "images" / f"fold{fold}"
        np.save(images / "images.npy", rng.integers(0, 256, (*shape, 3)).astype(np.float64))
        np.save(images / "types.npy", np.array(tissues, dtype="<U13"))
        masks = np.concatenate([nuclei, background], axis=3).astype(np.float64)
        np.save(root / f"Fold {fold}" / "masks" / f"fold{fold}" / "masks.npy", masks)
    return root


@pytest.fixture(scope="module")
def truth(folds):
    """(fold, number) -> (RGB uint8 (256, 256, 3), tissue as in file names, mask (6, 256, 256))."""
    images = {}
    for fold, tissues in TISSUES.items():
        pixels = np.load(folds / f"Fold {fold}" / "images" / f"fold{fold}" / "images.npy").astype(np.uint8)
        masks = np.load(folds / f"Fold {fold}" / "masks" / f"fold{fold}" / "masks.npy")
        for i, tissue in enumerate(tissues):
            images[fold, i] = pixels[i], tissue.replace("_", "-"), masks[i].transpose(2, 0, 1)
    return images


@pytest.fixture(scope="module")
def ours(folds, tmp_path_factory):
    """The folder that our converter writes."""
    return convert_folds(folds, tmp_path_factory.mktemp("ours") / "pannuke")


@pytest.fixture(scope="module")
def theirs(folds, tmp_path_factory):
    """The folder that PathML's own processing step writes."""
    target = tmp_path_factory.mktemp("theirs") / "pannuke"
    shutil.copytree(folds, target)
    PanNukeDataModule._process_downloaded_pannuke(target)
    return target


def fold_and_number(name: str) -> tuple[int, int]:
    """The fold and number in a file name."""
    fold, number = re.match(r"fold(\d+)_(\d+)_", name).groups()
    return int(fold), int(number)


@pytest.mark.parametrize("fold", TISSUES)
def test_pathml_dataset_reads_our_folder(ours, truth, fold):
    dataset = PanNukeDataset(ours, fold_ix=fold, nucleus_type_labels=True)
    assert len(dataset) == len(TISSUES[fold])
    for i, stem in enumerate(dataset.paths):
        image_CHW, mask, tissue = dataset[i]
        rgb, expected_tissue, expected_mask = truth[fold_and_number(stem)]
        assert fold_and_number(stem)[0] == fold
        assert tissue == expected_tissue
        np.testing.assert_array_equal(image_CHW.numpy().transpose(1, 2, 0), rgb)
        np.testing.assert_array_equal(mask.numpy(), expected_mask)


@pytest.mark.parametrize("split", [1, 2, 3])
def test_pathml_data_module_reads_our_folder(ours, truth, split):
    module = PanNukeDataModule(ours, split=split, batch_size=2, shuffle=False)
    train_fold, valid_fold, test_fold = {1: (1, 2, 3), 2: (2, 1, 3), 3: (3, 2, 1)}[split]
    loaders = {
        train_fold: module.train_dataloader,
        valid_fold: module.valid_dataloader,
        test_fold: module.test_dataloader,
    }
    for fold, loader in loaders.items():
        seen = Counter(
            (tissue, image_CHW.numpy().transpose(1, 2, 0).tobytes())
            for images, _, tissues in loader
            for image_CHW, tissue in zip(images, tissues, strict=True)
        )
        wanted = Counter((tissue, rgb.tobytes()) for (k, _), (rgb, tissue, _) in truth.items() if k == fold)
        assert seen == wanted


@pytest.mark.parametrize("writer", ["theirs", "ours"])
def test_we_read_a_prepared_folder(writer, truth, request):
    root = request.getfixturevalue(writer)
    table = build_table(root, *SET.layout(root, PanNuke()))
    assert len(table) == len(truth)
    for row in table.itertuples():
        key = fold_and_number(row.path.split("/")[-1])
        rgb, tissue, _ = truth[key]
        assert (row.group, row.label, row.split) == (f"fold{key[0]}", tissue, "train")
        np.testing.assert_array_equal(read_rgb(root / row.path, "bgr"), rgb)


@pytest.mark.parametrize("split", [1, 2, 3])
def test_our_split_trains_on_the_fold_that_pathml_trains_on(theirs, split):
    table = build_table(theirs, *SET.layout(theirs, PanNuke(split=split)))
    dataset = PanNukeDataModule(theirs, split=split).train_dataloader.dataset
    trained_on = {path.split("/")[-1].removesuffix(".png") for path in table.path[table.split == "train"]}
    assert trained_on == set(dataset.paths)


def test_both_write_the_same_folder(ours, theirs):
    files, their_files = (
        sorted(f"{kind}/{path.name}" for kind in ("images", "masks") for path in (root / kind).iterdir())
        for root in (ours, theirs)
    )
    assert files == their_files
    assert len(files) == 2 * sum(map(len, TISSUES.values()))
    for name in files:
        load = np.load if name.endswith(".npy") else lambda path: np.asarray(Image.open(path))
        a, b = load(ours / name), load(theirs / name)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_array_equal(a, b)
