"""The whole study on its smallest profile, by the command that users type: run, rerun, stop, break."""

import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from typing import NamedTuple, get_args

import nbformat
import pandas as pd
import psutil
import pytest
from PIL import Image

from lgffem_core.base.files import read_json, sha256_file, write_json
from lgffem_core.base.progress import VARIABLE
from lgffem_core.base.project import PROJECT
from lgffem_core.config.params import System
from lgffem_core.config.study import Study
from lgffem_core.run.due import is_finished
from lgffem_core.run.registry import artefacts_of, registry
from lgffem_core.run.runner import events_file
from lgffem_core.run.stages import Stage, all_stages, note_file
from lgffem_core.systems.baselines.evaluation import BASELINES
from lgffem_core.systems.lgffem.tables import TABLE1_COLUMNS, TABLE2_COLUMNS

ARTEFACTS = artefacts_of(registry().values())
PROFILE = f"e2e{os.getpid()}"
SYSTEMS = [*get_args(System)]
LONGER = ("training.b.epochs=8", "ledger.strategy_b=true")  # to be stopped on the way; to read all that can be read
SHALLOW = ("model.backbone.options={depths: [1, 1, 1, 1], dims: [16, 32, 64, 128]}",)  # a fifth of its time


def command(*pairs, profile=PROFILE, systems=SYSTEMS):
    sets = [f"profile={profile}", f"systems=[{', '.join(systems)}]", *LONGER, *SHALLOW, *pairs]
    return [sys.executable, "-m", "lgffem_core", "params/smoke.yaml", "--set", *sets]


def run(*pairs, **which):
    return subprocess.run(command(*pairs, **which), cwd=PROJECT, capture_output=True, text=True, timeout=900)


def study_of(profile):
    return Study.load(PROJECT / "params" / "smoke.yaml", {"profile": profile, "systems": SYSTEMS})


