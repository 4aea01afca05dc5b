"""ImageNet's layout: extracted folders, the official archive (a tar of tars), and damaged ones."""

import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from torchvision.datasets import imagenet as torchvision_imagenet
from torchvision.datasets.imagenet import ARCHIVE_META

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.base.files import sha256_file
from lgffem_core.config.params import ImageNet
from lgffem_core.data.sets.imagenet import SET
from lgffem_core.data.table import build_table

CLASSES = {"n02": 3, "n01": 2}


def patch_table(root):
    rows, labels = SET.layout(root, ImageNet())
    return build_table(root, rows, labels, {path: sha256_file(root / path) for path, *_ in rows})


@pytest.fixture
def extracted(tmp_path, picture):
    for wnid, count in CLASSES.items():
        for number in range(count):
            picture(tmp_path / "extracted" / "train" / wnid / f"{wnid}_{number}.JPEG", seed=ord(wnid[2]) + number)
    return tmp_path / "extracted"


def add_bytes(archive, name, contents):
    member = tarfile.TarInfo(name)
    member.size = len(contents)
    archive.addfile(member, io.BytesIO(contents))


@pytest.fixture
def archived(tmp_path, extracted, monkeypatch):
    """The same images as the official archive: one tar a class inside one tar, its MD5 the expected one."""
    root = tmp_path / "archived"
    root.mkdir()
    path = root / "ILSVRC2012_img_train.tar"
    with tarfile.open(path, "w") as outer:
        for folder in sorted((extracted / "train").iterdir()):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as archive:
                for image in sorted(folder.iterdir()):
                    add_bytes(archive, image.name, image.read_bytes())
            add_bytes(outer, f"{folder.name}.tar", inner.getvalue())
    monkeypatch.setitem(ARCHIVE_META, "train", (path.name, hashlib.md5(path.read_bytes()).hexdigest()))
    return root


def special(kind, link=""):
    member = tarfile.TarInfo()
    member.type, member.linkname = kind, link
    return member


