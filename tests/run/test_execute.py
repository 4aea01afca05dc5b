"""Executing a stage: what papermill is given, what is kept, and how failures read."""

import errno
import os
import sys
from threading import Thread

import nbformat
import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

from lgffem_core.base.errors import StudyError
from lgffem_core.base.files import TEMPORARY, read_json, write_json
from lgffem_core.base.project import PROJECT
from lgffem_core.config.params import DATASETS
from lgffem_core.config.study import Study
from lgffem_core.run import execute
from lgffem_core.run.due import is_finished
from lgffem_core.run.stages import (
    Request,
    Stage,
    executed_notebook,
    failed_notebook,
    flag_file,
    note_file,
    stage_outputs,
)

STAGE = ("03_strategy_a_imagenet", "paper", "0")


@pytest.fixture
def request_in(tmp_path, monkeypatch):
    load = Study.load
    monkeypatch.setattr(
        Request, "study", property(lambda self: load(PROJECT / self.params, self.overrides, root=tmp_path / "out {x}"))
    )
    return Request("params/smoke.yaml", {"training.a.epochs": 3})


def pretend(monkeypatch, body):
    """Let papermill write an empty notebook and then do ``body`` instead of running cells."""
    calls = []

    def run(source, target, parameters, **options):
        calls.append((source, parameters, options))
        nbformat.write(nbformat.v4.new_notebook(), target.format())
        body()

    monkeypatch.setattr(papermill, "execute_notebook", run)
    return calls


def copies(study):
    """Names of the notebooks in the results, hidden ones too."""
    return [path.name for path in (study.results / "notebooks").glob("*.ipynb")]


