"""The command line: what it understands, what it refuses, and how it shows a run. Whole runs: test_end_to_end."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.base.files import write_text
from lgffem_core.base.project import PROJECT
from lgffem_core.config import parameter_files
from lgffem_core.config.params import DATASETS
from lgffem_core.config.study import Study
from lgffem_core.data import sets
from lgffem_core.run import checklist as checklist_module
from lgffem_core.run import cli, runner
from lgffem_core.run import request as request_module
from lgffem_core.run.cli import main
from lgffem_core.run.request import check_profile, make_request
from lgffem_core.run.runner import Reporter, run_graph, snakemake_command, sole_run, stop_group
from lgffem_core.run.stages import Request, Stage, all_stages, failed_notebook, needed_sets
from lgffem_core.run.warm import THREADS
from lgffem_core.run.words import parse


@pytest.fixture(autouse=True)
def sandbox(tmp_path, monkeypatch):
    """Runs write below ``tmp_path``, are typed in the project's folder, and find no hub."""
    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.setattr(
        Request, "study", property(lambda self: Study.load(PROJECT / self.params, self.overrides, root=root))
    )
    monkeypatch.setattr(checklist_module, "hub_has", lambda name: False)
    monkeypatch.chdir(PROJECT)
    return root


def study(root, profile="smoke"):
    return Study.load(PROJECT / "params" / "smoke.yaml", {"profile": profile}, root=root)


# -- what is typed ---------------------------------------------------------------------------------------


def test_without_words_the_demo_runs():
    options = parse([])
    assert (options.command, options.pairs) == ("run", []) and options.cores is None
    assert Path(options.params) == PROJECT / "params" / "demo.yaml"


@pytest.mark.parametrize("words", [["params/smoke.yaml"], ["run", "params/smoke.yaml"]])
def test_run_is_the_command_meant(words):
    options = parse([*words, "--set", "a=1", "b=2", "--cores", "3", "--set", "c=3"])
    assert (options.command, options.params, options.cores) == ("run", "params/smoke.yaml", 3)
    assert options.pairs == ["a=1", "b=2", "c=3"]


def test_pairs_may_stand_without_a_profile():
    options = parse(["--set", "seeds=[1]"])
    assert options.pairs == ["seeds=[1]"] and options.params.endswith("demo.yaml")


def test_a_stage_is_called_with_its_request():
    options = parse(["notebook", "request.json", "03_strategy_a_imagenet", "--variant", "paper", "--seed", "0"])
    assert (options.command, options.request) == ("notebook", Path("request.json"))
    assert (options.name, options.variant, options.seed) == ("03_strategy_a_imagenet", "paper", "0")


@pytest.mark.parametrize(
    "words",
    [
        ["--cores", "many"],
        ["--sets", "a=1"],
        ["a.yaml", "b.yaml"],
        ["notebook"],
        ["verify", "--set", "a=1", "results/x"],
    ],
)
def test_words_that_make_no_sense_end_with_2(words, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(words)
    assert caught.value.code == 2 and "usage: ./run_all.sh" in capsys.readouterr().err


def test_an_option_that_is_none_is_told_with_those_that_are(capsys):
    for words in (["--core", "1"], ["params/demo.yaml", "--core", "1"], ["verify", "--rerum"]):
        with pytest.raises(SystemExit):
            parse(words)
    first, _, last = map(" ".join, map(str.split, capsys.readouterr().err.split("usage: ")[1:]))
    assert first.startswith("./run_all.sh run ") and "--cores CORES" in first and "[--set " in first
    assert first.endswith("unrecognized arguments: --core; did you mean --cores?")
    assert last.startswith("./run_all.sh verify ") and last.endswith("did you mean --rerun?")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["demo"], "demo: no such parameter file; did you mean params/demo.yaml?"),
        (["params/somke.yaml"], "params/somke.yaml: no such parameter file; did you mean params/smoke.yaml?"),
        (["verfy"], "verfy: no such command or parameter file; did you mean ./run_all.sh verify?"),
        (["params"], "params: is a folder; name a parameter file, e.g. one of params/archive.yaml, params/demo.yaml, "),
        (["/tmp"], "/tmp: is a folder; name a parameter file, e.g. one of params/archive.yaml, params/demo.yaml, "),
        (["verify", "smoke"], "smoke: no such folder of results; did you mean "),
    ],
)
def test_what_was_meant_is_named(tmp_path, monkeypatch, capsys, words, said):
    (tmp_path / "results" / "smoke").mkdir(parents=True)
    monkeypatch.setenv("LGFFEM_OUTPUT", str(tmp_path))
    assert main(words) == 2
    assert said in capsys.readouterr().err


