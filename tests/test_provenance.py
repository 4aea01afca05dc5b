"""The manifest: put together from the stages' notes, with commit, versions and device."""

import hashlib
import subprocess

from lgffem_core import provenance
from lgffem_core.files import read_json, write_json
from lgffem_core.params import DATASETS
from lgffem_core.report.page import report_path
from lgffem_core.stages import MEASURING, all_stages, stage_name
from lgffem_core.study import PROJECT, Study


def test_manifest_gathers_every_stage(tmp_path):
    study = Study.load(PROJECT / "params" / "smoke.yaml", root=tmp_path)
    for dataset in DATASETS:
        study.index(dataset).parent.mkdir(parents=True, exist_ok=True)
        study.index(dataset).write_text(dataset)
    for number, (notebook, variant, seed) in enumerate(all_stages(study)):
        name = stage_name(notebook, variant, seed)
        note = {"producer": f"notebooks/{notebook}.ipynb", "seed": 0, "seconds": 1.0, "peak_memory_mib": 100}
        write_json(study.artifacts / "stages" / f"{name}.json", note | {"outputs": {f"file{number}": "abc"}})
    for notebook in MEASURING:
        write_json(study.measures(notebook), {"found": notebook})
    report_path(study).parent.mkdir(parents=True, exist_ok=True)
    report_path(study).write_text("page")
    manifest = read_json(provenance.write_manifest(study))
    assert len(manifest["stages"]) == 11 and len(manifest["artefacts"]) == 12
    assert manifest["measures"]["09_projection"] == {"found": "09_projection"}
    report = manifest["artefacts"]["results/smoke/report.html"]
    assert report["sha256"] == hashlib.sha256(b"page").hexdigest()
    assert (PROJECT / report["producer"]).is_file()
    assert manifest["artefacts"]["file0"] == {
        "producer": "notebooks/01_data_preparation.ipynb",
        "sha256": "abc",
        "stage": "01_data_preparation",
    }
    assert manifest["parameters"]["profile"] == "smoke" and "DEMO" in manifest["label"]
    assert manifest["inputs"]["kimia"]["synthetic"] is True
    assert manifest["packages"]["torch"] and manifest["device"] and manifest["commit"]["id"] is None


def test_commit_tells_changed_files(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *identity, "-C", str(tmp_path), *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "a.txt").write_text("one")
    git("add", "a.txt")
    git("commit", "-m", "first")
    clean = provenance.commit(tmp_path)
    assert len(clean["id"]) == 40 and clean["changed_files"] is False
    (tmp_path / "a.txt").write_text("two")
    assert provenance.commit(tmp_path) == {"id": clean["id"], "changed_files": True}
