"""The parameters of a run: one validated tree, whose defaults are what the paper states.

A profile (``params/*.yaml``) says only where it differs. Every key that is not listed here is refused,
with the nearest key named, before anything starts.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from lgffem_core.config.section import Fraction, Positive, Rate, Section
from lgffem_core.config.systems import SMSE, Archive, Baselines, Fgcr, Slides

STRATEGIES = ("a", "b", "c")
System = Literal[
    "lgffem",  # a folder of lgffem_core/systems with stages of its own
    "smse",
    "archive",
    "fgcr",
]
PROTOCOLS = ("test_to_train", "leave_one_out", "released")


class ImageNet(Section):
    root: Path | None = None  # holds ILSVRC2012_img_train.tar, or train/<wnid>/*.JPEG


class PanNuke(Section):
    root: Path | None = None  # holds images/ (and masks/), or the official "Fold 1" … "Fold 3"
    split: Literal[1, 2, 3] | None = None  # PathML's: the fold trained on, the code's is 1; null = all (ledger 11)
    tissues: Literal["pannuke", "any"] = "pannuke"  # which names a file may carry
    channel_order: Literal["bgr", "rgb"] = "bgr"  # of the PNG files; PathML writes BGR (ledger 13)


class Kimia(Section):
    root: Path | None = None  # holds train/ and test/
    scans: Annotated[int, Field(ge=2)] = 24  # of one there is nothing to be confused with


class BreakHis(Section):
    root: Path | None = None  # holds BreaKHis_v1/ or BreaKHis_v1.tar.gz; beside them dsfold1.txt … where they are given
    magnifications: tuple[Literal[40, 100, 200, 400], ...] = (40, 100, 200, 400)
    folds: Annotated[int, Field(ge=2)] = 5  # of the patients, where there are no lists of them


class PatchGastric(Section):
    root: Path | None = None  # holds captions.csv and, in any folder, the patches


class Reports(Section):
    root: Path | None = None  # holds slides in record form, each with its report
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.3  # of the patients of each label (FGCR's configuration)


class DataSets(Section):
    """A section for each data set, which ``data/sets/<name>.py`` reads; ``root`` null = synthetic images."""

    imagenet: ImageNet = ImageNet()
    pannuke: PanNuke = PanNuke()
    kimia: Kimia = Kimia()
    breakhis: BreakHis = BreakHis()
    patchgastric: PatchGastric = PatchGastric()
    reports: Reports = Reports()


DATASETS = tuple(DataSets.model_fields)


class Synthetic(Section):
    """Procedural tissue, written in the real data sets' layouts for every data set whose root is null."""

    datasets: tuple[Literal[DATASETS], ...] = ()  # which of them may be made
    seed: int = 0
    image_size: Positive = 96  # pixels; PanNuke's and Kimia's patches alike
    imagenet_classes: Positive = 10
    imagenet_per_class: Positive = 24
    imagenet_val_per_class: Positive = 12  # never trained on
    pannuke_per_tissue: Positive = 12
    kimia_train_per_scan: Positive = 16
    kimia_test_fraction: Fraction = 0.1  # of the published test counts, at least two patches a scan
    breakhis_patients: Annotated[int, Field(ge=8)] = 36  # three in ten of them benign; every type has one at least
    breakhis_fields: Positive = 3  # places of a patient's slide, each seen at four magnifications
    reports_slides: Annotated[int, Field(ge=12)] = 120  # two of each disease at least
    reports_patches: Annotated[int, Field(ge=30)] = 110  # of a slide, more or less
    reports_features: Positive = 32  # numbers a patch


class Data(DataSets):
    synthetic: Synthetic = Synthetic()
    check_counts: bool = False  # compare with the published numbers of images
    faulty_files: Literal["refuse", "leave_out"] = "refuse"  # unreadable, mislabelled, …; left out, never replaced
    accept_changed_files: bool = False  # go on with files that are not those the index was made from


class Backbone(Section):
    name: str = "convnextv2_base.fcmae"  # any timm model with features_only and four stages
    weights: Path | None = None  # a local .safetensors or .pth; null = a package's, or the hub's
    pretrained: bool = True  # false: random weights, drawn with the run's seed
    options: dict[str, Any] = {}  # passed to timm.create_model
    mean: tuple[float, float, float] | None = None  # input statistics, images in [0, 1];
    std: tuple[float, float, float] | None = None  # null = from the weights' configuration


class Neck(Section):
    channels: Positive = 512
    layers: Positive = 3
    reduction: Positive = 2  # r of the aggregators
    epsilon: Rate = 1e-4  # of the fast normalised fusion


class Head(Section):
    gem_p: Rate = 4.6
    gem_eps: Rate = 1e-6
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.6  # only where toggles.head_norm is on


class Toggles(Section):
    """Where text and released code differ in model or loss. Null = as the variant says; see ``study.VARIANTS``."""

    loss_scale: Literal["s", "margin"] | None = None  # "s": the stated scale, "margin": s = m (ledger 2)
    grn: Literal["channels", "width"] | None = None  # ConvNeXt V2's, or a mean over an axis of length 1 (ledger 3)
    head_norm: bool | None = None  # BatchNorm and Dropout after GeM (ledger 4)
    fusion_relu: bool | None = None  # ReLU on the fusion weights (ledger 5)
    normalize_embedding: bool | None = None  # L2 before the search, in neither of the two; ours (ledger 12)


