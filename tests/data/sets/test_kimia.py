"""Kimia Path24C's layout: names repeat across scans, order is natural, and nothing is missing unnoticed."""

import shutil
from pathlib import Path

import pytest

from lgffem_core.base.errors import RequestError
from lgffem_core.base.files import sha256_file
from lgffem_core.config.params import Kimia
from lgffem_core.data.sets import facts
from lgffem_core.data.sets.kimia import SET, scan_of
from lgffem_core.data.table import build_table


def patch_table(root, scans=24):
    rows, labels = SET.layout(root, Kimia(scans=scans))
    return build_table(root, rows, labels, {path: sha256_file(root / path) for path, *_ in rows})


def refusal(root, scans=3, kind=RequestError):
    with pytest.raises(kind) as caught:
        patch_table(root, scans)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_names_that_repeat_across_scans_stay_apart(kimia_folder):
    train = patch_table(kimia_folder(), 3).query("split == 'train'")
    assert list(train["path"]) == [f"train/s{scan}/{number}.jpg" for scan in range(3) for number in (1, 2, 10)]
    assert train["sha256"].nunique() == 9


def test_test_patches_are_ordered_by_scan_and_then_naturally(kimia_folder):
    table = patch_table(kimia_folder(scans=11), 11)
    test = table.query("split == 'test'")
    assert list(test["path"]) == [f"test/s{scan}_{number}.jpg" for scan in range(11) for number in (2, 10)]
    assert list(test["label_id"]) == [scan for scan in range(11) for _ in range(2)]
    assert list(table["split"]) == ["train"] * 33 + ["test"] * 22


def test_a_flat_test_folder_and_one_folder_a_scan_are_the_same(kimia_folder):
    columns = ["label", "label_id", "split", "group", "sha256"]
    flat, deep = patch_table(kimia_folder(flat=True), 3), patch_table(kimia_folder(flat=False, name="deep"), 3)
    assert flat[columns].equals(deep[columns])
    assert list(deep.query("split == 'test'")["path"])[0] == "test/s0/s0_2.jpg"


def test_the_scan_is_label_and_group(kimia_folder):
    table = patch_table(kimia_folder(), 3)
    assert (table["label"] == table["group"]).all() and set(table["label"]) == {"s0", "s1", "s2"}


def test_training_patches_may_lie_deeper(kimia_folder):
    root = kimia_folder()
    (root / "train" / "s1" / "part" / "two").mkdir(parents=True)
    (root / "train" / "s1" / "2.jpg").rename(root / "train" / "s1" / "part" / "two" / "s0_7.jpg")
    table = patch_table(root, 3)
    assert table.set_index("path").loc["train/s1/part/two/s0_7.jpg", "label"] == "s1"  # the folder decides


@pytest.mark.parametrize(
    ("path", "scan"),
    [
        ("s7/a.jpg", "s7"), ("s23_4.jpg", "s23"), ("x/s7/y/a.jpg", "s7"), ("s1/s2_3.jpg", "s1"), ("a.jpg", None),
        ("s7.jpg", None), ("slides/a.jpg", None), ("s7b/a.jpg", None),
    ],
)  # fmt: skip
def test_the_scan_of_a_path(path, scan):
    assert scan_of(Path(path)) == scan


def test_a_missing_scan_is_named(kimia_folder):
    root = kimia_folder()
    shutil.rmtree(root / "train" / "s1")
    assert refusal(root).startswith(f"{root / 'train'}: scan s1 has no patches (1 of 3 scans")


def test_what_is_there_instead_of_patches_is_said(kimia_folder):
    root = kimia_folder()
    for path in (root / "train" / "s1").iterdir():
        path.rename(path.with_suffix(".TIFF"))
    assert "; in s1/ there are 3 .tiff files, this set reads .jpg, .jpeg, .png, .tif; restore it" in refusal(root)


def test_a_scan_that_is_a_link_to_nothing_is_said(kimia_folder):
    root = kimia_folder()
    (root / "train" / "s1").rename(root / "away")
    (root / "train" / "s1").symlink_to("nowhere")
    assert "scan s1 has no patches" in refusal(root) and "; in train/ there is 1 link to nothing" in refusal(root)


def test_linked_scans_and_parts_of_scans_are_read(kimia_folder, tmp_path):
    root, columns = kimia_folder(), ["label", "split", "sha256"]
    before = patch_table(root, 3)
    (root / "train" / "s1").rename(tmp_path / "elsewhere")
    (root / "train" / "s1").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "part").mkdir()
    (root / "train" / "s2" / "2.jpg").rename(tmp_path / "part" / "2.jpg")
    (root / "train" / "s2" / "part").symlink_to(tmp_path / "part")
    (root / "train" / "s2" / "all").symlink_to(root / "train")
    after = patch_table(root, 3)
    assert sorted(after[columns].values.tolist()) == sorted(before[columns].values.tolist())


def test_what_systems_leave_is_no_patch(kimia_folder, picture):
    root = kimia_folder()
    before = patch_table(root, 3)
    for name in (
        "s0/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg",
        "#recycle/s0/old.jpg",
        "$RECYCLE.BIN/s1/old.jpg",
        "s2/._1.jpg",
    ):
        picture(root / "train" / name)
    assert patch_table(root, 3).equals(before)


def test_an_empty_scan_folder_is_named(kimia_folder):
    root = kimia_folder(flat=False)
    for path in (root / "test" / "s2").iterdir():
        path.unlink()
    assert refusal(root).startswith(f"{root / 'test'}: scan s2 has no patches")


@pytest.mark.parametrize(("name", "scan"), [("s3_1.jpg", "s3"), ("photo.jpg", "no scan"), ("s03_1.jpg", "s03")])
def test_a_patch_of_an_unexpected_scan_is_named(kimia_folder, picture, name, scan):
    root = kimia_folder()
    stray = picture(root / "test" / name)
    assert refusal(root) == f"{stray}: belongs to {scan}, but data.kimia.scans expects s0 … s2."


def test_more_scans_on_disk_than_expected_are_not_ignored(kimia_folder):
    assert "belongs to s2, but data.kimia.scans expects s0 … s1" in refusal(kimia_folder(), scans=2)


def test_the_published_counts_add_up():
    """The README of the data set: 24 scans, 1,325 test patches; the paper: 22,591 for training."""
    assert len(facts.KIMIA_TEST_COUNTS) == facts.KIMIA_SCANS == 24
    assert sum(facts.KIMIA_TEST_COUNTS) == facts.KIMIA_TEST_TOTAL == 1325
    assert facts.KIMIA_TRAIN_TOTAL == 22591


def test_real_tiles_in_kimias_layout(shared):
    table = patch_table(shared / "histology" / "kimia", 24)
    assert table.groupby("split").size().to_dict() == {"train": 404, "test": 175}
    assert table["label"].nunique() == 24 and table["sha256"].nunique() == len(table)
    assert table.query("split == 'test'")["label_id"].is_monotonic_increasing
