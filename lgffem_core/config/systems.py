"""The sections of the parameters that systems beside LGFFEM have, its baselines among them."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from lgffem_core.config.section import Fraction, Positive, Rate, Section


class DenseNet(Section):
    weights: Path | None = None  # a local file in timm's naming; null = timm's own from the hub
    pretrained: bool = True  # false: random weights, and the tables say so


class MixedAttention(Section):
    """MA + MS-loss (Yang et al., Methods 2020): SE-ResNet-50 with a mask branch.

    Defaults: the training of its released code, which starts from random weights. That code trains on 90 % of the
    training patches and keeps the epoch of the lowest loss on the others; here all are trained on, to the end.
    """

    network: str = "legacy_seresnet50"  # timm's name of SE-ResNet-50; another legacy_seresnet for small machines
    weights: Path | None = None
    pretrained: bool = False  # true: timm's own from the hub, which its own code does not use
    embedding: Positive = 512
    epochs: Positive = 100
    batch_size: Annotated[int, Field(ge=2)] = 60  # a pair takes two
    lr: Rate = 1e-3
    momentum: Annotated[float, Field(gt=0, lt=1)] = 0.9
    step_epochs: Positive = 50  # StepLR: a tenth of the rate after each
    image_size: Positive | None = None  # of the crop; null = model.image_size
    alpha: Rate = 2.0  # of the multi-similarity loss, with
    beta: Rate = 5.0
    base: float = 0.5  # λ
    epsilon: Rate = 0.2  # of its pair mining


class Baselines(Section):
    densenet121: DenseNet = DenseNet()  # a frozen feature extractor (arXiv:2102.07611)
    ma_ms: MixedAttention = MixedAttention()


class Index(Section):
    """A FAISS index: its factory string, and settings of its search, each a point of the figure."""

    factory: Annotated[str, Field(pattern=r"^[A-Za-z_,()]+([1-9]\d*[A-Za-z_,()]*)*$")]
    search: Annotated[tuple[Annotated[str, Field(pattern=r"^\w+=[1-9]\d*(,\w+=[1-9]\d*)*$")], ...], Field(min_length=1)]


class Archive(Section):
    """Search among many embeddings by indices beside exact search (notebook 14)."""

    embeddings: Path | None = None  # a file that a run kept; null = generated vectors, as the next five say
    vectors: Positive = 1_000_000
    dimension: Annotated[int, Field(ge=2)] = 2048
    classes: Positive = 1000  # clusters
    between: Fraction = 0.6  # of the variance lies between classes
    decay: Rate = 1.5  # eigenvalue i of either part falls as i to the power of minus this
    queries: Positive = 500
    k: Positive = 10  # neighbours
    training_vectors: Positive = 100_000  # the sample that an index is trained on
    repeats: Annotated[int, Field(ge=5)] = 5  # of each timing
    indices: tuple[Index, ...] = ()  # exact search comes first by itself


class SMSE(Section):
    """SMSE (arXiv:2107.01063); defaults: what the code does that is thought to be its authors', see its ledger."""

    network: Literal["six_convolutions", "resnet18"] = "six_convolutions"
    image_size: tuple[Positive, Positive] = (460, 700)  # height and width in pixels
    mean: float = 0.0  # of the inputs, for images in [0, 1] and alike in red, green and blue;
    std: Rate = 1 / 255  # with these two the network sees 0 … 255, and no mean is subtracted
    initial: Literal["torch", "he"] = "torch"  # how its weights are drawn: as torch does, or as He et al. (ICCV 2015)
    pools: Annotated[int, Field(ge=1, le=6)] = 6  # the first so many of the six convolutions are pooled
    padded: bool = False  # convolutions that keep the size, for images that six without would leave nothing of
    embedding: Positive = 12  # numbers: C + 10
    margin: Rate = 1.0  # m of the pair and the triplet loss
    metric_weight: Rate = 1.0  # of the metric loss beside the classification
    alpha: Rate = 2.0  # of the reinforced focal loss
    gamma_triplet: Rate = 1.2  # its exponent beside the triplet loss,
    gamma_pair: Rate = 1.5  # beside the pair loss
    gamma_focal: Rate = 2.0  # exponent of the focal loss
    jitter: Fraction = 0.1  # of brightness, contrast, saturation and hue
    epochs: Positive = 40  # of a training on all magnifications; one on fewer images takes as many steps
    batch_size: Annotated[int, Field(ge=2)] = 50  # anchors
    lr: Rate = 1e-3
    step_epochs: Positive = 8  # StepLR: a tenth of the rate after each
    single: Literal[40, 100, 200, 400] = 40  # the magnification of the training on one
    held_out: Literal[40, 100, 200, 400] = 200  # that of the training on all others
    folds: tuple[Positive, ...] = (1, 2, 3, 4, 5)  # which are trained and tested

    @model_validator(mode="after")
    def two_magnifications(self):
        if self.single == self.held_out:
            raise ValueError("smse.single and smse.held_out must be two magnifications")
        return self


