"""Stages: what each leaves, and what makes one run again. Notebooks are not executed here; see ``run_as_planned``."""

import dataclasses
import importlib.metadata
import json
import os
import shutil
from typing import get_args

import pytest

from lgffem_core.base.errors import StudyError
from lgffem_core.base.files import sha256_file, sha256_json, write_json, write_text
from lgffem_core.base.project import PROJECT
from lgffem_core.config.code_version import (
    READ_BY,
    UNRELATED,
    code_hash,
    lock_hash,
    module_file,
    source_files,
)
from lgffem_core.config.machine import lock_file
from lgffem_core.config.params import DATASETS, System
from lgffem_core.config.study import Study
from lgffem_core.data.census import data_digest
from lgffem_core.run import stages
from lgffem_core.run.due import (
    code_cells,
    code_state,
    data_state,
    due,
    inputs,
    is_finished,
    key,
    raise_flags,
    stage_params,
)
from lgffem_core.run.registry import registry
from lgffem_core.run.stages import (
    Request,
    Stage,
    absent_systems,
    all_stages,
    failed_notebook,
    flag_file,
    note_file,
    stage_outputs,
    upstream,
)

LGFFEM = {"systems": ["lgffem"]}  # whose stages depend on one another
NOTEBOOKS = [entry.notebook for entry in stages.entries(Study.load(PROJECT / "params" / "demo.yaml", LGFFEM))]
STRATEGY_OF = {"03_strategy_a_imagenet": "a", "04_strategy_b_pannuke": "b", "05_strategy_c_kimia": "c"}
ALL = {name[:2] for name in NOTEBOOKS}  # "01" … "11"
TRAINING, TABLES = {"03", "04", "05"}, {"07", "10"}
MAKERS = {"06": "baselines.evaluation", "07": "lgffem.evaluation"}  # of weights and embeddings, in lgffem_core/systems
EVALUATION = TABLES | {"08", "09"}  # of LGFFEM


def forget():
    """What a new process would not know."""
    for cached in (code_hash, lock_hash, module_file):
        cached.cache_clear()


def contents(folder):
    """Every file below ``folder`` with its bytes."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def put_back(folder, before):
    """What was changed, added or taken away below ``folder`` is as ``before`` again; times of files are not."""
    after = contents(folder)
    for path in after.keys() - before.keys():
        path.unlink()
    for path in (path for path in before if before[path] != after.get(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(before[path])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a copy of notebooks, parameters, code and locks, and small data of a user's."""
    root = tmp_path_factory.mktemp("place")
    for name in ("notebooks", "params", "lgffem_core"):
        ignored = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(PROJECT / name, root / "project" / name, ignore=ignored)
    shutil.copy(PROJECT / "requirements.lock", root / "project")
    for name in ("imagenet/train/n0/n0_1.JPEG", "imagenet/train/n1/n1_1.JPEG", "pannuke/images/fold1_0_Breast.png"):
        write_text(root / "data" / name, name)
    for name in ("train/s0/1.jpg", "test/s0_1.jpg"):
        write_text(root / "data" / "kimia" / name, name)
    return root


def point_to(copy, patch):
    """Stages and their code are those of a copy from here on."""
    for module in ("run.due", "run.stages", "config.code_version"):
        patch.setattr(f"lgffem_core.{module}.PROJECT", copy)
    patch.setattr("lgffem_core.config.study.PROJECT", copy)  # of params/paper.yaml
    forget()


@pytest.fixture
def project(place, monkeypatch):
    """The copy, all of which a test may change, and the data beside it: it is put back behind the test."""
    before = contents(place)
    point_to(place / "project", monkeypatch)
    yield place / "project"
    put_back(place, before)
    forget()


@pytest.fixture(scope="module")
def everything(place):
    """What a run leaves, by path; it is in no test's way."""
    with pytest.MonkeyPatch.context() as patch:
        point_to(place / "project", patch)
        assert run_as_planned(study_of(place / "project")) == ALL
        found = contents(place / "out")
    shutil.rmtree(place / "out")
    return found


