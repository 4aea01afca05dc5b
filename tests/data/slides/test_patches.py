"""Patches that were cut before: their places by name, by list, and assumed."""

import numpy as np
import pytest
from PIL import Image

from lgffem_core.base.errors import StudyError
from lgffem_core.data.slides.patches import Patches, in_order, of_folder


@pytest.fixture
def named(tmp_path):
    """Writes a patch under each name; the files in that order."""

    def write(*names, size=(8, 8)):
        paths = [tmp_path / "slide" / name for name in names]
        paths[0].parent.mkdir(exist_ok=True)
        for number, path in enumerate(paths):
            Image.fromarray(np.full((*size, 3), 10 * number, np.uint8)).save(path)
        return tmp_path / "slide", paths

    return write


def test_names_give_places_in_steps_of_the_smallest_distance(named):
    found = of_folder(*named("a_512_1024.png", "a_1024_1024.png", "a-x512-y2048.png"), step=None, mpp=0.5)
    assert found.positions.tolist() == [[0, 0], [0, 1], [2, 0]] and found.positions.dtype == np.float32
    assert (found.mpp, found.pixels, len(found), found.overview) == (0.5, 8, 3, None)
    assert (found[2] == 20).all() and found[2].shape == (8, 8, 3)


def test_a_list_of_coordinates_goes_before_names(named):
    folder, files = named("a_1_1.png", "b.png")
    (folder / "coordinates.csv").write_text("file,x,y\nb.png,0.5,7.5\na_1_1.png,0.5,5\n")
    assert of_folder(folder, files, None, None).positions.tolist() == [[0, 0], [1, 0]]


def test_a_stated_step_is_taken_and_a_single_patch_needs_none(named):
    folder, files = named("a_0_0.png", "a_300_450.png")
    assert of_folder(folder, files, 300.0, None).positions.tolist() == [[0, 0], [1.5, 1]]
    assert of_folder(folder, files[:1], None, None).positions.tolist() == [[0, 0]]
    with pytest.raises(StudyError, match=r"slide: its patches are on no grid of 300, .* --set slides\.step=…"):
        of_folder(folder, files, None, None)


def test_what_has_no_place_or_that_of_another_is_named(named):
    folder, files = named("a_0_0.png", "b.png")
    with pytest.raises(
        StudyError, match=r"b\.png: its name does not end in _<x>_<y>, and there is no coordinates\.csv"
    ):
        of_folder(folder, files, None, None)
    folder, files = named("a_-5_0.png")  # whose sign would be lost
    with pytest.raises(StudyError, match=r"a_-5_0\.png: its name does not end in _<x>_<y>"):
        of_folder(folder, files, None, None)
    folder, files = named("a_1_5.png", "b_1_5.png")
    with pytest.raises(StudyError, match=r"a_1_5\.png and b_1_5\.png have the same coordinates; keep one"):
        of_folder(folder, files, 1.0, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,x\na.png,1\n", "must have columns file, x, y"),
        ("file,x,y\na.png,1,left\n", "must have columns file, x, y, the last two of numbers"),
        ("file,x,y\na.png,1,\n", "a coordinate is missing"),
        ("", "must have columns file, x, y"),
        ("file,x,y\nb.png,1,2\n", r"does not name a\.png, which lies beside it"),
        ("file,x,y\na.png,1,2\na.png,1,3\n", r"names a\.png twice"),
    ],
)
def test_a_list_that_cannot_be_used_says_why(named, text, said):
    folder, files = named("a.png")
    (folder / "coordinates.csv").write_text(text)
    with pytest.raises(StudyError, match=rf"coordinates\.csv: .*{said}.*mend it"):
        of_folder(folder, files, None, None)


def test_patches_without_places_are_laid_row_by_row(named):
    _, files = named(*(f"{number}.png" for number in range(7)))
    assert in_order(files, None).positions.tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2], [2, 0]]


def test_a_patch_that_cannot_be_decoded_whole_is_named(named):
    _, files = named("a_0_0.png", "a_1_0.png", size=(8, 9))
    found = Patches(files, np.zeros((2, 2)))
    assert found.pixels is None
    files[1].write_bytes(files[1].read_bytes()[:-30])
    with pytest.raises(StudyError, match=r"a_1_0\.png: cannot be decoded \(.*\); restore it"):
        found[1]
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(jpeg := files[1].with_suffix(".jpg"))
    data = jpeg.read_bytes()
    jpeg.write_bytes(data[: data.index(b"\xff\xda") + 14] + b"\xff\xd9")  # no pixels, which Pillow paints grey
    with pytest.raises(StudyError, match=r"a_1_0\.jpg: cannot be decoded"):
        Patches([jpeg], np.zeros((1, 2)))
    files[1].write_text("no image")
    with pytest.raises(StudyError, match=r"a_1_0\.png: cannot be decoded \(it is no image\)"):
        found[1]
