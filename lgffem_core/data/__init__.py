"""The data layer: each data set's layout on disk becomes a PatchTable (see ``table``).

What other layers ask for is in ``preparation``. It needs pandas and OpenCV, so it is imported when one of its
functions is first asked for: ``census``, which stages ask on every start, needs neither.
"""

import importlib

PREPARATION = (
    "check_unchanged", "data_report", "files_census", "images_root", "make_synthetic", "patch_table", "prepare",
)  # fmt: skip


def channel_order(study, dataset: str) -> str:
    """Order of the colour channels in the files: of a set that has such a parameter, its value (ledger 13).

    It is here, and not in ``preparation``, because the index does not hold it: whoever reads images depends on it.
    """
    return getattr(getattr(study.params.data, dataset), "channel_order", "rgb")


def __getattr__(name: str):
    if name in PREPARATION:
        return getattr(importlib.import_module("lgffem_core.data.preparation"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
