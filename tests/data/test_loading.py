"""Loading: the order, the batches and every pixel are functions of (seed, epoch, sample), and of nothing else."""

import gc

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.base.files import sha256_file
from lgffem_core.data.augment import evaluation_resize
from lgffem_core.data.loading import (
    PatchDataset,
    TrainingBatches,
    epoch_order,
    evaluation_loader,
    make_loader,
    normalise,
    read_rgb,
    steps_per_epoch,
)
from lgffem_core.data.table import build_table
from lgffem_core.systems.lgffem.augmentation import training_augment

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)


@pytest.fixture
def table(tmp_path, picture):
    rows = []
    for number in range(10):
        picture(tmp_path / f"{number}.png", seed=number, size=20)
        rows.append((f"{number}.png", f"class{number % 3}", "train", "x"))
    hashes = {path: sha256_file(tmp_path / path) for path, *_ in rows}
    return build_table(tmp_path, rows, ["class0", "class1", "class2"], hashes)


@pytest.fixture
def patches(table, tmp_path):
    def make(rows=table, transform=None, **options):
        return PatchDataset(rows, tmp_path, transform or training_augment("b", 16), MEAN, STD, **options)

    return make


# -- decoding ----------------------------------------------------------------------------------------------


def test_bgr_files_are_put_right(tmp_path):
    stored = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    Image.fromarray(stored).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), stored)
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png", "bgr"), stored[:, :, [2, 1, 0]])


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_other_colour_modes_become_rgb(tmp_path, mode):
    Image.new("RGB", (3, 2), (204, 204, 204)).convert(mode).save(tmp_path / "a.png")
    pixels = read_rgb(tmp_path / "a.png")
    assert pixels.dtype == np.uint8 and pixels.shape == (2, 3, 3) and (pixels == 204).all()


def test_an_unreadable_image_is_one_sentence_that_names_the_file(tmp_path, picture, damage):
    bad = picture(tmp_path / "a.jpg", size=32)
    damage(bad)
    with pytest.raises(StudyError) as caught:
        read_rgb(bad)
    assert str(caught.value).startswith(f"{bad}: cannot be decoded (") and "\n" not in str(caught.value)


def test_a_file_is_decoded_only_where_its_bytes_are_those_of_the_index(tmp_path, patches, picture):
    dataset = patches()
    dataset[0, 7]
    picture(tmp_path / "7.png", seed=1007, size=20)  # a sound image, but another one
    with pytest.raises(StudyError) as caught:
        dataset[0, 7]
    assert str(caught.value).startswith(f"{tmp_path / '7.png'}: changed since the index was made")
    dataset[0, 6]


def test_a_file_that_changed_is_named_from_a_worker_too(tmp_path, patches, monkeypatch):
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.2)  # seconds to wait for its end
    dataset = patches()
    (tmp_path / "7.png").write_bytes(b"")
    with pytest.raises(StudyError, match="7.png: changed since the index was made"):
        list(evaluation_loader(dataset, 4, workers=1))
    gc.collect()  # ends the worker now


def test_normalise_against_a_loop():
    image = np.random.default_rng(0).integers(0, 256, size=(4, 5, 3), dtype=np.uint8)
    ours = normalise(image, MEAN, STD)
    assert ours.shape == (3, 4, 5) and ours.dtype == torch.float32 and ours.is_contiguous()
    for c in range(3):
        for y in range(4):
            for x in range(5):
                assert ours[c, y, x].item() == pytest.approx((image[y, x, c] / 255 - MEAN[c]) / STD[c], abs=1e-5)


def test_normalise_gives_the_last_bit_of_the_arithmetic_for_every_level():
    image = np.stack([np.arange(256, dtype=np.uint8).reshape(16, 16)] * 3, axis=2)[::-1, 1:]  # and not contiguous
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    plain = (image.astype(np.float32) / 255.0 - np.float32(mean)) / np.float32(std)
    assert np.array_equal(normalise(image, mean, std).numpy(), plain.transpose(2, 0, 1))


