"""PatchGastricADC22: patches of 991 biopsies of stomach, with what their reports say (arXiv:2202.03432).

``captions.csv`` has a line a slide: id, subtype, text. The patches are ``{id}_{hash}.jpg`` in any folder below the root
(``patches_captions/`` in the archive). Where on the slide a patch was is not published, nor is a split.
"""

import re
from pathlib import Path

from natsort import natsorted

from lgffem_core.base.errors import RequestError
from lgffem_core.data.listing import what_is_there
from lgffem_core.data.sets import facts
from lgffem_core.data.sets.base import DataSet, Row

CAPTIONS = "captions.csv"
TEST_SHARE = 0.3  # of the slides, as FGCR's code holds out; no split is published
NAME = re.compile(r"([0-9a-f]{32})_[^/]+\.(?i:jpg)")
GRID = (
    "PatchGastricADC22 publishes no coordinates: the patches of a slide are laid in the order of their names, row by "
    "row on a square grid; distances on it are an assumption, and say nothing of the tissue"
)


class PatchGastric(DataSet):
    """A label is a subtype, ``group`` the slide; a share of the slides, by their ids, is split "test"."""

    name = "patchgastric"
    where = (
        "PatchGastricADC22: download it from Zenodo, record 6550925 (for research use only); unpack the patches beside "
        "captions.csv and set data.patchgastric.root to the folder that holds both"
    )
    images, suffixes = r"(.+/)?[0-9a-f]{32}_[^/]+", (".jpg",)

    def missing(self, root: Path, settings) -> list[tuple[str, ...]]:
        """The list of slides; patches lie in any folder."""
        return [] if (root / CAPTIONS).is_file() else [(CAPTIONS,)]

    def read_below(self, root: Path) -> re.Pattern[str]:
        """The list counts too."""
        return re.compile(f"{re.escape(CAPTIONS)}|{self.image_pattern().pattern}", re.DOTALL)

    def layout(self, root: Path, settings) -> tuple[list[Row], list[str]]:
        """Slides in the order of captions.csv, a slide's patches in that of their names.

        Raises ``RequestError`` where a patch is of no slide in captions.csv, or there are none.
        """
        subtypes = captions(root).set_index("id")["subtype"].to_dict()
        by_slide: dict[str, list[str]] = {slide: [] for slide in subtypes}
        for path in self.image_files(root):
            slide = NAME.fullmatch(path.rpartition("/")[2])[1]
            if slide not in by_slide:
                raise RequestError(f"{root / path}: is of slide {slide}, which {CAPTIONS} does not name; restore that.")
            by_slide[slide].append(path)
        if not any(by_slide.values()):
            there = what_is_there(root, self.suffixes)
            raise RequestError(f"{root}: holds no patches named <id>_<hash>.jpg{there}; {self.where}.")
        rows = [
            (path, subtypes[slide], split_of(slide), slide)
            for slide, paths in by_slide.items()
            for path in natsorted(paths)
        ]
        return rows, sorted({row[1] for row in rows})

    def published(self, settings, rows: list[Row]) -> dict[str, int]:
        """All patches; how many of each split follows from ours, so what is missing is counted as train."""
        test = sum(split == "test" for _, _, split, _ in rows)
        return {"train": facts.PATCHGASTRIC_PATCHES - test, **({"test": test} if test else {})}

    def write_synthetic(self, settings, root: Path) -> None:
        """``captions.csv`` and ``patches_captions/{id}_{hash}.jpg``."""
        from lgffem_core.data.synthetic.biopsies import write_biopsies

        write_biopsies(settings, root)


def captions(root: Path):
    """``captions.csv`` as a table id, subtype, text, each filled; ``RequestError`` where it is not so."""
    from lgffem_core.data.slides.reports import read_table  # pandas takes a while to load

    table, path = read_table(root / CAPTIONS, ("id", "subtype", "text")), root / CAPTIONS
    for column in ("subtype", "text"):
        if (table[column] == "").any():
            line = int((table[column] == "").to_numpy().argmax()) + 2
            raise RequestError(f"{path}: line {line} has no {column}; restore the file.")
    return table


def split_of(slide: str) -> str:
    """Of a slide by its id, whatever other slides there are: ids are random."""
    return "test" if int(slide[:8], 16) < TEST_SHARE * 2**32 else "train"


SET = PatchGastric()
