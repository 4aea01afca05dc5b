"""The three retrieval protocols, never mixed without their name (notebook 07).

Each takes embeddings and gives an ``Outcome``: how many of a scan's patches count as correct. All search by
squared Euclidean distance and break ties by (distance, id), where an id is a row number.
"""

from typing import NamedTuple

import numpy as np

from lgffem_core.retrieval.index import search
from lgffem_core.retrieval.metrics import Scores, count_by_scan, eta_scores
from lgffem_core.retrieval.ranking import nearest_across, rank_others


class Outcome(NamedTuple):
    """What a protocol counted. ``hits`` is (N,) bool over the queries where each patch is a query of its own."""

    correct: np.ndarray  # (S,) correct patches by scan
    counts: np.ndarray  # (S,) patches by scan
    hits: np.ndarray | None

    @property
    def scores(self) -> Scores:
        return eta_scores(self.correct, self.counts)


def from_hits(hits: np.ndarray, labels: np.ndarray) -> Outcome:
    """Outcome of a protocol that asks one question a patch."""
    return Outcome(count_by_scan(hits, labels), count_by_scan(np.ones_like(labels), labels), hits)


def test_to_train(test: np.ndarray, test_labels: np.ndarray, train: np.ndarray, train_labels: np.ndarray) -> Outcome:
    """Each test patch retrieves one training patch; correct if it is of the same scan.

    Shapes: test (N, D), train (M, D), labels (N,) and (M,).
    """
    _, ids = search(train, test, 1)
    return from_hits(train_labels[ids[:, 0]] == test_labels, test_labels)


def leave_one_out(test: np.ndarray, labels: np.ndarray) -> Outcome:
    """Each test patch retrieves one of the other test patches; correct if it is of the same scan.

    The query is excluded by its id: with duplicates the first hit need not be the query itself. A scan with
    a single patch cannot be right.
    """
    return from_hits(rank_others(test, labels, 1).matches(1)[:, 0], labels)


def leave_one_group_out(embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Outcome:
    """Each patch retrieves one patch of another group (slide, patient, fold); correct if it has the same label.

    What two patches of a group share, such as their stain, can then not help. Not one of the paper's protocols.

    Args:
        embeddings: (N, D); labels: (N,); groups: (N,), at least two different ones. A patch without a patch of
            its label in another group cannot be right; ``answerable`` says which those are.
    """
    return from_hits(labels[nearest_across(embeddings, groups, 1)[:, 0]] == labels, labels)


def answerable(labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(N,) bool: whether another group holds a patch of the same label."""
    groups_of = {label: np.unique(groups[labels == label]) for label in np.unique(labels)}
    return np.array([len(groups_of[label]) > 1 for label in labels])


def released(test: np.ndarray, labels: np.ndarray) -> Outcome:
    """What the authors' notebook computes, and what Table 1 prints (ledger 1, ``report.printed``). It is no Recall@1.

    Patches must lie in scan order. A scan is asked once, with its first patch; of the first C_s neighbours,
    itself included, where C_s counts the patches of all scans up to and including s, those of scan s are
    correct. The last scan is therefore always at 100 %, and random embeddings score about η_p 53.

    Raises ``ValueError`` where the labels are not in ascending order.
    """
    if (np.diff(labels) < 0).any():
        raise ValueError("the protocol 'released' needs its patches ordered by scan")
    scans, first, counts = np.unique(labels, return_index=True, return_counts=True)
    _, ids = search(test, test[first], len(test))
    depth = counts.cumsum()
    correct = [(labels[ids[s, : depth[s]]] == scan).sum() for s, scan in enumerate(scans)]
    return Outcome(np.array(correct), counts, None)


test_to_train.__test__ = False  # the protocol's name, not a test, to pytest
AMONG_TEST = {"leave_one_out": leave_one_out, "released": released}  # the protocols of test patches alone


def evaluate(protocol: str, embeddings: np.ndarray, labels: np.ndarray, test: np.ndarray) -> Outcome:
    """Run a protocol by name on the embeddings of Kimia's train and test patches.

    Args:
        protocol: "test_to_train", "leave_one_out" or "released".
        embeddings: (N, D); labels: (N,); test: (N,) bool, True for test patches.
    """
    if protocol == "test_to_train":
        return test_to_train(embeddings[test], labels[test], embeddings[~test], labels[~test])
    return AMONG_TEST[protocol](embeddings[test], labels[test])
