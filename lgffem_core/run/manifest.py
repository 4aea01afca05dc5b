"""manifest.json: what made each result, from which inputs, where and how long it took."""

import hashlib
import os
import platform
import subprocess
from pathlib import Path

from lgffem_core.base.errors import RequestError
from lgffem_core.base.files import read_json, sha256_file, sha256_json
from lgffem_core.base.project import PROJECT
from lgffem_core.base.surroundings import clean
from lgffem_core.config.code_version import code_hash
from lgffem_core.config.machine import installed_versions, lock_file, machine
from lgffem_core.config.params import STRATEGIES
from lgffem_core.config.study import Study
from lgffem_core.model.packaged import packaged_weights, weights_source
from lgffem_core.run.checklist import wanted_networks
from lgffem_core.run.due import code_state, file_content, read_note
from lgffem_core.run.record import Manifest, StageRun
from lgffem_core.run.stages import Request, all_stages, entries, measuring, needed_sets

PRODUCER = "lgffem_core/run/page.py"  # of the report, imported only where there is one to write


def commit(root: Path) -> dict:
    """The commit that the checkout is at, whether files differ from it, and a hash of how; null outside a checkout."""

    def git(*arguments) -> bytes | None:
        try:
            command = ["git", "-C", str(root), *arguments]
            done = subprocess.run(command, capture_output=True, check=False, env=clean(os.environ))
        except OSError:  # there is no git here
            return None
        return done.stdout if done.returncode == 0 else None

    head, changes = git("rev-parse", "HEAD"), git("diff", "HEAD", "--binary")
    if head is None or changes is None:
        return {"id": None, "changed_files": None, "changes_sha256": None}
    digest = hashlib.sha256(changes).hexdigest() if changes else None
    return {"id": head.decode().strip(), "changed_files": bool(changes), "changes_sha256": digest}


def first_weights(study: Study) -> dict:
    """Network or strategy -> where the weights that it starts from are from, and, unless random, their SHA-256."""
    found = {}
    for key, (name, settings) in wanted_networks(study).items():
        found[key] = {"source": (source := weights_source(name, settings))}
        if source == "file":
            found[key]["sha256"] = file_content(study, settings.weights)
        elif source == "package":
            packaged = packaged_weights(name, key)._asdict()
            found[key] |= {field: packaged[field] for field in ("package", "version", "sha256")}
        elif source == "hub":
            note = study.downloaded(key)
            found[key]["sha256"] = read_json(note)["sha256"] if note.is_file() else None
    given = {s: getattr(study.params.training, s).checkpoint for s in STRATEGIES}
    checkpoints = {s: {"source": "file", "sha256": file_content(study, path)} for s, path in given.items() if path}
    return found | {f"training.{strategy}": entry for strategy, entry in checkpoints.items()}


def report_key(study: Study, request: Request) -> str:
    """Hash of all that report and manifest are made from: what stages noted, what was asked for, and the code."""
    notes = [read_note(study, stage) for stage in all_stages(study)]
    asked = [vars(request), sha256_file(PROJECT / request.params), study.params.model_dump(mode="json")]
    return sha256_json([notes, asked, code_hash("import lgffem_core.run.page")])


def keep_report(study: Study, request: Request) -> bool:
    """Write report and manifest unless both are there and belong to what the stages left; True where written."""
    if is_current(study, request):
        return False
    from lgffem_core.run.page import write_report

    write_report(study, request)
    write_manifest(study, request)
    return True


def is_current(study: Study, request: Request) -> bool:
    """True where a manifest is whole, and it and the report are of what the stages left."""
    try:
        known = Manifest.read(study.results)
        entry = known.artefacts[study.report.relative_to(study.root).as_posix()]
        made = entry.key == report_key(study, request) and entry.sha256 == sha256_file(study.report)
        return made and not known.is_edited
    except (RequestError, OSError, ValueError, KeyError):  # damaged, or of another version
        return False


def write_manifest(study: Study, request: Request) -> Path:
    """Put the stages' notes together as ``results/<profile>/manifest.json``, the report included."""
    notes = {stage.name: read_note(study, stage) for stage in all_stages(study)}
    report, lock = study.report, lock_file()
    prepared = {name: digest for note in notes.values() for name, digest in note["data"].items()}
    artefacts = {
        path: {"producer": note["producer"], "stage": name, "sha256": digest}
        for name, note in notes.items()
        for path, digest in note["outputs"].items()
    }
    artefacts[report.relative_to(study.root).as_posix()] = {
        "producer": PRODUCER,
        "stage": None,
        "sha256": sha256_file(report),
        "key": report_key(study, request),
    }
    manifest = {
        "label": study.label,
        "profile": study.params.profile,
        "request": vars(request) | {"sha256": sha256_file(PROJECT / request.params)},
        "parameters": study.params.model_dump(mode="json"),
        "weights": first_weights(study),
        "inputs": {
            dataset: {
                "synthetic": study.is_synthetic(dataset),
                "files": read_json(study.index(dataset).with_suffix(".json"))["files_examined"],
                "files_sha256": prepared[dataset],
                "index_sha256": sha256_file(study.index(dataset)),
            }
            for dataset in needed_sets(study)
        },
        "commit": commit(PROJECT),
        "code_sha256": sha256_json([code_state(entry.notebook) for entry in entries(study)]),
        "lock": {"name": lock.name, "sha256": sha256_file(lock)},
        "locks": {path.name: sha256_file(path) for path in sorted(PROJECT.glob("requirements*.lock"))},
        "python": platform.python_version(),
        "packages": installed_versions(),
        "machine": machine(study.params.compute.device),
        "stages": {name: {field: note[field] for field in StageRun.model_fields} for name, note in notes.items()},
        "measures": {notebook: read_json(study.measures(notebook)) for notebook in measuring(study)},
        "artefacts": artefacts,
    }
    return Manifest.model_validate(manifest).write(study.results)
