"""The least recently used files go first, and only as many as must."""

import os

from lgffem_core.base.room import by_use, make_room


def test_the_least_recently_used_go_and_no_more_than_must(tmp_path):
    for age, name in enumerate(("new.x", "older.x", "oldest.x", "gone.x")):
        (tmp_path / name).write_bytes(bytes(10))
        os.utime(tmp_path / name, ns=(0, 100 - age))
    (tmp_path / ".being_written.x").write_bytes(bytes(90))
    (tmp_path / "other.y").write_bytes(bytes(90))
    files = by_use(tmp_path, ".x")
    (tmp_path / "gone.x").unlink()  # another process makes room, too
    assert make_room(files, 25) == 20
    assert sorted(os.listdir(tmp_path)) == [".being_written.x", "new.x", "older.x", "other.y"]
    assert make_room(by_use(tmp_path, ".x"), 20) == 20 and make_room([], -1) == 0
