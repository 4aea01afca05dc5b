"""What keeps Python from reading a source of the study: a slip of an editor's, or a file cut off or damaged."""

from pathlib import Path

UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)  # ValueError: no UTF-8, or a zero in the text


def fault_of(path: Path) -> str | None:
    """A sentence that names file and line; None where Python reads it."""
    data, line = path.read_bytes(), None
    try:
        compile(data.decode(), path, "exec", dont_inherit=True)
    except UnicodeDecodeError as error:
        line, why = data.count(b"\n", 0, error.start) + 1, "it is not UTF-8"
    except UNREADABLE as error:
        line, why = getattr(error, "lineno", None), reason(error)
    else:
        return None
    return f"{path}{f', line {line}' if line else ''}: is not Python ({why}); mend or restore it."


def reason(error: Exception) -> str:
    """Why a text could not be read, without where."""
    return getattr(error, "msg", None) or str(error) or "it is nested too deeply"


def first_fault(folder: Path) -> str | None:
    """The sentence on the first source in ``folder`` or below it that Python cannot read."""
    return next(filter(None, map(fault_of, sorted(folder.rglob("*.py")))), None)
