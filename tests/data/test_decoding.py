"""Damage is found where Pillow alone draws something over it, and sound files of every kind pass."""

import base64
import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from lgffem_core.data.decoding import decode_whole, unheeded

# 8 x 8 pixels, sampled 3:1, as cjpeg wrote them.
RARE = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDACAWGBwYFCAcGhwkIiAmMFA0MCwsMGJGSjpQdGZ6eHJmcG6AkLicgIiuim5woNqirr7EztDOfJri8uDI8LjK"
    "zsb/2wBDASIkJDAqMF40NF7GhHCExsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsb/wAARCAAIAAgDATEAAhEB"
    "AxEB/8QAFAABAAAAAAAAAAAAAAAAAAAAAP/EABoQAAIDAQEAAAAAAAAAAAAAAAECABEhE0H/xAAVAQEBAAAAAAAAAAAAAAAAAAABAv/EABsRAAEEAwAA"
    "AAAAAAAAAAAAAAEAAhEhMZGh/9oADAMBAAIRAxEAPwB0VmIBdla8rV8uoiBqoGiVLmXnoX//2Q=="
)
#: How a JPEG may be coded: (mode, options of Pillow's encoder).
CODINGS = {
    "baseline": ("RGB", {}),
    "progressive": ("RGB", {"progressive": True}),
    "restart markers": ("RGB", {"restart_marker_rows": 1}),
    "progressive with restart markers": ("RGB", {"progressive": True, "restart_marker_blocks": 3}),
    "all colours": ("RGB", {"subsampling": "4:4:4"}),
    "stored as RGB": ("RGB", {"keep_rgb": True}),
    "grey": ("L", {}),
    "CMYK": ("CMYK", {}),
}


