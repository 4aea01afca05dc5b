"""The PatchTable: its columns, its hashes, its file, and images that cannot be read."""

import hashlib
import json
import os
import shutil

import pandas as pd
import pytest

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.base.files import sha256_table, write_text
from lgffem_core.data.sets.kimia import SET
from lgffem_core.data.table import COLUMNS, build_table, read_table


def test_rows_keep_their_order_and_labels_are_numbered_as_listed(tmp_path, picture):
    for name in ("b.png", "a.jpg", "c.png"):
        picture(tmp_path / name, seed=ord(name[0]))
    rows = [("b.png", "NA", "train", "1"), ("a.jpg", "x", "test", "02"), ("c.png", "NA", "train", "1")]
    hashes = {path: hashlib.sha256((tmp_path / path).read_bytes()).hexdigest() for path, *_ in rows}
    table = build_table(tmp_path, rows, ["x", "NA"], hashes)
    assert list(table.columns) == COLUMNS
    assert list(table["path"]) == ["b.png", "a.jpg", "c.png"] and list(table.index) == [0, 1, 2]
    assert list(table["label_id"]) == [1, 0, 1] and table["label_id"].dtype == "int64"
    assert list(table["sha256"]) == [hashes[path] for path in table["path"]]
    assert set(build_table(tmp_path, rows, ["x", "NA"])["sha256"]) == {""}


def test_the_file_gives_the_same_table_back(tmp_path, picture):
    """Labels such as "NA" and groups such as "02" stay the text that they are."""
    picture(tmp_path / "a.png"), picture(tmp_path / "ä, b.png")
    table = build_table(tmp_path, [("a.png", "NA", "train", "02"), ("ä, b.png", "7", "test", "")], ["NA", "7"])
    again = read_table(write_text(tmp_path / "index" / "table.csv", table.to_csv(index=False)))
    pd.testing.assert_frame_equal(again, table)


def test_a_file_with_other_columns_is_no_patch_table(tmp_path):
    (tmp_path / "table.csv").write_text("path,label\na.png,x\n")
    with pytest.raises(StudyError, match="table.csv: is no PatchTable .*run notebook 01 again"):
        read_table(tmp_path / "table.csv")


SOUND = pd.DataFrame(
    {
        "path": ["b.png", "a.png", "c.png"],
        "label": ["x", "y", "x"],
        "label_id": [0, 1, 0],
        "split": ["train", "test", "train"],
        "group": ["", "7", "7"],
        "sha256": ["", "0" * 64, "af" * 32],
    }
)
#: A table that is none, and what is said of it.
BROKEN = {
    "a path twice": ({"path": ["b.png", "a.png", "b.png"]}, "column path, row 2: 'b.png' occurs twice"),
    "no path": ({"path": ["b.png", "", "c.png"]}, "column path, row 1: '' is empty"),
    "another split": ({"split": ["train", "val", "dev"]}, "column split, row 1: 'val' is neither train nor test"),
    "a hash cut off": ({"sha256": ["", "0" * 63, ""]}, f"column sha256, row 1: '{'0' * 63}' is no SHA-256"),
    "a number left out": ({"label_id": [0, 2, 0]}, "column label_id, row 1: 2 leaves a number out"),
    "a number below": ({"label_id": [-1, 0, -1]}, "column label_id, row 0: -1 leaves a number out"),
    "two numbers": ({"label_id": [0, 1, 1]}, "column label, row 2: 'x' does not go with its label_id"),
    "two labels": ({"label": ["x", "y", "z"]}, "column label, row 2: 'z' does not go with its label_id"),
    "no number": ({"label_id": ["0", "one", "0"]}, "column label_id, row 1: 'one' is not of type int64"),
    "one column more": ({"size": 7}, "column size: is not known"),
}


def test_a_sound_table_is_given_back_as_it_is(tmp_path):
    pd.testing.assert_frame_equal(read_table(write_text(tmp_path / "t.csv", SOUND.to_csv(index=False))), SOUND)


@pytest.mark.parametrize(("changes", "said"), BROKEN.values(), ids=BROKEN)
def test_what_breaks_the_schema_is_named_by_file_column_and_first_row(tmp_path, changes, said):
    path = write_text(tmp_path / "t.csv", SOUND.assign(**changes).to_csv(index=False))
    with pytest.raises(StudyError) as caught:
        read_table(path)
    assert str(caught.value) == f"{path}: is no PatchTable ({said}); run notebook 01 again."


