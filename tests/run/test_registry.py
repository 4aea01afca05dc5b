"""The registry of stages: what is refused in it, what follows from it, and that nothing can be left out of it.

``tests/data/reads.json`` holds what each stage of a smoke run read; ``test_end_to_end`` says that it still is.
"""

import json
import os
import re
import runpy
import subprocess
import sys
from contextlib import suppress
from typing import get_args

import pytest

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.base.files import read_json
from lgffem_core.base.project import PROJECT
from lgffem_core.config.parameter_files import leaves
from lgffem_core.config.params import DATASETS, System
from lgffem_core.config.study import Study
from lgffem_core.config.watched import FREE, REGISTRY, Declared, Watched, covers
from lgffem_core.data.sets import get as get_set
from lgffem_core.run import due, stages
from lgffem_core.run import registry as module
from lgffem_core.run.checklist import told_unread
from lgffem_core.run.cli import main
from lgffem_core.run.registry import artefacts_of, registry
from lgffem_core.run.runner import snakemake_command
from lgffem_core.run.stages import Request, Stage, all_stages, declared, needed_sets, stage_outputs, unread, upstream

READS = read_json(PROJECT / "tests" / "data" / "reads.json")
TEXT = (PROJECT / REGISTRY).read_text(encoding="utf-8")


def smoke(**overrides):
    """The profile with every system, as ``test_end_to_end`` runs it."""
    return Study.load(PROJECT / "params" / "smoke.yaml", {"systems": list(get_args(System)), **overrides})


def parameters():
    """The keys that a stage may read, but for those of data sets that no stage reads."""
    unused = tuple(f"data.{name}." for name in set(DATASETS) - {*needed_sets(smoke())})
    return {key for key in leaves(smoke().params.model_dump()) if not key.startswith(unused)}


# -- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        (
            "  each: variant and seed\n",
            "  each: seed\n",
            "stage 03_strategy_a_imagenet, each: Input should be 'once', ",
        ),
        (
            "  published: [training]\n",
            "  publishes: [training]\n",
            "stage 03_strategy_a_imagenet, publishes: Extra inputs",
        ),
        ("  data: [kimia]\n", "  data: [kimiya]\n", "stage 02_model_definition, data, .*kimiya is no data set"),
        (
            "  published: [training]\n",
            "  published: [trained]\n",
            "stage 03_strategy_a_imagenet, published, 0: trained is no parameter",
        ),
        ("  system: lgffem\n", "  system: ffnir\n", "stage 02_model_definition, system: Input should be .*'lgffem'"),
        ("      file: tables/data_report\n", "", "stage 01_data_preparation, artefacts, 0, file: Field required"),
        ("file: tables/data_report", "file: ../report", "stage 01_data_preparation, artefacts, 0, file: String should"),
        (
            "{minutes: 2880, gpu",
            "{minutes: 0, gpu",
            "stage 03_strategy_a_imagenet, resources, minutes: Input should be gr",
        ),
        ("{minutes: 2880, gpu", "{hours: 48, gpu", "stage 03_strategy_a_imagenet, resources, hours: Extra inputs"),
        ("{minutes: 2880, gpu: true}", "48 h", "stage 03_strategy_a_imagenet, resources: Input should be a valid dict"),
        ("  gives: –\n", "", "stage 02_model_definition, gives: Field required"),
        ("02_model_definition:", "model:", "stage model, notebook: String should match"),
        (
            "after: [01_data_preparation]",
            "after: [09_projection]",
            "stage 02_model_definition, after: 09_projection is",
        ),
        ("after: [01_data_preparation]", "after: [02_model_definition]", "after: 02_model_definition is no stage"),
        ("  data: all\n", "  data: all\n  system: lgffem\n", None),
    ],
)
def test_a_fault_names_file_stage_and_key(tmp_path, before, after, sentence):
    assert before in TEXT
    text = TEXT if sentence else TEXT.split("\n\n02_")[0]  # by itself, since other systems come after it
    (path := tmp_path / "stages.yaml").write_text(text.replace(before, after, 1), encoding="utf-8")
    if sentence is None:
        assert registry(path)["01_data_preparation"].system == "lgffem"
    else:
        with pytest.raises(RequestError, match=f"^{re.escape(str(path))}: .*{sentence}") as caught:
            registry(path)
        assert "\n" not in str(caught.value)


