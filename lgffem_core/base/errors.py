"""The one exception that users of the study are meant to see, and what it suggests."""

import difflib
from collections.abc import Iterable

NEAR = 0.75  # how alike a word and what is suggested for it must be: difflib's ratio, 1 = the same


class StudyError(Exception):
    """Bad input, said in one sentence: what is wrong, where, and what to do about it.

    ``exit_code`` is what the command line returns: 2 for a request that cannot be started (a wrong
    parameter, missing data), 1 for a run that failed on its way.
    """

    def __init__(self, message: str, exit_code: int = 1):
        super().__init__(message)
        self.exit_code = exit_code


def one_line(text) -> str:
    """A text, or what an error says, with every run of white space as one blank: for sentences that quote it."""
    return " ".join(str(text).split())


def plain(message: str) -> str:
    """An error's message in one line; of one that a loader's worker process wrapped in its traceback, the end."""
    line = one_line(message)
    return line.rsplit("Error: ", 1)[-1] if "Traceback" in line else line


class RequestError(StudyError):
    """The request itself is wrong or incomplete; nothing was started."""

    def __init__(self, message: str):
        super().__init__(message, exit_code=2)


def near(word: str, known: Iterable[str], most: int = 1) -> list[str]:
    """Those of the known words that a user may have meant by ``word``, the nearest first; none where none is near."""
    return difflib.get_close_matches(word, list(known), n=most, cutoff=NEAR)
