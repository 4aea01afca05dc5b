"""The data sets, a file each: ``<name>.py`` holds ``SET`` and serves the section ``data.<name>`` of the parameters.

To add one, write both; nothing else lists them.
"""

import importlib
import importlib.util

from lgffem_core.base.errors import StudyError
from lgffem_core.config.params import DATASETS as NAMES

__all__ = ["NAMES", "get"]


def get(name: str):
    """The ``DataSet`` of this name, imported now: what only reads its index does not depend on its code."""
    module = f"{__name__}.{name}"
    found = importlib.util.find_spec(module) and importlib.import_module(module)
    if not hasattr(found, "SET"):
        file = f"lgffem_core/data/sets/{name}.py"
        raise StudyError(f"data.{name}: {file} is missing, or does not end with SET = …, the data set; add it.")
    return found.SET
