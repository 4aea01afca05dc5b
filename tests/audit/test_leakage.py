"""Planted duplicates are found, distinct patches are left alone, on synthetic tissue and on real slides."""

import cv2
import numpy as np
import pandas as pd
import pytest

from lgffem_core.audit import leakage as audit
from lgffem_core.config.params import Kimia, Synthetic
from lgffem_core.data.loading import read_rgb
from lgffem_core.data.sets.kimia import SET
from lgffem_core.data.synthetic.make import kimia_patch
from lgffem_core.data.table import build_table


@pytest.fixture(scope="module")
def patches():
    """200 distinct patches of 24 synthetic scans, and the scan of each."""
    keys = [(number % 24, ("train", "test")[number // 24 % 2], number // 48) for number in range(200)]
    return [kimia_patch(Synthetic(), *key) for key in keys], [key[0] for key in keys]


def encoded(image, quality):
    stored = cv2.imencode(".jpg", np.ascontiguousarray(image), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(stored, cv2.IMREAD_COLOR)


def cropped(image, share, corner=(0.5, 0.5)):
    """Without ``share`` of each side, cut where ``corner`` says, and brought back to size."""
    size = len(image)
    side = round((1 - share) * size)
    row, column = (round(at * (size - side)) for at in corner)
    return cv2.resize(image[row : row + side, column : column + side], (size, size))


PLANTS = {
    "quality 50": lambda image: encoded(image, 50),
    "mirrored": lambda image: encoded(image[:, ::-1], 90),
    "upside down": lambda image: encoded(image[::-1], 90),
    "quarter turn": lambda image: encoded(np.rot90(image), 80),
    "transposed": lambda image: encoded(image.transpose(1, 0, 2), 80),
    "cropped 2 %": lambda image: encoded(cropped(image, 0.02, (0, 1)), 80),
    "cropped 5 %": lambda image: encoded(cropped(image, 0.05, (1, 0.3)), 60),
    "cropped 10 %": lambda image: encoded(cropped(image, 0.1, (0.6, 0.4)), 80),
    "cropped, not resized": lambda image: encoded(image[4 : -len(image) // 20, 5 : -len(image) // 25], 80),
    "larger": lambda image: cv2.resize(image, (200, 200), interpolation=cv2.INTER_CUBIC),
    "cropped and turned": lambda image: encoded(np.rot90(cropped(image, 0.05, (0.2, 0.9)), 3)[:, ::-1], 60),
}


def found(images, groups=None):
    return {(f, s): kind for f, s, kind, _ in audit.near_duplicates(images, groups).itertuples(index=False)}


def test_distinct_patches_give_no_false_alarm(patches):
    images, groups = patches
    assert found(images, groups) == {}


def test_every_planted_duplicate_is_found_and_nothing_else(patches):
    """Each kind planted four times, all in one search."""
    images = list(patches[0])
    expected = {}
    for number, (name, plant) in enumerate(PLANTS.items()):
        for repeat in range(4):
            source = 11 * repeat + number
            expected[source, len(images)] = name
            images.append(plant(images[source]))
    pairs = found(images)
    missing = [name for pair, name in expected.items() if pair not in pairs]
    assert missing == [] and set(pairs) == set(expected)
    assert set(pairs.values()) == {"perceptual"}


@pytest.mark.parametrize("share", [0, 0.05])
def test_all_eight_orientations_are_found(patches, share):
    for turn in range(8):
        copies = [encoded(audit.oriented(cropped(image, share), turn), 50) for image in patches[0][:8]]
        assert set(found(patches[0][:8] + copies)) == {(number, number + 8) for number in range(8)}, turn


def test_similar_hashes_against_a_loop():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (30, 1, 32), dtype=np.uint8)
    base[20:] = base[:10]
    base[20:, 0, : 32 - 8] ^= rng.integers(0, 256, (10, 24), dtype=np.uint8) & rng.integers(0, 256, (10, 24), np.uint8)
    hashes = np.concatenate([base, rng.integers(0, 256, (30, 87, 32), dtype=np.uint8)], axis=1)
    expected = set()
    for a in range(30):
        for b in range(30):
            least = min(sum(int(x ^ y).bit_count() for x, y in zip(p, hashes[b, 0], strict=True)) for p in hashes[a])
            if a != b and least <= audit.RADIUS:
                expected.add((min(a, b), max(a, b)))
    assert audit.similar_hashes(hashes) == expected and len(expected) >= 10


def test_identical_pixels_are_exact_whatever_the_file(patches, tmp_path):
    for name in ("a.png", "b.bmp"):
        cv2.imwrite(str(tmp_path / name), patches[0][0])
    cv2.imwrite(str(tmp_path / "c.png"), patches[0][1])
    pairs = audit.near_duplicates([tmp_path / name for name in ("a.png", "b.bmp", "c.png")])
    assert pairs.values.tolist() == [[0, 1, "exact", 0.0]] and list(pairs.columns) == audit.COLUMNS


def test_three_copies_are_three_pairs_and_the_distance_grows_with_the_damage(patches):
    image = patches[0][5]
    pairs = audit.near_duplicates([image, image.copy(), encoded(image, 40), patches[0][6]])
    distance = {(f, s): d for f, s, _, d in pairs.itertuples(index=False)}
    assert list(distance) == [(0, 1), (0, 2), (1, 2)]
    assert distance[0, 1] == 0 < distance[0, 2] < 0.3
    assert distance[1, 2] == pytest.approx(distance[0, 2], abs=0.02)


@pytest.mark.parametrize("shift", [(40, 0), (0, -30), (40, 40), (-25, 33)])
def test_overlapping_patches_are_found_within_a_slide_only(shift):
    """Windows of 80 pixels out of a larger patch, shifted by up to half; the others are from the same scan."""
    settings = Synthetic(image_size=160)
    whole = [kimia_patch(settings, 4, "train", index) for index in range(5)]
    row, column = (max(0, -step) for step in shift)
    windows = [image[row : row + 80, column : column + 80] for image in whole]
    windows.append(whole[2][row + shift[0] : row + shift[0] + 80, column + shift[1] : column + shift[1] + 80])
    assert found(windows, [4] * 6) == {(2, 5): "overlap"}
    assert found(windows, [4] * 5 + [7]) == {} == found(windows)


def test_plain_patches_are_named_and_raise_no_alarm():
    """White, grey and noisy background: alike to every hash, and nothing that could be the same tissue."""
    rng = np.random.default_rng(0)
    plain = [np.clip(level + rng.normal(0, 2, (96, 96, 3)), 0, 255).astype(np.uint8) for level in range(180, 256, 5)]
    pairs = audit.near_duplicates([encoded(image, 70) for image in plain] + [np.full((96, 96, 3), 255, np.uint8)] * 2)
    assert pairs.values.tolist() == [[16, 17, "exact", 0.0]]
    assert pairs.attrs["plain"] == list(range(18))


def test_a_shade_in_common_does_not_make_two_patches_the_same(patches):
    """Tissue that fades into glass on the right: the patches resemble each other, the tissue does not agree."""
    share = 1 / (1 + np.exp((np.arange(96) - 48) / 6))[:, None]
    faded = [np.rint(0.7 * share * image + (1 - share) * 245).astype(np.uint8) for image in patches[0][:30]]
    planes = [audit.luminance(image) for image in faded]
    alike = [np.corrcoef(planes[0].ravel(), plane.ravel())[0, 1] for plane in planes[1:]]
    assert np.median(alike) > 0.7
    assert max(audit.register(planes[0], plane, (0, 0, 128)) for plane in planes[1:]) < audit.COPY
    assert found(faded) == {}


def test_two_empty_tables():
    pairs = audit.near_duplicates([])
    assert pairs.empty and list(pairs.columns) == audit.COLUMNS
    test = np.array([True, False])
    assert audit.leakage(pairs, test).to_numpy().sum() == 0 and audit.clean(pairs, test).all()


PAIRS = pd.DataFrame(
    [(0, 1, "exact", 0.0), (1, 3, "perceptual", 0.2), (3, 4, "exact", 0.0), (4, 5, "overlap", 0.1)],
    columns=audit.COLUMNS,
)
TEST = np.array([False, False, False, True, True, True, True])


def test_leakage_is_counted_by_kind_and_place():
    table = audit.leakage(PAIRS, TEST)
    assert table.loc["exact"].to_dict() == {"train": 1, "across": 0, "test": 1}
    assert table.loc["perceptual"].to_dict() == {"train": 0, "across": 1, "test": 0}
    assert table.loc["overlap"].to_dict() == {"train": 0, "across": 0, "test": 1}


def test_clean_keeps_training_patches_and_one_of_a_pair_of_test_patches():
    assert audit.clean(PAIRS, TEST).tolist() == [True, True, True, False, False, False, True]


def test_orientations_are_the_eight_of_a_square():
    plane = np.arange(9).reshape(3, 3)
    seen = {audit.oriented(plane, turn).tobytes() for turn in range(8)}
    expected = [plane, plane[::-1], plane[:, ::-1], plane[::-1, ::-1], plane.T, plane.T[::-1], plane.T[:, ::-1]]
    assert len(seen) == 8 and all(np.ascontiguousarray(turned).tobytes() in seen for turned in expected)


def test_shifted_correlation_against_a_loop():
    rng = np.random.default_rng(0)
    field = cv2.GaussianBlur(rng.normal(0, 60, (100, 100)).astype(np.float32), (0, 0), 1.5)
    a, b = field[10:74, 20:84], field[30:94, 5:69]
    best = 0
    for dy in range(-32, 33):
        for dx in range(-32, 33):
            rows, columns = slice(max(0, dy), 64 + min(0, dy)), slice(max(0, dx), 64 + min(0, dx))
            there = slice(max(0, -dy), 64 + min(0, -dy)), slice(max(0, -dx), 64 + min(0, -dx))
            part, other = a[rows, columns].astype(float), b[there].astype(float)
            best = max(best, (part * other).sum() / np.sqrt((part**2).sum() * (other**2).sum()))
    assert best == pytest.approx(1, abs=1e-6)  # the true shift, (20, −15)
    assert audit.shifted_correlation(np.stack([a, b]))[0, 1] == pytest.approx(best, abs=1e-3)


def test_real_slides_hold_no_duplicates_and_planted_ones_are_found(shared):
    """404 training and 175 test patches; the copies are test patches of training patches."""
    root = shared / "histology" / "kimia"
    table = build_table(root, *SET.layout(root, Kimia())).iloc[::3].reset_index(drop=True)
    images = [read_rgb(root / path) for path in table["path"]]
    groups = table["group"].tolist()
    sources = range(0, 120, 4)
    kinds = list(PLANTS.values())
    copies = [kinds[number % len(kinds)](images[source]) for number, source in enumerate(sources)]
    pairs = found(images + copies, groups + [groups[source] for source in sources])
    expected = {(source, len(images) + number) for number, source in enumerate(sources)}
    assert set(pairs) == expected and set(pairs.values()) <= {"perceptual", "overlap"}