# -- paths -----------------------------------------------------------------------------------------------


def test_paths_count_from_where_they_were_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pairs = ["data.kimia.root=tiles", "model.backbone.weights=../w.pth", "training.a.checkpoint=/a.pth"]
    request = make_request(str(PROJECT / "params" / "smoke.yaml"), [*pairs, "model.backbone.name=tiles"])
    loaded = Study.load(PROJECT / request.params, request.overrides)
    assert loaded.data_root("kimia") == tmp_path / "tiles"
    assert loaded.resolve(loaded.params.model.backbone.weights) == tmp_path.parent / "w.pth"
    assert loaded.resolve(loaded.params.training.a.checkpoint) == Path("/a.pth")
    assert loaded.params.model.backbone.name == "tiles"  # no path


def test_paths_inside_a_section_count_from_where_they_were_typed_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    request = make_request(str(PROJECT / "params" / "smoke.yaml"), ["data.kimia={root: tiles, scans: 3}"])
    loaded = Study.load(PROJECT / request.params, request.overrides)
    assert loaded.data_root("kimia") == tmp_path / "tiles" and loaded.params.data.kimia.scans == 3


@pytest.mark.parametrize("name", ["pp #1", "&x", "2024", "no", "[x]", "a: b", "'q'"])
def test_a_folder_with_any_name_is_the_one_that_is_read(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    request = make_request(str(PROJECT / "params" / "smoke.yaml"), [f"data.kimia.root={name}"])
    assert Study.load(PROJECT / request.params, request.overrides).data_root("kimia") == tmp_path / name


def test_the_folder_of_the_output_counts_from_where_it_was_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LGFFEM_OUTPUT", "out")
    roots = []
    monkeypatch.setattr(cli, "run", lambda *_: roots.append(Study.load(PROJECT / "params" / "smoke.yaml").root))
    main([])
    assert roots == [tmp_path / "out"]


def test_a_null_root_stays_null():
    assert make_request("params/smoke.yaml", ["data.kimia.root=null"]).overrides == {"data.kimia.root": None}


def test_a_profile_inside_the_project_is_named_from_it_and_another_in_full(tmp_path, monkeypatch):
    assert make_request("params/smoke.yaml", []).params == "params/smoke.yaml"
    monkeypatch.chdir(PROJECT / "params")
    assert make_request("smoke.yaml", []).params == "params/smoke.yaml"
    monkeypatch.chdir(tmp_path)
    assert make_request("mine.yaml", []).params == str(tmp_path / "mine.yaml")


# -- what is refused -------------------------------------------------------------------------------------


def test_the_paper_profile_without_data_prints_the_checklist_and_writes_nothing(sandbox, capsys, monkeypatch):
    monkeypatch.setattr(cli, "run_graph", lambda *_: pytest.fail("started"))
    monkeypatch.setattr("lgffem_core.run.hours.short_rate", lambda study: 200.0)  # measured in test_hours
    assert main(["params/paper.yaml"]) == 2
    printed = capsys.readouterr()
    wanted = [f"data.{name}.root" for name in needed_sets(Study.load(PROJECT / "params" / "paper.yaml"))]
    wanted += ["model.backbone", "baselines.densenet121"]
    assert printed.out == "" and f"params/paper.yaml cannot start; {len(wanted)} things missing" in printed.err
    for item in wanted:
        assert f"[ ] {item}" in printed.err
    assert list(sandbox.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--set", "training.a.epoch=3"], "unknown parameter training.a.epoch; did you mean training.a.epochs?"),
        (["--set", "sedes=[1]"], "unknown parameter sedes; did you mean seeds?"),
        (["--set", "training.a.epochs=0"], "training.a.epochs"),
        (["--set", "seeds"], "write it as key.path=value"),
        (["--set", "data.kimia.root=/nowhere"], "data.kimia.root: /nowhere is not there"),
    ],
)
def test_a_wrong_request_ends_with_2_and_writes_nothing(sandbox, capsys, words, sentence):
    assert main(["params/smoke.yaml", *words]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and sentence in printed.err and printed.out == ""
    assert list(sandbox.iterdir()) == []


@pytest.mark.parametrize(
    ("pair", "key"),
    [("data={1: 2}", "data.1"), ("training={null: 2}", "training.null"), ("training={a: {1.5: 2}}", "training.a.1.5")],
)
def test_a_key_that_is_no_text_is_an_unknown_parameter(capsys, pair, key):
    assert main(["params/smoke.yaml", "--set", pair]) == 2
    assert f"unknown parameter {key};" in capsys.readouterr().err


def test_a_missing_profile_ends_with_2(capsys):
    assert main(["params/none.yaml"]) == 2
    assert "none.yaml: no such parameter file" in capsys.readouterr().err


def test_a_plan_of_what_could_not_start_is_shown_and_ends_as_the_run(sandbox, capsys):
    words = ["params/smoke.yaml", "--set", "data.kimia.root=/nowhere"]
    assert main([*words, "--dry-run"]) == 2
    printed = capsys.readouterr()
    assert "01_data_preparation" in printed.out and "[ ]" not in printed.out
    assert main(words) == 2
    assert printed.err == capsys.readouterr().err and "data.kimia.root: /nowhere is not there" in printed.err
    assert list(sandbox.iterdir()) == []


def test_half_precision_without_units_for_it_is_warned_of(monkeypatch, capsys):
    monkeypatch.setattr(cli, "told_slow", lambda study: [f"slow at {study.params.compute.precision}."])
    words = ["params/smoke.yaml", "--set", "compute.precision=bf16-mixed"]
    assert main([*words, "--dry-run"]) == 0
    assert "\nslow at bf16-mixed.\n" in capsys.readouterr().out
    fake_snakemake(monkeypatch, "", 3)
    assert main(words) == 1 and capsys.readouterr().out.startswith("slow at bf16-mixed.\n")


@pytest.fixture
def own_profiles(tmp_path, monkeypatch):
    """A project of a test's own whose params/ hold smoke.yaml and other.yaml."""
    (folder := tmp_path / "mine" / "params").mkdir(parents=True)
    for name in ("smoke", "other"):
        text = (PROJECT / "params" / "smoke.yaml").read_text()
        (folder / f"{name}.yaml").write_text(text.replace("profile: smoke", f"profile: {name}"))
    for module in (request_module, parameter_files):
        monkeypatch.setattr(module, "PROJECT", folder.parent)
    read = property(lambda self: Study.load(folder.parent / self.params, self.overrides))
    monkeypatch.setattr(Request, "study", read)
    monkeypatch.setenv("LGFFEM_OUTPUT", str(tmp_path / "out"))
    return folder


@pytest.mark.parametrize(
    ("copy", "words", "said"),
    [
        ("copy.yaml", [], "params/copy.yaml: the line profile: smoke is the profile of params/smoke.yaml too, "),
        ("../smoke.yaml", [], "smoke.yaml: the line profile: smoke is the profile of params/smoke.yaml too, "),
        ("copy.yaml", ["--set", "profile=other"], "--set profile: other is the profile of params/other.yaml too, "),
    ],
)
def test_a_copied_profile_does_not_write_into_the_results_of_another(own_profiles, tmp_path, capsys, copy, words, said):
    (own_profiles / copy).write_text((own_profiles / "smoke.yaml").read_text())
    assert main([str(own_profiles / copy), *words]) == 2
    error = capsys.readouterr().err
    assert said in error and "write another name there" in error and not (tmp_path / "out").exists()


def test_the_original_of_a_copied_profile_and_one_with_a_name_of_its_own_run(own_profiles):
    text = (own_profiles / "smoke.yaml").read_text()
    (own_profiles / "copy.yaml").write_text(text)
    (own_profiles / "new.yaml").write_text(text.replace("profile: smoke", "profile: new"))
    (own_profiles / "broken.yaml").write_text("[")
    for name in ("smoke", "new", "other"):
        check_profile(make_request(str(own_profiles / f"{name}.yaml"), []))
    check_profile(make_request(str(own_profiles / "copy.yaml"), ["profile=mine"]))


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(capsys, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run", stopped)
    assert main([]) == 130
    assert "the same command goes on from the last checkpoint" in capsys.readouterr().err
    monkeypatch.setattr(cli, "slides", stopped)
    assert main(["slides", "folder", "--out", "records"]) == 130
    assert capsys.readouterr().err == "stopped; the same command goes on with the slide at which it was.\n"


#: Programs that run a command and signal themselves: while its modules are imported, or in the midst of its work.
EARLY = """
import os, runpy, signal, sys, time
signal.signal({sign}, signal.SIG_DFL)  # behind & it would be ignored
class Finder:
    def find_spec(name, *_):
        if name == "lgffem_core.run.cli":
            os.kill(os.getpid(), {sign})
            time.sleep(60)
sys.meta_path.insert(0, Finder)
runpy.run_module("lgffem_core", run_name="__main__")
"""
DOCTOR = """
import os, runpy, shutil, signal, sys, time
signal.signal({sign}, signal.default_int_handler)
sys.argv = [{doctor!r}]
shutil.disk_usage = lambda *_: (os.kill(os.getpid(), {sign}), time.sleep(60))
runpy.run_path({doctor!r}, run_name="__main__")
"""


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("program", "said"), [(EARLY, "nothing was started"), (DOCTOR, "nothing was changed")])
def test_a_signal_before_a_run_ends_with_130_and_a_sentence(program, said, sign):
    code = program.format(sign=int(sign), doctor=str(PROJECT / "tools" / "doctor.py"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (130, f"stopped; {said}.\n")


# -- the lock --------------------------------------------------------------------------------------------


def test_what_killed_runs_left_among_temporary_files_is_removed(sandbox, tmp_path, monkeypatch):
    monkeypatch.setattr(runner.tempfile, "gettempdir", lambda: str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    names = [f"{runner.PRIVATE}{ended.pid}_a", f"{runner.PRIVATE}{os.getpid()}_b", f"{runner.PRIVATE}mine_c"]
    for name in names:
        (tmp_path / name / "warm").mkdir(parents=True)
    with sole_run(study(sandbox)):
        assert [(tmp_path / name).exists() for name in names] == [False, True, True]


def test_a_second_run_of_a_profile_is_refused_and_another_profile_is_not(sandbox):
    with sole_run(study(sandbox)):
        with pytest.raises(RequestError, match="another run of profile smoke is under way"), sole_run(study(sandbox)):
            pytest.fail("two at once")
        with sole_run(study(sandbox, "other")):
            pass
    with sole_run(study(sandbox)):
        pass


def test_the_lock_is_free_after_a_failure(sandbox):
    with pytest.raises(RuntimeError, match="failed"), sole_run(study(sandbox)):
        raise RuntimeError("failed")
    with sole_run(study(sandbox)):
        pass


def test_the_lock_is_free_after_a_kill(sandbox):
    code = (
        "import sys, time; from lgffem_core.run.cli import sole_run; from lgffem_core.config.study import Study\n"
        "with sole_run(Study.load('params/smoke.yaml', root=sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(sandbox)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RequestError, match="under way"), sole_run(study(sandbox)):
            pytest.fail("two at once")
    finally:
        holder.kill()
        holder.communicate()
    with sole_run(study(sandbox)):
        pass


def test_whoever_still_works_for_a_profile_is_ended_before_its_results_are_looked_at(sandbox):
    mine = study(sandbox)
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    profiles = (mine, study(sandbox, "other"))
    working = [
        subprocess.Popen(sleep, env={**os.environ, runner.VARIABLE: str(runner.events_file(of))}) for of in profiles
    ]
    try:
        with sole_run(mine):
            assert [alive(process.pid) for process in working] == [False, True]
    finally:
        for process in working:
            process.kill()
            process.wait()


# -- how a run is shown ----------------------------------------------------------------------------------


def said(text):
    """A command that emits events, one a line of JSON, prints something and ends."""
    return [sys.executable, "-c", f"import os; open(os.environ['LGFFEM_EVENTS'], 'a').write({text!r}); print('log')"]


def lines(*events):
    return "".join(json.dumps(event) + "\n" for event in events)


EPOCH = {
    "event": "epoch",
    "stage": "04_strategy_b_pannuke",
    "title": "strategy B",
    "epoch": 2,
    "epochs": 4,
    "per_second": 81.6,
    "unit": "images",
    "seconds_left": 65,
}
FINISHED = {"event": "finished", "stage": "04_strategy_b_pannuke", "seconds": 125}


@pytest.fixture
def console(tmp_path):
    with open(tmp_path / "screen.txt", "w+") as file:
        yield Console(file=file, width=200, soft_wrap=True)


def screen(console):
    console.file.seek(0)
    return console.file.read()


def test_a_line_a_finished_stage(sandbox, console):
    mine, reporter = study(sandbox), Reporter(console)
    mine.artifacts.mkdir(parents=True)
    events = lines({"event": "started", "stage": "04_strategy_b_pannuke"}, EPOCH, FINISHED)
    assert run_graph(mine, said(events), reporter) == 0
    assert reporter.done == 1 and not reporter.failures
    assert "[1] 04_strategy_b_pannuke finished in 2:05 (strategy B, epoch 2/4, 82 images/s)\n" in screen(console)
    assert (mine.artifacts / "snakemake.log").read_text() == "log\n"


def test_what_a_run_starts_sees_nothing_of_the_users_settings(sandbox, console, monkeypatch, tmp_path):
    mine = study(sandbox)
    mine.artifacts.mkdir(parents=True)
    monkeypatch.setenv("PYTHONPATH", "/theirs")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    code = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"
    assert run_graph(mine, [sys.executable, "-c", code, str(tmp_path / "seen")], Reporter(console)) == 0
    seen = json.loads((tmp_path / "seen").read_text())
    assert "PYTHONPATH" not in seen and seen["CUDA_VISIBLE_DEVICES"] == "3"
    assert not Path(seen["JUPYTER_RUNTIME_DIR"]).exists()  # it was the run's alone


def test_the_synthetic_data_of_a_request_are_made_the_last_set_first(sandbox, monkeypatch, tmp_path):
    mine, made = study(sandbox), []
    request = str(Request("params/smoke.yaml", {"profile": "smoke"}).write(tmp_path / "request.json"))
    mine.data_root("kimia").mkdir(parents=True)
    for name in DATASETS:
        monkeypatch.setattr(sets.get(name), "make_synthetic", lambda settings, root: made.append(root))
    assert main(["synthetic", request]) == 0
    assert made == [mine.data_root(name) for name in ("reports", "breakhis", "pannuke", "imagenet")]


@pytest.mark.parametrize(("cores", "beside"), [(2, True), (1, False)])
def test_they_are_made_beside_the_first_stage_where_a_core_waits_for_it(sandbox, monkeypatch, cores, beside):
    started = []
    monkeypatch.setattr(cli, "run_graph", lambda study, command, reporter, warm, beside: started.append(beside) or 1)
    assert main(["params/smoke.yaml", "--cores", str(cores)]) == 1
    words = [sys.executable, "-m", "lgffem_core", "synthetic", str(study(sandbox).artifacts / "request.json")]
    assert started == [words if beside else None]


def test_a_command_beside_a_run_has_its_settings_and_ends_with_it(sandbox, console, monkeypatch, tmp_path):
    mine = study(sandbox)
    mine.artifacts.mkdir(parents=True)
    monkeypatch.setenv("PYTHONPATH", "/theirs")
    code = "import json, os, sys, time; json.dump(dict(os.environ), open(sys.argv[1], 'w')); time.sleep({})"
    seen = [str(tmp_path / name) for name in ("run", "beside")]
    command, beside = ([sys.executable, "-c", code.format(s), at] for s, at in zip((2, 600), seen, strict=True))
    before = set(psutil.Process().children())
    assert run_graph(mine, command, Reporter(console), False, beside) == 0
    assert set(psutil.Process().children()) == before
    run, other = (json.loads(Path(at).read_text()) for at in seen)
    assert other == run | dict.fromkeys(THREADS, "1") and "PYTHONPATH" not in other


def test_snakemake_works_without_a_home_and_heeds_no_profile(sandbox, console, monkeypatch, tmp_path):
    """Neither the one that a variable names nor profiles/default of the folder in which the command is typed."""
    mine = study(sandbox)
    request_file = Request("params/smoke.yaml", {}).write(mine.artifacts / "request.json")
    (tmp_path / "profiles" / "default").mkdir(parents=True)
    (tmp_path / "profiles" / "default" / "config.yaml").write_text("no-such-option: true\n")
    monkeypatch.chdir(tmp_path)
    for name, value in {"SNAKEMAKE_PROFILE": "/theirs", "HOME": "/proc/0", "XDG_CACHE_HOME": "/proc/0"}.items():
        monkeypatch.setenv(name, value)
    command = [*snakemake_command(mine, request_file, 1), "--dry-run"]
    assert run_graph(mine, command, Reporter(console)) == 0, (mine.artifacts / "snakemake.log").read_text()


def test_events_of_an_earlier_run_are_not_shown_again(sandbox, console):
    mine, reporter = study(sandbox), Reporter(console)
    mine.artifacts.mkdir(parents=True)
    run_graph(mine, said(lines(FINISHED)), Reporter(console))
    assert run_graph(mine, said(""), reporter) == 0 and reporter.done == 0


def test_the_live_line_says_stage_epoch_speed_and_time_left(console):
    reporter = Reporter(console)
    reporter.handle({"event": "started", "stage": "04_strategy_b_pannuke"})
    assert reporter.line() == "04_strategy_b_pannuke"
    reporter.handle(EPOCH)
    assert reporter.line() == "04_strategy_b_pannuke: strategy B, epoch 2/4, 82 images/s, 1:05 left"
    reporter.handle(FINISHED)
    assert reporter.line() == "next stage"


def fake_snakemake(monkeypatch, events, code=0):
    command = said(events)
    command[-1] += f"; raise SystemExit({code})"
    monkeypatch.setattr(cli, "snakemake_command", lambda *_: command)
    monkeypatch.setattr(cli, "synthetic_sets", lambda study: [])  # nothing is made beside it


def test_a_failure_is_the_stages_own_sentence_and_ends_with_1(monkeypatch, capsys):
    message = "train/s0/1.jpg: not a readable image (notebook 01_data_preparation, cell 4)"
    fake_snakemake(monkeypatch, lines({"event": "failed", "stage": "01_data_preparation", "message": message}), 1)
    assert main(["params/smoke.yaml"]) == 1
    assert capsys.readouterr().err == f"error: {message}\n"


FAILED = {"event": "failed", "stage": "03_strategy_a_imagenet_paper_seed0", "message": "a.pth: no checkpoint."}


def test_a_failure_is_on_the_screen_while_other_stages_still_run(console):
    reporter = Reporter(console)
    for event in ({"event": "started", "stage": FAILED["stage"]}, EPOCH, FAILED):
        reporter.handle(event)
    assert screen(console) == "03_strategy_a_imagenet_paper_seed0 failed: a.pth: no checkpoint.\n"
    assert reporter.line().startswith("04_strategy_b_pannuke: ")  # the failed one runs no more


def test_of_several_failures_all_are_told_at_the_end(monkeypatch, capsys):
    fake_snakemake(monkeypatch, lines(FAILED, FAILED | {"stage": "06_baselines", "message": "b.pth: damaged."}), 1)
    assert main(["params/smoke.yaml"]) == 1
    assert capsys.readouterr().err == "error: a.pth: no checkpoint. b.pth: damaged.\n"


def test_a_stage_that_ended_without_a_word_is_named(monkeypatch, capsys):
    """As one that was killed: its process says nothing of its end."""
    fake_snakemake(monkeypatch, lines({"event": "started", "stage": FAILED["stage"]}), 1)
    assert main(["params/smoke.yaml"]) == 1
    said = capsys.readouterr().err
    assert f"error: the run stopped with code 1, during {FAILED['stage']}; its log is " in said
    assert said.endswith("; it was killed, or memory ran out: give the same command again.\n")


def test_where_nothing_can_be_written_any_more_that_is_why_a_stage_said_nothing(monkeypatch, capsys):
    """As on a full disk, where its last words have no room either."""
    fake_snakemake(monkeypatch, lines({"event": "started", "stage": FAILED["stage"]}), 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, before[1]))
    try:
        assert main(["params/smoke.yaml"]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = capsys.readouterr().err
    assert "cannot be written (File too large); raise the limit on file sizes (ulimit -f)" in said and ".room" in said


def test_a_full_folder_of_temporary_files_is_why_a_stage_said_nothing(monkeypatch, capsys):
    fake_snakemake(monkeypatch, lines({"event": "started", "stage": FAILED["stage"]}), 1)
    monkeypatch.setattr(runner, "full_folders", lambda least: [f"/tmp: {least} bytes."])
    assert main(["params/smoke.yaml"]) == 1
    assert capsys.readouterr().err == "error: /tmp: 1048576 bytes.\n"


def test_a_module_that_a_stage_alone_imports_and_cannot_read_is_why_too(monkeypatch, capsys, tmp_path):
    fake_snakemake(monkeypatch, "", 1)
    write_text(tmp_path / "lgffem_core" / "run" / "execute.py", "x = (\n")
    monkeypatch.setattr(runner, "PROJECT", tmp_path)
    assert main(["params/smoke.yaml"]) == 1
    assert f"error: {tmp_path}/lgffem_core/run/execute.py, line 1: is not Python" in capsys.readouterr().err


def test_ctrl_c_after_a_failure_does_not_promise_that_the_same_command_goes_on(monkeypatch, capsys):
    def stopped(study, command, reporter, warm, beside):
        reporter.handle(FAILED)
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run_graph", stopped)
    assert main(["params/smoke.yaml"]) == 130
    said = "stopped; 03_strategy_a_imagenet_paper_seed0 had failed: a.pth: no checkpoint.\n"
    assert capsys.readouterr().err == said


def test_an_event_of_a_failure_names_the_stage_with_variant_and_seed(monkeypatch, tmp_path):
    def fails(*_):
        raise StudyError("a.pth: no checkpoint.")

    monkeypatch.setattr("lgffem_core.run.execute.execute_stage", fails)
    monkeypatch.setenv(runner.VARIABLE, str(tmp_path / "events"))
    request = str(Request("params/smoke.yaml", {}).write(tmp_path / "request.json"))
    assert main(["notebook", request, "03_strategy_a_imagenet", "--variant", "paper", "--seed", "0"]) == 1
    assert json.loads((tmp_path / "events").read_text()).items() >= FAILED.items()


def test_an_error_of_a_stage_outside_its_notebook_is_told_in_a_sentence(sandbox, monkeypatch, tmp_path, capsys):
    """The disk is full when the note is written: the run says so, and not only its log."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "stages/02.json")

    monkeypatch.setattr("lgffem_core.run.execute.execute_stage", full)
    monkeypatch.setenv(runner.VARIABLE, str(tmp_path / "events"))
    request = Request("params/smoke.yaml", {}).write(tmp_path / "request.json")
    assert main(["notebook", str(request), "02_model_definition"]) == 1
    assert capsys.readouterr().err == "error: stages/02.json: No space left on device.\n"
    fake_snakemake(monkeypatch, (tmp_path / "events").read_text(), 1)
    assert main(["params/smoke.yaml"]) == 1
    assert capsys.readouterr().err == "error: stages/02.json: No space left on device.\n"


def test_a_reference_that_cannot_be_compared_with_is_refused_before_the_rerun(monkeypatch, capsys, tmp_path):
    write_text(tmp_path / "results" / "reference" / "smoke" / "manifest.json", '{"label": "older"}')
    monkeypatch.setattr(cli, "PROJECT", tmp_path)
    monkeypatch.setattr(cli, "run", lambda *request: pytest.fail("was run"))
    assert main(["verify", "--rerun", str(PROJECT / "params" / "smoke.yaml")]) == 1
    assert "manifest.json cannot be read (it has no profile, as those of older versions)" in capsys.readouterr().err


def test_a_rerun_of_a_profile_that_is_not_kept_says_which_are(monkeypatch, capsys, tmp_path):
    for name in ("one", "two"):
        write_text(tmp_path / "results" / "reference" / name / "manifest.json", "{}")
    monkeypatch.setattr(cli, "PROJECT", tmp_path)
    assert main(["verify", "--rerun", str(PROJECT / "params" / "smoke.yaml")]) == 2
    assert "compares with kept runs alone (there are: one, two), and " in capsys.readouterr().err


def test_a_failure_without_a_word_names_the_log(monkeypatch, capsys, sandbox):
    fake_snakemake(monkeypatch, "", 3)
    assert main(["params/smoke.yaml"]) == 1
    error = capsys.readouterr().err
    assert "code 3" in error and str(sandbox / "artifacts" / "smoke" / "snakemake.log") in error


def test_a_run_ends_with_table_1_and_where_the_results_are(monkeypatch, capsys, sandbox):
    mine, kept, waiting = study(sandbox), [], [Stage("04_strategy_b_pannuke")]
    (mine.results / "tables").mkdir(parents=True)
    (mine.results / "tables" / "table1.md").write_text("| strategy |\n")
    monkeypatch.setattr(cli, "keep_report", lambda study, request: kept.append(request) or len(kept) == 1)
    monkeypatch.setattr(cli, "raise_flags", lambda study: waiting)
    monkeypatch.setattr(cli, "due", lambda study: [])
    fake_snakemake(monkeypatch, lines(FINISHED))
    assert main(["params/smoke.yaml", "--set", "seeds=[3]"]) == 0
    out = capsys.readouterr().out
    assert "DEMO" in out and "| strategy |" in out and "report.html" in out and "nothing has changed" not in out
    assert f"1 of {len(all_stages(mine))} stages to run" in out and len(kept) == 1
    request = Request.read(mine.artifacts / "request.json")
    assert request == Request("params/smoke.yaml", {"seeds": [3]})
    waiting.clear()
    monkeypatch.setattr(cli, "run_graph", lambda *_: pytest.fail("started"))
    assert main(["params/smoke.yaml"]) == 0
    assert "nothing has changed since the last run" in capsys.readouterr().out


def test_what_changed_during_a_run_ends_it_with_a_sentence(monkeypatch, capsys):
    fake_snakemake(monkeypatch, lines(FINISHED))
    monkeypatch.setattr(cli, "keep_report", lambda study, request: pytest.fail("reported"))
    assert main(["params/smoke.yaml"]) == 1
    error = capsys.readouterr().err
    assert "changed while the run was under way" in error and "01_data_preparation" in error


def test_snakemake_is_told_the_request_and_the_cores(sandbox):
    mine = study(sandbox)
    command = snakemake_command(mine, mine.artifacts / "request.json", 3)
    assert command[:3] == [sys.executable, "-m", "snakemake"]
    assert command[command.index("--cores") + 1] == "3" and "request=request.json" in command
    assert command[command.index("--directory") + 1] == str(mine.artifacts)
    assert Path(command[command.index("--snakefile") + 1]).is_file()


# -- stopping --------------------------------------------------------------------------------------------

STUBBORN = (
    "import os, signal, subprocess, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN);"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
    "print(child.pid, flush=True); time.sleep(60)"
)


def test_what_is_started_behind_an_ampersand_can_be_interrupted(monkeypatch):
    code, seen = "import signal; print(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)", []
    output = partial(subprocess.check_output, [sys.executable, "-c", code], text=True)
    monkeypatch.setattr(cli, "perform", lambda options: seen.append(output()) or 0)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell without job control has it
    try:
        assert main([]) == 0 and signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == ["False\n"]


def alive(pid):
    """True while a process runs; one that has ended and is not yet collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_process_that_does_not_stop_is_killed_with_its_children():
    process = subprocess.Popen(
        [sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        child = int(process.stdout.readline())
        stop_group(process, patience=0.5)
        assert process.returncode == -signal.SIGKILL
        deadline = time.monotonic() + 10
        while alive(child) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not alive(child)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def heeds_ctrl_c():
    """A job that a shell put into the background ignores Ctrl-C; this test does not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_once_more_kills_at_once_and_leaves_nothing(sandbox, console, monkeypatch, heeds_ctrl_c):
    """While what was interrupted still ends, which it may take its time for."""
    mine, swept = study(sandbox), []
    mine.artifacts.mkdir(parents=True)

    class Interrupted(Reporter):
        def handle(self, event):
            threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
            os.kill(os.getpid(), signal.SIGINT)

    def sweep(study):
        os.kill(os.getpid(), signal.SIGINT)  # and a third time
        swept.append(study)

    monkeypatch.setattr(runner, "end_leftovers", sweep)
    command = said(lines(FINISHED))
    command[-1] += "; import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_graph(mine, command, Interrupted(console))
    assert swept == [mine] and 1 <= time.monotonic() - began < 10  # seconds; unasked, it is given 15


def test_ctrl_c_stops_the_run_and_what_it_started(sandbox, console, monkeypatch, heeds_ctrl_c):
    mine = study(sandbox)
    mine.artifacts.mkdir(parents=True)
    events = mine.artifacts / "events.jsonl"
    started = []
    original = subprocess.Popen

    def remembered(*arguments, **options):
        started.append(original(*arguments, **options))
        return started[-1]

    class Interrupted(Reporter):
        def handle(self, event):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(runner.subprocess, "Popen", remembered)
    stages = all_stages(mine)[2:4]
    going, failed = (write_text(failed_notebook(mine, stage), "{}") for stage in stages)
    reporter = Interrupted(console)
    reporter.running = {stages[0].name: ("", "")}
    command = said(lines(FINISHED))
    command[-1] += "; import time; time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        run_graph(mine, command, reporter)
    assert events.exists() and len(started) == 1 and started[0].poll() is not None
    assert failed.exists() and not going.exists()  # what was merely stopped has not failed
