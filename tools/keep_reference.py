"""Keeps a run as the reference that reruns are compared with: results/PROFILE -> results/reference/PROFILE.

    .venv/bin/python tools/keep_reference.py PROFILE

Tables, figures, report and manifest are copied. Where the tissue is not synthetic, pictures of patches and the
report, which shows them, are left out: other people's data do not enter the repository. Nor do paths of the machine
that ran: the manifest names the keys that held them and withholds their values. What the reference does not hold of
the run stands in its manifest under ``left_out``; the report links to the repository's notebooks instead of the
executed ones. An old reference stays until the new one is whole and verified.
"""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.base.files import read_json, sha256_file, write_text
from lgffem_core.base.project import PROJECT
from lgffem_core.config.keys import PATH_KEYS
from lgffem_core.run.record import MANIFEST, Manifest
from lgffem_core.run.registry import artefacts_of, registry
from lgffem_core.run.verify import check_folder

#: A path from the root, the home folder, a drive or out of the project, at the start of a text or after a space or
#: a quotation mark in it.
MACHINE_PATH = re.compile(r"""(?:^|[\s"'=(:,])(?:/|~/|\.\./|[A-Za-z]:[\\/])[^\s/]""")

REPORT = "report.html"


def keep(results: Path, reference: Path) -> list[Path]:
    """Replace ``reference`` by the run in ``results``, a folder of a project's ``results/``; returns its files.

    Raises ``StudyError``, with the old reference untouched, where the run is not complete, or the copy would not
    verify or would tell a path.
    """
    try:
        manifest = Manifest.read(results)
    except (RequestError, ValueError):
        raise RequestError(
            f"{results / MANIFEST}: is not the manifest of a run; run the profile to its end first."
        ) from None
    secrets = withhold_paths(manifest)
    synthetic = all(data.synthetic for data in manifest.inputs.values())
    shown = [a for a in artefacts_of(registry().values()) if synthetic or not a.shows_patches]
    files = [f for a in shown for f in a.files(results) if place(f, results, manifest) in manifest.artefacts]
    if synthetic and not secrets:  # the report shows the command, and with it every path that was given
        files.append(results / REPORT)
    names = [path.relative_to(results) for path in files]
    held = {place(path, results, manifest) for path in files}
    manifest.left_out = sorted({*manifest.artefacts} - held)
    new, old = (reference.with_name(f".{reference.name}.{state}") for state in ("new", "old"))
    if old.exists() and not reference.exists():  # stopped between the two renames of ``swap``
        old.rename(reference)
    shutil.rmtree(new, ignore_errors=True)
    try:
        for path, name in zip(files, names, strict=True):
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, new / name)
        refuse_paths(new, read_json(manifest.write(new)), secrets)
        for fault in check_folder(new, results.parents[1]).faults:
            raise StudyError(f"{results} is not kept: {fault.sentence}")
        if (new / REPORT).is_file():  # only now: until here it had to be what the run left
            link_to_sources(new, manifest)
        swap(new, reference, old)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return [reference / name for name in [*names, MANIFEST]]


def place(path: Path, results: Path, manifest: Manifest) -> str:
    """What the manifest calls a file of the run; of systems that were not run, it has none."""
    return f"results/{manifest.profile}/{path.relative_to(results).as_posix()}"


def link_to_sources(reference: Path, manifest: Manifest) -> None:
    """Let a kept report lead to the notebooks in the repository, as their executed pages are not kept; seal it anew."""
    names = "|".join(sorted(registry(), key=len, reverse=True))  # variant and seed may follow a name
    text = (reference / REPORT).read_text(encoding="utf-8")
    text = re.sub(rf'href="notebooks/({names})(_\w+)?\.html"', r'href="../../../notebooks/\1.ipynb"', text)
    report = write_text(reference / REPORT, text)
    manifest.artefacts[f"results/{manifest.profile}/{REPORT}"].sha256 = sha256_file(report)
    manifest.write(reference)


def swap(new: Path, reference: Path, old: Path) -> None:
    """Put ``new`` in the place of ``reference``; where that fails, ``reference`` is as it was."""
    shutil.rmtree(old, ignore_errors=True)
    if reference.exists():
        reference.rename(old)
    try:
        new.rename(reference)
    except BaseException:
        if old.exists():
            old.rename(reference)
        raise
    shutil.rmtree(old, ignore_errors=True)


def withhold_paths(manifest: Manifest) -> set[str]:
    """Take the paths that a user gave out of a manifest; returns those of them that tell of the machine."""
    withheld = {}
    manifest.parameters = without_paths(manifest.parameters, withheld)
    manifest.request.overrides = without_paths(manifest.request.overrides, withheld)
    manifest.request.withheld = sorted(withheld)
    return {value for value in map(str, withheld.values()) if MACHINE_PATH.search(value)}


def without_paths(tree: dict, withheld: dict[str, str], prefix: str = "") -> dict:
    """A copy of ``tree`` with null for every path in it; dotted key and value go into ``withheld``."""
    copy = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            value = without_paths(value, withheld, f"{name}.")
        elif name in PATH_KEYS and value is not None:
            withheld[name], value = value, None
        copy[key] = value
    return copy


def texts(tree) -> Iterator[str]:
    """Every text in a tree, its keys included."""
    if isinstance(tree, dict):
        yield from (text for pair in tree.items() for part in pair for text in texts(part))
    elif isinstance(tree, list):
        yield from (text for value in tree for text in texts(value))
    elif isinstance(tree, str):
        yield tree


def refuse_paths(folder: Path, manifest: dict, secrets: set[str]) -> None:
    """``StudyError`` where the manifest holds a path of the machine, or another file one that was withheld."""
    for text in texts(manifest):
        if MACHINE_PATH.search(text):
            raise StudyError(f"the manifest would tell a path of this machine: {text}.")
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        contents = path.read_bytes()
        for secret in secrets:
            if secret.encode() in contents:
                raise StudyError(f"{path.relative_to(folder)} would tell a path of this machine: {secret}.")


def main(words: list[str], project: Path = PROJECT) -> list[Path]:
    """Keep the run of the profile that ``words`` names; ends with one sentence where there is none."""
    if len(words) != 1 or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", words[0]) or words[0] == "reference":
        sys.exit("error: name one profile that has been run, e.g. tools/keep_reference.py demo")
    try:
        return keep(project / "results" / words[0], project / "results" / "reference" / words[0])
    except (StudyError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    print(*main(sys.argv[1:]), sep="\n")