class Slides(Section):
    """From whole slides to records: ./run_all.sh slides."""

    encoder: Literal["backbone", "lgffem_a", "lgffem_b", "lgffem_c", "densenet121", "ma_ms"] = "backbone"
    mpp: Rate = 0.5  # µm a pixel of the tiles; 0.5 is about 20×
    pixels: Positive = 224  # along a side of a tile
    tissue: Fraction = 0.5  # share of a tile that must be tissue
    unstated_mpp: Rate | None = None  # µm a pixel of a slide's finest level, or of patches, where the file does not say
    step: Rate | None = None  # between patches, in the unit of their coordinates; null = the smallest that occurs


class Term(Section):
    """A term of FGCR's loss, its switch and its weight."""

    used: bool = True
    weight: Rate = 1.0
    temperature: Rate = 1.0  # that similarities are divided by, beside the vectors' length


class ReportTerm(Term):
    weight: Rate = 0.2


class AnchorPromptTerm(Term):
    temperature: Rate = 10.0


class CrossTerm(Term):
    weight: Rate = 0.01


class MaskedTerm(Term):
    weight: Rate = 0.1


class FgcrLoss(Section):
    report: ReportTerm = ReportTerm()  # slide and report as wholes
    anchor_prompt: AnchorPromptTerm = AnchorPromptTerm()  # which anchor shows which finding
    cross: CrossTerm = CrossTerm()  # anchors and words that attend to each other
    prompt: Term = Term()  # findings, told from slide and from report; without a temperature, as the next
    masked: MaskedTerm = MaskedTerm()  # hidden words, told from the others


class FgcrToggles(Section):
    """Where text and released code of FGCR differ. Null = as the reading says; see ``systems.fgcr.readings``."""

    mask: Literal["within", "after"] | None = None  # the soft mask: in the softmax, or on its result (ledger 1)
    residual: Literal["plain", "normalised"] | None = None  # what a block's result is added to (2)
    shared: bool | None = None  # patches, anchors and class token through the same weights (3)
    aligned: Literal["class_token", "prompt_logits"] | None = None  # what stands for slide and report (4)
    prompt_probability: Literal["sigmoid", "softmax"] | None = None  # of the findings (5)
    hidden_by: Literal["token", "padding"] | None = None  # how a word is hidden (6)
    scored_words: Literal["hidden", "all"] | None = None  # (7)
    word_scores: Literal["plain", "sigmoid"] | None = None  # before the cross-entropy (8)
    schedule: Literal["once", "rising_again"] | None = None  # the learning rate (9)


class Fgcr(Section):
    """FGCR: slides and reports in one space (notebook 13). Defaults: the released configuration (d9f8cd2)."""

    patches: Positive = 2048  # of a slide at most, its anchors among them
    tokens: Positive = 150  # words of a report at most
    width: Positive = 256  # of every vector
    layers: Positive = 6
    heads: Positive = 8
    head_width: Positive = 64
    hidden_width: Positive = 512  # of the feed-forward parts
    word_width: Positive = 128
    text_layers: Positive = 6
    text_heads: Positive = 4
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    hide: Annotated[float, Field(gt=0, lt=1)] = 0.4  # share of the words
    epochs: Positive = 150
    batch_size: Annotated[int, Field(ge=2)] = 28
    lr: Rate = 3e-4
    lr_min: Rate = 5e-8
    fall: Annotated[float, Field(gt=0, le=1)] = 0.3  # share of the epochs after which a schedule that rises again does
    prompts: tuple[str, ...] = ()  # of slides whose records name no findings: those hold whose word the report names
    unknown_words: Literal["refuse", "one_token"] = "refuse"  # in a report, that no training report holds
    compared_epochs: Positive = 50  # of each training of the ablation and of the ledger
    k: Positive = 10  # of mAP@k
    loss: FgcrLoss = FgcrLoss()
    toggles: FgcrToggles = FgcrToggles()

    @model_validator(mode="after")
    def shared_by_heads(self):
        for heads in ("heads", "text_heads"):
            if self.width % getattr(self, heads):
                raise ValueError(f"fgcr.width must be a multiple of fgcr.{heads}, which share it")
        return self
