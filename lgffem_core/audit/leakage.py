"""Leakage: patches that occur twice, or that show the same tissue, within and across train and test.

Patches of one stroma look alike to any hash that forgives cropping, so a hash only proposes pairs; what
decides is whether one patch can be laid over the other so that their fine structure agrees. Three kinds:

- ``exact``: the same pixels;
- ``perceptual``: re-encoded, mirrored, turned by quarters, cropped by up to about 10 % of the side and
  brought back to size. A 256-bit DCT hash proposes, registration (Evangelidis & Psarakis 2008) decides;
- ``overlap``: two patches of one slide, shifted by up to half a side in each direction.

On 579 patches of 24 real slides (``benchmarks/duplicates.py``) registered copies correlate at 0.79 and more,
other patches at 0.33 and less; true overlaps at 0.79 and more, other patches of a slide at 0.64 and less.
Patches without structure, such as plain background, correlate with nothing: they can only be ``exact``.

Hashes and registration take 20 ms a patch, overlaps 0.25 ms for each pair of a slide: 12 s for 579 patches.
For the 24 thousand of Kimia Path24C that is about ten minutes and, with a thousand patches a slide, an hour.
"""

import hashlib
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import cv2
import faiss
import numpy as np
import pandas as pd
from scipy import fft

from lgffem_core.data.loading import read_rgb

COLUMNS = ["first", "second", "kind", "distance"]
SIDE, COARSE, THUMBNAIL = 128, 64, 32  # pixels a side: for registration, for overlaps, for hashes
KEPT = 16  # DCT coefficients a side that a hash keeps: 256 bits
RADIUS = 88  # bits by which proposed pairs may differ: 99 % of copies cropped by 10 %, 0.02 % of other pairs
COPY, OVERLAP = 0.58, 0.72  # least correlations, midway between what was measured for either side
STRUCTURE = 1.0  # grey levels, the least deviation of fine structure that counts as such
STEPS = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 1e-5)


def near_duplicates(images: Sequence[Path | np.ndarray], groups: Sequence | None = None) -> pd.DataFrame:
    """Pairs of patches that show the same thing.

    Args:
        images: paths, or uint8 RGB arrays (H, W, 3), square or nearly so.
        groups: slide of each image. Overlaps are looked for within a slide, and not at all without this.

    Returns:
        Columns ``first`` < ``second`` (row numbers), ``kind`` and ``distance`` (0 for exact pairs, else
        1 − correlation); each pair once, by the first kind that holds. ``attrs["plain"]`` lists the images
        without structure, which only ``exact`` can find.
    """
    planes, digests = [], {}
    for number, image in enumerate(images):
        pixels = image if isinstance(image, np.ndarray) else read_rgb(image)
        planes.append(luminance(pixels))
        digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()
        digests.setdefault(digest, []).append(number)
    found = {pair: ("exact", 0.0) for same in digests.values() for pair in combinations(same, 2)}
    textured = [number for number, plane in enumerate(planes) if detail(plane).std() >= STRUCTURE]
    for pair, correlation in copies(planes, textured).items():
        found.setdefault(pair, ("perceptual", 1 - correlation))
    if groups is not None:
        for pair, correlation in overlaps(planes, textured, groups).items():
            found.setdefault(pair, ("overlap", 1 - correlation))
    pairs = pd.DataFrame([(*pair, *what) for pair, what in sorted(found.items())], columns=COLUMNS)
    pairs.attrs["plain"] = sorted(set(range(len(planes))) - set(textured))
    return pairs


def leakage(pairs: pd.DataFrame, test: np.ndarray) -> pd.DataFrame:
    """How many pairs of each kind (rows) lie within train, within test and across them; test is (N,) bool."""
    ends = test[pairs["first"]].astype(int) + test[pairs["second"]]
    where = pd.Categorical.from_codes(ends, ["train", "across", "test"])
    kinds = pd.Categorical(pairs["kind"], ["exact", "perceptual", "overlap"])
    return pd.crosstab(kinds, where, rownames=["kind"], colnames=["where"], dropna=False)


