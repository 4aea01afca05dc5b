"""What keeps Python from reading a source of the study: a slip of an editor's, or a file cut off or damaged."""

import tokenize
from pathlib import Path

UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)  # ValueError: no UTF-8, or a zero in the text


def fault_of(path: Path) -> str | None:
    """A sentence that names file and line; None where Python reads it."""
    try:
        compile(path.read_bytes(), path, "exec", dont_inherit=True)
    except UNREADABLE as error:
        line = getattr(error, "lineno", None)
        return f"{path}{f', line {line}' if line else ''}: is not Python ({reason(error)}); mend or restore it."
    return None


def text_of(path: Path) -> str:
    """A source's text in the encoding that it says it has, without a mark of the order of its bytes; else UTF-8."""
    with tokenize.open(path) as file:
        return file.read()


def reason(error: Exception) -> str:
    """Why a text could not be read, without where."""
    return getattr(error, "msg", None) or str(error) or "it is nested too deeply"


def first_fault(folder: Path) -> str | None:
    """The sentence on the first source in ``folder`` or below it that Python cannot read."""
    return next(filter(None, map(fault_of, sorted(folder.rglob("[!.]*.py")))), None)  # .#x.py is an editor's lock