def heed_ctrl_c():
    """A job that a shell put into the background ignores Ctrl-C, and so do its children unless told."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def works_for(process, study):
    try:
        return process.environ().get(VARIABLE) == str(events_file(study))
    except psutil.Error:
        return False


class Stopped(NamedTuple):
    """What a run stopped in strategy B left behind."""

    code: int
    kernels: list[int]  # processes that still worked for it
    finished: bool  # whether B had its final weights
    step: int  # of the newest checkpoint
    trained_a: int  # when A's weights were written


def stopped_in_b(study) -> Stopped:
    """Start the command, wait for B's first checkpoint, and press Ctrl-C."""
    started = subprocess.Popen(command(), cwd=PROJECT, stdout=subprocess.DEVNULL, preexec_fn=heed_ctrl_c)
    folder = study.checkpoints("b", "paper", 0)
    deadline = time.monotonic() + 600
    while not list(folder.glob("step_*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.1)
    started.send_signal(signal.SIGINT)
    code = started.wait(60)
    shutil.rmtree(study.artifacts / "ledger", ignore_errors=True)  # how far another stage was by then is chance
    kernels = [process.pid for process in psutil.process_iter() if works_for(process, study)]
    step = max(int(path.stem.removeprefix("step_")) for path in folder.glob("step_*.safetensors"))
    trained_a = study.checkpoints("a", "paper", 0) / "model.safetensors"
    return Stopped(code, kernels, (folder / "model.safetensors").exists(), step, trained_a.stat().st_mtime_ns)


@pytest.fixture(scope="module")
def interrupted():
    """The smoke profile under a name of its own, stopped in strategy B; removed at the end."""
    yield stopped_in_b(study_of(PROFILE))
    for profile in (PROFILE, PROFILE + "bad"):
        for folder in (study_of(profile).artifacts, study_of(profile).results):
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def smoke(interrupted):
    """The same command once more, to the end: what the tests below look at went through a stop."""
    return run(), study_of(PROFILE)


def test_ctrl_c_stops_the_run_and_leaves_no_kernel(interrupted):
    assert interrupted.code == 130 and not interrupted.kernels and not interrupted.finished


def test_stopped_in_b_it_goes_on_from_b_s_last_epoch(interrupted, smoke):
    done, study = smoke
    assert done.returncode == 0, done.stderr
    assert (study.checkpoints("a", "paper", 0) / "model.safetensors").stat().st_mtime_ns == interrupted.trained_a
    executed = (study.results / "notebooks" / "04_strategy_b_pannuke_paper_seed0.ipynb").read_text()
    first = interrupted.step // 3 + 1  # 57 tiles in batches of 16: three steps an epoch
    assert interrupted.step < 24 and "epoch   1/8" not in executed
    assert f"epoch {first:>3}/8" in executed


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")
def test_stages_and_kernels_are_forked(smoke):
    _, study = smoke
    log = (study.artifacts / "snakemake.log").read_text()
    assert "localrule" in log and "starts by itself" not in log


def test_one_command_fills_table_1(smoke):
    done, study = smoke
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(study.results / "tables" / "table1.csv")
    assert list(table.columns) == TABLE1_COLUMNS
    assert len(table) == 9 and set(table["strategy"]) == {"A", "B", "C"}
    assert "| C " in done.stdout and "DEMO" in done.stdout and f"results/{PROFILE}" in done.stdout
    for kind in ("md", "tex"):
        assert "DEMO" in (study.results / "tables" / f"table1.{kind}").read_text()


def test_the_same_command_fills_table_2_with_every_method_under_every_protocol(smoke):
    _, study = smoke
    table = pd.read_csv(study.results / "tables" / "table2.csv")
    assert list(table.columns) == TABLE2_COLUMNS
    scored = table.dropna(subset="eta_p")
    assert set(scored["method"]) == {*BASELINES, "LGFFEM"}
    assert (scored.groupby("method")["protocol"].nunique() == 3).all()
    assert scored["eta_p"].between(0, 100).all()


def kept_files(study):
    """Every table and figure of a run with its bytes; without them, those that hold times."""
    timed = {path for artefact in ARTEFACTS if artefact.measured for path in artefact.files(study.results)}
    folders = [study.results / "tables", study.results / "figures"]
    return {path: b"" if path in timed else path.read_bytes() for folder in folders for path in folder.iterdir()}


def test_a_run_leaves_the_tables_and_figures_of_the_map_and_no_others(smoke):
    _, study = smoke
    assert set(kept_files(study)) == {path for artefact in ARTEFACTS for path in artefact.files(study.results)}
    report = (study.results / "report.html").read_text()
    assert all(f">{artefact.title}</h2>" in report for artefact in ARTEFACTS)


def test_the_manifest_lists_every_artefact_with_producer_and_hash(smoke):
    _, study = smoke
    manifest = read_json(study.results / "manifest.json")
    results = {os.path.relpath(path, PROJECT) for artefact in ARTEFACTS for path in artefact.files(study.results)}
    assert results | {f"results/{PROFILE}/report.html"} <= set(manifest["artefacts"])
    assert set(manifest["measures"]) == {"08_grad_cam", "09_projection"}
    for path, entry in manifest["artefacts"].items():
        assert entry["sha256"] == sha256_file(PROJECT / path)
        assert (PROJECT / entry["producer"]).is_file()
    assert all(stage["seconds"] > 0 and stage["peak_memory_mib"] > 50 for stage in manifest["stages"].values())


def test_each_stage_read_what_the_fast_tests_take_for_granted(smoke, tmp_path):
    _, study = smoke
    found = {stage.notebook: read_json(note_file(study, stage))["reads"] for stage in all_stages(study)}
    kept = write_json(tmp_path / "reads.json", found)
    assert found == read_json(PROJECT / "tests" / "data" / "reads.json"), f"if the registry is right, keep {kept}"


def test_executed_notebooks_are_clean(smoke):
    _, study = smoke
    executed = sorted((study.results / "notebooks").glob("*.ipynb"))
    assert len(executed) == len(all_stages(study))
    for path in executed:
        outputs = [o for cell in nbformat.read(path, 4).cells for o in cell.get("outputs", [])]
        assert any("image/png" in o.get("data", {}) for o in outputs), path.name
        noise = [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
        assert not noise, (path.name, noise)


def test_every_figure_of_every_executed_notebook_can_be_seen(smoke):
    _, study = smoke
    for path in sorted((study.results / "notebooks").glob("*.ipynb")):
        outputs = [o.get("data", {}) for cell in nbformat.read(path, 4).cells for o in cell.get("outputs", [])]
        figures = [data for data in outputs if data.get("text/plain", "").startswith("<Figure size")]
        assert figures and all("image/png" in data for data in figures), path.name


def test_pages_of_executed_notebooks_load_nothing_and_have_their_equations(smoke, self_contained):
    _, study = smoke
    pages = sorted((study.results / "notebooks").glob("*.html"))
    assert len(pages) == len(all_stages(study))
    for path in pages:
        html = path.read_text()
        assert f"<title>{path.stem}</title>" in html
        self_contained(html if "<math" in html else html + "<math></math>")


def test_nothing_changed_nothing_runs(smoke):
    done = run()
    assert done.returncode == 0 and "nothing has changed" in done.stdout


@pytest.fixture(scope="module")
def changed(smoke):
    """The tables and figures before, after and by a run with other parameters, from which the next run turns back."""
    _, study = smoke
    before = kept_files(study)
    done = run("projection.method=tsne", "retrieval.protocols=[released]")
    return done, before, kept_files(study)


def test_parameters_rerun_what_reads_them_only_and_tables_of_one_protocol_leave_the_audit_whole(smoke, changed):
    _, study = smoke
    done, before, after = changed
    assert done.returncode == 0, done.stderr
    ran = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("[")}
    assert ran == {"06_baselines", "07_faiss_evaluation", "09_projection", "11_ledger"}
    tables = study.results / "tables"
    assert set(pd.read_csv(tables / "table1.csv")["protocol"]) == {"released"}
    audit = set(tables.glob("audit_*.csv"))
    assert audit and all(before[path] == after[path] for path in audit)


def test_after_a_killed_kernel_figures_and_tables_are_made_the_same_to_the_byte(smoke, changed):
    """Back from other parameters, and without what was embedded: one kernel is killed on the way.

    ``benchmarks/kernels.py`` makes every table and figure anew, and kills the kernel of each notebook in turn.
    """
    _, study = smoke
    _, before, other = changed
    shutil.rmtree(study.artifacts / "embeddings")
    (study.results / "figures" / "figure1.svg").unlink()
    kernels = runpy.run_path(str(PROJECT / "benchmarks" / "kernels.py"))
    spared = {stage.name for stage in all_stages(study)} - {"07_faiss_evaluation"}
    victim, code, error = kernels["killed_once"](study, command(), spared, wait=3)
    assert (victim, code) == ("07_faiss_evaluation", 1)
    assert kernels["SENTENCE"].fullmatch(error)[1] == victim
    assert not is_finished(study, Stage(victim))
    done = run()
    assert done.returncode == 0, done.stderr
    assert "01_data_preparation" not in done.stdout
    after = kept_files(study)
    names = {path.name for path in before if before[path] != other[path]}
    assert {"table1.csv", "table2.csv", "figure7.svg"} <= names  # which were others meanwhile
    assert set(after) == set(before) and not [path.name for path in before if before[path] != after[path]]


def test_a_typo_is_refused_before_anything_starts(smoke):
    done = run("training.c.epoch=1", profile=PROFILE + "typo")
    assert done.returncode == 2 and "training.c.epochs" in done.stderr
    assert "Traceback" not in done.stderr and not study_of(PROFILE + "typo").artifacts.exists()


def test_a_truncated_image_stops_the_run_with_one_sentence(smoke, tmp_path):
    for split, stem in (("train", ""), ("test", "s{}_")):
        for scan in range(24):
            for i in range(2):
                path = tmp_path / split / f"s{scan}" / f"{stem.format(scan)}{i}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (64, 64), (9 * scan, 80, 120)).save(path)
    broken = tmp_path / "train" / "s7" / "1.jpg"
    broken.write_bytes(broken.read_bytes()[:400])
    done = run(f"data.kimia.root={tmp_path}", profile=PROFILE + "bad", systems=["lgffem"])
    assert done.returncode == 1
    assert str(broken) in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
