"""The five terms of FGCR's loss, each a function of its own; ``tests/systems/fgcr`` holds each against a loop.

Similarities are inner products divided by the vectors' length and a temperature. All terms are means over the slides
of a batch or over their anchors and words; none depends on how far a batch is padded.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from lgffem_core.config.systems import Fgcr, FgcrToggles
from lgffem_core.systems.fgcr.batches import Batch
from lgffem_core.systems.fgcr.model import Output

FINE = ("anchor_prompt", "cross")  # the terms that know regions


def report_alignment(slides: Tensor, reports: Tensor, temperature: float) -> Tensor:
    """Whole slide and whole report, (B, d) each: cross-entropy of S = I·Tᵀ/(d·temperature), over rows and columns."""
    scores = slides @ reports.T / (slides.shape[1] * temperature)
    own = torch.arange(len(scores), device=scores.device)
    return F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)


def anchor_scores(anchors: Tensor, prompts: Tensor, temperature: float) -> Tensor:
    """S = A·Pᵀ/(d·temperature): how much each anchor (B, A, d) looks like each finding (P, d). (B, A, P)"""
    return anchors @ prompts.T / (anchors.shape[2] * temperature)


def prompt_probability(scores: Tensor, valid: Tensor) -> Tensor:
    """Σ over a slide's anchors of softmax(S)·σ(S), the softmax over the anchors: near σ of the best one. (B, P)"""
    shares = scores.masked_fill(~valid[..., None], float("-inf")).softmax(dim=1)
    return (shares * scores.sigmoid()).sum(dim=1).clamp(max=1)  # the shares' sum may round to more than 1


def anchor_prompt_alignment(
    anchors: Tensor, valid: Tensor, prompts: Tensor, targets: Tensor, temperature: float
) -> Tensor:
    """Binary cross-entropy of the probability that some anchor shows a finding, with the slide's findings (B, P)."""
    found = prompt_probability(anchor_scores(anchors, prompts, temperature), valid)
    return F.binary_cross_entropy(found, targets)


def contrast(vectors: Tensor, attended: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """Each vector with what it attends to, against the others of its slide: cross-entropy over rows and over columns.

    Args:
        vectors, attended: (B, n, d), anchors or words, and what each of them found in the other modality.
        valid: (B, n) bool; padding is neither scored nor compared with. Without any valid one the term is 0.
    """
    scores = vectors @ attended.mT / (vectors.shape[2] * temperature)  # (B, n, n)
    own = torch.arange(scores.shape[1], device=scores.device).expand(len(scores), -1)[valid]
    total = scores.new_zeros(())
    for one_way in (scores, scores.mT):
        rows = one_way.masked_fill(~valid[:, None, :], float("-inf"))[valid]
        total = total + F.cross_entropy(rows, own, reduction="sum")
    return total / valid.sum().clamp(min=1)


def cross_alignment(output: Output, batch: Batch, temperature: float) -> Tensor:
    """``contrast`` of anchors with the words they attend to, and of words with anchors; empty reports have no part."""
    with_words = batch.words.any(dim=1, keepdim=True)
    anchors = contrast(output.anchors, output.words_of_anchors, batch.anchors & with_words, temperature)
    return anchors + contrast(output.words, output.anchors_of_words, batch.words, temperature)


def prompt_classification(slides: Tensor, reports: Tensor, targets: Tensor, probability: str) -> Tensor:
    """Binary cross-entropy of the findings (B, P), told from slide and from report by logits (B, P).

    ``probability``: each finding's own "sigmoid"; or a "softmax" over all, where several that hold compete for 1.
    """
    to_probability = torch.sigmoid if probability == "sigmoid" else lambda logits: logits.softmax(dim=1)
    return sum(F.binary_cross_entropy(to_probability(logits), targets) for logits in (slides, reports))


def masked_words(scores: Tensor, tokens: Tensor, scored: Tensor, word_scores: str) -> Tensor:
    """Cross-entropy of the words (B, T) where ``scored``, from scores (B, T, V), or from their "sigmoid".

    Between 0 and 1, scores can hardly tell words apart: of V words, the right one gets at most e/(e + V − 1).
    """
    if not scored.any():
        return scores.sum() * 0
    logits = scores.sigmoid() if word_scores == "sigmoid" else scores
    return F.cross_entropy(logits[scored], tokens[scored])


def terms(output: Output, batch: Batch, hide: Tensor, settings: Fgcr, toggles: FgcrToggles) -> dict[str, Tensor]:
    """Every term that is on, by name, before its weight."""
    loss = settings.loss
    by_class = toggles.aligned == "class_token"
    pair = (output.slide, output.report) if by_class else (output.slide_prompts, output.report_prompts)
    scored = batch.words & hide if toggles.scored_words == "hidden" else batch.words
    compute: dict[str, Callable[[], Tensor]] = {
        "report": lambda: report_alignment(*pair, loss.report.temperature),
        "anchor_prompt": lambda: anchor_prompt_alignment(
            output.anchors, batch.anchors, output.prompts, batch.prompts, loss.anchor_prompt.temperature
        ),
        "cross": lambda: cross_alignment(output, batch, loss.cross.temperature),
        "prompt": lambda: prompt_classification(
            output.slide_prompts, output.report_prompts, batch.prompts, toggles.prompt_probability
        ),
        "masked": lambda: masked_words(output.hidden, batch.tokens, scored, toggles.word_scores),
    }
    return {name: term() for name, term in compute.items() if getattr(loss, name).used}


def weighted(found: dict[str, Tensor], settings: Fgcr) -> Tensor:
    """The loss: the sum of the terms, each times its weight."""
    return sum(getattr(settings.loss, name).weight * value for name, value in found.items())
