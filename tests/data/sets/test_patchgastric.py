"""PatchGastricADC22's layout, of which a synthetic archive is one."""

import hashlib

import numpy as np
import pandas as pd
import pytest

from lgffem_core.base.errors import RequestError
from lgffem_core.config.params import PatchGastric, Synthetic
from lgffem_core.data.sets.patchgastric import SET, split_of
from lgffem_core.data.slides.patches import decoded
from lgffem_core.data.synthetic.biopsies import SUBTYPES, write_biopsies
from lgffem_core.data.table import build_table

SMALL = Synthetic(image_size=32)
IDS = [hashlib.md5(name, usedforsecurity=False).hexdigest() for name in (b"a", b"b")]


@pytest.fixture
def root(tmp_path, picture):
    """Two slides of two patches, in the published layout."""
    for number, slide in enumerate(IDS):
        for patch in (10, 2):
            picture(tmp_path / "patches_captions" / f"{slide}_{patch}.jpg", seed=100 * number + patch)
    (tmp_path / "captions.csv").write_text(
        f'id,subtype,text\n{IDS[1]},"Solid, poor",Sheets.\n{IDS[0]},Tubular,Ducts.\n'
    )
    (tmp_path / "captions_adc.jpg").write_bytes(b"a picture for the page")
    return tmp_path


def test_rows_are_slides_as_listed_and_patches_by_name(root):
    rows, labels = SET.layout(root, PatchGastric())
    assert [row[0] for row in rows] == [f"patches_captions/{slide}_{n}.jpg" for slide in IDS[::-1] for n in (2, 10)]
    assert labels == ["Solid, poor", "Tubular"] and [row[1] for row in rows] == [labels[0]] * 2 + [labels[1]] * 2
    assert [row[3] for row in rows] == [IDS[1]] * 2 + [IDS[0]] * 2
    build_table(root, rows, labels)
    assert list(SET.missing(root, PatchGastric())) == []
    assert SET.read_below(root).fullmatch("captions.csv") and not SET.read_below(root).fullmatch("captions_adc.jpg")


def test_a_slide_is_wholly_of_one_split_whatever_others_there_are(root):
    ids = [hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest() for number in range(2000)]
    assert np.mean([split_of(slide) == "test" for slide in ids]) == pytest.approx(0.3, abs=0.03)
    rows, _ = SET.layout(root, PatchGastric())
    assert [row[2] for row in rows] == [split_of(row[3]) for row in rows]


def test_published_counts_are_those_of_all_patches(root):
    rows, _ = SET.layout(root, PatchGastric())
    assert sum(SET.published(PatchGastric(), rows).values()) == 262777
    assert SET.published(PatchGastric(), [("", "", "test", "")] * 77777 + [("", "", "train", "")] * 185000) == {
        "train": 185000,
        "test": 77777,
    }


def test_a_patch_of_no_slide_and_a_folder_without_patches_are_refused(root, picture):
    stray = picture(root / "more" / f"{'0' * 32}_1.jpg")
    with pytest.raises(RequestError, match=rf"{stray}: is of slide 0{{32}}, which captions\.csv does not name"):
        SET.layout(root, PatchGastric())
    for path in root.rglob(f"{'?' * 32}_*.jpg"):
        path.unlink()
    with pytest.raises(RequestError, match=r"holds no patches named <id>_<hash>\.jpg.*Zenodo, record 6550925"):
        SET.layout(root, PatchGastric())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,text\na,b\n", "lacks subtype"),
        ("id,subtype,text\na,b,c\na,b,c\n", "line 3 names a again"),
        ("id,subtype,text\na,b,\n", "line 2 has no text; restore the file"),
    ],
)
def test_a_list_of_slides_that_is_not_the_published_one_is_refused(root, text, said):
    (root / "captions.csv").write_text(text)
    with pytest.raises(RequestError, match=rf"captions\.csv: {said}"):
        SET.layout(root, PatchGastric())


def test_the_synthetic_archive_is_one_of_the_layout(tmp_path):
    root = SET.make_synthetic(SMALL, tmp_path / "one")
    rows, labels = SET.layout(root, PatchGastric())
    assert len(rows) == 12 * 12 and len(labels) == len(SUBTYPES) and len({row[3] for row in rows}) == 12
    table = pd.read_csv(root / "captions.csv")
    for subtype in SUBTYPES:
        texts = table.loc[table["subtype"] == subtype.name, "text"]
        assert texts.str.endswith(f"{subtype.name}.").all() and texts.str.contains(subtype.words[1:]).all()
    again = SET.make_synthetic(SMALL, tmp_path / "two")
    files = sorted(path.relative_to(root) for path in root.rglob("*.*"))
    assert all((root / file).read_bytes() == (again / file).read_bytes() for file in files) and len(files) == 145


def test_subtypes_of_the_synthetic_archive_look_different(tmp_path):
    """How much grey levels vary within a patch differs between them by more than a level or two."""
    write_biopsies(Synthetic(image_size=64), tmp_path, slides=16, patches=6)
    rows, _ = SET.layout(tmp_path, PatchGastric())
    spread = {}
    for path, label, *_ in rows:
        spread.setdefault(label, []).append(decoded(tmp_path / path).astype(float).std(axis=(0, 1)).mean())
    means = sorted(np.mean(values) for values in spread.values())
    assert means[-1] - means[0] > 5
