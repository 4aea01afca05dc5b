"""A DICOM series in a folder of its own, as pydicom writes it: imported where it does, since that takes a second."""

import io

import numpy as np
import pytest
from PIL import Image

from lgffem_core.base.errors import StudyError
from lgffem_core.config.systems import Slides
from lgffem_core.data.slides.finding import find_slides

SIDE = 64


def items(**elements) -> list:
    """A sequence of one item."""
    from pydicom.dataset import Dataset

    item = Dataset()
    for name, value in elements.items():
        setattr(item, name, value)
    return [item]


def frames(image):
    """Its tiles as JPEG, row by row, white beyond the edge."""
    height, width = image.shape[:2]
    for top in range(0, height, SIDE):
        for left in range(0, width, SIDE):
            part, tile = image[top : top + SIDE, left : left + SIDE], np.full((SIDE, SIDE, 3), 255, np.uint8)
            tile[: len(part), : part.shape[1]] = part
            Image.fromarray(tile).save(data := io.BytesIO(), "JPEG", quality=95)
            yield data.getvalue()


def write_level(path, image, mpp, series, level):
    """One level of a whole slide (DICOM PS3.3, A.32.8), with what OpenSlide asks for."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = VLWholeSlideMicroscopyImageStorage, JPEGBaseline8Bit
    meta.MediaStorageSOPInstanceUID = generate_uid()
    tiles, (height, width) = list(frames(image)), image.shape[:2]
    elements = {
        "SOPClassUID": meta.MediaStorageSOPClassUID,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "SeriesInstanceUID": series,
        "Modality": "SM",
        "ImageType": ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"]
        if level
        else ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        "DimensionOrganizationType": "TILED_FULL",
        **{"TotalPixelMatrixColumns": width, "TotalPixelMatrixRows": height, "Rows": SIDE, "Columns": SIDE},
        **{"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422", "PlanarConfiguration": 0},
        **{"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0, "NumberOfFrames": len(tiles)},
        "SharedFunctionalGroupsSequence": items(PixelMeasuresSequence=items(PixelSpacing=[mpp / 1000] * 2)),
        "OpticalPathSequence": items(OpticalPathIdentifier="0"),
        "PixelData": encapsulate(tiles),
    }
    file = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    for name, value in elements.items():
        setattr(file, name, value)
    file["PixelData"].is_undefined_length = True
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save_as(path, enforce_file_format=True)


def write_series(folder, image, prefix=""):
    from pydicom.uid import generate_uid

    series = generate_uid()
    for level in range(2):
        write_level(folder / f"{prefix}{level}.dcm", image[:: 2**level, :: 2**level], 0.25 * 2**level, series, level)


def test_a_series_is_one_slide_with_its_levels(tmp_path, dyed):
    image = dyed(256, 320, (0, 0, 128, 192))
    write_series(tmp_path / "case", image)
    (slide,) = find_slides(tmp_path, Slides(mpp=0.25, pixels=64)).slides
    tiles = slide.tiles()
    assert slide.name == "case" and len(slide.files) == 2
    assert tiles.slide.size == (320, 256) and tiles.slide.mpp == 0.25 and tiles.slide.handle.level_count == 2
    assert tiles.positions.tolist() == [[row, column] for row in range(2) for column in range(3)]
    wanted, found = (part.reshape(8, 8, 8, 8, 3).mean(axis=(1, 3)) for part in (image[64:128, 64:128], tiles[4]))
    assert np.abs(found - wanted).max() < 4  # JPEG keeps the means of its blocks


def found_in(folder):
    return {slide.name: [file.name for file in slide.files] for slide in find_slides(folder, Slides()).slides}


def test_files_that_lie_side_by_side_are_a_slide_for_each_series(tmp_path, dyed):
    """Also where the names of two series' files alternate."""
    images = dyed(256, 320, (0, 0, 128, 192)), dyed(128, 192, (0, 0, 128, 128))
    for image, prefix in zip(images, ("a", "ab"), strict=True):
        write_series(tmp_path, image, prefix)
    (tmp_path / "a00.dcm").write_bytes(b"nothing")
    assert found_in(tmp_path) == {"a0": ["a0.dcm", "a1.dcm"], "a00": ["a00.dcm"], "ab0": ["ab0.dcm", "ab1.dcm"]}
    slides = {slide.name: slide for slide in find_slides(tmp_path, Slides(mpp=0.25, pixels=64)).slides}
    sizes = [(slides[name].tiles().slide.size, len(slides[name].tiles())) for name in ("a0", "ab0")]
    assert sizes == [((320, 256), 6), ((192, 128), 4)]
    with pytest.raises(StudyError, match=r"a00\.dcm: cannot be read as a slide"):
        slides["a00"].tiles()


def test_two_series_in_one_folder_are_two_slides(tmp_path, dyed):
    for prefix in "ab":
        write_series(tmp_path / "case", dyed(128, 128, (0, 0, 128, 128)), prefix)
    assert found_in(tmp_path) == {"case_a0": ["a0.dcm", "a1.dcm"], "case_b0": ["b0.dcm", "b1.dcm"]}


def test_a_file_of_a_series_that_cannot_be_read_fails_its_slide(tmp_path, dyed):
    """OpenSlide would take the series without it, that is at a coarser level."""
    write_series(tmp_path / "case", dyed(128, 128, (0, 0, 128, 128)))
    (tmp_path / "case" / "0.dcm").write_bytes(b"nothing")
    assert found_in(tmp_path) == {"case": ["0.dcm", "1.dcm"]}
    (slide,) = find_slides(tmp_path, Slides()).slides
    with pytest.raises(StudyError, match=r"0\.dcm: cannot be read as a slide"):
        slide.tiles()
