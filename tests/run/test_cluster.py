"""Runs on a cluster: the profiles name what Snakemake and the registry know, and what is missing is said at once.

The scripts for Kubernetes meet a kubectl that only writes down what it is given; ``tools/slurm_here.sh`` starts a real
SLURM, which takes minutes and is run by hand.
"""

import os
import subprocess
import sys

import pytest
import yaml

from lgffem_core.base.project import PROJECT
from lgffem_core.config.parameter_files import read_yaml
from lgffem_core.config.study import Study
from lgffem_core.run import cli, cluster
from lgffem_core.run.cli import main
from lgffem_core.run.cluster import cluster_profile
from lgffem_core.run.plan import NOTE
from lgffem_core.run.registry import registry
from lgffem_core.run.runner import snakemake_command
from lgffem_core.run.stages import all_stages, resources

SMOKE = str(PROJECT / "params" / "smoke.yaml")
PODS = PROJECT / "profiles" / "kubernetes"


@pytest.fixture
def there(monkeypatch):
    """As if the plugins were installed; what is put before PATH is taken away again."""
    monkeypatch.setattr(cluster, "find_spec", lambda name: name)
    monkeypatch.setenv("PATH", os.environ["PATH"])


def program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


# -- profiles ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["slurm", "kubernetes"])
def test_a_profile_names_options_of_snakemake_or_of_its_plugin(name):
    folder = PROJECT / "profiles" / name
    settings = read_yaml(folder / "config.yaml")
    executor = settings.pop("executor")
    requirements = (folder / "requirements.txt").read_text(encoding="utf-8")
    assert f"\nsnakemake-executor-plugin-{executor}==" in requirements
    lines = [line for line in requirements.splitlines() if not line.startswith("#")]
    assert lines and all(" --hash=sha256:" in line for line in lines)
    known = subprocess.run([sys.executable, "-m", "snakemake", "--help"], capture_output=True, text=True).stdout
    own = {key for key in settings if key.startswith(f"{executor}-")}
    for key in settings.keys() - own:
        assert f"--{key} " in known, key
    plugin = pytest.importorskip(f"snakemake_executor_plugin_{executor.replace('-', '_')}")
    fields = plugin.ExecutorSettings.__dataclass_fields__
    assert {key.removeprefix(f"{executor}-").replace("-", "_") for key in own} <= fields.keys()


def test_what_the_kubernetes_profile_hands_over_is_what_a_stage_asks_for():
    words = read_yaml(PODS / "config.yaml")["cluster-generic-submit-cmd"].split()
    asked = resources(Study.load(PROJECT / "params" / "paper.yaml"), registry()["03_strategy_a_imagenet"])
    assert words == ["pod-submit", "IMAGE", "CLAIM", "FOLDER", *(f"{{resources.{name}}}" for name in asked)]


def test_snakemake_is_told_the_clusters_profile_and_cores_only_where_they_are_given(tmp_path):
    study = Study.load(SMOKE, root=tmp_path)
    command = snakemake_command(study, study.artifacts / "request.json", None, PROJECT / "profiles" / "slurm")
    assert command[command.index("--workflow-profile") + 1] == str(PROJECT / "profiles" / "slurm")
    assert "--cores" not in command
    command = snakemake_command(study, study.artifacts / "request.json", 3, PROJECT / "profiles" / "slurm")
    assert command[command.index("--cores") + 1] == "3"


