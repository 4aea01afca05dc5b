"""Each term of the loss against a loop written from its definition, in both readings."""

import math

import pytest
import torch

from lgffem_core.config.systems import FgcrLoss
from lgffem_core.systems.fgcr.batches import collate
from lgffem_core.systems.fgcr.losses import (
    anchor_prompt_alignment,
    contrast,
    cross_alignment,
    masked_words,
    prompt_classification,
    prompt_probability,
    report_alignment,
    terms,
    weighted,
)
from lgffem_core.systems.fgcr.readings import READINGS

CLOSE = dict(abs=1e-6, rel=1e-6)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dot(a, b):
    return sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))


def cross_entropy(scores, target):
    """−log of the softmax of a list of numbers at one place."""
    top = max(scores)
    return top + math.log(sum(math.exp(s - top) for s in scores)) - scores[target]


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def bce(p, t):
    return -math.log(p) if t else -math.log(1 - p)


def looped_report(slides, reports, temperature):
    size, d = slides.shape
    scores = [[dot(i, t) / (d * temperature) for t in reports] for i in slides]
    columns = [[row[j] for row in scores] for j in range(size)]
    return sum(cross_entropy(s[i], i) for s in (scores, columns) for i in range(size)) / size


def looped_anchor_prompt(anchors, valid, prompts, targets, temperature):
    losses = []
    for slide, real, target in zip(anchors, valid, targets, strict=True):
        for prompt, holds in zip(prompts, target.tolist(), strict=True):
            scores = [dot(a, prompt) / (len(prompt) * temperature) for a, r in zip(slide, real, strict=True) if r]
            total = sum(math.exp(s) for s in scores)
            losses.append(bce(sum(math.exp(s) / total * sigmoid(s) for s in scores), holds))
    return sum(losses) / len(losses)


def looped_contrast(vectors, attended, valid, temperature):
    losses = 0.0
    for own, other, real in zip(vectors, attended, valid, strict=True):
        places = [i for i, r in enumerate(real.tolist()) if r]
        scores = [[dot(own[i], other[j]) / (own.shape[1] * temperature) for j in places] for i in places]
        for i in range(len(places)):
            losses += cross_entropy(scores[i], i) + cross_entropy([row[i] for row in scores], i)
    return losses / max(1, int(valid.sum()))


def looped_prompts(slides, reports, targets, probability):
    total = 0.0
    for logits in (slides, reports):
        for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
            whole = sum(math.exp(x) for x in row)
            for x, t in zip(row, target, strict=True):
                p = sigmoid(x) if probability == "sigmoid" else math.exp(x) / whole
                total += bce(p, t) / logits.numel()
    return total


def looped_words(scores, tokens, scored, word_scores):
    losses = []
    for b in range(len(tokens)):
        for t in range(tokens.shape[1]):
            if scored[b, t]:
                row = [sigmoid(x) if word_scores == "sigmoid" else x for x in scores[b, t].tolist()]
                losses.append(cross_entropy(row, int(tokens[b, t])))
    return sum(losses) / len(losses) if losses else 0.0


