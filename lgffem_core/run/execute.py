"""Executing one stage: a notebook, in a kernel of its own, by papermill."""

import json
import os
import re
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

import papermill
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.exceptions import PapermillExecutionError

from lgffem_core import data
from lgffem_core.base.errors import StudyError, plain
from lgffem_core.base.files import REMEDIES, atomic_path, held, sha256_file, write_json, write_text
from lgffem_core.base.progress import STAGE_VARIABLE, emit
from lgffem_core.base.project import PROJECT
from lgffem_core.config.machine import machine
from lgffem_core.config.study import Study
from lgffem_core.config.watched import watching
from lgffem_core.data.census import look
from lgffem_core.report.notebook import notebook_page
from lgffem_core.run.due import data_state, inputs, is_finished, key, notebook_to_run
from lgffem_core.run.stages import (
    Request,
    Stage,
    absent_systems,
    declared,
    executed_notebook,
    failed_notebook,
    flag_file,
    note_file,
    stage_outputs,
)
from lgffem_core.run.warm import peak_memory, warmed

OWN_ERRORS = ("StudyError", "RequestError")
#: As Python, C++, the system and what loads libraries say it.
NO_MEMORY = re.compile(r"MemoryError|bad_alloc|annot allocate memory|not enough memory|failed to map segment")


SAVED_AFTER = 2.0  # seconds since the last copy


class SeldomSaved(NBClientEngine):
    """Papermill's own but for its copy of the notebook, pictures and all, before and after each cell, however quick.

    That took a quarter of its time. Papermill itself writes the last copy, whether all cells ran or not.
    """

    @classmethod
    def execute_managed_notebook(cls, nb_man: NotebookExecutionManager, *arguments, **options) -> None:
        save = nb_man.save

        def seldom() -> None:
            if (nb_man.now() - nb_man.last_save_time).total_seconds() >= SAVED_AFTER:
                save()

        nb_man.save = seldom
        try:
            super().execute_managed_notebook(nb_man, *arguments, **options)
        finally:
            nb_man.save = save


papermill_engines.register("seldom_saved", SeldomSaved)


class OwnPython(AsyncKernelManager):
    """Starts the Python that runs this, whatever kernels there are in a user's or the machine's Jupyter folders.

    Its address is a file in the run's private folder, which is removed with it however the kernel ends.
    """

    def _kernel_spec_manager_default(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])  # leaves ipykernel's own

    def _connection_file_default(self) -> str:
        folder = os.environ.get("JUPYTER_RUNTIME_DIR", "")
        return f"{folder}/kernel-{os.getpid()}.json" if os.path.isdir(folder) else ""  # another machine of a cluster

    def format_kernel_cmd(self, *arguments, **options) -> list[str]:
        return warmed(super().format_kernel_cmd(*arguments, **options))


def notebook_parameters(request: Request, variant: str, seed: str) -> dict:
    """What papermill puts into the cell tagged ``parameters``."""
    params = Path(request.params)
    location = str(params) if params.is_absolute() else str(Path("..") / params)
    parameters = {"params": location, "overrides": request.overrides}
    return parameters | ({"variant": variant, "seed": int(seed)} if variant else {})


def alone(study: Study, stage: Stage) -> AbstractContextManager:
    """Wait until no other process runs the stage: a cluster's jobs may outlive the run that submitted them."""
    return held(note_file(study, stage).with_suffix(".lock"))


def execute_stage(request: Request, notebook: str, variant: str = "", seed: str = "") -> None:
    """Run a notebook headless unless its stage is finished, and note what it ran from and what it left.

    The executed notebook is kept as .ipynb and .html; a copy of one that failed as ``….failed.ipynb``. Raises
    ``StudyError`` naming notebook and cell.
    """
    study, stage = request.study, Stage(notebook, variant, int(seed) if seed != "" else "")
    with alone(study, stage):
        if not is_finished(study, stage):
            os.environ[STAGE_VARIABLE] = stage.name  # inherited by the kernel
            emit("started")
            began = time.monotonic()
            # What is noted is what was there before: a change while the notebook runs makes the stage run again.
            before = {"key": key(study, stage), "inputs": inputs(study, stage), "data": data_state(study, stage)}
            with watching(declared(study, stage), note_file(study, stage).with_suffix(".declared")) as reads:
                run_notebook(request, study, stage)
                before["reads"] = reads()
            record_stage(study, stage, before, time.monotonic() - began)
            emit("finished", seconds=time.monotonic() - began)
        flag_file(study, *stage).touch()


