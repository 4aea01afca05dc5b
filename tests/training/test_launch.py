"""Several processes that a training starts: they come to what one process comes to, and end clearly where one dies."""

import os
import time
from contextlib import suppress
from threading import Thread
from types import SimpleNamespace

import pandas as pd
import psutil
import pytest

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.systems.lgffem.__main__ import locked
from lgffem_core.systems.lgffem.strategies import train_strategy
from lgffem_core.training import launch


def weights(study):
    return study.checkpoints("a", "paper", 0) / "model.safetensors"


def kill_one_of_two(folder):
    """Kill the second process of a training once it has left a checkpoint in ``folder``."""
    while not list(folder.glob("step_*")):
        time.sleep(0.01)
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if process.environ().get("RANK") == "1":
                process.kill()


def test_two_processes_come_to_the_losses_of_one_also_where_one_of_them_is_killed(tiny_study, capfd):
    """compute.devices starts them: gloo, on the CPU. The same samples in each batch: the same losses but for rounding.

    Batches of 3, of which one process has two images and the other one, and a last one that is not full: unequal
    shares, equal images. 56 steps, one killed after the first checkpoints, and going on from there.
    """
    uneven = {"training__batch_size": 3, "training__loss__scale": 4.0, "training__a__drop_last": False}
    uneven |= {"training__a__epochs": 7, "compute__checkpoint_steps": 2}
    single = train_strategy(tiny_study("single", **uneven), "a", "paper", 0).history
    study = tiny_study("double", **uneven, compute__devices=2)
    folder = study.checkpoints("a", "paper", 0)
    killer = Thread(target=kill_one_of_two, args=[folder])
    killer.start()
    with pytest.raises(StudyError, match="strategy A: one of its 2 processes ended with code -9, .* goes on from"):
        train_strategy(study, "a", "paper", 0)
    killer.join()
    reached = max(int(path.stem[5:]) for path in folder.glob("step_*"))
    assert reached < 56 and not weights(study).exists()
    capfd.readouterr()
    double = train_strategy(study, "a", "paper", 0).history
    assert 0 < capfd.readouterr().out.count("images/s") <= 7 - reached // 8  # epochs of 8 steps, shown where one asked
    assert len(single) == 7 and not (folder / "torchrun.log").exists()
    pd.testing.assert_frame_equal(double, single, rtol=1e-5)
    made = weights(study).stat()
    assert train_strategy(study, "a", "paper", 0).weights.stat() == made  # finished: nothing is started


def test_what_processes_say_of_an_error_is_the_error(tmp_path):
    """The second text is torchrun's on a killed process."""
    log = tmp_path / "torchrun.log"
    assert launch.why(
        "a warning\nerror: data.kimia.root: is empty.\nRoot Cause:\n  exitcode  : 2 (pid: 7)\n", "A", 2, log
    ) == ("data.kimia.root: is empty.")
    killed = launch.why(
        "Root Cause (first observed failure):\n  rank      : 1\n  exitcode  : -9 (pid: 7)\n", "A", 2, log
    )
    assert killed.startswith(f"A: one of its 2 processes ended with code -9, and the others with it (see {log}); give")
    assert "2 processes ended before its time," in launch.why("", "A", 2, log)


def test_processes_share_the_lock_of_whoever_waits_for_them(tiny_study, tmp_path, monkeypatch):
    """In a run, and in the command; a notebook in JupyterLab holds none, and they take it."""
    seen = []
    monkeypatch.setattr(launch, "subprocess", SimpleNamespace(PIPE=-1, Popen=lambda *_, env, **__: seen.append(env)))

    def environment(study):
        with pytest.raises(AttributeError):  # of None, the process
            launch.launch(study, "module", [], "title", tmp_path / "log")
        return seen.pop()

    study = tiny_study(compute__devices=2)
    assert launch.HELD not in environment(study) and environment(study)["LGFFEM_OUTPUT"] == str(study.root)
    with locked(study):
        assert environment(study)[launch.HELD] == "1"
    assert launch.HELD not in os.environ
    monkeypatch.setenv("LGFFEM_EVENTS", str(tmp_path / "events"))
    monkeypatch.setenv("LGFFEM_DECLARED", str(tmp_path / "declared"))
    monkeypatch.setattr("lgffem_core.config.watched.current", lambda: None)
    assert environment(study)[launch.HELD] == "1" and "LGFFEM_DECLARED" not in environment(study)


def test_more_gpus_than_there_are_is_a_sentence(tiny_study, tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "uses_gpu", lambda compute: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(RequestError, match="^compute.devices: 2 GPUs are asked for and torch sees 1"):
        launch.launch(tiny_study(compute__devices=2), "module", [], "title", tmp_path / "log")
