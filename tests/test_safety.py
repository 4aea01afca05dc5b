"""Nothing from outside is executed: not a file of weights, not an array, not parameters, not a name or a path."""

import ast
import io
import json
import os
import pickle
import re
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from papermill.translators import PythonTranslator
from snakemake.utils import format as snakemake_format

from lgffem_core.base.errors import StudyError
from lgffem_core.base.project import PROJECT
from lgffem_core.config.parameter_files import PlainLoader, parse_pairs, read_yaml, validate
from lgffem_core.config.params import Backbone as BackboneParams
from lgffem_core.data.sets import pannuke_folds
from lgffem_core.data.sets.imagenet import extract_archive
from lgffem_core.model import backbone, weight_files
from lgffem_core.run.page import run_command
from lgffem_core.run.runner import snakemake_command
from lgffem_core.run.stages import Request
from lgffem_core.systems.lgffem import released

# -- what the code may call -------------------------------------------------------------------------------

#: Modules that run what a file says.
FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
#: Calls that run what a string or a file says, whatever their arguments are.
FORBIDDEN_CALLS = {
    "eval", "exec", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput",
    "pd.read_pickle", "pandas.read_pickle", "shutil.unpack_archive",
    "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "yaml.unsafe_load_all", "yaml.full_load_all",
}  # fmt: skip
#: Call -> the argument that makes it safe, and its value.
NEEDS = {
    "torch.load": ("weights_only", True),
    "load_state_dict": ("weights_only", True),  # timm's reader of files; a module's own is an attribute
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
    "extractall": ("filter", "data"),
}


def call_faults(call: ast.Call) -> list[str]:
    """What is wrong with one call."""
    name = ast.unparse(call.func)
    given = {k.arg: k.value.value if isinstance(k.value, ast.Constant) else "?" for k in call.keywords}
    faults = [name] if name in FORBIDDEN_CALLS else []
    key, safe = NEEDS.get("extractall" if name.endswith(".extractall") else name, (None, None))
    if key and given.get(key) is not safe and given.get(key) != safe:
        faults.append(f"{name} without {key}={safe}")
    if name == "yaml.load" and [ast.unparse(argument) for argument in call.args[1:]] != ["PlainLoader"]:
        faults.append("yaml.load with another loader")
    if given.get("shell", False) is not False:
        faults.append(f"{name} with a shell")
    return faults


def faults(source: str) -> list[str]:
    """Everything in a piece of Python that could run what comes from outside."""
    found = [
        f"shell line {line.strip()}" for line in source.splitlines() if re.match(r"\s*(!|%%?(bash|sh|system)\b)", line)
    ]
    tree = ast.parse("\n".join(line for line in source.splitlines() if not re.match(r"\s*[!%]", line)))
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [f"import {name}" for name in names if name.split(".")[0] in FORBIDDEN_MODULES]
        found += call_faults(node) if isinstance(node, ast.Call) else []
    return found


