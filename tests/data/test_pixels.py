"""Kept pixels: the very samples that decoding gives, whatever happened to the file that keeps them."""

import multiprocessing
import os
import resource
import signal
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lgffem_core.base.errors import StudyError
from lgffem_core.base.files import sha256_file
from lgffem_core.base.seeds import derive_seed
from lgffem_core.data import images_root, patch_table, pixels
from lgffem_core.data.augment import Augment, evaluation_resize, random_crops
from lgffem_core.data.loading import make_loader, normalise, read_rgb
from lgffem_core.data.pixels import SLOT, Pixels, kept_pixels, make_file
from lgffem_core.retrieval.encoder import Encoder, embed_table
from lgffem_core.systems.baselines.ma_ms import ma_ms_transform
from lgffem_core.systems.lgffem.augmentation import training_augment
from lgffem_core.training.patches import training_patches, training_set

NETWORK = SimpleNamespace(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5))
SIDES = [(31, 47), (64, 64), (90, 33), (24, 24)]


def photo(path, seed, height, width):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)).save(path)


@pytest.fixture
def study(tiny_study, tmp_path):
    """A study whose photographs have many sizes, and whose tiles are BGR files."""
    for label in range(2):
        for number, (height, width) in enumerate(SIDES):
            photo(tmp_path / "photos" / "train" / f"n{label}" / f"{number}.JPEG", 8 * label + number, height, width)

    def make(folder="run", **changes):
        return tiny_study(folder, data__imagenet__root=str(tmp_path / "photos"), **changes)

    return make


def training(study, dataset, transform):
    return training_patches(study, dataset, training_set(study, dataset), transform, NETWORK, seed=3)


def files_of(study):
    return sorted((study.artifacts / "pixels").iterdir())


@pytest.fixture
def decoded(monkeypatch):
    """The files that are decoded."""
    read, original = [], sys.modules["lgffem_core.data.loading"].read_rgb
    monkeypatch.setattr("lgffem_core.data.loading.read_rgb", lambda *a: read.append(a[0].name) or original(*a))
    return read


TRAININGS = [
    ("imagenet", training_augment("a", 24)),
    ("pannuke", training_augment("b", 24)),
    ("pannuke", training_augment("b", 40)),  # larger than the tiles
    ("kimia", training_augment("c", 32)),  # their own size
    ("kimia", ma_ms_transform(24, training=True)),
]


@pytest.mark.parametrize(("dataset", "transform"), TRAININGS, ids=["a", "b", "b enlarged", "c", "ma_ms"])
@pytest.mark.parametrize("workers", [0, 2])
def test_every_sample_of_two_epochs_is_the_very_same(study, dataset, transform, workers, decoded):
    """Against the transform of what the file holds, without any of the code that keeps pixels."""
    mine = study(compute__workers=workers)
    table, root, order = training_set(mine, dataset), images_root(mine, dataset), "rgb"
    if dataset == "pannuke":
        order = "bgr"
    served = training(mine, dataset, transform)
    plain = training(study(compute__cache=0), dataset, transform)
    assert plain.pixels is None and served.pixels is not None
    keys = [(epoch, row) for epoch in range(2) for row in range(len(table))]
    batches = make_loader(served, [[key] for key in keys], workers)
    for (epoch, row), (image, label, _) in zip(keys, batches, strict=True):
        seed = derive_seed("augment", 3, epoch, row)
        stored = read_rgb(root / table["path"][row], order)
        assert torch.equal(image[0], normalise(transform(stored, seed), NETWORK.mean, NETWORK.std))
        assert torch.equal(image[0], plain[epoch, row][0]) and label == table["label_id"][row]
    decoded.clear()
    assert all(torch.equal(served[key][0], plain[key][0]) for key in keys)
    assert len(decoded) == len(keys)  # the plain ones alone: nothing was decoded a second time


def test_photographs_are_kept_as_they_are_and_patches_at_their_size(study):
    mine = study()
    for dataset, transform in TRAININGS[:2]:
        patches = training(mine, dataset, transform)
        for row in range(len(patches)):
            patches[0, row]
    photos, tiles = files_of(mine)
    table = patch_table(mine, "imagenet").drop_duplicates("sha256")
    data = np.fromfile(photos, np.uint8)[len(table) * SLOT.itemsize :]
    for path in table["path"]:
        image = read_rgb(images_root(mine, "imagenet") / path)
        assert (data[: image.size].reshape(image.shape) == image).all()
        data = data[image.size :]
    assert not len(data)
    assert tiles.stat().st_size == 24 * (SLOT.itemsize + 3 * 24 * 24)


