"""README.md and docs/: a test runs every command, every link leads somewhere, every file that is named is there."""

import ast
import re
import shlex
import subprocess

import pytest
import timm
import yaml
from safetensors.torch import save_file
from torch.distributed.run import parse_args

from lgffem_core.base.project import PROJECT
from lgffem_core.data.records import read_record
from lgffem_core.run.checklist import checklist
from lgffem_core.run.cli import main
from lgffem_core.run.request import make_request
from lgffem_core.run.words import parse
from lgffem_core.systems.lgffem.__main__ import main as train

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
TEXTS = {path: path.read_text(encoding="utf-8") for path in PAGES}
SECTIONS = re.findall(r"^## (.*)$", TEXTS[PROJECT / "docs" / "extending.md"], re.MULTILINE)
#: Made by a run, and so not in a fresh clone; or a user's own.
MADE = {"manifest.json", "report.html", "slides.csv", "reports.csv", "coordinates.csv", "captions.csv"}
RUNS = ("tables/", "figures/", "artifacts/", "results/smoke/")
TORCHRUN = "./run_all.sh torchrun --nproc-per-node 4 -m lgffem_core.systems.lgffem params/paper.yaml"
LOSS = (
    "./run_all.sh torchrun -m lgffem_core.systems.lgffem params/smoke.yaml --strategy a "
    "--set training.loss.name=cosine_softmax profile=losstry"
)
STAGE = ".venv/bin/python -m lgffem_core notebook artifacts/smoke/request.json"
SWEEP = './run_all.sh params/paper.yaml --set "seeds=[0, 1, 2]" "variants=[paper, released]" --dry-run'
SMSE = './run_all.sh params/paper.yaml --set "systems=[smse]" data.breakhis.root=DIR profile=breakhis'
SLIDES = (
    "./run_all.sh slides FOLDER --out RECORDS",
    "./run_all.sh slides FOLDER params/histology.yaml --out RECORDS --set slides.mpp=1 slides.unstated_mpp=0.25 "
    "model.image_size=224",
)
HISTOLOGY = "./run_all.sh params/histology.yaml --set data.kimia.root=DIR data.pannuke.root=DIR"
#: Commands that take a connection, hours or another environment -> the tests that run what is behind them.
ELSEWHERE = {
    ".venv/bin/python benchmarks/speed.py --authors FOLDER": [
        "tests/test_speed.py::test_both_paths_are_measured_in_turn_and_told"
    ],
    "./run_all.sh": (
        "tests/run/test_cli.py::test_without_words_the_demo_runs",
        "tests/test_end_to_end.py::test_one_command_fills_table_1",
    ),
    "./run_all.sh params/smoke.yaml": ("tests/test_end_to_end.py::test_one_command_fills_table_1",),
    f"{STAGE} 15_counts": ("tests/run/test_registry.py::test_added_stages_run_and_read_what_they_declare",),
    f"{STAGE} 06_baselines": (
        "tests/run/test_registry.py::test_added_stages_run_and_read_what_they_declare",
        "tests/systems/test_scratch_baseline.py::test_a_baseline_is_added_by_a_file_and_an_entry",
    ),
    "./run_all.sh test": ("tests/base/test_surroundings.py::test_the_command_starts_in_hostile_surroundings",),
    "./run_all.sh verify": ("tests/run/test_verify.py::test_a_run_as_it_was_left_has_no_fault",),
    "./run_all.sh verify --rerun params/demo.yaml": (
        "tests/run/test_cli.py::test_a_reference_that_cannot_be_compared_with_is_refused_before_the_rerun",
        "tests/run/test_compare.py::test_equal_runs_are_equal",
    ),
    "LGFFEM_LOCK=requirements-gpu.lock ./run_all.sh": (
        "tests/test_environment.py::test_lock_holds_every_dependency_inside_its_range",
        "tests/run/test_stages.py::test_the_lock_is_the_one_that_the_environment_was_made_from",
    ),
    "conda env create -f environment.yml": (
        "tests/test_environment.py::test_environment_file_installs_this_package",
        "tests/test_environment.py::test_environment_file_has_what_pathml_needs_and_a_python_that_fits",
    ),
    "./run_all.sh test-pathml": ("tests/pathml/test_pathml.py::test_pathml_dataset_reads_our_folder",),
    "./run_all.sh params/paper.yaml --cluster profiles/slurm": (
        "tests/run/test_cluster.py::test_snakemake_is_told_the_clusters_profile_and_cores_only_where_they_are_given",
    ),
    ".venv/bin/python -m pip install --no-deps -r profiles/slurm/requirements.txt": (
        "tests/run/test_cluster.py::test_a_profile_names_options_of_snakemake_or_of_its_plugin",
    ),
    "tools/slurm_here.sh": (  # some minutes, and as root
        "tests/run/test_cluster.py::test_a_profile_names_options_of_snakemake_or_of_its_plugin",
    ),
    ".venv-pathml/bin/python tools/prepare_pannuke_pathml.py DIR": (
        "tests/pathml/test_pathml.py::test_both_write_the_same_folder",
    ),
}


