"""The paper's measures (section 4.1.1): η_p, η_w and η_tot = η_p·η_w, in percent."""

from typing import NamedTuple

import numpy as np

STANDARD = "leave_one_out"  # the protocol that any two methods can be compared under


class Scores(NamedTuple):
    """In percent."""

    eta_p: float  # patch-to-scan accuracy: correct patches / all patches
    eta_w: float  # whole-scan accuracy: mean over scans of correct in the scan / patches of the scan
    eta_tot: float  # their product


def eta_scores(correct: np.ndarray, counts: np.ndarray) -> Scores:
    """Scores from per-scan counts.

    Args:
        correct: (S,) correct patches of each scan.
        counts: (S,) test patches of each scan, each at least 1. η_w divides by these true counts (recall);
            dividing by predicted counts would be precision.
    """
    correct, counts = np.asarray(correct, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    eta_p, eta_w = correct.sum() / counts.sum(), (correct / counts).mean()
    return Scores(100 * eta_p, 100 * eta_w, 100 * eta_p * eta_w)


def count_by_scan(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Sum of ``values`` (N,) within each scan, scans in ascending label: (S,)."""
    return np.array([values[labels == scan].sum() for scan in np.unique(labels)])


def separation(embeddings: np.ndarray, labels: np.ndarray) -> float:
    """Mean cosine similarity of pairs within a class minus that of pairs across classes.

    Args:
        embeddings: (N, D); labels: (N,), with at least one pair of either kind.
    """
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    similarity, same = unit @ unit.T, labels[:, None] == labels[None, :]
    pairs = ~np.eye(len(labels), dtype=bool)
    return float(similarity[same & pairs].mean() - similarity[~same].mean())
