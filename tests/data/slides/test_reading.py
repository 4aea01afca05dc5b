"""Whole slides that the tests write: how fine they say they are, and whether each part is where it should be."""

import pickle
from multiprocessing import get_context

import numpy as np
import pytest
from PIL import Image

from lgffem_core.base.errors import StudyError
from lgffem_core.data.slides import reading
from lgffem_core.data.slides.reading import WholeSlide

OME = (
    '<?xml version="1.0" encoding="UTF-8"?><{0}OME xmlns{1}="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    '<{0}Image ID="Image:0"><{0}Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="300" SizeY="200" '
    'SizeC="3" SizeZ="1" SizeT="1" {2}><{0}Channel ID="Channel:0:0" SamplesPerPixel="3"/><{0}TiffData/></{0}Pixels>'
    "</{0}Image></{0}OME>"
)
APERIO = "Aperio Image Library v11.0.0\n300x200 [0,0 300x200] (64x64) JPEG/RGB Q=30|AppMag = 20|MPP = 0.4990"


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)


@pytest.mark.parametrize(
    ("options", "mpp"),
    [
        ({"mpp": 0.25}, 0.25),
        ({"mpp": 0.25, "unit": "INCH"}, 0.25),
        ({"mpp": None, "description": APERIO}, 0.499),
        ({"mpp": None, "description": OME.format("", "", 'PhysicalSizeX="0.3" PhysicalSizeY="0.3"')}, 0.3),
        (
            {
                "mpp": None,
                "sub": True,
                "description": OME.format(
                    "ome:",
                    ":ome",
                    'PhysicalSizeXUnit="nm" PhysicalSizeX="250" PhysicalSizeY="0.00025" PhysicalSizeYUnit="mm"',
                ),
            },
            0.25,
        ),
    ],
    ids=["per centimetre", "per inch", "Aperio", "OME in micrometres", "OME in other units"],
)
def test_a_slide_says_how_fine_it_is(tmp_path, noise, slide_file, options, mpp):
    slide = WholeSlide(slide_file(tmp_path / "a.tif", noise, **options), unstated_mpp=9.0)
    assert slide.mpp == pytest.approx(mpp, rel=1e-6) and slide.size == (300, 200)


@pytest.mark.parametrize("sign", ["µm", "μm"])
def test_both_signs_for_micro_are_known(sign):
    sizes = f'PhysicalSizeX="0.5" PhysicalSizeXUnit="{sign}" PhysicalSizeY="0.5" PhysicalSizeYUnit="{sign}"'
    assert reading.of_ome(OME.format("", "", sizes)) == (0.5, 0.5)


@pytest.mark.parametrize(
    "sizes",
    [
        "",
        'PhysicalSizeX="0.5"',
        'PhysicalSizeX="x" PhysicalSizeY="1"',
        'PhysicalSizeX="1" PhysicalSizeY="1" PhysicalSizeXUnit="pixel"',
    ],
)
def test_an_ome_description_that_does_not_say_is_none(sizes):
    assert reading.of_ome(OME.format("", "", sizes)) is None and reading.of_ome("<Pixels PhysicalSizeX='1'>") is None


@pytest.mark.parametrize(
    ("mpp", "said"), [(None, "does not say how many µm a pixel covers"), (25400 / 72, "says 352.8")]
)
def test_without_a_likely_resolution_the_override_is_named_and_is_taken(tmp_path, noise, slide_file, mpp, said):
    path = slide_file(tmp_path / "a.tif", noise, mpp=mpp)
    with pytest.raises(StudyError, match=rf"a\.tif: {said}.* --set slides\.unstated_mpp=…"):
        WholeSlide(path)
    assert WholeSlide(path, unstated_mpp=0.4).mpp == 0.4


