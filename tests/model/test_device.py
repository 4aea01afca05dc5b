"""What torch is set to before anything is computed."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch

from lgffem_core.base.errors import RequestError
from lgffem_core.base.project import PROJECT
from lgffem_core.config.params import Compute
from lgffem_core.config.study import Study
from lgffem_core.model.device import autocast, precision_of, prepare_device
from lgffem_core.retrieval.encoder import embed
from lgffem_core.systems.lgffem.model import build_model

ASK = """
import json, os, torch
from lgffem_core.model.device import prepare_device
from lgffem_core.config.params import Compute
tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
prepare_device(Compute(device="cpu", threads=1))
print(json.dumps({"before": tf32, "after": {
    "matmul": [torch.backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()],
    "convolution": [torch.backends.cudnn.allow_tf32],
    "deterministic": [torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark],
    "workspace": os.environ["CUBLAS_WORKSPACE_CONFIG"],
    "threads": torch.get_num_threads(),
}}))
"""


def test_float32_is_no_tf32_and_a_rerun_gives_the_same_whatever_the_environment_says():
    """torch itself reads the first variable and allows TF32 everywhere; the second asks cuBLAS for the fast sums."""
    environment = {**os.environ, "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1", "CUBLAS_WORKSPACE_CONFIG": ":0:0"}
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, env=environment, cwd=PROJECT)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["before"] == [True, True]
    assert said["after"] == {
        "matmul": [False, "highest"],
        "convolution": [False],
        "deterministic": [True, False],
        "workspace": ":4096:8",
        "threads": 1,
    }


@pytest.mark.parametrize(
    ("asked", "there", "device"),
    [("auto", True, "cuda"), ("cuda", True, "cuda"), ("cpu", True, "cpu"), ("auto", False, "cpu")],
)
def test_a_gpu_is_used_where_there_is_one_and_it_may_be(monkeypatch, asked, there, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert prepare_device(Compute(device=asked)) == device


def test_a_gpu_that_is_asked_for_must_be_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RequestError, match="compute.device is cuda, but torch sees no CUDA device; set it to auto or"):
        prepare_device(Compute(device="cuda"))


def test_the_device_is_chosen_nowhere_else():
    """No module or notebook moves a model to a GPU whose settings it has not asked for."""
    sources = [*PROJECT.glob("lgffem_core/**/*.py"), *PROJECT.glob("notebooks/*.ipynb")]
    choosing = re.compile(r"compute\.device [=!]=|to\(\\?[\"']cuda")
    found = {path.name for path in sources if choosing.search(path.read_text(encoding="utf-8"))}
    assert found == {"device.py", "checklist.py", "stages.py"}  # to try it before a start; to ask a cluster for one


@pytest.fixture(autouse=True)
def put_back():
    """The number of threads, for the tests after these."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("asked", "unit", "found"),
    [
        ({}, "avx512_bf16", "bf16-mixed"),
        ({}, "amx_bf16", "bf16-mixed"),
        ({}, "avx2", "32-true"),
        ({"fast": False}, "avx512_bf16", "32-true"),
        ({"precision": "32-true"}, "avx512_bf16", "32-true"),
        ({"precision": "16-mixed", "fast": False}, "avx2", "16-mixed"),
    ],
)
def test_half_precision_on_a_processor_that_has_it_unless_something_else_is_asked(monkeypatch, asked, unit, found):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {unit: True})
    assert precision_of(Compute(device="cpu", **asked)) == found


@pytest.mark.parametrize(
    ("asked", "bf16", "found"),
    [({}, True, "bf16-mixed"), ({}, False, "16-mixed"), ({"fast": False}, True, "32-true")],
)
def test_half_precision_on_a_gpu(monkeypatch, asked, bf16, found):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: bf16)
    assert precision_of(Compute(**asked)) == found


def test_embeddings_in_half_precision_point_where_those_in_float32_do(tmp_path):
    """The issue's bound, a cosine of 0.999, with the paper's family of backbones and three neck layers."""
    pairs = {"model.neck.channels": 64, "model.neck.layers": 3, "model.toggles.head_norm": False}
    studies = {p: Study.load(PROJECT / "params/smoke.yaml", {**pairs, "compute.precision": p}, root=tmp_path)
               for p in ("32-true", "bf16-mixed")}  # fmt: skip
    images = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    plain, half = (
        torch.from_numpy(embed(build_model(study, "paper", 0), [images], "cpu", precision))
        for precision, study in studies.items()
    )
    assert plain.dtype == half.dtype == torch.float32 and not torch.equal(plain, half)
    assert torch.cosine_similarity(plain, half).min() >= 0.999


def test_without_half_precision_the_context_changes_nothing():
    with autocast("cpu", "32-true"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
