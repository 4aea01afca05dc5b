"""Masks, attention and padding of FGCR's encoders, against loops and against the slide alone."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lgffem_core.systems.fgcr.batches import collate, item, mask_exponent, thinned
from lgffem_core.systems.fgcr.model import FGCRModel
from lgffem_core.systems.fgcr.readings import READINGS
from lgffem_core.systems.fgcr.slide_encoder import Block
from lgffem_core.systems.fgcr.training import outputs


def test_masks_are_gaussians_of_the_distance_as_wide_as_their_level(small):
    slide = small.record(150)
    found, row = np.exp(mask_exponent(slide)), 0
    for npk, level in zip(slide.levels, slide.anchors, strict=True):
        for anchor in level:
            for patch in range(0, 150, 7):
                (y, x), (b, a) = slide.positions[anchor], slide.positions[patch]
                rd = math.hypot(y - b, x - a)
                assert found[row, patch] == pytest.approx(math.exp(-(rd**2) / (2 * npk)), abs=1e-6)
            assert found[row, anchor] == 1
            row += 1
    assert row == len(found) == 14


def test_a_slide_that_is_turned_or_mirrored_is_the_same_slide(model, tokenizer, small):
    """Masks know distances and no directions."""
    slide = small.record(60)
    turned = replace(slide, positions=np.ascontiguousarray(slide.positions[:, ::-1]) * np.float32([1, -1]))
    with torch.no_grad():
        one, other = (model(collate([item(each, tokenizer, 2048)])) for each in (slide, turned))
    assert torch.equal(one.slide, other.slide) and torch.equal(one.anchors, other.anchors)


@pytest.mark.parametrize("mask", ["within", "after"])
def test_an_anchors_attention_is_its_loop(mask, items, small):
    block = Block(small.settings, READINGS["paper"].model_copy(update={"mask": mask})).eval()
    batch = collate(items[:1])
    anchors, patches, width = batch.anchors.shape[1], batch.patches.shape[1], 4
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 1, n, width, generator=generator) for n in (anchors, patches, patches))
    found, weights = block.attend(q, k, v, batch.patches, batch.exponent[:, None])
    for a in range(anchors):
        scores = [(q[0, 0, a] @ k[0, 0, j]).item() / 2 for j in range(patches)]
        masks = [math.exp(batch.exponent[0, a, j]) for j in range(patches)]
        if mask == "within":  # the mask times exp(score), and then of sum 1
            shares = [m * math.exp(s) for m, s in zip(masks, scores, strict=True)]
            shares = [share / sum(shares) for share in shares]
        else:
            total = sum(math.exp(s) for s in scores)
            shares = [m * math.exp(s) / total for m, s in zip(masks, scores, strict=True)]
        assert weights[0, 0, a].tolist() == pytest.approx(shares, abs=1e-6)
        looped = [sum(share * v[0, 0, j, c].item() for j, share in enumerate(shares)) for c in range(width)]
        assert found[0, 0, a].tolist() == pytest.approx(looped, abs=1e-5)


def test_residuals_add_to_what_went_in_or_to_its_normalised_values(items, small):
    """With all maps out of a block at zero, what is left is what they are added to."""
    batch, generator = collate(items[:1]), torch.Generator().manual_seed(0)
    sizes = {"patches": batch.patches.shape[1], "anchors": batch.anchors.shape[1], "class": 1}
    vectors = {kind: 5 + 3 * torch.randn(1, n, 8, generator=generator) for kind, n in sizes.items()}
    for residual in ("plain", "normalised"):
        block = Block(small.settings, READINGS["paper"].model_copy(update={"residual": residual})).eval()
        for part in (block.to_out, block.feed_forward):
            for module in part.modules():
                if isinstance(module, torch.nn.Linear):
                    torch.nn.init.zeros_(module.weight), torch.nn.init.zeros_(module.bias)
        found, _ = block(vectors, batch)
        for kind, x in vectors.items():
            expected = x if residual == "plain" else torch.nn.functional.layer_norm(x, (8,))
            torch.testing.assert_close(found[kind], expected, atol=1e-5, rtol=0)


def test_the_last_block_leaves_out_the_patches_and_nothing_else(model, items):
    block, batch, seen = model.slides.blocks[-1], collate(items), []
    block.register_forward_hook(
        lambda block, given, options, found: seen.append((given, options, found)), with_kwargs=True
    )
    with torch.no_grad():
        model(batch)
        whole, attention = block.forward(*seen[0][0])
    (_, options, (vectors, looked)) = seen[0]
    assert options == {"last": True} and vectors.keys() == {"anchors", "class"} and torch.equal(attention, looked)
    assert whole["patches"].shape[:2] == batch.patches.shape
    assert all(torch.equal(x, whole[kind]) for kind, x in vectors.items())


def test_weights_are_shared_or_not(tokenizer, small):
    sizes = {}
    for shared in (True, False):
        toggles = READINGS["paper"].model_copy(update={"shared": shared})
        sizes[shared] = sum(p.numel() for p in Block(small.settings, toggles).parameters())
    assert sizes[False] == 3 * sizes[True]


def test_padding_changes_nothing(items, model, tokenizer, small):
    """1 to 2,048 patches, 6 to 25 anchors, empty and longest reports: alone as among the others, 1e-6."""
    whole = [*items, item(small.record(2048, "", number=9), tokenizer, most=2048)]
    assert len(whole[-1].patches) == 2048 and len(whole[-1].anchors) == 25 and len(whole[1].patches) == 1
    assert [len(one.words) for one in whole] == [10, 0, 1, 12, 0]
    with torch.no_grad():
        hide = torch.zeros(len(whole), 12, dtype=torch.bool)
        hide[:, 0] = True
        batch = collate(whole)
        together = model(batch, hide & batch.words)
        for row, one in enumerate(whole):
            own = collate([one])
            alone = model(own, own.words & hide[row : row + 1, : own.words.shape[1]])
            for name in ("slide", "report", "slide_prompts", "report_prompts"):
                torch.testing.assert_close(getattr(together, name)[row], getattr(alone, name)[0], atol=1e-6, rtol=0)
            anchors, words = len(one.anchors), len(one.words)
            for name, size in {"anchors": anchors, "words_of_anchors": anchors if words else 0}.items():
                both = getattr(together, name)[row, :size], getattr(alone, name)[0, :size]
                torch.testing.assert_close(*both, atol=2e-6, rtol=0)
            for name in ("words", "anchors_of_words", "hidden"):
                both = getattr(together, name)[row, :words], getattr(alone, name)[0, :words]
                torch.testing.assert_close(*both, atol=2e-6, rtol=0)
            assert not together.anchors[row, anchors:].any()


def test_one_anchor_is_enough(model, tokenizer, small):
    """A record with a single level of one anchor."""
    slide = replace(small.record(9), anchors=(np.array([4]),), levels=(9,))
    with torch.no_grad():
        output = model(collate([item(slide, tokenizer, 2048)]))
    assert output.anchors.shape == (1, 1, 8) and torch.isfinite(output.slide).all()


def test_a_slide_of_too_many_patches_keeps_its_anchors(small):
    slide = small.record(900)
    chosen, exponent = thinned(slide, 100, seed=0)
    assert len(chosen) == 100 and exponent.shape == (25, 100)
    assert set(np.concatenate(slide.anchors)) <= set(chosen.tolist())
    np.testing.assert_array_equal(exponent, mask_exponent(slide)[:, chosen])
    assert not np.array_equal(chosen, thinned(slide, 100, seed=1)[0])
    assert len(thinned(slide, 900, 0)[0]) == 900


def test_a_hidden_word_is_hidden_from_itself_by_a_token_alone(tokenizer, small):
    """Two reports that differ in a hidden word: under "token" its score is the same, under "padding" it is not."""
    texts = small.words, small.words.replace("necrosis", "glands")
    batch = collate([item(small.record(20, text), tokenizer, 2048) for text in texts])
    hide = torch.zeros_like(batch.words)
    hide[:, 2] = True
    for hidden_by, same in {"token": True, "padding": False}.items():
        torch.manual_seed(0)
        model = FGCRModel(
            6, tokenizer, small.settings, READINGS["paper"].model_copy(update={"hidden_by": hidden_by})
        ).eval()
        with torch.no_grad():
            scores = model(batch, hide).hidden
        assert torch.allclose(scores[0, 2], scores[1, 2], atol=1e-6) == same
        others = [t for t in range(10) if t != 2]
        assert torch.allclose(scores[0, others], scores[1, others], atol=1e-6)  # nor do the others see it


def test_what_is_searched_is_what_is_aligned(items, model, reading, small):
    with torch.no_grad():
        output = model(collate(items))
    slides, reports = model.searched(output)
    assert slides.shape == reports.shape == (4, 8 if reading.aligned == "class_token" else len(small.prompts))
    if reading.aligned == "class_token":
        assert slides.abs().max() < 1


def test_outputs_are_each_slides_own_without_padding(items, model, study):
    found = outputs(study, model, items, batch_size=3)
    with torch.no_grad():
        alone = model(collate(items[3:]))
    torch.testing.assert_close(found[3].slide, alone.slide[0], atol=1e-6, rtol=0)
    assert [tuple(one.anchors.shape) for one in found] == [(len(i.anchors), 8) for i in items]
    assert [tuple(one.attention.shape)[1:] for one in found] == [tuple(i.exponent.shape) for i in items]
    assert [len(one.words) for one in found] == [10, 0, 1, 12]


def test_a_real_record_of_the_released_code_goes_through_and_back(shared, reading, small):
    """Its report and prompts are numbers, here taken for words. 240 patches of 2,048 numbers, 18 anchors."""
    from lgffem_core.data.records import Record
    from lgffem_core.systems.fgcr.losses import terms, weighted
    from lgffem_core.systems.fgcr.tokenizer import Tokenizer

    with np.load(shared / "fgcr" / "example_wsi.npz", allow_pickle=False) as real:
        own = tuple(np.unique(level) for level in np.split(real["k_idx"], np.cumsum(real["knumber"])[:-1]))
        text = " ".join(map(str, real["text"]))
        slide = Record(
            "real", real["feats"], real["pos"].astype(np.float32), own, tuple(real["npks"].tolist()), text,
            tuple(map(str, real["prompt"])),
        )  # fmt: skip
    tokenizer = Tokenizer.of([text], map(str, range(25)), longest=150)
    batch = collate([item(slide, tokenizer, 2048)] * 2)
    torch.manual_seed(0)
    model = FGCRModel(2048, tokenizer, small.settings.model_copy(update={"tokens": 150}), reading)
    output = model(batch, batch.words)
    loss = weighted(terms(output, batch, batch.words, small.settings, reading), small.settings)
    loss.backward()
    assert output.anchors.shape == (2, 18, 8) and output.attention.shape == (2, 2, 18, 240)
    assert batch.prompts.sum() == 8 and math.isfinite(loss.item())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.slides.parameters())
