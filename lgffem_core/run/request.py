"""What a command line asks for: a profile, and values whose paths count from where they were typed."""

import os
from pathlib import Path

from lgffem_core.base.errors import RequestError
from lgffem_core.base.project import PROJECT
from lgffem_core.config.keys import PATH_KEYS
from lgffem_core.config.parameter_files import parse_pairs, profiles, read_yaml
from lgffem_core.run.stages import Request


def relative_to_project(path: str) -> str:
    """A path as typed, counted from the project's folder instead of the current one."""
    given = Path(path).expanduser()
    return str(given) if given.is_absolute() else os.path.relpath(Path.cwd() / given, PROJECT)


def paths_from_here(tree: dict, prefix: str = "") -> dict:
    """A copy of overrides in which each path counts from the project's folder, inside a section too."""
    copy = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            value = paths_from_here(value, f"{prefix}{key}.")
        elif f"{prefix}{key}" in PATH_KEYS and isinstance(value, str):
            value = relative_to_project(value)
        copy[key] = value
    return copy


def make_request(params: str, pairs: list[str]) -> Request:
    """The request behind a command line; relative paths in it count from where it was typed."""
    overrides = paths_from_here(parse_pairs(pairs))
    path = Path(params).resolve()
    inside = path.is_relative_to(PROJECT)
    return Request(str(path.relative_to(PROJECT) if inside else path), overrides)


def check_profile(request: Request) -> None:
    """``RequestError`` where results would go into the folder of another file of ``params/``, as a copy's would.

    A name belongs to the file that is called so; where none is, to one file alone.
    """
    given, name = PROJECT / request.params, request.study.params.profile
    if given == PROJECT / "params" / f"{name}.yaml":
        return
    for other in profiles():
        if other != given and profile_of(other) == name:
            place = "--set profile" if "profile" in request.overrides else f"{request.params}: the line profile"
            raise RequestError(
                f"{place}: {name} is the profile of params/{other.name} too, whose results it would overwrite; "
                "write another name there."
            )


def profile_of(path: Path) -> str | None:
    """The ``profile`` of a parameter file; None where it cannot be read, which is for whoever runs it to hear."""
    try:
        return read_yaml(path).get("profile")
    except RequestError:
        return None