def test_a_broken_registry_ends_a_command_with_one_sentence(tmp_path, monkeypatch, capsys):
    (path := tmp_path / "stages.yaml").write_text("01_data_preparation: {teaches: much}\n")
    monkeypatch.setattr(stages, "registry", lambda _: registry(path))
    assert main([str(PROJECT / "params" / "smoke.yaml"), "--set", "profile=broken"]) == 2
    assert capsys.readouterr().err == f"error: {path}: stage 01_data_preparation, gives: Field required.\n"


def test_a_stage_that_is_none_is_refused(capsys):
    assert main(["notebook", "request.json", "99_nothing"]) == 2
    assert capsys.readouterr().err == "error: 99_nothing: no stage of notebooks/stages.yaml.\n"


@pytest.mark.parametrize("described", ["", "[]", "null", "'x'"])
def test_an_entry_that_is_none_is_refused(tmp_path, described):
    (path := tmp_path / "stages.yaml").write_text(f"01_data_preparation: {described}\n", encoding="utf-8")
    with pytest.raises(RequestError, match="stages.yaml: "):
        registry(path)


def test_a_stage_for_all_cannot_come_after_one_of_a_system(tmp_path):
    text = TEXT.replace("  system: lgffem\n  after: [01_data_preparation, 03", "  after: [01_data_preparation, 03", 1)
    (path := tmp_path / "stages.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(RequestError, match="04_strategy_b_pannuke, after: 03_strategy_a_imagenet is of another system"):
        registry(path)


# -- nothing can be left out ------------------------------------------------------------------------------


def reads_of(notebook):
    """What a stage read in the recorded run."""
    assert notebook in READS, f"tests/data/reads.json has no {notebook}; docs/extending.md says where its entry is from"
    return READS[notebook]


def below(names, of):
    return {key for key in of if any(covers(name, key) for name in names)}


@pytest.mark.parametrize("notebook", registry())
def test_what_is_declared_is_what_was_read(notebook):
    """Key by key; what the paper states counts by its sections."""
    entry, reads, known = registry()[notebook], reads_of(notebook), parameters()
    published = {key.removeprefix("published.").split(".")[0] for key in reads["params"] if covers("published", key)}
    assert below(entry.params, known) - FREE.keys() == set(reads["params"]) & known - FREE.keys()
    assert set(entry.published) == published
    assert {*entry.after, *entry.beside} == set(reads["after"])
    assert set(stages.sets_of(smoke(), entry)) == set(reads["data"])


def replay(notebook):
    """Ask what a stage asked in the recorded run."""
    may = Declared(**declared(smoke(), first(notebook)))
    reads = reads_of(notebook)
    for key in reads["params"]:
        may.read_param(key)
    for name in reads["data"]:
        may.read_data(name)
    for path in (path for path, owner in may.left.items() if owner in reads["after"]):
        may.read_path(path)


def first(notebook):
    return next(stage for stage in all_stages(smoke()) if stage.notebook == notebook)


def mutations():
    """(notebook, key of its entry, what is taken out, the value that is left), for every edge, parameter and set."""
    for notebook, entry in registry().items():
        for key in ("after", "beside", "params", "published", "data"):
            values = stages.sets_of(smoke(), entry) if key == "data" else getattr(entry, key)
            for gone in values:
                yield notebook, key, gone, tuple(value for value in values if value != gone)
        known = [key for key in sorted(parameters()) if entry.declares(key) and key not in FREE]
        for gone in known:  # of a section too, each parameter by itself
            yield notebook, "params", gone, tuple(key for key in known if key != gone)


def test_every_edge_parameter_and_data_set_that_is_taken_out_is_named(monkeypatch):
    for notebook in registry():
        replay(notebook)
    tried = 0
    for notebook, key, gone, left in mutations():
        entry = registry()[notebook].model_copy(update={key: left})
        with monkeypatch.context() as patch:
            patch.setattr(stages, "registry", lambda path, n=notebook, e=entry: {**registry(path), n: e})
            with pytest.raises(StudyError) as caught:
                replay(notebook)
        sentence = str(caught.value)
        assert sentence.startswith(f"notebook {notebook} reads ") and gone in sentence, (notebook, key, gone, sentence)
        tried += 1
    assert tried >= 700


# -- what follows from it ---------------------------------------------------------------------------------


def test_the_papers_artefacts_come_first_in_its_order():
    titles = [artefact.title for artefact in artefacts_of(registry().values())]
    assert titles[:9] == ["Table 1", "Table 2", *(f"Figure {number}" for number in range(1, 8))]
    assert titles[9:12] == ["Data report", "Protocols", "Gallery"]


def test_a_repeated_stage_reads_its_own_run_and_others_read_all_or_the_first():
    study = Study.load(PROJECT / "params" / "demo.yaml", {"seeds": [0, 1]})
    own = upstream(study, Stage("04_strategy_b_pannuke", "released", 1))
    assert own == [Stage("01_data_preparation"), Stage("03_strategy_a_imagenet", "released", 1)]
    read = {name: [s for s in upstream(study, Stage(name)) if s.notebook[:2] == "05"] for name in registry()}
    assert len(read["07_faiss_evaluation"]) == 4
    assert read["08_grad_cam"] == [Stage("05_strategy_c_kimia", "paper", 0)]


def test_only_the_stages_of_the_profiles_systems_are_run_checked_and_shown(monkeypatch):
    entries = registry()
    other = {name: entry.model_copy(update={"system": "other"}) for name, entry in entries.items() if name[:2] != "01"}
    other["02_model_definition"] = entries["02_model_definition"]
    monkeypatch.setattr(stages, "registry", lambda path: {**entries, **other})
    study = smoke()
    assert [stage.notebook for stage in all_stages(study)] == ["01_data_preparation", "02_model_definition"]
    assert needed_sets(study) == ("kimia",) and stages.measuring(study) == []
    assert [artefact.title for artefact in stages.artefacts(study)] == ["Data report"]
    left = stage_outputs(study, "01_data_preparation")
    assert study.index("kimia") in left and study.index("pannuke") not in left


@pytest.mark.parametrize("systems", ["[]", "[lgffem, lgffem]", "[ffnir]"])
def test_a_profile_names_systems_that_there_are_each_once(tmp_path, systems):
    (path := tmp_path / "mine.yaml").write_text(f"profile: mine\nsystems: {systems}\n")
    with pytest.raises(RequestError, match="systems"):
        Study.load(path)


def test_each_rule_runs_its_own_notebook_after_those_that_it_reads(tmp_path, monkeypatch):
    monkeypatch.setenv("LGFFEM_OUTPUT", str(tmp_path))
    graph = dry_run(request := Request("params/smoke.yaml", {"seeds": [3]}), PROJECT)
    assert graph.count("\nrule ") == len(stages.entries(request.study)) + 1
    waiting = {"data_preparation": 112, "strategy_a_imagenet": 7, "strategy_b_pannuke": 6, "strategy_c_kimia": 5}
    waiting |= {"baselines": 103, "faiss_evaluation": 102}  # 100 for what runs once
    minutes = {entry.notebook[3:]: entry.resources.minutes for entry in stages.entries(request.study)}
    rules = [re.match(r"(\w+):.*?^    priority: (\d+)$", r, re.DOTALL | re.MULTILINE) for r in graph.split("\nrule ")]
    wanted = {name: 10_000 * waiting.get(name, 0) + long for name, long in minutes.items()}
    assert {found[1]: int(found[2]) for found in rules if found} == wanted
    assert "request.json 05_strategy_c_kimia --variant paper --seed 3" in graph
    rule = graph.split("\nrule grad_cam:")[1].split("\nrule ")[0]
    assert rule.split("request.json ")[1].split()[0] == "08_grad_cam" and "05_strategy_c_kimia_paper_seed3.done" in rule


def test_each_rule_asks_for_what_its_stage_is_declared_to_need(tmp_path, monkeypatch):
    monkeypatch.setenv("LGFFEM_OUTPUT", str(tmp_path))
    request = Request("params/smoke.yaml", {"compute.device": "cuda", "compute.workers": 3, "compute.devices": 2})
    graph = dry_run(request, PROJECT)
    found = dict(re.findall(r"^rule (\w+):\n(?:    .*\n)*?    resources: (.*)$", graph, re.MULTILINE))
    asked = {name: {*re.findall(r"(cpus_per_task|mem_mb|runtime|gpu)=(\d+)", line)} for name, line in found.items()}
    few, shared = {("mem_mb", "16000"), ("cpus_per_task", "4")}, {("runtime", "240")}
    assert asked["data_preparation"] == few | shared | {("gpu", "0")}
    assert asked["grad_cam"] == few | shared | {("gpu", "1")}
    trains = {("mem_mb", "16000"), ("cpus_per_task", "8"), ("gpu", "2")}  # in two processes
    assert asked["strategy_a_imagenet"] == trains | {("runtime", "2880")}
    assert len(asked) == len(stages.entries(request.study)) + 1  # rule all asks for nothing


def dry_run(request, project):
    """What Snakemake says that it would do."""
    study = request.study
    command = snakemake_command(study, request.write(study.artifacts / "request.json"), 1)
    command[command.index("--snakefile") + 1] = str(project / "Snakefile")
    environment = {**os.environ, "PYTHONPATH": str(project)}
    done = subprocess.run(
        [*command, "--dry-run", "--printshellcmds"], env=environment, cwd=project, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


# -- a stage more -----------------------------------------------------------------------------------------


def test_a_stage_is_added_by_a_notebook_and_an_entry(extended, tmp_path, monkeypatch):
    copy = extended("A stage")
    monkeypatch.setenv("LGFFEM_OUTPUT", str(tmp_path))
    request = Request("params/smoke.yaml", {})
    rule = dry_run(request, copy).split("\nrule counts:")[1].split("\nrule ")[0]
    assert "request.json 15_counts\n" in rule and "stages/01_data_preparation.done" in rule

    for name in ("due", "stages"):
        monkeypatch.setattr(f"lgffem_core.run.{name}.PROJECT", copy)
    study, stage = smoke(), Stage("15_counts")
    assert {path.name for path in stage_outputs(study, *stage)} == {
        "15_counts.ipynb", "15_counts.html", "counts.csv", "counts.md", "counts.tex",
    }  # fmt: skip
    assert stages.artefacts(study)[-1].title == "Counts" and all_stages(study)[-1] == stage
    with monkeypatch.context() as patch:
        patch.setattr(due, "inputs", lambda *_: {})
        read, unread = smoke(**{"data.kimia.scans": 3}), smoke(**{"ledger.epochs": 3, "explain.patches": 3})
        assert due.key(read, stage) != due.key(study, stage) == due.key(unread, stage)

    tool = runpy.run_path(str(PROJECT / "tools" / "readme.py"))
    for name, value in {"PROJECT": copy, "registry": lambda: registry(copy / REGISTRY)}.items():
        monkeypatch.setitem(tool["notebook_table"].__globals__, name, value)
    assert "](notebooks/15_counts.ipynb) | how many patches there are of each scan |" in tool["notebook_table"]()[-1]
    assert tool["artefact_map"]()[-1].startswith("| Counts | [15_counts](../notebooks/15_counts.ipynb) | ")


def test_added_stages_run_and_read_what_they_declare(extended, monkeypatch):
    """As Snakemake calls them; without LGFFEM only the sets that others read are prepared, by notebook 01."""
    copy = extended("A data set", "A stage", "A system")
    text = (copy / REGISTRY).read_text(encoding="utf-8")
    assert text.count('  data: [kimia]\n  leaves: ["colour/') == 1
    text = text.replace('  data: [kimia]\n  leaves: ["colour/', '  data: [kimia, scratch]\n  leaves: ["colour/')
    (copy / REGISTRY).write_text(text, encoding="utf-8")
    monkeypatch.delenv("LGFFEM_OUTPUT", raising=False)
    artifacts, results = copy / "artifacts" / "smoke", copy / "results" / "smoke"

    def execute(notebook, *systems):
        overrides = {"systems": systems, "data.synthetic.datasets": [*DATASETS, "scratch"]}
        asked = json.dumps({"params": "params/smoke.yaml", "overrides": overrides})
        (copy / "request.json").write_text(asked, encoding="utf-8")
        done = extended.run(copy, "-m", "lgffem_core", "notebook", "request.json", notebook)
        assert done.returncode == 0, done.stderr
        return read_json(results / "notebooks" / f"{notebook}.ipynb")["cells"]

    lesson = execute("01_data_preparation", "colour")
    assert {path.stem for path in (artifacts / "index").glob("*.json")} == {"kimia", "scratch"}
    assert not [cell for cell in lesson if "lgffem" in cell["metadata"]["tags"]]
    shown = {"15_counts": execute("15_counts", "lgffem", "colour"), "16_colour": execute("16_colour", "colour")}
    for section, notebook, table in (("A stage", "15_counts", "counts"), ("A system", "16_colour", "table_colour")):
        (kept,) = (text for what, _, text in extended.steps(section) if what == "keep")
        assert read_json(artifacts / "stages" / f"{notebook}.json")["reads"] == json.loads(kept)
        assert (results / "tables" / f"{table}.csv").is_file()
        outputs = [output for cell in shown[notebook] for output in cell.get("outputs", [])]
        assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize(
    ("systems", "unheard"),
    [
        (["smse"], ["training.a.epochs", "data.kimia.root", "archive.k"]),
        (["lgffem"], ["smse.epochs", "archive.k"]),
        (["fgcr"], ["training.a.epochs", "data.kimia.root", "smse.epochs", "archive.k", "variants"]),
    ],
)
def test_what_is_set_for_a_system_that_is_not_run_is_told(systems, unheard):
    wanted = {
        "systems": systems, "training.a.epochs": 3, "data.kimia.root": "/mine", "smse.epochs": 2,
        "archive": {"k": 3}, "seeds": [1], "variants": ["paper"], "compute.workers": 0, "profile": "x",
    }  # fmt: skip
    assert sorted(unread(smoke(**wanted), wanted)) == sorted(unheard)
    (said,) = told_unread(Request("params/smoke.yaml", wanted))
    assert said.startswith(f"no stage of this run (systems {systems[0]}) reads what was set as ")
    assert told_unread(Request("params/smoke.yaml", {"systems": systems, "seeds": [1]})) == []
    assert told_unread(Request("params/smoke.yaml", {})) == []


SYNTHETIC = "data.synthetic."
BREAKHIS, REPORTS, KIMIA = (SYNTHETIC + name for name in ("breakhis_fields", "reports_slides", "kimia_test_fraction"))
MADE = [f"{SYNTHETIC}seed", f"{SYNTHETIC}image_size", BREAKHIS, REPORTS, KIMIA]


@pytest.mark.parametrize(
    ("systems", "own", "unheard"),
    [
        (["lgffem"], [], [BREAKHIS, REPORTS]),
        (["lgffem"], ["kimia"], [BREAKHIS, REPORTS, KIMIA]),
        (["lgffem"], ["imagenet", "pannuke", "kimia"], MADE),
        (["smse"], [], [REPORTS, KIMIA]),
        (["fgcr"], [], [f"{SYNTHETIC}image_size", BREAKHIS, KIMIA, "model.image_size"]),
        (["fgcr"], ["reports"], [*MADE, "model.image_size"]),
        (["archive"], [], [*MADE, "data.check_counts", "model.image_size"]),
    ],
)
def test_what_notebook_01_alone_declares_is_told_where_it_changes_nothing(systems, own, unheard):
    study = smoke(systems=systems, **{f"data.{name}.root": "/mine" for name in own})
    assert unread(study, dict.fromkeys([*MADE, "data.check_counts", "model.image_size"], 1)) == unheard


def test_a_stage_of_all_systems_reads_beside_data_in_cells_of_a_system_alone():
    """``unread`` builds on it."""
    for entry in registry().values():
        if entry.system is None:
            keys = [name for name in entry.params if not name.startswith("data")]
            cells = read_json(PROJECT / "notebooks" / f"{entry.notebook}.ipynb")["cells"]
            of_all = ["".join(cell["source"]) for cell in cells if not cell["metadata"].get("tags")]
            assert keys and not [key for key in keys if any(f"params.{key}" in source for source in of_all)]


def test_a_set_draws_its_synthetic_images_by_its_own_settings(tmp_path, monkeypatch):
    """The seed, the size where they are pictures, and what begins with the set's name: as ``unread`` has it."""
    for name in DATASETS:
        read = set()
        settings = Watched(smoke().params.data.synthetic, read.add)
        with suppress(StudyError):  # of a set that has none
            get_set(name).make_synthetic(settings, tmp_path / name)
        shared = {"seed"} | ({"image_size"} if get_set(name).pictures else set())
        assert {key for key in read if not key.startswith(f"{name}_")} <= shared, name


def test_every_parameter_is_read_where_all_systems_are_run():
    study = smoke(systems=["lgffem", "smse", "archive", "fgcr"])
    left = {key.split(".")[0] for key in unread(study, study.params.model_dump())} - {"slides"}  # for a command
    assert left == {"data"} and "data.patchgastric.root" in unread(study, study.params.model_dump())


def test_nothing_that_is_read_at_a_start_imports_torch():
    program = f"import sys, {module.__name__}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# -- beside another system --------------------------------------------------------------------------------


def test_a_stage_reads_another_systems_only_where_the_run_has_it():
    both, alone = smoke(), smoke(systems=["smse"])
    stage = Stage("12_smse")
    assert [other.notebook for other in upstream(both, stage)] == ["01_data_preparation", "05_strategy_c_kimia"]
    assert upstream(alone, stage) == [Stage("01_data_preparation")]
    weights = "checkpoints/paper/seed0/strategy_c/model.safetensors"
    assert weights in declared(both, stage)["allowed"] and weights not in declared(alone, stage)["left"]


def test_a_profile_looks_for_the_data_of_its_own_systems_alone():
    assert needed_sets(smoke(systems=["smse"])) == ("breakhis",)
    assert needed_sets(smoke(systems=["lgffem"])) == ("imagenet", "pannuke", "kimia")


@pytest.mark.parametrize("named", ["01_data_preparation", "14_archive", "12_smse", "99_nothing"])
def test_beside_must_be_an_earlier_stage_of_another_system(tmp_path, named):
    text = TEXT.replace("beside: [05_strategy_c_kimia]", f"beside: [{named}]", 1)
    assert text != TEXT
    (path := tmp_path / "stages.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(RequestError, match=f"stage 12_smse, beside: {named} is no earlier stage of another system"):
        registry(path)
