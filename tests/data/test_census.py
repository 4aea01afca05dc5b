"""The census: the same as hashing every file, without hashing what did not change, and never fooled by times."""

import csv
import hashlib
import os
import subprocess
import sys
import time

import pytest

from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import Study
from lgffem_core.data import census as module
from lgffem_core.data.census import census, data_digest, data_state, files_cache


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "root"
    for name in ("a.jpg", "deep/b.jpg", 'odd, "name"\n.jpg'):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode() * 3)
    return root


@pytest.fixture
def later(monkeypatch):
    """A clock that is an hour ahead: files that were written just now count as settled."""
    now = time.time_ns()
    monkeypatch.setattr(module.time, "time_ns", lambda: now + 3600 * 10**9)


@pytest.fixture
def hashed(monkeypatch):
    """The names of the files that are read."""
    read, original = [], module.sha256_file
    monkeypatch.setattr(module, "sha256_file", lambda path: read.append(os.path.basename(path)) or original(path))
    return read


def tick():
    """Lets the file system's clock go on: with ``later``, what follows is not told from what came before without it."""
    time.sleep(0.02)


def look(folder):
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg")]
    return census(folder, names, folder.parent / "cache.csv")


def plain(folder):
    """The same, by a loop that remembers nothing."""
    files = [path for path in folder.rglob("*.jpg")]
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_it_is_what_a_plain_loop_finds(folder, later):
    assert look(folder) == look(folder) == plain(folder)
    assert len(plain(folder)) == 3


def test_nothing_is_read_twice_unless_it_changed(folder, later, hashed):
    look(folder)
    assert len(hashed) == 3
    hashed.clear()
    written = (folder.parent / "cache.csv").stat().st_mtime_ns
    look(folder)
    assert hashed == [] and (folder.parent / "cache.csv").stat().st_mtime_ns == written
    tick()
    os.utime(folder / "a.jpg")
    assert look(folder) == plain(folder) and hashed == ["a.jpg"]


def test_an_edit_of_the_same_size_with_its_time_put_back_is_noticed(folder, later):
    path = folder / "a.jpg"
    before, times = look(folder), path.stat()
    tick()
    path.write_bytes(bytes(reversed(path.read_bytes())))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_mtime_ns == times.st_mtime_ns and path.stat().st_size == times.st_size
    assert look(folder) == plain(folder) and look(folder)["a.jpg"] != before["a.jpg"]


def test_files_that_come_go_and_move(folder, later, hashed):
    look(folder)
    (folder / "c.jpg").write_bytes(b"new")
    (folder / "a.jpg").rename(folder / "z.jpg")
    (folder / "deep" / "b.jpg").unlink()
    assert look(folder) == plain(folder)
    with open(folder.parent / "cache.csv", newline="") as handle:
        assert {row["path"] for row in csv.DictReader(handle)} == set(plain(folder))


def test_a_file_that_was_written_just_now_is_not_trusted(folder, hashed):
    """Its next change may fall into the same tick of the clock and leave size and times as they were."""
    look(folder)
    look(folder)
    assert len(hashed) == 6


def test_a_part_of_the_files_leaves_the_rest_remembered(folder, later, hashed):
    look(folder)
    (folder / "a.jpg").write_bytes(b"changed")
    census(folder, ["a.jpg"], folder.parent / "cache.csv")
    hashed.clear()
    assert look(folder) == plain(folder) and hashed == []


@pytest.mark.parametrize(
    "damaged", [b"", b"path,size\n", b"\xff\x00\n", b"path,size,mtime_ns,ctime_ns,inode,sha256\nx\n"]
)
def test_a_damaged_cache_is_made_anew(folder, later, damaged):
    (folder.parent / "cache.csv").write_bytes(damaged)
    assert look(folder) == plain(folder)


def test_what_cannot_be_read_has_no_hash(folder, later):
    (folder / "broken.jpg").symlink_to(folder / "nowhere")
    found = look(folder)
    assert found.pop("broken.jpg") == ""
    (folder / "broken.jpg").unlink()
    assert found == plain(folder)


# -- one hash for a data set -------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path, kimia_folder, official_folds):
    roots = {"data.kimia.root": str(kimia_folder()), "data.pannuke.root": str(official_folds())}
    return Study.load(PROJECT / "params" / "smoke.yaml", roots, root=tmp_path)


