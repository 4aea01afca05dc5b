"""PanNuke: the official folds, PathML's folder with its swapped channels, and what is wrong with either."""

import errno
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from lgffem_core.base.errors import RequestError
from lgffem_core.base.files import sha256_file
from lgffem_core.config.params import PanNuke
from lgffem_core.data.loading import read_rgb
from lgffem_core.data.sets import facts, pannuke_folds
from lgffem_core.data.sets.pannuke import SET
from lgffem_core.data.sets.pannuke_folds import convert_folds
from lgffem_core.data.table import build_table

OFFICIAL = {1: ["Breast", "Adrenal-gland", "Bile-duct"], 2: ["Colon", "Breast"], 3: ["Adrenal-gland", "Colon"]}


def patch_table(root, split=None, tissues="pannuke"):
    rows, labels = SET.layout(root, PanNuke(split=split, tissues=tissues))
    return build_table(root, rows, labels, {path: sha256_file(root / path) for path, *_ in rows})


@pytest.fixture
def prepared(tmp_path, picture):
    """A prepared folder: four tissues in three folds."""
    root = tmp_path / "prepared"
    for fold in (1, 2, 3):
        for number, tissue in enumerate(["Colon", "Breast", "Adrenal-gland", "HeadNeck"]):
            picture(root / "images" / f"fold{fold}_{number}_{tissue}.png", seed=10 * fold + number)
    return root


