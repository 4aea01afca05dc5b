"""What a folder holds: whole slides, DICOM series, folders of patches, or PatchGastricADC22."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from natsort import natsorted

from lgffem_core.base.errors import RequestError
from lgffem_core.config.params import PatchGastric
from lgffem_core.config.systems import Slides
from lgffem_core.data.listing import (
    BROKEN,
    SYSTEM,
    UNFIT,
    entries,
    form_of,
    in_words,
    printable,
    subfolders,
    suffix_of,
)
from lgffem_core.data.sets import patchgastric
from lgffem_core.data.slides import patches
from lgffem_core.data.slides.reading import SUFFIXES, WholeSlide, check_series, series_of
from lgffem_core.data.slides.reports import REPORTS, Said, read_reports
from lgffem_core.data.slides.tiles import SlideTiles

DICOM = ".dcm"
#: Formats of scanners that OpenSlide does not read: tried all the same, so that they are named as failed.
OTHERS = (".vsi", ".isyntax", ".lif", ".nd2", ".kfb", ".sdpc", ".tmap", ".jp2", ".qptiff")
LONGEST = 200  # bytes of a slide's name; a file's has 255, and temporary ones are longer


class Slide(NamedTuple):
    """A slide that was found."""

    name: str
    files: tuple[Path, ...]  # whose bytes say which it is
    tiles: Callable[[], Sequence]  # opens it; gives ``SlideTiles`` or ``Patches``
    said: Said


class Found(NamedTuple):
    """What a folder holds."""

    slides: list[Slide]  # in natural order of their names
    notes: list[str]  # to be said before anything starts


def find_slides(folder: Path, settings: Slides, leave: Path | None = None) -> Found:
    """The slides in ``folder``; the folder ``leave``, of results, is not entered.

    ``RequestError`` where there is none, two have one name, or a list beside them is wrong.
    """
    if not folder.is_dir():
        raise RequestError(f"{folder}: is no folder; name the one that holds the slides.")
    if (folder / patchgastric.CAPTIONS).is_file():
        return of_patchgastric(folder, settings)
    files = files_in(folder)
    tried = [path for path in files if path.suffix.lower() in (*SUFFIXES, *OTHERS)]
    slides, empty = [whole_slide(path, settings) for path in tried if path.suffix.lower() != DICOM], []
    for series in by_series([path for path in tried if path.suffix.lower() == DICOM]):
        slides.append(whole_slide(series[0], settings, files=series))
    for inner in subfolders(folder):
        if leave is None or inner.resolve() != leave.resolve():
            found = in_subfolder(inner, settings, slides)
            slides += found
            empty += [] if found or is_beside(inner, slides) or not any(entries(inner)) else [printable(inner.name)]
    reports = read_reports(folder)
    slides = [slide._replace(said=reports.pop(slide.name, Said())) for slide in slides]
    unread = Counter(suffix_of(path.name) for path in set(files) - set(tried) if path.name != REPORTS)
    kinds = ", ".join(in_words(kind, count) for kind, count in sorted(unread.items()))
    notes = [f"not read: {kinds}"] if kinds else []
    if empty:
        notes.append(f"no patches or DICOM series in {few(empty)}; further down nothing is looked for")
    if reports:
        notes.append(f"{REPORTS} names slides that are not there, {len(reports)} of them: {few(reports)}")
    if not slides:
        there = f" (there are {kinds})" if kinds else ""
        raise RequestError(
            f"{folder}: holds no slides{there}; name a folder with whole slides ({', '.join(SUFFIXES)}), or with a "
            "folder of patches for each slide."
        )
    return Found(sole(natsorted(slides, key=lambda slide: slide.name), folder), notes)


def files_in(folder: Path) -> list[Path]:
    """The files in a folder, hidden and system ones aside; links to nothing too, so that they are found to fail."""
    named = (entry for entry in entries(folder) if not SYSTEM.fullmatch(entry.name))
    return natsorted(Path(entry.path) for entry in named if form_of(entry) in ("file", BROKEN))


def few(names: Iterable[str]) -> str:
    """The first three of some names."""
    ordered = natsorted(names)
    return ", ".join(ordered[:3]) + ", …" * (len(ordered) > 3)


def sole(slides: list[Slide], folder: Path) -> list[Slide]:
    """``slides``, if each has a name of its own that a file can have."""
    counts = Counter(slide.name for slide in slides)
    twice = next((name for name, count in counts.items() if count > 1), None)
    if twice:
        raise RequestError(f"{folder}: {counts[twice]} slides are called {twice}; rename or move one.")
    if unfit := next((slide.name for slide in slides if UNFIT.search(slide.name)), None):
        raise RequestError(f"{folder}: the name {printable(unfit)} cannot be written in a table; rename it.")
    if long := next((slide.name for slide in slides if len(slide.name.encode()) > LONGEST), None):
        raise RequestError(
            f"{folder}: the name {long[:20]}… has {len(long.encode())} bytes, and files are named after it; rename it "
            f"to {LONGEST} or fewer."
        )
    return slides


def whole_slide(path: Path, settings: Slides, name: str | None = None, files: Sequence[Path] = ()) -> Slide:
    """A slide in one file, or in ``files`` of which ``path`` is one; ``MIRAX`` keeps its data in a folder beside it."""
    beside = path.with_suffix("")
    data = sorted(beside.glob("*")) if path.suffix.lower() in (".mrxs", ".vms", ".vmu") and beside.is_dir() else []
    stem = path.stem[:-4] if path.stem.lower().endswith(".ome") else path.stem
    return Slide(name or stem, (*(files or (path,)), *data), partial(tiles_of, path, settings, files), Said())


def tiles_of(path: Path, settings: Slides, series: Sequence[Path] = ()) -> SlideTiles:
    """The tiles of a whole slide, as the parameters ask for them; each file of its ``series`` must be readable."""
    check_series(series)
    slide = WholeSlide(path, settings.unstated_mpp)
    return SlideTiles(slide, settings.mpp, settings.pixels, settings.tissue)


def in_subfolder(folder: Path, settings: Slides, beside: Sequence[Slide]) -> list[Slide]:
    """The slide that a folder is: a DICOM series, or patches; none where it is neither, or is of one ``beside`` it.

    Of several series each is a slide. Where there is but one, a file that cannot be read is taken for a part of it.
    """
    if is_beside(folder, beside):
        return []
    files = files_in(folder)
    if dicom := [path for path in files if path.suffix.lower() == DICOM]:
        found = by_series(dicom)
        if sum(series_of(series[0]) is not None for series in found) < 2:
            return [whole_slide(dicom[0], settings, folder.name, dicom)]
        return [whole_slide(series[0], settings, f"{folder.name}_{series[0].stem}", series) for series in found]
    images = [path for path in files if path.suffix.lower() in patches.SUFFIXES]
    if not images:
        return []
    table = [path for path in files if path.name == patches.COORDINATES]
    cut = partial(patches.of_folder, folder, images, settings.step, settings.unstated_mpp)
    return [Slide(folder.name, (*images, *table), cut, Said())]


def by_series(files: Sequence[Path]) -> list[list[Path]]:
    """DICOM files, those of a series together, in the order of their first; one that cannot be read is alone."""
    found: dict[object, list[Path]] = {}
    for file in files:
        found.setdefault(series_of(file) or file, []).append(file)
    return list(found.values())


def is_beside(folder: Path, slides: Iterable[Slide]) -> bool:
    """True for the folder in which a MIRAX slide keeps its data."""
    return any(slide.name == folder.name and slide.files[0].suffix.lower() == ".mrxs" for slide in slides)


def of_patchgastric(root: Path, settings: Slides) -> Found:
    """The slides of PatchGastricADC22, each from its patches in the order of their names."""
    rows, _ = patchgastric.SET.layout(root, PatchGastric(root=root))
    files: dict[str, list[Path]] = {}
    for path, _, _, slide, *_ in rows:
        files.setdefault(slide, []).append(root / path)
    captions = patchgastric.captions(root)
    slides = [
        Slide(slide, tuple(cut), partial(patches.in_order, cut, settings.unstated_mpp), Said(text, subtype))
        for slide, subtype, text in captions.itertuples(index=False)
        if (cut := files.get(slide))
    ]
    lacking = [slide for slide in captions["id"] if slide not in files]
    notes = [f"{patchgastric.CAPTIONS} names slides without patches, {len(lacking)} of them: {few(lacking)}"]
    return Found(slides, [patchgastric.GRID, *(notes if lacking else [])])
