"""The manifest: put together from the stages' notes, with commit, versions and device."""

import hashlib
import os
import platform
import subprocess

import pytest
import torch

from lgffem_core.base.files import read_json, sha256_file, sha256_json, write_json, write_text
from lgffem_core.base.project import PROJECT
from lgffem_core.config import machine as machine_module
from lgffem_core.config.machine import graphics, installed_versions, machine, processor
from lgffem_core.config.params import DATASETS
from lgffem_core.config.study import Study
from lgffem_core.run import manifest as provenance
from lgffem_core.run import page
from lgffem_core.run.compare import causes
from lgffem_core.run.record import Manifest
from lgffem_core.run.stages import Request, all_stages, measuring, note_file

REQUEST = Request("params/smoke.yaml", {})


@pytest.fixture
def finished(tmp_path):
    """A study whose stages have left their notes, and little else."""
    study = Study.load(PROJECT / "params" / "smoke.yaml", root=tmp_path)
    for dataset in DATASETS:
        write_text(study.index(dataset), dataset)
        write_json(study.index(dataset).with_suffix(".json"), {"files_examined": 100})
    for number, stage in enumerate(all_stages(study)):
        note = {"producer": f"notebooks/{stage.notebook}.ipynb", "seed": 0, "seconds": 1.0, "peak_memory_mib": 100}
        note |= {"key": f"key{number}", "inputs": {"earlier": "abc"}, "machine": machine(study.params.compute.device)}
        note |= {"data": dict.fromkeys(DATASETS, "digest"), "outputs": {f"file{number}": "abc"}}
        write_json(note_file(study, stage), note)
    for notebook in measuring(study):
        write_json(study.measures(notebook), {"found": notebook})
    write_text(study.report, "page")
    return study


def test_manifest_gathers_every_stage(finished):
    manifest = read_json(provenance.write_manifest(finished, REQUEST))
    assert len(manifest["stages"]) == len(manifest["artefacts"]) - 1 == len(all_stages(finished))
    assert manifest["measures"]["09_projection"] == {"found": "09_projection"}
    report = manifest["artefacts"]["results/smoke/report.html"]
    assert report["sha256"] == hashlib.sha256(b"page").hexdigest()
    assert (PROJECT / report["producer"]).is_file()
    assert manifest["artefacts"]["file0"] == {
        "producer": "notebooks/01_data_preparation.ipynb",
        "sha256": "abc",
        "stage": "01_data_preparation",
    }
    assert manifest["stages"]["08_grad_cam"]["inputs"] == {"earlier": "abc"}
    assert manifest["parameters"]["profile"] == "smoke" and "DEMO" in manifest["label"]
    assert manifest["inputs"]["kimia"]["synthetic"] is True and manifest["inputs"]["kimia"]["files"] == 100
    assert manifest["weights"]["model.backbone"] == {"source": "random"}
    assert manifest["request"]["sha256"] == sha256_file(PROJECT / "params" / "smoke.yaml")
    assert manifest["packages"]["torch"] == torch.__version__.split("+")[0]
    assert manifest["machine"]["architecture"] == platform.machine() and manifest["machine"]["gpu"] is None
    rest = {name: value for name, value in manifest.items() if name != "sha256"}
    assert manifest["sha256"] == sha256_json(rest)


def test_compare_says_of_two_real_manifests_how_many_files_each_run_had(finished):
    one = Manifest.read(provenance.write_manifest(finished, REQUEST).parent)
    write_text(finished.index("kimia"), "other slides")
    write_json(finished.index("kimia").with_suffix(".json"), {"files_examined": 99})
    other = Manifest.read(provenance.write_manifest(finished, REQUEST).parent)
    assert causes(one, one) == []
    assert causes(one, other) == ["other data: kimia (100 files in the reference, 99 in the rerun)"]


def test_the_manifest_that_others_are_tested_with_has_the_form_of_a_real_one(finished, manifest):
    real = Manifest.read(provenance.write_manifest(finished, REQUEST).parent)
    assert Manifest.model_validate(manifest).model_fields_set | {"sha256"} == real.model_fields_set
    assert not real.is_edited


def test_a_report_is_written_again_only_where_something_is_another(finished, monkeypatch):
    pages = []

    def write(study, request):
        pages.append(write_text(study.report, f"page {len(pages)}"))

    monkeypatch.setattr(page, "write_report", write)
    assert provenance.keep_report(finished, REQUEST) and not provenance.keep_report(finished, REQUEST)
    write_text(finished.report, "by hand")
    assert provenance.keep_report(finished, REQUEST) and not provenance.keep_report(finished, REQUEST)
    manifest = finished.results / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"seconds": 1.0', '"seconds": 0.5', 1))
    assert provenance.keep_report(finished, REQUEST) and not provenance.keep_report(finished, REQUEST)
    for damaged in ("{", "[]", "{}", manifest.read_text().replace("artefacts", "artifacts")):
        manifest.write_text(damaged)
        assert provenance.keep_report(finished, REQUEST) and not provenance.keep_report(finished, REQUEST)
    assert provenance.keep_report(finished, Request("params/smoke.yaml", {"seeds": [0]}))


