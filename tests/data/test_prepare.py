"""Preparing a data set: what is missing is said, folds are converted once, and the table is kept."""

import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lgffem_core import data
from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import Study
from lgffem_core.config.watched import Watched
from lgffem_core.data import images_root, patch_table, preparation, prepare, sets
from lgffem_core.data.loading import read_rgb
from lgffem_core.data.preparation import check_counts
from lgffem_core.data.sets import facts, pannuke_folds

SMOKE = PROJECT / "params" / "smoke.yaml"


@pytest.fixture
def study(tmp_path):
    """Makes a smoke study in ``tmp_path``; "__" stands for the dot of a key."""

    def make(**overrides):
        overrides = {key.replace("__", "."): value for key, value in overrides.items()}
        return Study.load(SMOKE, {"data.kimia.scans": 3, **overrides}, root=tmp_path)

    return make


def refusal(call, *arguments):
    with pytest.raises(RequestError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_table_is_written_and_given_back(study, kimia_folder, monkeypatch):
    mine = study(data__kimia__root=str(kimia_folder()))
    table = prepare(mine, "kimia")
    assert len(table) == 15 and mine.index("kimia").is_file()
    monkeypatch.setattr(preparation, "prepare", lambda *_: pytest.fail("prepared again"))
    pd.testing.assert_frame_equal(patch_table(mine, "kimia"), table)


@pytest.mark.parametrize("given", [False, True])
def test_a_study_that_was_copied_has_its_tables_with_it(study, kimia_folder, monkeypatch, tmp_path, given):
    mine = study(**{"data__kimia__root": str(kimia_folder())} if given else {"data__kimia__scans": 24})
    prepare(mine, "kimia")
    shutil.copytree(mine.artifacts, tmp_path / "copy" / "artifacts" / mine.artifacts.name)
    moved = Study(mine.params, tmp_path / "copy")
    monkeypatch.setattr(preparation, "prepare", lambda *_: pytest.fail("prepared again"))
    pd.testing.assert_frame_equal(patch_table(moved, "kimia"), patch_table(mine, "kimia"))


def test_without_notebook_01_the_table_is_prepared_on_demand(study, kimia_folder):
    mine = study(data__kimia__root=str(kimia_folder()))
    assert not mine.index("kimia").exists()
    assert len(patch_table(mine, "kimia")) == 15 and mine.index("kimia").exists()


def test_other_settings_prepare_again(study, kimia_folder):
    first = kimia_folder()
    patch_table(study(data__kimia__root=str(first)), "kimia")
    other = study(data__kimia__root=str(kimia_folder(scans=4, name="other")), data__kimia__scans=4)
    assert len(patch_table(other, "kimia")) == 20
    assert len(patch_table(study(data__kimia__root=str(first)), "kimia")) == 15


def test_prepare_reads_the_disk_afresh(study, kimia_folder, picture):
    root = kimia_folder()
    mine = study(data__kimia__root=str(root))
    prepare(mine, "kimia")
    picture(root / "test" / "s1_11.jpg", seed=5)
    assert len(prepare(mine, "kimia")) == len(patch_table(mine, "kimia")) == 16


def test_a_damaged_image_leaves_no_table(study, kimia_folder, damage):
    root = kimia_folder()
    damage(root / "train" / "s0" / "1.jpg")
    mine = study(data__kimia__root=str(root))
    with pytest.raises(StudyError, match=r"s0/1\.jpg"):
        prepare(mine, "kimia")
    assert not mine.index("kimia").exists()


def test_a_missing_root_is_named(study, tmp_path):
    for dataset in ("imagenet", "pannuke", "kimia"):
        mine = study(**{f"data.{dataset}.root": str(tmp_path / "nowhere")})
        assert refusal(prepare, mine, dataset) == f"data.{dataset}.root: {tmp_path / 'nowhere'} is not there."


def test_a_root_of_another_layout_is_refused_as_the_checklist_does(study, tmp_path):
    for dataset, lacks in {
        "imagenet": "train or ILSVRC2012",
        "pannuke": "Fold 1 or images",
        "kimia": "train and",
    }.items():
        sentence = refusal(prepare, study(**{f"data.{dataset}.root": str(tmp_path)}), dataset)
        assert sentence.startswith(f"data.{dataset}.root: {tmp_path} does not hold {lacks}")


def test_synthetic_images_are_made_only_where_the_profile_says_so(study):
    mine = study(data__synthetic__datasets=["imagenet"])
    sentence = "data.kimia.root is not set; this profile does not make synthetic kimia."
    assert refusal(prepare, mine, "kimia") == sentence
    assert not mine.artifacts.exists()


def test_synthetic_images_are_made_once(study, monkeypatch):
    mine = study(data__synthetic__image_size=32, data__synthetic__imagenet_classes=2)
    table = prepare(mine, "imagenet")
    assert len(table) == 2 * (8 + 12) and images_root(mine, "imagenet") == mine.data_root("imagenet")
    monkeypatch.setattr(sets.get("imagenet"), "make_synthetic", lambda *_: pytest.fail("made again"))
    assert prepare(mine, "imagenet").equals(table)


def test_who_comes_while_another_process_makes_a_set_waits_for_it(study, monkeypatch):
    """A folder under another name is all that there is of it until then."""
    mine = study(data__synthetic__imagenet_classes=2)
    root, begun = mine.data_root("imagenet"), threading.Event()

    def slow(settings, folder):
        begun.set()
        time.sleep(0.5)
        folder.mkdir()

    monkeypatch.setattr(sets.get("imagenet"), "make_synthetic", slow)
    with ThreadPoolExecutor() as pool:
        making = pool.submit(preparation.make_synthetic, mine, "imagenet")
        begun.wait(10)
        monkeypatch.setattr(sets.get("imagenet"), "make_synthetic", lambda *_: pytest.fail("made twice"))
        preparation.make_synthetic(mine, "imagenet")
        assert root.is_dir()
        making.result()


def test_the_report_depends_on_what_synthetic_images_are_made_by_also_where_another_process_made_them(study):
    """Which one comes first is chance."""
    mine, read = study(data__synthetic__imagenet_classes=2), []
    for _ in range(2):
        read.append(set())
        stage = Study(Watched(mine.params, read[-1].add), mine.root)
        prepare(stage, "imagenet")
        preparation.data_report(stage, ["imagenet"])
    made, found = ({key for key in keys if key.startswith("data.synthetic.")} for keys in read)
    assert made == found and {"data.synthetic.seed", "data.synthetic.imagenet_classes"} <= found


def test_official_folds_are_converted_once(study, official_folds, monkeypatch):
    source = official_folds()
    mine = study(data__pannuke__root=str(source))
    table = prepare(mine, "pannuke")
    images = images_root(mine, "pannuke")
    assert images.is_relative_to(mine.artifacts) and len(table) == 7
    first = np.load(source / "Fold 1" / "images" / "fold1" / "images.npy")[0]
    path = table.set_index("path").index[0]
    np.testing.assert_array_equal(read_rgb(images / path, data.channel_order(mine, "pannuke")), first)
    monkeypatch.setattr(pannuke_folds, "convert_folds", lambda *_: pytest.fail("converted again"))
    assert prepare(mine, "pannuke").equals(table)


def test_other_arrays_of_the_same_size_and_time_are_converted_anew(study, official_folds):
    source = official_folds()
    mine = study(data__pannuke__root=str(source))
    before, first = prepare(mine, "pannuke"), images_root(mine, "pannuke")
    array = source / "Fold 1" / "images" / "fold1" / "images.npy"
    times, pixels = array.stat(), np.load(array)
    np.save(array, pixels[::-1].copy())
    os.utime(array, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert array.stat().st_size == times.st_size
    after = prepare(mine, "pannuke")
    assert images_root(mine, "pannuke") != first
    assert (after["sha256"] != before["sha256"])[:3].tolist() == [True, False, True]  # the middle one of three stays


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_makes_is_not(study):
    mine = study(data__synthetic__image_size=32, data__synthetic__imagenet_classes=2)
    root = mine.data_root("imagenet")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left, making = (root.with_name(f".imagenet.{number}.tmp") for number in (dead.pid, os.getppid()))
    for folder in (left, making):
        (folder / "train").mkdir(parents=True)
    prepare(mine, "imagenet")
    assert not left.exists() and making.exists()


def test_a_prepared_folder_is_read_where_it_is(study, picture, tmp_path):
    for number, tissue in enumerate(["Colon", "Breast", "Colon"]):
        picture(tmp_path / "tiles" / "images" / f"fold1_{number}_{tissue}.png")
    mine = study(data__pannuke__root=str(tmp_path / "tiles"))
    assert images_root(mine, "pannuke") == tmp_path / "tiles" and len(prepare(mine, "pannuke")) == 3


def test_the_split_of_pannuke_reaches_the_table(study, official_folds):
    mine = study(data__pannuke__root=str(official_folds()), data__pannuke__split=2)
    assert prepare(mine, "pannuke").groupby("split").size().to_dict() == {"train": 2, "test": 5}


def test_the_fold_that_trains_alone_will_do(study, official_folds, monkeypatch):
    source = official_folds()
    shutil.rmtree(source / "Fold 2"), shutil.rmtree(source / "Fold 3")
    monkeypatch.setattr(facts, "PANNUKE_FOLD_SIZES", (3, 2, 2))
    alone = study(data__pannuke__root=str(source), data__pannuke__split=1, data__check_counts=True)
    assert prepare(alone, "pannuke").groupby("split").size().to_dict() == {"train": 3}
    for split, missing in ((2, "Fold 2"), (None, "Fold 2")):  # although the folder has been converted
        other = study(data__pannuke__root=str(source), data__pannuke__split=split)
        assert refusal(prepare, other, "pannuke").startswith(f"data.pannuke.root: {source} does not hold {missing}")


def test_only_pannukes_files_are_bgr(study):
    assert [data.channel_order(study(), d) for d in ("imagenet", "pannuke", "kimia")] == ["rgb", "bgr", "rgb"]
    assert data.channel_order(study(data__pannuke__channel_order="rgb"), "pannuke") == "rgb"


# -- counts ------------------------------------------------------------------------------------------------


def test_a_count_that_is_not_the_published_one_states_both(study, kimia_folder):
    mine = study(data__kimia__root=str(kimia_folder()), data__check_counts=True)
    sentence = refusal(prepare, mine, "kimia")
    assert "'train': 9" in sentence and "'test': 6" in sentence
    assert "'train': 22591" in sentence and "'test': 1325" in sentence
    assert "data.kimia.root" in sentence and "data.check_counts=false" in sentence


def test_the_published_counts_pass(study, kimia_folder, monkeypatch):
    monkeypatch.setattr(facts, "KIMIA_TRAIN_TOTAL", 9)
    monkeypatch.setattr(facts, "KIMIA_TEST_TOTAL", 6)
    mine = study(data__kimia__root=str(kimia_folder()), data__check_counts=True)
    assert len(prepare(mine, "kimia")) == 15


def published_counts(split, present=("fold1", "fold2", "fold3")):
    """Those of PanNuke, for a value of data.pannuke.split and the folds that are there."""
    return sets.get("pannuke").published(SimpleNamespace(split=split), [("path", "label", "split", f) for f in present])


def test_pannukes_counts_follow_the_split():
    assert published_counts(None) == {"train": 7901}
    assert published_counts(1) == {"train": 2656, "test": 2523 + 2722}
    assert published_counts(3) == {"train": 2722, "test": 2656 + 2523}


def test_of_the_folds_that_do_not_train_those_that_are_there_are_counted():
    assert published_counts(1, {"fold1"}) == {"train": 2656}
    assert published_counts(2, {"fold1", "fold2"}) == {"train": 2523, "test": 2656}
    assert published_counts(2, {"fold1"}) == {"train": 2523, "test": 2656}  # the one that trains is always needed
    assert published_counts(None, {"fold1"}) == {"train": 7901}


def test_one_missing_image_in_a_million_is_noticed(study):
    train, held_out = ([("x.JPEG", "n01", split, "n01")] * n for split, n in (("train", 1281167), ("test", 50000)))
    check_counts(study(), "imagenet", train)
    check_counts(study(), "imagenet", train + held_out)
    assert "'test': 49999" in refusal(check_counts, study(), "imagenet", train + held_out[1:])
    assert "1281166" in refusal(check_counts, study(), "imagenet", train[1:])


def test_an_index_is_parsed_once_for_its_content_and_no_caller_changes_it_for_the_next(
    kimia_folder, study, monkeypatch
):
    mine, parsed, original = study(data__kimia__root=str(kimia_folder())), [], preparation.read_table
    monkeypatch.setattr(preparation, "read_table", lambda *a: parsed.append(a[0]) or original(*a))
    prepare(mine, "kimia")
    expected = original(mine.index("kimia"))
    for _ in range(3):
        table = patch_table(mine, "kimia")
        pd.testing.assert_frame_equal(table, expected)
        table.loc[3, "path"], table["sha256"] = "elsewhere", ""
        table["label_id"] += 1
    assert parsed == [mine.index("kimia")]
    other = study(data__kimia__root=str(kimia_folder(scans=4, name="four")), data__kimia__scans=4)
    assert len(prepare(other, "kimia")) != len(expected)  # the same file, another content
    pd.testing.assert_frame_equal(patch_table(other, "kimia"), original(mine.index("kimia")))
    assert len(parsed) == 2