@pytest.fixture
def mine(everything, project):
    """The study, of which everything has run."""
    for path, content in everything.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return study_of(project)


def study_of(project, **overrides):
    roots = {f"data.{dataset}.root": str(project.parent / "data" / dataset) for dataset in DATASETS}
    return Study.load(PROJECT / "params" / "demo.yaml", LGFFEM | roots | overrides, root=project.parent / "out")


def content(study, stage):
    """Texts that stand for a stage's outputs, by path: another exactly where the real file would hold something else.

    An index is what the data are; weights and embeddings follow from the code that makes them, not from the cells
    that show them, and LGFFEM's embeddings from its weights and the patches alone.
    """
    whole, outputs = key(study, stage), stage_outputs(study, *stage)
    if stage.notebook == "01_data_preparation":
        indices = {path for path in outputs if path.is_relative_to(study.artifacts) and path.suffix == ".csv"}
        return {path: data_digest(study, path.stem) if path in indices else whole for path in outputs}
    module = MAKERS.get(stage.notebook[:2], "lgffem.strategies")
    shown = ("published", "retrieval", *(("training.b", "training.c") if stage.notebook[:2] == "03" else ()))
    params = {name: value for name, value in stage_params(study, stage.notebook).items() if not name.startswith(shown)}
    read = inputs(study, stage)
    if stage.notebook == "07_faiss_evaluation":
        params, read = {}, {name: digest for name, digest in read.items() if "baselines" not in name}
    made = sha256_json([params, read, code_hash(f"import lgffem_core.systems.{module}"), lock_hash()])
    return {path: made if path.is_relative_to(study.artifacts) else whole for path in outputs}


def run_as_planned(study):
    """What Snakemake and the notebooks do, without either: the numbers of the notebooks that ran, as "03"."""
    forget()
    ran = set()
    for stage in due(study):
        if is_finished(study, stage):
            continue
        before = {"key": key(study, stage), "inputs": inputs(study, stage)}
        for path, text in content(study, stage).items():
            write_text(path, text)
        outputs = {p.relative_to(study.root).as_posix(): sha256_file(p) for p in stage_outputs(study, *stage)}
        write_json(note_file(study, stage), {**before, "data": data_state(study, stage), "outputs": outputs})
        ran.add(stage.notebook[:2])
    assert due(study) == []
    return ran


# -- outputs ---------------------------------------------------------------------------------------------


def demo(**overrides):
    return Study.load(PROJECT / "params" / "demo.yaml", overrides)


def test_no_file_is_left_by_two_stages():
    mine = demo(variants=["paper", "released"], seeds=[0, 1])
    files = [file for stage in all_stages(mine) for file in stage_outputs(mine, *stage)]
    assert len(files) == len(set(files))
    assert all(file.is_relative_to(mine.artifacts) or file.is_relative_to(mine.results) for file in files)


def test_names_of_stages_are_unique_and_say_what_runs():
    mine = demo(variants=["paper", "released"], seeds=[0, 1])
    names = [stage.name for stage in all_stages(mine)]
    assert len(names) == len(set(names)) == len(stages.entries(mine)) + 3 * 3  # three run four times each
    assert "03_strategy_a_imagenet_released_seed1" in names and "01_data_preparation" in names


def test_every_notebook_is_a_stage_and_comes_after_what_it_reads():
    mine = demo(variants=["paper", "released"], systems=[*get_args(System)])
    order = all_stages(mine)
    assert {stage.notebook for stage in order} == {path.stem for path in (PROJECT / "notebooks").glob("*.ipynb")}
    assert all(order.index(earlier) < order.index(stage) for stage in order for earlier in upstream(mine, stage))


def test_a_strategy_leaves_weights_and_history_where_the_study_looks_for_them():
    mine = demo()
    for notebook, strategy in STRATEGY_OF.items():
        outputs = stage_outputs(mine, notebook, "paper", 0)
        assert mine.checkpoints(strategy, "paper", 0) / "model.safetensors" in outputs


# -- what runs again -------------------------------------------------------------------------------------


