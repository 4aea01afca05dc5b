"""Which code a result depends on: what a notebook or module imports, what that imports, and so on.

What counts of a file is its syntax: a comment or a docstring changes nothing. Imports are read from the source, inside
functions too, so that a stage runs again when code that it could have used is another, and not when some other module
is. What is read when a process first asks is kept: a file that is edited while a kernel runs does not change what that
kernel has imported.

Thirty processes of a run ask, and reading takes each a second. So the first tells the others (``tell``) what it found
of each text, by the text's hash: of any other text they find it themselves.
"""

import ast
import os
from functools import cache
from pathlib import Path

from lgffem_core.base.errors import StudyError
from lgffem_core.base.files import read_json, sha256_file, sha256_json, write_json
from lgffem_core.base.project import PROJECT
from lgffem_core.base.sources import UNREADABLE, fault_of, reason, text_of
from lgffem_core.config.machine import COMPUTING, installed_versions
from lgffem_core.config.parameter_files import parsed
from lgffem_core.config.watched import REGISTRY

PACKAGE = "lgffem_core"
VARIABLE = "LGFFEM_SYNTAX"  # a run's file for what its first process found
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
#: Modules that cannot change a number or a picture: of the parameters, the values count and not the code.
UNRELATED = (
    "base/progress.py",
    "base/sources.py",
    "config/code_version.py",
    "base/files.py",
    "config/params.py",
    "config/systems.py",
    "config/parameter_files.py",
    "config/watched.py",
    "base/surroundings.py",
)
#: Files that are no code, by the module that reads them.
READ_BY = {
    "systems/lgffem/tables.py": ("params/reference/table1.yaml", "params/reference/table2.yaml"),
    "systems/lgffem/generality.py": ("params/reference/landmarks.yaml",),
    "systems/lgffem/printed.py": ("params/reference/table1_runs.yaml",),
    "systems/lgffem/ledger.py": ("params/reference/ledger.yaml",),
    "systems/smse/ledger.py": ("params/reference/smse.yaml",),
    "systems/fgcr/readings.py": ("params/reference/fgcr_ledger.yaml",),
    "run/registry.py": ("notebooks/stages.yaml",),
    "run/page.py": ("lgffem_core/run/page.html.j2",),
}


#: Served by the data package when asked for. Other names that it serves read the index, whose content counts, and not
#: the code that made it: of that, every data set is a part, imported by its name.
MAKERS = {f"{PACKAGE}.data.{name}": f"{PACKAGE}.data.preparation" for name in ("prepare", "data_report")}
SETS = f"{PACKAGE}.data.sets.get"


@cache
def module_file(name: str) -> Path | None:
    """The source file of a dotted name, None where it names no module of this package. Thousands are asked for."""
    path = os.path.join(PROJECT, *MAKERS.get(name, name).split("."))
    return next((Path(file) for file in (f"{path}.py", f"{path}/__init__.py") if os.path.isfile(file)), None)


@cache
def found() -> dict[str, list]:
    """Hash of a source -> its imported names and the hash of its syntax: what a run was told, and what is found."""
    path = os.environ.get(VARIABLE, "")
    return read_json(path) if os.path.isfile(path) else {}  # other nodes of a cluster do not see it


def tell(path: Path) -> None:
    """Write to ``path`` what this process has found; others read it where ``VARIABLE`` names it."""
    write_json(path, found())


@cache
def read(source: str) -> list:
    """[sorted names that ``imported_names`` gives, what ``syntax_hash`` gives]."""
    key = sha256_json(source)
    if key not in found():
        tree = ast.parse(source)
        found()[key] = [sorted(names_in(tree)), sha256_json(bare(tree))]
    return found()[key]


def names_in(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    parts = [name.split(".") for name in names if name.split(".")[0] == PACKAGE]
    return {".".join(part[: i + 1]) for part in parts for i in range(len(part))}


def imported_names(source: str) -> frozenset[str]:
    """Dotted names of this package that ``source`` imports, and those of the packages that hold them.

    >>> sorted(imported_names("from lgffem_core.data import table"))
    ['lgffem_core', 'lgffem_core.data', 'lgffem_core.data.table']
    """
    return frozenset(read(source)[0])


def imported_files(source: str) -> set[Path]:
    """Files of this package that ``source`` imports itself, the folders' ``__init__.py`` included."""
    names = imported_names(source)
    files = {file for file in map(module_file, names) if file}
    return files | set((PROJECT / PACKAGE / "data" / "sets").glob("[!.]*.py")) if SETS in names else files


def imported_by(path: Path) -> set[Path]:
    """The same of a module; ``StudyError`` names one that cannot be read, which may be nested beyond Python's limit."""
    try:
        return imported_files(text_of(path))
    except UNREADABLE as error:
        raise StudyError(fault_of(path) or f"{path}: cannot be followed ({reason(error)}); mend it.") from None


def source_files(source: str) -> list[str]:
    """Paths, from the project's folder, of all that ``source`` can use of this package, directly or by others."""
    found, waiting = set(), imported_files(source)
    while waiting:
        found |= waiting
        waiting = set().union(*map(imported_by, waiting)) - found
    names = {path.relative_to(PROJECT).as_posix() for path in found}
    names -= {f"{PACKAGE}/{name}" for name in UNRELATED}
    read = {file for module, files in READ_BY.items() if f"{PACKAGE}/{module}" in names for file in files}
    return sorted(names | read)


def bare(node):
    """A syntax tree as lists without docstrings, positions, and fields that hold nothing: those Pythons differ in."""
    if isinstance(node, list):
        return [bare(child) for child in node]
    if not isinstance(node, ast.AST):
        return ascii(node)  # tells 1 from True, and escapes alike whatever a Python's Unicode can print
    fields = dict(ast.iter_fields(node))
    if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
        fields["body"] = node.body[1:]
    if isinstance(node, ast.JoinedStr):  # early releases of 3.12 end some format specifications with an empty text
        fields["values"] = [part for part in node.values if getattr(part, "value", None) != ""]
    return [type(node).__name__, {name: bare(value) for name, value in fields.items() if value not in (None, [])}]


def syntax_hash(source: str) -> str:
    """Hash of what ``source`` does: neither comments, docstrings nor layout change it; any other text does.

    >>> syntax_hash("x = 1  # one") == syntax_hash("x=1") != syntax_hash("x = 2")
    True
    """
    return read(source)[1]


def file_hash(path: Path) -> str:
    """Hash of a file that counts as code: Python by its syntax, anything else by its bytes.

    The registry of stages counts without what its stages ask a cluster for.
    """
    if path.name == Path(REGISTRY).name:
        known = parsed(path.read_text(encoding="utf-8"))
        return sha256_json({name: {**entry, "resources": None} for name, entry in known.items()})
    return syntax_hash(text_of(path)) if path.suffix == ".py" else sha256_file(path)


@cache
def code_hash(source: str) -> str:
    """Hash over the files of this package that ``source`` can use.

    >>> len(code_hash("import lgffem_core.systems.lgffem.strategies"))
    64
    """
    return sha256_json({name: file_hash(PROJECT / name) for name in source_files(source)})


@cache
def lock_hash(packages: tuple[str, ...] = COMPUTING) -> str:
    """Hash of the versions of these packages that are installed, whatever lock they came by."""
    return sha256_json(installed_versions(packages))
