"""Keeps a run as the reference that reruns are compared with: results/PROFILE -> results/reference/PROFILE.

    .venv/bin/python tools/keep_reference.py PROFILE

Tables, figures, report and manifest are copied. Where the tissue is not synthetic, pictures of patches and the
report, which shows them, are left out: other people's data do not enter the repository.
"""

import re
import shutil
import sys
from pathlib import Path

from lgffem_core.artefacts import ARTEFACTS
from lgffem_core.errors import RequestError
from lgffem_core.files import read_json
from lgffem_core.study import PROJECT


def keep(results: Path, reference: Path) -> list[Path]:
    """Replace ``reference`` by the run in ``results``; returns what was copied.

    Raises ``RequestError``, before anything is replaced, where the run is not complete.
    """
    manifest = results / "manifest.json"
    try:
        inputs = read_json(manifest)["inputs"]
        synthetic = all(entry["synthetic"] for entry in inputs.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise RequestError(f"{manifest}: is not the manifest of a run; run the profile to its end first.") from None
    files = [f for a in ARTEFACTS if synthetic or not a.shows_patches for f in a.files(results)]
    files += [manifest] + [results / "report.html"] * synthetic
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise RequestError(f"{missing[0]}: is missing; run the profile to its end first.")
    shutil.rmtree(reference, ignore_errors=True)
    copied = [reference / path.relative_to(results) for path in files]
    for path, copy in zip(files, copied, strict=True):
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return copied


def main(words: list[str], project: Path = PROJECT) -> list[Path]:
    """Keep the run of the profile that ``words`` names; ends with one sentence where there is none."""
    if len(words) != 1 or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", words[0]) or words[0] == "reference":
        sys.exit("error: name one profile that has been run, e.g. tools/keep_reference.py demo")
    try:
        return keep(project / "results" / words[0], project / "results" / "reference" / words[0])
    except RequestError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    print(*main(sys.argv[1:]), sep="\n")