def test_training_and_embedding_share_what_is_kept(study, decoded):
    mine, table = study(), patch_table(study(), "kimia")
    patches = training(mine, "kimia", training_augment("c", 24))
    for row in range(len(patches)):
        patches[0, row]
    decoded.clear()
    holder, pool = torch.nn.Module(), torch.nn.AvgPool2d(8)
    holder.mean, holder.std, holder.forward = *vars(NETWORK).values(), lambda images: pool(images).flatten(1)
    encoder = Encoder("", "", lambda: holder, evaluation_resize(24))
    found = embed_table(mine, "kimia", table, encoder)
    assert len(files_of(mine)) == 1 and len(decoded) == (table["split"] == "test").sum() == 12
    assert np.array_equal(found, embed_table(study(compute__cache=0), "kimia", table, encoder))


# -- what is not to be trusted ---------------------------------------------------------------------------------


@pytest.fixture
def filled(study):
    """Strategy C's training images, kept, and each as decoding gives it."""
    patches = training(study(), "kimia", training_augment("c", 24))
    images = [patches[0, row][0] for row in range(len(patches))]
    return patches, images


def same(patches, images):
    return all(torch.equal(patches[0, row][0], image) for row, image in enumerate(images))


@pytest.mark.parametrize("place", range(4))
def test_a_changed_byte_is_found_said_and_mended(filled, decoded, capsys, place):
    patches, images = filled
    path, size = patches.pixels.path, 3 * 24 * 24
    data = bytearray(path.read_bytes())
    at = [5 * SLOT.itemsize + 8, len(patches.pixels.shapes) * SLOT.itemsize + 5 * size, -size * 3, -1][place]
    data[at] ^= 64
    path.write_bytes(data)
    assert same(patches, images)
    said = capsys.readouterr().out
    touched = place < 2  # the last slots are of test patches
    assert (said.count("is damaged at image 5, which is decoded again") == 1) == touched
    assert len(decoded) == touched
    decoded.clear()
    assert same(patches, images) and not decoded


def test_a_file_that_lost_its_end_or_its_table_is_made_anew(study, filled, decoded):
    patches, images = filled
    path = patches.pixels.path
    for damaged in (path.read_bytes()[:-1], path.read_bytes()[:7], b"", b"\xff" * path.stat().st_size):
        path.write_bytes(damaged)
        again = training(study(), "kimia", training_augment("c", 24))
        assert same(again, images) and len(decoded) == len(images)
        decoded.clear()
        assert same(again, images) and not decoded


def test_a_file_that_vanishes_meanwhile_costs_time_alone(filled, decoded):
    patches, images = filled
    patches.pixels.path.unlink()
    assert same(patches, images) and len(decoded) == len(images)


def test_a_changed_image_is_refused_as_without_a_cache(study):
    """What is kept is of the bytes that the index names; a file that is another one now is not to pass for it."""
    mine = study()
    patches = training(mine, "imagenet", training_augment("a", 24))
    kept = [patches[0, row][0] for row in range(len(patches))]
    file = images_root(mine, "imagenet") / training_set(mine, "imagenet")["path"][2]
    before = file.read_bytes()
    photo(file, 99, 31, 47)
    again = training(mine, "imagenet", training_augment("a", 24))
    with pytest.raises(StudyError, match="changed since the index was made"):
        again[0, 2]
    assert torch.equal(again[0, 3][0], kept[3])
    file.write_bytes(before)
    assert same(training(mine, "imagenet", training_augment("a", 24)), kept)


def test_changed_files_that_are_accepted_are_decoded(study):
    mine = study(data__accept_changed_files=True)
    patches = training(mine, "imagenet", training_augment("a", 24))
    before = patches[0, 2][0]
    photo(images_root(mine, "imagenet") / training_set(mine, "imagenet")["path"][2], 99, 31, 47)
    after = training(mine, "imagenet", training_augment("a", 24))[0, 2][0]
    assert not torch.equal(before, after)
    plain = study(data__accept_changed_files=True, compute__cache=0)
    assert torch.equal(after, training(plain, "imagenet", training_augment("a", 24))[0, 2][0])


def write_and_empty(path, ready):
    """Fill and empty the slots of a file, forever."""
    kept, draw = Pixels(path, 40, np.arange(40)), np.random.default_rng()
    ready.set()
    while True:
        for row in draw.permutation(40):
            image = expected(row)
            assert (kept.get(row, lambda image=image: image) == image).all()
            if draw.random() < 0.5:  # empties it, for the next to be filled
                kept.write((int(row) * 12 + 8, bytes(4)))


@pytest.fixture
def writers(tmp_path):
    """Starts processes that fill and empty the slots of one file."""
    path, started = tmp_path / "x.u8", []
    assert make_file(path, np.tile([200, 300], (40, 1)), 1 << 30)

    def start():
        fork = multiprocessing.get_context("fork")
        process = fork.Process(target=write_and_empty, args=(path, ready := fork.Event()), daemon=True)
        process.start()
        started.append(process)
        assert ready.wait(60)
        return process

    yield path, start
    for process in started:
        process.kill()
        process.join()


