"""The quarantine: each kind of fault is planted, all are found at once, and nothing is repaired or replaced."""

import hashlib
import struct
import zlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import Study
from lgffem_core.data import check_unchanged, data_report, patch_table, preparation, prepare, sets
from lgffem_core.data.census import census
from lgffem_core.data.quarantine import LISTED, Finding, examine, report_rows
from lgffem_core.data.sets.base import DataSet
from lgffem_core.systems.lgffem.ledger import base_study
from lgffem_core.systems.lgffem.strategies import train_strategy

SMOKE = PROJECT / "params" / "smoke.yaml"


@pytest.fixture
def study(tmp_path):
    def make(**overrides):
        overrides = {f"data.{key.replace('__', '.')}": value for key, value in overrides.items()}
        return Study.load(SMOKE, {"data.kimia.scans": 3, **overrides}, root=tmp_path)

    return make


@pytest.fixture
def kimia(study, kimia_folder):
    """(folder, study of it); keywords set parameters of ``data``."""
    root = kimia_folder(flat=False)
    return root, lambda **overrides: study(kimia__root=str(root), **overrides)


def refusal(call, *arguments, kind=RequestError):
    with pytest.raises(kind) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def faults(study, dataset="kimia"):
    """(path, kind, severity) of everything in the list."""
    path = study.artifacts / "index" / f"{dataset}.faults.csv"
    listed = pd.read_csv(path, keep_default_na=False)
    assert list(listed.columns) == ["dataset", "path", "kind", "severity", "reason"]
    assert set(listed["dataset"]) <= {dataset} and not listed["reason"].str.contains(str(study.root)).any()
    return list(listed[["path", "kind", "severity"]].itertuples(index=False, name=None))


def in_mode(mode):
    def write(path):
        Image.open(path).convert("RGB").convert(mode).save(path, "TIFF" if mode == "I;16" else None)

    return write


