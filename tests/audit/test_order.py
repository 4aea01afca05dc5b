"""`released` under other orders of the files: against the protocol itself, run on files in that order."""

import itertools

import numpy as np
import pytest

from lgffem_core.audit.order import as_filed, correct_counts, drawn_first, extremes, order_scores, rotations
from lgffem_core.retrieval.protocols import released

COUNTS = [3, 5, 2, 4]
LABELS = np.repeat(np.arange(4), COUNTS)


def embeddings(tied):
    rng = np.random.default_rng(3)
    if tied:  # integers in one dimension: nearly every distance occurs many times
        return rng.integers(0, 4, size=(len(LABELS), 1)).astype(np.float32)
    return (rng.standard_normal((len(LABELS), 6)) + np.eye(4, 6)[LABELS]).astype(np.float32)


def filed_anew(values, order, first):
    """The protocol itself on files renamed: scans in ``order``, the chosen patch of each before its others."""
    rows, names = [], []
    for name, scan in enumerate(order):
        own = [row for row in range(len(LABELS)) if LABELS[row] == scan]
        rows += [first[scan]] + [row for row in own if row != first[scan]]
        names += [name] * len(own)
    return released(values[rows], np.array(names)).scores.eta_p


@pytest.mark.parametrize("tied", [False, True])
def test_any_order_of_scans_gives_what_the_protocol_gives_on_files_in_that_order(tied):
    values, orders = embeddings(tied), np.array(list(itertools.permutations(range(4))))
    found = order_scores(correct_counts(values, LABELS, orders), as_filed(LABELS))
    wanted = [filed_anew(values, order, as_filed(LABELS)[0]) for order in orders]
    assert found.shape == (24, 1)
    np.testing.assert_allclose(found[:, 0], wanted)
    assert len(np.unique(found.round(6))) > 3


def test_any_first_patch_gives_what_the_protocol_gives_with_that_file_first():
    values, first = embeddings(tied=False), drawn_first(LABELS, 30)
    found = order_scores(correct_counts(values, LABELS, rotations(4)), first)
    assert found.shape == (4, 30)
    for r, order in enumerate(rotations(4)):
        np.testing.assert_allclose(found[r], [filed_anew(values, order, chosen) for chosen in first])


def test_extremes_are_those_of_all_choices():
    correct = correct_counts(embeddings(tied=False), LABELS, rotations(4))
    patches = [np.flatnonzero(LABELS == scan) for scan in range(4)]
    every = order_scores(correct, np.array(list(itertools.product(*patches))))
    assert extremes(correct, LABELS) == pytest.approx((every.min(), every.max()))
    assert every.min() < every.max()


def test_rotations_begin_with_the_order_as_filed():
    assert rotations(3).tolist() == [[0, 1, 2], [1, 2, 0], [2, 0, 1]]
    assert as_filed(LABELS).tolist() == [[0, 3, 8, 10]]


def test_drawn_first_patches_are_of_their_scans_and_each_can_be_drawn():
    first = drawn_first(LABELS, 500)
    assert (LABELS[first] == np.arange(4)).all()
    assert set(first.ravel()) == set(range(len(LABELS)))
    assert (drawn_first(LABELS, 500) == first).all() and (drawn_first(LABELS, 500, seed=1) != first).any()
