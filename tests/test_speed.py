"""benchmarks/speed.py on a network that takes a second, and benchmarks/loading.py on a handful of images."""

import os
import runpy
import subprocess
import sys

import pandas as pd
import pytest

from lgffem_core.base.project import PROJECT

TINY = [
    "model.backbone.name=convnextv2_atto",
    "model.backbone.options={depths: [1, 1, 1, 1], dims: [16, 32, 64, 128]}",
    *("model.image_size=64", "model.neck.channels=8", "model.neck.layers=1"),
]


def test_both_paths_are_measured_in_turn_and_told(tmp_path):
    command = [sys.executable, "benchmarks/speed.py", "--batch", "2", "--repeats", "2", "--out", str(tmp_path)]
    # Without a compiler, which would take two minutes: test_compiled has what it makes.
    bare = {"env": os.environ | {"PATH": str(tmp_path)}, "cwd": PROJECT}
    done = subprocess.run([*command, "--set", *TINY], **bare, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    halves = pd.read_csv(tmp_path / "speed_training.csv")["precision"].tolist()[1] != "32-true"
    assert done.stdout.count("torch.compile needs a C++ compiler") == 2 * halves
    for task in ("training", "embedding"):
        table = pd.read_csv(tmp_path / f"speed_{task}.csv")
        assert table["code"].tolist() == ["this study, compute.fast=false", "this study"]
        assert table["ratio"][0] == 1 and (table["images_per_s"] > 0).all()
        assert f"share_of_{'bf16' if halves else 'fp32'}_matrix_rate" in table  # what this processor computes in
        assert (table["lowest"] <= table["images_per_s"]).all() and (table["images_per_s"] <= table["highest"]).all()
    hours = pd.read_csv(tmp_path / "projection.csv")
    assert hours["epochs"].tolist()[:3] == [60, 300, 300]  # the paper, section 4.1.3


def test_loading_without_words_measures_all_of_it(tmp_path, monkeypatch):
    loading = runpy.run_path(str(PROJECT / "benchmarks" / "loading.py"))
    asked = []
    for task in ("rates", "memory", "index"):
        measure = lambda folder, args, task=task: asked.append(task) or pd.DataFrame({task: [args.links]})  # noqa: E731
        monkeypatch.setitem(loading["main"].__globals__, task, measure)
    for words in ([], ["index"]):
        monkeypatch.setattr(sys, "argv", ["loading.py", *words, "--out", str(tmp_path)])
        loading["main"]()
    assert asked == ["rates", "memory", "index", "index"]
    assert pd.read_csv(tmp_path / "loading_memory.csv")["memory"].tolist() == [1_000_000]
    monkeypatch.setattr(sys, "argv", ["loading.py", "speed", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        loading["main"]()
