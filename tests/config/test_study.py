"""The study: variants and their toggles, and the paths that follow from a profile."""

import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import yaml

from lgffem_core.base.errors import RequestError
from lgffem_core.base.project import OUTPUT, PROJECT
from lgffem_core.config import code_version, study
from lgffem_core.config.code_version import UNRELATED
from lgffem_core.config.params import DATASETS
from lgffem_core.config.study import CURRICULUM, VARIANTS, Study
from lgffem_core.run.stages import known

DEMO = PROJECT / "params" / "demo.yaml"
TOGGLES = {  # the value of variant paper, and of variant released
    "loss_scale": ("s", "margin"),
    "grn": ("channels", "width"),
    "head_norm": (False, True),
    "fusion_relu": (True, False),
    "normalize_embedding": (False, False),  # a third reading, ours
}


def demo(**overrides):
    """The demo study; "__" stands for the dot of a key."""
    return Study.load(DEMO, {key.replace("__", "."): value for key, value in overrides.items()}, root=Path("/study"))


def test_the_variants_are_the_two_columns_of_the_ledger():
    for column, name in enumerate(("paper", "released")):
        assert dict(demo().variant(name)) == {key: values[column] for key, values in TOGGLES.items()}


@pytest.mark.parametrize("toggle", TOGGLES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_toggle_switches_alone(variant, toggle):
    for value in {*TOGGLES[toggle], True} if toggle == "normalize_embedding" else TOGGLES[toggle]:
        toggled = demo(**{f"model.toggles.{toggle}": value}).variant(variant)
        assert toggled == VARIANTS[variant].model_copy(update={toggle: value})


def test_loading_does_not_change_the_overrides():
    overrides = {"training.a.epochs": 1}
    assert Study.load(DEMO, overrides).params.training.a.epochs == 1
    assert overrides == {"training.a.epochs": 1}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"seed": 1}, r"unknown parameter seed; did you mean seeds\?"),
        ({"training.batch": 1}, "unknown parameter training.batch; "),
        ({"seeds": [-1]}, "parameter seeds.0: "),
        ({"training": {"lr": "x"}}, "parameter training.lr: "),
    ],
)
def test_a_fault_names_the_key_and_whether_it_was_typed_or_stands_in_the_profile(tmp_path, given, said):
    with pytest.raises(RequestError, match=f"^--set: {said}"):
        demo(**given)
    tree = {"profile": "mine", **{key: value for key, value in given.items() if "." not in key}}
    tree |= {"training": {"batch": 1}} if "training.batch" in given else {}
    (file := tmp_path / "mine.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(RequestError, match=f"^{file}: {said}"):
        Study.load(file, {"retrieval.batch_size": 2})


# -- paths -------------------------------------------------------------------------------------------------


def test_outputs_lie_under_the_name_of_the_profile():
    study = demo(profile="mine")
    assert study.artifacts == Path("/study/artifacts/mine") and study.results == Path("/study/results/mine")
    assert study.index("kimia") == Path("/study/artifacts/mine/index/kimia.csv")
    assert study.checkpoints("b", "paper", 3) == Path("/study/artifacts/mine/checkpoints/paper/seed3/strategy_b")


def test_no_two_runs_share_a_file():
    study = demo(variants=["paper", "released"], seeds=[0, 1])
    runs = list(product(CURRICULUM, study.params.variants, study.params.seeds))
    assert len({study.checkpoints(*run) for run in runs}) == len({study.embeddings(*run) for run in runs}) == 12


def test_relative_roots_count_from_the_project():
    study = demo(data__kimia__root="../tiles/kimia")
    assert study.data_root("kimia") == PROJECT.parent / "tiles" / "kimia"
    assert demo(data__kimia__root="/tiles").data_root("kimia") == Path("/tiles")


def test_a_root_in_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert demo(data__kimia__root="~/tiles").data_root("kimia") == Path("/home/someone/tiles")


def test_resolve_keeps_null():
    assert demo().resolve(None) is None


# -- synthetic images --------------------------------------------------------------------------------------


def test_a_null_root_means_synthetic():
    study = demo(data__kimia__root="/tiles")
    assert [study.is_synthetic(name) for name in ("imagenet", "pannuke", "kimia")] == [True, True, False]


def test_synthetic_images_follow_their_settings():
    first, again, other = demo(), demo(), demo(data__synthetic__seed=1)
    assert first.data_root("kimia") == again.data_root("kimia") != other.data_root("kimia")
    assert first.data_root("kimia").is_relative_to(first.artifacts)
    assert first.data_root("kimia") == demo(training__a__epochs=1).data_root("kimia")


def drawing_files(folder):
    """The project's files that a fresh process has loaded once it has drawn synthetic scans."""
    code = "import sys, pathlib; from lgffem_core.config.params import Synthetic; "
    code += "from lgffem_core.data.sets import kimia; settings = Synthetic(image_size=32, kimia_train_per_scan=1); "
    code += f"kimia.SET.write_synthetic(settings, pathlib.Path({str(folder)!r})); "
    code += "print(*(m.__file__ for m in sys.modules.values() if m and "
    code += "m.__name__.startswith('lgffem_core')), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT)
    names = {Path(name).relative_to(PROJECT / "lgffem_core").as_posix() for name in done.stdout.split()}
    return names - set(UNRELATED)


def test_synthetic_images_follow_the_code_and_the_packages_that_draw_them(monkeypatch, tmp_path):
    before, files = demo().data_root("kimia"), drawing_files(tmp_path)
    drawn_by = ("sets/kimia", "sets/facts", "synthetic/make", "synthetic/tissue", "synthetic/nuclei")
    assert {"base/seeds.py", *(f"data/{name}.py" for name in drawn_by)} <= files
    for file in files:
        with monkeypatch.context() as patch:
            real = code_version.file_hash
            one = PROJECT / "lgffem_core" / file
            patch.setattr(code_version, "file_hash", lambda p, one=one, real=real: "new" if p == one else real(p))
            code_version.code_hash.cache_clear()
            assert demo().data_root("kimia") != before, file
        code_version.code_hash.cache_clear()
    monkeypatch.setattr(study, "lock_hash", lambda packages: f"other versions of {packages}")
    assert demo().data_root("kimia") != before


def test_synthetic_images_do_not_follow_code_that_cannot_draw(monkeypatch):
    before = demo().data_root("kimia")
    monkeypatch.setattr(code_version, "file_hash", lambda path, real=code_version.file_hash: (
        "new" if path.name in ("loop.py", "preparation.py", "study.py", "statistics.py") else real(path)
    ))  # fmt: skip
    code_version.code_hash.cache_clear()
    after = demo().data_root("kimia")
    code_version.code_hash.cache_clear()
    assert after == before


# -- labels ------------------------------------------------------------------------------------------------


def test_the_label_says_which_data_are_synthetic():
    roots = {f"data__{name}__root": "/tiles" for name in DATASETS}
    assert "DEMO" in demo().label and "not comparable" in demo().label
    assert demo(**roots).label == "profile demo: given data"
    assert demo(**roots | {"data__imagenet__root": None}).label.endswith("except synthetic imagenet")
    assert "DEMO" in demo(**roots | {"data__kimia__root": None}).label


def test_the_label_speaks_of_the_data_of_the_systems_that_are_run():
    """Records of a user's own are no demo because a profile could make the tissue of systems that it does not run."""
    assert demo(systems=["fgcr"], data__reports__root="/mine").label == "profile demo: given data"
    assert "DEMO" in demo(systems=["fgcr"], data__kimia__root="/mine").label
    both = demo(systems=["smse", "fgcr"], data__reports__root="/mine").label
    assert both == "profile demo: given data, except synthetic breakhis"

    read = {system: {*()} for system in study.USED}
    for entry in known().values():
        if entry.system:
            read[entry.system] |= {*entry.data}
    assert read == {system: {*sets} for system, sets in study.USED.items()}


def test_the_label_says_that_an_archives_vectors_were_generated():
    assert demo(systems=["archive"]).label == "profile demo: synthetic vectors"
    assert demo(systems=["archive"], archive__embeddings="/mine").label == "profile demo: given embeddings"
    beside = demo(systems=["fgcr", "archive"], data__reports__root="/mine").label
    assert beside == "profile demo: given data, except synthetic vectors"
    assert "DEMO" in demo(systems=["fgcr", "archive"]).label


def test_a_variant_says_which_toggles_make_it_another():
    plain = Study.load(PROJECT / "params" / "smoke.yaml")
    assert [plain.variant_label(name) for name in ("paper", "released")] == ["paper", "released"]
    toggled = Study.load(PROJECT / "params" / "smoke.yaml", {"model.toggles.head_norm": True})
    assert toggled.variant_label("paper") == "paper head_norm=True"
    assert toggled.variant_label("released") == "released"  # has it on anyway


def test_another_folder_for_what_is_made_is_named_in_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv(OUTPUT, str(tmp_path))
    study = Study.load(PROJECT / "params" / "demo.yaml")
    assert study.results == tmp_path / "results" / "demo" and study.artifacts == tmp_path / "artifacts" / "demo"
