"""What a folder of slides holds, and what is said of them beside their pixels."""

import shutil

import numpy as np
import pytest
from PIL import Image

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.config.params import Synthetic
from lgffem_core.config.systems import Slides
from lgffem_core.data.sets.patchgastric import GRID
from lgffem_core.data.slides.finding import find_slides
from lgffem_core.data.slides.patches import Patches
from lgffem_core.data.slides.reports import Said, read_reports
from lgffem_core.data.slides.tiles import SlideTiles
from lgffem_core.data.synthetic.biopsies import write_biopsies


@pytest.fixture
def folder(tmp_path, slide_file, dyed):
    """Two whole slides, a folder of patches, and what is none."""
    root = tmp_path / "slides"
    image = dyed(300, 300, (0, 0, 300, 300))
    slide_file(root / "s10.svs", image)
    slide_file(root / "s2.ome.tif", image)
    (root / "s3").mkdir()
    for place in ("0_0", "0_8"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(root / "s3" / f"p_{place}.png")
    (root / "notes.txt").write_text("x")
    (root / ".DS_Store").write_text("x")
    (root / "empty").mkdir()
    return root


def test_slides_and_folders_of_patches_are_found_in_natural_order(folder):
    found = find_slides(folder, Slides(pixels=64))
    assert [slide.name for slide in found.slides] == ["s2", "s3", "s10"]
    assert found.notes == ["not read: 1 .txt file"]
    kinds = [slide.tiles() for slide in found.slides]
    assert [type(tiles) for tiles in kinds] == [SlideTiles, Patches, SlideTiles]
    assert [len(tiles) for tiles in kinds] == [16, 2, 16] and kinds[0].pixels == 64


def test_a_folder_of_results_is_not_entered(folder):
    assert "s3" not in [slide.name for slide in find_slides(folder, Slides(), leave=folder / "s3").slides]


def test_formats_that_openslide_does_not_read_are_found_so_that_they_can_fail(folder):
    (folder / "s4.vsi").write_bytes(b"x" * 100)
    assert [slide.name for slide in find_slides(folder, Slides()).slides] == ["s2", "s3", "s4", "s10"]


def test_a_dicom_series_is_a_folder_and_mirax_has_one_beside_it(folder):
    (folder / "series").mkdir()
    for number in (1, 2):
        (folder / "series" / f"{number}.dcm").write_bytes(b"x")
    (folder / "m.mrxs").write_bytes(b"x")
    (folder / "m").mkdir()
    (folder / "m" / "Data0000.dat").write_bytes(b"x")
    (folder / "m" / "preview.png").write_bytes(b"x")
    slides = {slide.name: [file.name for file in slide.files] for slide in find_slides(folder, Slides()).slides}
    assert slides["series"] == ["1.dcm", "2.dcm"] and slides["m"] == ["m.mrxs", "Data0000.dat", "preview.png"]


def test_what_cannot_start_says_so(folder, tmp_path):
    with pytest.raises(RequestError, match="is no folder; name the one"):
        find_slides(tmp_path / "nowhere", Slides())
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.jpg").write_bytes(b"x")
    with pytest.raises(
        RequestError, match=r"none: holds no slides \(there are 1 \.jpg file\); name a folder with whole"
    ):
        find_slides(tmp_path / "none", Slides())
    shutil.copy(folder / "s10.svs", folder / "s10.tif")
    with pytest.raises(RequestError, match="2 slides are called s10; rename or move one"):
        find_slides(folder, Slides())


def test_reports_are_attached_and_those_of_nobody_are_said(folder):
    rows = [
        "slide,report,label,prompts,group",
        's2,"Sheets, solid.",solid,"sheets ; necrosis;",p1',
        "s9,x,,,",
        "s3,,ducts,,",
    ]
    (folder / "reports.csv").write_text("\n".join(rows))
    found = find_slides(folder, Slides())
    assert [slide.said for slide in found.slides] == [
        Said("Sheets, solid.", "solid", "p1", ("sheets", "necrosis")),
        Said(label="ducts"),
        Said(),
    ]
    assert found.notes == ["not read: 1 .txt file", "reports.csv names slides that are not there, 1 of them: s9"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,report\na,b\n", "lacks slide; its columns must be slide, and may have report, label, group, prompts"),
        ("slide,diagnosis\na,b\n", "has diagnosis; its columns"),
        ("slide,report\na,b\na,c\n", "line 3 names a again; each slide must stand there once"),
        ("slide,report\n,b\n", "line 2 has no slide"),
        ("", "cannot be read as CSV"),
    ],
)
def test_a_list_of_reports_that_cannot_be_used_says_why(tmp_path, text, said):
    (tmp_path / "reports.csv").write_text(text)
    with pytest.raises(RequestError, match=rf"reports\.csv: {said}"):
        read_reports(tmp_path)


def test_a_list_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "reports.csv").write_bytes("slide,report\na,größer\n".encode("latin-1"))
    with pytest.raises(RequestError, match="cannot be read as CSV in UTF-8"):
        read_reports(tmp_path)


def test_patchgastrics_layout_is_known_and_its_grid_said_to_be_assumed(tmp_path):
    write_biopsies(Synthetic(image_size=16), tmp_path, slides=3, patches=5)
    found = find_slides(tmp_path, Slides(unstated_mpp=0.5))
    assert found.notes == [GRID] and len(found.slides) == 3
    slide = found.slides[1]
    tiles = slide.tiles()
    assert tiles.positions.tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1]] and tiles.mpp == 0.5
    assert all(file.name.startswith(f"{slide.name}_") for file in slide.files) and len(slide.files) == 5
    assert slide.said.label == "Moderately differentiated tubular adenocarcinoma"
    assert slide.said.report.endswith(f"{slide.said.label}.") and slide.said.prompts == ()


def test_links_to_nothing_are_found_so_that_they_can_fail(folder):
    (folder / "s4.svs").symlink_to(folder / "nowhere")
    (folder / "s3" / "p_0_16.png").symlink_to(folder / "nowhere")
    slides = {slide.name: slide for slide in find_slides(folder, Slides()).slides}
    with pytest.raises(StudyError, match=r"s4\.svs: is not a file"):
        slides["s4"].tiles()
    assert len(slides["s3"].files) == 3


def test_folders_in_which_nothing_is_read_are_said(folder):
    shutil.copytree(folder, folder / "deep" / "er")
    (folder / "m.mrxs").write_bytes(b"x")
    (folder / "m").mkdir()
    (folder / "m" / "Data0000.dat").write_bytes(b"x")
    notes = find_slides(folder, Slides()).notes
    assert notes == ["not read: 1 .txt file", "no patches or DICOM series in deep; further down nothing is looked for"]


def test_a_name_too_long_for_the_files_made_of_it_is_refused_before_anything_starts(folder):
    (folder / f"{'ü' * 101}.svs").write_bytes(b"x")
    with pytest.raises(RequestError, match=r"the name ü{20}… has 202 bytes, .*rename it to 200 or fewer"):
        find_slides(folder, Slides())


def test_captions_of_slides_without_patches_are_said(tmp_path):
    write_biopsies(Synthetic(image_size=16), tmp_path, slides=3, patches=5)
    with open(tmp_path / "captions.csv", "a") as file:
        file.write(f"{'f' * 32},subtype,Some text.\n")
    found = find_slides(tmp_path, Slides())
    said = f"captions.csv names slides without patches, 1 of them: {'f' * 32}"
    assert found.notes == [GRID, said] and len(found.slides) == 3