def run_notebook(request: Request, study: Study, stage: Stage) -> None:
    """Execute a stage's notebook, check that it left what it declares, and put the executed copy in place."""
    final, failed = executed_notebook(study, *stage), failed_notebook(study, stage)
    outputs = [path for path in stage_outputs(study, *stage) if path.parent != final.parent]
    before = {path: look(path) for path in outputs if path.is_relative_to(study.results)}  # weights may stay
    source = json.dumps(notebook_to_run(stage.notebook, absent_systems(study)))
    failed.unlink(missing_ok=True)
    with atomic_path(final) as going:
        try:
            run_cells(request, study, stage, source, going)
            missing = [path for path in outputs if not path.exists() or (path in before and look(path) == before[path])]
            if missing:
                raise StudyError(f"notebook {stage.notebook}: ended without writing {missing[0]}.")
        except StudyError:
            going.replace(failed)
            raise
        write_text(final.with_suffix(".html"), notebook_page(going, stage.name))


def run_cells(request: Request, study: Study, stage: Stage, source: str, going: Path) -> None:
    """Execute the notebook that ``source`` holds in the copy ``going``; ``StudyError`` names notebook and cell.

    ``OSError`` where the copy cannot be written, as papermill does after a cell, or at the end.
    """
    notebook, reached = stage.notebook, [0]
    try:
        going.write_text(source, encoding="utf-8")
        papermill.execute_notebook(
            no_format(going),
            no_format(going),
            notebook_parameters(request, stage.variant, stage.seed),
            engine_name="seldom_saved",
            cwd=PROJECT / "notebooks",
            progress_bar=False,
            kernel_name="python3",
            kernel_manager_class=OwnPython,
            start_timeout=600,  # seconds; a kernel of a busy machine takes more than papermill's 60
            on_cell_start=lambda cell, cell_index: reached.append(cell_index),
        )
    except PapermillExecutionError as error:
        raise StudyError(describe_failure(notebook, error, failed_notebook(study, stage))) from None
    except OSError as error:
        if error.errno in REMEDIES:
            raise
        raise StudyError(f"notebook {notebook}, cell {reached[-1] + 1}: {error}.") from error
    except NoSuchKernel:
        raise StudyError(
            f"notebook {notebook}: cannot run, for ipykernel is missing in {sys.prefix}; remove that folder, and "
            "./run_all.sh makes it anew."
        ) from None
    except Exception as error:  # a kernel that was killed, or never came up
        unstarted = f", or could not start (see {study.artifacts / 'snakemake.log'})" if reached == [0] else ""
        raise StudyError(
            f"notebook {notebook}, cell {reached[-1] + 1}: the kernel ended before its time ({error}); it was killed, "
            f"or memory ran out{unstarted}; give the same command again."
        ) from error


def no_format(path: Path) -> str:
    """A path for papermill, which fills in what stands between braces."""
    return str(path).replace("{", "{{").replace("}", "}}")


def describe_failure(notebook: str, error: PapermillExecutionError, copy: Path) -> str:
    """One sentence for the study's own errors; for others the kind, and where the traceback is."""
    message = plain(str(error.evalue))
    if error.ename in OWN_ERRORS:
        return f"{message} (notebook {notebook}, cell {error.cell_index + 1})"
    said = f"notebook {notebook}, cell {error.cell_index + 1}: {error.ename}: {message}; traceback in {copy}"
    if NO_MEMORY.search(f"{error.ename}: {message}"):
        return f"{said}; memory ran out, or is limited (ulimit -v): free some, then give the same command again."
    return f"{said}."


def record_stage(study: Study, stage: Stage, before: dict, seconds: float) -> None:
    """Note what a stage ran from, wrote and took: by this it is known as finished, and the manifest is made of it.

    Data count as they are afterwards: by then synthetic images are made and archives unpacked.
    """
    for dataset in before["data"]:
        data.check_unchanged(study, dataset)  # against the index: a file that changed while the others were read
    write_json(
        note_file(study, stage),
        {
            **before,
            "data": data_state(study, stage),
            "producer": f"notebooks/{stage.notebook}.ipynb",
            "seed": stage.seed if stage.seed != "" else None,
            "seconds": round(seconds, 1),
            "peak_memory_mib": round(peak_memory() / (1024 if sys.platform != "darwin" else 1 << 20)),
            "machine": machine(study.params.compute.device),
            "outputs": {
                path.relative_to(study.root).as_posix(): sha256_file(path) for path in stage_outputs(study, *stage)
            },
        },
    )