def project_sources() -> dict[str, str]:
    """Name -> Python source of every module, tool, benchmark and notebook."""
    files = [path for folder in ("lgffem_core", "tools", "benchmarks") for path in (PROJECT / folder).rglob("*.py")]
    sources = {path.relative_to(PROJECT).as_posix(): path.read_text(encoding="utf-8") for path in files}
    for path in (PROJECT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        sources[path.name] = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    return sources


@pytest.mark.parametrize(
    "careless",
    [
        "import pickle", "from joblib import load", "torch.load(p)", "torch.load(p, weights_only=False)",
        "torch.load(p, weights_only=flag)", "load_state_dict(p)", "np.load(p)", "np.load(p, allow_pickle=True)",
        "yaml.load(t, yaml.Loader)", "yaml.load(t)", "yaml.full_load(t)", "subprocess.run(c, shell=True)",
        "subprocess.run(c, shell=s)", "os.system(c)", "x = eval(t)", "exec(t)", "tar.extractall(p)",
        "tarfile.open(p).extractall(p, filter='fully_trusted')", "pd.read_pickle(p)", "!rm -r x", "%%bash\nls",
    ],
)  # fmt: skip
def test_the_scan_finds_what_it_looks_for(careless):
    assert len(faults(careless)) == 1


def test_the_scan_leaves_careful_code_alone():
    careful = (
        "torch.load(p, weights_only=True)", "np.load(p, mmap_mode='r', allow_pickle=False)", "model.eval()",
        "yaml.load(t, PlainLoader)", "yaml.safe_load(t)", "subprocess.run([c])", "tar.extractall(p, filter='data')",
        "model.load_state_dict(s)", "re.compile(x)", "%matplotlib inline",
    )  # fmt: skip
    assert [faults(line) for line in careful] == [[]] * len(careful)


def test_no_module_tool_benchmark_or_notebook_runs_what_comes_from_outside():
    sources = project_sources()
    assert len(sources) > 80 and sum(name.endswith(".ipynb") for name in sources) >= 11
    assert {name: found for name, source in sources.items() if (found := faults(source))} == {}


# -- files that would run code ----------------------------------------------------------------------------


class MakesFolder:
    """Unpickling this makes a folder."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def write_trap(path: Path, made: Path, kind: str) -> None:
    """A file of weights that makes the folder ``made`` where it is unpickled; that is tried."""
    trap = {"state_dict": MakesFolder(made), "model_neck_state_dict": {}, "model_head_state_dict": {}}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(trap, protocol=2))
        pickle.loads(path.read_bytes())
    else:
        torch.save(trap, path, _use_new_zipfile_serialization=kind == "zip")
        torch.load(path, weights_only=False)
    made.rmdir()  # so the attack works where files are read carelessly


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("reader", ["backbone", "released"])
def test_weights_that_would_run_code_are_refused_in_one_sentence(tmp_path, monkeypatch, reader, suffix, kind):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # a user's setting must not open the door
    path, made = tmp_path / f"weights.{suffix}", tmp_path / "made"
    write_trap(path, made, kind)
    with pytest.raises(StudyError) as caught:
        if reader == "backbone":
            backbone.Backbone(BackboneParams(name="test_convnext", pretrained=False), path)
        else:
            released.load_released(torch.nn.Identity(), path)
    sentence = str(caught.value)
    assert str(path) in sentence and "\n" not in sentence and sentence.endswith(".") and caught.value.exit_code == 2
    assert not made.exists()


@pytest.mark.parametrize("error", [TypeError, ValueError, RuntimeError, pickle.UnpicklingError, AttributeError])
def test_no_reader_falls_back_on_unpickling_where_the_careful_one_fails(tmp_path, monkeypatch, error):
    """timm reads .pth files for us; older versions of it tried again without ``weights_only``."""
    (path := tmp_path / "weights.pth").write_bytes(b"x")
    calls = []

    def fails(*arguments, **options):
        calls.append(options.get("weights_only"))
        raise error("no")

    monkeypatch.setattr(torch, "load", fails)
    with pytest.raises(StudyError):
        weight_files.load_local_weights(torch.nn.Identity(), path)
    with pytest.raises(StudyError):
        released.load_released(torch.nn.Identity(), path)
    assert len(calls) >= 2 and set(calls) == {True}


@pytest.mark.parametrize("name", ["images/fold1/images.npy", "images/fold1/types.npy", "masks/fold1/masks.npy"])
def test_arrays_of_pickled_objects_are_refused(tmp_path, name):
    made = tmp_path / "made"
    sound = {"images": np.ones((1, 8, 8, 3)), "types": np.array(["Colon"]), "masks": np.ones((1, 8, 8, 6))}
    for array in ("images/fold1/images.npy", "images/fold1/types.npy", "masks/fold1/masks.npy"):
        (file := tmp_path / "Fold 1" / array).parent.mkdir(parents=True, exist_ok=True)
        np.save(file, sound[file.stem])
    np.save(tmp_path / "Fold 1" / name, np.array([MakesFolder(made)], dtype=object), allow_pickle=True)
    np.load(tmp_path / "Fold 1" / name, allow_pickle=True)
    made.rmdir()
    with pytest.raises(StudyError, match="cannot be read as an array") as caught:
        pannuke_folds.load_fold(tmp_path, 1)
    assert Path(name).name in str(caught.value) and "\n" not in str(caught.value)
    assert not made.exists()


def test_only_the_official_archive_is_unpacked(tmp_path):
    """torchvision checks its MD5 first: a tar with a path outside, as anyone can make one, is never opened."""
    (root := tmp_path / "root").mkdir()
    with tarfile.open(root / "ILSVRC2012_img_train.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("../outside"), io.BytesIO(b""))
    with pytest.raises(StudyError, match="download it again"):
        extract_archive(root)
    assert [path.name for path in tmp_path.rglob("*")] == ["root", "ILSVRC2012_img_train.tar"]


@pytest.mark.parametrize("tag", ["python/object/apply:os.mkdir", "python/object/new:os.mkdir", "python/name:os.mkdir"])
def test_yaml_that_would_run_code_is_refused(tmp_path, tag):
    assert issubclass(PlainLoader, yaml.SafeLoader)
    (path := tmp_path / "p.yaml").write_text(f"seeds: !!{tag} ['{tmp_path / 'made'}']\n")
    for read in (lambda: read_yaml(path), lambda: parse_pairs([path.read_text().replace(": ", "=", 1)])):
        with pytest.raises(StudyError) as caught:
            read()
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "made").exists()


# -- names and paths that a shell would run ---------------------------------------------------------------

AWKWARD = "it's a user's $(touch pwned); `touch pwned` & {x}\ntouch pwned #\" \\"


@pytest.mark.parametrize("name", [AWKWARD, "a b", "$(x)", "a;b", "a'b", "demo\n", "../demo", "", "-rf"])
def test_a_profile_is_named_by_plain_characters(name):
    with pytest.raises(StudyError) as caught:
        validate({"profile": name}, "mine.yaml")
    assert "\n" not in str(caught.value)


@pytest.fixture
def awkward(tmp_path, monkeypatch):
    """A folder with an awkward name, and the current one; a shell that ran the name would leave a file there."""
    (folder := tmp_path / AWKWARD).mkdir()
    monkeypatch.chdir(tmp_path)
    yield folder
    assert not (tmp_path / "pwned").exists()


def bash(command: str) -> str:
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True).stdout


def test_the_folder_is_awkward(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    subprocess.run(["bash", "-c", f"echo {AWKWARD}"], capture_output=True, check=False)
    assert (tmp_path / "pwned").exists()


def test_the_rules_of_the_graph_quote_what_they_hand_to_the_shell(awkward):
    rules = re.findall(r"shell: *\"(.*)\"", (PROJECT / "Snakefile").read_text(encoding="utf-8"))
    assert rules
    show = [sys.executable, "-c", "import json, sys; print(json.dumps(sys.argv[1:]))", str(awkward / "request.json")]
    for rule in rules:
        assert all(field.endswith(":q") for field in re.findall(r"{(.*?)}", rule)), rule
        words = SimpleNamespace(words=["03_strategy_a_imagenet", "--variant", AWKWARD])
        command = snakemake_format(rule, run_notebook=show, params=words)
        assert json.loads(bash(command)) == [str(awkward / "request.json"), *words.words]


def test_the_graphs_wildcards_are_letters_and_digits():
    text = (PROJECT / "Snakefile").read_text(encoding="utf-8")
    assert 'variant="[a-z]+"' in text and 'seed="[0-9]+"' in text


def test_the_graph_of_a_profile_in_an_awkward_folder(awkward, monkeypatch):
    """Snakemake's dry run, in such a folder too."""
    (file := awkward / "mine.yaml").write_text((PROJECT / "params" / "smoke.yaml").read_text().replace("smoke", "mine"))
    request = Request(str(file), {})
    monkeypatch.setenv("LGFFEM_OUTPUT", str(awkward))
    study = request.study
    assert study.root == awkward
    request_file = request.write(study.artifacts / "request.json")
    command = [*snakemake_command(study, request_file, 1), "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "ledger" in done.stdout + done.stderr, done.stderr


def test_a_request_with_awkward_paths_reads_as_it_was_written(awkward):
    (file := awkward / "mine.yaml").write_text("profile: mine\n")
    request = Request(str(file), {"data.kimia.root": str(awkward)})
    read = Request.read(request.write(awkward / "request.json"))
    assert read == request and read.study.data_root("kimia") == awkward


def test_parameters_reach_a_notebook_as_text(awkward):
    given = {"params": str(awkward), "overrides": {AWKWARD: [AWKWARD, {"a": '"""'}], "b": "\\"}, "seed": 0}
    cell = ast.parse(PythonTranslator.codify(given))
    assert all(isinstance(line, ast.Assign) for line in cell.body)
    assert {line.targets[0].id: ast.literal_eval(line.value) for line in cell.body} == given


def test_the_command_in_the_report_can_be_copied(awkward):
    request = Request(str(awkward / "p.yaml"), {"data.kimia.root": AWKWARD})
    words = shlex.split(run_command(request))
    assert words == ["./run_all.sh", request.params, "--set", f"data.kimia.root={AWKWARD}"]


def test_run_all_hands_its_words_over_as_they_are(awkward):
    """A stand-in for the environment's Python says what it was called with."""
    for name in ("run_all.sh", "requirements.lock", "pyproject.toml"):
        (awkward / name).write_bytes((PROJECT / name).read_bytes())
    (awkward / "run_all.sh").chmod(0o755)
    python = awkward / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    python.chmod(0o755)
    stamp = bash(
        f"cat {shlex.quote(str(awkward))}/requirements.lock {shlex.quote(str(awkward))}/pyproject.toml | cksum"
    )
    (awkward / ".venv" / ".complete").write_text(stamp)
    words = ["params/x.yaml", "--set", f"data.kimia.root={AWKWARD}"]
    environment = {key: value for key, value in os.environ.items() if key != "LGFFEM_LOCK"}
    done = subprocess.run([awkward / "run_all.sh", *words], capture_output=True, text=True, check=True, env=environment)
    assert json.loads(done.stdout.splitlines()[-1]) == ["-m", "lgffem_core", *words]