# -- what is missing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (None, "holds no config.yaml"),
        ("jobs: 3\n", "config.yaml: says no executor"),
        ("executor: [slurm]\n", "config.yaml: says no executor"),
        ("executor: moon\n", "plugin for the executor moon is missing; install it: .venv/bin/python -m pip install "),
        ("executor: [\n", "config.yaml"),
    ],
)
def test_a_folder_that_cannot_serve_ends_with_one_sentence(tmp_path, monkeypatch, capsys, config, said):
    monkeypatch.setenv("LGFFEM_OUTPUT", str(tmp_path / "out"))
    if config is not None:
        (tmp_path / "config.yaml").write_text(config)
    assert main([SMOKE, "--cluster", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("config", "submits"),
    [("executor: slurm\n", "sbatch"), ("executor: cluster-generic\ncluster-generic-submit-cmd: qsub -V\n", "qsub")],
)
def test_a_machine_that_cannot_submit_is_told_by_name(there, tmp_path, monkeypatch, capsys, config, submits):
    (tmp_path / "config.yaml").write_text(config)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([SMOKE, "--cluster", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"error: --cluster {tmp_path}: {submits} is not found; start the run where jobs can be submitted.\n"
    )
    program(tmp_path / submits, "")
    assert cluster_profile(str(tmp_path)) == tmp_path


def test_a_cluster_is_for_runs_alone(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["verify", "--rerun", "--cluster", "profiles/slurm"])
    assert "unrecognized arguments: --cluster" in capsys.readouterr().err


def test_a_dry_run_says_what_a_cluster_lacks_and_starts_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LGFFEM_OUTPUT", str(tmp_path / "out"))
    monkeypatch.setattr(cli, "run", lambda *_: pytest.fail("started"))
    assert main([SMOKE, "--cluster", "nowhere", "--dry-run"]) == 2  # as the run itself
    jobs = len(all_stages(Study.load(SMOKE)))
    printed = capsys.readouterr()
    told = printed.out.splitlines()
    assert printed.err.startswith("error: --cluster nowhere: holds no config.yaml")
    assert len(told) == 1 + jobs + 2 and told[-1] == NOTE and not (tmp_path / "out").exists()


# -- Kubernetes -------------------------------------------------------------------------------------------


@pytest.fixture
def kubectl(tmp_path, monkeypatch):
    """A kubectl that writes down its words and its input, and answers what the file ``answer`` holds."""
    (folder := tmp_path / "bin").mkdir()
    program(folder / "kubectl", f'cd {tmp_path}\necho "$@" >>words\n[ "$1" != create ] || cat >input\ncat answer')
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def call(answer, *words):
        (tmp_path / "answer").write_text(answer)
        done = subprocess.run([PODS / words[0], *words[1:]], capture_output=True, text=True, check=True)
        return done.stdout

    return call


def test_a_job_asks_for_its_share_and_runs_its_script_in_this_environment(kubectl, tmp_path, monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "4 294 'x'")
    script = tmp_path / "a folder" / "script.sh"
    script.parent.mkdir()
    script.write_text(f'printf %s "$MALLOC_TRIM_THRESHOLD_" >"{tmp_path}/seen"\n')
    words = ("image:1", "claim", "/shared", "4", "16000", "240", "1", str(script))
    assert kubectl("job.batch/lgffem-x\n", "pod-submit", *words) == "job.batch/lgffem-x\n"
    job = yaml.safe_load((tmp_path / "input").read_text())
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert job["spec"]["activeDeadlineSeconds"] == 240 * 60 and container["image"] == "image:1"
    assert container["resources"] == {
        "requests": {"cpu": 4, "memory": "16000M"},
        "limits": {"memory": "16000M", "nvidia.com/gpu": 1},
    }
    assert {m["name"]: m["mountPath"] for m in container["volumeMounts"]} == {"study": "/shared", "shm": "/dev/shm"}
    assert pod["securityContext"] == {"runAsUser": os.getuid(), "runAsGroup": os.getgid()}
    subprocess.run(container["command"], env={"PATH": os.environ["PATH"]}, check=True)
    assert (tmp_path / "seen").read_text() == "4 294 'x'"


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ("job ", "running"),
        ("job Complete", "success"),
        ("job SuccessCriteriaMet Complete", "success"),
        ("job Failed", "failed"),
        ("job FailureTarget Failed", "failed"),
        ("", "failed"),
    ],
)
def test_a_jobs_state_is_told_as_snakemake_asks(kubectl, answer, state):
    assert kubectl(answer, "pod-status", "job.batch/lgffem-x") == f"{state}\n"


def test_jobs_are_ended(kubectl, tmp_path):
    kubectl("", "pod-cancel", "job.batch/a", "job.batch/b")
    assert (tmp_path / "words").read_text().split()[-2:] == ["job.batch/a", "job.batch/b"]