def clean(pairs: pd.DataFrame, test: np.ndarray) -> np.ndarray:
    """(N,) bool: the patches left for a score without leakage. Every training patch stays; a test patch goes
    where it is a pair with a training patch, or with a test patch before it.
    """
    kept = np.ones(len(test), dtype=bool)
    first, second = pairs[["first", "second"]].to_numpy(int).T
    goes = np.where(test[second], second, first)
    kept[goes[test[goes]]] = False  # none of two training patches
    return kept


def copies(planes: list[np.ndarray], among: list[int]) -> dict[tuple[int, int], float]:
    """Pairs (numbers in ``among``) that register onto each other, with their correlation."""
    correlations = {}
    for (moved, fixed), (turn, window) in proposals(planes, among).items():
        correlation = register(planes[fixed], oriented(planes[moved], turn), window)
        if correlation >= COPY:
            correlations[min(moved, fixed), max(moved, fixed)] = correlation
    return correlations


def proposals(planes: list[np.ndarray], among: list[int]) -> dict[tuple[int, int], tuple[int, tuple]]:
    """(moved, fixed) -> (orientation, window): the part of ``moved`` whose hash is closest to that of ``fixed``.

    Every image is asked for in 8 orientations × 11 crops; a pair that both ways propose is kept once.
    """
    if not among:
        return {}
    probes = [(turn, window) for turn in range(8) for window in windows()]
    hashes = np.array([dct_hashes(planes[i], probes) for i in among])
    chosen = {}
    for a, b in sorted(similar_hashes(hashes)):
        both = [(differing_bits(hashes[moved], hashes[fixed, 0]), moved, fixed) for moved, fixed in ((a, b), (b, a))]
        bits, moved, fixed = min(both, key=lambda way: way[0].min())
        chosen[among[moved], among[fixed]] = probes[bits.argmin()]
    return chosen


def similar_hashes(hashes: np.ndarray) -> set[tuple[int, int]]:
    """Pairs a < b of which some probe of one, hashes (M, 88, 32) uint8, lies within RADIUS of the other as it is."""
    index = faiss.IndexBinaryFlat(KEPT * KEPT)
    index.add(np.ascontiguousarray(hashes[:, 0]))
    limits, _, found = index.range_search(hashes.reshape(-1, hashes.shape[-1]), RADIUS + 1)
    asked = np.repeat(np.arange(len(limits) - 1), np.diff(limits.astype(np.int64))) // hashes.shape[1]
    return {(min(a, b), max(a, b)) for a, b in zip(asked.tolist(), found.tolist(), strict=True) if a != b}


def differing_bits(hashes: np.ndarray, one: np.ndarray) -> np.ndarray:
    """Hamming distances of (P, 32) uint8 hashes to one: (P,)."""
    return np.unpackbits(hashes ^ one, axis=1).sum(axis=1)


def register(fixed: np.ndarray, moved: np.ndarray, window: tuple[int, int, int]) -> float:
    """Correlation of fine structure once ``moved``'s window is laid over ``fixed`` by an affine map; −1 where
    the alignment does not converge or leaves less than half of the patch in common.
    """
    row, column, side = window
    scale = side / SIDE
    start = np.array([[scale, 0, column + (scale - 1) / 2], [0, scale, row + (scale - 1) / 2]], np.float32)
    try:
        _, warp = cv2.findTransformECC(fixed, moved, start, cv2.MOTION_AFFINE, STEPS, None, 5)
    except cv2.error:  # how OpenCV says that it does not converge
        return -1.0
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    common = cv2.warpAffine(np.ones((SIDE, SIDE), np.float32), warp, (SIDE, SIDE), flags=flags) > 0.99
    if common.mean() < 0.5:
        return -1.0
    aligned = cv2.warpAffine(moved.astype(np.float32), warp, (SIDE, SIDE), flags=flags)
    a, b = (part - part.mean() for part in (detail(fixed)[common], detail(aligned)[common]))
    return float((a * b).mean() / (max(a.std(), STRUCTURE) * max(b.std(), STRUCTURE)))


