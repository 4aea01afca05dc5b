"""FGCR: the slide encoder, the text encoder that reports and prompts share, and the heads of the loss terms."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lgffem_core.config.systems import Fgcr, FgcrToggles
from lgffem_core.systems.fgcr.batches import Batch
from lgffem_core.systems.fgcr.slide_encoder import SlideEncoder
from lgffem_core.systems.fgcr.tokenizer import HIDDEN, Tokenizer

PLACE = (
    0.02  # standard deviation of the places' first vectors: as in BERT, so that at first a word counts wherever it is
)


class Output(NamedTuple):
    """What the loss terms and the search need of B slides and reports; P prompts, V words known."""

    slide: Tensor  # (B, d): tanh of the class token
    report: Tensor  # (B, d): the same of the report's
    slide_prompts: Tensor  # (B, P): logit of each finding, told from the slide
    report_prompts: Tensor  # (B, P): told from the report
    anchors: Tensor  # (B, A, d), 0 where padded
    words: Tensor  # (B, T, d)
    prompts: Tensor  # (P, d)
    anchors_of_words: Tensor  # (B, T, d): what each word attends to among the anchors
    words_of_anchors: Tensor  # (B, A, d): what each anchor attends to among the words
    hidden: Tensor | None  # (B, T, V): scores of the words, some of which were hidden
    attention: Tensor  # (B, heads, A, N): what the anchors looked at in the last layer


class TextEncoder(nn.Module):
    """Tokens (B, T) -> class token (B, d) and words (B, T, d): a transformer whose class token has no place."""

    def __init__(self, vocabulary: int, places: int, settings: Fgcr):
        super().__init__()
        width, word = settings.width, settings.word_width
        self.embedding = nn.Sequential(nn.Embedding(vocabulary, word), nn.Linear(word, width))
        self.places = nn.Embedding(places, width)
        nn.init.normal_(self.places.weight, std=PLACE)
        self.class_token = nn.Parameter(torch.randn(width))
        self.norm = nn.LayerNorm(width)
        layer = nn.TransformerEncoderLayer(
            width, settings.text_heads, settings.hidden_width, settings.dropout, batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, settings.text_layers, nn.LayerNorm(width), False)

    def forward(self, tokens: Tensor, seen: Tensor, with_class: bool = True) -> tuple[Tensor, Tensor]:
        """``seen`` (B, T): the places that may be attended to. Prompts, read ``with_class`` false, are words alone."""
        x = self.embedding(tokens) + self.places.weight[: tokens.shape[1]]
        if not with_class:
            return None, self.encoder(self.norm(x))
        x = self.norm(torch.cat([self.class_token.expand(len(x), 1, -1), x], dim=1))
        seen = torch.cat([seen.new_ones(len(seen), 1), seen], dim=1)
        x = self.encoder(x, src_key_padding_mask=~seen)
        return x[:, 0], x[:, 1:]


class FGCRModel(nn.Module):
    """Both encoders and the heads.

    Args:
        features: numbers of a patch.
        tokenizer: what words and prompts there are.
        settings: of the section ``fgcr``.
        toggles: the reading.
    """

    def __init__(self, features: int, tokenizer: Tokenizer, settings: Fgcr, toggles: FgcrToggles):
        super().__init__()
        width, vocabulary, prompts = settings.width, len(tokenizer.vocabulary), tokenizer.prompt_tokens()
        self.toggles = toggles
        self.slides = SlideEncoder(features, settings, toggles)
        self.texts = TextEncoder(vocabulary, max(settings.tokens, len(prompts)), settings)
        self.cross = nn.MultiheadAttention(width, settings.heads, batch_first=True)
        self.to_prompts = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, len(prompts)))
        self.to_words = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.LayerNorm(width), nn.Linear(width, vocabulary)
        )
        self.register_buffer("prompt_tokens", torch.tensor([prompts]), persistent=False)

    def forward(self, batch: Batch, hide: Tensor | None = None) -> Output:
        """All of it. ``hide`` (B, T) bool: words that are hidden from a second pass, whose scores are ``hidden``."""
        slide, anchors, attention = self.slides(batch)
        report, words, hidden = self.read(batch, hide)
        slide, report = slide.tanh(), report.tanh()
        readable = batch.words.clone()
        readable[:, 0] |= ~batch.words.any(dim=1)  # attention needs one place; of an empty report it counts nowhere
        _, prompts = self.texts(self.prompt_tokens, None, with_class=False)
        return Output(
            slide=slide,
            report=report,
            slide_prompts=self.to_prompts(slide),
            report_prompts=self.to_prompts(report),
            anchors=anchors,
            words=words,
            prompts=prompts[0],
            anchors_of_words=self.cross(words, anchors, anchors, ~batch.anchors, need_weights=False)[0],
            words_of_anchors=self.cross(anchors, words, words, ~readable, need_weights=False)[0],
            hidden=None if hide is None else self.to_words(hidden),
            attention=attention,
        )

    def read(self, batch: Batch, hide: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Class token and words of the reports; and again the words, where those of ``hide`` are hidden.

        They are replaced by a token, or only not attended to. A word that is not attended to still stands in its own
        place, so that it can be read off it: what is hidden by padding is not hidden from itself.
        """
        if hide is None:
            return *self.texts(batch.tokens, batch.words), None
        by_token = self.toggles.hidden_by == "token"
        tokens = batch.tokens.masked_fill(hide, HIDDEN) if by_token else batch.tokens
        seen = batch.words if by_token else batch.words & ~hide
        # Both readings of a report in one pass, which takes little longer than one of them.
        report, words = self.texts(torch.cat([batch.tokens, tokens]), torch.cat([batch.words, seen]))
        return report[: len(tokens)], *words.chunk(2)

    def searched(self, output: Output) -> tuple[Tensor, Tensor]:
        """The vectors of slides and of reports that are searched: those that the reading aligns."""
        if self.toggles.aligned == "class_token":
            return output.slide, output.report
        return output.slide_prompts, output.report_prompts