def photograph(size=96):
    """Noise of several scales, (size, size, 3)."""
    rng, pixels = np.random.default_rng(3), np.zeros((size, size, 3))
    for block in (1, 4, 16):
        pixels += np.kron(rng.uniform(0, 85, (size // block, size // block, 3)), np.ones((block, block, 1)))
    return Image.fromarray(pixels.astype(np.uint8))


def encoded(kind="JPEG", mode="RGB", **options):
    stream = io.BytesIO()
    photograph().convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def scan_start(data):
    """Where the coded pixels of a JPEG begin: behind the header of the first scan."""
    start = data.index(b"\xff\xda") + 2
    return start + int.from_bytes(data[start : start + 2], "big")


def overwritten(data, start, length):
    return data[:start] + bytes(length) + data[start + length :]


DAMAGE = {
    "second half zeros": lambda data: overwritten(data, len(data) // 2, len(data) - len(data) // 2),
    "first half, then the end marker": lambda data: data[: len(data) // 2] + b"\xff\xd9",
    "header, then the end marker": lambda data: data[: scan_start(data)] + b"\xff\xd9",
    "2,000 zero bytes in the middle": lambda data: overwritten(data, (scan_start(data) + len(data)) // 2 - 1000, 2000),
    "a hole of 512 bytes": lambda data: data[: len(data) // 2] + data[len(data) // 2 + 512 :],
    "cut off": lambda data: data[: len(data) // 2],
    "no end marker": lambda data: data[:-2],
}


def pillows(path):
    with Image.open(path) as image:
        image.load()
        return np.asarray(image)


def decode(path, data):
    """Findings of ``unheeded`` for a file of these bytes, which is decoded whole."""
    path.write_bytes(data)
    with Image.open(path) as image:
        decode_whole(image, path)
        return list(unheeded(image, path))


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_jpeg_whose_data_are_damaged_is_an_error_however_it_is_coded(tmp_path, coding, damage):
    mode, options = CODINGS[coding]
    data, path = encoded(mode=mode, **options), tmp_path / "a.jpg"
    assert decode(path, data) == []
    with pytest.raises((ValueError, OSError), match="JPEG|truncated|broken"):
        decode(path, DAMAGE[damage](data))


@pytest.mark.parametrize("damage", list(DAMAGE)[:5])
def test_pillow_alone_takes_that_damage_for_a_picture(tmp_path, damage):
    """Otherwise the stricter decoder would not be needed."""
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded())
    sound = pillows(path)
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    assert (pillows(path) != sound).mean() > 0.1


@pytest.mark.parametrize("behind", [bytes(999), b"\xff\xe1\x00\x10Exif\0\0" + bytes(99), b"Corrupt", encoded()])
def test_what_follows_the_end_of_a_jpeg_is_no_damage(tmp_path, behind):
    assert decode(tmp_path / "a.jpg", encoded() + behind) == []


@pytest.mark.parametrize("size", [(1, 1), (3, 7), (16, 1), (97, 33)])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_jpegs_of_any_size_and_sampling_pass(tmp_path, size, subsampling):
    stream = io.BytesIO()
    photograph().resize(size).save(stream, "JPEG", subsampling=subsampling)
    assert decode(tmp_path / "a.jpg", stream.getvalue()) == []


def test_a_jpeg_that_the_stricter_decoder_does_not_know_is_decoded_and_said(tmp_path):
    ((kind, reason),) = decode(tmp_path / "a.jpg", RARE)
    assert kind == "unchecked" and "missing data would not be found" in reason
    with pytest.raises(OSError, match="truncated"):
        decode(tmp_path / "a.jpg", RARE[:-20])


@pytest.mark.parametrize(
    "damage",
    [
        DAMAGE["second half zeros"],
        DAMAGE["cut off"],
        lambda data: overwritten(data, len(data) // 2, 9),
        lambda data: data[:-12],  # the chunk that ends the file
        lambda data: data[:-20] + bytes([data[-20] ^ 1]) + data[-19:],  # of the last rows' checksum
    ],
)
def test_every_checksum_of_a_png_is_held_against_its_data(tmp_path, damage):
    data = encoded("PNG")
    assert decode(tmp_path / "a.png", data) == decode(tmp_path / "a.png", data + bytes(99)) == []
    with pytest.raises((SyntaxError, OSError)):
        decode(tmp_path / "a.png", damage(data))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}])
def test_a_tiff_that_is_cut_off_is_an_error(tmp_path, options):
    data = encoded("TIFF", **options)
    assert decode(tmp_path / "a.tif", data) == []
    for keep in (len(data) // 2, len(data) - 12):
        with pytest.raises((OSError, SyntaxError)):
            decode(tmp_path / "a.tif", data[:keep])


def test_real_patches_pass(shared):
    files = (
        sorted((shared / "histology" / "kimia").rglob("*.jpg"))[::20]
        + sorted((shared / "breakhis").rglob("*.png"))[::40]
    )
    assert len(files) > 20
    for path in files:
        with Image.open(path) as image:
            decode_whole(image, path)
            assert list(unheeded(image, path)) == []


# -- what a file says about itself ---------------------------------------------------------------------------


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_orientation_that_is_not_applied_is_said(tmp_path, kind):
    path = tmp_path / f"a.{kind.lower()}"
    assert decode(path, encoded(kind, exif=turned(1))) == []
    ((name, reason),) = decode(path, encoded(kind, exif=turned(6)))
    assert name == "orientation" and "orientation is 6" in reason and "read as stored" in reason


def test_a_tiff_is_turned_by_its_decoder_so_that_nothing_is_left_to_say(tmp_path):
    path = tmp_path / "a.tif"
    assert decode(path, encoded("TIFF", exif=turned(6))) == []
    np.testing.assert_array_equal(pillows(path), np.rot90(np.asarray(photograph()), -1))


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "MPO", "GIF"])
def test_further_images_of_a_file_are_counted(tmp_path, kind):
    others = [photograph().rotate(angle) for angle in (90, 180)]
    found = decode(tmp_path / "a", encoded(kind, save_all=True, append_images=others))
    assert found == [("several images", "holds 3 images, of which the first is read")]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_a_colour_profile_that_is_not_applied_is_named(tmp_path, kind):
    srgb, lab = (ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes() for name in ("sRGB", "LAB"))
    assert decode(tmp_path / "a", encoded(kind, icc_profile=srgb)) == []
    assert decode(tmp_path / "a", encoded(kind, icc_profile=lab)) == [
        ("colour profile", "has the colour profile 'Lab identity built-in', which is not applied")
    ]
    ((_, reason),) = decode(tmp_path / "a", encoded(kind, icc_profile=b"no profile"))
    assert "'unreadable'" in reason


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("exif", [b"", bytes(30), b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\0\x05\x01\x12", b"abc"])
def test_exif_data_that_make_no_sense_are_no_fault_of_the_pixels(tmp_path, exif):
    data, exif = encoded(), b"Exif\0\0" + exif
    assert (
        decode(tmp_path / "a.jpg", data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]) == []
    )