HOSTILE = {
    "/tmp/lgffem_evil.JPEG": None,
    "../evil.JPEG": None,
    "deeper/evil.JPEG": None,
    "..": special(tarfile.DIRTYPE),
    "link.JPEG": special(tarfile.SYMTYPE, "/etc/passwd"),
    "near.JPEG": special(tarfile.SYMTYPE, "n01_0.JPEG"),
    "hard.JPEG": special(tarfile.LNKTYPE, "../../../secret"),
    "device.JPEG": special(tarfile.CHRTYPE),
    "pipe.JPEG": special(tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("inner", [True, False], ids=["in a class", "in the archive"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_member_is_refused_and_nothing_is_left(tmp_path, monkeypatch, name, inner):
    """The archive's MD5 is taken as right here, as if the published file itself were hostile."""

    def add_hostile(archive):
        member = HOSTILE[name] or tarfile.TarInfo()
        member.name, member.size = name, 4 if HOSTILE[name] is None else 0
        archive.addfile(member, io.BytesIO(b"evil"))

    root = tmp_path / "data" / "imagenet"
    root.mkdir(parents=True)
    path, contents = root / "ILSVRC2012_img_train.tar", io.BytesIO()
    with tarfile.open(fileobj=contents, mode="w") as archive:
        add_bytes(archive, "n01_0.JPEG", b"good")
        if inner:
            add_hostile(archive)
    with tarfile.open(path, "w") as outer:
        add_bytes(outer, "n01.tar", contents.getvalue())
        if not inner:
            add_hostile(outer)
    monkeypatch.setitem(ARCHIVE_META, "train", (path.name, hashlib.md5(path.read_bytes()).hexdigest()))
    assert refusal(root, StudyError) == f"{path}: holds {name!r}, which is no plain file; download it again."
    assert not (root / "train").exists() and getattr(tarfile.TarFile, "extraction_filter", None) is None
    assert {p.name for p in tmp_path.rglob("*") if p.is_file() or p.is_symlink()} <= {
        path.name,
        "n01.tar",
        "n01_0.JPEG",
    }
    assert not Path("/tmp/lgffem_evil.JPEG").exists()


def refusal(root, kind=RequestError):
    with pytest.raises(kind) as caught:
        patch_table(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_classes_come_in_wnid_order_and_all_images_train(extracted):
    table = patch_table(extracted)
    assert list(table["label"]) == ["n01"] * 2 + ["n02"] * 3 and list(table["label_id"]) == [0, 0, 1, 1, 1]
    assert set(table["split"]) == {"train"} and (table["group"] == table["label"]).all()
    assert list(table["path"])[:2] == ["train/n01/n01_0.JPEG", "train/n01/n01_1.JPEG"]


def test_the_official_archive_gives_the_same_table(extracted, archived):
    assert patch_table(archived).equals(patch_table(extracted))


def test_the_archive_is_unpacked_once(archived):
    first = patch_table(archived)
    (archived / "ILSVRC2012_img_train.tar").unlink()
    assert patch_table(archived).equals(first)


def test_an_extraction_that_was_stopped_leaves_nothing_that_looks_complete(archived, monkeypatch):
    original, unpacked = torchvision_imagenet.extract_archive, []

    def stop_after_the_first_class(source, target, **options):
        if len(unpacked) == 2:  # the outer archive and one class
            raise KeyboardInterrupt
        unpacked.append(source)
        return original(source, target, **options)

    monkeypatch.setattr(torchvision_imagenet, "extract_archive", stop_after_the_first_class)
    with pytest.raises(KeyboardInterrupt):
        patch_table(archived)
    assert not (archived / "train").exists()
    monkeypatch.setattr(torchvision_imagenet, "extract_archive", original)
    assert len(patch_table(archived)) == sum(CLASSES.values())


def test_a_damaged_archive_is_named_and_leaves_no_folder(archived):
    path = archived / "ILSVRC2012_img_train.tar"
    path.write_bytes(path.read_bytes()[:-3000])
    sentence = refusal(archived, StudyError)
    assert sentence.startswith(f"{path}: ") and "corrupted" in sentence and "download it again" in sentence
    assert not (archived / "train").exists()


def test_an_empty_class_folder_is_named(extracted):
    empty = extracted / "train" / "n015"
    empty.mkdir()
    assert refusal(extracted) == f"{empty}: is an empty class folder; restore its images or remove it."


def test_what_a_class_folder_holds_instead_of_images_is_said(extracted, picture):
    picture(extracted / "train" / "n015" / "a.bmp")
    assert "; in n015/ there is 1 .bmp file, this set reads .jpeg, .jpg, .png; restore" in refusal(extracted)


def test_an_archive_that_was_unpacked_by_half_is_recognised(tmp_path):
    (tmp_path / "train").mkdir()
    for wnid in CLASSES:
        (tmp_path / "train" / f"{wnid}.tar").touch()
    assert "has 0 class folders; in train/ there are 2 .tar files" in refusal(tmp_path)


def test_linked_class_folders_are_read_and_those_of_systems_are_none(extracted, picture, tmp_path):
    before = patch_table(extracted)
    (extracted / "train" / "n01").rename(tmp_path / "elsewhere")
    (extracted / "train" / "n01").symlink_to(tmp_path / "elsewhere")
    picture(extracted / "train" / "@eaDir" / "n01_0.JPEG" / "SYNOPHOTO_THUMB_M.jpg")
    picture(extracted / "train" / "stray.JPEG")
    assert patch_table(extracted).equals(before)


def test_one_class_is_too_few(tmp_path, picture):
    picture(tmp_path / "train" / "n01" / "a.JPEG")
    assert "has 1 class folders; two are needed" in refusal(tmp_path)


def test_images_of_val_are_held_out_and_come_last(extracted, picture):
    before = patch_table(extracted)
    assert patch_table(extracted).equals(before) and (extracted / "val").mkdir() is None
    picture(extracted / "val" / "ILSVRC2012_val_00000001.JPEG")  # without its class it cannot be asked for
    assert patch_table(extracted).equals(before)
    picture(extracted / "val" / "n02" / "ILSVRC2012_val_00000002.JPEG", seed=9)
    (extracted / "val" / ".cache").mkdir()
    table = patch_table(extracted)
    assert table[:-1].equals(before)
    row = table.iloc[-1]
    assert row["path"] == "val/n02/ILSVRC2012_val_00000002.JPEG"
    assert (row["label"], row["label_id"], row["split"], row["group"]) == ("n02", 1, "test", "n02")


def test_a_class_of_val_that_is_not_trained_on_is_named(extracted, picture):
    picture(extracted / "val" / "n03" / "1.JPEG")
    assert refusal(extracted) == f"{extracted / 'val' / 'n03'}: is no class of train/; rename it, or remove it."


def test_hidden_folders_and_other_files_are_left_out(extracted):
    before = patch_table(extracted)
    (extracted / "train" / ".cache").mkdir()
    (extracted / "train" / "n01" / "notes.txt").write_text("x")
    assert patch_table(extracted).equals(before)


def test_a_full_disk_is_no_damage_of_the_archive(archived, small_files):
    with small_files(500), pytest.raises(StudyError, match="train: cannot be written") as caught:
        SET.layout(archived, ImageNet())
    assert "download" not in str(caught.value) and not (archived / "train").exists()