def overlaps(planes: list[np.ndarray], among: list[int], groups: Sequence) -> dict[tuple[int, int], float]:
    """Pairs of one group whose fine structure agrees after a shift of up to half a side, with the correlation."""
    correlations = {}
    for group in dict.fromkeys(groups):
        members = [number for number in among if groups[number] == group]
        if len(members) > 1:
            best = shifted_correlation(np.array([coarse_detail(planes[number]) for number in members]))
            for a, b in np.argwhere(np.triu(best >= OVERLAP, 1)):
                correlations[members[a], members[b]] = float(best[a, b])
    return correlations


def shifted_correlation(details: np.ndarray) -> np.ndarray:
    """(M, M): for a < b, the best correlation of ``details`` (M, C, C) over all shifts of up to C/2 either way.

    Cross-correlations by FFT, each divided by the deviations of both patches within their common part.
    """
    size = 2 * COARSE
    shifts = np.arange(-(COARSE // 2), COARSE // 2 + 1) % size
    near = (..., shifts[:, None], shifts)
    ones = fft.rfft2(np.ones((COARSE, COARSE), np.float32), (size, size))
    spectra, squares = fft.rfft2(details, (size, size)), fft.rfft2(details**2, (size, size))
    least = STRUCTURE**2 * fft.irfft2(ones * ones.conj(), (size, size))[near]
    as_first = np.sqrt(np.maximum(fft.irfft2(squares * ones.conj(), (size, size))[near], least))
    as_second = np.sqrt(np.maximum(fft.irfft2(ones * squares.conj(), (size, size))[near], least))
    best = np.zeros((len(details), len(details)))
    for a in range(len(details)):
        for b in range(a + 1, len(details)):
            cross = fft.irfft2(spectra[a] * spectra[b].conj(), (size, size))[near]
            best[a, b] = (cross / (as_first[a] * as_second[b])).max()
    return best


def luminance(image: np.ndarray) -> np.ndarray:
    """RGB uint8 (H, W, 3) -> grey uint8 (128, 128)."""
    return cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def detail(plane: np.ndarray) -> np.ndarray:
    """What lies between the pixel noise and the broad shades of a plane: (128, 128) float32."""
    plane = plane.astype(np.float32)
    return cv2.GaussianBlur(plane, (0, 0), 1) - cv2.GaussianBlur(plane, (0, 0), 5)


def coarse_detail(plane: np.ndarray) -> np.ndarray:
    """The same at (64, 64), where a shift of half a pixel still leaves the structure in place."""
    coarse = cv2.resize(plane, (COARSE, COARSE), interpolation=cv2.INTER_AREA).astype(np.float32)
    return cv2.GaussianBlur(coarse, (0, 0), 0.7) - cv2.GaussianBlur(coarse, (0, 0), 2)


def oriented(plane: np.ndarray, turn: int) -> np.ndarray:
    """One of the 8 orientations of a square: ``turn`` % 4 quarter turns, mirrored from 4 on."""
    turned = np.rot90(plane, turn % 4)
    return np.ascontiguousarray(turned[:, ::-1] if turn >= 4 else turned)


def windows() -> list[tuple[int, int, int]]:
    """(row, column, side) of the crops that are asked for: all, and 95 and 90 % at the centre and the corners."""
    crops = [(0, 0, SIDE)]
    for side in (round(0.95 * SIDE), round(0.9 * SIDE)):
        rest = SIDE - side
        crops += [(rest // 2, rest // 2, side)] + [(row, column, side) for row in (0, rest) for column in (0, rest)]
    return crops


def dct_hashes(plane: np.ndarray, probes: list[tuple[int, tuple]]) -> np.ndarray:
    """Of each (orientation, window) 256 bits, (P, 32) uint8: which low-frequency DCT coefficients exceed their median.

    The mean grey level is left out, so that one bit is always 0.
    """
    turned = [oriented(plane, turn) for turn in range(8)]
    found = np.array([low_frequencies(turned[turn], window) for turn, window in probes])
    return np.packbits(found > np.median(found, axis=1, keepdims=True), axis=1)  # which fills up with 0


def low_frequencies(plane: np.ndarray, window: tuple[int, int, int]) -> np.ndarray:
    """DCT coefficients of a window, without its mean: (255,) float32."""
    row, column, side = window
    part = plane[row : row + side, column : column + side].astype(np.float32)
    thumbnail = cv2.resize(part, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return cv2.dct(thumbnail)[:KEPT, :KEPT].ravel()[1:]