# -- items -------------------------------------------------------------------------------------------------


def test_an_item_is_image_label_and_row(patches, table):
    image, label, row = patches()[3, 4]
    assert image.shape == (3, 16, 16) and image.dtype == torch.float32
    assert (label, row) == (table["label_id"][4], 4) == (1, 4)


def test_evaluation_gives_every_sample_once_and_in_order(patches, tmp_path):
    batches = list(evaluation_loader(patches(transform=evaluation_resize(20)), 4, workers=0))
    assert [len(images) for images, _, _ in batches] == [4, 4, 2]
    assert torch.cat([rows for _, _, rows in batches]).tolist() == list(range(10))
    labels = torch.cat([labels for _, labels, _ in batches])
    assert labels.dtype == torch.int64 and labels.tolist() == [number % 3 for number in range(10)]
    stored = np.asarray(Image.open(tmp_path / "9.png"))
    torch.testing.assert_close(batches[2][0][1], normalise(stored, MEAN, STD))  # 20 px stay as they are


def test_even_batches_end_with_the_last_sample_again(patches):
    batches = list(evaluation_loader(patches(transform=evaluation_resize(20)), 4, workers=0, even=True))
    assert torch.cat([rows for _, _, rows in batches]).tolist() == [*range(10), 9, 9]


def items(dataset, workers):
    batches = TrainingBatches(len(dataset), batch_size=4, epochs=2, seed=0)
    return list(make_loader(dataset, batches, workers))


