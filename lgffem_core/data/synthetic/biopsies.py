"""Procedural biopsies of stomach in PatchGastricADC22's layout: patches without places, and a sentence a slide.

A slide is of one subtype and shows it in some of its patches; the others are plain stroma or sound glands. Its text
names the structure, how much of the slide it takes and, as the real ones do, the subtype at its end.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from lgffem_core.base.files import write_text
from lgffem_core.config.params import Synthetic
from lgffem_core.data.synthetic.make import (
    BETWEEN_PATCHES,
    BETWEEN_SLIDES,
    ORGANS,
    STAINS,
    STROMA,
    generator,
    save,
    vary,
)
from lgffem_core.data.synthetic.tissue import Architecture, Tissue, render

SOUND = ORGANS["Stomach"]


@dataclass(frozen=True)
class Subtype:
    """What a tumour is called, what it looks like, and in which words."""

    name: str
    architecture: Architecture
    words: str


SUBTYPES = (
    Subtype(
        "Well differentiated tubular adenocarcinoma",
        replace(SOUND, glands=1.0, gland_radius=18, lumen=0.5, nuclei=7, haze=0.15),
        "medium to large round glandular ducts",
    ),
    Subtype(
        "Moderately differentiated tubular adenocarcinoma",
        replace(SOUND, glands=1.9, gland_radius=9, lumen=0.2, nuclei=9, haze=0.2),
        "small, irregular and partly fused ducts",
    ),
    Subtype(
        "Poorly differentiated adenocarcinoma, solid type",
        replace(SOUND, glands=0, nuclei=15, radius=3.2, vesicular=0.6, haze=0.2),
        "solid sheets of large atypical cells without ducts",
    ),
    Subtype(
        "Signet ring cell carcinoma",
        replace(SOUND, glands=0, nuclei=5, fat=0.4, fat_radius=4.5, haze=0.05),
        "scattered cells with a vacuole that pushes the nucleus aside",
    ),
)
#: Share of the patches that show the tumour, and its words.
EXTENTS = ((0.3, "in a small part of"), (0.6, "in much of"), (0.9, "all over"))


def write_biopsies(settings: Synthetic, root: Path, slides: int = 12, patches: int = 12) -> None:
    """``captions.csv`` and ``slides`` slides of so many ``patches`` each, subtype after subtype."""
    folder, lines = root / "patches_captions", ["id,subtype,text"]
    folder.mkdir(parents=True)
    for number in range(slides):
        rng = generator(settings, "patchgastric", number)
        slide = hashlib.md5(f"slide {settings.seed} {number}".encode(), usedforsecurity=False).hexdigest()
        subtype, (share, extent) = SUBTYPES[number % len(SUBTYPES)], EXTENTS[rng.integers(len(EXTENTS))]
        stained = vary(Tissue(STAINS[rng.integers(len(STAINS))], subtype.architecture), BETWEEN_SLIDES, rng)
        for index in range(patches):
            others = (STROMA, SOUND)[rng.integers(2)]
            shown = stained if rng.random() < share else replace(stained, architecture=others)
            image = render(vary(shown, BETWEEN_PATCHES, rng), settings.image_size, rng)
            hashed = hashlib.md5(f"{slide} {index}".encode(), usedforsecurity=False).hexdigest()
            save(folder / f"{slide}_{hashed}.jpg", image)
        text = f"{subtype.words.capitalize()} are seen {extent} the mucosa. {subtype.name}."
        lines.append(f'{slide},"{subtype.name}","{text}"')
    write_text(root / "captions.csv", "\n".join(lines) + "\n")