def write_outputs(study):
    for path in stage_outputs(study, *STAGE):
        if path.suffix not in (".ipynb", ".html"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("made")


def test_a_stage_gets_its_parameters_and_is_noted(request_in, monkeypatch):
    study = request_in.study
    calls = pretend(monkeypatch, lambda: write_outputs(study))
    execute.execute_stage(request_in, *STAGE)
    ((_, parameters, options),) = calls
    expected = {"params": "../params/smoke.yaml", "overrides": {"training.a.epochs": 3}, "variant": "paper", "seed": 0}
    assert parameters == expected and options["cwd"] == PROJECT / "notebooks"
    note = read_json(study.artifacts / "stages" / "03_strategy_a_imagenet_paper_seed0.json")
    assert note["producer"] == "notebooks/03_strategy_a_imagenet.ipynb" and len(note["outputs"]) == 4
    executed = executed_notebook(study, *STAGE)
    assert executed.exists() and "<html" in executed.with_suffix(".html").read_text()


def test_a_stage_waits_for_whoever_runs_it_and_then_finds_it_finished(request_in, monkeypatch):
    """A job of a cluster may outlive the run that submitted it, and the next run submits it again."""
    study = request_in.study
    calls = pretend(monkeypatch, lambda: write_outputs(study))
    second = Thread(target=execute.execute_stage, args=(request_in, *STAGE))
    with execute.alone(study, Stage(*STAGE)):
        second.start()
        second.join(1)
        assert second.is_alive() and not calls
    second.join(60)
    execute.execute_stage(request_in, *STAGE)
    assert len(calls) == 1 and not second.is_alive()


def test_a_notebook_that_leaves_no_output_has_not_finished(request_in, monkeypatch):
    pretend(monkeypatch, lambda: None)
    with pytest.raises(StudyError, match="03_strategy_a_imagenet: ended without writing .*model.safetensors"):
        execute.execute_stage(request_in, *STAGE)
    assert not executed_notebook(request_in.study, *STAGE).exists()


def fail_with(ename, evalue):
    def body():
        raise PapermillExecutionError(4, 3, "source", ename, evalue, ["traceback"])

    return body


def test_a_table_of_an_earlier_run_does_not_pass_for_one_of_this(request_in, monkeypatch):
    study = request_in.study
    old = [path for path in stage_outputs(study, "11_ledger") if path.parent.name == "tables"]
    for path in old:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("of an earlier run")
    pretend(monkeypatch, lambda: [path.write_text("made") for path in old[1:]])
    with pytest.raises(StudyError, match=f"ended without writing .*{old[0].name}"):
        execute.execute_stage(request_in, "11_ledger")
    assert not is_finished(study, Stage("11_ledger"))


def test_the_studys_own_error_is_one_sentence(request_in, monkeypatch):
    pretend(monkeypatch, fail_with("StudyError", "s7/1.jpg: not a readable image."))
    with pytest.raises(StudyError) as caught:
        execute.execute_stage(request_in, *STAGE)
    assert str(caught.value) == "s7/1.jpg: not a readable image. (notebook 03_strategy_a_imagenet, cell 5)"


def test_another_error_names_its_kind_and_where_the_traceback_is(request_in, monkeypatch):
    pretend(monkeypatch, fail_with("KeyError", "'x'"))
    with pytest.raises(StudyError, match=r"cell 5: KeyError: 'x'; traceback in .*\.failed\.ipynb"):
        execute.execute_stage(request_in, *STAGE)


def test_a_full_disk_is_not_taken_for_a_killed_kernel(request_in, monkeypatch):
    def full():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    pretend(monkeypatch, full)
    with pytest.raises(StudyError, match=r"seed0\.ipynb: cannot be written \(No space left on device\); free space"):
        execute.execute_stage(request_in, *STAGE)
    assert copies(request_in.study) == []


def test_a_copy_that_cannot_be_written_at_all_is_no_killed_kernel_either(request_in, small_files):
    """As with a limit on the sizes of files that the notebook itself is above."""
    with small_files(1000), pytest.raises(StudyError) as caught:
        execute.run_notebook(request_in, request_in.study, Stage(*STAGE))
    assert "seed0.ipynb: cannot be written (File too large); raise the limit on file sizes" in str(caught.value)
    assert "kernel" not in str(caught.value) and copies(request_in.study) == []


@pytest.mark.parametrize(
    ("ename", "evalue"),
    [
        ("MemoryError", ""),
        ("RuntimeError", "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: "
                         "you tried to allocate 8 bytes. Error code 12 (Cannot allocate memory)"),
        ("ImportError", "libtorch_cuda.so: failed to map segment from shared object"),
        ("RuntimeError", "std::bad_alloc"),
    ],
)  # fmt: skip
def test_where_memory_ran_out_it_is_said_so(request_in, monkeypatch, ename, evalue):
    pretend(monkeypatch, fail_with(ename, evalue))
    with pytest.raises(StudyError, match=r"failed\.ipynb; memory ran out, or is limited \(ulimit -v\): free"):
        execute.execute_stage(request_in, *STAGE)


def test_no_copy_is_called_failed_before_it_failed(request_in, monkeypatch):
    """While it runs it has the name of a file that is being written, which a killed run's are known by."""
    study, seen = request_in.study, []

    def run():
        seen.extend(copies(study))
        write_outputs(study)

    failed = write_json(failed_notebook(study, Stage(*STAGE)), "of an earlier run")
    pretend(monkeypatch, run)
    execute.execute_stage(request_in, *STAGE)
    (going,) = seen
    assert TEMPORARY.fullmatch(going) and not failed.exists()
    assert copies(study) == [executed_notebook(study, *STAGE).name]


def test_a_notebook_that_is_stopped_leaves_no_copy(request_in, monkeypatch):
    def stopped():
        raise KeyboardInterrupt

    pretend(monkeypatch, stopped)
    with pytest.raises(KeyboardInterrupt):
        execute.execute_stage(request_in, *STAGE)
    assert copies(request_in.study) == []


def test_a_profile_outside_the_project_is_given_by_its_full_path(tmp_path):
    parameters = execute.notebook_parameters(Request(str(tmp_path / "own.yaml"), {}), "", "")
    assert parameters == {"params": str(tmp_path / "own.yaml"), "overrides": {}}


@pytest.fixture
def small_notebook(tmp_path, monkeypatch):
    """Put a notebook of these cells where that of stage 02 is looked for."""

    def write(*sources):
        kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
        first = nbformat.v4.new_code_cell("params = ''\noverrides = {}", metadata={"tags": ["parameters"]})
        cells = [first, *map(nbformat.v4.new_code_cell, sources)]
        (folder := tmp_path / "project {x}" / "notebooks").mkdir(parents=True)
        notebook = nbformat.v4.new_notebook(metadata={"kernelspec": kernel}, cells=cells)
        nbformat.write(notebook, folder / "02_model_definition.ipynb")
        for module in ("due", "execute"):
            monkeypatch.setattr(f"lgffem_core.run.{module}.PROJECT", folder.parent)

    return write


def test_the_real_thing_runs_in_a_kernel_once(request_in, small_notebook):
    small_notebook("print(params, overrides['training.a.epochs'])")
    write_note_of_data(request_in.study)
    execute.execute_stage(request_in, "02_model_definition")
    path = executed_notebook(request_in.study, "02_model_definition")
    done = nbformat.read(path, 4)
    assert any("../params/smoke.yaml 3" in o.get("text", "") for cell in done.cells for o in cell.outputs)
    flag, before = flag_file(request_in.study, "02_model_definition"), path.stat().st_mtime_ns
    flag.unlink()  # as Snakemake does before a job
    execute.execute_stage(request_in, "02_model_definition")
    assert flag.exists() and path.stat().st_mtime_ns == before


def test_a_killed_kernel_is_named_with_its_cell_and_has_not_finished(request_in, small_notebook):
    small_notebook("print('before')", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "print('after')")
    write_note_of_data(request_in.study)
    with pytest.raises(StudyError, match="notebook 02_model_definition, cell 4: the kernel ended before its time"):
        execute.execute_stage(request_in, "02_model_definition")
    assert not is_finished(request_in.study, Stage("02_model_definition"))
    assert not flag_file(request_in.study, "02_model_definition").exists()
    copy = nbformat.read(failed_notebook(request_in.study, Stage("02_model_definition")), 4)
    assert [o["text"] for cell in copy.cells for o in cell.get("outputs", [])] == ["before\n"]


@pytest.mark.parametrize(("age", "expected"), [(600.0, 2), (0.0, 2 + 2 * 5)])
def test_the_copy_is_not_written_around_each_quick_cell(request_in, small_notebook, monkeypatch, age, expected):
    """Before the first cell and after the last; also around each, one of them papermill's, where the last is old."""
    written = []
    write = papermill.engines.write_ipynb
    monkeypatch.setattr(papermill.engines, "write_ipynb", lambda nb, path: written.append(path) or write(nb, path))
    monkeypatch.setattr(execute, "SAVED_AFTER", age)
    small_notebook(*("1 + 1" for _ in range(3)))
    write_note_of_data(request_in.study)
    execute.execute_stage(request_in, "02_model_definition")
    assert len(written) == expected


def test_a_kernel_has_its_address_in_the_run_s_own_folder(request_in, small_notebook, monkeypatch, tmp_path):
    """Which is removed with the run, or by the next one; Jupyter's own choice is the system's folder for all."""
    (runtime := tmp_path / "private").mkdir()
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(runtime))
    small_notebook("import os\nfrom ipykernel.connect import get_connection_file\nprint(get_connection_file())")
    write_note_of_data(request_in.study)
    execute.execute_stage(request_in, "02_model_definition")
    done = nbformat.read(executed_notebook(request_in.study, "02_model_definition"), 4)
    (said,) = [o["text"].strip() for cell in done.cells for o in cell.get("outputs", [])]
    assert said == str(runtime / f"kernel-{os.getpid()}.json") and not os.path.exists(said)


