"""Which code a result depends on: what a notebook or module imports, what that imports, and so on.

Imports are read from the source, inside functions too, so that a stage runs again when code that it could have used
is another, and not when some other module is. What is read when a process first asks is kept: a file that is edited
while a kernel runs does not change what that kernel has imported.
"""

import ast
import os
import sys
from functools import cache
from pathlib import Path

from lgffem_core.base.files import sha256_file, sha256_json
from lgffem_core.base.project import PROJECT
from lgffem_core.config.machine import installed_versions

PACKAGE = "lgffem_core"
#: Modules that cannot change a number or a picture: of the parameters, the values count and not the code.
UNRELATED = (
    "base/errors.py",
    "base/progress.py",
    "config/code_version.py",
    "base/files.py",
    "config/params.py",
    "config/parameter_files.py",
    "config/watched.py",
    "base/surroundings.py",
)
#: Files that are no code, by the module that reads them.
READ_BY = {
    "report/tables.py": ("params/reference/table1.yaml", "params/reference/table2.yaml"),
    "audit/generality_table.py": ("params/reference/landmarks.yaml",),
    "systems/lgffem/printed.py": ("params/reference/table1_runs.yaml",),
    "systems/lgffem/ledger.py": ("params/reference/ledger.yaml",),
    "run/registry.py": ("notebooks/stages.yaml",),
    "run/page.py": ("lgffem_core/run/page.html.j2",),
}


#: Served by the data package when asked for. Other names that it serves read the index, whose content counts, and not
#: the code that made it.
MAKERS = {f"{PACKAGE}.data.{name}": f"{PACKAGE}.data.preparation" for name in ("prepare", "data_report")}


def module_file(name: str) -> Path | None:
    """The source file of a dotted name, None where it names no module of this package."""
    path = PROJECT.joinpath(*MAKERS.get(name, name).split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@cache
def imported_names(source: str) -> frozenset[str]:
    """Dotted names of this package that ``source`` imports, and those of the packages that hold them.

    >>> sorted(imported_names("from lgffem_core.data import table"))
    ['lgffem_core', 'lgffem_core.data', 'lgffem_core.data.table']
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    parts = [name.split(".") for name in names if name.split(".")[0] == PACKAGE]
    return frozenset(".".join(part[: i + 1]) for part in parts for i in range(len(part)))


def imported_files(source: str) -> set[Path]:
    """Files of this package that ``source`` imports itself, the folders' ``__init__.py`` included."""
    return {file for file in map(module_file, imported_names(source)) if file}


def source_files(source: str) -> list[str]:
    """Paths, from the project's folder, of all that ``source`` can use of this package, directly or by others."""
    found, waiting = set(), imported_files(source)
    while waiting:
        found |= waiting
        sources = [path.read_text(encoding="utf-8") for path in waiting]
        waiting = set().union(*map(imported_files, sources)) - found
    names = {path.relative_to(PROJECT).as_posix() for path in found}
    names -= {f"{PACKAGE}/{name}" for name in UNRELATED}
    read = {file for module, files in READ_BY.items() if f"{PACKAGE}/{module}" in names for file in files}
    return sorted(names | read)


@cache
def code_hash(source: str) -> str:
    """Hash over the files of this package that ``source`` can use.

    >>> len(code_hash("import lgffem_core.systems.lgffem.strategies"))
    64
    """
    return sha256_json({name: sha256_file(PROJECT / name) for name in source_files(source)})


def lock_file() -> Path:
    """What this environment was made from: the lock that ``run_all.sh`` noted, or conda's ``environment.yml``."""
    note = Path(sys.prefix) / ".made-from"  # and not ".lock", which uv keeps for itself, empty
    name = note.read_text(encoding="utf-8").strip() if note.is_file() else ""
    conda = sys.prefix == os.environ.get("CONDA_PREFIX")
    return PROJECT / (name or os.environ.get("LGFFEM_LOCK") or ("environment.yml" if conda else "requirements.lock"))


@cache
def lock_hash() -> str:
    """Hash of that lock, and of the versions that are installed: they may be others, and are under conda."""
    return sha256_json([sha256_file(lock_file()), installed_versions()])
