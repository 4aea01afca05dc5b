"""Keeps a run as the reference that reruns are compared with: results/PROFILE -> results/reference/PROFILE.

    .venv/bin/python tools/keep_reference.py PROFILE

Tables, figures, report and manifest are copied. Where the tissue is not synthetic, pictures of patches and the
report, which shows them, are left out: other people's data do not enter the repository.
"""

import shutil
import sys
from pathlib import Path

from lgffem_core.artefacts import ARTEFACTS
from lgffem_core.files import read_json
from lgffem_core.study import PROJECT


def keep(results: Path, reference: Path) -> list[Path]:
    """Replace ``reference`` by the run in ``results``; returns what was copied."""
    inputs = read_json(results / "manifest.json")["inputs"]
    synthetic = all(entry["synthetic"] for entry in inputs.values())
    files = [f for a in ARTEFACTS if synthetic or not a.shows_patches for f in a.files(results)]
    files += [results / "manifest.json"] + [results / "report.html"] * synthetic
    shutil.rmtree(reference, ignore_errors=True)
    copied = [reference / path.relative_to(results) for path in files]
    for path, copy in zip(files, copied, strict=True):
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return copied


if __name__ == "__main__":
    if len(sys.argv) != 2 or not (PROJECT / "results" / sys.argv[1] / "manifest.json").is_file():
        sys.exit("error: name a profile that has been run, e.g. tools/keep_reference.py demo")
    print(*keep(PROJECT / "results" / sys.argv[1], PROJECT / "results" / "reference" / sys.argv[1]), sep="\n")