def test_columns_that_are_missing_or_elsewhere_are_named(tmp_path):
    for columns, said in ((COLUMNS[:-1], "column sha256: is missing"), (COLUMNS[::-1], "column sha256: is not in its")):
        with pytest.raises(StudyError, match=said):
            read_table(write_text(tmp_path / "t.csv", SOUND[columns].to_csv(index=False)))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'path,label\n"a'])
def test_what_is_no_table_at_all_is_one_sentence(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(StudyError, match="^.*t.csv: is no PatchTable [^\n]*run notebook 01 again.$"):
        read_table(tmp_path / "t.csv")


def test_a_reader_that_is_at_fault_is_told_before_anything_is_written(tmp_path):
    rows, hashes = [("a.png", "x", "train", ""), ("b.png", "y", "valid", "")], {"a.png": "", "b.png": ""}
    for labels, said in ((["x", "y"], "column split, row 1: 'valid'"), (["x"], "column label_id, row 1")):
        with pytest.raises(
            StudyError, match=f"^{tmp_path}: is no PatchTable .{said}.*mend the reader of this data set"
        ):
            build_table(tmp_path, rows, labels, hashes)


def test_a_data_sets_own_columns_are_kept_and_checked(tmp_path):
    further, hashes = {"magnification": "int64", "grade": "str"}, {"a.png": "", "b.png": ""}
    rows = [("a.png", "x", "train", "", 40, "02"), ("b.png", "y", "test", "", 100, "NA")]
    table = build_table(tmp_path, rows, ["x", "y"], hashes, further)
    assert list(table.columns) == [*COLUMNS, *further]
    path = write_text(tmp_path / "t.csv", table.to_csv(index=False))
    pd.testing.assert_frame_equal(read_table(path, further), table)
    with pytest.raises(StudyError, match="column magnification: is not known"):
        read_table(path)
    write_text(path, table.assign(magnification=["40", "40x"]).to_csv(index=False))
    with pytest.raises(StudyError, match="column magnification, row 1: '40x' is not of type int64"):
        read_table(path, further)


def test_images_are_found_below_in_natural_order(tmp_path, picture):
    for name in ("s0_10.jpg", "s0_2.JPG", "s0_1.Jpeg", "deep/er/s0_3.jpg", ".hidden.jpg", "s0_4.bmp"):
        picture(tmp_path / "test" / name)
    picture(tmp_path / "s0_5.jpg")
    found = SET.image_files(tmp_path)
    assert found == ["test/deep/er/s0_3.jpg", "test/s0_1.Jpeg", "test/s0_2.JPG", "test/s0_10.jpg"]


@pytest.mark.parametrize(
    "name", [b"gr\xe4u.jpg", b"a\rb.jpg", b"a\nb.jpg", b"a\x85b.jpg", b"gr\xe4u/a.jpg", b"\t/a.jpg"]
)
def test_a_name_that_no_table_holds_is_refused_by_name(tmp_path, picture, name):
    """Such as those of an archive from Windows, unpacked on Linux."""
    picture(tmp_path / "train" / "s0" / "good.jpg")
    bad = os.path.join(os.fsencode(tmp_path), b"train", b"s0", name)
    os.makedirs(os.path.dirname(bad), exist_ok=True)
    shutil.copy(tmp_path / "train" / "s0" / "good.jpg", bad)
    with pytest.raises(RequestError) as caught:
        SET.image_files(tmp_path)
    sentence = str(caught.value)
    assert sentence.isprintable() and repr(f"train/s0/{os.fsdecode(name)}") in sentence and "rename" in sentence


def test_a_tables_hash_is_that_of_its_columns_and_tells_every_change():
    plain = json.dumps(SOUND.to_dict("list"), sort_keys=True, separators=(",", ":"))
    assert sha256_table(SOUND) == sha256_table(SOUND.copy()) == hashlib.sha256(plain.encode()).hexdigest()
    others = [SOUND[::-1], SOUND[:2], SOUND.rename(columns={"path": "paths"}), SOUND.assign(split=SOUND["label"])]
    assert len({sha256_table(SOUND), *map(sha256_table, others)}) == 5
