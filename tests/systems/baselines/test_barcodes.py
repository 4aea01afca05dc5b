"""Barcodes against a loop over features, and Hamming search against FAISS's binary index and a loop, with ties."""

import faiss
import numpy as np
import pytest

from lgffem_core.retrieval.protocols import evaluate
from lgffem_core.systems.baselines.barcodes import barcode, hamming_search


def bits(seed, rows, length):
    return np.random.default_rng(seed).integers(0, 2, size=(rows, length)).astype(np.uint8)


def loop(gallery, queries, k):
    """Neighbours by (number of bits that differ, id), pair by pair."""
    distances, ids = [], []
    for query in queries:
        ordered = sorted((sum(a != b for a, b in zip(row, query, strict=True)), i) for i, row in enumerate(gallery))
        distances.append([d for d, _ in ordered[:k]])
        ids.append([i for _, i in ordered[:k]])
    return np.array(distances), np.array(ids)


def test_a_bit_is_set_where_the_next_feature_is_greater():
    features = np.random.default_rng(0).standard_normal((5, 40)).astype(np.float32)
    features[1, 3] = features[1, 4]  # equal features: no rise, no bit
    expected = [[1 if b > a else 0 for a, b in zip(row[:-1], row[1:], strict=True)] for row in features]
    ours = barcode(features)
    assert ours.shape == (5, 39) and ours.dtype == np.float32
    np.testing.assert_array_equal(ours, expected)
    assert ours[1, 3] == 0


def test_scale_and_shift_leave_a_barcode_as_it_is():
    features = np.random.default_rng(1).standard_normal((5, 40))
    np.testing.assert_array_equal(barcode(7 * features + 3), barcode(features))
    np.testing.assert_array_equal(barcode(-features), 1 - barcode(features))


@pytest.mark.parametrize("length", [8, 64, 1024])
def test_distances_are_those_of_faiss_for_bits(length):
    gallery, queries = bits(0, 90, length), bits(1, 20, length)
    index = faiss.IndexBinaryFlat(length)
    index.add(np.packbits(gallery, axis=1))
    theirs, _ = index.search(np.packbits(queries, axis=1), 12)
    distances, ids = hamming_search(gallery, queries, 12)
    np.testing.assert_array_equal(distances, theirs)
    np.testing.assert_array_equal((gallery[ids] != queries[:, None]).sum(axis=2), distances)
    assert distances.dtype == ids.dtype == np.int64


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 3, 60])
def test_ties_are_broken_by_id(seed, k):
    """Six bits for sixty rows: most distances are equal, and most rows occur twice."""
    gallery, queries = bits(seed, 60, 6), bits(seed + 100, 15, 6)
    for ours, theirs in zip(hamming_search(gallery, queries, k), loop(gallery, queries, k), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_protocols_rank_barcodes_by_hamming_distance():
    codes, labels = bits(3, 60, 12), np.tile(np.repeat(np.arange(6), 5), 2)
    test = np.arange(60) < 30
    _, ids = loop(codes[~test], codes[test], 1)
    expected = (labels[~test][ids[:, 0]] == labels[test]).sum()
    assert evaluate("test_to_train", codes.astype(np.float32), labels, test).correct.sum() == expected > 0