def test_first_everything_runs_then_nothing(project):
    mine = study_of(project)
    assert run_as_planned(mine) == ALL
    assert run_as_planned(mine) == set()


def edit_cell(project, notebook, kind, text="\nx = 1"):
    path = project / "notebooks" / f"{notebook}.ipynb"
    tree = json.loads(path.read_text(encoding="utf-8"))
    next(cell for cell in tree["cells"] if cell["cell_type"] == kind)["source"].append(text)
    path.write_text(json.dumps(tree), encoding="utf-8")


def test_a_code_cell_runs_its_own_notebook_only_and_prose_nothing(project, mine):
    for notebook in NOTEBOOKS:
        edit_cell(project, notebook, "markdown")
        assert run_as_planned(mine) == set()
        edit_cell(project, notebook, "code")
        assert run_as_planned(mine) == {notebook[:2]}


@pytest.mark.parametrize(
    ("module", "again"),
    [
        ("lgffem_core/data/augment.py", ALL),
        ("lgffem_core/data/sets/kimia.py", {"01"}),
        ("lgffem_core/systems/lgffem/neck.py", ALL - {"01", "06"}),
        ("lgffem_core/systems/baselines/networks.py", {"06", "07", "10"}),
        ("lgffem_core/training/loop.py", TRAINING | {"06", "11"} | EVALUATION),
        ("lgffem_core/systems/baselines/ma_ms.py", {"06", "07", "10"}),
        ("lgffem_core/audit/leakage.py", {"10"}),
        ("lgffem_core/systems/lgffem/figures/cam_figures.py", {"08"}),
        ("lgffem_core/systems/lgffem/figures/ledger_effects.py", {"11"}),
        ("lgffem_core/retrieval/projection.py", {"09"}),
        ("params/reference/ledger.yaml", {"10", "11"}),
        ("params/reference/table1_runs.yaml", {"10"}),
        ("requirements.lock", set()),
        ("lgffem_core/run/cli.py", set()),
        ("lgffem_core/config/params.py", set()),
        ("lgffem_core/config/systems.py", set()),
    ],
)
def test_code_runs_again_what_uses_it(project, mine, module, again):
    with open(project / module, "a") as file:
        file.write("\nmore = 1\n" if module.endswith(".py") else "\n# more\n")
    assert run_as_planned(mine) == again


def test_comments_docstrings_and_layout_everywhere_run_nothing_again(project, mine):
    for path in (project / "lgffem_core").rglob("*.py"):
        source = path.read_text(encoding="utf-8").replace('"""', '"""More: ', 1)  # the first is a docstring's
        path.write_text(f"# more\n\n{source}\n# more\n", encoding="utf-8")
    for notebook in NOTEBOOKS:
        edit_cell(project, notebook, "code", "\n\n# more\n")
    assert run_as_planned(mine) == set()


@pytest.mark.parametrize(
    ("before", "after", "again"),
    [
        ("{minutes: 2880, gpu: true}", "{memory: 99, minutes: 9}", set()),
        ("title: Table 1\n", "title: Table 9\n", {"01"}),
    ],
)
def test_what_a_stage_asks_a_cluster_for_runs_nothing_again(project, mine, before, after, again):
    entries = project / "notebooks" / "stages.yaml"
    text = entries.read_text(encoding="utf-8")
    assert text.count(before) == 1
    entries.write_text(text.replace(before, after), encoding="utf-8")
    registry.cache_clear()
    try:
        assert run_as_planned(mine) == again
    finally:
        registry.cache_clear()


@pytest.mark.parametrize(
    ("dataset", "file", "again"),
    [
        ("imagenet", "train/n0/n0_1.JPEG", {"01"} | TRAINING | EVALUATION),
        ("pannuke", "images/fold1_0_Breast.png", {"01", "04", "05", "11"} | EVALUATION),
        ("kimia", "test/s0_1.jpg", {"01", "02", "05", "06", "11"} | EVALUATION),
    ],
)
def test_one_byte_of_data_runs_again_what_was_made_from_it(project, mine, dataset, file, again):
    path = project.parent / "data" / dataset / file
    status = path.stat()
    os.utime(path, ns=(1, 1))
    assert run_as_planned(mine) == set(), "only the time changed"
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert run_as_planned(mine) == again


