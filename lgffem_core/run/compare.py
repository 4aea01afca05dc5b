"""Two runs of one profile side by side: what differs, and whether another machine or environment may explain it.

Tables are compared cell by cell and exactly, figures within a tolerance, the manifests' measures exactly. Artefacts of
times (``measured`` in the registry) must be there, and are not compared.
``report.html`` and executed notebooks hold times and are not compared.
"""

import csv
import re
from pathlib import Path

from lgffem_core.base.errors import StudyError, one_line
from lgffem_core.run.compare_files import COMPARE, Comparison
from lgffem_core.run.record import MANIFEST, Manifest
from lgffem_core.run.registry import artefacts_of
from lgffem_core.run.stages import known
from lgffem_core.run.verify import ABSENT, differing

MACHINE = {"processor": "processor", "architecture": "architecture", "gpu": "GPU", "driver": "GPU driver"}
SHOWN = {"reasons": 8, "causes": 4, "differences": 10, "largest": 6, "remarks": 3}  # lines; the rest is counted


def compare_results(reference: Path, rerun: Path) -> Comparison:
    """Compare a folder of results with another run's, by their tables, figures and manifests.

    Raises ``RequestError`` where a folder has no manifest, ``StudyError`` where one cannot be read.
    """
    found = Comparison(Path(reference), Path(rerun))
    manifests = [manifest_of(found.reference), manifest_of(found.rerun)]
    files = [result_files(found.reference), result_files(found.rerun)]
    absent = [{path.removeprefix(f"results/{m.profile}/") for path in m.left_out} for m in manifests]
    timed = measured()
    for name in sorted(files[0] | files[1]):
        if name not in files[0] and name not in absent[0]:
            found.structural.append(f"{name} is in the rerun only.")
        elif name not in files[1] and name not in absent[1]:
            found.structural.append(f"{name} is missing from the rerun.")
        elif name in files[0] & files[1] and name.split(".")[0] in timed:
            found.remarks.append(f"{name} holds times, which no two runs share: it was not compared.")
        elif name in files[0] & files[1]:
            found.compared += 1
            try:
                one, other = found.both(name)
                if one.read_bytes() != other.read_bytes():
                    COMPARE[Path(name).suffix](found, name)
            except (ValueError, OSError, SyntaxError, csv.Error) as error:  # SyntaxError: Pillow, of a broken PNG
                found.structural.append(f"{name} cannot be read ({one_line(error)}).")
    compare_measures(found, *(manifest.measures for manifest in manifests))
    found.reasons = reasons(*manifests)
    found.causes = causes(*manifests)
    return found


def measured() -> set[str]:
    """Tables and figures, without a suffix, that are of times."""
    return {artefact.file for artefact in artefacts_of(known().values()) if artefact.measured}


def manifest_of(folder: Path) -> Manifest:
    """A folder's manifest; ``StudyError`` where it is none of this version."""
    try:
        return Manifest.read(folder)
    except ValueError as error:
        raise StudyError(f"{folder}/{MANIFEST} cannot be read ({error}); run the profile again.") from None


def result_files(folder: Path) -> set[str]:
    """Tables and figures, named below ``folder``, of the formats that are compared."""
    found = [path for part in ("tables", "figures") for path in (folder / part).rglob("*")]
    return {path.relative_to(folder).as_posix() for path in found if path.suffix in COMPARE and path.is_file()}


# -- manifests -----------------------------------------------------------------------------------------------------


def compare_measures(found: Comparison, one: dict, other: dict) -> None:
    """Every number that notebooks left beside their tables."""
    for key, value, again in differing(one, other):
        if ABSENT in (value, again):
            found.structural.append(f"measure {key} is {value!r} in the reference and {again!r} in the rerun.")
        else:
            found.differ(f"measure {key}", value, again, "measure " + re.sub(r"\.\d+\b", "", key))


