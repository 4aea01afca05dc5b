"""What lies below a root: what is read is found through links, all else is counted, and nothing is entered twice."""

import errno
import os
import re
from collections import Counter

import pytest

from lgffem_core.base.errors import StudyError
from lgffem_core.data import listing
from lgffem_core.data.listing import HIDDEN, list_tree, printable, subfolders, unread_rows, what_is_there

JPG = re.compile(r".*\.(?i:jpg)", re.DOTALL)


def tree(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def found(root):
    """(what is read, kind -> (count, first))."""
    files, unread = list_tree(root, JPG)
    return sorted(files), {kind: tuple(entry) for kind, entry in unread.items()}


def test_every_file_is_read_or_counted(tmp_path):
    """Against a plain loop over os.walk."""
    names = [
        "a.jpg",
        "b/c.JPG",
        'b/d/odd "name"\n.jpg',
        "b/x.tiff",
        "b/d/y.TIFF",
        "b/z.tar.gz",
        "README",
        "1.2.840.10008",
    ]
    tree(tmp_path, *names)
    walked = [name for _, _, files in os.walk(tmp_path) for name in files]
    files, unread = found(tmp_path)
    assert files == sorted(name for name in names if name.lower().endswith(".jpg"))
    assert len(files) + sum(count for count, _ in unread.values()) == len(walked) == len(names)
    kinds = Counter(os.path.splitext(name)[1].lower() for name in walked if not name.lower().endswith(".jpg"))
    assert unread[".tiff"] == (kinds[".tiff"], "b/d/y.TIFF") and unread[".gz"] == (1, "b/z.tar.gz")
    assert unread["without a suffix"] == (2, "1.2.840.10008")


def test_a_missing_folder_and_a_file_hold_nothing(tmp_path):
    tree(tmp_path, "file")
    assert found(tmp_path / "nowhere") == found(tmp_path / "file") == ([], {})


@pytest.mark.parametrize(
    "name",
    ["@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", "s0/@eaDir/x.jpg", "#recycle/old.jpg", "$RECYCLE.BIN/S-1-5/a.jpg",
     "System Volume Information/a.jpg", "__MACOSX/s0/a.jpg", "__MACOSX/s0/._a.jpg", "lost+found/a.jpg", "._a.jpg",
     ".Trash-1000/files/a.jpg", ".a.jpg", ".DS_Store", "Thumbs.db", "s0/desktop.ini", ".snapshot/hourly/s0/a.jpg",
     "@Recycle/a.jpg", "#snapshot/a.jpg", "$Recycle.Bin/a.jpg", "RECYCLER/a.jpg", "Icon\r"],
)  # fmt: skip
def test_what_systems_leave_is_counted_once_and_not_entered(tmp_path, name):
    files, unread = found(tree(tmp_path, "a.jpg", name))
    (_, first), *others = unread.values()
    assert files == ["a.jpg"] and list(unread) == [HIDDEN] and not others and name.startswith(first)


@pytest.mark.parametrize(
    "name", ["eaDir/a.jpg", "recycle/a.jpg", "lost/a.jpg", "#1/a.jpg", "@home/a.jpg", "a.thumbs.jpg"]
)
def test_what_merely_looks_like_it_is_read(tmp_path, name):
    assert found(tree(tmp_path, name)) == ([name], {})


# -- links -------------------------------------------------------------------------------------------------


def test_links_to_files_and_folders_are_followed(tmp_path):
    root = tree(tmp_path / "root", "a.jpg")
    tree(tmp_path / "far", "b.jpg", "deep/c.jpg", "x.txt")
    (root / "folder").symlink_to(tmp_path / "far")
    (root / "file.jpg").symlink_to(tmp_path / "far" / "b.jpg")
    (root / "again").symlink_to(tmp_path / "far")  # two ways to one folder are no loop
    files, unread = found(root)
    assert files == ["a.jpg", "again/b.jpg", "again/deep/c.jpg", "file.jpg", "folder/b.jpg", "folder/deep/c.jpg"]
    assert unread == {".txt": (2, "again/x.txt")}


@pytest.mark.parametrize("target", [".", "..", "../..", "../../far"])
def test_a_link_back_is_entered_no_second_time(tmp_path, target):
    root = tree(tmp_path / "root", "s0/a.jpg", "s1/b.jpg")
    tree(tmp_path / "far", "c.jpg")
    (tmp_path / "far" / "back").symlink_to(root)
    (root / "s0" / "link").symlink_to(target)
    files, unread = found(root)
    assert [name for name in files if "link" not in name] == ["s0/a.jpg", "s1/b.jpg"] and len(files) < 6
    assert unread["loop"][0] >= 1


def test_links_to_nothing_and_to_themselves(tmp_path):
    """One that is named as an image is listed, so that it is found to be faulty."""
    for name, target in (("a.jpg", "nowhere"), ("b.jpg", "b.jpg"), ("s0", "nowhere"), ("s1", "s1")):
        (tmp_path / name).symlink_to(target)
    assert found(tmp_path) == (["a.jpg", "b.jpg"], {"broken link": (2, "s0")})
    assert subfolders(tmp_path) == []


def test_nothing_waits_for_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").symlink_to("a.jpg")
    assert found(tmp_path) == ([], {"special": (2, "a.jpg")})


def test_links_cost_a_look_at_the_disk_and_files_do_not(tmp_path, monkeypatch):
    """ImageNet has 1.28 million files."""
    looks, original = [], os.stat
    tree(tmp_path, *(f"s{i}/{j}.jpg" for i in range(3) for j in range(50)))
    monkeypatch.setattr(listing.os, "stat", lambda path, **options: looks.append(path) or original(path, **options))
    assert len(found(tmp_path)[0]) == 150 and len(looks) == 4  # a folder each


def test_a_folder_that_cannot_be_listed_is_one_sentence(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(listing.os, "scandir", refuse)
    with pytest.raises(StudyError, match=f"^{tmp_path}/: cannot be listed .Permission denied.; make it readable"):
        found(tmp_path)


# -- in words ----------------------------------------------------------------------------------------------


def test_what_is_there_is_said_in_words(tmp_path):
    root = tree(tmp_path / "s0", "a.tiff", "b.tiff", "c.bmp", "Thumbs.db")
    said = "; in s0/ there is 1 .bmp file and 2 .tiff files and 1 hidden or system file or folder, this set reads .jpg"
    assert what_is_there(root, (".jpg",)) == said
    assert what_is_there(tmp_path / "nowhere", (".jpg",)) == ""


def test_rows_of_the_report_name_the_first_of_a_kind():
    rows = unread_rows({".tiff": [12, "a/b.tiff"], "loop": (1, "gr\udce4u\r")})
    assert rows == [(12, "a/b.tiff, …", ".tiff files"), (1, "gr\\udce4u\\r", "link back to a folder above it")]


def test_printable_names_stay_as_they_are():
    assert printable("s0/grün, 1 – 2.jpg") == "s0/grün, 1 – 2.jpg"
