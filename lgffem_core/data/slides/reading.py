"""Reading whole slides: how fine they are, and any part of them at a stated number of µm a pixel."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from openslide import OpenSlide, OpenSlideError

from lgffem_core.base.errors import StudyError, one_line

#: How files end that OpenSlide may read: Aperio, (OME-)TIFF, Hamamatsu, Leica, MIRAX, Sakura, Ventana, Zeiss, DICOM.
SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide", ".bif", ".czi", ".dcm")
FINEST, COARSEST = 0.02, 20.0  # µm a pixel; microscopes give 0.1 to 10, image programs' 72 dots an inch are 353
ROUNDED = 1.1  # a slide that is so much coarser than asked for still counts as that fine: scanners' 20× is 0.5 ± 5 %
SQUARE = 0.02  # by which a pixel's height may differ from its width
MICROMETRES = {"nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4}  # both signs for micro are in use
OVERRIDE = "give it with --set slides.unstated_mpp=… (µm a pixel of the finest level)"


class WholeSlide:
    """A slide, opened in each process that reads it: file positions must not be shared between processes.

    Args:
        path: a file of OpenSlide's formats; of a DICOM series, any file.
        unstated_mpp: µm a pixel of the finest level, for a file that does not say it; another's own counts.

    Attributes:
        mpp: µm a pixel of the finest level.
        size: width and height of the finest level, in pixels.

    ``StudyError`` where it cannot be opened, or nobody says how fine it is.
    """

    def __init__(self, path: Path, unstated_mpp: float | None = None):
        self.path, self.process = Path(path), None
        self.size = self.handle.dimensions
        self.mpp = resolution(self.handle.properties, self.path, unstated_mpp)

    @property
    def handle(self) -> OpenSlide:
        """OpenSlide's object, this process's own."""
        if self.process != os.getpid():
            self.opened, self.process = opened(self.path), os.getpid()
        return self.opened

    def __getstate__(self) -> dict:
        return {**self.__dict__, "opened": None, "process": None}

    def downsample(self, mpp: float) -> tuple[int, float]:
        """The level to read for ``mpp``, the coarsest that is fine enough, and its pixels along one of those."""
        scale = mpp / self.mpp
        level = self.handle.get_best_level_for_downsample(scale * 1.01)  # levels are of rounded sizes
        return level, scale / self.handle.level_downsamples[level]

    def read(self, x: int, y: int, width: int, height: int, mpp: float) -> np.ndarray:
        """uint8 (height, width, 3) RGB from x, y on, all in pixels of ``mpp``; white where the scanner was not.

        ``StudyError`` where the file is damaged there.
        """
        level, shrink = self.downsample(mpp)
        place = (round(x * mpp / self.mpp), round(y * mpp / self.mpp))
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        try:
            pixels = np.asarray(self.handle.read_region(place, level, size))
        except OpenSlideError as error:
            raise StudyError(f"{self.path}: is damaged ({one_line(error).rstrip('.')}); get it again.") from None
        if size == (width, height):
            return on_white(pixels)
        return cv2.resize(on_white(pixels), (width, height), interpolation=cv2.INTER_AREA)


def on_white(pixels: np.ndarray) -> np.ndarray:
    """uint8 RGBA (H, W, 4) over white: RGB (H, W, 3)."""
    alpha = pixels[..., 3:]
    if alpha.min() == 255:
        return np.ascontiguousarray(pixels[..., :3])
    share = alpha.astype(np.float32) / 255
    return np.rint(pixels[..., :3] * share + 255 * (1 - share)).astype(np.uint8)


def opened(path: Path) -> OpenSlide:
    """The slide in a file; ``StudyError`` says why there is none."""
    if not path.is_file():
        raise StudyError(f"{path}: is not a file; name a slide.")
    try:
        return OpenSlide(path)
    except OpenSlideError as error:
        raise StudyError(
            f"{path}: cannot be read as a slide ({one_line(error).rstrip('.')}); it is cut off, or of a format that "
            "OpenSlide does not know: get it again, or convert it to a pyramidal TIFF in tiles."
        ) from None


def series_of(file: Path) -> str | None:
    """The series that a DICOM file is of, whose other files OpenSlide finds beside it; None where it cannot be read."""
    try:
        with opened(file) as slide:
            return slide.properties.get("dicom.SeriesInstanceUID")
    except StudyError:
        return None


def check_series(files: Sequence[Path]) -> None:
    """``StudyError`` where a file of a DICOM series cannot be read: OpenSlide would go on without its level."""
    for file in files:
        opened(file).close()


# -- how fine it is --------------------------------------------------------------------------------------------


def resolution(properties: Mapping[str, str], path: Path, unstated: float | None = None) -> float:
    """µm a pixel of the finest level: what the file says, else ``unstated``; ``StudyError`` where neither will do.

    Nothing is taken from the magnification: 20× is between 0.4 and 0.55 µm, as the scanner has it.
    """
    said = stated(properties)
    if said is None or not all(FINEST <= each <= COARSEST for each in said):
        if unstated:
            return unstated
        fault = "does not say how many µm a pixel covers" if said is None else f"says {said[0]:.4g} µm a pixel, {ODD}"
        raise StudyError(f"{path}: {fault}; {OVERRIDE}.")
    if abs(said[0] / said[1] - 1) > SQUARE:
        raise StudyError(
            f"{path}: its pixels are {said[0]:.4g} µm wide and {said[1]:.4g} µm high; convert it to square ones."
        )
    return (said[0] + said[1]) / 2


ODD = "which no microscope gives (an image program wrote it)"


def stated(properties: Mapping[str, str]) -> tuple[float, float] | None:
    """µm a pixel, across and down, as OpenSlide or an OME-TIFF's own description has them."""
    across, down = (properties.get(f"openslide.mpp-{axis}") for axis in "xy")
    if across and down:
        return float(across), float(down)
    return of_ome(properties.get("tiff.ImageDescription", ""))


def of_ome(description: str) -> tuple[float, float] | None:
    """The same of an OME-XML text, of its first image; None where it holds none. OpenSlide does not look there."""
    pixels = re.search(r"<(?:\w+:)?OME\b.*?(<(?:\w+:)?Pixels\b[^>]*>)", description, re.DOTALL)
    known = dict(re.findall(r'\b(PhysicalSize[XY](?:Unit)?)="([^"]*)"', pixels[1])) if pixels else {}
    try:
        sizes = [(float(known[name]), known.get(f"{name}Unit", "µm")) for name in ("PhysicalSizeX", "PhysicalSizeY")]
        across, down = (size * MICROMETRES[unit] for size, unit in sizes)
    except (KeyError, ValueError):
        return None
    return across, down
