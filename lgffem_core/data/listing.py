"""What lies below a data set's root: the files that its reader reads, and all others, counted by kind.

Nothing here imports more than the standard library, see ``census``.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lgffem_core.base.errors import StudyError

#: Names that belong to an operating system, a disk station, an archiver or nobody's eyes.
SYSTEM = re.compile(
    r"\..*|@eaDir|@Recycle|@tmp|@sharebin|#recycle|#snapshot|\$RECYCLE\.BIN|RECYCLER|RECYCLED|lost\+found|__MACOSX"
    r"|System Volume Information|Network Trash Folder|Temporary Items|(eh)?thumbs(_vista)?\.db|desktop\.ini|Icon\r",
    re.IGNORECASE | re.DOTALL,
)
HIDDEN, BROKEN, LOOP, SPECIAL, PLAIN = "hidden or system", "broken link", "loop", "special", "without a suffix"
OWN = "of this study"
KINDS = {  # kinds that are no suffix: one of it, several
    HIDDEN: ("hidden or system file or folder", "hidden or system files or folders"),
    BROKEN: ("link to nothing", "links to nothing"),
    LOOP: ("link back to a folder above it", "links back to a folder above them"),
    SPECIAL: ("pipe, socket or device", "pipes, sockets or devices"),
    PLAIN: ("file without a suffix", "files without a suffix"),
    OWN: ("folder of this study's results", "folders of this study's results"),
}
SUFFIX = re.compile(r"\.(?!\d+$)\w{1,8}")  # and not the end of "1.2.840.10008"
UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters, and bytes that are no UTF-8


class Unread(NamedTuple):
    """Files of one kind that are not read."""

    count: int
    first: str  # in plain order


class Listing(NamedTuple):
    """What a tree holds; paths are relative to it, POSIX."""

    files: list[str]  # that are read, in no particular order
    unread: dict[str, Unread]  # kind -> the others: a suffix, or one of ``KINDS``

    def leave_out(self, kind: str, path: str) -> None:
        """Count ``path`` as one that is not read."""
        count, first = self.unread.get(kind, Unread(0, path))
        self.unread[kind] = Unread(count + 1, min(first, path))


def list_tree(root: Path | str, read: re.Pattern[str], own: Iterable[Path] = ()) -> Listing:
    """All files below ``root``; ``read`` matches the whole paths of those that are read.

    Links to files and folders are followed, but for one that leads back to a folder above it. Hidden and system
    folders and our ``own`` are not entered. A missing root holds nothing. Raises ``StudyError`` for a folder that
    cannot be listed.
    """
    found, waiting, ours = Listing([], {}), [("", ())], {identity(folder) for folder in own} - {None}
    while waiting:
        folder, above = waiting.pop()
        here = identity(os.path.join(root, folder))
        if here in above or (folder and here in ours):
            found.leave_out(LOOP if here in above else OWN, folder.rstrip("/"))
            continue
        for entry in entries(os.path.join(root, folder)):
            path = folder + entry.name
            if SYSTEM.fullmatch(entry.name):
                found.leave_out(HIDDEN, path)
            elif (form := form_of(entry)) == "folder":
                waiting.append((path + "/", (*above, here)))
            elif form != SPECIAL and read.fullmatch(path):
                found.files.append(path)  # a link to nothing as well, which is found to be faulty
            else:
                found.leave_out(suffix_of(entry.name) if form == "file" else form, path)
    return found


def identity(folder: Path | str) -> tuple[int, int] | None:
    """What two ways to one folder share; None where there is none."""
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def entries(folder: Path | str) -> Iterator[os.DirEntry]:
    """What a folder holds, in no particular order; nothing where there is no such folder."""
    try:
        with os.scandir(folder) as found:
            yield from found
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise StudyError(f"{printable(folder)}: cannot be listed ({error.strerror}); make it readable.") from None


def form_of(entry: os.DirEntry) -> str:
    """``folder``, ``file``, or one of ``KINDS``, links followed; only a link costs a look at the disk."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
    except OSError:  # a link to itself
        pass
    return SPECIAL if os.path.exists(entry.path) else BROKEN


def subfolders(folder: Path) -> list[Path]:
    """The folders in ``folder``, links followed, without hidden and system ones, in plain order."""
    named = (entry for entry in entries(folder) if not SYSTEM.fullmatch(entry.name))
    return sorted(Path(entry.path) for entry in named if form_of(entry) == "folder")


def suffix_of(name: str) -> str:
    """A file's kind: its suffix in lower case."""
    suffix = os.path.splitext(name)[1].lower()
    return suffix if SUFFIX.fullmatch(suffix) else PLAIN


# -- in words --------------------------------------------------------------------------------------------------


def printable(name) -> str:
    """A name of any bytes as text that every file and terminal takes."""
    return UNFIT.sub(lambda found: found.group().encode("unicode_escape").decode(), os.fspath(name))


def in_words(kind: str, count: int) -> str:
    """``12 .tiff files``."""
    return f"{count} {KINDS.get(kind, (f'{kind} file', f'{kind} files'))[count != 1]}"


def unread_rows(unread: Mapping[str, Sequence]) -> list[tuple[int, str, str]]:
    """Of each kind, how many there are, the first of them, and its name; ``unread`` as ``Listing`` has it."""
    return [
        (count, printable(first) + ", …" * (count > 1), in_words(kind, count).partition(" ")[2])
        for kind, (count, first) in sorted(unread.items())
    ]


def what_is_there(folder: Path, suffixes: Sequence[str]) -> str:
    """What a folder holds instead of readable files: ``; in s0/ there are 12 .tiff files, this set reads .jpg``.

    Nothing where it holds nothing else.
    """
    unread = sorted(list_tree(folder, re.compile(f".*{ending(suffixes)}", re.DOTALL)).unread.items())
    if not unread:
        return ""
    verb = "is" if unread[0][1].count == 1 else "are"
    kinds = " and ".join(in_words(kind, count) for kind, (count, _) in unread)
    return f"; in {printable(folder.name)}/ there {verb} {kinds}, this set reads {', '.join(suffixes)}"


def ending(suffixes: Sequence[str]) -> str:
    """A regular expression of names that end in one of ``suffixes``, whatever their case."""
    return f"(?i:{'|'.join(map(re.escape, suffixes))})"
