"""What a stage reads: noted, and refused by name where it is not declared. Whole stages: test_end_to_end."""

import os

import pytest

from lgffem_core.base.errors import StudyError
from lgffem_core.base.project import PROJECT
from lgffem_core.config.parameter_files import leaves
from lgffem_core.config.params import Params
from lgffem_core.config.study import Study
from lgffem_core.config.watched import FREE, VARIABLE, plain, watching
from lgffem_core.data import patch_table
from lgffem_core.systems.lgffem.ledger import read_ledger, readings

DECLARED = {
    "notebook": "08_grad_cam",
    "params": ["model", "training.lr", "seeds", "published.training"],
    "data": ["kimia"],
    "left": {
        "checkpoints/paper/seed0/strategy_a/model.safetensors": "03_strategy_a_imagenet",
        "checkpoints/paper/seed0/strategy_a/history.csv": "03_strategy_a_imagenet",
        "checkpoints/paper/seed0/strategy_b/model.safetensors": "04_strategy_b_pannuke",
        "measures/08_grad_cam.json": "08_grad_cam",
    },
    "allowed": [
        "checkpoints/paper/seed0/strategy_a/model.safetensors",
        "checkpoints/paper/seed0/strategy_a/history.csv",
        "measures/08_grad_cam.json",
    ],
}


def smoke(**overrides):
    return Study.load(PROJECT / "params" / "smoke.yaml", overrides)


@pytest.fixture
def reads(tmp_path):
    """As in a stage's kernel; gives what was read so far."""
    with watching(DECLARED, tmp_path / "08_grad_cam.declared") as noted:
        yield noted


def test_a_file_that_no_stage_leaves_is_refused(reads):
    assert smoke().kept("checkpoints", "paper", "seed0", "strategy_a").name == "strategy_a"
    for parts in (("baselines", "new", "seed0"), ("checkpoints", "paper", "seed0", "strategy_a", "other.csv")):
        with pytest.raises(StudyError) as caught:
            smoke().kept(*parts)
        assert str(caught.value) == (
            f"notebook 08_grad_cam keeps {'/'.join(parts)}, which by notebooks/stages.yaml no stage of the run leaves; "
            "add it to its leaves there."
        )


def test_outside_a_stage_nothing_is_watched(tmp_path):
    assert isinstance(smoke().params, Params)
    with watching(DECLARED, tmp_path / "x.declared"):
        assert not isinstance(smoke().params, Params)
    assert isinstance(smoke().params, Params) and VARIABLE not in os.environ and not list(tmp_path.iterdir())


def test_what_is_declared_is_read_and_noted_once(reads):
    study = smoke()
    assert study.params.seeds == (0,) and study.params.model.neck.layers == 2 and study.params.seeds == (0,)
    assert reads()["params"] == ["model.neck.layers", "seeds"]


@pytest.mark.parametrize(
    "read",
    [
        lambda study: study.params.training.b.lr,
        lambda study: getattr(study.params.training.b, "lr", None),
        lambda study: study.params.training.model_dump(include={"b"}),
        lambda study: study.params.training.model_dump(exclude={"lr"}),
        lambda study: dict(study.params.training.b),
        lambda study: study.params.retrieval.bootstrap,
    ],
)
def test_what_is_not_declared_is_refused_with_notebook_and_key(reads, read):
    with pytest.raises(StudyError) as caught:
        read(smoke())
    sentence = str(caught.value)
    assert sentence.startswith("notebook 08_grad_cam reads ") and sentence.endswith("add it to its params there.")
    assert any(f" {key}, which notebooks/stages.yaml does not name for it" in sentence for key in keys())


def smoke_params():
    return plain(smoke().params)


def keys():
    """The dotted keys of all its parameters."""
    return leaves(smoke_params().model_dump())


def test_the_sentence_of_a_parameter(reads):
    with pytest.raises(StudyError) as caught:
        smoke().params.training.b.lr  # noqa: B018
    assert str(caught.value) == (
        "notebook 08_grad_cam reads training.b.lr, which notebooks/stages.yaml does not name for it; add it to its "
        "params there."
    )


def test_a_dump_reads_what_it_gives(reads):
    given = smoke().params.model.model_dump(exclude={"backbone": {"weights"}, "toggles": True})
    assert given == smoke_params().model.model_dump(exclude={"backbone": {"weights"}, "toggles": True})
    noted = reads()["params"]
    assert "model.backbone.options" in noted and "model.backbone.weights" not in noted
    assert set(noted) == {key for key in keys() if key.startswith("model.")} - {
        "model.backbone.weights", *(key for key in keys() if key.startswith("model.toggles")),
    }  # fmt: skip


def test_a_key_that_changes_no_result_is_free_and_each_is_a_key(reads):
    assert set(FREE) < set(keys())
    study = smoke()
    assert study.params.compute.workers == 0 and study.params.data.kimia.root is None
    assert study.label and study.artifacts and study.data_root("kimia") and study.is_synthetic("kimia")
    assert reads() == {"after": [], "data": [], "params": []}


def test_an_unknown_key_is_no_attribute(reads):
    assert getattr(smoke().params.model, "options", "none") == "none"


def test_the_papers_own_parameters_are_declared_apart(reads):
    assert Study.published().params.training.a.epochs == 60
    assert reads()["params"] == ["published.training.a.epochs"]
    with pytest.raises(StudyError, match=r"reads published\.retrieval\.bootstrap, .* add it to its published there"):
        Study.published().params.retrieval.bootstrap  # noqa: B018


def test_a_study_made_from_another_is_watched_too(reads):
    row = next(row for row in read_ledger() if row.trains == ("c",))
    with pytest.raises(StudyError, match="reads ledger.epochs"):
        readings(smoke(), row)


def test_a_data_set_that_is_not_declared_is_refused(reads):
    smoke().reads("kimia")
    with pytest.raises(StudyError, match="08_grad_cam reads data set pannuke, .* add it to its data there"):
        patch_table(smoke(), "pannuke")
    assert reads()["data"] == ["kimia"]


def test_files_of_a_stage_that_does_not_come_before_are_refused(reads):
    study = smoke()
    study.measures("08_grad_cam"), study.checkpoints("a", "paper", 0)
    assert reads()["after"] == ["03_strategy_a_imagenet"]
    with pytest.raises(StudyError) as caught:
        study.checkpoints("b", "paper", 0)
    assert str(caught.value) == (
        "notebook 08_grad_cam reads checkpoints/paper/seed0/strategy_b of stage 04_strategy_b_pannuke, after which it "
        "does not come; add 04_strategy_b_pannuke to its after there."
    )


def test_a_copy_reads_all_that_it_holds(reads):
    copy = smoke().params.model.neck.model_copy(update={"layers": 7})
    assert copy.layers == 7 and len(reads()["params"]) == 4
    with pytest.raises(StudyError, match="reads projection.method"):
        smoke().params.projection.model_copy()
