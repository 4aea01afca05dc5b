"""tools/keep_reference.py: what is kept verifies in a fresh clone, tells no path, and never costs the old reference."""

import hashlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess

import pytest

from lgffem_core.base.errors import StudyError
from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import Study
from lgffem_core.run.registry import artefacts_of, registry
from lgffem_core.run.stages import artefacts
from lgffem_core.run.verify import check_folder

ARTEFACTS = artefacts_of(registry().values())
HOME = "/home/somebody/slides"
GIVEN = {
    "data.kimia.root": HOME,
    "model.backbone": {"name": "resnet18", "weights": "../weights/w.pth"},
    "training.c.epochs": 2,
}
LINKS = """
<a href="notebooks/07_faiss_evaluation.html">notebook</a> <a href="tables/table1.csv">tables/table1.csv</a>
<a href="notebooks/03_strategy_a_imagenet_paper_seed0.html">03_strategy_a_imagenet_paper_seed0</a>
"""


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("keep_reference", PROJECT / "tools" / "keep_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tmp_path, manifest):
    """A function that makes a project with one finished run, and returns its folder of results."""

    def make(overrides, table="A,32.81"):
        params = tmp_path / "params/tiny.yaml"
        params.parent.mkdir(exist_ok=True)
        params.write_text("profile: tiny\n")
        results = tmp_path / "results/tiny"
        paths = [path for artefact in ARTEFACTS for path in artefact.files(results)]
        paths += [results / "report.html", results / "notebooks/01.ipynb", tmp_path / "artifacts/tiny/index/kimia.csv"]
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{path.name} {table}{LINKS if path.name == 'report.html' else ''}")
        study = Study.load(params, overrides, root=tmp_path)
        manifest["request"] |= {"overrides": overrides, "sha256": hashlib.sha256(params.read_bytes()).hexdigest()}
        data = manifest["inputs"]["kimia"]
        manifest.update(
            parameters=study.params.model_dump(mode="json"),
            inputs={n: {**data, "synthetic": study.is_synthetic(n)} for n in ("imagenet", "pannuke", "kimia")},
            artefacts={
                path.relative_to(tmp_path).as_posix(): {
                    "producer": "notebooks/01.ipynb",
                    "stage": "01",
                    "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                }
                for path in paths
            },
        )
        write(results, manifest)
        return results

    return make


def write(results, manifest):
    """Write a manifest with its own hash, computed as its description says and not as the code does."""
    manifest = {key: value for key, value in manifest.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    (results / "manifest.json").write_text(json.dumps(manifest | {"sha256": digest}))


def in_clone(reference, tmp_path):
    """The reference in a project that holds nothing else but the parameters."""
    clone = tmp_path / "clone"
    shutil.copytree(reference, clone / "results/reference/tiny")
    shutil.copytree(tmp_path / "params", clone / "params")
    return clone / "results/reference/tiny", clone


def files_in(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_kept_demo_verifies_in_a_fresh_clone(tool, run, tmp_path):
    results, reference = run({"training.c.epochs": 2}), tmp_path / "results/reference/tiny"
    kept = tool.keep(results, reference)
    everything = {path.relative_to(results).as_posix() for a in ARTEFACTS for path in a.files(results)}
    assert files_in(reference) == everything | {"report.html", "manifest.json"}
    assert {path.relative_to(reference).as_posix() for path in kept} == files_in(reference)
    assert sorted(path.name for path in reference.parent.iterdir()) == ["tiny"]
    folder, clone = in_clone(reference, tmp_path)
    assert check_folder(folder, clone).faults == []
    left_out = json.loads((folder / "manifest.json").read_text())["left_out"]
    assert left_out == ["artifacts/tiny/index/kimia.csv", "results/tiny/notebooks/01.ipynb"]
    (folder / "tables/table1.csv").write_text("A,99.40")
    assert [fault.file for fault in check_folder(folder, clone).faults] == ["tables/table1.csv"]


def test_a_kept_report_leads_to_the_notebooks_in_the_repository(tool, run, tmp_path):
    results, reference = run({"training.c.epochs": 2}), tmp_path / "results/reference/tiny"
    left = (results / "report.html").read_bytes()
    tool.keep(results, reference)
    assert links(reference / "report.html") == [
        "../../../notebooks/07_faiss_evaluation.ipynb",
        "tables/table1.csv",
        "../../../notebooks/03_strategy_a_imagenet.ipynb",
    ]
    assert (results / "report.html").read_bytes() == left
    (results / "report.html").write_bytes(left + b" ")
    with pytest.raises(StudyError, match=r"report\.html is not what"):
        tool.keep(results, reference)


def links(report):
    return re.findall('href="([^"]+)"', report.read_text(encoding="utf-8"))


@pytest.mark.parametrize("report", sorted((PROJECT / "results/reference").glob("*/report.html")))
def test_every_link_of_a_committed_report_leads_to_a_file_in_the_repository(report):
    git = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True)
    if git.returncode:
        pytest.skip("no checkout of git")
    known = set(git.stdout.split("\0"))
    targets = [link for link in links(report) if not link.startswith(("#", "https://"))]
    assert len(targets) > len(ARTEFACTS)
    folder = report.parent.relative_to(PROJECT).as_posix()
    assert [link for link in targets if os.path.normpath(f"{folder}/{link}") not in known] == []


@pytest.mark.parametrize("report", sorted((PROJECT / "results/reference").glob("*/report.html")))
def test_what_makes_a_committed_file_again_starts_in_a_fresh_clone(report, tmp_path):
    """There ``results/<profile>`` does not exist."""
    found = re.findall("To make it again: <code>(.*) &amp;&amp; ./run_all.sh ", report.read_text(encoding="utf-8"))
    assert len(found) == len(artefacts(Study.load(PROJECT / "params" / f"{report.parent.name}.yaml")))
    for command in found:
        subprocess.run(shlex.split(command), cwd=tmp_path, check=True)


def test_given_data_leave_neither_patches_nor_paths(tool, run, tmp_path):
    reference = tmp_path / "results/reference/tiny"
    tool.keep(run(GIVEN), reference)
    text = (reference / "manifest.json").read_text()
    assert "somebody" not in text and "w.pth" not in text
    manifest = json.loads(text)
    keys = ["data.kimia.root", "model.backbone.weights"]
    assert manifest["request"]["withheld"] == keys
    assert manifest["request"]["overrides"] == {
        "data.kimia.root": None,
        "model.backbone": {"name": "resnet18", "weights": None},
        "training.c.epochs": 2,
    }
    assert manifest["parameters"]["data"]["kimia"]["root"] is None
    assert manifest["parameters"]["model"]["backbone"]["weights"] is None
    shown = {path.name for a in ARTEFACTS if a.shows_patches for path in a.files(reference)} | {"report.html"}
    assert not shown & {path.name for path in reference.rglob("*")}
    assert check_folder(*in_clone(reference, tmp_path)).faults == []


def edited(results, change):
    manifest = json.loads((results / "manifest.json").read_text())
    change(manifest)
    write(results, manifest)


FAILURES = {
    "a table that was changed since": (
        lambda results: (results / "tables/table1.csv").write_text("A,99.40"),
        "tables/table1.csv is not what",
    ),
    "a table that is gone": (lambda results: (results / "tables/table1.csv").unlink(), None),
    "a path in an option": (
        lambda results: edited(results, lambda m: m["parameters"]["model"]["backbone"].update(options={"file": HOME})),
        HOME,
    ),
    "a path among a stage's inputs": (
        lambda results: edited(results, lambda m: m["stages"]["07"]["inputs"].update({HOME: "0"})),
        HOME,
    ),
    "a profile elsewhere": (
        lambda results: edited(results, lambda m: m["request"].update(params="~/mine.yaml")),
        "~/mine.yaml",
    ),
    "a path in a table": (
        lambda results: (
            (results / "tables/table1.md").write_text(f"trained on {HOME}"),
            edited(
                results,
                lambda m: m["artefacts"]["results/tiny/tables/table1.md"].update(
                    sha256=hashlib.sha256(f"trained on {HOME}".encode()).hexdigest()
                ),
            ),
        ),
        "tables/table1.md would tell a path",
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_the_old_reference_survives_a_failure(tool, run, tmp_path, failure):
    reference = tmp_path / "results/reference/tiny"
    tool.keep(run(GIVEN), reference)
    before = {name: (reference / name).read_bytes() for name in files_in(reference)}
    results = run(GIVEN, "B,40.00")
    spoil, said = FAILURES[failure]
    spoil(results)
    with pytest.raises(StudyError if said else FileNotFoundError, match=said):
        tool.keep(results, reference)
    assert {name: (reference / name).read_bytes() for name in files_in(reference)} == before
    assert sorted(path.name for path in reference.parent.iterdir()) == ["tiny"]


def test_a_failed_rename_brings_the_old_reference_back(tool, tmp_path):
    old = tmp_path / "reference"
    old.mkdir()
    (old / "table").write_text("old")
    with pytest.raises(FileNotFoundError):
        tool.swap(tmp_path / "not there", old, tmp_path / ".old")
    assert (old / "table").read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["reference"]


def test_a_kill_between_the_renames_is_made_good_by_the_next_call(tool, run, tmp_path):
    reference = tmp_path / "results/reference/tiny"
    tool.keep(run({}), reference)
    reference.rename(reference.with_name(".tiny.old"))
    results = run({}, "B,40.00")
    (results / "tables/table1.csv").unlink()
    with pytest.raises(FileNotFoundError):
        tool.keep(results, reference)
    assert "A,32.81" in (reference / "tables/table1.csv").read_text()


@pytest.mark.parametrize("text", ["/home/a", "~/a", "C:\\data", "../a", "trained on /data/a", 'file="/data/a"'])
def test_paths_of_a_machine_are_recognised(tool, text):
    assert tool.MACHINE_PATH.search(text)


@pytest.mark.parametrize(
    "text", ["artifacts/demo/a.csv", "and/or", "η_p / η_w", "https://a.org/b", "notebooks/01.ipynb", "text -> code"]
)
def test_other_texts_are_not(tool, text):
    assert not tool.MACHINE_PATH.search(text)


def test_the_committed_manifests_tell_no_absolute_path(tool):
    for path in (PROJECT / "results/reference").glob("*/manifest.json"):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        absolute = [text for text in tool.texts(manifest) if tool.MACHINE_PATH.search(text) and text[:2] != ".."]
        assert absolute == []