def flip(path):
    tick()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_every_change_of_the_data_changes_the_digest_and_a_touch_does_not(study, later):
    root, seen = study.data_root("kimia"), set()
    one, other = root / "train" / "s0" / "1.jpg", root / "train" / "s1" / "1.jpg"
    changes = [
        lambda: None,
        lambda: flip(one),
        lambda: one.rename(root / "train" / "s0" / "9.jpg"),
        lambda: (root / "test" / "s1_11.jpg").write_bytes(b"x"),
        lambda: other.unlink(),
    ]
    for change in changes:
        change()
        digest = data_digest(study, "kimia")
        assert digest not in seen
        seen.add(digest)
        (root / "train" / "s2" / "1.jpg").touch()
        (root / "notes.txt").write_text("not an image")
        assert data_digest(study, "kimia") == digest
    assert files_cache(study, "kimia") == study.artifacts / "index" / "kimia.files.csv"
    assert files_cache(study, "kimia").is_file()


def test_what_is_not_read_changes_the_state_alone(study):
    """The data report counts it, and nothing else depends on it."""
    root = study.data_root("kimia")
    digest, seen = data_digest(study, "kimia"), [data_state(study, "kimia")]
    for name in ("notes.txt", "train/s0/1.tiff", "train/s0/2.tiff", "Training/s0/1.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
        seen.append(data_state(study, "kimia"))
    assert seen[0] == digest == data_digest(study, "kimia") and len(set(seen)) == len(seen)


@pytest.mark.parametrize("output", ["", "out"])
def test_results_that_lie_below_a_root_are_none_of_its_files(kimia_folder, output):
    root = kimia_folder()
    mine = Study.load(PROJECT / "params" / "smoke.yaml", {"data.kimia.root": str(root)}, root=root / output)
    mine.artifacts.mkdir(parents=True), mine.results.mkdir(parents=True)
    before = data_state(mine, "kimia")
    for folder in (mine.artifacts, mine.results):
        (folder / "new.json").touch()
    assert data_state(mine, "kimia") == before != data_digest(mine, "kimia")


def test_what_a_link_leads_to_counts(study, tmp_path):
    scan = study.data_root("kimia") / "train" / "s0"
    before = data_digest(study, "kimia")
    scan.rename(tmp_path / "elsewhere")
    scan.symlink_to(tmp_path / "elsewhere")
    assert data_digest(study, "kimia") == before
    flip(tmp_path / "elsewhere" / "2.jpg")
    assert data_digest(study, "kimia") != before


@pytest.mark.parametrize("part", ["images/fold2/images", "images/fold2/types", "masks/fold2/masks"])
def test_official_folds_count_with_their_arrays(study, part):
    before = data_digest(study, "pannuke")
    flip(study.data_root("pannuke") / "Fold 2" / f"{part}.npy")
    assert data_digest(study, "pannuke") != before


def test_imagenet_counts_with_its_archive_until_it_is_unpacked(tmp_path, picture):
    root = tmp_path / "imagenet"
    root.mkdir()
    mine = Study.load(PROJECT / "params" / "smoke.yaml", {"data.imagenet.root": str(root)}, root=tmp_path)
    seen = [data_digest(mine, "imagenet")]
    (root / "ILSVRC2012_img_train.tar").write_bytes(b"tar")
    seen.append(data_digest(mine, "imagenet"))
    picture(root / "train" / "n01" / "n01_1.JPEG")
    seen.append(data_digest(mine, "imagenet"))
    (root / "ILSVRC2012_img_train.tar").unlink()
    assert len(set(seen)) == 3 and data_digest(mine, "imagenet") == seen[-1]


def test_synthetic_images_that_are_not_made_yet_have_a_constant(tmp_path):
    mine = Study.load(PROJECT / "params" / "smoke.yaml", root=tmp_path)
    assert {data_digest(mine, dataset) for dataset in ("imagenet", "pannuke", "kimia")} == {
        hashlib.sha256().hexdigest()
    }


def test_asking_imports_nothing_heavy():
    code = (
        "import sys; from lgffem_core.data import census, sets; "
        "found = [sets.get(name).name for name in sets.NAMES]; assert len(found) == 6; "
        "print({'torch', 'torchvision', 'timm', 'pandas', 'pandera', 'numpy', 'cv2', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert done.stdout.strip() == "set()"
