"""Writing files so that a reader never meets half of one, and naming what is in them."""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from lgffem_core.base.errors import StudyError

CHUNK = 1 << 20  # bytes read at a time while hashing
TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp(\.[^.]*)?")  # names that are given while something is written
STAMP = "study"  # the one key of a safetensors file's metadata: several are written in an order that varies
#: What the operating system refuses a writer -> what to do about it.
REMEDIES = {
    errno.ENOSPC: "free space",
    errno.EDQUOT: "free space or enlarge the quota",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.EIO: "check the disk",
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make it writable"),
    **dict.fromkeys((errno.EISDIR, errno.ENOTDIR, errno.EEXIST), "move away what stands in its place"),
}


@contextmanager
def atomic_path(path: Path, lasting: bool = True):
    """Yield a temporary path beside ``path``; on success it is flushed to disk and renamed to ``path``.

    The temporary name keeps the suffix, so that writers which choose a format by it work unchanged. If
    the body raises, the temporary file is removed and ``path`` is left as it was; if the process is killed,
    the temporary file stays, and ``remove_leftovers`` knows it by its name, which holds the process's number.

    ``lasting=False`` does not flush it: for what is checked when it is read, and can be made again.

    Raises ``StudyError`` where the operating system refuses to write.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if lasting:
            with open(temporary, "rb+") as handle:
                os.fsync(handle.fileno())
        os.replace(temporary, path)
        if lasting:
            sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):  # then it stays as a leftover; no second error may hide the first
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and is_about(error, temporary, path):
            raise refused(path, "written", error) from None
        raise


@contextmanager
def atomic_folder(folder: Path):
    """Yield a new folder beside ``folder``, which becomes it on success; an empty one that is there is replaced.

    If the body raises, the new folder is removed. What killed processes left of theirs is removed first. Raises
    ``StudyError`` where the operating system refuses to write.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    for path in folder.parent.glob(".*.tmp"):
        named = TEMPORARY.fullmatch(path.name)
        if named and path.name == f".{folder.name}.{named[1]}.tmp" and not is_being_written(path):
            shutil.rmtree(path, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        os.rename(temporary, folder)
    except OSError as error:
        if is_about(error, temporary, folder):
            raise refused(folder, "written", error) from None
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of names to disk, so that a rename in it survives a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems know no such thing as flushing a folder
            raise
    finally:
        os.close(handle)


def is_about(error: OSError, temporary: Path, path: Path) -> bool:
    """Whether a known refusal is about writing ``path``: the body may have failed to read something else."""
    named = error.filename and Path(error.filename)
    ours = not named or named in (temporary, path, *path.parents) or named.is_relative_to(temporary)
    return error.errno in REMEDIES and ours


def refused(path: Path, done: str, error: OSError) -> StudyError:
    """What could not be ``done`` ("written", "removed"), why, and what to do about it."""
    return StudyError(
        f"{path}: cannot be {done} ({error.strerror}); {REMEDIES[error.errno]}, then give the same command again: "
        "it goes on from what is finished, and training from its last checkpoint."
    )


@contextmanager
def refusing(path: Path, done: str):
    """Turn what the operating system refuses inside into the sentence of ``refused``, where a remedy is known."""
    try:
        yield
    except OSError as error:
        if error.errno not in REMEDIES:
            raise
        raise refused(path, done, error) from None


@contextmanager
def held(path: Path):
    """Wait until no other process holds this file, and hold it inside; ``StudyError`` where it cannot be written."""
    with refusing(path, "written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = open(path, "w")
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def remove_file(path: Path) -> None:
    """Delete a file; ``StudyError`` where the operating system refuses."""
    with refusing(path, "removed"):
        path.unlink()


def remove_leftovers(folder: Path) -> list[Path]:
    """Delete the temporary files that killed writers left in ``folder`` or below it; returns their paths.

    Only for whoever knows that no other machine is writing there: of this one, files being written are known.
    """
    found = (path for path in Path(folder).rglob(".*.tmp*") if TEMPORARY.fullmatch(path.name) and path.is_file())
    leftovers = sorted(path for path in found if not is_being_written(path))
    for path in leftovers:
        path.unlink(missing_ok=True)
    return leftovers


def is_being_written(temporary: Path) -> bool:
    """True where the process that a temporary file's name tells still runs, and is not a later one of that number."""
    try:
        began = psutil.Process(int(TEMPORARY.fullmatch(temporary.name)[1])).create_time()
        return began <= temporary.stat().st_mtime + 1  # clocks of processes and of files differ a little
    except (psutil.NoSuchProcess, FileNotFoundError):
        return False


def write_text(path: Path, text: str) -> Path:
    """Write ``text`` (UTF-8) atomically and return the path."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def write_json(path: Path, value) -> Path:
    """Write ``value`` as indented JSON with sorted keys, atomically, and return the path."""
    return write_text(path, json.dumps(value, indent=2, sort_keys=True, default=str) + "\n")


def read_json(path: Path):
    """The value in a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while chunk := handle.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_json(value) -> str:
    """SHA-256 of a JSON-like value in canonical form: equal values give equal hashes."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()


def sha256_table(table) -> str:
    """SHA-256 of what the rows of a table of pandas hold, in their order, and of its columns' names."""
    return sha256_json({name: column.tolist() for name, column in table.items()})