def surroundings(manifest: Manifest) -> dict[str, str]:
    """What else than the profile, its data and the code decides over the last bits of a number.

    Stages count too: a run that was stopped may have gone on elsewhere. Of a lock, what counts are the packages.
    """
    machines = [manifest.machine, *(stage.machine for stage in manifest.stages.values())]
    found = {name: sorted({getattr(m, key) or "none" for m in machines}) for key, name in MACHINE.items()}
    words = {name: " and ".join(values) for name, values in found.items()}
    return words | {"Python": manifest.python, "lock": manifest.lock.name}


def reasons(reference: Manifest, rerun: Manifest) -> list[str]:
    """Why the last bits, and what follows from them, may differ: another machine, Python, lock, other packages."""
    pairs = differing(surroundings(reference), surroundings(rerun))
    found = [f"another {name}: {other} instead of {one}" for name, one, other in pairs]
    packages = [f"{name} {b} instead of {a}" for name, a, b in differing(reference.packages, rerun.packages)]
    return found + ([f"other packages: {', '.join(packages)}"] if packages else [])


def causes(reference: Manifest, rerun: Manifest) -> list[str]:
    """What makes two runs another study: parameters, data or code. None of these excuses a difference."""
    pair = {"reference": reference, "rerun": rerun}
    found = [f"the manifest of the {name} was edited" for name, manifest in pair.items() if manifest.is_edited]
    withheld = {*reference.request.withheld, *rerun.request.withheld}
    for key, value, again in differing(reference.parameters, rerun.parameters):
        if key not in withheld:
            found.append(f"parameter {key}: {value!r} in the reference, {again!r} in the rerun")
    if reference.weights is None or rerun.weights is None:
        found.append("a manifest does not tell its weights, as those of older versions")
    else:
        found += [f"other weights to start from: {name}" for name in others(reference.weights, rerun.weights)]
    contents = [{k: data.model_copy(update={"files": None}) for k, data in m.inputs.items()} for m in pair.values()]
    for name in others(*contents):
        files = [m.inputs[name].files if name in m.inputs else 0 for m in pair.values()]
        one, other = ("unknown" if number is None else number for number in files)  # older versions did not count
        found.append(f"other data: {name} ({one} files in the reference, {other} in the rerun)")
    if reference.code_sha256 != rerun.code_sha256:
        commits = [str(manifest.commit.id or "none")[:10] for manifest in pair.values()]
        found.append(f"other code (commit {commits[0]} in the reference, {commits[1]} in the rerun)")
    return found


def others(one: dict, other: dict) -> list[str]:
    """Names that stand for another value in two trees, or in one of them alone."""
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


# -- what the command prints ---------------------------------------------------------------------------------------


def format_comparison(comparison: Comparison) -> str:
    """The comparison as a user reads it: the conclusion first, then what it rests on, at most some forty lines."""
    conclusion = comparison.conclusion
    if conclusion == "differs, as expected":
        conclusion += f": {'; '.join(comparison.reasons)}"
    head = f"{comparison.reference} and {comparison.rerun}: {conclusion} ({comparison.compared} files compared)"
    differences = comparison.structural + comparison.differences
    largest = sorted(comparison.largest.items(), key=lambda item: -item[1]) if comparison.reasons else []
    sections = [
        ("reasons", "Why values may differ:", comparison.reasons if conclusion == comparison.conclusion else []),
        ("causes", "Causes to look at:", comparison.causes),
        ("differences", f"Differences ({len(differences)}):", differences),
        ("largest", "Largest difference by column:", [f"{name}: {value:.4g}" for name, value in largest]),
        ("remarks", "Remarks:", comparison.remarks),
    ]
    lines = [head]
    for key, title, entries in sections:
        if entries:
            lines += [title, *(f"  {entry}" for entry in entries[: SHOWN[key]])]
            lines += [f"  … and {len(entries) - SHOWN[key]} more"] if len(entries) > SHOWN[key] else []
    return "\n".join(lines)
