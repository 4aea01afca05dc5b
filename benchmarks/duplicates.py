"""How many planted copies does the audit find, and how many other pairs does it take for copies?

    python benchmarks/duplicates.py FOLDER [--every 4]        # a Kimia-layout folder
    python benchmarks/duplicates.py --synthetic               # 24 synthetic scans

Copies are turned or mirrored at random, cropped at a random place, half of them brought back to size, and
saved as JPEG of quality 50. Overlaps are two windows of two thirds of a patch, up to half a window apart.
"""

import argparse
import time
from pathlib import Path

import cv2
import numpy as np

from lgffem_core.audit import leakage as audit
from lgffem_core.config.params import Kimia, Synthetic
from lgffem_core.data.loading import read_rgb
from lgffem_core.data.sets.kimia import SET
from lgffem_core.data.synthetic.make import kimia_patch
from lgffem_core.data.table import build_table


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def copy_of(image: np.ndarray, crop: float, rng: np.random.Generator, quality: int = 50) -> np.ndarray:
    """A turned or mirrored, cropped and re-encoded copy; ``crop`` is the share of the side that is lost."""
    side = round((1 - crop) * len(image))
    row, column = rng.integers(0, len(image) - side + 1, size=2)
    copy = image[row : row + side, column : column + side]
    if rng.random() < 0.5:
        copy = cv2.resize(copy, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return jpeg(audit.oriented(copy, rng.integers(8)), quality)


def overlapping(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two windows of two thirds of the side, shifted by up to half a window in either direction."""
    side = 2 * len(image) // 3
    shift = rng.integers(-side // 2, side // 2 + 1, size=2)
    first = np.maximum(0, -shift)
    (row, column), (other_row, other_column) = first, first + shift
    parts = image[row : row + side, column : column + side], image[other_row:, other_column:][:side, :side]
    return tuple(jpeg(part, 80) for part in parts)


def measure_copies(images: list, every: int, crop: float) -> str:
    """Plant a copy of every ``every``-th image and search all of them."""
    rng, sources = np.random.default_rng(round(100 * crop)), range(0, len(images), every)
    planes = [audit.luminance(i) for i in images + [copy_of(images[i], crop, rng) for i in sources]]
    truth = {(source, len(images) + number) for number, source in enumerate(sources)}
    proposed = {(min(p), max(p)) for p in audit.proposals(planes, list(range(len(planes))))}
    audit.COPY = -1.0  # everything that registers, to see how far the two kinds of pairs lie apart
    found = audit.copies(planes, list(range(len(planes))))
    right = np.array([found.get(pair, -1) for pair in truth])
    wrong = [found[pair] for pair in found if pair not in truth]
    return (
        f"crop {crop:.0%}: proposed {len(truth & proposed)} of {len(truth)}, found {(right >= LEAST).sum()}, "
        f"correlations {np.quantile(right, [0, 0.05, 0.5]).round(2)} (least, 5 %, median); "
        f"others proposed {len(proposed - truth)}, taken {sum(c >= LEAST for c in wrong)}, "
        f"greatest correlation {max(wrong, default=np.nan):.2f}"
    )


def measure_overlaps(images: list, groups: list) -> str:
    """Both windows of every patch, against all windows of the other patches of its slide."""
    rng = np.random.default_rng(0)
    planes = [audit.luminance(part) for image in images for part in overlapping(image, rng)]
    slides = np.repeat(groups, 2).tolist()
    audit.OVERLAP = -1.0
    found = audit.overlaps(planes, list(range(len(planes))), slides)
    right = np.array([found.get((2 * i, 2 * i + 1), -1) for i in range(len(images))])
    wrong = np.array([c for (a, b), c in found.items() if a // 2 != b // 2])
    return (
        f"overlap: found {(right >= LEAST_OVERLAP).sum()} of {len(right)}, correlations "
        f"{np.quantile(right, [0, 0.05, 0.5]).round(2)}; of {len(wrong)} other pairs taken "
        f"{(wrong >= LEAST_OVERLAP).sum()}, greatest correlations {np.sort(wrong)[-3:].round(2)}"
    )


LEAST, LEAST_OVERLAP = audit.COPY, audit.OVERLAP


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--synthetic", action="store_true")
    parser.add_argument("--every", type=int, default=4)
    options = parser.parse_args()
    if options.synthetic:
        settings = Synthetic(image_size=160)
        keys = [(scan, split, i) for scan in range(24) for split, n in (("train", 6), ("test", 3)) for i in range(n)]
        images, groups = [kimia_patch(settings, *key) for key in keys], [f"s{key[0]}" for key in keys]
    else:
        table = build_table(options.folder, *SET.layout(options.folder, Kimia()))
        images, groups = [read_rgb(options.folder / path) for path in table["path"]], table["group"].tolist()
    start = time.perf_counter()
    pairs = audit.near_duplicates(images, groups)
    print(f"{len(images)} patches as they are: {time.perf_counter() - start:.1f} s, pairs {len(pairs)}", flush=True)
    print(pairs.to_string() if len(pairs) else "", flush=True)
    for crop in (0, 0.02, 0.05, 0.1, 0.15):
        print(measure_copies(images, options.every, crop), flush=True)
    print(measure_overlaps(images, groups))


if __name__ == "__main__":
    main()