VALID = torch.tensor([[True, True, True, False], [True, False, False, False], [True, True, True, True]])
TARGETS = torch.tensor([[1.0, 0, 1, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.float64)


@pytest.mark.parametrize("temperature", [1.0, 0.1, 10.0])
def test_terms_with_a_temperature_are_their_loops(temperature):
    slides, reports = draw(3, 7), draw(3, 7, seed=1)
    found = report_alignment(slides, reports, temperature)
    assert found.item() == pytest.approx(looped_report(slides, reports, temperature), **CLOSE)
    anchors, prompts = 3 * draw(3, 4, 7), draw(5, 7, seed=1)
    found = anchor_prompt_alignment(anchors, VALID, prompts, TARGETS, temperature)
    assert found.item() == pytest.approx(looped_anchor_prompt(anchors, VALID, prompts, TARGETS, temperature), **CLOSE)
    attended = draw(3, 4, 7, seed=2)
    found = contrast(anchors, attended, VALID, temperature)
    assert found.item() == pytest.approx(looped_contrast(anchors, attended, VALID, temperature), **CLOSE)


@pytest.mark.parametrize("probability", ["sigmoid", "softmax"])
def test_prompt_classification_is_its_loop(probability):
    slides, reports = draw(3, 5), draw(3, 5, seed=1)
    found = prompt_classification(slides, reports, TARGETS, probability)
    assert found.item() == pytest.approx(looped_prompts(slides, reports, TARGETS, probability), **CLOSE)


@pytest.mark.parametrize("word_scores", ["plain", "sigmoid"])
def test_masked_words_are_their_loop_and_without_any_0(word_scores):
    scores, tokens = (
        draw(3, 4, 9).requires_grad_(),
        torch.randint(9, (3, 4), generator=torch.Generator().manual_seed(0)),
    )
    found = masked_words(scores, tokens, VALID, word_scores)
    assert found.item() == pytest.approx(looped_words(scores.detach(), tokens, VALID, word_scores), **CLOSE)
    none = masked_words(scores, tokens, torch.zeros_like(VALID), word_scores)
    none.backward()
    assert none.item() == 0 and not scores.grad.any()


def test_the_probability_of_a_finding_is_that_of_its_anchor_and_never_more_than_1():
    scores = torch.tensor([[[50.0], [-50.0], [0.0]]])
    assert prompt_probability(scores, torch.tensor([[True, True, True]])).item() == pytest.approx(1)
    assert prompt_probability(scores, torch.tensor([[False, True, True]])).item() == pytest.approx(0.5)
    many = prompt_probability(torch.full((1, 997, 1), 80.0), torch.ones(1, 997, dtype=torch.bool))
    assert many.item() <= 1


def test_every_term_of_a_batch_is_the_loop_over_its_slides(items, model, reading, small):
    """The terms as training has them, of padded slides with an empty report among them, in both readings."""
    batch = collate(items)
    hide = batch.words & (torch.arange(batch.words.shape[1]) % 2 == 0)
    with torch.no_grad():
        output = model(batch, hide)
        found = terms(output, batch, hide, small.settings, reading)
    loss = small.settings.loss
    pair = (output.slide, output.report)
    if reading.aligned == "prompt_logits":
        pair = (output.slide_prompts, output.report_prompts)
    with_words = batch.words.any(dim=1, keepdim=True)
    looped = {
        "report": looped_report(*pair, loss.report.temperature),
        "anchor_prompt": looped_anchor_prompt(
            output.anchors, batch.anchors, output.prompts, batch.prompts, loss.anchor_prompt.temperature
        ),
        "cross": looped_contrast(output.anchors, output.words_of_anchors, batch.anchors & with_words, 1)
        + looped_contrast(output.words, output.anchors_of_words, batch.words, 1),
        "prompt": looped_prompts(
            output.slide_prompts, output.report_prompts, batch.prompts, reading.prompt_probability
        ),
        "masked": looped_words(
            output.hidden,
            batch.tokens,
            hide if reading.scored_words == "hidden" else batch.words,
            reading.word_scores,
        ),
    }
    assert list(found) == list(looped) == list(FgcrLoss.model_fields)
    for name, value in looped.items():
        assert found[name].item() == pytest.approx(value, abs=2e-6, rel=2e-6), name  # in float32
    weights = {"report": 0.2, "anchor_prompt": 1, "cross": 0.01, "prompt": 1, "masked": 0.1}  # of the released code
    assert weighted(found, small.settings).item() == pytest.approx(
        sum(weights[n] * looped[n] for n in looped), rel=1e-5
    )


@pytest.mark.parametrize("name", FgcrLoss.model_fields)
def test_each_term_has_a_switch_and_a_weight(items, tokenizer, name, small):
    from lgffem_core.systems.fgcr.comparison import without
    from lgffem_core.systems.fgcr.model import FGCRModel

    reading, batch = READINGS["paper"], collate(items)
    model = FGCRModel(6, tokenizer, small.settings, reading).eval()
    with torch.no_grad():
        output = model(batch, batch.words)
    rest = terms(output, batch, batch.words, without(small.settings, name), reading)
    assert set(FgcrLoss.model_fields) - set(rest) == {name}
    heavy = small.settings.model_copy(
        update={
            "loss": small.settings.loss.model_copy(
                update={name: getattr(small.settings.loss, name).model_copy(update={"weight": 7})}
            )
        }
    )
    whole = terms(output, batch, batch.words, small.settings, reading)
    change = weighted(whole, heavy) - weighted(whole, small.settings)
    assert change.item() == pytest.approx(
        (7 - getattr(small.settings.loss, name).weight) * whole[name].item(), rel=1e-4
    )


def test_an_empty_report_has_no_part_in_the_contrast(items, model):
    batch = collate(items)
    with torch.no_grad():
        output = model(batch)
    others = [0, 2, 3]
    alone = [value if name == "prompts" or value is None else value[others] for name, value in output._asdict().items()]
    without_it = cross_alignment(type(output)(*alone), type(batch)(*(tensor[others] for tensor in batch)), 1.0)
    assert cross_alignment(output, batch, 1.0).item() == pytest.approx(without_it.item(), abs=1e-6)
