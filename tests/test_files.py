"""Files: written whole or not at all, and named by their contents."""

import hashlib
import json

import pytest

from lgffem_core import files
from lgffem_core.files import atomic_path, read_json, sha256_file, sha256_json, write_json, write_text


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