def test_pixels_that_are_not_square_are_refused(tmp_path):
    with pytest.raises(StudyError, match=r"0\.25 µm wide and 0\.5 µm high; convert"):
        reading.resolution({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.5"}, tmp_path / "a.tif")


def test_what_is_read_is_what_was_written(tmp_path, noise, slide_file):
    slide = WholeSlide(slide_file(tmp_path / "a.tif", noise))
    assert np.array_equal(slide.read(37, 21, 90, 70, 0.5), noise[21:91, 37:127])


@pytest.mark.parametrize(("levels", "factor"), [(1, 2), (1, 3), (1, 4), (3, 2), (3, 4)])
def test_a_coarser_part_is_the_mean_of_the_pixels_it_covers(tmp_path, noise, slide_file, levels, factor):
    slide = WholeSlide(slide_file(tmp_path / "a.tif", noise, levels=levels))
    x, y, width, height = 8, 4, 30, 20
    part = noise[y * factor : (y + height) * factor, x * factor : (x + width) * factor].astype(float)
    means = np.array([[part[i * factor : (i + 1) * factor, j * factor : (j + 1) * factor].mean((0, 1))
                       for j in range(width)] for i in range(height)])  # fmt: skip
    read = slide.read(x, y, width, height, 0.5 * factor)
    assert read.shape == (height, width, 3) and np.abs(read - means).max() <= 1.01


@pytest.mark.parametrize("factor", [1.3, 2.5, 3, 3.9])
def test_between_the_levels_a_part_is_where_it_should_be(tmp_path, slide_file, factor):
    """On a slope, where a grey level is a pixel's place; what is read begins and ends on whole pixels of a level."""
    down, right = np.mgrid[:200, :250].astype(np.uint8)
    image = np.stack([down, right, np.full_like(down, 9)], axis=2)
    read = WholeSlide(slide_file(tmp_path / "a.tif", image)).read(8, 10, 40, 30, 0.5 * factor).astype(float)
    middles = [(start + np.arange(count) + 0.5) * factor - 0.5 for start, count in ((10, 30), (8, 40))]
    assert np.abs(read[..., 0] - middles[0][:, None]).max() < 2.5
    assert np.abs(read[..., 1] - middles[1][None]).max() < 2.5


def test_beyond_the_edge_it_is_white(tmp_path, noise, slide_file):
    read = WholeSlide(slide_file(tmp_path / "a.tif", noise)).read(290, 190, 20, 20, 0.5)
    assert np.array_equal(read[:10, :10], noise[190:, 290:]) and (read[12:, 12:] == 255).all()


def test_half_transparent_pixels_lie_on_white():
    pixels = np.array([[[0, 100, 200, 255], [0, 100, 200, 0], [0, 100, 200, 128]]], np.uint8)
    assert reading.on_white(pixels).tolist() == [[[0, 100, 200], [255, 255, 255], [127, 177, 227]]]


def test_another_process_opens_it_for_itself(tmp_path, noise, slide_file):
    slide = WholeSlide(slide_file(tmp_path / "a.tif", noise))
    mine, fork = slide.handle, get_context("fork")
    answers = fork.SimpleQueue()
    child = fork.Process(target=lambda: answers.put((slide.handle is mine, slide.read(0, 0, 50, 50, 0.5))))
    child.start()
    same, read = answers.get()
    child.join()
    assert not same and np.array_equal(read, noise[:50, :50]) and slide.handle is mine
    assert np.array_equal(pickle.loads(pickle.dumps(slide)).read(0, 0, 50, 50, 0.5), noise[:50, :50])


def cut_off(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path):
    path.write_bytes(b"")


def nonsense(path):
    path.write_bytes(b"<html>404</html>" * 100)


def without_tiles(path):
    Image.fromarray(np.zeros((300, 300, 3), np.uint8)).save(path)


@pytest.mark.parametrize("fault", [cut_off, emptied, nonsense, without_tiles])
def test_what_openslide_cannot_read_is_said_with_what_to_do(tmp_path, noise, slide_file, fault):
    fault(path := slide_file(tmp_path / "a.tif", noise))
    with pytest.raises(StudyError, match=r"a\.tif: cannot be read as a slide .*: get it again, or convert it"):
        WholeSlide(path)


def test_what_is_no_file_is_said(tmp_path):
    with pytest.raises(StudyError, match="is not a file; name a slide"):
        WholeSlide(tmp_path)


def test_damage_in_the_middle_is_found_where_it_is_read(tmp_path, noise, slide_file):
    path = slide_file(tmp_path / "a.tif", noise)
    data = bytearray(path.read_bytes())
    data[2000:60000] = bytes(58000)
    path.write_bytes(data)
    with pytest.raises(StudyError, match=r"a\.tif: is damaged \(.*\); get it again"):
        WholeSlide(path).read(0, 0, 300, 200, 0.5)
