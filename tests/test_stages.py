"""Stages: what each leaves, and what makes one run again."""

import json
import os
import shutil

import pytest

from lgffem_core import code_version, stages
from lgffem_core.code_version import LAYERS, source_files
from lgffem_core.stages import NOTEBOOKS, Request, all_stages, stage_name, stage_outputs, stamp
from lgffem_core.study import PROJECT, Study

STRATEGIES = {"a": "03_strategy_a_imagenet", "b": "04_strategy_b_pannuke", "c": "05_strategy_c_kimia"}


def study(root=PROJECT, **overrides):
    overrides = {key.replace("__", "."): value for key, value in overrides.items()}
    return Study.load(PROJECT / "params" / "demo.yaml", overrides, root=root)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of notebooks and code that a test may change."""
    shutil.copytree(PROJECT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*"))
    shutil.copytree(PROJECT / "params", tmp_path / "params")
    shutil.copytree(PROJECT / "lgffem_core", tmp_path / "lgffem_core", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(stages, "PROJECT", tmp_path)
    monkeypatch.setattr(code_version, "PROJECT", tmp_path)
    code_version.code_hash.cache_clear()
    yield tmp_path
    code_version.code_hash.cache_clear()


def stamps(**overrides):
    code_version.code_hash.cache_clear()  # as in a new process
    mine = study(**overrides)
    return {notebook: stamp(mine, notebook) for notebook in NOTEBOOKS}


def changed(before, **overrides):
    """The notebooks whose stamp is not the one before."""
    return {notebook for notebook, value in stamps(**overrides).items() if value != before[notebook]}


# -- outputs ---------------------------------------------------------------------------------------------


def test_no_file_is_left_by_two_stages():
    mine = study(variants=["paper", "released"], seeds=[0, 1])
    files = [file for stage in all_stages(mine) for file in stage_outputs(mine, *stage)]
    assert len(files) == len(set(files))
    assert all(file.is_relative_to(mine.artifacts) or file.is_relative_to(mine.results) for file in files)


def test_names_of_stages_are_unique_and_say_what_runs():
    names = [stage_name(*stage) for stage in all_stages(study(variants=["paper", "released"], seeds=[0, 1]))]
    assert len(names) == len(set(names)) == 8 + 3 * 4
    assert "03_strategy_a_imagenet_released_seed1" in names and "01_data_preparation" in names


def test_stages_come_in_an_order_in_which_they_can_run():
    order = [notebook for notebook, variant, seed in all_stages(study(variants=["paper"]))]
    assert order == sorted(order) == list(NOTEBOOKS)


def test_every_stage_has_its_notebook():
    for notebook in NOTEBOOKS:
        assert (PROJECT / "notebooks" / f"{notebook}.ipynb").is_file()


def test_a_strategy_leaves_weights_and_history_where_the_study_looks_for_them():
    mine = study()
    for strategy, notebook in STRATEGIES.items():
        outputs = stage_outputs(mine, notebook, "paper", 0)
        assert mine.checkpoints(strategy, "paper", 0) / "model.safetensors" in outputs


# -- stamps ----------------------------------------------------------------------------------------------


def test_stamps_stay_as_long_as_nothing_changes(project):
    before = stamps()
    assert changed(before) == set()
    assert len(set(before.values())) == len(before)


def test_a_code_cell_changes_its_own_stage_only(project):
    before = stamps()
    for notebook in NOTEBOOKS:
        path = project / "notebooks" / f"{notebook}.ipynb"
        original = path.read_text(encoding="utf-8")
        content = json.loads(original)
        next(cell for cell in content["cells"] if cell["cell_type"] == "code")["source"].append("\nx = 1")
        path.write_text(json.dumps(content), encoding="utf-8")
        assert changed(before) == {notebook}
        path.write_text(original, encoding="utf-8")


def test_prose_and_outputs_change_nothing(project):
    before = stamps()
    for notebook in NOTEBOOKS:
        path = project / "notebooks" / f"{notebook}.ipynb"
        content = json.loads(path.read_text(encoding="utf-8"))
        for cell in content["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = ["Other words."]
            else:
                cell["outputs"], cell["execution_count"] = [{"output_type": "stream", "name": "stdout", "text": "1"}], 7
        path.write_text(json.dumps(content), encoding="utf-8")
    assert changed(before) == set()


@pytest.mark.parametrize("layer", LAYERS)
def test_code_changes_the_stages_of_its_layer_and_those_to_its_right(project, layer):
    before = stamps()
    (project / "lgffem_core" / layer / "new_module.py").write_text("x = 1\n")
    right = LAYERS[LAYERS.index(layer) :]
    assert changed(before) == {notebook for notebook, its in NOTEBOOKS.items() if its in right}


@pytest.mark.parametrize("name", ["params.py", "study.py", "seeds.py", "files.py"])
def test_shared_code_changes_every_stage(project, name):
    before = stamps()
    with open(project / "lgffem_core" / name, "a") as file:
        file.write("\n# more\n")
    assert changed(before) == set(NOTEBOOKS)


def test_a_published_value_changes_the_stages_that_print_it(project):
    before = stamps()
    with open(project / "params" / "reference" / "table2.yaml", "a") as file:
        file.write("# checked\n")
    assert changed(before) == {notebook for notebook, layer in NOTEBOOKS.items() if layer == "report"}


def test_the_command_line_changes_no_stage(project):
    before = stamps()
    (project / "lgffem_core" / "cli.py").write_text("")
    assert changed(before) == set()


def test_a_running_process_keeps_the_code_version_it_started_with(project):
    stamps()
    before = stamp(study(), "05_strategy_c_kimia")
    (project / "lgffem_core" / "training" / "new_module.py").write_text("x = 1\n")
    assert stamp(study(), "05_strategy_c_kimia") == before


TRAINING, TABLES = set(STRATEGIES.values()), {"07_faiss_evaluation", "10_protocol_audit"}
EVALUATION = TABLES | {"08_grad_cam", "09_projection"}  # of LGFFEM
BASELINES, LEDGER = {"06_baselines"}, {"11_ledger"}


@pytest.mark.parametrize(
    ("key", "value", "again"),
    [
        ("data.synthetic.seed", 5, {"01_data_preparation"} | TRAINING | BASELINES | EVALUATION | LEDGER),
        ("model.neck.layers", 2, {"02_model_definition"} | TRAINING | BASELINES | EVALUATION | LEDGER),
        ("training.batch_size", 16, TRAINING | EVALUATION | LEDGER),
        ("training.a.epochs", 9, TRAINING | EVALUATION | LEDGER),
        ("training.b.epochs", 9, TRAINING - {STRATEGIES["a"]} | EVALUATION | LEDGER),
        ("training.c.epochs", 9, {STRATEGIES["c"]} | EVALUATION | LEDGER),
        ("baselines.ma_ms.epochs", 9, TABLES | BASELINES),
        ("retrieval.bootstrap", 9, TABLES | BASELINES | LEDGER),
        ("ledger.epochs", 9, LEDGER),
        ("explain.patches", 9, {"08_grad_cam"}),
        ("projection.method", "pca", {"09_projection"}),
        ("seeds", [0, 1], {"02_model_definition"} | BASELINES | EVALUATION | LEDGER),
    ],
)
def test_a_parameter_changes_the_stages_that_depend_on_it(key, value, again):
    assert changed(stamps(), **{key: value}) == again


def test_a_changed_image_of_the_user_prepares_the_data_again(tmp_path):
    patch = tmp_path / "kimia" / "train" / "s0" / "1.jpg"
    patch.parent.mkdir(parents=True)
    patch.write_bytes(b"one")
    root = str(tmp_path / "kimia")
    before = stamps(data__kimia__root=root)
    assert changed(before, data__kimia__root=root) == set()
    patch.write_bytes(b"other bytes")
    assert changed(before, data__kimia__root=root) == {"01_data_preparation"}
    patch.write_bytes(b"one")
    os.utime(patch, ns=(1, 1))
    (patch.parent / "2.jpg").write_bytes(b"two")
    assert changed(before, data__kimia__root=root) == {"01_data_preparation"}


def test_a_layer_imports_only_from_those_left_of_it():
    """What ``code_version`` relies on: else a stage could depend on code that its stamp does not see."""
    for position, layer in enumerate(LAYERS):
        for path in (PROJECT / "lgffem_core" / layer).glob("*.py"):
            for line in path.read_text().splitlines():
                for right in LAYERS[position + 1 :]:
                    assert f"lgffem_core.{right}" not in line.split("#")[0], f"{path}: {line}"


def test_source_files_grow_from_left_to_right():
    for left, right in zip(LAYERS, LAYERS[1:], strict=False):
        assert set(source_files(left)) < set(source_files(right))
    assert "lgffem_core/training/loop.py" not in source_files("model")


# -- requests --------------------------------------------------------------------------------------------


def test_a_request_passes_through_a_file(tmp_path):
    request = Request("params/smoke.yaml", {"training.a.epochs": 7, "data.kimia.root": "/tiles"})
    again = Request.read(request.write(tmp_path / "request.json"))
    assert again == request
    assert again.study.params.profile == "smoke" and again.study.params.training.a.epochs == 7