def commands(text: str) -> list[str]:
    """The commands of a page's bash blocks, each in one line, without comments."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", "").splitlines()
    return [" ".join(line.partition(" #")[0].split()) for line in lines if line.strip()]


COMMANDS = {command for text in TEXTS.values() for command in commands(text)}


# -- commands ---------------------------------------------------------------------------------------------


@pytest.fixture
def typed(monkeypatch, tmp_path, tiny_data):
    """The words behind ``./run_all.sh`` of a command, on tiny data; what it writes goes to a folder of its own."""
    monkeypatch.setenv("LGFFEM_OUTPUT", str(tmp_path / "out"))
    monkeypatch.chdir(PROJECT)
    weights = tmp_path / "weights.safetensors"

    def words(command):
        program, *rest = shlex.split(command)
        assert program == "./run_all.sh" or (program, *rest[:3]) == ("python", "-I", "-m", "lgffem_core")
        given = {f"data.{name}.root=DIR": f"data.{name}.root={tiny_data / name}" for name in ("kimia", "pannuke")}
        for name in (word.partition("model.backbone.name=")[2] for word in rest):
            if name:
                save_file(timm.create_model(name, pretrained=False).state_dict(), weights)
        given["model.backbone.weights=FILE"] = f"model.backbone.weights={weights}"
        return [given.get(word, word) for word in rest if word not in ("-I", "-m", "lgffem_core")]

    return words


def starts(words):
    """The parameters of a run's words, of which nothing is missing."""
    options = parse(words)
    study = make_request(options.params, options.pairs).study
    assert options.command == "run" and checklist(study) == []
    return study.params


def test_a_users_slides_need_two_folders_alone(typed):
    params = starts(typed(HISTOLOGY))
    assert params.profile == "histology" and params.model.backbone.name == "tf_efficientnet_lite0"


def test_another_backbone_is_taken_with_its_options(typed):
    backbone = starts(typed(next(c for c in COMMANDS if c.startswith(f"{HISTOLOGY} model.")))).model.backbone
    assert backbone.options == {"pad_type": "same", "bn_eps": 0.001} and backbone.mean == backbone.std == (0.5,) * 3


def test_values_are_set(typed):
    params = starts(typed('./run_all.sh params/demo.yaml --set "seeds=[0, 1]" training.c.epochs=20'))
    assert params.seeds == (0, 1) and params.training.c.epochs == 20


def test_an_archive_needs_no_images(typed):
    params = starts(typed("./run_all.sh params/archive.yaml"))
    assert params.systems == ("archive",) and params.archive.vectors * params.archive.dimension == 2_048_000_000


def test_smse_needs_breakhis_alone(typed, tmp_path, capsys):
    words = typed(SMSE)
    (tmp_path / "given" / "BreaKHis_v1" / "histology_slides" / "breast").mkdir(parents=True)
    options = parse([word.replace("root=DIR", f"root={tmp_path / 'given'}") for word in words])
    study = make_request(options.params, options.pairs).study
    items = [item for item in checklist(study) if not item.startswith("model.backbone: ")]  # its weights may be far
    assert len(items) == 1 and "given: has no images; BreakHis: download" in items[0]  # only its images are missing
    params = study.params
    assert params.smse.epochs == 40 and params.smse.image_size == (460, 700) and params.data.check_counts
    assert main([word for word in words if word != "data.breakhis.root=DIR"]) == 2
    said = capsys.readouterr().err
    assert said.count("[ ] data.") == 1 and "[ ] data.breakhis.root is not set. BreakHis: download" in said


def test_the_demo_starts_under_conda(typed):
    assert starts(typed("python -I -m lgffem_core params/demo.yaml")).profile == "demo"
    assert yaml.safe_load((PROJECT / "environment.yml").read_text(encoding="utf-8"))["name"] == "lgffem"


