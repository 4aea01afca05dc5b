"""Near misses: the folder that was meant is named, and others are not."""

import errno

import pytest

from lgffem_core.data import listing
from lgffem_core.data.similar import near_miss

CASES = [  # there, wanted, found
    (["Training"], "train", "Training"),
    (["RGBPatches-test", "Training"], "test", "RGBPatches-test"),
    (["TRAIN", "train_masks"], "train", "TRAIN"),
    (["Train", "a/b/train"], "train", "a/b/train"),
    (["trian"], "train", "trian"),
    (["Images"], "images", "Images"),
    (["fold_1", "Fold 2", "Fold 10"], "Fold 1", "fold_1"),
    (["fold_1/Fold 1"], "Fold 1", "fold_1/Fold 1"),
    (["Fold 1/Fold 1/images"], "Fold 1/images/fold1", "Fold 1/Fold 1/images"),
    (["Fold 2", "Fold 10", "images"], "Fold 1", None),
    (["masks", "photos", "s0", "data"], "train", None),
    (["a/b/c/d/train"], "train", None),
    ([".train", "#recycle/train", "__MACOSX/train"], "train", None),
    ([], "train", None),
]


@pytest.mark.parametrize(("there", "wanted", "found"), CASES)
def test_the_similar_folder_is_named(tmp_path, there, wanted, found):
    for name in there:
        (tmp_path / "root" / name).mkdir(parents=True)
    said = near_miss(tmp_path / "root", wanted)
    parts = [part for part in ("Fold 1/images", wanted) if wanted.startswith(part)]
    assert said == (f"found {found}/, rename or link it to {parts[0]}/" if found else "")


def test_of_several_that_will_do_the_first_that_is_similar_counts(tmp_path):
    (tmp_path / "Images").mkdir()
    assert near_miss(tmp_path, "Fold 1", "images") == "found Images/, rename or link it to images/"


def test_a_root_one_too_deep_is_recognised(tmp_path):
    (tmp_path / "Train" / "s0").mkdir(parents=True)
    assert near_miss(tmp_path / "Train", "train").endswith(f"seems to be train/ itself, then name {tmp_path} instead")


def test_a_folder_that_is_a_link_to_its_parent_ends(tmp_path):
    (tmp_path / "a").symlink_to(".")
    assert near_miss(tmp_path, "train") == ""


def test_files_are_no_folders(tmp_path):
    (tmp_path / "Training").touch()
    assert near_miss(tmp_path, "train") == ""


def test_a_folder_that_cannot_be_listed_hides_no_other(tmp_path, monkeypatch):
    def refuse(path):
        if "closed" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    scandir = listing.os.scandir
    (tmp_path / "closed").mkdir(), (tmp_path / "open" / "Training").mkdir(parents=True)
    monkeypatch.setattr(listing.os, "scandir", refuse)
    assert near_miss(tmp_path, "train").startswith("found open/Training/")
