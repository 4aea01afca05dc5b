"""Whether a folder of results still is what its manifest says: the files, their contents, the parameters.

What this cannot see: someone who edits a file and then rewrites the manifest with its hash, seal included. Against
that, compare with a manifest from elsewhere (the committed one), or run again (``compare``).
"""

import os
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lgffem_core.base.errors import RequestError
from lgffem_core.config.parameter_files import leaves
from lgffem_core.config.study import Study
from lgffem_core.data.census import hash_file
from lgffem_core.run.record import MANIFEST, Manifest

#: Of a remark about the code: the files are whole all the same.
TODAY = "; the files are as that run left them, and whether today's code gives them again, verify --rerun tells."
ABSENT = "absent"  # stands for the value of a key that one of two trees lacks


class Fault(NamedTuple):
    """One thing that is not as the manifest says."""

    file: str  # below the folder, or, for artifacts and parameters, below the project
    sentence: str  # whole, the file's name included


@dataclass
class Findings:
    """What a check found: ``faults`` fail it, ``remarks`` do not; ``checked`` counts artefacts."""

    faults: list[Fault] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    checked: int = 0
    left_out: int = 0

    def add(self, file: str, says: str) -> None:
        self.faults.append(Fault(file, f"{file} {says}."))


def differing(one: dict, other: dict) -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, value here, value there) wherever two trees differ."""
    one, other = leaves(one), leaves(other)
    for key in [*one, *(key for key in other if key not in one)]:
        here, there = one.get(key, ABSENT), other.get(key, ABSENT)
        if here != there and not (here != here and there != there):  # NaN equals NaN here
            yield key, here, there


# -- one folder ----------------------------------------------------------------------------------------------------


def check_folder(folder: Path, project: Path) -> Findings:
    """What in ``folder`` is not as its manifest says.

    ``project`` is the folder that parameter files are named from, and artifacts where none lie beside ``results``.
    Raises ``RequestError`` where there is no manifest.
    """
    folder, project, findings = Path(folder), Path(project), Findings()
    try:
        manifest = Manifest.read(folder)
    except ValueError as error:
        findings.add(MANIFEST, f"cannot be checked ({error}); run the profile again")
        return findings
    if manifest.is_edited:
        findings.add(MANIFEST, "was edited after the run: its contents are not what its own sha256 says")
    check_artefacts(manifest, folder, home(folder, project), findings)
    check_parameters(manifest, project, findings)
    findings.faults.sort(key=lambda fault: fault.file.startswith("artifacts/"))  # what a reader looks at comes first
    return findings


def home(folder: Path, project: Path) -> Path:
    """The folder that a run's artifacts are in: with LGFFEM_OUTPUT it is not the project's."""
    above = folder.absolute().parent.parent
    return above if folder.absolute().parent.name == "results" and (above / "artifacts").is_dir() else project


def locate(name: str, manifest: Manifest, folder: Path, project: Path) -> Path | None:
    """Where an artefact lies; None for a name that is neither below ``results/<profile>`` nor ``artifacts``.

    So that a reference can lie elsewhere than the run that it was, ``results/<profile>`` stands for ``folder``.
    """
    parts = name.split("/")
    if "\\" in name or not {"", ".", ".."}.isdisjoint(parts):  # an absolute path begins with an empty part
        return None
    if parts[:2] == ["results", manifest.profile] and len(parts) > 2:
        return folder.joinpath(*parts[2:])
    return project / name if parts[0] == "artifacts" and len(parts) > 1 else None


def check_artefacts(manifest: Manifest, folder: Path, project: Path, findings: Findings) -> None:
    """Every artefact there, with its contents, and no other table or figure beside them."""
    inside = f"results/{manifest.profile}/"
    places = {name: locate(name, manifest, folder, project) for name in manifest.artefacts}
    for name in [*(n for n, path in places.items() if path is None), *sorted({*manifest.left_out} - {*places})]:
        findings.add(MANIFEST, f"names {name!r}, which is not a file of this run")
    wanted = {n: path for n, path in places.items() if path is not None and n not in manifest.left_out}
    holders = defaultdict(list)  # contents -> which artefacts have them
    for name, artefact in manifest.artefacts.items():
        holders[artefact.sha256].append(name.removeprefix(inside))
    with ThreadPoolExecutor() as pool:  # hashing lets go of the interpreter
        contents = dict(zip(wanted, pool.map(hash_file, wanted.values()), strict=True))
    below = [name for name in wanted if name.startswith("artifacts/")]
    wrong = [name for name in below if contents[name] != manifest.artefacts[name].sha256]
    moved = folder.resolve() != (project / inside).resolve()  # then another run's may lie where its own are looked for
    if wrong and (moved or (len(below) > 1 and not any(map(contents.get, below)))):
        where = os.path.commonpath(map(os.path.dirname, below))
        says = f"{len(wrong)} files under {where} are not here: were results copied without artifacts?"
        if moved:
            says = (
                f"{len(wrong)} of {len(below)} files under {where} in {project} are not this run's: {folder} was "
                f"copied or renamed; to check them put it as {inside[:-1]} beside its own artifacts/{manifest.profile}."
            )
        findings.faults.append(Fault(where, says))
        contents = {name: found for name, found in contents.items() if name not in below}
    for name, found in contents.items():
        artefact, shown = manifest.artefacts[name], name.removeprefix(inside)
        if not found:
            findings.add(shown, "is missing, or cannot be read")
        elif found != artefact.sha256 and found in holders:
            findings.add(shown, f"holds {holders[found][0]}")
        elif found != artefact.sha256:
            findings.add(shown, f"is not what {artefact.producer} wrote: it was changed since")
    for path in strangers(folder, {folder / MANIFEST, *wanted.values()}):
        known = path in places.values()
        says = "is there, though the manifest says that it was left out" if known else "is not in the manifest"
        findings.add(path.relative_to(folder).as_posix(), says)
    findings.checked, findings.left_out = len(wanted), len(manifest.left_out)


def strangers(folder: Path, known: set[Path]) -> list[Path]:
    """Files at the top of a folder, or in its tables and figures, that are not ``known``; hidden ones aside."""
    found = [*folder.iterdir(), *(folder / "tables").rglob("*"), *(folder / "figures").rglob("*")]
    return sorted(p for p in found if p.is_file() and p not in known and not p.name.startswith("."))


def check_parameters(manifest: Manifest, project: Path, findings: Findings) -> None:
    """The parameter file, with what was set beside it, still says what the run was made with."""
    asked = manifest.request
    path = project / asked.params  # an absolute one is a user's own profile, outside the project
    if ".." in Path(asked.params).parts:
        return findings.add(MANIFEST, f"names {asked.params!r}, which leaves the project")
    if not path.is_file():
        return findings.add(asked.params, "is gone; the run was made with it")
    try:
        now = Study.load(path, asked.overrides, root=project).params.model_dump(mode="json")
    except RequestError as error:
        return findings.add(asked.params, f"can no longer be used: {str(error).removesuffix('.')}")
    changed = [found for found in differing(now, manifest.parameters) if found[0] not in asked.withheld]
    if hash_file(path) == asked.sha256:
        if changed:  # then the defaults have changed, which are code
            keys = ", ".join(key for key, *_ in changed)
            findings.remarks.append(f"{asked.params} is as it was, but the code's defaults are not: {keys}{TODAY}")
        return
    known = [key for key, *values in changed if ABSENT in values]  # a manifest holds every key that the code knew
    if known:
        findings.remarks.append(f"the code knew other parameters when it ran: {', '.join(known)}{TODAY}")
    if not changed:
        findings.remarks.append(
            f"{asked.params} was edited since the run, but says the same: the results are those of it."
        )
    for key, value, before in changed:
        if key not in known:
            findings.add(asked.params, f"was edited since the run: {key} is {value!r} and was {before!r}")


# -- what the command prints ---------------------------------------------------------------------------------------


def finished(project: Path) -> list[Path]:
    """Every folder with a manifest below ``results/`` and ``results/reference/``."""
    results = Path(project) / "results"
    found = [path.parent for pattern in ("*", "reference/*") for path in results.glob(f"{pattern}/{MANIFEST}")]
    return sorted(folder for folder in found if not folder.name.startswith("."))  # half-kept references are hidden


def unfinished(project: Path) -> list[Path]:
    """Folders of results without a manifest, which is written last."""
    found = [path.parent for path in (Path(project) / "results").glob("*/tables")]
    return sorted(folder for folder in found if not (folder / MANIFEST).is_file())


def report(folders: list[Path], project: Path, output: Path | None = None) -> int:
    """Check ``folders``, or all there are, and print what was found; 0 where all is as the manifests say, else 1.

    ``output`` is the folder whose ``results/`` are meant by all, by default the project's.

    Raises ``RequestError`` for a folder without a manifest, and where there is nothing to check.
    """
    output = Path(output or project)
    chosen = [Path(folder) for folder in folders] or finished(output)
    if not chosen:
        where = "results/" if output == Path(project) else output / "results"
        raise RequestError(f"nothing to verify: no run has finished in {where}; run one first, e.g. ./run_all.sh.")
    found = [(relative(folder, project), check_folder(folder, project)) for folder in chosen]
    for name, findings in found:
        if findings.faults:
            print(f"{name}: {len(findings.faults)} fault{'s' * (len(findings.faults) > 1)}")
        else:
            without = f" ({findings.left_out} of the run are not kept here)" if findings.left_out else ""
            print(f"{name}: {findings.checked} artefacts as the manifest says{without}")
        for line in [*(fault.sentence for fault in findings.faults), *(f"remark: {r}" for r in findings.remarks)]:
            print(f"  {line}")
    for folder in [] if folders else unfinished(output):
        print(f"{relative(folder, project)}: not checked; its run has not finished, as it has no {MANIFEST}")
    return int(any(findings.faults for _, findings in found))


def relative(folder: Path, project: Path) -> str:
    """A folder as seen from the project where it lies inside, else as given."""
    resolved, root = folder.resolve(), Path(project).resolve()
    return os.path.relpath(resolved, root) if resolved.is_relative_to(root) else str(folder)