def test_the_published_schedule_says_what_is_missing(typed, capsys, tmp_path, monkeypatch):
    """How fast a processor is of which no rate is kept is measured in test_hours: here it would take a minute."""
    monkeypatch.setattr("lgffem_core.run.hours.short_rate", lambda study: 200.0)
    assert main(typed("./run_all.sh params/paper.yaml")) == 2
    said = capsys.readouterr().err
    assert "params/paper.yaml cannot start; " in said and "[ ] data.kimia.root" in said
    assert not (tmp_path / "out").exists()


def test_a_sweep_is_listed_before_there_are_data(typed, capsys, tmp_path):
    assert main(typed(SWEEP)) == 2
    plan, missing = capsys.readouterr()
    jobs = plan.split("\n\n")[0]
    assert jobs.count("\n") + 1 == 1 + 3 * 6 + 8 and not (tmp_path / "out").exists()
    assert "[ ] data.kimia.root is not set" in missing  # and what a run would ask for first stands below


def test_a_checkpoint_says_what_it_holds(typed, capsys, released_file, tmp_path):
    words = typed("./run_all.sh checkpoint FILE.pth")
    assert main([*words[:-1], str(released_file(tmp_path / words[-1]))]) == 0
    assert "amsgrad" in capsys.readouterr().out


@pytest.mark.parametrize("command", SLIDES)
def test_whole_slides_become_records(typed, capsys, tmp_path, slide_file, dyed, command):
    slide_file(tmp_path / "FOLDER" / "a.tif", dyed(500, 500, (0, 0, 500, 500)))
    places = {"FOLDER": str(tmp_path / "FOLDER"), "RECORDS": str(tmp_path / "RECORDS")}
    assert main([places.get(word, word) for word in typed(command)]) == 0, capsys.readouterr().err
    assert "1 of 1 slides are records" in capsys.readouterr().out
    record = read_record(tmp_path / "RECORDS" / "a.safetensors")
    assert (record.mpp, len(record)) == ((0.5, 4) if command == SLIDES[0] else (1.0, 1))


def test_a_kept_run_is_what_its_manifest_says(typed, capsys):
    assert main(typed("./run_all.sh verify results/reference/demo")) == 0, capsys.readouterr().out


def test_a_strategy_by_itself(capsys, monkeypatch):
    monkeypatch.chdir(PROJECT)
    options = parse_args(shlex.split(f"{TORCHRUN} --strategy a --variant paper")[2:])
    assert (options.nproc_per_node, options.module, options.training_script) == ("4", True, train.__module__[:-9])
    assert train(options.training_script_args) == 2
    assert capsys.readouterr().err.startswith("error: data.imagenet.root is not set. ")