def test_where_that_folder_is_not_a_kernel_runs_all_the_same(request_in, small_notebook, monkeypatch, tmp_path):
    """As on another machine of a cluster."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "none"))
    small_notebook("print('ran')")
    write_note_of_data(request_in.study)
    execute.execute_stage(request_in, "02_model_definition")
    assert is_finished(request_in.study, Stage("02_model_definition"))


@pytest.fixture
def foreign_kernel(tmp_path, monkeypatch):
    """A kernel "python3" in a folder of the user's, which is another: it says so."""
    (folder := tmp_path / "jupyter" / "kernels" / "python3").mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "theirs", "language": "python", "env": {"THEIRS": "1"}}
    write_json(folder / "kernel.json", spec)
    for name in ("JUPYTER_PATH", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))


def test_cells_run_in_this_environment_whatever_kernels_the_user_has(request_in, small_notebook, foreign_kernel):
    small_notebook(f"import os, sys\nassert ('THEIRS' in os.environ, sys.executable) == (False, {sys.executable!r})")
    write_note_of_data(request_in.study)
    execute.execute_stage(request_in, "02_model_definition")


def test_a_missing_kernel_is_said_to_be_missing(request_in, small_notebook, foreign_kernel, monkeypatch):
    small_notebook("print('never')")
    write_note_of_data(request_in.study)
    monkeypatch.setitem(sys.modules, "ipykernel.kernelspec", None)  # as where the package is not there
    with pytest.raises(StudyError, match="ipykernel is missing in .*; remove that folder") as caught:
        execute.execute_stage(request_in, "02_model_definition")
    assert "killed" not in str(caught.value)


def test_a_kernel_that_cannot_start_is_not_only_said_to_be_killed(request_in, small_notebook, monkeypatch):
    small_notebook("print('never')")
    write_note_of_data(request_in.study)
    monkeypatch.setattr(execute.OwnPython, "format_kernel_cmd", lambda *_, **__: [sys.executable, "-c", "1 / 0"])
    with pytest.raises(StudyError, match=r"cell 1: the kernel ended .* could not start \(see .*snakemake\.log\)"):
        execute.execute_stage(request_in, "02_model_definition")


def write_note_of_data(study):
    """As if the data had been prepared."""
    outputs = {study.index(name).relative_to(study.root).as_posix(): "abc" for name in DATASETS}
    write_json(note_file(study, Stage("01_data_preparation")), {"outputs": outputs})
