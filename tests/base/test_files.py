"""Files: written whole or not at all, and named by their contents."""

import errno
import hashlib
import json
import os
import stat
import subprocess
import sys

import psutil
import pytest

from lgffem_core.base import files
from lgffem_core.base.errors import StudyError
from lgffem_core.base.files import (
    atomic_path,
    read_json,
    remove_leftovers,
    sha256_file,
    sha256_json,
    write_json,
    write_text,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_body_writes_beside_the_target_which_appears_at_the_end(tmp_path):
    target = tmp_path / "new" / "table.csv"
    with atomic_path(target) as temporary:
        temporary.write_text("whole")
        assert temporary.parent == target.parent and temporary.suffix == ".csv"
        assert not target.exists()
    assert target.read_text() == "whole" and names(target.parent) == ["table.csv"]


def test_a_body_that_raises_leaves_the_old_file_and_no_temporary(tmp_path):
    target = write_text(tmp_path / "table.csv", "old")
    with pytest.raises(RuntimeError, match="half way"), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("half way")
    assert target.read_text() == "old" and names(tmp_path) == ["table.csv"]


def test_an_interrupt_leaves_the_old_file_too(tmp_path):
    target = write_text(tmp_path / "table.csv", "old")
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "old" and names(tmp_path) == ["table.csv"]


def test_a_failed_rename_leaves_the_old_file_and_no_temporary(tmp_path, monkeypatch):
    target = write_text(tmp_path / "table.csv", "old")

    def refuse(*_):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_text(target, "new")
    assert target.read_text() == "old" and names(tmp_path) == ["table.csv"]


def test_contents_are_on_disk_before_the_name_is(tmp_path, monkeypatch):
    calls = []
    fsync, replace = files.os.fsync, files.os.replace
    monkeypatch.setattr(files.os, "fsync", lambda handle: (calls.append("fsync"), fsync(handle)))
    monkeypatch.setattr(files.os, "replace", lambda *paths: (calls.append("replace"), replace(*paths)))
    write_text(tmp_path / "table.csv", "text")
    assert calls == ["fsync", "replace", "fsync"]  # the last: of the folder, so that the name survives too


@pytest.mark.parametrize(
    ("number", "remedy"), [("ENOSPC", "free space"), ("EROFS", "make it writable"), ("EFBIG", "raise the limit")]
)
def test_a_refusal_to_write_is_one_sentence_with_a_remedy(tmp_path, number, remedy):
    number, target = getattr(errno, number), write_text(tmp_path / "table.csv", "old")
    with pytest.raises(StudyError) as caught, atomic_path(target) as temporary:
        temporary.write_text("half")
        raise OSError(number, os.strerror(number))
    assert str(caught.value).startswith(f"{target}: cannot be written ({os.strerror(number)}); {remedy}")
    assert target.read_text() == "old" and names(tmp_path) == ["table.csv"]


def test_a_folder_in_its_place_and_a_file_in_its_folder_s_place_are_named(tmp_path):
    (tmp_path / "table.csv").mkdir()
    (tmp_path / "file").touch()
    for target in (tmp_path / "table.csv", tmp_path / "file" / "table.csv"):
        with pytest.raises(StudyError, match=f"{target}: cannot be written .* move away what stands in its place"):
            write_text(target, "text")
    assert names(tmp_path) == ["file", "table.csv"]


def test_an_error_about_something_else_is_left_as_it_is(tmp_path):
    """The body could not read its source: that is no reason to free space for the target."""
    with pytest.raises(PermissionError), atomic_path(tmp_path / "table.csv"):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "elsewhere" / "source.csv"))
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "table.csv"):
        open(tmp_path / "source.csv")


@pytest.fixture
def killed(monkeypatch):
    """Writers here have the number of a process that has ended."""
    (ended := subprocess.Popen([sys.executable, "-c", ""])).wait()
    monkeypatch.setattr(files.os, "getpid", lambda: ended.pid)


def test_a_second_error_while_tidying_up_does_not_hide_the_first(tmp_path, monkeypatch, killed):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files.os, "unlink", refuse)
    with pytest.raises(RuntimeError, match="half way"), atomic_path(tmp_path / "table.csv") as temporary:
        temporary.write_text("half")
        raise RuntimeError("half way")
    monkeypatch.undo()
    assert remove_leftovers(tmp_path) == [temporary]


