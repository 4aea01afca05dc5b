"""The anchor-based slide encoder: patches, anchors and a class token, in blocks of three attentions.

Anchors gather from the patches around them, patches take back from the anchors, and the class token gathers from the
anchors. Each pair of patch and anchor is weighted by a soft mask exp(−rd²/(2·npk)), so that an anchor sees its
surroundings, at the scale of its level. Anchors all start as one learned vector: what makes them differ is where they
look.
"""

import torch
from torch import Tensor, nn

from lgffem_core.config.systems import Fgcr, FgcrToggles
from lgffem_core.systems.fgcr.batches import Batch

KINDS = ("patches", "anchors", "class")
NEVER = -1e9  # added to a similarity that must not count


class Block(nn.Module):
    """One layer: the three attentions, then a feed-forward part; each kind of vector has its own residuals.

    With ``toggles.shared`` all kinds go through the same weights, else each has its own.
    """

    def __init__(self, settings: Fgcr, toggles: FgcrToggles):
        super().__init__()
        self.heads, self.head_width, self.toggles = settings.heads, settings.head_width, toggles
        width, inner, dropout = settings.width, settings.heads * settings.head_width, settings.dropout

        def feed_forward() -> nn.Module:
            hidden = nn.Linear(width, settings.hidden_width)
            out = nn.Linear(settings.hidden_width, width)
            return nn.Sequential(nn.LayerNorm(width), hidden, nn.GELU(), nn.Dropout(dropout), out, nn.Dropout(dropout))

        def each(make) -> nn.ModuleDict:
            first = make()
            return nn.ModuleDict({kind: first if toggles.shared else make() for kind in KINDS})

        self.norm = each(lambda: nn.LayerNorm(width))
        self.to_qkv = each(lambda: nn.Linear(width, 3 * inner, bias=False))
        self.to_out = each(lambda: nn.Sequential(nn.Linear(inner, width), nn.Dropout(dropout)))
        self.feed_forward = each(feed_forward)

    def forward(self, vectors: dict[str, Tensor], batch: Batch, last: bool = False) -> tuple[dict[str, Tensor], Tensor]:
        """Vectors by kind, (B, N, d), (B, A, d) and (B, 1, d); also the anchors' attention (B, heads, A, N).

        The ``last`` block leaves the patches out, which nothing reads behind it.
        """
        normed = {kind: self.norm[kind](x) for kind, x in vectors.items()}
        q, k, v = ({kind: part for kind, part in zip(KINDS, parts, strict=True)} for parts in self.split(normed))
        exponent = batch.exponent[:, None]  # (B, 1, A, N)
        found = {}
        if not last:
            found["patches"] = self.attend(q["patches"], k["anchors"], v["anchors"], batch.anchors, exponent.mT)
        found |= {
            "anchors": self.attend(q["anchors"], k["patches"], v["patches"], batch.patches, exponent),
            "class": self.attend(q["class"], k["anchors"], v["anchors"], batch.anchors),
        }
        base = normed if self.toggles.residual == "normalised" else vectors
        after = {kind: base[kind] + self.to_out[kind](self.joined(found[kind][0])) for kind in found}
        return {kind: x + self.feed_forward[kind](x) for kind, x in after.items()}, found["anchors"][1]

    def split(self, normed: dict[str, Tensor]):
        """Queries, keys and values of each kind, a head each: three lists of (B, heads, n, head_width)."""
        parts = [self.to_qkv[kind](normed[kind]).unflatten(-1, (3, self.heads, -1)).unbind(-3) for kind in KINDS]
        return ([part[i].transpose(1, 2) for part in parts] for i in range(3))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor, exponent: Tensor | None = None):
        """Softmax attention over valid keys (B, n), under a soft mask: the values, and what they are weighted by.

        The mask is part of the softmax, so that weights sum to 1 ("within"), or multiplies its result ("after").
        """
        scores, padded = (q @ k.mT) * self.head_width**-0.5, ~valid[:, None, None, :]
        if exponent is not None and self.toggles.mask == "within":
            scores = scores + exponent.masked_fill(padded, NEVER)  # which has no heads, and no gradient
        else:
            scores = scores.masked_fill(padded, NEVER)
        weights = scores.softmax(dim=-1)
        if exponent is not None and self.toggles.mask == "after":
            weights = weights * exponent.exp()
        return weights @ v, weights

    @staticmethod
    def joined(heads: Tensor) -> Tensor:  # (B, heads, n, head_width) -> (B, n, heads · head_width)
        return heads.transpose(1, 2).flatten(2)


class SlideEncoder(nn.Module):
    """(B, N, D) patch features -> class token (B, d), anchors (B, A, d), 0 where padded, and the last attention."""

    def __init__(self, features: int, settings: Fgcr, toggles: FgcrToggles):
        super().__init__()
        self.to_patch = nn.Linear(features, settings.width)
        self.class_token = nn.Parameter(torch.randn(settings.width))
        self.anchor_token = nn.Parameter(torch.randn(settings.width))
        self.blocks = nn.ModuleList(Block(settings, toggles) for _ in range(settings.layers))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        size, anchors = batch.anchors.shape
        vectors = {
            "patches": self.to_patch(batch.features),
            "anchors": self.anchor_token.expand(size, anchors, -1),
            "class": self.class_token.expand(size, 1, -1),
        }
        for block in self.blocks:
            vectors, attention = block(vectors, batch, last=block is self.blocks[-1])
        return vectors["class"][:, 0], vectors["anchors"] * batch.anchors[..., None], attention