def test_the_doctor_looks_at_this_machine():
    done = subprocess.run(["./run_all.sh", "doctor", "params/demo.yaml"], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode in (0, 1) and done.stderr == ""
    assert re.search(r"^\d+ FAULTs?, \d+ warnings?$", done.stdout, re.MULTILINE)


def test_an_added_loss_can_be_asked_for(extended):
    words = parse_args(shlex.split(LOSS)[2:]).training_script_args
    program = "import sys; from lgffem_core.systems.lgffem import __main__ as m; m.trained_here = print; "
    program += "m.missing_data = lambda study, _: [study.params.training.loss.name]; m.main(sys.argv[1:])"
    done = extended.run(extended("A loss"), "-c", program, *words)
    assert done.stderr == "error: cosine_softmax\n"


@pytest.mark.parametrize("section", SECTIONS)
def test_what_the_page_inserts_leaves_room_for_the_next_of_its_kind(extended, section):
    for _, where, text in (step for step in extended.steps(section) if step[0] == "change"):
        before = (PROJECT / where).read_text(encoding="utf-8")
        for hunk in text.split("@@\n"):
            added = sum(line[0] == "+" for line in hunk.splitlines())
            after = extended.changed(extended.changed(before, hunk), hunk)  # stops where the place is gone
            assert after.count("\n") == before.count("\n") + 2 * added > before.count("\n"), hunk


def test_what_the_page_shows_is_as_ruff_wants_the_rest(extended):
    copy = extended(*SECTIONS)
    for words in (["check"], ["format", "--check"]):
        command = ["-m", "ruff", *words, "--no-cache", "--config", str(PROJECT / "pyproject.toml"), "lgffem_core"]
        done = extended.run(copy, *command)
        assert done.returncode == 0, done.stdout


def test_an_added_system_can_be_asked_for(extended):
    (command,) = (command for command in COMMANDS if "systems=[colour]" in command)
    program = "import sys; from lgffem_core.run.cli import parse; from lgffem_core.run.request import make_request\n"
    program += "o = parse(sys.argv[1:]); print(*make_request(o.params, o.pairs).study.params.systems)"
    done = extended.run(extended("A system"), "-c", program, *shlex.split(command)[1:])
    assert done.stdout == "colour\n", done.stderr


HERE = {
    HISTOLOGY,
    f"{HISTOLOGY} model.backbone.name=mobilenetv2_035 model.backbone.weights=FILE "
    '"model.backbone.options={pad_type: same, bn_eps: 0.001}" '
    '"model.backbone.mean=[0.5, 0.5, 0.5]" "model.backbone.std=[0.5, 0.5, 0.5]"',
    './run_all.sh params/demo.yaml --set "seeds=[0, 1]" training.c.epochs=20',
    "./run_all.sh params/archive.yaml",
    *SLIDES,
    "conda activate lgffem",
    "python -I -m lgffem_core params/demo.yaml",
    "./run_all.sh params/paper.yaml",
    SWEEP,
    "./run_all.sh checkpoint FILE.pth",
    "./run_all.sh verify results/reference/demo",
    f"{TORCHRUN} --strategy a --variant paper",
    "./run_all.sh doctor params/demo.yaml",
    './run_all.sh params/smoke.yaml --set "systems=[colour]" profile=colour',
    LOSS,
    SMSE,
}


def test_the_examples_of_notebooks_have_numbers_that_are_free():
    shown = re.findall(r"notebooks/((\d\d)_\w+)\.ipynb", TEXTS[PROJECT / "docs" / "extending.md"])
    taken = {path.name[:2] for path in (PROJECT / "notebooks").glob("*.ipynb")}
    assert len(shown) == 2 and taken.isdisjoint(number for _, number in shown)


def test_every_command_is_run_here_or_elsewhere():
    assert COMMANDS == HERE | ELSEWHERE.keys()
    for test in {test for tests in ELSEWHERE.values() for test in tests}:
        file, _, name = test.partition("::")
        tree = ast.parse((PROJECT / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, test


# -- links and names --------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them, or of HTML, which has its own."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return made | set(re.findall(r'<h2 id="([\w-]+)"', text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
        path, _, anchor = target.partition("#")
        if not path.startswith("https://"):
            other = (page.parent / path).resolve() if path else page
            assert other.exists(), target
            assert not anchor or anchor in anchors(other.read_text(encoding="utf-8")), target


def test_the_readme_is_short_and_leads_to_every_page():
    text = TEXTS[PROJECT / "README.md"]
    assert text.count("\n") <= 120
    assert sum(not line.startswith("|") for line in text.splitlines()) <= 82  # tables grow with what is added
    assert all(f"](docs/{page.name})" in text for page in PAGES[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_is_there(page):
    """In backticks, counted from the project's folder or from ``lgffem_core``; what docs/extending.md adds is not."""
    added = set(re.findall(r"^\*\w+ `(\S+)`:\*$", TEXTS[page], re.MULTILINE))
    prose = re.sub(r"^```.*?^```$", "", TEXTS[page], flags=re.MULTILINE | re.DOTALL)
    for name in re.findall(r"`([\w./-]+\.(?:py|ya?ml|lock|md|sh|ipynb|json|csv|html))`", prose):
        places = [PROJECT / name, PROJECT / "lgffem_core" / name, page.parent / name]
        assert name in MADE | added or name.startswith(RUNS) or any(place.is_file() for place in places), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_a_place_of_some_machine_or_an_index(page):
    assert not re.search(r"(?<![\w.])/(home|root|work|tmp|mnt|opt|Users)/|\bpypi\b|index-url|:\\\\", TEXTS[page])


@pytest.mark.parametrize("system", ["smse", "fgcr"])
def test_what_is_not_built_is_said_not_to_be(system):
    (row,) = (line for line in TEXTS[PROJECT / "README.md"].splitlines() if line.startswith(f"| {system.upper()} |"))
    assert ("not built yet" in row) != (PROJECT / "lgffem_core" / "systems" / system).is_dir()