@pytest.mark.parametrize("edit", ["# a word", "compute: {workers: 3}", "another key"])
def test_the_manifest_follows_parameters_and_notes_that_change_no_output(finished, monkeypatch, tmp_path, edit):
    monkeypatch.setattr(page, "write_report", lambda study, request: None)
    (file := tmp_path / "smoke.yaml").write_text("profile: smoke\n")
    request = Request(str(file), {})
    study = Study.load(file, root=tmp_path)
    assert provenance.keep_report(study, request) and not provenance.keep_report(study, request)
    if edit == "another key":
        note = note_file(study, all_stages(study)[-1])
        write_json(note, read_json(note) | {"key": edit})
    else:
        file.write_text(f"profile: smoke\n{edit}\n")
    study = Study.load(file, root=tmp_path)
    assert provenance.keep_report(study, request) and not provenance.keep_report(study, request)
    manifest = read_json(study.results / "manifest.json")
    assert manifest["parameters"] == study.params.model_dump(mode="json")
    assert manifest["request"]["sha256"] == sha256_file(file)


def test_the_graphics_card_is_asked_by_its_own_program(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H200, 570.86.15'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    graphics.cache_clear()
    assert graphics() == ("NVIDIA H200", "570.86.15")
    program.write_text("#!/bin/sh\nexit 9\n")
    graphics.cache_clear()
    assert graphics() == (None, None)
    graphics.cache_clear()


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("model name\t: AMD EPYC\nflags\t\t: sse2 avx avx2 fma\n\nmodel name\t: AMD EPYC\n", "AMD EPYC, avx2"),
        ("model name\t: AMD EPYC\nflags\t\t: sse2 avx avx2 avx512f avx512_bf16\n", "AMD EPYC, avx512_bf16"),
        ("model name\t: Old\nflags\t\t: sse2\n", "Old"),
        ("BogoMIPS\t: 50.00\nFeatures\t: fp asimd bf16\n", f"{platform.processor() or 'unknown processor'}, asimd"),
        (None, platform.processor() or "unknown processor"),
    ],
)
def test_a_processor_is_known_by_its_instructions_too(tmp_path, told, words):
    """Of two that call themselves AMD EPYC, one had other last bits: a rerun that differs must be told why."""
    if told is not None:
        (tmp_path / "cpuinfo").write_text(told)
    assert processor(tmp_path / "cpuinfo") == f"{words}, {os.cpu_count()} cores"


def test_commit_tells_changed_files(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *identity, "-C", str(tmp_path), *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "a.txt").write_text("one")
    git("add", "a.txt")
    git("commit", "-m", "first")
    clean = provenance.commit(tmp_path)
    assert len(clean["id"]) == 40 and clean["changed_files"] is False and clean["changes_sha256"] is None
    changes = set()
    for text in ("two", "three"):
        (tmp_path / "a.txt").write_text(text)
        changed = provenance.commit(tmp_path)
        assert changed["id"] == clean["id"] and changed["changed_files"]
        changes.add(changed["changes_sha256"])
    assert len(changes) == 2


def test_the_commit_is_that_of_the_checkout_whatever_git_is_told(tmp_path, monkeypatch):
    """A hook, from which a run may be started, has GIT_DIR set."""
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for name in ("one", "two"):
        subprocess.run(["git", "init", "-q", str(tmp_path / name)], check=True)
        command = ["git", *identity, "-C", str(tmp_path / name), "commit", "-q", "--allow-empty", "-m", name]
        subprocess.run(command, check=True)
    one, two = (provenance.commit(tmp_path / name)["id"] for name in ("one", "two"))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "two" / ".git"))
    assert one != two and provenance.commit(tmp_path / "one")["id"] == one


def test_without_git_there_is_no_commit(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.commit(PROJECT) == {"id": None, "changed_files": None, "changes_sha256": None}


def test_outside_a_checkout_there_is_no_commit(tmp_path):
    assert set(provenance.commit(tmp_path).values()) == {None}


def test_a_half_removed_package_has_no_version(tmp_path, monkeypatch):
    for name, text in (("whole-1.0", "Metadata-Version: 2.1\nName: whole\nVersion: 1.0\n"), ("half-1.0", None)):
        (folder := tmp_path / f"{name}.dist-info").mkdir()
        if text:
            (folder / "METADATA").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert installed_versions(("whole", "half", "absent")) == {"whole": "1.0"}

    def raises(name):
        raise FileNotFoundError(name)  # as importlib_metadata does, and later Pythons

    monkeypatch.setattr(machine_module.importlib.metadata, "version", raises)
    assert installed_versions(("half",)) == {}
