"""The data sets, a file each: ``<name>.py`` holds ``SET`` and serves the section ``data.<name>`` of the parameters.

To add one, write both; nothing else lists them.
"""

import importlib

from lgffem_core.config.params import DATASETS as NAMES

__all__ = ["NAMES", "get"]


def get(name: str):
    """The ``DataSet`` of this name, imported now: what only reads its index does not depend on its code."""
    return importlib.import_module(f"{__name__}.{name}").SET