@pytest.mark.usefixtures("mine")
def test_data_in_another_folder_are_prepared_and_nothing_else_runs(project):
    shutil.copytree(project.parent / "data" / "kimia", project.parent / "moved")
    assert run_as_planned(study_of(project, **{"data.kimia.root": str(project.parent / "moved")})) == {"01"}


@pytest.mark.parametrize(
    ("parameter", "value", "again"),
    [
        ("model.neck.layers", 2, ALL - {"01", "06"}),
        ("model.image_size", 64, ALL),
        ("data.check_counts", True, {"01", "10", "11"}),
        ("training.batch_size", 16, TRAINING | EVALUATION | {"11"}),
        ("training.a.epochs", 9, TRAINING | EVALUATION),
        ("training.b.epochs", 9, TRAINING | EVALUATION | {"11"}),  # notebook 03 shows every strategy's
        ("training.c.epochs", 9, {"03", "05", "11"} | EVALUATION),
        ("baselines.ma_ms.epochs", 9, TABLES | {"06"}),
        ("retrieval.bootstrap", 900, TABLES | {"06", "11"}),
        ("retrieval.batch_size", 9, ALL - {"01", "02", "03"}),
        ("ledger.epochs", 9, {"11"}),
        ("explain.patches", 9, {"08"}),
        ("projection.method", "pca", {"09"}),
        ("compute.threads", 2, ALL - {"01"}),
        ("compute.workers", 2, set()),
        ("compute.cache", 0, set()),
    ],
)
@pytest.mark.usefixtures("mine")
def test_a_parameter_runs_again_what_depends_on_it(project, parameter, value, again):
    assert run_as_planned(study_of(project, **{parameter: value})) == again


@pytest.mark.parametrize(
    ("before", "after", "again"),
    [("layers: 3", "layers: 2", {"02", "10"}), ("a: {epochs: 60", "a: {epochs: 61", {"03", "10"})],
)
def test_another_published_schedule_runs_again_what_is_compared_with_it(project, mine, before, after, again):
    paper = project / "params" / "paper.yaml"
    text = paper.read_text()
    assert before in text
    paper.write_text(text.replace(before, after))
    assert run_as_planned(mine) == again


def test_another_seed_runs_its_own_trainings_and_what_averages_over_seeds(project, mine):
    more = study_of(project, seeds=[0, 1])
    trained = [mine.checkpoints(s, "paper", 0) / "model.safetensors" for s in "abc"]
    before = [path.stat().st_mtime_ns for path in trained]
    assert run_as_planned(more) == ALL - {"01", "02"}
    assert [path.stat().st_mtime_ns for path in trained] == before


def test_other_weights_of_the_backbone_at_the_same_place_train_again(project):
    weights = write_text(project.parent / "weights.safetensors", "one")
    mine = study_of(project, **{"model.backbone.weights": str(weights)})
    run_as_planned(mine)
    weights.write_text("two")
    assert run_as_planned(mine) == ALL - {"01", "06"}


@pytest.mark.parametrize("damage", ["edited", "removed"])
def test_a_file_that_is_not_as_it_was_left_is_made_again(mine, damage):
    for stage in all_stages(mine):
        path = stage_outputs(mine, *stage)[-1]
        path.unlink() if damage == "removed" else path.write_text("by hand")
        assert run_as_planned(mine) == {stage.notebook[:2]}


@pytest.mark.parametrize("left", ["", "{", "[]", '{"key": 1}', "without outputs"])
def test_a_damaged_note_does_not_pass_for_a_finished_stage(mine, left):
    stage = Stage("08_grad_cam")
    if left == "without outputs":
        left = note_file(mine, stage).read_text().replace('"outputs"', '"output"')
    note_file(mine, stage).write_text(left)
    assert due(mine) == [stage]


