"""Decoding an image file so that damage is an error, and what such a file says that decoding does not heed.

Pillow keeps the warnings of its JPEG decoder to itself, which paints missing or misread data grey, and reads the rows
of a PNG without their checksums. JPEG and TIFF have none: a changed byte that still decodes is found by no reader.
"""

import io
from pathlib import Path

import simplejpeg
from PIL import ExifTags, Image, ImageCms

from lgffem_core.base.errors import one_line

JPEG = ("JPEG", "MPO")  # MPO: a JPEG with further ones behind it


def decode_whole(image: Image.Image, path: Path) -> None:
    """Decode an opened image to the end of its data; raises whatever its decoder does, or warns of."""
    image.load()
    if image.format == "PNG":
        with Image.open(path, formats=["PNG"]) as again:
            again.verify()
    elif image.format in JPEG and has_known_sampling(data := path.read_bytes()):
        simplejpeg.decode_jpeg(data, min_height=1, min_width=1, min_factor=8, strict=True)  # all data, few pixels


def has_known_sampling(data: bytes) -> bool:
    """False for a JPEG whose colours are sampled in a rare way, which the stricter decoder does not know."""
    try:
        simplejpeg.decode_jpeg_header(data, strict=False)
    except (ValueError, KeyError):
        return False
    return True


def unheeded(image: Image.Image, path: Path):
    """(kind, reason) of what a decoded image says about itself, or leaves open, and the study does not act on.

    Pillow turns a TIFF as its orientation says and then forgets the tag, so that none is left to tell of.
    """
    frames, turn = getattr(image, "n_frames", 1), image.getexif().get(ExifTags.Base.Orientation, 1)
    if frames > 1:
        yield "several images", f"holds {frames} images, of which the first is read"
    if turn != 1:
        yield "orientation", f"its EXIF orientation is {turn}, not 1; it is read as stored, not turned"
    if "icc_profile" in image.info and "sRGB" not in (name := profile_name(image.info["icc_profile"])):
        yield "colour profile", f"has the colour profile {name!r}, which is not applied"
    if image.format in JPEG and not has_known_sampling(path.read_bytes()):
        yield "unchecked", "samples its colours in a rare way; missing data would not be found"


def profile_name(profile: bytes) -> str:
    """What an ICC profile calls itself."""
    try:
        return one_line(ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))))
    except (ImageCms.PyCMSError, OSError):
        return "unreadable"
