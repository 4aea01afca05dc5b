"""Slides in record form with reports from a grammar: what is seen, and where it lies, without a single image.

A disease is a growth pattern and an arrangement: lymphocytes lie among the tumour's patches, or in a heap apart from
it. Both arrangements have the same share of every tissue, so the mean of a slide's features cannot tell them apart,
and neither can a list of what is there. Findings that have nothing to do with the disease come and go. Each slide's
features are shifted as a whole, as by another stain, so that the means differ for no reason as well.

*Where* is said relative to the tumour. Left and right would be words that nobody could learn: FGCR sees distances
between patches and no directions. A report says the same in different words and names findings that are absent, so
that a bag of its words is not its meaning.

Each slide is a function of (seed, number) alone.
"""

import numpy as np

from lgffem_core.config.params import Synthetic
from lgffem_core.data.records import Record, anchors
from lgffem_core.data.synthetic.make import generator

PATTERNS = ("tubular", "papillary", "mucinous")
ARRANGEMENTS = ("infiltrated", "apart")  # lymphocytes among the tumour's patches, or away from them
LYMPHOCYTES = "lymphocytes"
OTHERS = ("necrosis", "fat", "vessels", "fibrosis")  # each there or not, whatever the disease
TISSUES = (*PATTERNS, LYMPHOCYTES, *OTHERS)  # what a patch can show, beside stroma
LABELS = tuple(f"{pattern}, {arrangement}" for pattern in PATTERNS for arrangement in ARRANGEMENTS)

LEVELS = (2, 6, 16, 50)  # patches an anchor: those of real slides would cover slides this small whole
TUMOUR, HEAP, REGION = 0.3, 0.15, 0.09  # shares of a slide's patches: tumour, lymphocytes, each other finding
SIGNAL, SHIFT = 1.0, 0.6  # standard deviation of tissues' means and of slides' shifts, in that of a patch's noise
PRESENT, SAID_ABSENT = 0.5, 0.6  # how often another finding is there; how often its absence is reported

#: Each finding in words, of which one is drawn. Of the disease there are more: two reports of one are seldom alike.
SENTENCES = {
    "tubular": ("tubular carcinoma", "gland-forming carcinoma", "carcinoma in tubules", "tumour of malignant glands"),
    "papillary": (
        "papillary carcinoma",
        "frond-forming carcinoma",
        "carcinoma in papillae",
        "tumour of malignant fronds",
    ),
    "mucinous": (
        "mucinous carcinoma",
        "mucin-forming carcinoma",
        "carcinoma in mucin",
        "tumour of malignant signet cells",
    ),
    "infiltrated": (
        "lymphocytes among the tumour cells",
        "tumour permeated by lymphocytes",
        "dense lymphocytes within the carcinoma",
        "inflamed carcinoma",
    ),
    "apart": (
        "lymphocytes away from the tumour",
        "tumour clear of lymphocytes",
        "dense lymphocytes outside the carcinoma",
        "follicles beside the carcinoma",
    ),
    "necrosis": ("necrosis", "dead tissue"),
    "fat": ("fat", "adipose tissue"),
    "vessels": ("vessels", "vascular tissue"),
    "fibrosis": ("fibrosis", "scarred tissue"),
}


def slide(settings: Synthetic, number: int) -> Record:
    """The record of one slide; diseases take turns, each slide is a patient's only one."""
    rng, label = generator(settings, "reports", number), LABELS[number % len(LABELS)]
    pattern, arrangement = label.split(", ")
    others = [finding for finding in OTHERS if rng.random() < PRESENT]
    positions = tissue(rng, settings.reports_patches)
    shown = regions(rng, positions, pattern, arrangement, others)
    prompts = (pattern, arrangement, *others, LYMPHOCYTES)
    return Record(
        slide=f"slide{number:03d}",
        features=features(rng, tissue_means(settings), shown),
        positions=positions,
        anchors=anchors(positions, LEVELS),
        levels=LEVELS,
        report=report(rng, pattern, arrangement, others),
        prompts=prompts,
        label=label,
        group=f"patient{number:03d}",
        mpp=0.5,
        patch_pixels=224,
        findings=np.array([prompts.index(TISSUES[i]) if i >= 0 else -1 for i in shown]),
        encoder="synthetic: drawn around a mean for each tissue",
    )


def tissue(rng: np.random.Generator, patches: int) -> np.ndarray:
    """The places of an ellipse of tissue with 60 to 140 % of ``patches``: (N, 2) float32, rows and columns."""
    area, stretch = patches * rng.uniform(0.6, 1.4), rng.uniform(0.7, 1.4)
    half = np.sqrt(area / np.pi) * np.array([stretch, 1 / stretch])
    rows, columns = (np.arange(-np.ceil(h), np.ceil(h) + 1) for h in half)
    grid = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    inside = grid[((grid / half) ** 2).sum(axis=1) <= 1]
    return (inside - inside.min(axis=0)).astype(np.float32)


def regions(rng, positions: np.ndarray, pattern: str, arrangement: str, others: list[str]) -> np.ndarray:
    """What each patch shows: (N,) its row of ``TISSUES``, −1 for stroma; as many of each in either arrangement."""
    size, shown = len(positions), np.full(len(positions), -1)
    tumour, heap, region = (max(2, round(share * size)) for share in (TUMOUR, HEAP, REGION))
    mixed = arrangement == ARRANGEMENTS[0]
    centre = positions[rng.integers(size)]
    nearest = np.argsort(np.linalg.norm(positions - centre, axis=1), kind="stable")
    inside = nearest[: tumour + heap if mixed else tumour]
    shown[inside] = TISSUES.index(pattern)
    lymphocytes = rng.choice(inside, heap, replace=False) if mixed else cluster(positions, nearest[-1], shown, heap)
    shown[lymphocytes] = TISSUES.index(LYMPHOCYTES)
    for finding in others:
        free = np.flatnonzero(shown == -1)
        shown[cluster(positions, rng.choice(free), shown, region)] = TISSUES.index(finding)
    return shown


def cluster(positions: np.ndarray, seed: int, shown: np.ndarray, size: int) -> np.ndarray:
    """The ``size`` patches of stroma nearest to patch ``seed``."""
    free = np.flatnonzero(shown == -1)
    return free[np.argsort(np.linalg.norm(positions[free] - positions[seed], axis=1), kind="stable")[:size]]


def tissue_means(settings: Synthetic) -> np.ndarray:
    """The mean feature of each of ``TISSUES``, and of stroma last: (tissues + 1, D)."""
    rng = generator(settings, "reports", "tissues")
    return SIGNAL * rng.standard_normal((len(TISSUES) + 1, settings.reports_features))


def features(rng: np.random.Generator, means: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """A patch is its tissue's mean, its slide's shift and noise of its own: (N, D) float16."""
    noise, shift = rng.standard_normal((len(shown), means.shape[1])), SHIFT * rng.standard_normal(means.shape[1])
    return (means[shown] + shift + noise).astype(np.float16)


def report(rng: np.random.Generator, pattern: str, arrangement: str, others: list[str]) -> str:
    """The disease, where lymphocytes lie, then in any order what else is there and some of what is not."""
    absent = [finding for finding in OTHERS if finding not in others and rng.random() < SAID_ABSENT]
    first, second = (str(rng.choice(SENTENCES[finding])) for finding in (pattern, arrangement))
    rest = [*(str(rng.choice(SENTENCES[finding])) for finding in others)]
    rest += [f"no {rng.choice(SENTENCES[finding])}" for finding in absent]
    said = [first, second, *(rest[i] for i in rng.permutation(len(rest)))]
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in said)