@pytest.mark.parametrize(("number", "passes"), [(errno.EINVAL, True), (errno.EIO, False)])
def test_only_a_file_system_that_cannot_flush_folders_is_forgiven(tmp_path, monkeypatch, number, passes):
    fsync = os.fsync

    def refuse(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(handle)

    monkeypatch.setattr(files.os, "fsync", refuse)
    if passes:
        write_text(tmp_path / "table.csv", "text")
    else:
        with pytest.raises(StudyError, match="check the disk"):
            write_text(tmp_path / "table.csv", "text")


def test_a_file_that_another_process_is_writing_is_no_leftover(tmp_path):
    code = (
        "import sys, time; from lgffem_core.base.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as path:\n path.write_text('half'); print('writing', flush=True); input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    writer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "model.safetensors")], **pipes)
    assert writer.stdout.readline() == "writing\n"
    assert remove_leftovers(tmp_path) == []
    writer.communicate("\n")
    assert writer.returncode == 0 and names(tmp_path) == ["model.safetensors"]


def test_a_leftover_is_known_where_a_later_process_has_its_writer_s_number(tmp_path):
    (left := tmp_path / f".table.{os.getpid()}.tmp.csv").touch()
    assert remove_leftovers(tmp_path) == []
    os.utime(left, (0, psutil.Process().create_time() - 60))
    assert remove_leftovers(tmp_path) == [left]


def test_leftovers_of_killed_writers_are_known_by_their_names(tmp_path, killed):
    left = []
    for name in ("step_000000004.safetensors", "a.b.csv", "deep/er/table.csv", "no_suffix"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with pytest.raises(RuntimeError), atomic_path(path) as temporary:
            raise RuntimeError
        temporary.write_text("half")
        left.append(temporary)
    kept = [".hidden.csv", ".git.tmp", ".a.tmp.csv", "x.12.tmp.csv", ".x.12.tmp.csv.gz", ".12.tmp"]
    for name in kept:
        (tmp_path / name).touch()
    (tmp_path / ".folder.12.tmp").mkdir()
    assert remove_leftovers(tmp_path) == sorted(left) and remove_leftovers(tmp_path) == []
    assert set(names(tmp_path)) == {*kept, ".folder.12.tmp", "deep"}
    assert remove_leftovers(tmp_path / "absent") == []


def test_json_round_trip_is_sorted_and_utf8(tmp_path):
    path = write_json(tmp_path / "a.json", {"b": [1, None], "a": "µm", "path": tmp_path})
    assert read_json(path) == {"b": [1, None], "a": "µm", "path": str(tmp_path)}
    assert path.read_text(encoding="utf-8").index('"a"') < path.read_text(encoding="utf-8").index('"b"')


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 100])
def test_the_hash_of_a_file_is_that_of_its_bytes_whatever_the_chunk(tmp_path, monkeypatch, size):
    monkeypatch.setattr(files, "CHUNK", 8)
    contents = bytes(range(size))
    (tmp_path / "file").write_bytes(contents)
    assert sha256_file(tmp_path / "file") == hashlib.sha256(contents).hexdigest()


def test_equal_values_hash_alike_and_others_do_not():
    assert sha256_json({"a": 1, "b": [2, 3]}) == sha256_json(json.loads('{"b": [2, 3], "a": 1}'))
    values = [{"a": 1}, {"a": "1"}, {"a": 2}, {"b": 1}, [1, 2], [2, 1], None]
    assert len({sha256_json(value) for value in values}) == len(values)


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RuntimeError), files.atomic_folder(tmp_path / "a") as building:
        (building / "half").touch()
        raise RuntimeError
    assert names(tmp_path) == ["empty"]
    for name in ("deep/a", "empty"):
        with files.atomic_folder(tmp_path / name) as building:
            assert building.parent == (tmp_path / name).parent and not (tmp_path / name / "one").exists()
            (building / "one").touch()
        assert names(tmp_path / name) == ["one"]
    with pytest.raises(OSError), files.atomic_folder(tmp_path / "empty"):
        pass
    assert names(tmp_path / "empty") == ["one"] and len(names(tmp_path)) == 2


def test_a_refusal_to_write_below_a_folder_that_is_made_is_one_sentence_too(tmp_path):
    with pytest.raises(StudyError, match=f"{tmp_path}/a: cannot be written .*No space.*; free space"):
        with files.atomic_folder(tmp_path / "a") as building:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(building / "half"))
    with pytest.raises(PermissionError), files.atomic_folder(tmp_path / "a"):  # of something that is only read
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / "other"))
    assert names(tmp_path) == []


def test_of_folders_beside_it_only_what_killed_processes_left_of_it_goes(tmp_path, killed):
    dead = files.os.getpid()
    others = [".a.2019", ".a.tmp", f".b.{dead}.tmp", f".a.b.{dead}.tmp", f".a.{os.getppid()}.tmp"]
    for name in (f".a.{dead}.tmp", *others):
        (tmp_path / name).mkdir()
    (tmp_path / f".a.{dead}.tmp" / "half").touch()
    with files.atomic_folder(tmp_path / "a") as building:
        assert names(building) == []
    assert names(tmp_path) == sorted(["a", *others])
