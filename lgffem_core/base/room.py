"""Room for what is kept on disk and can be made again: what was used least recently goes first."""

import os
from contextlib import suppress
from pathlib import Path

Used = list[tuple[int, int, str]]  # time of the last use in ns, bytes, path


def by_use(folder: Path, suffix: str) -> Used:
    """The files in a folder whose names end so, least recently used first, but for those that are being written."""
    found = []
    for entry in os.scandir(folder):
        if entry.name.endswith(suffix) and not entry.name.startswith("."):
            with suppress(FileNotFoundError):  # another process makes room at the same time
                stat = entry.stat()
                found.append((stat.st_mtime_ns, stat.st_size, entry.path))
    return sorted(found)


def make_room(files: Used, most: int) -> int:
    """Delete the first of ``files`` until the others take ``most`` bytes at most; gives what they take."""
    total = sum(size for _, size, _ in files)
    for _, size, path in files:
        if total <= most:
            break
        Path(path).unlink(missing_ok=True)
        total -= size
    return total