def test_flags_are_there_for_what_is_finished_and_for_nothing_else(project):
    mine = study_of(project)
    assert raise_flags(mine) == all_stages(mine)
    assert not any(flag_file(mine, *stage).exists() for stage in all_stages(mine))
    run_as_planned(mine)
    stage_outputs(mine, "07_faiss_evaluation")[0].unlink()
    of_another_seed = Stage("03_strategy_a_imagenet", "paper", 77)
    copies = [write_text(failed_notebook(mine, Stage(name)), "{}") for name in ("06_baselines", "09_projection")]
    copies.insert(0, write_text(failed_notebook(mine, of_another_seed), "{}"))
    waiting = raise_flags(mine)
    assert [copy.exists() for copy in copies] == [False, False, True]  # finished, or not asked for: nothing to look at
    assert [stage.notebook[:2] for stage in waiting] == ["07", "09", "10"]
    assert all(flag_file(mine, *stage).exists() == (stage not in waiting) for stage in all_stages(mine))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n%matplotlib inline", r"invalid syntax, line 2 of its code, '%matplotlib inline'\); mend it"),
        ("x = (", r"'\(' was never closed, line 1 of its code, 'x = \('\); mend it"),
        ("x = 1\0", "null bytes"),
        ("x = " + "+".join(["1"] * 20_000), "recursion"),
        ("x = " + "+".join(["1"] * 2000), "recursion"),  # which Python itself follows
    ],
)
def test_what_is_not_python_is_named_with_its_notebook(project, text, said):
    path = project / "notebooks" / "02_model_definition.ipynb"
    tree = json.loads(path.read_text())
    next(cell for cell in tree["cells"] if cell["cell_type"] == "code")["source"] = [text]
    path.write_text(json.dumps(tree))
    with pytest.raises(StudyError, match=said) as caught:
        key(study_of(project), Stage("02_model_definition"))
    assert str(caught.value).startswith(f"{path}: is not Python (")


@pytest.mark.parametrize(
    "damage",
    [
        lambda tree: tree["cells"][0].pop("cell_type"),
        lambda tree: tree["cells"][0].pop("source"),
        lambda tree: tree["cells"][1].update(source=3),
        lambda tree: tree.pop("cells"),
        lambda tree: tree.update(cells={}),
        lambda tree: tree["cells"][1].update(source={"x": 1}),
        lambda tree: tree["cells"][0].pop("metadata"),
        lambda tree: tree.pop("metadata"),
        lambda tree: tree.pop("nbformat"),
    ],
)
def test_a_notebook_that_is_none_is_named(project, damage):
    path = project / "notebooks" / "02_model_definition.ipynb"
    damage(tree := json.loads(path.read_text()))
    for text in (json.dumps(tree), "[" * 100_000, "{"):
        path.write_text(text)
        with pytest.raises(StudyError, match="is no notebook, or a damaged one; restore it") as caught:
            key(study_of(project), Stage("02_model_definition"))
        assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("added", "said"),
    [
        (b"\nx = (\n", r", line \d+: is not Python \('\(' was never closed\)"),
        (b"\nx = '\xe9'\n", r", line \d+: is not Python \(.*codec can't decode byte 0xe9"),
        (b"\nx = " + b"+".join([b"1"] * 2000), r": cannot be followed \(maximum recursion"),  # though Python can
    ],
)
def test_a_module_that_cannot_be_read_is_named_by_every_stage_that_uses_it(project, added, said):
    path = project / "lgffem_core" / "systems" / "lgffem" / "neck.py"
    path.write_bytes(path.read_bytes() + added)
    with pytest.raises(StudyError, match=said) as caught:
        key(study_of(project), Stage("02_model_definition"))
    assert str(caught.value).startswith(str(path))


# -- which code ------------------------------------------------------------------------------------------