class Model(Section):
    backbone: Backbone = Backbone()
    neck: Neck = Neck()
    head: Head = Head()
    toggles: Toggles = Toggles()
    image_size: Positive = 224


class Loss(Section):
    name: Literal[
        "sub_center_arcface",  # as in training.losses.LOSSES
    ] = "sub_center_arcface"
    margin: Rate = 17.2  # degrees
    scale: Rate = 64.0
    sub_centers: Positive = 6
    lr: Rate = 1e-4  # of the class centers' own AdamW


class Strategy(Section):
    """Epochs: paper, section 4.1.3; here of A. Where the text is silent, the released scripts."""

    epochs: Positive = 60
    lr: Rate | None = None  # null = training.lr
    amsgrad: bool = False
    drop_last: bool = True  # leave an epoch's last batch out where it is incomplete
    checkpoint: Path | None = None  # a released checkpoint (.pth) to use instead of training


class StrategyB(Strategy):
    epochs: Positive = 300
    drop_last: bool = False  # of PathML's loader (ledger 19)


class StrategyC(Strategy):
    epochs: Positive = 300
    amsgrad: bool = True  # ledger 20


class Training(Section):
    batch_size: Annotated[int, Field(ge=2)] = 64  # BatchNorm, of variant released and ledger row 4, takes two
    lr: Rate = 5e-3
    lr_min: Rate = 8e-5
    schedule: Literal["cosine", "warm_restarts"] = "cosine"  # ledger 7
    restart_epochs: Positive = 3  # T_0 of the warm restarts
    weight_decay: Annotated[float, Field(ge=0)] = 1e-5
    clip_norm: Rate = 1.0
    loss: Loss = Loss()
    a: Strategy = Strategy()
    b: StrategyB = StrategyB()
    c: StrategyC = StrategyC()


class Retrieval(Section):
    protocols: tuple[Literal[PROTOCOLS], ...] = PROTOCOLS  # of Tables 1 and 2; audit and ledger compare all three
    batch_size: Positive = 64
    bootstrap: Annotated[int, Field(ge=200, le=100_000)] = 2000  # resamples of a 95 % interval


class Ledger(Section):
    epochs: Positive = 10  # of each training; strategy C alone, from a freshly drawn neck and head
    strategy_b: bool = True  # also the rows about PanNuke, which train B and then C


class Explain(Section):
    patches: Positive = 48  # test patches whose maps are compared with those of a randomised model
    planted: Annotated[int, Field(ge=2)] = 48  # synthetic patches with one distinctive structure


class Projection(Section):
    method: Literal["umap", "tsne", "pca"] = "umap"
    neighbours: Annotated[int, Field(ge=2)] = 15  # UMAP's n_neighbors; t-SNE takes twice as many as its perplexity
    seed: Annotated[int, Field(ge=0)] = 0


class Compute(Section):
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    fast: bool = True  # auto is half precision where the processor has it; false: float32 everywhere
    threads: Positive = 2  # of torch on the CPU: part of the result's last bits
    devices: Positive = 1  # processes that share each batch of a strategy's training, on as many GPUs or on the CPU
    workers: Annotated[int, Field(ge=0)] = 2  # processes that decode and augment
    cache: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 16  # GiB of decoded pixels kept on disk; 0 = none
    features: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0  # GiB of a backbone's maps kept on disk
    checkpoint_steps: Positive | None = None  # between checkpoints within an epoch; null = only at each epoch's end


class Params(Section):
    profile: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    data: Data = Data()
    model: Model = Model()
    training: Training = Training()
    retrieval: Retrieval = Retrieval()
    baselines: Baselines = Baselines()
    ledger: Ledger = Ledger()  # the rows of text against code, each switched alone (notebook 11)
    explain: Explain = Explain()  # Grad-CAM++ and its sanity checks (notebook 08)
    projection: Projection = Projection()  # the map of figure 7
    smse: SMSE = SMSE()  # embeddings that are to be alike at all magnifications (notebook 12)
    archive: Archive = Archive()  # search among a million (notebook 14)
    slides: Slides = Slides()  # from whole slides to records
    fgcr: Fgcr = Fgcr()  # whole slides and their reports (notebook 13)
    compute: Compute = Compute()
    systems: tuple[System, ...] = ("lgffem",)  # whose stages are run, checked and shown
    variants: tuple[Literal["paper", "released"], ...] = ("paper",)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0,)

    @model_validator(mode="after")
    def something_to_run(self):
        lists = {name: getattr(self, name) for name in ("systems", "variants", "seeds")}
        lists |= {"smse.folds": self.smse.folds, "data.breakhis.magnifications": self.data.breakhis.magnifications}
        for name, values in {**lists, "retrieval.protocols": self.retrieval.protocols}.items():
            if not values or len(set(values)) != len(values):
                raise ValueError(f"{name} must list at least one value, none of them twice")
        if self.model.neck.reduction > self.model.neck.channels:
            raise ValueError("model.neck.reduction must not be larger than model.neck.channels, or no channel is left")
        dealt = "smse" in self.systems and self.data.breakhis.root is None  # else its lists may have other folds
        if dealt and max(self.smse.folds) > self.data.breakhis.folds:
            raise ValueError(
                f"smse.folds names fold {max(self.smse.folds)} of {self.data.breakhis.folds}; set data.breakhis.folds "
                "to more, smse.folds to some of them, or data.breakhis.root; or leave smse out of systems"
            )
        return self
