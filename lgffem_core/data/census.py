"""What a data set's files are, by content, without reading them again while nothing changed.

As in git's index, a file whose size, times and inode are those of the last time keeps its hash. Nothing here
imports what is slow to load, so that stages can ask before any of them starts.
"""

import csv
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lgffem_core.base.files import atomic_path, sha256_file, sha256_json
from lgffem_core.data.listing import Listing, list_tree
from lgffem_core.data.sets import get as set_named

FIELDS = ["path", "look", "sha256"]

UNKNOWN = (None, "")  # of a file that is not in the cache
READERS = 8  # threads that read files; hashing and decoding release the interpreter lock
BLOCK = 8192  # files that are handed to the threads at a time
# A file that changed this shortly before it was looked at may change again within one tick of its file system's
# clock (10 ms on Linux' own, up to 2 s elsewhere) and keep its times. It is not remembered: see git's "racy" entries.
SETTLED = 2.0  # seconds


def census(root: Path, names: Sequence[str], cache: Path) -> dict[str, str]:
    """Name -> SHA-256 of the file's bytes, "" where it cannot be read.

    Args:
        names: paths relative to ``root``, POSIX.
        cache: a CSV file (``FIELDS``), read first and written where anything changed. One that is damaged is
            made anew.
    """
    known, now = read_cache(cache), time.time_ns()
    looks = {name: look(os.path.join(root, name)) for name in names}
    new = [name for name in names if looks[name] is None or known.get(name, UNKNOWN)[0] != looks[name]]
    hashed = dict(zip(new, in_threads(lambda name: hash_file(os.path.join(root, name)), new), strict=True))
    if new:
        there = (n for n in known if n in looks or os.path.exists(os.path.join(root, n)))  # asked about, or still there
        kept = {n: known[n] for n in there if n not in hashed}
        fresh = {n: (looks[n], digest) for n, digest in hashed.items() if digest and looks[n]}
        entries = kept | {n: entry for n, entry in fresh.items() if settled(entry[0], now)}
        if entries != known:
            write_cache(entries, cache)
    return {name: hashed[name] if name in hashed else known[name][1] for name in names}


def look(path: str) -> str | None:
    """What tells that a file changed, "size mtime_ns ctime_ns inode"; None where there is no such file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"


def in_threads(function: Callable, items: Sequence) -> Iterator:
    """``function`` of each item, in order. Blocks keep a million items from becoming a million waiting tasks."""
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(items), BLOCK):
            yield from pool.map(function, items[start : start + BLOCK])


def hash_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, or "" where they cannot be read, as those of a pipe."""
    try:
        return sha256_file(path) if os.path.isfile(path) else ""
    except OSError:
        return ""


def settled(look: str, now: int) -> bool:
    """True where a file was last changed long enough before ``now`` (ns) to trust its times."""
    _, mtime, ctime, _ = look.split()
    return max(int(mtime), int(ctime)) < now - SETTLED * 1e9


def read_cache(cache: Path) -> dict[str, tuple[str, str]]:
    """Relative path -> (look, sha256); nothing where there is no such file."""
    try:
        with open(cache, encoding="utf-8", errors="surrogateescape", newline="") as handle:
            rows = csv.reader(handle)
            return {path: (seen, digest) for path, seen, digest in rows} if next(rows, None) == FIELDS else {}
    except (OSError, ValueError, csv.Error):
        return {}


def write_cache(entries: dict[str, tuple[str, str]], cache: Path) -> None:
    """Write what ``read_cache`` reads, atomically."""
    with atomic_path(cache) as temporary:
        with open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as handle:
            rows = csv.writer(handle, lineterminator="\n")
            rows.writerow(FIELDS)
            rows.writerows((path, *entry) for path, entry in entries.items())


def study_files(study, dataset: str) -> Listing:
    """The files below a data set's root: those that its reader reads, and the others by kind; see ``list_tree``.

    Our own results may lie below a root themselves: they are not entered, or they would never be the same again.
    """
    root, own = study.data_root(dataset), (study.root, study.root / "artifacts", study.root / "results")
    return list_tree(root, set_named(dataset).read_below(root), own)


def data_state(study, dataset: str) -> str:
    """``data_digest``, and what is counted as not read: all that the data report depends on."""
    found = study_files(study, dataset)
    return " ".join([data_digest(study, dataset, found.files), *([sha256_json(found.unread)] if found.unread else [])])


def data_digest(study, dataset: str, files: list[str] | None = None) -> str:
    """One hash over names and contents of all files that a data set's reader would read, or of those that are given.

    An official form counts with its own files, an archive until it is unpacked. A folder that is not there, such as
    synthetic images that are not made yet, gives the hash of no files.
    """
    root, files = study.data_root(dataset), study_files(study, dataset).files if files is None else files
    whole = hashlib.sha256()
    for path, content in sorted(census(root, files, files_cache(study, dataset)).items()):
        whole.update(f"{path}\0{content}\n".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()


def files_cache(study, dataset: str) -> Path:
    """The file that remembers the census of a data set's root."""
    return study.artifacts / "index" / f"{dataset}.files.csv"