def expected(row):
    return np.random.default_rng(row).integers(0, 256, (200, 300, 3), np.uint8)


def test_two_processes_at_once_and_kills_amid_writing_leave_no_wrong_pixel(writers, capsys):
    path, start = writers
    steady, kept = start(), Pixels(path, 40, np.arange(40))
    for _ in range(3):
        victim = start()
        time.sleep(0.3)
        victim.kill()
        victim.join()
        for row in range(40):
            assert np.array_equal(kept.get(row, lambda row=row: expected(row)), expected(row))
    assert steady.is_alive()  # none of its assertions failed
    steady.kill()
    assert "damaged" not in capsys.readouterr().out


def test_pixels_without_their_checksum_are_not_used(tmp_path):
    """As a writer leaves them that is killed between the two."""
    path = tmp_path / "x.u8"
    make_file(path, np.array([[2, 2], [2, 2]]), 1000)
    kept, image = Pixels(path, 2, np.arange(2)), np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    kept.write((24 + 12, bytes(range(100, 112))))
    assert np.array_equal(kept.get(1, lambda: image), image)
    assert np.array_equal(kept.get(1, lambda: pytest.fail("decoded again")), image)
    with open(path, "rb") as file:  # the same bytes in another slot are none
        data = file.read()
    path.write_bytes(data[:8] + data[20:24] + data[12:24] + data[36:] * 2)
    assert np.array_equal(kept.get(0, lambda: image + 1), image + 1)


# -- room ------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_decoded_each_time_and_said(study, capsys, monkeypatch):
    small = 3 * 24 * 24 * 24 / pixels.GIB  # of 24 tiles and their table a little too little
    assert training(study(compute__cache=small), "pannuke", training_augment("b", 24)).pixels is None
    assert "pannuke: decoded anew each time" in capsys.readouterr().out
    assert training(study(compute__cache=1e-6), "imagenet", random_crops(24)).pixels is None
    monkeypatch.setattr(pixels.shutil, "disk_usage", lambda folder: SimpleNamespace(free=60_000))
    assert training(study(), "pannuke", training_augment("b", 24)).pixels is None
    assert not files_of(study())


def test_the_least_recently_used_makes_room(study):
    mine = study(compute__cache=(3 * 24 * 24 * 36 + 3 * 24 * 24 * 24 + 1000) / pixels.GIB)
    first = training(mine, "kimia", training_augment("c", 24)).pixels.path
    second = training(mine, "pannuke", training_augment("b", 24)).pixels.path
    os.utime(second, (1, 1))
    third = training(mine, "pannuke", training_augment("b", 23)).pixels.path
    assert set(files_of(mine)) == {first, third}


def test_a_full_disk_is_one_sentence(tmp_path):
    make_file(tmp_path / "x.u8", np.array([[100, 100]]), 1 << 20)
    kept, before = Pixels(tmp_path / "x.u8", 1, np.zeros(1, int)), resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(StudyError, match=r"x.u8: cannot be written \(File too large\); raise the limit"):
            kept.get(0, lambda: np.ones((100, 100, 3), np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert (kept.get(0, lambda: np.full((100, 100, 3), 7, np.uint8)) == 7).all()


def test_another_order_of_channels_and_other_files_are_kept_apart(study):
    paths = {
        training(study(**changes), "pannuke", training_augment("b", 24)).pixels.path
        for changes in ({}, {"data__pannuke__channel_order": "rgb"}, {"compute__workers": 1})
    }
    assert len(paths) == 2


def test_a_resize_that_does_not_come_first_is_no_beginning():
    image = np.random.default_rng(0).integers(0, 256, (31, 47, 3), np.uint8)
    crops, resize = random_crops(24), evaluation_resize(24)
    assert crops.resize is None and crops.begin(image) is image
    assert np.array_equal(resize.begin(image), resize(image, 0)) and resize.begin(image).shape == (24, 24, 3)
    assert Augment(resize.pipeline.transforms[::-1]).begin(resize.begin(image)).shape == (24, 24, 3)


def test_an_image_is_known_by_its_hash_wherever_it_lies(study):
    mine = study()
    table = training_set(mine, "kimia").iloc[[5, 2, 5]]
    kept = kept_pixels(mine, "kimia", table, training_augment("c", 24))
    assert kept.rows[0] == kept.rows[2] != kept.rows[1] and len(set(table["sha256"])) == 2
    assert sha256_file(images_root(mine, "kimia") / table["path"].iloc[0]) == table["sha256"].iloc[0]
