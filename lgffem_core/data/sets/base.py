"""What a data set is to the rest of the study: where it is had from, how its folder is read, what is known of it.

Stages ask before any of them starts, so nothing here or at the top of a set's file imports what is slow to load.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from natsort import natsorted

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.base.files import atomic_folder
from lgffem_core.data.listing import UNFIT, ending, list_tree

Row = tuple  # path, label, split, group, then the set's own ``columns``


class DataSet:
    """A data set; ``settings`` are its section of the parameters.

    A new one gives what has no value here, and ``layout``; with ``write_synthetic``, images can stand in for it.
    """

    name: str
    where: str  # how to get it, for the user who has not
    images: str  # regular expression of the paths below its root that are read, but for
    suffixes: tuple[str, ...]  # how they end, in lower case
    folders: tuple[str, ...] = ()  # that must be there
    columns: Mapping[str, str] = {}  # of the PatchTable, beyond those of all sets: name -> type
    pictures = True  # false: its files are no images, and ``unsound`` tells what is wrong with one
    only_rgb = True  # stains are colours: nothing but 8-bit RGB will do
    if_grey = ""  # what is said beside that of a grey image
    label_in_name: re.Pattern[str] | None = None  # its group 1 is the label that the start of a file's name tells
    may_lose: tuple[str, ...] = ()  # splits of which a label's images may all be missing

    def layout(self, root: Path, settings) -> tuple[list[Row], list[str]]:
        """Rows (path, label, split, group, further columns) of the images in ``root``, and the labels in their order.

        Raises ``RequestError`` that says what is amiss and what to do.
        """
        raise NotImplementedError

    def published(self, settings, rows: list[Row]) -> dict[str, int]:
        """Split -> published number of images, of a set that holds ``rows``; nothing where none is known."""
        return {}

    def unsound(self, path: Path) -> str | None:
        """What is wrong with a file, without its path, where files are no ``pictures``; None where nothing is."""
        raise NotImplementedError

    # -- what lies below its root -----------------------------------------------------------------------------

    def image_pattern(self) -> re.Pattern[str]:
        """The paths, relative to a root, of the images, whether or not archives or arrays lie beside them."""
        return re.compile(f"{self.images}{ending(self.suffixes)}", re.DOTALL)

    def read_below(self, root: Path) -> re.Pattern[str]:
        """The paths, relative to ``root``, of the files that are read, be they images or not."""
        return self.image_pattern()

    def image_files(self, root: Path) -> list[str]:
        """Paths below ``root`` of the images that are read, in natural order (s0_2 before s0_10).

        Raises ``RequestError`` for a name that neither index nor tables can hold.
        """
        files = list_tree(root, self.image_pattern()).files
        if unfit := [file for file in files if UNFIT.search(file)]:
            raise RequestError(
                f"data.{self.name}.root: {len(unfit)} of the files below {root} cannot be listed in a table, since a "
                f"name holds control characters or bytes that are no UTF-8, the first is {min(unfit)!r}; rename what "
                "is named so, or unpack its archive anew with the right encoding."
            )
        return natsorted(sorted(files))

    def missing(self, root: Path, settings) -> Iterable[tuple[str, ...]]:
        """What ``root`` lacks: names, of which one will do."""
        return [(name,) for name in self.folders if not (root / name).is_dir()]

    def is_official(self, root: Path) -> bool:
        """True where ``root`` holds the form in which the set is distributed, and that must be converted."""
        return False

    def convert(self, root: Path, target: Path, settings) -> None:
        """Write what ``root`` holds in its official form as images in ``target``, unless that is done."""
        raise NotImplementedError

    # -- its synthetic stand-in -------------------------------------------------------------------------------

    def write_synthetic(self, settings, root: Path) -> None:
        """Write procedural images in this set's layout into ``root``; ``settings`` are ``data.synthetic``."""
        raise StudyError(f"data.{self.name}.root: is not set, and there is no synthetic {self.name}; set it.")

    def make_synthetic(self, settings, root: Path) -> Path:
        """Make ``root``, which must not exist, and return it; the same settings give the same bytes."""
        with atomic_folder(root) as building:
            self.write_synthetic(settings, building)
        return root
