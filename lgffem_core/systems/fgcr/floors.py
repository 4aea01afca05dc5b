"""What is known without any network: a slide by the mean of its features, a report by its words."""

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import RidgeCV

from lgffem_core.systems.fgcr.archive import Archive
from lgffem_core.systems.fgcr.batches import mask_exponent
from lgffem_core.systems.fgcr.scoring import TASKS, Pair
from lgffem_core.systems.fgcr.tokenizer import words

PENALTIES = np.logspace(-1, 4, 11)  # of the ridge regressions, chosen on the training slides, each left out once


def means(archive: Archive, split: str) -> np.ndarray:
    """The mean feature of each slide: (N, D)."""
    return np.stack([record.features.astype(np.float64).mean(axis=0) for record in archive.of(split)])


def standardised(vectors: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Vectors (N, D) in units of the spread of the training slides' means ``train``, around their mean."""
    return (vectors - train.mean(axis=0)) / spread(train)


def spread(train: np.ndarray) -> np.ndarray:
    """Standard deviation of each number over the training slides, 1 where it never changes: (D,)."""
    deviation = train.std(axis=0)
    return np.where(deviation > 0, deviation, 1.0)


def bags(archive: Archive, split: str) -> np.ndarray:
    """The words of each report, weighted by how rare they are among the training reports (tf-idf), length 1: (N, V)."""
    weights = TfidfVectorizer(tokenizer=words, token_pattern=None, lowercase=False)
    weights.fit([record.report for record in archive.of("train")])
    return weights.transform([record.report for record in archive.of(split)]).toarray()


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros stays one."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def floor_vectors(archive: Archive) -> dict[str, Pair]:
    """Task -> vectors of test slides and reports: means, bags, and between them bags that a ridge tells."""
    train = means(archive, "train")
    known, asked = (standardised(each, train) for each in (train, means(archive, "test")))
    words_of, ridge = bags(archive, "test"), RidgeCV(PENALTIES).fit(known, bags(archive, "train"))
    center = ridge.predict(known).mean(axis=0)
    told = unit(ridge.predict(asked) - center)
    within, between = (unit(asked), words_of), (told, unit(words_of - center))
    return {task: within if asks == searched else between for task, (asks, searched) in TASKS.items()}


def anchor_floor(archive: Archive) -> list[np.ndarray]:
    """How much each anchor's surroundings look like each prompt, of each test slide: (A, P).

    The ridge is learned from whole slides, mean feature -> prompts, and asked about the mean around an anchor.
    """
    targets = np.stack([item.prompts.numpy() for item in archive.items("train")])
    train = means(archive, "train")
    ridge = RidgeCV(PENALTIES).fit(standardised(train, train), targets)
    found = []
    for record in archive.of("test"):
        shares = np.exp(mask_exponent(record))
        around = shares @ record.features.astype(np.float64) / shares.sum(axis=1, keepdims=True)
        found.append(ridge.predict(standardised(around, train)))
    return found
