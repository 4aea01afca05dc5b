"""verify: whatever is changed in a folder of results after its run is found, and named."""

import hashlib
import json
import subprocess
import sys

import pytest

from lgffem_core.base.errors import RequestError
from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import Study
from lgffem_core.run import verify
from lgffem_core.run.record import Manifest
from lgffem_core.run.verify import check_folder, report

FILES = {
    "results/tiny/tables/table1.csv": b"strategy,eta_p\nA,32.81\n",
    "results/tiny/figures/figure1.png": b"one picture",
    "results/tiny/figures/figure2.png": b"another picture",
    "results/tiny/report.html": b"page",
    "results/tiny/notebooks/01.ipynb": b"{}",
    "artifacts/tiny/model.safetensors": b"weights",
}


def sealed(manifest):
    """The manifest with its own hash, computed as its description says and not as the code does."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return rest | {"sha256": hashlib.sha256(text.encode()).hexdigest()}


@pytest.fixture
def project(tmp_path, manifest):
    """A project with one small finished run."""
    params = tmp_path / "params" / "tiny.yaml"
    params.parent.mkdir()
    params.write_text("profile: tiny\ntraining: {b: {epochs: 6}}\n")
    for name, contents in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(contents)
    overrides = {"seeds": [3]}
    manifest["request"] |= {"overrides": overrides, "sha256": hashlib.sha256(params.read_bytes()).hexdigest()}
    manifest |= {
        "parameters": Study.load(params, overrides).params.model_dump(mode="json"),
        "measures": {"found": 0.5, "nothing": float("nan")},
        "artefacts": {
            name: {"producer": "notebooks/07.ipynb", "stage": "07", "sha256": hashlib.sha256(contents).hexdigest()}
            for name, contents in FILES.items()
        },
    }
    write(tmp_path, sealed(manifest))
    return tmp_path


def write(project, manifest):
    (project / "results/tiny/manifest.json").write_text(json.dumps(manifest, indent=2))


def read(project):
    return json.loads((project / "results/tiny/manifest.json").read_text())


def found(project):
    return [(fault.file, fault.sentence) for fault in check_folder(project / "results/tiny", project).faults]


def only(project):
    """The one fault; its sentence names its file."""
    ((file, sentence),) = found(project)
    assert file in sentence and sentence.endswith(".") and "\n" not in sentence
    return file, sentence


def test_a_run_as_it_was_left_has_no_fault(project, capsys):
    assert found(project) == []
    assert report([], project) == 0
    assert capsys.readouterr().out == "results/tiny: 6 artefacts as the manifest says\n"


def test_a_run_that_lies_elsewhere_is_held_against_its_own_artifacts(project, tmp_path_factory, capsys):
    elsewhere = tmp_path_factory.mktemp("output")
    for name in ("results", "artifacts"):
        (project / name).rename(elsewhere / name)
    assert check_folder(elsewhere / "results/tiny", project).faults == [] and report([], project, elsewhere) == 0
    (elsewhere / "artifacts/tiny/model.safetensors").write_bytes(b"other weights")
    (fault,) = check_folder(elsewhere / "results/tiny", project).faults
    assert fault.file == "artifacts/tiny/model.safetensors"
    with pytest.raises(RequestError, match="nothing to verify"):
        report([], project, project)


def test_a_changed_digit_is_found(project, capsys):
    table = project / "results/tiny/tables/table1.csv"
    table.write_text(table.read_text().replace("32.81", "32.91"))
    file, sentence = only(project)
    assert file == "tables/table1.csv" and "not what notebooks/07.ipynb wrote" in sentence
    assert report([project / "results/tiny"], project) == 1
    assert sentence in capsys.readouterr().out


def test_swapped_figures_are_named_as_such(project):
    one, other = (project / f"results/tiny/figures/figure{n}.png" for n in (1, 2))
    pictures = one.read_bytes(), other.read_bytes()
    one.write_bytes(pictures[1])
    other.write_bytes(pictures[0])
    assert [sentence for _, sentence in found(project)] == [
        "figures/figure1.png holds figures/figure2.png.",
        "figures/figure2.png holds figures/figure1.png.",
    ]


@pytest.mark.parametrize("name", ["results/tiny/figures/figure2.png", "artifacts/tiny/model.safetensors"])
def test_a_missing_file_is_found(project, name):
    (project / name).unlink()
    file, sentence = only(project)
    assert file == name.removeprefix("results/tiny/") and "is missing" in sentence


def test_results_that_were_copied_without_their_artifacts_are_one_fault_and_the_last(project):
    manifest = read(project)
    manifest["artefacts"]["artifacts/tiny/b/model.safetensors"] = {"producer": "x", "stage": None, "sha256": "0" * 64}
    write(project, sealed(manifest))
    (project / "artifacts/tiny/model.safetensors").unlink()
    (project / "results/tiny/tables/table1.csv").write_text("A,99.40")
    (project / "params/tiny.yaml").unlink()
    assert [file for file, _ in found(project)] == ["tables/table1.csv", "params/tiny.yaml", "artifacts/tiny"]
    assert found(project)[-1][1] == (
        "2 files under artifacts/tiny are not here: were results copied without artifacts?"
    )
    assert report([project / "results/tiny"], project) == 1


@pytest.mark.parametrize("place", ["results/mine", "backup/tiny"])
@pytest.mark.parametrize("there", [None, b"weights of another run"])
def test_artifacts_of_a_folder_that_was_renamed_or_copied_are_not_said_to_be_changed(project, place, there):
    (project / place).parent.mkdir(exist_ok=True)
    (project / "results/tiny").rename(project / place)
    assert check_folder(project / place, project).faults == []  # while its artifacts are where they were
    (project / "artifacts/tiny").rename(project / "artifacts/mine")
    if there:
        (project / "artifacts/tiny").mkdir()
        (project / "artifacts/tiny/model.safetensors").write_bytes(there)
    (fault,) = check_folder(project / place, project).faults
    assert fault == (
        "artifacts/tiny",
        f"1 of 1 files under artifacts/tiny in {project} are not this run's: {project / place} was copied or renamed; "
        "to check them put it as results/tiny beside its own artifacts/tiny.",
    )


def test_faults_of_artifacts_come_after_those_of_results(project):
    (project / "artifacts/tiny/model.safetensors").write_bytes(b"other weights")
    (project / "results/tiny/extra.csv").write_text("A,99.40")
    assert [file for file, _ in found(project)] == ["extra.csv", "artifacts/tiny/model.safetensors"]


@pytest.mark.parametrize("name", ["tables/table4.csv", "tables/more/table4.csv", "summary.csv"])
def test_a_file_added_by_hand_is_found(project, name):
    path = project / "results/tiny" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("A,99.40")
    assert only(project) == (name, f"{name} is not in the manifest.")


def test_an_edited_manifest_is_found(project):
    text = (project / "results/tiny/manifest.json").read_text()
    (project / "results/tiny/manifest.json").write_text(text.replace('"found": 0.5', '"found": 0.9'))
    file, sentence = only(project)
    assert file == "manifest.json" and "was edited" in sentence


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"profile": "tiny"}', "\xff", "[" * 100_000])
def test_a_manifest_that_is_none_is_one_fault(project, text):
    (project / "results/tiny/manifest.json").write_text(text, encoding="latin-1")
    file, sentence = only(project)
    assert file == "manifest.json" and "cannot be checked" in sentence


DAMAGES = {
    "stages.07.seconds": lambda m: m["stages"]["07"].update(seconds="soon"),
    "stages.07.inputs": lambda m: m["stages"]["07"].pop("inputs"),
    "weights.model.backbone.source": lambda m: m["weights"]["model.backbone"].update(source="somewhere"),
    "inputs.kimia.files": lambda m: m["inputs"]["kimia"].update(files="100"),
    "artefacts.results/tiny/report.html.sha256": lambda m: m["artefacts"]["results/tiny/report.html"].update(sha256=1),
    "code_sha256": lambda m: m.pop("code_sha256"),
    "machine": lambda m: m.update(machine=[]),
    "remarks": lambda m: m.update(remarks="mine"),
}


@pytest.mark.parametrize("field", DAMAGES)
def test_a_damaged_manifest_is_one_fault_that_names_the_field(project, field):
    manifest = read(project)
    DAMAGES[field](manifest)
    write(project, sealed(manifest))
    file, sentence = only(project)
    assert file == "manifest.json" and field in sentence and "; run the profile again" in sentence


@pytest.mark.parametrize("left", ["weights", "files"])
def test_what_runs_of_older_versions_did_not_tell_is_no_fault(project, left):
    manifest = read(project)
    del (manifest if left == "weights" else manifest["inputs"]["kimia"])[left]
    write(project, sealed(manifest))
    assert found(project) == []


@pytest.mark.parametrize("profile", ["demo", "histology"])
def test_a_committed_reference_is_read_whole_and_written_as_it_is(profile, tmp_path):
    folder = PROJECT / "results" / "reference" / profile
    kept = Manifest.read(folder)
    assert not kept.is_edited
    assert kept.write(tmp_path).read_bytes() == (folder / "manifest.json").read_bytes()


def test_an_edited_parameter_is_named_with_both_values(project):
    path = project / "params/tiny.yaml"
    path.write_text(path.read_text().replace("epochs: 6", "epochs: 7"))
    assert only(project) == (
        "params/tiny.yaml",
        "params/tiny.yaml was edited since the run: training.b.epochs is 7 and was 6.",
    )


@pytest.mark.parametrize("text", [None, "profile: tiny\ntrainig: {}\n", "profile: [\n"])
def test_parameters_that_are_gone_or_broken_are_a_fault(project, text):
    path = project / "params/tiny.yaml"
    path.unlink() if text is None else path.write_text(text)
    assert only(project)[0] == "params/tiny.yaml"


def test_a_comment_in_the_parameters_is_a_remark(project, capsys):
    with open(project / "params/tiny.yaml", "a") as handle:
        handle.write("# why six\n")
    assert found(project) == [] and report([], project) == 0
    assert "says the same: the results are those of it.\n" in capsys.readouterr().out


def test_other_defaults_in_the_code_are_a_remark(project, capsys):
    manifest = read(project)
    manifest["parameters"]["training"]["batch_size"] = 63
    write(project, sealed(manifest))
    assert report([], project) == 0
    assert "training.batch_size; the files are as that run left them, and " in capsys.readouterr().out


def test_parameters_that_the_code_has_gained_or_lost_since_are_a_remark(project, capsys):
    manifest, path = read(project), project / "params/tiny.yaml"
    manifest["parameters"]["training"]["gone"] = False
    del manifest["parameters"]["training"]["b"]["epochs"]
    path.write_text(path.read_text() + "# edited\n")
    write(project, sealed(manifest))
    assert report([], project) == 0
    told = capsys.readouterr().out
    assert "the code knew other parameters when it ran: training.b.epochs, training.gone; the files are as " in told
    path.write_text(path.read_text() + "seeds: [0]\nretrieval: {batch_size: 7}\n")
    assert "retrieval.batch_size is 7" in only(project)[1]


def test_withheld_keys_are_not_compared(project):
    manifest = read(project)
    manifest["parameters"]["data"]["kimia"]["root"] = "elsewhere"
    manifest["request"] |= {"withheld": ["data.kimia.root"], "sha256": "0" * 64}
    write(project, sealed(manifest))
    assert found(project) == []


@pytest.mark.parametrize(
    "name", ["results/tiny/../../outside", "/etc/hostname", "artifacts/../../outside", "results/other/table1.csv"]
)
def test_a_name_that_leaves_the_run_is_a_fault_and_is_not_opened(project, name, monkeypatch):
    manifest = read(project)
    manifest["artefacts"][name] = {"producer": "x", "stage": None, "sha256": "0" * 64}
    write(project, sealed(manifest))
    opened, hash_file = [], verify.hash_file
    monkeypatch.setattr(verify, "hash_file", lambda path: (opened.append(path), hash_file(path))[1])
    file, sentence = found(project)[0]
    assert file == "manifest.json" and repr(name) in sentence and len(found(project)) == 1
    assert sorted({path.relative_to(project).as_posix() for path in opened}) == sorted([*FILES, "params/tiny.yaml"])


def test_parameters_outside_the_project_are_a_fault(project):
    manifest = read(project)
    manifest["request"]["params"] = "../tiny.yaml"
    write(project, sealed(manifest))
    assert "leaves the project" in only(project)[1]


def test_a_kept_reference_is_checked_without_what_it_left_out(project, capsys):
    manifest = read(project)
    manifest["left_out"] = ["artifacts/tiny/model.safetensors", "results/tiny/notebooks/01.ipynb"]
    write(project, sealed(manifest))
    reference = project / "results/reference/tiny"
    reference.parent.mkdir()
    (project / "results/tiny").rename(reference)
    (project / "artifacts/tiny/model.safetensors").write_bytes(b"weights of a later run")
    assert report([], project) == 0
    printed = "results/reference/tiny: 4 artefacts as the manifest says (2 of the run are not kept here)\n"
    assert capsys.readouterr().out == printed


def test_without_a_manifest_there_is_nothing_to_check(project, tmp_path, capsys):
    with pytest.raises(RequestError, match="results/none: no manifest.json"):
        report([project / "results/tiny", project / "results/none"], project)
    assert capsys.readouterr().out == ""
    (project / "results/tiny/manifest.json").unlink()
    with pytest.raises(RequestError, match="run one first"):
        report([], project)


def test_a_run_that_did_not_finish_is_not_passed_over_in_silence(project, capsys):
    (project / "results/half/tables").mkdir(parents=True)
    assert report([], project) == 0
    assert "results/half: not checked" in capsys.readouterr().out


def test_neither_verify_nor_compare_needs_torch_or_pandas():
    code = "import sys, lgffem_core.run.verify, lgffem_core.run.compare as c; "
    code += "print({'torch', 'pandas', 'PIL'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