@pytest.mark.parametrize("strategy", ["a", "b", "c"])
def test_items_do_not_depend_on_the_number_of_workers(patches, strategy):
    dataset = patches(transform=training_augment(strategy, 16), seed=3)
    alone = items(dataset, workers=0)
    assert len(alone) == 4
    for workers in (1, 2):
        for ours, theirs in zip(items(dataset, workers), alone, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_sample_looks_different_in_another_epoch_and_under_another_seed(patches):
    a = training_augment("a", 16)
    first, again = patches(transform=a)[0, 0][0], patches(transform=a)[0, 0][0]
    assert torch.equal(first, again)
    assert not torch.equal(first, patches(transform=a)[1, 0][0])
    assert not torch.equal(first, patches(transform=a, seed=1)[0, 0][0])


def test_the_augmentation_belongs_to_the_sample_and_not_to_its_row(patches, table):
    """A table's index label is the sample id: a subset in another order augments each sample as before."""
    whole, part = patches(), patches(rows=table.loc[[7, 2, 5]])
    for row, sample in enumerate([7, 2, 5]):
        image, label, _ = part[1, row]
        expected, expected_label, _ = whole[1, sample]
        assert torch.equal(image, expected) and label == expected_label


def test_two_equal_files_are_augmented_apart(patches, table):
    twice = pd.concat([table.iloc[[0]], table.iloc[[0]]], ignore_index=True)
    dataset = patches(rows=twice, transform=training_augment("a", 16))
    assert not torch.equal(dataset[0, 0][0], dataset[0, 1][0])


# -- order and batches -------------------------------------------------------------------------------------


def test_an_epochs_order_is_a_permutation_and_a_function_of_seed_and_epoch():
    orders = {(seed, epoch): tuple(epoch_order(50, seed, epoch)) for seed in range(3) for epoch in range(4)}
    assert all(sorted(order) == list(range(50)) for order in orders.values())
    assert len(set(orders.values())) == 12
    assert orders == {key: tuple(epoch_order(50, *key)) for key in orders}


@pytest.mark.parametrize(("size", "batch", "steps"), [(10, 4, 2), (12, 4, 3), (3, 4, 1), (4, 4, 1), (5, 4, 1)])
def test_the_incomplete_last_batch_is_left_out_but_a_small_set_is_one_batch(size, batch, steps):
    assert steps_per_epoch(size, batch) == steps
    batches = list(TrainingBatches(size, batch, epochs=2, seed=0))
    assert len(batches) == 2 * steps == len(TrainingBatches(size, batch, epochs=2, seed=0))
    assert {len(each) for each in batches} == {min(size, batch)}


@pytest.mark.parametrize(("size", "batch", "lengths"), [(10, 4, [4, 4, 2]), (12, 4, [4, 4, 4]), (3, 4, [3])])
def test_the_incomplete_last_batch_is_kept_where_it_is_asked_for(size, batch, lengths):
    """As PathML's loader does, which strategy B of the released code trains from (ledger 19)."""
    assert steps_per_epoch(size, batch, drop_last=False) == len(lengths)
    batches = list(TrainingBatches(size, batch, epochs=2, seed=0, drop_last=False))
    assert [len(each) for each in batches] == 2 * lengths
    assert sorted(row for each in batches[: len(lengths)] for _, row in each) == list(range(size))


def test_an_epoch_serves_no_sample_twice():
    batches = list(TrainingBatches(11, 3, epochs=4, seed=0))
    for epoch in range(4):
        rows = [row for each in batches for e, row in each if e == epoch]
        assert len(rows) == len(set(rows)) == 9 and set(rows) <= set(range(11))
        assert rows == epoch_order(11, 0, epoch)[:9].tolist()


def test_a_run_that_goes_on_serves_the_tail_of_the_full_run():
    full = list(TrainingBatches(11, 3, epochs=4, seed=5))
    assert len(full) == 12
    for first in range(13):
        resumed = TrainingBatches(11, 3, epochs=4, seed=5, first=first)
        assert list(resumed) == full[first:] and len(resumed) == 12 - first


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize(("size", "batch"), [(26, 8), (24, 8), (5, 8), (27, 4)])
@pytest.mark.parametrize("world", [1, 2])
def test_the_images_of_a_step_are_those_of_all_processes(size, batch, world, drop_last):
    """By these a process's loss is weighted, so that an incomplete last batch counts in full."""
    parts = [TrainingBatches(size, batch, 2, 1, rank=rank, world=world, drop_last=drop_last) for rank in range(world)]
    together = [sum(map(len, shares)) for shares in zip(*parts, strict=True)]
    assert [parts[0].images_at(step) for step in range(len(parts[0]))] == together
    for part in parts:
        mine = [len(share) * world / all_of_them for share, all_of_them in zip(part, together, strict=True)]
        assert [part.share_at(step) for step in range(len(part))] == mine


@pytest.mark.parametrize("world", [2, 3, 4])
def test_the_slices_of_the_processes_partition_each_batch(world):
    whole = list(TrainingBatches(26, 8, epochs=2, seed=1, first=1))
    slices = [list(TrainingBatches(26, 8, 2, 1, first=1, rank=rank, world=world)) for rank in range(world)]
    assert [len(each) for each in slices] == [len(whole)] * world
    for batch, *parts in zip(whole, *slices, strict=True):
        assert sorted(item for part in parts for item in part) == sorted(batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(("size", "batch"), [(26, 2), (2, 8)], ids=["small batches", "a small data set"])
def test_a_batch_must_have_a_sample_for_each_process(size, batch):
    assert len(list(TrainingBatches(size, batch, 1, 0, rank=1, world=2))[0]) == 1
    with pytest.raises(RequestError, match="training.batch_size: 3 processes cannot share a batch of 2; start fewer"):
        TrainingBatches(size, batch, 1, 0, rank=2, world=3)


def test_an_incomplete_last_batch_must_have_a_sample_for_each_process():
    assert TrainingBatches(10, 4, 1, 0, world=2, drop_last=False).images_at(2) == 2
    assert TrainingBatches(9, 4, 1, 0, world=2).steps == 2  # the one of 1 is left out
    with pytest.raises(RequestError, match="training.batch_size: 2 processes cannot share a batch of 1; start fewer"):
        TrainingBatches(9, 4, 1, 0, world=2, drop_last=False)
