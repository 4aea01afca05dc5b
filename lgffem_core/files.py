"""Writing files so that a reader never meets half of one, and naming what is in them."""

import hashlib
import json
import os
from contextlib import contextmanager
from pathlib import Path

CHUNK = 1 << 20  # bytes read at a time while hashing


@contextmanager
def atomic_path(path: Path):
    """Yield a temporary path beside ``path``; on success it is flushed to disk and renamed to ``path``.

    The temporary name keeps the suffix, so that writers which choose a format by it work unchanged. If
    the body raises, the temporary file is removed and ``path`` is left as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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