def refusal(call, *arguments):
    with pytest.raises(RequestError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def fold_file(root, fold, name):
    part = "masks" if name == "masks" else "images"
    return root / f"Fold {fold}" / part / f"fold{fold}" / f"{name}.npy"


# -- the official folds ------------------------------------------------------------------------------------


def test_converted_tiles_are_the_same_rgb_pixels_in_bgr_files(official_folds, tmp_path):
    source = official_folds()
    target = convert_folds(source, tmp_path / "new" / "prepared")
    names = {f"fold{fold}_{i}_{tissue}.png" for fold, tissues in OFFICIAL.items() for i, tissue in enumerate(tissues)}
    assert {path.name for path in (target / "images").iterdir()} == names
    for name in names:
        fold, number = int(name[4]), int(name.split("_")[1])
        rgb = np.load(fold_file(source, fold, "images"))[number]
        np.testing.assert_array_equal(read_rgb(target / "images" / name, "bgr"), rgb)
        np.testing.assert_array_equal(np.asarray(Image.open(target / "images" / name)), rgb[..., ::-1])


def test_masks_have_their_channels_first(official_folds, tmp_path):
    source = official_folds()
    target = convert_folds(source, tmp_path / "prepared")
    mask = np.load(target / "masks" / "fold2_1_Breast.npy")
    official = np.load(fold_file(source, 2, "masks"))[1]
    assert mask.shape == (6, 8, 8) and mask.dtype == official.dtype
    for channel in range(6):
        np.testing.assert_array_equal(mask[channel], official[:, :, channel])
    assert len(list((target / "masks").iterdir())) == 7


def test_masks_are_optional_and_written_only_where_all_folds_have_them(official_folds, tmp_path):
    some = official_folds(name="some")
    fold_file(some, 2, "masks").unlink()
    for source in (official_folds(masks=False), some):
        target = convert_folds(source, tmp_path / f"{source.name}_prepared")
        assert not (target / "masks").exists() and len(list((target / "images").iterdir())) == 7


def test_a_conversion_that_was_stopped_leaves_nothing_that_looks_complete(official_folds, tmp_path, monkeypatch):
    source, target, original, written = official_folds(), tmp_path / "prepared", pannuke_folds.write_bgr, []

    def stop_at_the_fourth(image, path):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        original(image, path)

    monkeypatch.setattr(pannuke_folds, "write_bgr", stop_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        convert_folds(source, target)
    assert not target.exists()
    monkeypatch.undo()
    assert len(list((convert_folds(source, target) / "images").iterdir())) == 7


def test_a_folder_with_images_is_not_written_over(official_folds, prepared):
    before = sorted(path.name for path in (prepared / "images").iterdir())
    with pytest.raises(OSError, match="not empty"):
        convert_folds(official_folds(), prepared)
    assert sorted(path.name for path in (prepared / "images").iterdir()) == before


def test_an_empty_folder_that_the_user_made_is_filled(official_folds, tmp_path):
    (tmp_path / "mine").mkdir()
    assert (convert_folds(official_folds(), tmp_path / "mine") / "images").is_dir()


@pytest.mark.parametrize("fold", [1, 2, 3])
def test_a_missing_fold_is_named(official_folds, tmp_path, fold):
    source = official_folds()
    (source / f"Fold {fold}").rename(tmp_path / "away")
    sentence = refusal(convert_folds, source, tmp_path / "prepared")
    assert sentence.startswith(f"{fold_file(source, fold, 'images')}: is missing")
    assert not (tmp_path / "prepared").exists()


@pytest.mark.parametrize("name", ["images", "types", "masks"])
def test_arrays_of_different_length_are_refused(official_folds, tmp_path, name):
    source = official_folds()
    path = fold_file(source, 1, name)
    np.save(path, np.load(path)[:-1])
    assert refusal(convert_folds, source, tmp_path / "prepared").startswith(f"{source / 'Fold 1'}: ")


#: What a fold's images may have become, and what the refusal says was found.
VALUES = {
    "0 to 1": (lambda tiles: tiles / 255, "holds float64 from 0 to 1, with fractions, not whole numbers"),
    "-1 to 1": (lambda tiles: tiles / 127.5 - 1, "holds float64 from -1 to 1, with fractions, not whole numbers"),
    "0 or 1": (lambda tiles: np.rint(tiles / 255), "holds float64 from 0 to 1, not whole numbers from 0 to 255"),
    "nothing but 0": (lambda tiles: tiles * 0, "holds float64 from 0 to 0, not whole numbers from 0 to 255"),
    "fractions": (lambda tiles: np.minimum(tiles + 0.25, 255), "holds float64 from 0.25 to 255, with fractions"),
    "16 bits": (lambda tiles: (tiles * 257).astype(np.uint16), "holds uint16 from 0 to 65535, not whole numbers"),
    "one NaN": (lambda tiles: np.where(np.arange(tiles.size).reshape(tiles.shape) == 200, np.nan, tiles), "tile 1 "),
    "one infinity": (
        lambda tiles: np.where(np.arange(tiles.size).reshape(tiles.shape) == 9, -np.inf, tiles),
        "tile 0 ",
    ),
    "yes and no": (lambda tiles: tiles > 99, "holds bool, not numbers"),
    "complex": (lambda tiles: tiles + 0j, "holds complex128, not numbers"),
    "text": (lambda tiles: tiles.astype(str), "holds <U32, not numbers"),
    "dates": (lambda tiles: tiles.astype("M8[s]"), "holds datetime64[s], not numbers"),
    "channels first": (lambda tiles: tiles.transpose(0, 3, 1, 2), "has shape (2, 3, 8, 8), not (N, H, W, 3)"),
    "flat": (lambda tiles: tiles.reshape(2, -1), "has shape (2, 192), not (N, H, W, 3)"),
    "no tile": (lambda tiles: tiles[:0], "has shape (0, 8, 8, 3), not (N, H, W, 3)"),
}


def tiles_over_the_whole_range():
    tiles = np.random.default_rng(1).integers(0, 256, size=(2, 8, 8, 3)).astype(np.float64)
    tiles[0, 0, 0, :2] = 0, 255
    return tiles


@pytest.mark.parametrize("name", VALUES)
def test_what_cannot_be_8_bit_tiles_is_refused_and_what_was_found_is_said(official_folds, tmp_path, name):
    source, (change, found) = official_folds(), VALUES[name]
    path = fold_file(source, 2, "images")
    np.save(path, change(tiles_over_the_whole_range()))
    sentence = refusal(convert_folds, source, tmp_path / "prepared")
    assert sentence.startswith(f"{path}: {found}") and sentence.endswith("; download the fold again.")
    assert [each.name for each in tmp_path.iterdir()] == [source.name]


@pytest.mark.parametrize("tiles", [1, 2, 3, 100])
def test_the_last_tile_is_checked_however_many_are_read_at_a_time(official_folds, tmp_path, monkeypatch, tiles):
    monkeypatch.setattr(pannuke_folds, "TILES", tiles)
    source = official_folds()
    images = np.load(fold_file(source, 1, "images"))
    images[2, 7, 7, 2] = np.nan
    np.save(fold_file(source, 1, "images"), images)
    assert "images.npy: tile 2 holds values that are no finite numbers" in refusal(
        convert_folds, source, tmp_path / "p"
    )


@pytest.mark.parametrize(
    "store",
    [np.asfortranarray, *(lambda a, t=t: a.astype(t) for t in ("u1", "i8", ">f8", ">i2", "f2", "f4"))],
    ids=["Fortran order", "u1", "i8", ">f8", ">i2", "f2", "f4"],
)
def test_whole_numbers_are_the_same_tiles_however_they_are_stored(official_folds, tmp_path, store):
    source, tiles = official_folds(), tiles_over_the_whole_range()
    np.save(fold_file(source, 2, "images"), store(tiles))
    np.save(fold_file(source, 2, "masks"), store(np.load(fold_file(source, 2, "masks"))))
    target = convert_folds(source, tmp_path / "prepared")
    for number, tissue in enumerate(OFFICIAL[2]):
        np.testing.assert_array_equal(
            read_rgb(target / "images" / f"fold2_{number}_{tissue}.png", "bgr"), tiles[number]
        )


@pytest.mark.parametrize(
    ("name", "change", "found"),
    [
        ("masks", lambda masks: masks[..., 0], "has shape (2, 8, 8), not (N, 8, 8, 6)"),
        ("masks", lambda masks: masks[:, :4], "has shape (2, 4, 8, 6), not (N, 8, 8, 6)"),
        ("masks", lambda masks: masks[..., :5], "has shape (2, 8, 8, 5), not (N, 8, 8, 6)"),
        ("masks", lambda masks: masks.astype(str), "holds <U21, not numbers"),
        ("types", lambda types: types[:, None], "has shape (2, 1), not (N)"),
        ("types", lambda types: types[0], "has shape (), not (N)"),
        ("types", lambda types: types.astype("S"), "holds |S6, not names"),
        ("types", lambda types: np.arange(2), "holds int64, not names"),
    ],
)
def test_masks_and_types_of_another_form_are_refused(official_folds, tmp_path, name, change, found):
    source = official_folds()
    path = fold_file(source, 2, name)
    np.save(path, change(np.load(path)))
    assert refusal(convert_folds, source, tmp_path / "prepared") == f"{path}: {found}; download the fold again."


@pytest.mark.parametrize("name", ["images", "types", "masks"])
def test_an_archive_under_an_arrays_name_is_refused(official_folds, tmp_path, name):
    source = official_folds()
    path = fold_file(source, 2, name)
    np.savez(path.with_suffix(""), np.load(path))
    path.with_suffix(".npz").rename(path)
    assert refusal(convert_folds, source, tmp_path / "prepared").startswith(f"{path}: cannot be read as an array")


@pytest.mark.parametrize("header", [b"(9" + b"9" * 30 + b",)", b"(-2, 8, 8, 3)", b"(True, 8, 8, 3)", b"((2, 8", b"2 8"])
def test_a_header_that_makes_no_sense_is_one_sentence(official_folds, tmp_path, header):
    source = official_folds()
    path = fold_file(source, 2, "images")
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': " + header + b"}\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(3072))
    assert refusal(convert_folds, source, tmp_path / "prepared").startswith(f"{path}: cannot be read as an array")


class MakesFolder:
    """Unpickling this makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickles_are_refused_and_not_run(official_folds, tmp_path):
    source, made = official_folds(), tmp_path / "made"
    path = fold_file(source, 3, "types")
    path.write_bytes(pickle.dumps(MakesFolder(made)))
    np.load(path, allow_pickle=True)
    made.rmdir()  # so the attack works where pickles are allowed
    assert refusal(convert_folds, source, tmp_path / "prepared").startswith(f"{path}: cannot be read as an array")
    assert not made.exists()


def test_arrays_of_objects_are_refused(official_folds, tmp_path):
    source = official_folds()
    path = fold_file(source, 3, "types")
    np.save(path, np.array(["Colon", "Breast"], dtype=object))
    assert refusal(convert_folds, source, tmp_path / "prepared").startswith(f"{path}: cannot be read as an array")


@pytest.mark.parametrize("keep", [0, 5, 400])
def test_a_damaged_array_is_named(official_folds, tmp_path, keep):
    source = official_folds()
    path = fold_file(source, 2, "images")
    path.write_bytes(path.read_bytes()[:keep])
    sentence = refusal(convert_folds, source, tmp_path / "prepared")
    assert sentence.startswith(f"{path}: cannot be read as an array") and "download the fold again" in sentence


def test_an_unknown_tissue_in_a_fold_is_named(official_folds, tmp_path):
    source = official_folds()
    np.save(fold_file(source, 2, "types"), np.array(["Colon", "Brest"]))
    sentence = refusal(convert_folds, source, tmp_path / "prepared")
    assert sentence == f"{source / 'Fold 2'}: types.npy has the unknown tissue 'Brest'."


# -- the prepared folder -----------------------------------------------------------------------------------


@pytest.mark.parametrize("split", [1, 2, 3])
def test_split_is_pathmls_the_fold_that_trains(prepared, split):
    table = patch_table(prepared, split)
    assert len(table) == 12
    for fold, use in table[["group", "split"]].itertuples(index=False):
        assert use == ("train" if fold == f"fold{split}" else "test")


def test_without_a_split_all_folds_train(prepared):
    table = patch_table(prepared)
    assert set(table["split"]) == {"train"} and len(table) == 12


def test_a_tissue_is_a_label_and_a_fold_is_a_group(prepared):
    table = patch_table(prepared)
    labels = ["Adrenal-gland", "Breast", "Colon", "HeadNeck"]
    assert [labels[i] for i in table["label_id"]] == list(table["label"])
    for path, label, fold in table[["path", "label", "group"]].itertuples(index=False):
        assert path.startswith(f"images/{fold}_") and path.endswith(f"_{label}.png")


def test_tiles_are_in_natural_order(tmp_path, picture):
    for number in (10, 9, 2):
        picture(tmp_path / "images" / f"fold1_{number}_{'Colon' if number == 9 else 'Breast'}.png")
    assert [path.split("_")[1] for path in patch_table(tmp_path)["path"]] == ["2", "9", "10"]


@pytest.mark.parametrize(
    "name", ["fold4_1_Colon.png", "fold1_Colon.png", "fold1_x_Colon.png", "fold1_1_Adrenal_gland.png", "tile.png"]
)
def test_a_malformed_name_is_named(prepared, picture, name):
    bad = picture(prepared / "images" / name)
    assert refusal(patch_table, prepared) == f"{bad}: is not named fold<1-3>_<number>_<tissue>.png."


def test_an_unknown_tissue_is_named_unless_any_is_welcome(prepared, picture):
    bad = picture(prepared / "images" / "fold1_9_Brest.png")
    sentence = refusal(patch_table, prepared)
    assert sentence.startswith(f"{bad}: unknown tissue 'Brest'") and "data.pannuke.tissues=any" in sentence
    assert "Brest" in set(patch_table(prepared, tissues="any")["label"])


def test_one_tissue_is_too_few_to_train_on(tmp_path, picture):
    picture(tmp_path / "images" / "fold1_0_Colon.png"), picture(tmp_path / "images" / "fold2_1_Breast.png")
    assert len(patch_table(tmp_path)) == 2
    assert "has 1 tissues to train on" in refusal(patch_table, tmp_path, 1)
    assert "has 0 tissues to train on" in refusal(patch_table, tmp_path, 3)


@pytest.mark.parametrize("name", ["fold_1", "Fold_1", "Fold-1", "FOLD1", "download/Fold 1"])
def test_a_fold_under_another_name_is_recognised(tmp_path, name):
    (tmp_path / name / "images" / "fold1").mkdir(parents=True)
    assert f"found {name}/, rename or link it to Fold 1/." in refusal(patch_table, tmp_path)


def test_a_fold_within_its_fold_is_recognised(official_folds, tmp_path):
    source = official_folds()
    (source / "Fold 2").rename(tmp_path / "away")
    (source / "Fold 2").mkdir()
    (tmp_path / "away").rename(source / "Fold 2" / "Fold 2")
    sentence = refusal(convert_folds, source, tmp_path / "prepared")
    assert "is missing; found Fold 2/Fold 2/images/, rename or link it to Fold 2/images/." in sentence


def test_a_root_that_is_one_fold_is_recognised(official_folds):
    source = official_folds()
    sentence = refusal(patch_table, source / "Fold 1")
    assert "has no tiles; in images/ there are 2 .npy files, this set reads .png" in sentence
    assert f"{source / 'Fold 1'} seems to be Fold 1/ itself, then name {source} instead" in sentence


def test_tiles_of_another_format_are_said(prepared):
    for path in (prepared / "images").iterdir():
        path.rename(path.with_suffix(".jpg"))
    assert "has no tiles; in images/ there are 12 .jpg files, this set reads .png; " in refusal(patch_table, prepared)


def test_tiles_in_capitals_are_tiles(prepared):
    before = patch_table(prepared)["sha256"].tolist()
    for path in (prepared / "images").iterdir():
        path.rename(path.with_suffix(".PNG"))
    assert patch_table(prepared)["sha256"].tolist() == before


def test_the_published_facts():
    assert len(set(facts.PANNUKE_TISSUES)) == 19 and sum(facts.PANNUKE_FOLD_SIZES) == 7901
    assert {facts.file_tissue(t) for t in facts.PANNUKE_TISSUES} >= {"Adrenal-gland", "Bile-duct", "HeadNeck"}


def test_real_tiles_in_pathmls_layout(shared):
    root = shared / "histology" / "pannuke"
    table = patch_table(root, tissues="any")
    assert len(table) == 194 and table["label"].nunique() == 16 and set(table["split"]) == {"train"}
    sizes = table.groupby("group").size().to_dict()
    assert patch_table(root, 2, "any").groupby("split").size()["train"] == sizes["fold2"]
    assert "unknown tissue" in refusal(patch_table, root)


def test_real_muscle_is_red_only_in_the_right_channel_order(shared):
    """Eosin leaves more red than blue; PathML's files read as RGB would have it the other way round."""
    root = shared / "histology" / "pannuke"
    tiles = patch_table(root, tissues="any").query("label == 'CRC-MUS'")["path"]
    red, green, blue = np.mean([read_rgb(root / path, "bgr").mean(axis=(0, 1)) for path in tiles], axis=0)
    assert red > blue + 15 > green
    swapped = np.mean([read_rgb(root / path).mean(axis=(0, 1)) for path in tiles], axis=0)
    np.testing.assert_allclose(swapped, [blue, green, red])


def test_prepared_images_are_read_though_the_official_folds_lie_beside_them(prepared):
    """PathML unpacks the folds in the folder that it prepares."""
    before = patch_table(prepared)
    arrays = prepared / "Fold 1" / "images" / "fold1"
    arrays.mkdir(parents=True)
    np.save(arrays / "images.npy", np.zeros((1, 2, 2, 3)))
    assert patch_table(prepared).equals(before)


def test_masks_that_do_not_fit_onto_the_disk_are_told_in_a_sentence(tmp_path, small_files):
    """NumPy itself says no more than how many of the bytes it wrote."""
    pannuke_folds.write_array(tmp_path / "sound.npy", masks := np.arange(6 * 8 * 8).reshape(6, 8, 8))
    assert (np.load(tmp_path / "sound.npy") == masks).all()
    with small_files(500), pytest.raises(OSError) as caught:
        pannuke_folds.write_array(tmp_path / "masks.npy", np.zeros((6, 64, 64)))
    assert caught.value.errno == errno.EFBIG
