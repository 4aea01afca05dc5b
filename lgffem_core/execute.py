"""Executing one stage: a notebook, in a kernel of its own, by papermill."""

import os
import re
import resource
import sys
import time
from pathlib import Path

import papermill
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError

from lgffem_core.errors import StudyError
from lgffem_core.files import sha256_file, write_json, write_text
from lgffem_core.progress import STAGE_VARIABLE, emit
from lgffem_core.stages import Request, executed_notebook, stage_name, stage_outputs
from lgffem_core.study import PROJECT

OWN_ERRORS = ("StudyError", "RequestError")


def notebook_parameters(request: Request, variant: str, seed: str) -> dict:
    """What papermill puts into the cell tagged ``parameters``."""
    params = Path(request.params)
    location = str(params) if params.is_absolute() else str(Path("..") / params)
    parameters = {"params": location, "overrides": request.overrides}
    return parameters | ({"variant": variant, "seed": int(seed)} if variant else {})


def execute_stage(request: Request, notebook: str, variant: str = "", seed: str = "") -> None:
    """Run a notebook headless, check that it left what it declares, and keep it executed, as .ipynb and .html.

    Raises ``StudyError`` naming notebook and cell. A copy of a failed notebook is kept as ``….failed.ipynb``.
    """
    study, name = request.study, stage_name(notebook, variant, seed)
    final = executed_notebook(study, notebook, variant, seed)
    failed = final.with_suffix(".failed.ipynb")
    final.parent.mkdir(parents=True, exist_ok=True)
    os.environ[STAGE_VARIABLE] = name  # inherited by the kernel
    emit("started")
    began = time.monotonic()
    try:
        papermill.execute_notebook(
            PROJECT / "notebooks" / f"{notebook}.ipynb",
            failed,
            notebook_parameters(request, variant, seed),
            cwd=PROJECT / "notebooks",
            progress_bar=False,
            kernel_name="python3",
        )
    except PapermillExecutionError as error:
        raise StudyError(describe_failure(notebook, error, failed)) from None
    except Exception as error:  # a kernel that was killed, or never came up
        raise StudyError(f"notebook {notebook}: the kernel ended before its time ({error}).") from error
    outputs = stage_outputs(study, notebook, variant, seed)
    missing = [path for path in outputs if path.parent != final.parent and not path.exists()]
    if missing:
        raise StudyError(f"notebook {notebook}: ended without writing {missing[0]}.")
    write_text(final.with_suffix(".html"), HTMLExporter().from_filename(str(failed))[0])
    os.replace(failed, final)
    seconds = time.monotonic() - began
    record_stage(study, name, notebook, seed, outputs, seconds)
    emit("finished", seconds=seconds)


def describe_failure(notebook: str, error: PapermillExecutionError, copy: Path) -> str:
    """One sentence for the study's own errors; for others the kind, and where the traceback is."""
    message = re.sub(r"\s+", " ", str(error.evalue)).strip()
    if error.ename in OWN_ERRORS:
        if "Traceback" in message:  # a loader's worker process wraps the sentence in its traceback
            message = message.rsplit("Error: ", 1)[-1]
        return f"{message} (notebook {notebook}, cell {error.cell_index + 1})"
    return f"notebook {notebook}, cell {error.cell_index + 1}: {error.ename}: {message}; traceback in {copy}."


def record_stage(study, name: str, notebook: str, seed: str, outputs: list[Path], seconds: float) -> None:
    """Note what a stage wrote and what it took; the manifest is put together from these notes."""
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # of the kernel, Linux: KiB
    write_json(
        study.artifacts / "stages" / f"{name}.json",
        {
            "producer": f"notebooks/{notebook}.ipynb",
            "seed": int(seed) if seed != "" else None,
            "seconds": round(seconds, 1),
            "peak_memory_mib": round(peak_kib / (1024 if sys.platform != "darwin" else 1 << 20)),
            "outputs": {os.path.relpath(path, study.root): sha256_file(path) for path in outputs},
        },
    )