def png_header(width, height, depth=8):
    """A PNG file of RGB pixels, as far as a header and some rows tell."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + bytes(number % 251 for number in range(width * 3 * depth // 8))
    rows = zlib.compress(row * min(height, 8))
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def without_pixels(path):
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"\xff\xda") + 14] + b"\xff\xd9")


PLANTED = {
    "empty": (lambda path: path.write_bytes(b""), "holds no bytes"),
    "unreadable": (lambda path: path.write_bytes(path.read_bytes()[:-40]), "cannot be decoded"),
    "unreadable, no pixels": (without_pixels, "cannot be decoded (Corrupt JPEG data: premature end of data segment)"),
    "no image": (lambda path: path.write_text("<html>404</html>" * 50), "is no JPEG, PNG, TIFF, GIF, BMP image"),
    "a link to nothing": (lambda path: (path.unlink(), path.symlink_to("nowhere.jpg")), "cannot be opened"),
    "wrong format": (lambda path: Image.open(path).save(path, "PNG"), "is PNG, its name says JPEG"),
    "wrong mode, grey": (in_mode("L"), "is grey (L), where 8-bit RGB is needed; Kimia Path24 without C is grey"),
    "wrong mode, CMYK": (in_mode("CMYK"), "is CMYK"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_each_fault_is_found_said_and_listed(kimia, name):
    root, study = kimia
    plant, reason = PLANTED[name]
    bad = root / "train" / "s1" / "2.jpg"
    plant(bad)
    mine = study()
    sentence = refusal(prepare, mine, "kimia")
    assert sentence.startswith("data.kimia: 1 faulty file (1 ") and f"{bad}: {reason}" in sentence
    assert str(mine.artifacts / "index" / "kimia.faults.csv") in sentence
    assert "restore them, or set data.faulty_files=leave_out" in sentence
    kind = {"no image": "unreadable", "a link to nothing": "unreadable"}.get(name, name.split(",")[0])
    assert faults(mine) == [("train/s1/2.jpg", kind, "fault")]
    assert not mine.index("kimia").exists()


PNGS = {
    "palette": (lambda path: Image.open(path).quantize().save(path), "wrong mode", "has a palette"),
    "alpha": (in_mode("RGBA"), "wrong mode", "has an alpha channel"),
    "grey with alpha": (in_mode("LA"), "wrong mode", "has an alpha channel"),
    "16 bits": (
        lambda path: path.write_bytes(png_header(8, 8, depth=16)),
        "wrong mode",
        "holds more than 8 bits a channel",
    ),
    "16 bits, grey": (
        lambda path: Image.fromarray(np.zeros((8, 8), np.uint16)).save(path),
        "wrong mode",
        "holds more than 8 bits a channel",
    ),
    "checksum": (
        lambda path: path.write_bytes(path.read_bytes()[:-16] + bytes(4) + path.read_bytes()[-12:]),
        "unreadable",
        "cannot be decoded (broken PNG file (bad header checksum",
    ),
    "a JPEG": (lambda path: Image.open(path).save(path, "JPEG"), "wrong format", "is JPEG, its name says PNG"),
    "a bomb": (lambda path: path.write_bytes(png_header(40000, 40000)), "oversized", "claims more than"),
    "a small bomb": (lambda path: path.write_bytes(png_header(10000, 9500)), "oversized", "claims more than"),
}


@pytest.mark.parametrize("name", PNGS)
def test_tiles_of_pannuke_must_be_8_bit_rgb(study, picture, tmp_path, name):
    plant, kind, reason = PNGS[name]
    for number, tissue in enumerate(["Colon", "Breast", "Colon"]):
        path = picture(tmp_path / "tiles" / "images" / f"fold1_{number}_{tissue}.png", seed=number)
    plant(path)
    mine = study(pannuke__root=str(tmp_path / "tiles"))
    assert f"{path}: {reason}" in refusal(prepare, mine, "pannuke")
    assert faults(mine, "pannuke") == [("images/fold1_2_Colon.png", kind, "fault")]


def test_a_header_that_claims_too_much_is_never_decoded(kimia, monkeypatch):
    root, study = kimia
    (root / "train" / "s0" / "x.png").write_bytes(png_header(40000, 40000))
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail(str(image.size)) if image.width > 8 else None)
    refusal(prepare, study(), "kimia")
    assert faults(study()) == [("train/s0/x.png", "oversized", "fault")]


def test_a_file_whose_name_and_folder_disagree_is_mislabelled(kimia, picture):
    root, study = kimia
    picture(root / "test" / "s0" / "s2_77.jpg", seed=5)
    assert "s2_77.jpg: its name says s2, its folder s0" in refusal(prepare, study(), "kimia")
    assert faults(study()) == [("test/s0/s2_77.jpg", "mislabelled", "fault")]


def test_all_faults_are_listed_at_once_and_the_old_index_stays(kimia, picture):
    root, study = kimia
    mine = study()
    prepare(mine, "kimia")
    index = mine.index("kimia")
    before = [path.read_bytes() for path in (index, index.with_suffix(".json"))]
    for name in ("train/s0/1.jpg", "train/s2/1.jpg"):
        (root / name).write_bytes(b"")
    picture(root / "train" / "s1" / "s0_7.jpg", seed=7)
    in_mode("L")(root / "test" / "s2" / "s2_10.jpg")
    sentence = refusal(prepare, mine, "kimia")
    assert sentence.startswith("data.kimia: 4 faulty files (2 empty, 1 mislabelled, 1 wrong mode)")
    assert [finding for finding in faults(mine) if finding[1] != "changed"] == [
        ("train/s0/1.jpg", "empty", "fault"),
        ("train/s1/s0_7.jpg", "mislabelled", "fault"),
        ("train/s2/1.jpg", "empty", "fault"),
        ("test/s2/s2_10.jpg", "wrong mode", "fault"),
    ]
    assert [path.read_bytes() for path in (index, index.with_suffix(".json"))] == before


def test_faulty_files_are_left_out_never_replaced_and_every_label_says_so(kimia):
    root, study = kimia
    whole = prepare(study(), "kimia")
    bad = root / "train" / "s1" / "2.jpg"
    bad.write_bytes(b"")
    mine = study(faulty_files="leave_out")
    table = prepare(mine, "kimia")
    expected = whole[whole["path"] != "train/s1/2.jpg"].reset_index(drop=True)
    pd.testing.assert_frame_equal(table, expected)
    pd.testing.assert_frame_equal(patch_table(mine, "kimia"), expected)
    assert mine.label == f"{study().label}; faulty files left out" and bad.read_bytes() == b""
    assert "faulty files" not in study().label


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_scan_that_loses_all_its_images_is_an_error(kimia, split):
    root, study = kimia
    for path in (root / split / "s1").iterdir():
        path.write_bytes(b"")
    sentence = refusal(prepare, study(faulty_files="leave_out"), "kimia")
    assert sentence.startswith(f"data.kimia: s1 loses all its {split} images")


def test_what_imagenet_itself_holds_is_a_notice(study, tmp_path, picture):
    root = tmp_path / "imagenet"
    files = [
        picture(root / "train" / wnid / f"{wnid}_{i}.JPEG", seed=ord(wnid[2]) + i)
        for wnid in ("n01", "n02")
        for i in (1, 4, 7)
    ]
    Image.open(files[0]).save(files[0], "PNG")
    in_mode("CMYK")(files[1])
    in_mode("L")(files[2])
    files[3].rename(files[3].with_name("n01_9.JPEG"))
    mine = study(imagenet__root=str(root), faulty_files="leave_out")
    assert len(prepare(mine, "imagenet")) == 5
    assert faults(mine, "imagenet") == [
        ("train/n01/n01_1.JPEG", "wrong format", "notice"),
        ("train/n01/n01_4.JPEG", "wrong mode", "notice"),
        ("train/n01/n01_7.JPEG", "wrong mode", "notice"),
        ("train/n02/n01_9.JPEG", "mislabelled", "fault"),
    ]


def test_what_a_file_says_about_itself_and_is_not_acted_on_is_a_notice(kimia):
    root, study = kimia
    picture, exif = Image.open(root / "train" / "s1" / "2.jpg"), Image.Exif()
    exif[0x0112] = 8
    picture.save(root / "train" / "s0" / "20.jpg", exif=exif)
    picture.save(root / "test" / "s2" / "s2_20.tif", save_all=True, append_images=[picture.rotate(90)])
    assert len(prepare(study(), "kimia")) == 15 + 2
    assert faults(study()) == [
        ("train/s0/20.jpg", "orientation", "notice"),
        ("test/s2/s2_20.tif", "several images", "notice"),
    ]


def test_an_image_of_one_colour_is_a_notice(kimia):
    root, study = kimia
    Image.new("RGB", (8, 8)).save(root / "train" / "s0" / "30.jpg")
    prepare(study(), "kimia")
    assert faults(study()) == [("train/s0/30.jpg", "blank", "notice")]


def test_files_that_occur_twice_are_named_with_their_double_and_kept(kimia):
    root, study = kimia
    data = (root / "train" / "s0" / "1.jpg").read_bytes()
    for name in ("train/s0/5.jpg", "train/s1/5.jpg", "test/s0/s0_5.jpg", "test/s2/s2_5.jpg"):
        (root / name).write_bytes(data)
    assert len(prepare(study(), "kimia")) == 15 + 4
    assert faults(study()) == [
        ("train/s0/5.jpg", "twice", "notice"),
        ("train/s1/5.jpg", "twice, under two labels", "notice"),
        ("test/s0/s0_5.jpg", "twice, in train and test", "notice"),
        ("test/s2/s2_5.jpg", "twice, under two labels, in train and test", "notice"),
    ]


def test_a_file_that_changed_since_the_last_index_is_a_notice_once(kimia, picture):
    root, study = kimia
    prepare(study(), "kimia")
    assert faults(study()) == []
    picture(root / "train" / "s0" / "1.jpg", seed=77)
    prepare(study(), "kimia")
    assert faults(study()) == [("train/s0/1.jpg", "changed", "notice")]
    prepare(study(), "kimia")
    assert faults(study()) == []


# -- the report --------------------------------------------------------------------------------------------


def test_the_report_counts_what_was_examined_and_names_what_was_found(kimia, study, picture, tmp_path):
    root, _ = kimia
    (root / "train" / "s1" / "2.jpg").write_bytes(b"")
    tiles = tmp_path / "tiles"
    for number, tissue in enumerate(["Colon", "Breast"]):
        picture(tiles / "images" / f"fold1_{number}_{tissue}.png", seed=number)
        picture(tmp_path / "imagenet" / "train" / f"n0{number}" / "1.JPEG", seed=number)
    roots = {"kimia__root": str(root), "pannuke__root": str(tiles), "imagenet__root": str(tmp_path / "imagenet")}
    mine = study(**roots, faulty_files="leave_out")
    for name in (
        "slides.csv",
        "train/s0/1.tiff",
        "train/s0/2.TIFF",
        "train/@eaDir/1.jpg/thumb.jpg",
        "train/s1/gr\udce4u",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    for dataset in ("imagenet", "pannuke", "kimia"):
        prepare(mine, dataset)
    assert data_report(mine, ("imagenet", "pannuke", "kimia")).values.tolist() == [
        ["imagenet", "examined", "", 2, "", ""],
        ["pannuke", "examined", "", 2, "", ""],
        ["kimia", "examined", "", 15, "", ""],
        ["kimia", "empty", "left out", 1, "train/s1/2.jpg", "holds no bytes"],
        ["kimia", "not read", "notice", 1, "slides.csv", ".csv file"],
        ["kimia", "not read", "notice", 2, "train/s0/1.tiff, …", ".tiff files"],
        ["kimia", "not read", "notice", 1, "train/@eaDir", "hidden or system file or folder"],
        ["kimia", "not read", "notice", 1, "train/s1/gr\\udce4u", "file without a suffix"],
    ]


def test_many_findings_of_a_kind_are_counted_and_the_past_is_left_out():
    many = [Finding(f"{i}.jpg", "twice", "notice", "the same bytes as a.jpg") for i in range(LISTED + 7)]
    rows = report_rows("kimia", 99, pd.DataFrame([*many, Finding("b.jpg", "changed", "notice", "")]))
    assert [row["files"] for row in rows] == [99] + [1] * LISTED + [7]
    assert rows[-1]["file"] == "further files" and {row["finding"] for row in rows} == {"examined", "twice"}


@pytest.mark.parametrize("dataset", [name for name in sets.NAMES if sets.get(name).pictures])
def test_a_damaged_image_is_a_fault_of_every_data_set(tmp_path, picture, damage, dataset):
    good, bad, gone = (f"{name}{sets.get(dataset).suffixes[0]}" for name in ("good", "bad", "gone"))
    picture(tmp_path / good, size=32), damage(picture(tmp_path / bad, seed=1, size=32))
    rows = [(path, "x", "train", "x") for path in (good, bad, gone)]
    found = examine(sets.get(dataset), tmp_path, rows, census(tmp_path, [row[0] for row in rows], tmp_path / "c"))
    assert [finding.path for finding in found if finding.severity == "fault"] == [bad, gone]


# -- an index that no longer fits --------------------------------------------------------------------------


def test_an_edited_index_is_refused_by_name_until_it_is_made_again(kimia):
    _, study = kimia
    mine = study()
    prepare(mine, "kimia")
    index = mine.index("kimia")
    index.write_text(index.read_text().replace("train", "test", 1))
    assert refusal(patch_table, mine, "kimia", kind=StudyError).startswith(f"{index}: was changed after notebook 01")
    prepare(mine, "kimia")
    assert len(patch_table(mine, "kimia")) == 15


def test_an_index_whose_writing_was_stopped_is_made_again(kimia, monkeypatch):
    """Killed between the table and the note that completes it, over an older index of other files."""
    root, study = kimia
    mine = study()
    prepare(mine, "kimia")
    (root / "train" / "s0" / "1.jpg").unlink()

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(preparation, "write_json", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare(mine, "kimia")
    monkeypatch.undo()
    assert len(patch_table(mine, "kimia")) == 14


def test_changed_and_missing_files_stop_a_training_unless_they_are_accepted(kimia, picture):
    root, study = kimia
    table = prepare(study(), "kimia")
    check_unchanged(study(), "kimia")
    (root / "train" / "s1" / "2.jpg").touch()
    check_unchanged(study(), "kimia")
    changed = picture(root / "train" / "s0" / "2.jpg", seed=99)
    (root / "test" / "s2" / "s2_10.jpg").unlink()
    sentence = refusal(check_unchanged, study(), "kimia")
    assert sentence.startswith(f"data.kimia: 2 files changed since the index was made, the first is {changed};")
    assert "run notebook 01 again" in sentence and "data.accept_changed_files=true" in sentence
    accepting = study(accept_changed_files=True)
    check_unchanged(accepting, "kimia")
    now = patch_table(accepting, "kimia")
    assert table.loc[now["sha256"] != table["sha256"], "path"].tolist() == ["train/s0/2.jpg", "test/s2/s2_10.jpg"]


def test_no_training_starts_on_changed_files(kimia, picture):
    root, study = kimia
    prepare(study(), "kimia")
    changed = picture(root / "train" / "s0" / "2.jpg", seed=99)
    alone = base_study(study())  # C, without those that it starts from
    assert str(changed) in refusal(train_strategy, alone, "c", "paper", 0)


def test_examining_reads_no_hash_of_its_own(tmp_path, picture):
    """The census' hashes are taken as they are, so that no file is hashed twice."""
    rows = [(f"{i}.png", "x", "train", "x") for i in range(3)]
    for i in range(3):
        picture(tmp_path / f"{i}.png", seed=i)
    found = examine(sets.get("pannuke"), tmp_path, rows, {"0.png": "same", "1.png": "other", "2.png": "same"})
    assert found == [Finding("2.png", "twice", "notice", "the same bytes as 0.png")]


class Records(DataSet):
    """A set whose files are no images."""

    name, pictures = "records", False

    def unsound(self, path):
        return None if path.read_bytes().startswith(b"sound") else "does not begin well"


def test_files_that_are_no_images_are_examined_by_their_set(tmp_path):
    for name, content in {"a.x": b"sound", "b.x": b"unsound", "c.x": b""}.items():
        (tmp_path / name).write_bytes(content)
    rows = [(name, "label", "train", "") for name in ("a.x", "b.x", "c.x")]
    hashes = {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name, *_ in rows}
    found = [(finding.path, finding.kind, finding.severity) for finding in examine(Records(), tmp_path, rows, hashes)]
    assert found == [("b.x", "unsound", "fault"), ("c.x", "empty", "fault")]
