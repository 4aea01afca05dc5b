"""What a stage depends on, and whether it is finished.

It is when its note says that it ran from what is there now: the same parameters, the same code, the same packages,
inputs and outputs of the same content. Neither times of files nor what a notebook says of itself count. Nothing here
imports torch.
"""

from collections.abc import Collection
from pathlib import Path

from lgffem_core.base.errors import StudyError, one_line
from lgffem_core.base.files import read_json, sha256_file, sha256_json
from lgffem_core.base.project import PROJECT
from lgffem_core.base.sources import UNREADABLE, reason
from lgffem_core.config.code_version import code_hash, lock_hash, syntax_hash
from lgffem_core.config.machine import COMPUTING, SHOWING
from lgffem_core.config.parameter_files import leaves
from lgffem_core.config.study import Study
from lgffem_core.data.census import census
from lgffem_core.data.census import data_state as state_of
from lgffem_core.run.stages import (
    Stage,
    absent_systems,
    all_stages,
    failed_notebook,
    flag_file,
    kept_files,
    known,
    needed_sets,
    note_file,
    sets_of,
    stage_outputs,
    upstream,
)

# -- what a stage depends on -----------------------------------------------------------------------------------


def notebook_to_run(notebook: str, absent: Collection[str] = ()) -> dict:
    """A notebook without the cells that are tagged with one of the ``absent`` systems; ``StudyError`` where damaged."""
    path = notebook_file(notebook)
    try:
        found = read_json(path)
        whole = found["nbformat"] == 4 and {type(found["metadata"]), type(found["cells"])} == {dict, list}
        cells = [cell for cell in found["cells"] if not {*absent} & {*cell["metadata"].get("tags", ())}]
        whole = whole and all(map(is_cell, cells))  # else it would seem that a kernel was killed
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise StudyError(f"{path}: is no notebook, or a damaged one; restore it.")
    return found | {"cells": cells}


def is_cell(cell: dict) -> bool:
    """Whether its source is text, or lines of it."""
    lines = cell["source"] if isinstance(cell["source"], list) else [cell["source"]]
    return all(isinstance(text, str) for text in [cell["cell_type"], *lines])


def notebook_file(notebook: str) -> Path:
    """Where a notebook stands, without outputs."""
    return PROJECT / "notebooks" / f"{notebook}.ipynb"


def code_cells(notebook: str, absent: Collection[str] = ()) -> str:
    """Source of the code cells of ``notebook_to_run``: prose may change without consequences."""
    cells = notebook_to_run(notebook, absent)["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def code_state(notebook: str, absent: Collection[str] = ()) -> list[str]:
    """A hash of these code cells, and one of the code that they use."""
    cells = code_cells(notebook, absent)
    try:
        return [syntax_hash(cells), code_hash(cells)]
    except UNREADABLE as error:
        text = getattr(error, "text", None)
        where = f", line {error.lineno} of its code, {one_line(text)!r}" if text else ""
        raise StudyError(
            f"{notebook_file(notebook)}: is not Python ({reason(error)}{where}); mend it; lines for IPython alone, "
            "with % or !, are not understood."
        ) from None


def stage_params(study: Study, notebook: str) -> dict:
    """Dotted key -> value of all that a stage reads, with the contents of weights that are named; and the label."""
    entry = known()[notebook]
    paper = leaves(Study.published().params.model_dump(), "published.") if entry.published else {}
    values = leaves(study.params.model_dump()) | paper
    chosen = {key: value for key, value in values.items() if entry.declares(key)}
    for key, value in chosen.items():
        if key.endswith((".weights", ".checkpoint", ".embeddings")) and value and not key.startswith("published."):
            chosen[key] = file_content(study, value)
    return {**chosen, "label": study.label}


def file_content(study: Study, name: str) -> str | None:
    """SHA-256 of a file that the parameters name, read again only where it changed; None where there is none."""
    path = study.resolve(Path(name))
    if not path.is_file():
        return None
    cache = study.artifacts / "index" / f"{sha256_json(str(path))[:12]}.files.csv"
    return census(path.parent, [path.name], cache)[path.name]


def inputs(study: Study, stage: Stage) -> dict[str, str] | None:
    """Path -> SHA-256 of what earlier stages left for this one, as they noted it; None where one has not run."""
    found = {}
    indices = {study.index(dataset) for dataset in sets_of(study, known()[stage.notebook])}
    for earlier in upstream(study, stage):
        note = read_note(study, earlier)
        if note is None:
            return None
        wanted = indices if known()[earlier.notebook].data == "all" else kept_files(study, earlier)
        names = {path.relative_to(study.root).as_posix() for path in wanted}
        found |= {name: digest for name, digest in note["outputs"].items() if name in names}
    return found


def key(study: Study, stage: Stage) -> str:
    """Hash of all that a stage's outputs depend on: parameters, cells, code, packages, and what earlier stages left."""
    code = [*code_state(stage.notebook, absent_systems(study)), lock_hash(COMPUTING + SHOWING)]
    return sha256_json([stage_params(study, stage.notebook), code, inputs(study, stage)])


def data_state(study: Study, stage: Stage) -> dict[str, str]:
    """Data set -> what its folder holds, for the stage that reads it all."""
    return {name: state_of(study, name) for name in needed_sets(study) if known()[stage.notebook].data == "all"}


# -- what is finished ------------------------------------------------------------------------------------------


def read_note(study: Study, stage: Stage) -> dict | None:
    """A stage's note; None where there is none that can be read, or it says nothing of outputs."""
    try:
        note = read_json(note_file(study, stage))
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) and isinstance(note.get("outputs"), dict) else None


def is_finished(study: Study, stage: Stage) -> bool:
    """True where a stage ran from what is there now, and all that it left is there as it left it."""
    note = read_note(study, stage)
    if note is None or note.get("key") != key(study, stage) or note.get("data") != data_state(study, stage):
        return False
    expected = {path.relative_to(study.root).as_posix() for path in stage_outputs(study, *stage)}
    return expected == set(note["outputs"]) and all(
        (study.root / name).is_file() and sha256_file(study.root / name) == digest
        for name, digest in note["outputs"].items()
    )


def due(study: Study) -> list[Stage]:
    """The stages that are not finished, and those that read what they leave, in an order in which they can run.

    Of the latter, one whose inputs come out as they were is found finished when its turn comes.
    """
    waiting: list[Stage] = []
    for stage in all_stages(study):
        if not set(waiting).isdisjoint(upstream(study, stage)) or not is_finished(study, stage):
            waiting.append(stage)
    return waiting


def raise_flags(study: Study) -> list[Stage]:
    """Tell Snakemake what is finished, by a flag file each; returns what is ``due``.

    Copies of failed notebooks stay of those alone: others are of requests that were given up since.
    """
    waiting = due(study)
    failed = {failed_notebook(study, stage) for stage in waiting}
    for path in (study.results / "notebooks").glob("*.failed.ipynb"):
        if path not in failed:
            path.unlink(missing_ok=True)
    for stage in all_stages(study):
        flag = flag_file(study, *stage)
        flag.parent.mkdir(parents=True, exist_ok=True)
        if stage in waiting:
            flag.unlink(missing_ok=True)
        else:
            flag.touch()
    return waiting