def test_imports_are_followed_as_python_follows_them(forked):
    """Against the interpreter: it loads nothing that is not counted, but for what the data package serves on demand."""
    program = "import sys, lgffem_core.audit.floor_tables; print(*sys.modules)"
    done = forked(PROJECT, "-c", program)
    assert done.returncode == 0, done.stderr
    loaded = {str(module_file(name)) for name in done.stdout.split() if name.startswith("lgffem_core")}
    counted = source_files("import lgffem_core.audit.floor_tables; from lgffem_core.data import prepare")
    assert len(loaded) > 20
    assert loaded <= {str(PROJECT / name) for name in (*counted, *(f"lgffem_core/{name}" for name in UNRELATED))}


def test_what_makes_the_index_counts_for_the_notebook_that_makes_it_only():
    makers = {f"lgffem_core/data/{name}.py" for name in ("preparation", "sets/kimia", "sets/base", "quarantine")}
    using = {notebook for notebook in NOTEBOOKS if makers & set(source_files(code_cells(notebook)))}
    assert using == {"01_data_preparation"}


def test_every_file_that_is_read_by_code_is_named_with_its_reader():
    named = {file for files in READ_BY.values() for file in files}
    assert all((PROJECT / file).is_file() for file in named)
    assert named >= {f"params/reference/{path.name}" for path in (PROJECT / "params" / "reference").iterdir()}
    assert all((PROJECT / "lgffem_core" / module).is_file() for module in (*READ_BY, *UNRELATED))


def test_a_running_process_keeps_the_code_version_it_started_with(project):
    mine, stage = study_of(project), Stage("02_model_definition")
    before = key(mine, stage)
    with open(project / "lgffem_core" / "systems" / "lgffem" / "neck.py", "a") as file:
        file.write("\nmore = 1\n")
    assert key(mine, stage) == before
    forget()
    assert key(mine, stage) != before


@pytest.mark.parametrize(
    ("note", "asked", "lock"),
    [
        ("requirements-gpu.lock\n", "", "requirements-gpu.lock"),
        ("requirements-gpu.lock\n", "requirements.lock", "requirements-gpu.lock"),
        ("", "requirements-gpu.lock", "requirements-gpu.lock"),
        (None, "", "requirements.lock"),
    ],
)
def test_the_lock_is_the_one_that_the_environment_was_made_from(monkeypatch, tmp_path, note, asked, lock):
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    monkeypatch.setenv("LGFFEM_LOCK", asked)
    (tmp_path / ".lock").touch()  # uv's own
    if note is not None:
        (tmp_path / ".made-from").write_text(note)
    assert lock_file() == PROJECT / lock


@pytest.mark.parametrize(
    ("package", "stages_run_again", "trained_again"),
    [("torch", True, True), ("albucore", True, True), ("matplotlib", True, False), ("rich", False, False)],
)
def test_another_version_runs_again_what_it_computes(mine, monkeypatch, package, stages_run_again, trained_again):
    stage = Stage("05_strategy_c_kimia", "paper", 0)
    before, real = lock_hash(), importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "9.9" if name == package else real(name))
    forget()
    assert is_finished(mine, stage) != stages_run_again and (lock_hash() != before) == trained_again


def test_which_systems_teach_counts_for_the_notebooks_that_have_cells_of_theirs(project):
    """Even where the same sets are needed: the executed notebook would lack their cells, or hold too many."""
    mine = study_of(project)
    other = dataclasses.replace(mine, params=mine.params.model_copy(update={"systems": ("another",)}))
    for notebook, matters in (("01_data_preparation", True), ("02_model_definition", False)):
        assert (code_state(notebook, absent_systems(mine)) != code_state(notebook, absent_systems(other))) == matters
    assert key(mine, Stage("01_data_preparation")) != key(other, Stage("01_data_preparation"))


def test_code_cells_are_python():
    assert all(compile(code_cells(notebook), notebook, "exec") for notebook in NOTEBOOKS)


# -- requests --------------------------------------------------------------------------------------------


def test_a_request_passes_through_a_file(tmp_path):
    request = Request("params/smoke.yaml", {"training.a.epochs": 7, "data.kimia.root": "/tiles"})
    again = Request.read(request.write(tmp_path / "request.json"))
    assert again == request
    assert again.study.params.profile == "smoke" and again.study.params.training.a.epochs == 7
