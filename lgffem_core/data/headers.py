"""What the file of a slide's record says beside its arrays. Nothing here imports torch, so that a start can ask."""

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError, safe_open

from lgffem_core.base.files import STAMP

FORMAT = "slide record 1"  # stands in each file's header
SUFFIX = ".safetensors"


class Header(BaseModel):
    """What stands in a file beside the arrays; ``ValidationError`` where a field is missing or of another type."""

    model_config = ConfigDict(strict=True)
    format: Literal[FORMAT]
    slide: str
    anchors: list[int]  # of each level, how many
    levels: list[int]
    report: str
    prompts: list[str]
    label: str
    group: str
    mpp: float | None
    patch_pixels: int | None
    encoder: str


def about(path: Path) -> dict:
    """What a record's header says, and how many ``numbers`` a patch has; {} where it is none.

    No array is read, so that no checksum is looked at.
    """
    try:
        with safe_open(path, "np") as file:
            header = Header(**json.loads(file.metadata()[STAMP])["header"]).model_dump()
            return header | {"numbers": file.get_slice("features").get_shape()[-1]}
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return {}
