"""The study at hand: one validated profile, its variants, and every path that follows from it."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from lgffem_core.base.files import sha256_json
from lgffem_core.base.project import OUTPUT, PROJECT
from lgffem_core.base.surroundings import check_python
from lgffem_core.config.code_version import code_hash, lock_hash
from lgffem_core.config.machine import DRAWING
from lgffem_core.config.parameter_files import apply_overrides, read_yaml, validate
from lgffem_core.config.params import DATASETS, Params, Toggles
from lgffem_core.config.watched import Watched, current, plain, watched

#: "paper": the printed text, and where it is silent the released code. "released": the code's architecture and loss
#: scale, and no more of its configuration: batch size, rates, restarts, epochs and folds stay the profile's.
VARIANTS = {
    "paper": Toggles(loss_scale="s", grn="channels", head_norm=False, fusion_relu=True, normalize_embedding=False),
    "released": Toggles(loss_scale="margin", grn="width", head_norm=True, fusion_relu=False, normalize_embedding=False),
}

#: Strategy -> (data set it trains on, strategy it starts from, the name in Table 1).
CURRICULUM = {
    "a": ("imagenet", None, "IN-1K"),
    "b": ("pannuke", "a", "IN-1K + PanNuke"),
    "c": ("kimia", "b", "IN-1K + PanNuke + Kimia"),
}
#: System -> the data sets that its stages read, as notebooks/stages.yaml has them; of one that is not here, all.
USED = {"lgffem": ("imagenet", "pannuke", "kimia"), "smse": ("breakhis",), "fgcr": ("reports",), "archive": ()}
SEARCHED = "kimia"  # the data set whose test patches are the queries of every table


@dataclass(frozen=True)
class Study:
    """A profile, read and checked, with the folder that holds the project.

    >>> study = Study.load("params/demo.yaml", {"training.a.epochs": 1})
    >>> study.params.training.a.epochs
    1
    """

    params: Params | Watched  # watched in a stage's kernel, where only declared ones can be read
    root: Path = PROJECT  # artifacts/ and results/ are made in it

    def __post_init__(self):
        object.__setattr__(self, "params", watched(self.params))

    @classmethod
    def load(cls, params, overrides: dict | None = None, root: Path | None = None) -> "Study":
        """Read ``params`` (a YAML file) and set ``overrides`` (dotted key -> value).

        Without ``root``, results go to the folder that ``LGFFEM_OUTPUT`` names, or to the project's. Raises
        ``RequestError`` for a missing file, an unknown key or a value out of range.
        """
        check_python()
        tree = apply_overrides(read_yaml(Path(params)), overrides or {})
        return cls(validate(tree, str(params), overrides or ()), Path(root or os.environ.get(OUTPUT) or PROJECT))

    @classmethod
    def published(cls, overrides: dict | None = None) -> "Study":
        """The study as the paper has it (params/paper.yaml), to show or to compare with."""
        study = cls.load(PROJECT / "params" / "paper.yaml", overrides)
        return replace(study, params=watched(plain(study.params), "published."))

    # -- where things are ---------------------------------------------------------------------------

    @property
    def artifacts(self) -> Path:
        """Checkpoints, embeddings and synthetic data of this profile (git-ignored)."""
        return self.root / "artifacts" / self.params.profile

    @property
    def results(self) -> Path:
        """Tables, figures and executed notebooks of this profile."""
        return self.root / "results" / self.params.profile

    @property
    def report(self) -> Path:
        """Every table and figure of this profile on one page."""
        return self.results / "report.html"

    def resolve(self, path: Path | None) -> Path | None:
        """A path from the parameters; relative ones count from the project's folder."""
        return None if path is None else Path(os.path.normpath(PROJECT / Path(path).expanduser()))

    def is_synthetic(self, dataset: str) -> bool:
        """True where the data set has no root, so that procedural images stand in for it."""
        return getattr(plain(self.params).data, dataset).root is None

    def data_root(self, dataset: str) -> Path:
        """Folder that holds a data set: the user's, or the synthetic one under ``artifacts/``.

        The synthetic folder carries a hash of its settings, of the code and the packages that draw it, so that
        neither other settings nor other code ever meet old images.
        """
        given = self.resolve(getattr(self.params.data, dataset).root)
        if given:
            return given
        code = [code_hash(f"import lgffem_core.data.sets.{dataset}"), lock_hash(DRAWING)]
        version = sha256_json([plain(self.params).data.synthetic.model_dump(mode="json"), code])[:8]
        return self.artifacts / "data" / f"synthetic_{version}" / dataset

    def reads(self, dataset: str) -> None:
        """Say that a data set's images or table are used; ``StudyError`` in a stage that does not declare it."""
        if declared := current():
            declared.read_data(dataset)

    def kept(self, *parts: str) -> Path:
        """A file or folder that stages leave; ``StudyError`` in a stage that does not come after one that does."""
        if declared := current():
            declared.read_path("/".join(parts))
        return self.artifacts.joinpath(*parts)

    def index(self, dataset: str) -> Path:
        """The CSV of a data set's PatchTable."""
        return self.kept("index", f"{dataset}.csv")

    def checkpoints(self, strategy: str, variant: str, seed: int) -> Path:
        """Folder of one training run."""
        return self.kept("checkpoints", variant, f"seed{seed}", f"strategy_{strategy}")

    def title(self, strategy: str) -> str:
        """What lines of progress and errors call a training of a strategy."""
        return f"strategy {strategy.upper()}"

    def embeddings(self, strategy: str, variant: str, seed: int) -> Path:
        """The embeddings of Kimia's train and test patches by one trained strategy."""
        return self.kept("embeddings", variant, f"seed{seed}", f"strategy_{strategy}.safetensors")

    def baseline(self, method: str, seed: int) -> Path:
        """Folder of one baseline: its embeddings, and its weights where it was trained."""
        return self.kept("baselines", method, f"seed{seed}")

    def downloaded(self, key: str) -> Path:
        """The note on what the model hub gave for a network, e.g. "model.backbone"; the manifest collects it."""
        return self.artifacts / "weights" / f"{key}.json"

    def measures(self, notebook: str) -> Path:
        """Numbers that a notebook found beside its tables; the manifest collects them."""
        return self.kept("measures", f"{notebook}.json")

    def computed_by(self, modules: str) -> dict:
        """What a computation by ``modules``, dotted, depends on beside its data and its own settings, for a hash.

        That is their code, the packages, and of ``compute`` what the last bits of a number follow from.
        """
        arithmetic = self.params.compute.model_dump(include={"fast", "precision", "threads"})
        return {"compute": arithmetic, "code": code_hash(f"import {modules}"), "lock": lock_hash()}

    # -- what it is -----------------------------------------------------------------------------------

    def variant(self, name: str) -> Toggles:
        """The settings of a variant, with the toggles that the parameters set one by one."""
        chosen = {k: v for k, v in self.params.model.toggles.model_dump().items() if v is not None}
        return VARIANTS[name].model_copy(update=chosen)

    def variant_label(self, name: str) -> str:
        """A variant as tables name it: with the toggles that make it differ from what its name promises."""
        promised = dict(VARIANTS[name])
        return " ".join([name, *(f"{key}={value}" for key, value in self.variant(name) if value != promised[key])])

    def parent(self, strategy: str) -> str | None:
        """The strategy that this one starts from, None for A. A study of single ledger rows trains fewer of them."""
        return CURRICULUM[strategy][1]

    @property
    def label(self) -> str:
        """What every table and figure says on its face about its data."""
        faulty = "; faulty files left out" if plain(self.params).data.faulty_files == "leave_out" else ""
        return f"profile {self.params.profile}: {self.origin}{faulty}"

    @property
    def origin(self) -> str:
        """Where the data are from: given, or synthetic; an archive alone has vectors and no data."""
        params = plain(self.params)
        vectors = "archive" in params.systems and params.archive.embeddings is None
        used = {name for system in params.systems for name in USED.get(system, DATASETS)}
        may_be_made = used & {*params.data.synthetic.datasets}
        made = [name for name in DATASETS if name in may_be_made and self.is_synthetic(name)]
        if SEARCHED in made or (made and used == {*made}):
            return "DEMO, synthetic tissue, not comparable with the paper"
        if not used:
            return "synthetic vectors" if vectors else "given embeddings"
        made += ["vectors"] if vectors else []
        return f"given data, except synthetic {', '.join(made)}" if made else "given data"
